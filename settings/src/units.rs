//! Quantities with their unit written out.
//!
//! A quantity is a decimal number, an optional space and a unit: `"1.5 Gbit/s"`. Arithmetic is exact: a text that
//! is not a whole number of the base unit (bits per second, bytes, nanoseconds) is refused rather than rounded.
//! `Display` chooses the unit with the smallest whole number and reads back as the same value.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A data rate in bits per second, as on a line card: `"200 Mbit/s"`, `"1.5 Gbit/s"`, `"25 MB/s"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Rate(u64);

/// An amount of data in bytes: `"8 MiB"` (1024²), `"900 kB"` (1000).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ByteSize(u64);

/// A length of time, to the nanosecond: `"250 ms"`, `"20 s"`, `"5 min"`, `"30 d"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Span(Duration);

/// A text that is not the quantity it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected}, found \"{found}\": {why}")]
pub struct UnitError {
    expected: &'static str,
    found: String,
    why: String,
}

impl Rate {
    /// A rate of so many bits per second.
    pub const fn from_bits_per_second(bits: u64) -> Self {
        Self(bits)
    }

    /// Bits per second.
    pub const fn bits_per_second(self) -> u64 {
        self.0
    }

    /// Whole bytes per second, rounded down.
    pub const fn bytes_per_second(self) -> u64 {
        self.0 / 8
    }
}

impl ByteSize {
    /// A size of so many bytes.
    pub const fn from_bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// A size of so many KiB (1024 bytes).
    pub const fn from_kib(kib: u64) -> Self {
        Self(kib << 10)
    }

    /// A size of so many MiB (1024² bytes).
    pub const fn from_mib(mib: u64) -> Self {
        Self(mib << 20)
    }

    /// Bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl Span {
    /// A span of so many milliseconds.
    pub const fn from_millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }

    /// A span of so many seconds.
    pub const fn from_secs(secs: u64) -> Self {
        Self(Duration::from_secs(secs))
    }

    /// The same as [`Duration`].
    pub const fn duration(self) -> Duration {
        self.0
    }
}

impl From<Duration> for Span {
    fn from(duration: Duration) -> Self {
        Self(duration)
    }
}

impl From<Span> for Duration {
    fn from(span: Span) -> Self {
        span.0
    }
}

impl FromStr for Rate {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        u64::try_from(parse(text, RATE_EXPECTED, &RATE_UNITS)?)
            .map(Self)
            .map_err(|_| too_large(text, RATE_EXPECTED))
    }
}

impl FromStr for ByteSize {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        u64::try_from(parse(text, SIZE_EXPECTED, &SIZE_UNITS)?)
            .map(Self)
            .map_err(|_| too_large(text, SIZE_EXPECTED))
    }
}

impl FromStr for Span {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let nanos = parse(text, SPAN_EXPECTED, &SPAN_UNITS)?;
        let secs = u64::try_from(nanos / 1_000_000_000).map_err(|_| too_large(text, SPAN_EXPECTED))?;
        let rest = u32::try_from(nanos % 1_000_000_000).expect("a remainder below 10^9 fits");
        Ok(Self(Duration::new(secs, rest)))
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_shortest(f, u128::from(self.0), &RATE_UNITS[..BIT_UNITS])
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_shortest(f, u128::from(self.0), &SIZE_UNITS)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_shortest(f, self.0.as_nanos(), &SPAN_UNITS)
    }
}

macro_rules! as_text_in_toml {
    ($($quantity:ident, $expected:expr;)*) => {$(
        impl Serialize for $quantity {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $quantity {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;
                impl de::Visitor<'_> for Text {
                    type Value = $quantity;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($expected)
                    }

                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$quantity, E> {
                        text.parse().map_err(E::custom)
                    }
                }
                deserializer.deserialize_str(Text)
            }
        }
    )*};
}

as_text_in_toml! {
    Rate, RATE_EXPECTED;
    ByteSize, SIZE_EXPECTED;
    Span, SPAN_EXPECTED;
}

