//! Protobuf by its wire structure, without a schema: tags are the shape, what they announce are the values.
//!
//! A value that is announced with its length keeps it. If it reads as a message itself, and not as text, its length is a
//! value of its own and its fields follow.

use super::{SCHEMA_ID, Token, below};
use crate::shape::scan::{Scan, varint};

/// Adds the fields of `record` to `tokens`; false when it is not Protobuf, alone or behind a schema id.
pub(super) fn cut(record: &[u8], tokens: &mut Vec<Token>) -> bool {
    // Magic byte 0, schema id, and index of the message, mostly the first: 0.
    let start = if record.first() == Some(&0) { SCHEMA_ID + 1 } else { 0 };
    if record.len() <= start || (start > 0 && record[SCHEMA_ID] != 0) {
        return false;
    }
    let mut ends = vec![(record.len(), ROOT)];
    let mut at = start;
    while let Some(&(end, parent)) = ends.last() {
        if at == end {
            ends.pop();
            continue;
        }
        let Some(field) = field(record, at, end) else {
            tokens.clear();
            return false;
        };
        let path = below(parent, field.tag);
        let value = field.value;
        if field.scan == Scan::Prefixed && ends.len() < MAX_DEPTH {
            let inside = varint(record, value, end).map_or(value, |(_, inside)| inside);
            if is_message(&record[inside..field.end]) {
                tokens.push(Token { start: value, end: inside, path: below(path, 0), scan: Scan::Varint });
                ends.push((field.end, path));
                at = inside;
                continue;
            }
        }
        tokens.push(Token { start: value, end: field.end, path, scan: field.scan });
        at = field.end;
    }
    tokens.len() >= FEWEST
}

struct Field {
    tag: u64,
    value: usize,
    end: usize,
    scan: Scan,
}

/// The field at `at` of a message that ends at `end`.
fn field(record: &[u8], at: usize, end: usize) -> Option<Field> {
    let (tag, value) = varint(record, at, end)?;
    let scan = match tag & 7 {
        0 => Scan::Varint,
        1 => Scan::Bytes(8),
        2 => Scan::Prefixed,
        5 => Scan::Bytes(4),
        _ => return None,
    };
    let number = tag >> 3;
    // Written in more bytes than it needs, or of a number that nobody uses: something else.
    if number == 0 || number > MAX_NUMBER || (value - at > 1 && tag < 0x80) {
        return None;
    }
    scan.end(record, value, end).map(|end| Field { tag, value, end, scan })
}

/// Whether `bytes` are fields one behind the other, and do not read as text.
fn is_message(bytes: &[u8]) -> bool {
    if bytes.len() < 2 || bytes.iter().all(|&byte| byte >= b' ' && byte != 0x7f) {
        return false;
    }
    let mut at = 0;
    while at < bytes.len() {
        match field(bytes, at, bytes.len()) {
            Some(field) => at = field.end,
            None => return false,
        }
    }
    true
}

const ROOT: u64 = 0x7062;
const MAX_NUMBER: u64 = 2048;
const MAX_DEPTH: usize = 16;
/// With fewer fields nearly anything reads as a message.
const FEWEST: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    fn values(record: &[u8]) -> Option<Vec<&[u8]>> {
        let mut tokens = Vec::new();
        cut(record, &mut tokens).then(|| tokens.iter().map(|token| &record[token.start..token.end]).collect())
    }

    #[test]
    fn fields_are_cut_with_those_of_messages_within() {
        let record = b"\x08\x96\x01\x12\x03abc\x1a\x04\x08\x01\x10\x02\x25wxyz\x29abcdefgh";
        let expected: [&[u8]; 7] = [b"\x96\x01", b"\x03abc", b"\x04", b"\x01", b"\x02", b"wxyz", b"abcdefgh"];
        assert_eq!(values(record).as_deref(), Some(&expected[..]));
        let with_id = [b"\x00\x00\x00\x00\x07\x00", &record[..]].concat();
        assert_eq!(values(&with_id).map(|values| values.len()), Some(7));
    }

    #[test]
    fn what_is_not_protobuf_is_not_cut() {
        for record in [
            &b""[..],
            b"\x08",
            b"\x08\x01\x12",
            b"\x08\x01\x12\x05abc",
            b"\x00\x01\x08\x01",
            b"\x0c\x01\x08\x01\x08\x01",
            b"\x08\x01\x08\x01",
            b"\x08\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01\x08\x01\x08\x01",
        ] {
            assert_eq!(values(record), None, "{record:?}");
        }
    }
}
