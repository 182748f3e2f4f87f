//! Dates with times as text, as integers of their smallest unit since 1970 (of whatever zone they are written in).

use super::digits::parse_digits;
use super::{ColumnFault, equal};
use crate::Error;
use crate::varint::Reader;

/// How all times of a column are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TimeShape {
    date: DateStyle,
    /// Between year, month and day.
    separator: u8,
    /// Between date and time.
    between: u8,
    /// Before the fraction.
    point: u8,
    /// Digits of the fraction, 0 to 9.
    fraction: u8,
    /// What follows, the zone: the same for all.
    suffix: [u8; SUFFIX],
    suffix_length: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum DateStyle {
    /// `2026-11-22`
    Iso,
    /// `22/Nov/2026`
    Log,
}

const SUFFIX: usize = 8;
const MONTHS: &[u8; 36] = b"JanFebMarAprMayJunJulAugSepOctNovDec";

impl DateStyle {
    fn length(self) -> usize {
        match self {
            Self::Iso => 10,
            Self::Log => 11,
        }
    }
}

impl TimeShape {
    /// The shape of a value that is a time.
    pub(super) fn of(value: &[u8]) -> Option<Self> {
        let date = if value.get(2)?.is_ascii_digit() { DateStyle::Iso } else { DateStyle::Log };
        let separator = *value.get(if date == DateStyle::Iso { 4 } else { 2 })?;
        let start = date.length();
        let between = *value.get(start)?;
        let rest = value.get(start + 9..)?;
        let digits = |bytes: &[u8]| bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (point, fraction) = match rest.first() {
            Some(&point @ (b'.' | b',')) if digits(&rest[1..]) > 0 => (point, digits(&rest[1..])),
            _ => (b'.', 0),
        };
        let tail = if fraction > 0 { &rest[1 + fraction..] } else { rest };
        if fraction > 9 || tail.len() > SUFFIX {
            return None;
        }
        let mut suffix = [0; SUFFIX];
        suffix[..tail.len()].copy_from_slice(tail);
        let shape = Self {
            date,
            separator,
            between,
            point,
            fraction: fraction as u8,
            suffix,
            suffix_length: tail.len() as u8,
        };
        shape.parser().parse(value).map(|_| shape)
    }

    pub(super) fn put(self, out: &mut Vec<u8>) {
        out.extend([
            self.date as u8,
            self.separator,
            self.between,
            self.point,
            self.fraction,
            self.suffix_length,
        ]);
        out.extend_from_slice(self.suffix());
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Option<Self>, Error> {
        let date = match reader.byte()? {
            0 => DateStyle::Iso,
            1 => DateStyle::Log,
            _ => return Ok(None),
        };
        let (separator, between, point) = (reader.byte()?, reader.byte()?, reader.byte()?);
        let (fraction, suffix_length) = (reader.byte()?, reader.byte()?);
        if fraction > 9 || usize::from(suffix_length) > SUFFIX {
            return Ok(None);
        }
        let tail = reader.take(suffix_length.into())?;
        let mut suffix = [0; SUFFIX];
        suffix[..tail.len()].copy_from_slice(tail);
        Ok(Some(Self { date, separator, between, point, fraction, suffix, suffix_length }))
    }

    fn suffix(&self) -> &[u8] {
        &self.suffix[..usize::from(self.suffix_length)]
    }

    fn length(&self) -> usize {
        let fraction = if self.fraction > 0 { 1 + usize::from(self.fraction) } else { 0 };
        self.date.length() + 9 + fraction + usize::from(self.suffix_length)
    }

    fn unit(&self) -> i64 {
        10i64.pow(self.fraction.into())
    }

    pub(super) fn parser(self) -> Parser {
        Parser { shape: self, unit: self.unit(), date: [0; 11], days: None }
    }

    pub(super) fn speller(self) -> Speller {
        let length = self.length();
        let mut text = vec![0; length + BEHIND];
        text[self.date.length()] = self.between;
        let time = self.date.length() + 1;
        (text[time + 2], text[time + 5]) = (b':', b':');
        if self.fraction > 0 {
            text[time + 8] = self.point;
        }
        let suffix = length - usize::from(self.suffix_length);
        text[suffix..length].copy_from_slice(self.suffix());
        Speller { shape: self, unit: self.unit() as u64, text, length, day: None }
    }
}

/// Bytes of no meaning that follow a time, so that it can be copied in one piece of a fixed size.
const BEHIND: usize = 32;

/// Reads times; the last date is kept, as most follow it on the same day.
pub(super) struct Parser {
    shape: TimeShape,
    unit: i64,
    date: [u8; 11],
    days: Option<i64>,
}

impl Parser {
    /// The number of units that `value` stands for, if it is written as [`Speller::spell`] writes it.
    #[inline]
    pub(super) fn parse(&mut self, value: &[u8]) -> Option<i64> {
        let shape = &self.shape;
        if value.len() != shape.length() {
            return None;
        }
        let date_end = shape.date.length();
        let clock_end = date_end + 9;
        let suffix = value.len() - usize::from(shape.suffix_length);
        if value[date_end] != shape.between || value[suffix..] != *shape.suffix() {
            return None;
        }
        let days = match self.days {
            Some(days) if equal(&self.date[..date_end], &value[..date_end]) => days,
            _ => {
                let days = parse_date(shape, &value[..date_end])?;
                self.date[..date_end].copy_from_slice(&value[..date_end]);
                self.days = Some(days);
                days
            }
        };
        let clock = clock(u64::from_le_bytes(*value[date_end + 1..].first_chunk()?))?;
        let mut part = 0;
        if shape.fraction > 0 {
            if value[clock_end] != shape.point {
                return None;
            }
            part = parse_digits(value, clock_end + 1, suffix)? as i64;
        }
        let seconds = days * 86_400 + clock;
        seconds.checked_mul(self.unit)?.checked_add(part)
    }
}

/// Seconds of `hh:mm:ss`, the first byte lowest.
#[inline]
fn clock(text: u64) -> Option<i64> {
    const COLONS: u64 = 0x0000_3a00_003a_0000;
    const ARE_COLONS: u64 = 0x0000_ff00_00ff_0000;
    let digits = text ^ COLONS ^ 0x3030_0030_3000_3030;
    // Beyond 9, a digit that gets 6 more leaves its four bits.
    if text & ARE_COLONS != COLONS
        || (digits | digits.wrapping_add(0x0606_0606_0606_0606)) & 0xf0f0_f0f0_f0f0_f0f0 != 0
    {
        return None;
    }
    // Each byte and the one behind it as a number of two digits.
    let pairs = digits.wrapping_mul(10).wrapping_add(digits >> 8);
    let (hour, minute, second) = (pairs & 0xff, pairs >> 24 & 0xff, pairs >> 48 & 0xff);
    (hour <= 23 && minute <= 59 && second <= 59)
        .then_some((hour as i64 * 60 + minute as i64) * 60 + second as i64)
}

/// Writes times into one buffer; the date is written when it changes.
pub(super) struct Speller {
    shape: TimeShape,
    unit: u64,
    text: Vec<u8>,
    length: usize,
    /// The first unit of the day that is written.
    day: Option<i64>,
}

impl Speller {
    /// The bytes that a time begins, and how many are of it.
    #[inline]
    pub(super) fn spell(&mut self, number: i64) -> Result<(&[u8], usize), ColumnFault> {
        let of_day = match self.day {
            // Within a day no difference is beyond the numbers, and one before it is beyond the day.
            Some(day) if (number.wrapping_sub(day) as u64) < self.unit * DAY => {
                number.wrapping_sub(day) as u64
            }
            _ => self.begin_day(number)?,
        };
        let (second, mut part) = ((of_day / self.unit) as u32, of_day % self.unit);
        let time = self.shape.date.length() + 1;
        if let Some(clock) = self.text.get_mut(time..).and_then(<[u8]>::first_chunk_mut::<8>) {
            put_pair(&mut clock[..2], second / 3600);
            put_pair(&mut clock[3..5], second / 60 % 60);
            put_pair(&mut clock[6..], second % 60);
        }
        if self.shape.fraction > 0 {
            for digit in self.text[time + 9..][..usize::from(self.shape.fraction)].iter_mut().rev() {
                *digit = b'0' + (part % 10) as u8;
                part /= 10;
            }
        }
        Ok((&self.text, self.length))
    }

