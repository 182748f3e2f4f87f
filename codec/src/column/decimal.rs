//! Numbers with decimals, as integers of their smallest unit.
//!
//! Computed ones often miss a short number by the last bits of a double: `31.153000000000002` is the second number after
//! `31.153`. Where decimals are counted apart, such a number goes as the short one and its distance, if that gives the
//! same text again.

use std::fmt::{self, Write};

use super::ColumnFault;
use super::digits::{self, Digits};
use crate::Error;
use crate::varint::Reader;

/// How all numbers of a column are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DecimalShape {
    /// Decimals of the unit: 1 to 18. Of `Counted`: the most that a value may have.
    decimals: u8,
    style: Style,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Style {
    /// Always as many decimals: `1.50`.
    Fixed,
    /// No zeros at the end, and no point without decimals: `1.5`, `2`.
    Shortest,
    /// No zeros at the end but the one after a point: `1.5`, `2.0`.
    Pointed,
    /// Any number of decimals, which are counted apart: `1.50`, `2`. The integer is that of all digits.
    Counted,
}

impl DecimalShape {
    /// The shapes that could fit a column whose values have at most `decimals` decimals.
    pub(super) fn candidates(decimals: u8) -> impl Iterator<Item = Self> {
        let styles = [Style::Fixed, Style::Shortest, Style::Pointed]
            .into_iter()
            .map(move |style| Self { decimals, style });
        let counted = Self { decimals: 18, style: Style::Counted };
        // Many decimals may be too many for one unit, and some of them no more than the last bits of a double.
        let (before, after) = if decimals > MANY { (Some(counted), None) } else { (None, Some(counted)) };
        before.into_iter().chain(styles).chain(after)
    }

    pub(super) fn put(self, out: &mut Vec<u8>) {
        out.extend([self.decimals, self.style as u8]);
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Option<Self>, Error> {
        let (decimals, style) = (reader.byte()?, reader.byte()?);
        let style = match style {
            0 => Style::Fixed,
            1 => Style::Shortest,
            2 => Style::Pointed,
            3 => Style::Counted,
            _ => return Ok(None),
        };
        Ok((1..=18).contains(&decimals).then_some(Self { decimals, style }))
    }

    /// Whether each value's decimals are counted apart.
    pub(super) fn is_counted(self) -> bool {
        self.style == Style::Counted
    }

    /// Whether one unit serves values with fewer decimals than it has, whose integers are larger than their digits.
    pub(super) fn varies(self) -> bool {
        matches!(self.style, Style::Shortest | Style::Pointed) && self.decimals > 1
    }

    /// As [`parse`](Self::parse) with decimals counted apart: the integer, and the decimals with the distance.
    #[inline]
    pub(super) fn parse_counted(self, arena: &[u8], start: usize, end: usize) -> Option<(i64, u8)> {
        let (digits, decimals) = self.units(arena, start, end)?;
        if digits.unsigned_abs() >= POWERS[SHORT_DIGITS] {
            return Some(near_short(digits, decimals, &arena[start..end]).unwrap_or((digits, decimals)));
        }
        Some((digits, decimals))
    }

    /// Where the text lies of what [`parse_counted`](Self::parse_counted) gave: in these bytes, from here on, so many.
    #[inline]
    pub(super) fn spell_counted<'a>(
        self,
        number: i64,
        counted: u8,
        digits: &'a mut Digits,
        double: &'a mut Double,
    ) -> Result<(&'a [u8], usize, usize), ColumnFault> {
        let decimals = counted & DECIMALS;
        if decimals > self.decimals {
            return Err(ColumnFault::Number);
        }
        let distance = counted >> DECIMALS.count_ones();
        if distance > 0 {
            double.set(number, decimals, distance).ok_or(ColumnFault::Number)?;
            return Ok((&double.text, 0, double.length));
        }
        Self { decimals, style: Style::Fixed }.spell(number, digits)?;
        Ok(digits.parts())
    }

    /// The number of units that `arena[start..end]` stands for, if it is written as [`spell`](Self::spell) writes it.
    #[inline]
    pub(super) fn parse(self, arena: &[u8], start: usize, end: usize) -> Option<i64> {
        self.units(arena, start, end).map(|(units, _)| units)
    }

    /// The units, and how many decimals are written.
    #[inline]
    fn units(self, arena: &[u8], start: usize, end: usize) -> Option<(i64, u8)> {
        let negative = *arena[start..end].first()? == b'-';
        let start = start + usize::from(negative);
        let Unsigned { digits, whole, decimals } = Unsigned::parse(arena, start, end)?;
        let has_point = whole < end - start;
        let fits = match self.style {
            Style::Fixed => decimals == usize::from(self.decimals),
            Style::Shortest => !has_point || decimals > 0 && arena[end - 1] != b'0',
            Style::Counted => !has_point || decimals > 0,
            Style::Pointed => decimals == 1 || decimals > 1 && arena[end - 1] != b'0',
        };
        let padded = whole != 1 && arena.get(start) == Some(&b'0');
        if !fits || decimals > usize::from(self.decimals) || whole == 0 || padded {
            return None;
        }
        let units = match self.is_counted() {
            true => digits,
            false => digits.checked_mul(POWERS[usize::from(self.decimals) - decimals])?,
        };
        let units = i64::try_from(units).ok()?;
        match (negative, units) {
            (true, 0) => None,
            (true, units) => Some((-units, decimals as u8)),
            (false, units) => Some((units, decimals as u8)),
        }
    }

