//! Values that are digits of a wider alphabet, all of one length: UUIDs, hashes, tokens.
//!
//! The body is the bytes that the digits stand for, value after value.

use super::Values;
use super::decode::Bytes;
use super::sink::Sink;
use crate::Error;
use crate::varint::Reader;

/// Alphabet and length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Packing {
    alphabet: Alphabet,
    /// Bytes that a value stands for.
    bytes: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Alphabet {
    Hex,
    UpperHex,
    /// Hexadecimal in groups of 8, 4, 4, 4 and 12.
    Uuid,
    UpperUuid,
    /// Four digits for three bytes; filled up with `=`.
    Base64,
    /// With `-` and `_`; not filled up.
    Base64Url,
}

const ALPHABETS: [Alphabet; 6] = [
    Alphabet::Hex,
    Alphabet::UpperHex,
    Alphabet::Uuid,
    Alphabet::UpperUuid,
    Alphabet::Base64,
    Alphabet::Base64Url,
];
const LOWER: &[u8; 16] = b"0123456789abcdef";
const UPPER: &[u8; 16] = b"0123456789ABCDEF";
const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const BASE64URL: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const LOWER_VALUES: [u8; 256] = values_of(LOWER);
const UPPER_VALUES: [u8; 256] = values_of(UPPER);
const BASE64_VALUES: [u8; 256] = values_of(BASE64);
const BASE64URL_VALUES: [u8; 256] = values_of(BASE64URL);
const NONE: u8 = 0xff;
/// Where a UUID has its hyphens.
const HYPHENS: [usize; 4] = [8, 13, 18, 23];

const fn values_of(digits: &[u8]) -> [u8; 256] {
    let mut values = [NONE; 256];
    let mut value = 0;
    while value < digits.len() {
        values[digits[value] as usize] = value as u8;
        value += 1;
    }
    values
}

impl Packing {
    /// The packings that a column could have whose first value is this one.
    pub(super) fn candidates(value: &[u8]) -> impl Iterator<Item = Self> {
        let length = value.len();
        let fitting = move |alphabet: Alphabet| {
            let bytes = match alphabet {
                Alphabet::Hex | Alphabet::UpperHex if length >= 8 && length.is_multiple_of(2) => length / 2,
                Alphabet::Uuid | Alphabet::UpperUuid if length == 36 => 16,

                Alphabet::Base64Url if length >= 8 && length % 4 != 1 => length * 3 / 4,
                _ => return None,
            };
            Some(Self { alphabet, bytes: u8::try_from(bytes).ok()? })
        };
        // Filled up by none, one or two, which the length does not tell.
        let filled = value.iter().rev().take_while(|byte| **byte == b'=').count();
        let base64 = (length >= 8 && length.is_multiple_of(4) && filled <= 2)
            .then(|| u8::try_from(length / 4 * 3 - filled).ok())
            .flatten()
            .map(|bytes| Self { alphabet: Alphabet::Base64, bytes });
        ALPHABETS.into_iter().filter_map(fitting).chain(base64)
    }