    /// Writes the date of a time. Returns how many units of its day have passed.
    #[cold]
    fn begin_day(&mut self, number: i64) -> Result<u64, ColumnFault> {
        let units = (self.unit * DAY) as i64;
        let (days, of_day) = (number.div_euclid(units), number.rem_euclid(units));
        spell_date(&self.shape, days, &mut self.text)?;
        self.day = Some(number - of_day);
        Ok(of_day as u64)
    }
}

/// Seconds of a day.
const DAY: u64 = 86_400;

fn pair(tens: u8, ones: u8) -> Option<i64> {
    let both = tens.is_ascii_digit() && ones.is_ascii_digit();
    both.then(|| i64::from(tens - b'0') * 10 + i64::from(ones - b'0'))
}

#[inline]
fn put_pair(text: &mut [u8], number: u32) {
    (text[0], text[1]) = (b'0' + (number / 10) as u8, b'0' + (number % 10) as u8);
}

/// Days since 1970 of a date that exists.
fn parse_date(shape: &TimeShape, date: &[u8]) -> Option<i64> {
    let (year, month, day, separators) = match shape.date {
        DateStyle::Iso => (&date[..4], pair(date[5], date[6])?, &date[8..], [date[4], date[7]]),
        DateStyle::Log => {
            let name = &date[3..6];
            let month = MONTHS.chunks_exact(3).position(|month| month == name)?;
            (&date[7..], month as i64 + 1, &date[..2], [date[2], date[6]])
        }
    };
    let (year, day) = (pair(year[0], year[1])? * 100 + pair(year[2], year[3])?, pair(day[0], day[1])?);
    if separators != [shape.separator; 2] || !(1..=12).contains(&month) || day < 1 {
        return None;
    }
    let days = days_of(year, month, day);
    (date_of(days) == (year, month, day)).then_some(days)
}

fn spell_date(shape: &TimeShape, days: i64, text: &mut [u8]) -> Result<(), ColumnFault> {
    // Years of four digits.
    if !(-719_528..=2_932_896).contains(&days) {
        return Err(ColumnFault::Number);
    }
    let (year, month, day) = date_of(days);
    let (year_at, day_at, separators) = match shape.date {
        DateStyle::Iso => {
            put_pair(&mut text[5..], month as u32);
            (0, 8, [4, 7])
        }
        DateStyle::Log => {
            text[3..6].copy_from_slice(&MONTHS[(month as usize - 1) * 3..][..3]);
            (7, 0, [2, 6])
        }
    };
    put_pair(&mut text[year_at..], year as u32 / 100);
    put_pair(&mut text[year_at + 2..], year as u32 % 100);
    put_pair(&mut text[day_at..], day as u32);
    separators.into_iter().for_each(|at| text[at] = shape.separator);
    Ok(())
}

/// Days since 1970-01-01 in the proleptic Gregorian calendar, for years from 0 on; months begin with March inside.
fn days_of(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year - era * 400;
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// Year, month and day; the inverse of [`days_of`].
fn date_of(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days - era * 146_097;
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + era * 400 + i64::from(month <= 2), month, day)
}