    pub(super) fn spell(self, units: i64, digits: &mut Digits) -> Result<(), ColumnFault> {
        let unit = POWERS[usize::from(self.decimals)];
        let magnitude = units.unsigned_abs();
        if magnitude > i64::MAX as u64 {
            return Err(ColumnFault::Number);
        }
        let (whole, mut part) = (magnitude / unit, magnitude % unit);
        let mut width = usize::from(self.decimals);
        digits.clear();
        if self.style != Style::Fixed {
            let least = usize::from(self.style == Style::Pointed);
            while width > least && part.is_multiple_of(10) {
                part /= 10;
                width -= 1;
            }
        }
        if width > 0 {
            digits.prepend_number(part, width);
            digits.prepend(b'.');
        }
        digits.prepend_number(whole, 1);
        if units < 0 {
            digits.prepend(b'-');
        }
        Ok(())
    }
}

/// A number without a sign, with a point or without.
struct Unsigned {
    /// All its digits.
    digits: u64,
    /// How many stand before the point.
    whole: usize,
    /// How many stand behind it.
    decimals: usize,
}

impl Unsigned {
    #[inline]
    fn parse(arena: &[u8], start: usize, end: usize) -> Option<Self> {
        let last = |count: usize| arena.get(end.checked_sub(count)?..);
        match end - start {
            0..=8 if let Some(last) = last(8).and_then(<[u8]>::first_chunk) => {
                Self::of_word(u64::from_le_bytes(*last), end - start)
            }
            9..=16 if let Some(last) = last(16).and_then(<[u8]>::first_chunk) => {
                Self::of_long_word(u128::from_le_bytes(*last), end - start)
            }
            _ => Self::in_parts(arena, start, end),
        }
    }

    /// Of the last `length` bytes of a word: the digits before the point move up to those behind it.
    #[inline]
    fn of_word(word: u64, length: usize) -> Option<Self> {
        const ONES: u64 = u64::MAX / 0xff;
        const ZEROS: u64 = ONES * b'0' as u64;
        let kept = u64::MAX.checked_shl(8 * (8 - length as u32)).unwrap_or(0);
        let word = word & kept | ZEROS & !kept;
        let other = word ^ (ONES * b'.' as u64);
        let points = other.wrapping_sub(ONES) & !other & (ONES << 7);
        if points == 0 {
            return Some(Self { digits: digits::of_word(word)?, whole: length, decimals: 0 });
        }
        // The first: another one is no digit.
        let place = points.trailing_zeros() & !7;
        let behind = u64::MAX << place;
        let digits = digits::of_word(word & behind << 8 | (word & !behind) << 8 | u64::from(b'0'))?;
        let decimals = 7 - place as usize / 8;
        Some(Self { digits, whole: length - 1 - decimals, decimals })
    }

    /// The same of twice as many.
    fn of_long_word(word: u128, length: usize) -> Option<Self> {
        const ONES: u128 = u128::MAX / 0xff;
        const ZEROS: u128 = ONES * b'0' as u128;
        let kept = u128::MAX << (8 * (16 - length));
        let word = word & kept | ZEROS & !kept;
        let other = word ^ (ONES * b'.' as u128);
        let points = other.wrapping_sub(ONES) & !other & (ONES << 7);
        let of_words = |word: u128| {
            Some(digits::of_word(word as u64)? * 100_000_000 + digits::of_word((word >> 64) as u64)?)
        };
        if points == 0 {
            return Some(Self { digits: of_words(word)?, whole: length, decimals: 0 });
        }
        let place = points.trailing_zeros() & !7;
        let behind = u128::MAX << place;
        let digits = of_words(word & behind << 8 | (word & !behind) << 8 | u128::from(b'0'))?;
        let decimals = 15 - place as usize / 8;
        Some(Self { digits, whole: length - 1 - decimals, decimals })
    }

    fn in_parts(arena: &[u8], start: usize, end: usize) -> Option<Self> {
        let point = arena[start..end].iter().position(|byte| *byte == b'.');
        let whole = point.unwrap_or(end - start);
        let decimals = point.map_or(0, |point| end - start - point - 1);
        let before = digits::parse_digits(arena, start, start + whole)?;
        let behind = if decimals > 0 { digits::parse_digits(arena, end - decimals, end)? } else { 0 };
        let digits = before.checked_mul(*POWERS.get(decimals)?)?.checked_add(behind)?;
        Some(Self { digits, whole, decimals })
    }
}