    pub(super) fn put(self, out: &mut Vec<u8>) {
        out.extend([self.alphabet as u8, self.bytes]);
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Option<Self>, Error> {
        let (alphabet, bytes) = (reader.byte()?, reader.byte()?);
        let alphabet = ALPHABETS.get(usize::from(alphabet)).copied();
        let uuid = |alphabet| matches!(alphabet, Alphabet::Uuid | Alphabet::UpperUuid);
        Ok(alphabet
            .filter(|alphabet| bytes > 0 && (!uuid(*alphabet) || bytes == 16))
            .map(|alphabet| Self { alphabet, bytes }))
    }

    /// Appends the bytes of all values; false (and nothing) if a value is not of this packing.
    pub(super) fn put_values(self, values: Values<'_>, out: &mut Vec<u8>) -> bool {
        let start = out.len();
        let fits = values.iter().all(|value| self.pack(value, out).is_some());
        if !fits {
            out.truncate(start);
        }
        fits
    }

    fn pack(self, value: &[u8], out: &mut Vec<u8>) -> Option<()> {
        let start = out.len();
        match self.alphabet {
            Alphabet::Hex => hex(&LOWER_VALUES, value, out)?,
            Alphabet::UpperHex => hex(&UPPER_VALUES, value, out)?,
            Alphabet::Uuid => uuid(&LOWER_VALUES, value, out)?,
            Alphabet::UpperUuid => uuid(&UPPER_VALUES, value, out)?,
            Alphabet::Base64 => {
                let filling = (3 - usize::from(self.bytes) % 3) % 3;
                let (digits, rest) = value.split_at_checked(value.len().checked_sub(filling)?)?;
                if rest.iter().any(|byte| *byte != b'=') {
                    return None;
                }
                base64(&BASE64_VALUES, digits, out)?;
            }
            Alphabet::Base64Url => base64(&BASE64URL_VALUES, value, out)?,
        }
        (out.len() - start == usize::from(self.bytes)).then_some(())
    }

    pub(super) fn read_values(
        self,
        quoted: bool,
        count: usize,
        bytes: &mut Bytes<'_, '_>,
        sink: &mut Sink,
    ) -> Result<(), Error> {
        let mut text = Vec::new();
        for packed in bytes.take(count * usize::from(self.bytes))?.chunks_exact(self.bytes.into()) {
            text.clear();
            self.unpack(packed, &mut text);
            sink.push(&text, quoted).map_err(|fault| bytes.fault(fault))?;
        }
        Ok(())
    }

    fn unpack(self, packed: &[u8], text: &mut Vec<u8>) {
        let digits = match self.alphabet {
            Alphabet::Base64 => return unbase64(BASE64, true, packed, text),
            Alphabet::Base64Url => return unbase64(BASE64URL, false, packed, text),
            Alphabet::Hex | Alphabet::Uuid => LOWER,
            Alphabet::UpperHex | Alphabet::UpperUuid => UPPER,
        };
        let hyphened = matches!(self.alphabet, Alphabet::Uuid | Alphabet::UpperUuid);
        for byte in packed {
            if hyphened && HYPHENS.contains(&text.len()) {
                text.push(b'-');
            }
            text.extend([digits[usize::from(byte >> 4)], digits[usize::from(byte & 15)]]);
        }
    }
}

fn hex(values: &[u8; 256], digits: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let (pairs, []) = digits.as_chunks::<2>() else { return None };
    for [high, low] in pairs {
        let (high, low) = (values[usize::from(*high)], values[usize::from(*low)]);
        if (high | low) == NONE {
            return None;
        }
        out.push(high << 4 | low);
    }
    Some(())
}

fn uuid(values: &[u8; 256], value: &[u8], out: &mut Vec<u8>) -> Option<()> {
    if value.len() != 36 || HYPHENS.iter().any(|at| value[*at] != b'-') {
        return None;
    }
    [0..8, 9..13, 14..18, 19..23, 24..36].into_iter().try_for_each(|digits| hex(values, &value[digits], out))
}

/// Digits without filling; the bits that are left over must be 0.
fn base64(values: &[u8; 256], digits: &[u8], out: &mut Vec<u8>) -> Option<()> {
    for group in digits.chunks(4) {
        let mut word = 0u32;
        for digit in group {
            let value = values[usize::from(*digit)];
            if value == NONE {
                return None;
            }
            word = word << 6 | u32::from(value);
        }
        match group.len() {
            4 => out.extend_from_slice(&word.to_be_bytes()[1..]),
            3 if word & 3 == 0 => out.extend_from_slice(&(word >> 2).to_be_bytes()[2..]),
            2 if word & 15 == 0 => out.push((word >> 4) as u8),
            _ => return None,
        }
    }
    Some(())
}

fn unbase64(digits: &[u8; 64], filled: bool, packed: &[u8], text: &mut Vec<u8>) {
    for group in packed.chunks(3) {
        let mut word = [0; 4];
        word[1..=group.len()].copy_from_slice(group);
        let word = u32::from_be_bytes(word);
        for place in 0..4 {
            if place <= group.len() {
                text.push(digits[(word >> (18 - 6 * place)) as usize & 63]);
            } else if filled {
                text.push(b'=');
            }
        }
    }
}