/// The value of `text` in base units.
fn parse(text: &str, expected: &'static str, units: &[(&str, u128)]) -> Result<u128, UnitError> {
    let wrong = |why: String| UnitError { expected, found: text.into(), why };
    let trimmed = text.trim();
    let end = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
    let (number, unit) = (&trimmed[..end], trimmed[end..].trim_start());
    if number.is_empty() {
        return Err(wrong("it does not begin with a number".into()));
    }
    let names = || units.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    if unit.is_empty() {
        return Err(wrong(format!("the unit is missing (one of {})", names())));
    }
    let Some((_, factor)) = units.iter().find(|(name, _)| *name == unit) else {
        return Err(wrong(match meant(unit, units) {
            Some(name) => format!("unknown unit `{unit}`; did you mean `{name}`?"),
            None => format!("unknown unit `{unit}` (one of {})", names()),
        }));
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || fraction.contains('.') || (fraction.is_empty() && number.contains('.')) {
        return Err(wrong(format!("`{number}` is not a decimal number")));
    }
    let digits = format!("{whole}{fraction}");
    let scale = u32::try_from(fraction.len()).ok().and_then(|exponent| 10_u128.checked_pow(exponent));
    let scaled = digits.parse::<u128>().ok().and_then(|digits| digits.checked_mul(*factor));
    let (Some(scale), Some(scaled)) = (scale, scaled) else {
        return Err(too_large(text, expected));
    };
    if scaled % scale != 0 {
        return Err(wrong(format!("it is not a whole number of {}", units[0].0)));
    }
    Ok(scaled / scale)
}

/// The unit that somebody meant who wrote `unit`. `Mb/s` and `Mbps` are bits: an eighth of `MB/s`.
fn meant<'a>(unit: &str, units: &[(&'a str, u128)]) -> Option<&'a str> {
    let bits = unit.strip_suffix("b/s").or_else(|| unit.strip_suffix("bps"));
    let unit = bits.map_or_else(|| unit.to_owned(), |prefix| format!("{prefix}bit/s"));
    units.iter().map(|(name, _)| *name).find(|name| name.eq_ignore_ascii_case(&unit))
}

fn too_large(text: &str, expected: &'static str) -> UnitError {
    UnitError { expected, found: text.into(), why: "the number is too large".into() }
}

/// Writes `value` in the unit that gives the smallest whole number; the earlier unit on a tie.
fn write_shortest(f: &mut fmt::Formatter<'_>, value: u128, units: &[(&str, u128)]) -> fmt::Result {
    let whole = units.iter().filter(|(_, factor)| value.is_multiple_of(*factor));
    let (name, factor) =
        whole.min_by_key(|(_, factor)| value / factor).expect("the base unit divides everything");
    write!(f, "{} {name}", value / factor)
}

const RATE_EXPECTED: &str = "a rate with its unit, such as \"200 Mbit/s\" or \"25 MB/s\"";
const SIZE_EXPECTED: &str = "a size with its unit, such as \"8 MiB\" or \"900 kB\"";
const SPAN_EXPECTED: &str = "a duration with its unit, such as \"250 ms\", \"20 s\" or \"5 min\"";

/// Base unit first; the bit units, in which a rate is printed, before the byte units.
const RATE_UNITS: [(&str, u128); 13] = [
    ("bit/s", 1),
    ("kbit/s", 1_000),
    ("Mbit/s", 1_000_000),
    ("Gbit/s", 1_000_000_000),
    ("Tbit/s", 1_000_000_000_000),
    ("B/s", 8),
    ("kB/s", 8_000),
    ("MB/s", 8_000_000),
    ("GB/s", 8_000_000_000),
    ("KiB/s", 8 << 10),
    ("MiB/s", 8 << 20),
    ("GiB/s", 8 << 30),
    ("TB/s", 8_000_000_000_000),
];
const BIT_UNITS: usize = 5;

const SIZE_UNITS: [(&str, u128); 9] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];

