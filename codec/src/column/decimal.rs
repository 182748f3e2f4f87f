//! Numbers with decimals, as integers of their smallest unit.

use super::ColumnFault;
use super::number::{self, Digits};
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
        [Style::Fixed, Style::Shortest, Style::Pointed, Style::Counted]
            .into_iter()
            .map(move |style| Self { decimals, style })
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

    /// How a value with this many decimals is written.
    pub(super) fn with_decimals(self, decimals: u8) -> Option<Self> {
        (decimals <= self.decimals).then_some(Self { decimals, style: Style::Fixed })
    }

    /// The number of units that `arena[start..end]` stands for, if it is written as [`spell`](Self::spell) writes it.
    #[inline]
    pub(super) fn parse(self, arena: &[u8], start: usize, end: usize) -> Option<i64> {
        let value = &arena[start..end];
        let negative = *value.first()? == b'-';
        let digits = start + usize::from(negative);
        let point = arena[digits..end].iter().position(|byte| *byte == b'.');
        let (whole_end, decimals) = match point {
            Some(at) => (digits + at, end - digits - at - 1),
            None => (end, 0),
        };
        let fits = match self.style {
            Style::Fixed => decimals == usize::from(self.decimals),
            Style::Shortest => point.is_none() || decimals > 0 && arena[end - 1] != b'0',
            Style::Counted => point.is_none() || decimals > 0,
            Style::Pointed => decimals == 1 || decimals > 1 && arena[end - 1] != b'0',
        };
        if !fits || decimals > usize::from(self.decimals) || whole_end == digits {
            return None;
        }
        if arena[digits] == b'0' && whole_end - digits > 1 {
            return None;
        }
        let whole = number::parse_digits(arena, digits, whole_end)?;
        let part = if decimals > 0 { number::parse_digits(arena, whole_end + 1, end)? } else { 0 };
        let scale = if self.is_counted() { decimals } else { usize::from(self.decimals) };
        let unit = POWERS[scale];
        let part = part * POWERS[scale - decimals];
        let units = i64::try_from(whole.checked_mul(unit)?.checked_add(part)?).ok()?;
        match (negative, units) {
            (true, 0) => None,
            (true, units) => Some(-units),
            (false, units) => Some(units),
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

/// Decimals of a value that might be a number with some.
pub(super) fn count_decimals(value: &[u8]) -> Option<u8> {
    let point = value.iter().position(|byte| *byte == b'.');
    let decimals = point.map_or(0, |point| value.len() - point - 1);
    (decimals <= 18 && value.len() <= 21).then_some(decimals as u8)
}

const POWERS: [u64; 19] = {
    let mut powers = [1; 19];
    let mut index = 1;
    while index < 19 {
        powers[index] = powers[index - 1] * 10;
        index += 1;
    }
    powers
};
