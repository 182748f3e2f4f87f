//! Digest of a group: proof that what left is what arrived.
//!
//! BLAKE3 over the group's canonical bytes, all numbers little endian:
//!
//! ```text
//! group    prev_next i64, next i64, gap u8
//! record   offset i64, timestamp i64, field key, field value, header count u32, then per header: field name, field value
//! field    length u32 (0xffff_ffff for null), bytes
//! ```
//!
//! Slot, resume epoch and everything about the encoding are left out: both ends can compute it, before and after
//! the link. Digests of many groups are added up into one of a whole range, in any order of partitions.

use std::fmt;
use std::str::FromStr;

use crate::batch::{Group, RecordView};

/// 256 bits that stand for a group, or for the sum of many.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The digest of nothing: adding it changes nothing.
    pub const ZERO: Self = Self([0; 32]);

    /// Adds `other`, both taken as 256-bit little endian numbers, wrapping.
    pub fn add(&mut self, other: &Self) {
        let mut carry = false;
        for (ours, theirs) in self.0.chunks_exact_mut(8).zip(other.0.chunks_exact(8)) {
            let (sum, over) = word(ours).overflowing_add(word(theirs));
            let (sum, over_again) = sum.overflowing_add(u64::from(carry));
            carry = over || over_again;
            ours.copy_from_slice(&sum.to_le_bytes());
        }
    }

    pub(crate) fn of_group<'a>(group: &Group, records: impl Iterator<Item = RecordView<'a>>) -> Self {
        let mut canonical = Canonical::new();
        canonical.put(&group.prev_next.to_le_bytes());
        canonical.put(&group.next.to_le_bytes());
        canonical.put(&[group.gap.to_wire()]);
        for record in records {
            canonical.put(&record.offset.to_le_bytes());
            canonical.put(&record.timestamp.to_le_bytes());
            canonical.field(record.key);
            canonical.field(record.value);
            let headers = record.headers();
            canonical.put(&(headers.len() as u32).to_le_bytes());
            for (name, value) in headers {
                canonical.field(Some(name));
                canonical.field(value);
            }
        }
        canonical.finish()
    }
}

/// Gathers small pieces into runs of one length: BLAKE3 hashes sixteen chunks side by side where a run begins at a
/// multiple of their size, and less than half as fast elsewhere.
struct Canonical {
    hasher: blake3::Hasher,
    buffer: Vec<u8>,
}

impl Canonical {
    fn new() -> Self {
        Self { hasher: blake3::Hasher::new(), buffer: Vec::with_capacity(GATHER) }
    }

    fn put(&mut self, bytes: &[u8]) {
        let room = GATHER - self.buffer.len();
        if bytes.len() < room {
            self.buffer.extend_from_slice(bytes);
            return;
        }
        let (first, rest) = bytes.split_at(room);
        self.buffer.extend_from_slice(first);
        self.hasher.update(&self.buffer);
        self.buffer.clear();
        let (whole, rest) = rest.split_at(rest.len() / GATHER * GATHER);
        self.hasher.update(whole);
        self.buffer.extend_from_slice(rest);
    }

    fn field(&mut self, bytes: Option<&[u8]>) {
        let length = bytes.map_or(u32::MAX, |bytes| bytes.len() as u32);
        self.put(&length.to_le_bytes());
        self.put(bytes.unwrap_or_default());
    }

    fn finish(mut self) -> Digest {
        self.hasher.update(&self.buffer);
        Digest(*self.hasher.finalize().as_bytes())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

/// The text is not a digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a digest is written as 64 hexadecimal digits")]
pub struct ParseDigestError;

impl FromStr for Digest {
    type Err = ParseDigestError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.as_bytes();
        if digits.len() != 64 {
            return Err(ParseDigestError);
        }
        let nibble = |digit: u8| char::from(digit).to_digit(16).ok_or(ParseDigestError);
        let mut digest = Self::ZERO;
        for (byte, pair) in digest.0.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = (nibble(pair[0])? << 4 | nibble(pair[1])?) as u8;
        }
        Ok(digest)
    }
}

