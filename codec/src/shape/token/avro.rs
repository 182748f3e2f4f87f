//! Avro by its schema: the branches of unions are the shape, everything else are values.

use std::hash::{DefaultHasher, Hash, Hasher};

use super::{Token, below, step};
use crate::avro::{Schema, Type};
use crate::column::Branches;
use crate::shape::scan::{Item, Scan, varint};

/// Adds the values of `record`, which begins at `start` of it, to `tokens`; false when it is not of this schema.
pub(super) fn cut(record: &[u8], start: usize, schema: &Schema, tokens: &mut Vec<Token>) -> bool {
    let mut cutter = Cutter { record, at: start, schema, tokens };
    let done = cutter.value(schema.root(), ROOT, 0).is_some() && cutter.at == record.len();
    if !done {
        tokens.clear();
    }
    done && !tokens.is_empty()
}

struct Cutter<'a> {
    record: &'a [u8],
    at: usize,
    schema: &'a Schema,
    tokens: &'a mut Vec<Token>,
}

impl Cutter<'_> {
    fn value(&mut self, place: usize, path: u64, depth: usize) -> Option<()> {
        if depth > MAX_DEPTH {
            return None;
        }
        let schema = self.schema;
        match schema.of(place) {
            Type::Null => Some(()),
            Type::Number => self.push(path, Scan::Zigzag),
            Type::Bytes(0) => Some(()),
            Type::Bytes(count) => self.push(path, Scan::Bytes(*count)),
            Type::Prefixed => self.push(path, Scan::PrefixedSigned),
            Type::Record(fields) => fields
                .iter()
                .try_for_each(|(name, of)| self.value(*of, below(path, step(name.as_bytes())), depth + 1)),
            Type::Union(branches) => {
                if let Some(scan) = self.optional(branches) {
                    return self.push(path, scan);
                }
                let branch = self.number()?;
                let of = branches.get(usize::try_from(branch).ok()?)?;
                self.value(*of, below(path, branch as u64), depth + 1)
            }
            Type::Array(items) => match schema.of(*items) {
                Type::Number => self.push(path, Scan::Blocks(Item::Number)),
                Type::Bytes(count) if *count > 0 => self.push(path, Scan::Blocks(Item::Bytes(*count))),
                Type::Prefixed => self.push(path, Scan::Blocks(Item::Prefixed)),
                _ => self.blocks(path, false, *items, depth),
            },
            Type::Map(values) => self.blocks(path, true, *values, depth),
        }
    }

    /// How a union of null and something simple is cut: as one value, so that all records have one.
    fn optional(&self, branches: &[usize]) -> Option<Scan> {
        let &[first, second] = branches else { return None };
        let (some, of) = match (self.schema.of(first), self.schema.of(second)) {
            (Type::Null, of) => (1, of),
            (of, Type::Null) => (0, of),
            _ => return None,
        };
        let item = match of {
            Type::Number => Item::Number,
            Type::Bytes(count) if *count > 0 => Item::Bytes(*count),
            Type::Prefixed => Item::Prefixed,
            _ => return None,
        };
        // Branches by their numbers, zigzag.
        Some(Scan::Optional(Branches { some: 2 * some, none: 2 * (1 - some) }, item))
    }

    /// Blocks of items, each behind their count, up to one of none.
    fn blocks(&mut self, path: u64, keys: bool, items: usize, depth: usize) -> Option<()> {
        loop {
            let before = self.at;
            let count = self.number()?;
            if count == 0 {
                return Some(());
            }
            self.at = before;
            self.push(below(path, 0), Scan::Varint)?;
            if count < 0 {
                // Then the size of the block follows.
                self.push(below(path, 1), Scan::Varint)?;
            }
            for _ in 0..count.unsigned_abs() {
                if self.tokens.len() > super::MAX_TOKENS {
                    return None;
                }
                if keys {
                    self.push(below(path, 2), Scan::PrefixedSigned)?;
                }
                let before = self.at;
                self.value(items, below(path, 3), depth + 1)?;
                if self.at == before && !keys {
                    return None;
                }
            }
        }
    }

    fn push(&mut self, path: u64, scan: Scan) -> Option<()> {
        let end = scan.end(self.record, self.at, self.record.len())?;
        // A field of one name may be of another type in another version of the schema, or in another record.
        let mut hasher = DefaultHasher::new();
        scan.hash(&mut hasher);
        let path = below(path, hasher.finish());
        self.tokens.push(Token { start: self.at, end, path, scan });
        self.at = end;
        Some(())
    }

    fn number(&mut self) -> Option<i64> {
        let (number, end) = varint(self.record, self.at, self.record.len())?;
        self.at = end;
        Some((number >> 1) as i64 ^ -((number & 1) as i64))
    }
}

const ROOT: u64 = 0x6176_726f;
const MAX_DEPTH: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEMA: &str = r#"{"type":"record","name":"R","fields":[
        {"name":"id","type":"long"},{"name":"name","type":["null","string"]},{"name":"at","type":"double"},
        {"name":"tags","type":{"type":"array","items":"string"}},{"name":"counts","type":{"type":"map","values":"int"}},
        {"name":"ok","type":"boolean"}]}"#;

    fn values(record: &[u8]) -> Option<Vec<&[u8]>> {
        let schema = Schema::parse(SCHEMA).expect("a sound schema");
        let mut tokens = Vec::new();
        cut(record, 0, &schema, &mut tokens)
            .then(|| tokens.iter().map(|token| &record[token.start..token.end]).collect())
    }

    #[test]
    fn values_are_cut_by_their_types() {
        let record = b"\x96\x01\x02\x06abc12345678\x04\x02x\x04yz\x00\x02\x02k\x05\x00\x01";
        let expected: [&[u8]; 8] = [
            b"\x96\x01",
            b"\x02\x06abc",
            b"12345678",
            b"\x04\x02x\x04yz\x00",
            b"\x02",
            b"\x02k",
            b"\x05",
            b"\x01",
        ];
        assert_eq!(values(record).as_deref(), Some(&expected[..]));
        let without = b"\x02\x0012345678\x00\x00\x00";
        assert_eq!(values(without).map(|values| values.len()), Some(5));
    }

    #[test]
    fn what_is_of_another_schema_is_not_cut() {
        let sound = b"\x02\x0012345678\x00\x00\x00";
        for end in 0..sound.len() {
            assert_eq!(values(&sound[..end]), None);
        }
        assert_eq!(values(b"\x02\x0012345678\x00\x00\x00\x00"), None);
        assert_eq!(values(b"\x02\x0612345678\x00\x00\x00"), None, "no such branch");
    }
}
