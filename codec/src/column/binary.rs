//! Numbers in binary, as Avro and Protobuf write them: varints, little-endian integers, floating point.
//!
//! ```text
//! parameters | form, [decimals], 0 or: 1, byte of a value, byte of none | predictor |
//! body       | if there may be none: a byte for each row, 1 for none | differences of the others |
//! ```
//! Doubles that stand for short decimals are integers of their smallest unit, if the division gives the same bits again.

use super::ColumnFault;
use super::number::{unzigzag, zigzag};
use crate::Error;
use crate::varint::Reader;

/// How the bytes of a column's values are to be read, as whoever cut the records knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Binary {
    pub(crate) form: Form,
    /// Each value is behind the number of its branch, or is the number of the branch that has none.
    pub(crate) optional: Option<Branches>,
}

/// How a number is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// Seven bits a byte.
    Varint,
    /// The same, zigzag.
    Zigzag,
    /// Four bytes, little endian.
    Fixed32,
    /// Eight bytes, little endian.
    Fixed64,
    /// A float that is so many decimals.
    Float(u8),
    /// A double that is so many decimals.
    Double(u8),
}

/// The bytes that stand for the two branches of a union of null and something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Branches {
    /// Before a value.
    pub(crate) some: u8,
    /// In the place of one.
    pub(crate) none: u8,
}

impl Binary {
    /// What values with this look could be read as; the first that fits all is the best.
    pub(super) fn candidates<'a>(self, values: impl IntoIterator<Item = &'a [u8]>) -> Vec<Self> {
        let decimals = match self.form {
            Form::Fixed32 => Some(Form::Float as fn(u8) -> Form),
            Form::Fixed64 => Some(Form::Double as fn(u8) -> Form),
            _ => None,
        };
        let of = |form| Self { form, ..self };
        let short = decimals.and_then(|decimals| {
            let fits = |value: &[u8], count: u8| of(decimals(count)).parse(value).is_some();
            let mut values = values.into_iter();
            let most = values.try_fold(0, |most, value| (most..=MOST_DECIMALS).find(|&n| fits(value, n)));
            most.map(|most| of(decimals(most)))
        });
        short.into_iter().chain([self]).collect()
    }

    pub(super) fn is_optional(self) -> bool {
        self.optional.is_some()
    }

    /// Whether the numbers are more than integers of the usual size, of which sums say nothing.
    pub(super) fn is_wide(self) -> bool {
        !matches!(self.form, Form::Varint | Form::Zigzag | Form::Fixed32)
    }

    pub(super) fn put(self, out: &mut Vec<u8>) {
        match self.form {
            Form::Varint => out.push(0),
            Form::Zigzag => out.push(1),
            Form::Fixed32 => out.push(2),
            Form::Fixed64 => out.push(3),
            Form::Float(decimals) => out.extend([4, decimals]),
            Form::Double(decimals) => out.extend([5, decimals]),
        }
        match self.optional {
            None => out.push(0),
            Some(Branches { some, none }) => out.extend([1, some, none]),
        }
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Option<Self>, Error> {
        let form = match reader.byte()? {
            0 => Form::Varint,
            1 => Form::Zigzag,
            2 => Form::Fixed32,
            3 => Form::Fixed64,
            4 => Form::Float(reader.byte()?),
            5 => Form::Double(reader.byte()?),
            _ => return Ok(None),
        };
        if matches!(form, Form::Float(decimals) | Form::Double(decimals) if decimals > MOST_DECIMALS) {
            return Ok(None);
        }
        let optional = match reader.byte()? {
            0 => None,
            1 => Some(Branches { some: reader.byte()?, none: reader.byte()? }),
            _ => return Ok(None),
        };
        Ok(Some(Self { form, optional }))
    }

    /// The number that `value` is, or none; nothing at all if it is not written as [`spell`](Self::spell) writes it.
    #[inline]
    pub(super) fn parse(self, value: &[u8]) -> Option<Option<i64>> {
        let Some(Branches { some, none }) = self.optional else { return self.form.parse(value).map(Some) };
        match value {
            [byte] if *byte == none => Some(None),
            [byte, value @ ..] if *byte == some => self.form.parse(value).map(Some),
            _ => None,
        }
    }

    /// The bytes of a number, or of none.
    #[inline]
    pub(super) fn spell(self, number: Option<i64>, spelled: &mut Spelled) -> Result<(), ColumnFault> {
        spelled.length = 0;
        match (self.optional, number) {
            (None, None) => return Err(ColumnFault::Number),
            (Some(branches), None) => {
                spelled.push(branches.none);
                return Ok(());
            }
            (Some(branches), Some(_)) => spelled.push(branches.some),
            (None, Some(_)) => {}
        }
        self.form.spell(number.unwrap_or_default(), spelled)
    }
}