const SPAN_UNITS: [(&str, u128); 7] = [
    ("ns", 1),
    ("us", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("min", 60_000_000_000),
    ("h", 3_600_000_000_000),
    ("d", 86_400_000_000_000),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantity_is_read_exactly() {
        let rate = |text: &str| text.parse::<Rate>().unwrap().bits_per_second();
        assert_eq!(rate("200 Mbit/s"), 200_000_000);
        assert_eq!(rate("1.5 Gbit/s"), 1_500_000_000);
        assert_eq!(rate("25MB/s"), 200_000_000);
        assert_eq!(rate(" 1 KiB/s "), 8_192);
        let size = |text: &str| text.parse::<ByteSize>().unwrap().bytes();
        assert_eq!(size("8 MiB"), 8 << 20);
        assert_eq!(size("900 kB"), 900_000);
        assert_eq!(size("0.5 KiB"), 512);
        let span = |text: &str| text.parse::<Span>().unwrap().duration();
        assert_eq!(span("250 ms"), Duration::from_millis(250));
        assert_eq!(span("5 min"), Duration::from_secs(300));
        assert_eq!(span("1.5 s"), Duration::from_millis(1_500));
    }

    #[test]
    fn what_is_not_a_quantity_is_refused_with_the_reason() {
        let why = |text: &str| text.parse::<Rate>().unwrap_err().to_string();
        assert!(why("200").contains("the unit is missing"), "{}", why("200"));
        assert!(why("200 mbit/s").contains("did you mean `Mbit/s`?"), "{}", why("200 mbit/s"));
        for bits in ["200 Mb/s", "200Mbps"] {
            assert!(why(bits).contains("did you mean `Mbit/s`?"), "{}", why(bits));
        }
        assert!(why("200 mB/s").contains("did you mean `MB/s`?"), "{}", why("200 mB/s"));
        assert!(why("200 parsec").contains("unknown unit `parsec`"), "{}", why("200 parsec"));
        assert!(why("fast").contains("does not begin with a number"));
        assert!(why("-1 Mbit/s").contains("does not begin with a number"));
        assert!(why("1.2.3 Mbit/s").contains("not a decimal number"));
        assert!(why("1. Mbit/s").contains("not a decimal number"));
        assert!(why("0.3 bit/s").contains("not a whole number of bit/s"));
        assert!(why("99999999999 Tbit/s").contains("too large"));
        assert!(why("0.00000000000000000000000000000000000000000001 Tbit/s").contains("too large"));
        assert!("9999999999999999999999999 d".parse::<Span>().is_err());
        assert!("20 m".parse::<Span>().is_err(), "m could be minutes, metres or milli");
    }

    #[test]
    fn what_is_printed_reads_back_as_the_same_value() {
        for bits in [0, 1, 8, 999, 8_192, 200_000_000, 1_500_000_000, 123_456_789, u64::MAX] {
            let rate = Rate::from_bits_per_second(bits);
            assert_eq!(rate.to_string().parse::<Rate>().unwrap(), rate, "{rate}");
            let size = ByteSize::from_bytes(bits);
            assert_eq!(size.to_string().parse::<ByteSize>().unwrap(), size, "{size}");
            let span = Span::from(Duration::from_nanos(bits));
            assert_eq!(span.to_string().parse::<Span>().unwrap(), span, "{span}");
        }
    }

    #[test]
    fn the_usual_quantities_print_as_people_write_them() {
        assert_eq!(Rate::from_bits_per_second(1_500_000).to_string(), "1500 kbit/s");
        assert_eq!("1 Gbit/s".parse::<Rate>().unwrap().to_string(), "1 Gbit/s");
        assert_eq!("25 MB/s".parse::<Rate>().unwrap().to_string(), "200 Mbit/s");
        assert_eq!(ByteSize::from_mib(8).to_string(), "8 MiB");
        assert_eq!("900 kB".parse::<ByteSize>().unwrap().to_string(), "900 kB");
        assert_eq!(Span::from_millis(250).to_string(), "250 ms");
        assert_eq!(Span::from_secs(300).to_string(), "5 min");
        assert_eq!(Span::from_secs(0).to_string(), "0 ns");
    }
}