/// Decimals of a value that might be a number with some.
pub(super) fn count_decimals(value: &[u8]) -> Option<u8> {
    let point = value.iter().position(|byte| *byte == b'.');
    let decimals = point.map_or(0, |point| value.len() - point - 1);
    (decimals <= 18 && value.len() <= 21).then_some(decimals as u8)
}

/// A short number and a distance in doubles that give `text`, which is `digits` with `decimals`.
fn near_short(digits: i64, decimals: u8, text: &[u8]) -> Option<(i64, u8)> {
    let surplus = (digits.unsigned_abs().ilog10() as usize + 1).checked_sub(SHORT_DIGITS)?;
    let mut short_decimals = decimals.checked_sub(surplus as u8).filter(|decimals| *decimals > 0)?;
    let unit = POWERS[surplus];
    let mut short = (digits.unsigned_abs() + unit / 2) / unit;
    while short_decimals > 1 && short.is_multiple_of(10) {
        short /= 10;
        short_decimals -= 1;
    }
    let short = if digits < 0 { -(short as i64) } else { short as i64 };
    let wanted: f64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    let ahead = wanted.to_bits().wrapping_sub(nearest(short, short_decimals)?.to_bits()) as i64;
    let distance = match ahead {
        1..=3 => ahead * 2 - 1,
        -3..=-1 => -ahead * 2,
        _ => return None,
    } as u8;
    let mut double = Double::default();
    double.set(short, short_decimals, distance)?;
    (double.as_bytes() == text).then_some((short, short_decimals | distance << DECIMALS.count_ones()))
}

/// The double that is nearest to `digits` with `decimals`: one correctly rounded division of two exact numbers.
fn nearest(digits: i64, decimals: u8) -> Option<f64> {
    let exact = digits.unsigned_abs() <= 1 << 53 && decimals <= 18;
    exact.then(|| digits as f64 / POWERS[usize::from(decimals)] as f64)
}

/// The shortest text that gives a double, as most languages print it.
#[derive(Debug)]
pub(super) struct Double {
    /// Bytes of no meaning follow the text, so that it can be copied in one piece of a fixed size.
    text: [u8; 64],
    length: usize,
}

impl Default for Double {
    fn default() -> Self {
        Self { text: [0; 64], length: 0 }
    }
}

impl Double {
    /// The double at `distance` from the one nearest to `digits` with `decimals`: 1 is the next one, 2 the one before.
    fn set(&mut self, digits: i64, decimals: u8, distance: u8) -> Option<()> {
        let ahead = i64::from(distance.div_ceil(2)) * if distance % 2 == 1 { 1 } else { -1 };
        let double = f64::from_bits(nearest(digits, decimals)?.to_bits().wrapping_add_signed(ahead));
        self.length = 0;
        // Of zero, the one before is no number; no text of a number is longer than the buffer.
        double.is_finite().then(|| write!(self, "{double:?}").ok()).flatten()
    }

    fn as_bytes(&self) -> &[u8] {
        &self.text[..self.length]
    }
}

impl Write for Double {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        let end = self.length + part.len();
        self.text.get_mut(self.length..end).ok_or(fmt::Error)?.copy_from_slice(part.as_bytes());
        self.length = end;
        Ok(())
    }
}

/// Digits of a short number; doubles hold all numbers of so many.
const SHORT_DIGITS: usize = 15;
/// Decimals from which they are rather counted apart.
const MANY: u8 = 9;
/// The decimals in what is counted; the distance is above them.
const DECIMALS: u8 = 31;

const POWERS: [u64; 19] = {
    let mut powers = [1; 19];
    let mut index = 1;
    while index < 19 {
        powers[index] = powers[index - 1] * 10;
        index += 1;
    }
    powers
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_read_alike_in_words_and_in_parts() {
        let mut state = 7u64;
        for round in 0..200_000 {
            let mut next = |below: u64| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(round);
                (state >> 33) % below
            };
            let length = 1 + next(18) as usize;
            let (point, odd) = (next(20) as usize, next(60) as usize);
            let mut text: Vec<u8> = (0..length).map(|_| b'0' + next(10) as u8).collect();
            if let Some(byte) = text.get_mut(point) {
                *byte = b'.';
            }
            if let Some(byte) = text.get_mut(odd) {
                *byte = b"./:-x"[next(5) as usize];
            }
            let arena = [b"12.3,45.678,90,.", &text[..]].concat();
            for shape in DecimalShape::candidates(3).chain(DecimalShape::candidates(12)) {
                let alone = shape.parse_counted(&text, 0, length);
                let read = shape.parse_counted(&arena, 16, 16 + length);
                assert_eq!(read, alone, "{} as {shape:?}", String::from_utf8_lossy(&text));
            }
        }
    }
}