impl Form {
    #[inline]
    fn parse(self, value: &[u8]) -> Option<i64> {
        match self {
            Self::Varint => varint(value).map(|number| number as i64),
            Self::Zigzag => varint(value).map(unzigzag),
            Self::Fixed32 => Some(i32::from_le_bytes(value.try_into().ok()?).into()),
            Self::Fixed64 => Some(i64::from_le_bytes(value.try_into().ok()?)),
            Self::Float(decimals) => {
                let float = f32::from_le_bytes(value.try_into().ok()?);
                let units = units(float.into(), decimals)?;
                (float_of(units, decimals).to_bits() == float.to_bits()).then_some(units)
            }
            Self::Double(decimals) => {
                let double = f64::from_le_bytes(value.try_into().ok()?);
                let units = units(double, decimals)?;
                (double_of(units, decimals).to_bits() == double.to_bits()).then_some(units)
            }
        }
    }

    #[inline]
    fn spell(self, number: i64, spelled: &mut Spelled) -> Result<(), ColumnFault> {
        match self {
            Self::Varint => spelled.varint(number as u64),
            Self::Zigzag => spelled.varint(zigzag(number)),
            Self::Fixed32 => {
                let number = i32::try_from(number).map_err(|_| ColumnFault::Number)?;
                spelled.extend(&number.to_le_bytes());
            }
            Self::Fixed64 => spelled.extend(&number.to_le_bytes()),
            Self::Float(decimals) => spelled.extend(&float_of(number, decimals).to_le_bytes()),
            Self::Double(decimals) => spelled.extend(&double_of(number, decimals).to_le_bytes()),
        }
        Ok(())
    }
}

/// The bytes of one value.
#[derive(Debug, Default)]
pub(super) struct Spelled {
    bytes: [u8; LONGEST],
    length: usize,
}

impl Spelled {
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    #[inline]
    fn push(&mut self, byte: u8) {
        self.bytes[self.length] = byte;
        self.length += 1;
    }

    fn extend(&mut self, bytes: &[u8]) {
        self.bytes[self.length..self.length + bytes.len()].copy_from_slice(bytes);
        self.length += bytes.len();
    }

    #[inline]
    fn varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.push(number as u8);
    }
}

/// The number of seven bits a byte that is all of `value`, in no more bytes than it needs.
#[inline]
fn varint(value: &[u8]) -> Option<u64> {
    let (&last, rest) = value.split_last()?;
    if last >= 0x80 || last == 0 && !rest.is_empty() || rest.len() > 9 || rest.len() == 9 && last > 1 {
        return None;
    }
    rest.iter().rev().try_fold(u64::from(last), |number, &byte| {
        (byte >= 0x80).then(|| number << 7 | u64::from(byte & 0x7f))
    })
}

/// So many units of 1 / 10^decimals, as near as can be.
#[inline]
fn units(number: f64, decimals: u8) -> Option<i64> {
    let units = (number * POWERS[usize::from(decimals)]).round();
    (units.abs() < EXACT).then_some(units as i64)
}

fn double_of(units: i64, decimals: u8) -> f64 {
    units as f64 / POWERS[usize::from(decimals)]
}

fn float_of(units: i64, decimals: u8) -> f32 {
    double_of(units, decimals) as f32
}