fn word(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes.try_into().expect("chunks of eight"))
}

const GATHER: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Batch;

    fn one(key: Option<&[u8]>, value: Option<&[u8]>, headers: &[(&[u8], Option<&[u8]>)]) -> Digest {
        let mut batch = Batch::new();
        let group = batch.group_index(0);
        batch.push(group, 1, 2, key, value, headers.iter().copied());
        batch.group_digest(group)
    }

    #[test]
    fn the_canonical_bytes_are_as_documented() {
        let mut batch = Batch::new();
        let group = batch.group_index(5);
        batch.push(group, 3, -1, Some(b"k"), None, [(&b"n"[..], Some(&b""[..]))]);
        batch.groups_mut()[group].next = 4;
        let mut bytes = Vec::new();
        bytes.extend(0i64.to_le_bytes());
        bytes.extend(4i64.to_le_bytes());
        bytes.push(0);
        bytes.extend(3i64.to_le_bytes());
        bytes.extend((-1i64).to_le_bytes());
        bytes.extend([1, 0, 0, 0, b'k', 0xff, 0xff, 0xff, 0xff]);
        bytes.extend([1, 0, 0, 0, 1, 0, 0, 0, b'n', 0, 0, 0, 0]);
        assert_eq!(batch.group_digest(group).0, *blake3::hash(&bytes).as_bytes());
    }

    #[test]
    fn whatever_differs_shows() {
        let all = [
            one(None, None, &[]),
            one(Some(b""), None, &[]),
            one(None, Some(b""), &[]),
            one(Some(b"ab"), Some(b""), &[]),
            one(Some(b"a"), Some(b"b"), &[]),
            one(None, None, &[(b"a", None)]),
            one(None, None, &[(b"a", Some(b""))]),
            one(None, None, &[(b"a", None), (b"b", None)]),
            one(None, None, &[(b"b", None), (b"a", None)]),
        ];
        for (i, left) in all.iter().enumerate() {
            assert!(all[i + 1..].iter().all(|right| left != right));
        }
    }

    #[test]
    fn long_fields_and_many_small_ones_hash_alike_however_gathered() {
        let mut batch = Batch::new();
        let group = batch.group_index(0);
        let long = vec![7u8; 3 * GATHER];
        for offset in 0..2000 {
            batch.push(group, offset, offset, Some(b"key"), Some(b"a value"), []);
        }
        batch.push(group, 2000, 0, Some(&long), Some(&long[..GATHER]), []);
        let mut plain = blake3::Hasher::new();
        plain.update(&[0; 17]);
        for record in batch.records(group) {
            plain.update(&record.offset.to_le_bytes()).update(&record.timestamp.to_le_bytes());
            for field in [record.key, record.value] {
                let field = field.unwrap_or_default();
                plain.update(&(field.len() as u32).to_le_bytes()).update(field);
            }
            plain.update(&[0; 4]);
        }
        assert_eq!(batch.group_digest(group).0, *plain.finalize().as_bytes());
    }

    #[test]
    fn addition_carries_and_wraps_and_does_not_mind_the_order() {
        let mut all_ones = Digest([0xff; 32]);
        let mut one = Digest::ZERO;
        one.0[0] = 1;
        all_ones.add(&one);
        assert_eq!(all_ones, Digest::ZERO);
        let (a, b) = (self::one(None, None, &[]), self::one(Some(b""), None, &[]));
        let (mut ab, mut ba) = (a, b);
        ab.add(&b);
        ba.add(&a);
        assert_eq!(ab, ba);
        let mut low = Digest::ZERO;
        low.0[..8].fill(0xff);
        low.add(&one);
        assert_eq!(low.0[8], 1);
        assert!(low.0[..8].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn text_reads_back() {
        let digest = one(Some(b"k"), Some(b"v"), &[]);
        assert_eq!(digest.to_string().parse(), Ok(digest));
        assert_eq!("12".parse::<Digest>(), Err(ParseDigestError));
        assert_eq!("+".repeat(64).parse::<Digest>(), Err(ParseDigestError));
    }
}
