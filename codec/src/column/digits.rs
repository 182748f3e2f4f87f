//! Canonical decimals to integers and back.

/// The integer that is written as `arena[start..end]`, if it is written as [`Digits::set_integer`] writes it.
#[inline]
pub(super) fn parse(arena: &[u8], start: usize, end: usize) -> Option<i64> {
    let negative = *arena[start..end].first()? == b'-';
    let digits = start + usize::from(negative);
    let magnitude = parse_digits(arena, digits, end)?;
    if arena[digits] == b'0' && (end - digits > 1 || negative) {
        return None;
    }
    match negative {
        false => i64::try_from(magnitude).ok(),
        true => 0i64.checked_sub_unsigned(magnitude),
    }
}

/// The number of 1 to 19 digits, leading zeros allowed.
#[inline]
pub(super) fn parse_digits(arena: &[u8], start: usize, end: usize) -> Option<u64> {
    let length = end.checked_sub(start)?;
    match length {
        1..=8 => eight(arena, start, end),
        9..=16 => Some(eight(arena, start, end - 8)? * 100_000_000 + eight(arena, end - 8, end)?),
        17..=19 => {
            let low = eight(arena, end - 16, end - 8)? * 100_000_000 + eight(arena, end - 8, end)?;
            Some(eight(arena, start, end - 16)? * 10_000_000_000_000_000 + low)
        }
        _ => None,
    }
}

/// At most eight digits, as one word: the bytes before them are read too and taken for zeros.
#[inline]
fn eight(arena: &[u8], start: usize, end: usize) -> Option<u64> {
    const ZEROS: u64 = 0x3030_3030_3030_3030;
    let Some(bytes) = end.checked_sub(8).and_then(|from| arena.get(from..)?.first_chunk::<8>()) else {
        return arena[start..end].iter().try_fold(0, |number, digit| {
            digit.is_ascii_digit().then(|| number * 10 + u64::from(digit - b'0'))
        });
    };
    let kept = u64::MAX << (8 * (8 - (end - start)));
    of_word(u64::from_le_bytes(*bytes) & kept | ZEROS & !kept)
}

/// The number of eight digits, the first in the lowest byte.
#[inline]
pub(super) fn of_word(word: u64) -> Option<u64> {
    let above = (word.wrapping_add(0x0606_0606_0606_0606) & 0xf0f0_f0f0_f0f0_f0f0) >> 4;
    if word & 0xf0f0_f0f0_f0f0_f0f0 | above != 0x3333_3333_3333_3333 {
        return None;
    }
    let pairs = (word & 0x0f0f_0f0f_0f0f_0f0f).wrapping_mul(2561) >> 8;
    let fours = (pairs & 0x00ff_00ff_00ff_00ff).wrapping_mul(6_553_601) >> 16;
    Some((fours & 0x0000_ffff_0000_ffff).wrapping_mul(42_949_672_960_001) >> 32)
}

/// A number as text, written from its end.
pub(super) struct Digits {
    /// Bytes of no meaning follow the text, so that it can be copied in one piece of a fixed size.
    bytes: [u8; LONGEST + BEHIND],
    start: usize,
}

/// Bytes of the longest number as text, and those behind it.
const LONGEST: usize = 40;
const BEHIND: usize = 40;

impl Digits {
    pub(super) fn new() -> Self {
        Self { bytes: [b'0'; LONGEST + BEHIND], start: LONGEST }
    }

    pub(super) fn clear(&mut self) {
        self.start = LONGEST;
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[self.start..LONGEST]
    }

    /// Where the text lies: in these bytes, from here on, so many.
    #[inline]
    pub(super) fn parts(&self) -> (&[u8], usize, usize) {
        (&self.bytes, self.start, LONGEST - self.start)
    }

    #[inline]
    pub(super) fn prepend(&mut self, byte: u8) {
        self.start -= 1;
        self.bytes[self.start] = byte;
    }

    #[inline]
    fn prepend_pair(&mut self, pair: usize) {
        self.start -= 2;
        self.bytes[self.start..self.start + 2].copy_from_slice(&PAIRS[pair]);
    }

    /// `number` in at least `width` digits.
    #[inline]
    pub(super) fn prepend_number(&mut self, mut number: u64, width: usize) {
        let end = self.start.saturating_sub(width);
        while number > u64::from(u32::MAX) {
            self.prepend_pair((number % 100) as usize);
            number /= 100;
        }
        let mut number = number as u32;
        while number >= 100 {
            self.prepend_pair((number % 100) as usize);
            number /= 100;
        }
        if number >= 10 {
            self.prepend_pair(number as usize);
        } else {
            self.prepend(b'0' + number as u8);
        }
        while self.start > end {
            self.prepend(b'0');
        }
    }

    #[inline]
    pub(super) fn set_integer(&mut self, number: i64) {
        self.clear();
        self.prepend_number(number.unsigned_abs(), 1);
        if number < 0 {
            self.prepend(b'-');
        }
    }
}

/// All numbers of two digits.
static PAIRS: [[u8; 2]; 100] = {
    let mut pairs = [[0; 2]; 100];
    let mut number = 0;
    while number < 100 {
        pairs[number] = [b'0' + (number / 10) as u8, b'0' + (number % 10) as u8];
        number += 1;
    }
    pairs
};