/// Most bytes of a value: a branch and the longest varint.
const LONGEST: usize = 11;
const MOST_DECIMALS: u8 = 12;
/// Below this a double has all integers.
const EXACT: f64 = 9_007_199_254_740_992.0;
const POWERS: [f64; MOST_DECIMALS as usize + 1] =
    [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12];

#[cfg(test)]
mod tests {
    use super::*;

    fn there_and_back(binary: Binary, value: &[u8]) -> Option<Option<i64>> {
        let number = binary.parse(value)?;
        let mut spelled = Spelled::default();
        binary.spell(number, &mut spelled).expect("what was parsed");
        assert_eq!(spelled.as_bytes(), value);
        Some(number)
    }

    const fn bare(form: Form) -> Binary {
        Binary { form, optional: None }
    }

    #[test]
    fn varints_are_read_when_no_byte_of_them_is_idle() {
        for number in [0, 1, -1, 63, 64, -65, 1 << 20, i64::MAX, i64::MIN] {
            for form in [Form::Varint, Form::Zigzag] {
                let mut spelled = Spelled::default();
                bare(form).spell(Some(number), &mut spelled).expect("any number");
                assert_eq!(there_and_back(bare(form), spelled.as_bytes()), Some(Some(number)));
            }
        }
        for idle in [&b"\x80\x00"[..], b"", b"\x80", b"\x01\x01", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02"]
        {
            assert_eq!(bare(Form::Varint).parse(idle), None, "{idle:?}");
        }
    }

    #[test]
    fn doubles_of_short_decimals_are_integers_and_others_are_not() {
        let double =
            |decimals, number: f64| there_and_back(bare(Form::Double(decimals)), &number.to_le_bytes());
        assert_eq!(double(2, 12.34), Some(Some(1234)));
        assert_eq!(double(1, -0.1), Some(Some(-1)));
        assert_eq!(double(1, 0.25), None);
        assert_eq!(double(3, -0.0), None);
        assert_eq!(double(3, f64::NAN), None);
        assert_eq!(double(0, f64::INFINITY), None);
        assert_eq!(double(12, 1e300), None);
        assert_eq!(there_and_back(bare(Form::Float(1)), &23.5f32.to_le_bytes()), Some(Some(235)));
        let values = [1.5f64.to_le_bytes(), 2.25f64.to_le_bytes()];
        let found = bare(Form::Fixed64).candidates(values.iter().map(<[u8; 8]>::as_slice));
        assert_eq!(found, [bare(Form::Double(2)), bare(Form::Fixed64)]);
        let noise = [0.1f64.sqrt().to_le_bytes()];
        assert_eq!(
            bare(Form::Fixed64).candidates(noise.iter().map(<[u8; 8]>::as_slice)),
            [bare(Form::Fixed64)]
        );
    }

    #[test]
    fn a_branch_without_a_value_is_told_from_one_with_a_value() {
        let optional = Binary { form: Form::Zigzag, optional: Some(Branches { some: 2, none: 0 }) };
        assert_eq!(there_and_back(optional, b"\x00"), Some(None));
        assert_eq!(there_and_back(optional, b"\x02\x00"), Some(Some(0)));
        assert_eq!(there_and_back(optional, b"\x02\x03"), Some(Some(-2)));
        assert_eq!(optional.parse(b"\x02"), None);
        assert_eq!(optional.parse(b"\x04\x02"), None);
        assert_eq!(optional.parse(b""), None);
    }

    #[test]
    fn parameters_come_back_and_others_are_refused() {
        let optional = Some(Branches { some: 0, none: 2 });
        for form in
            [Form::Varint, Form::Zigzag, Form::Fixed32, Form::Fixed64, Form::Float(3), Form::Double(12)]
        {
            for optional in [None, optional] {
                let (mut bytes, shape) = (Vec::new(), Binary { form, optional });
                shape.put(&mut bytes);
                assert_eq!(Binary::read(&mut Reader::new(&bytes, "test")).expect("whole"), Some(shape));
            }
        }
        for wrong in [&[6, 0][..], &[5, 13, 0], &[0, 2]] {
            assert_eq!(Binary::read(&mut Reader::new(wrong, "test")).expect("whole"), None);
        }
    }
}
