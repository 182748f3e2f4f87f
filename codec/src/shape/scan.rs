//! Where a value ends. Only the coder needs to know; what it cuts is put together again by concatenation, so that a
//! value cut in an odd place costs bytes at worst.

use memchr::{memchr, memchr2, memchr3};

use super::dress::Dress;
use crate::column::{Binary, Branches, Form};

/// How the end of a column's values is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Scan {
    /// A JSON string with its quotes, or else all up to a comma, a closing bracket, white space.
    Json,
    /// A field of delimited text, quoted or not.
    Field(u8),
    /// All before this byte; the byte must follow.
    Before(u8),
    /// All before one of two bytes; one of them must follow.
    BeforeEither(u8, u8),
    /// All up to the byte, or to the end of the record.
    UpTo(u8),
    /// All the rest.
    Rest,
    /// The same, of a record that is one value and could not be cut into more.
    Lone,
    /// A number of seven bits a byte.
    Varint,
    /// The same, zigzag.
    Zigzag,
    /// So many bytes.
    Bytes(u32),
    /// Bytes behind their number, which is a [`Varint`](Self::Varint), in no more bytes than it needs.
    Prefixed,
    /// The same with a zigzag number.
    PrefixedSigned,
    /// A branch of an Avro union of null and something: its number, then the value if there is one.
    Optional(Branches, Item),
    /// An Avro array of scalars: blocks of items, each behind their number, up to one of none.
    Blocks(Item),
}

/// What a block of an Avro array consists of, or a union with null.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Item {
    Number,
    Bytes(u32),
    Prefixed,
}

impl Scan {
    /// Where a column's value begins and ends that stands at `at` of a record that ends at `end`: its
    /// [dress](Self::dress) is left out. None where it does not end as it should.
    #[inline(always)]
    pub(super) fn value(self, bytes: &[u8], at: usize, end: usize) -> Option<(usize, usize)> {
        let is_quoted = || at < end && bytes[at] == b'"';
        let stop = match self {
            Self::Json if is_quoted() => json_string(bytes, at, end)?,
            Self::Json => json_bare(&bytes[..end], at),
            Self::Field(delimiter) if !is_quoted() => find(bytes, at, end, delimiter).unwrap_or(end),
            Self::Before(byte) => find(bytes, at, end, byte)?,
            Self::UpTo(byte) => find(bytes, at, end, byte).unwrap_or(end),
            _ => return self.other_value(bytes, at, end),
        };
        Some((at, stop))
    }

    #[inline(never)]
    fn other_value(self, bytes: &[u8], at: usize, end: usize) -> Option<(usize, usize)> {
        match self {
            Self::Prefixed => prefixed(bytes, at, end, Some),
            Self::PrefixedSigned => prefixed(bytes, at, end, unsigned),
            Self::Optional(branches, Item::Prefixed) => {
                if *bytes[..end].get(at)? == branches.none {
                    return Some((at, at + 1));
                }
                let (start, stop) = prefixed(bytes, at + 1, end, unsigned)?;
                // That would be taken for the other branch.
                let is_other = bytes[start..stop] == [branches.none];
                (bytes[at] == branches.some && !is_other).then_some((start, stop))
            }
            _ => self.end(bytes, at, end).map(|stop| (at, stop)),
        }
    }

    /// What stands before each value and is not in its column.
    pub(super) fn dress(self) -> Dress {
        match self {
            Self::Prefixed => Dress::Length,
            Self::PrefixedSigned => Dress::SignedLength,
            Self::Optional(branches, Item::Prefixed) => Dress::Optional(branches),
            _ => Dress::Bare,
        }
    }

    /// How values are read as numbers, if they are some in binary.
    pub(super) fn binary(self) -> Option<Binary> {
        let item = |item| match item {
            Item::Number => Some(Form::Zigzag),
            Item::Bytes(4) => Some(Form::Fixed32),
            Item::Bytes(8) => Some(Form::Fixed64),
            _ => None,
        };
        let (form, optional) = match self {
            Self::Varint => (Form::Varint, None),
            Self::Zigzag => (Form::Zigzag, None),
            Self::Bytes(count) => (item(Item::Bytes(count))?, None),
            Self::Optional(branches, of) => (item(of)?, Some(branches)),
            _ => return None,
        };
        Some(Binary { form, optional })
    }

    /// End of the value that begins at `at` of a record that ends at `end`; none where it does not end as it should.
    pub(super) fn end(self, bytes: &[u8], at: usize, end: usize) -> Option<usize> {
        match self {
            Self::Field(delimiter) if at < end && bytes[at] == b'"' => {
                quoted_field(&bytes[..end], at, delimiter)
            }
            Self::BeforeEither(a, b) => memchr2(a, b, &bytes[at..end]).map(|found| at + found),
            Self::Rest => Some(end),
            // Bytes that are no text may have any shape or none: it goes on as it began.
            Self::Lone => (!is_structured(&bytes[at..end]) || !is_text(&bytes[at..end])).then_some(end),
            Self::Varint | Self::Zigzag => varint(bytes, at, end).map(|(_, end)| end),
            Self::Bytes(count) => Some(at + count as usize).filter(|&stop| stop <= end),
            Self::Json
            | Self::Field(_)
            | Self::Before(_)
            | Self::UpTo(_)
            | Self::Prefixed
            | Self::PrefixedSigned => self.value(bytes, at, end).map(|(_, stop)| stop),
            Self::Optional(branches, item) => match *bytes[..end].get(at)? {
                byte if byte == branches.none => Some(at + 1),
                byte if byte == branches.some => item.scan().value(bytes, at + 1, end).map(|(_, stop)| stop),
                _ => None,
            },
            Self::Blocks(item) => blocks(bytes, at, end, item),
        }
    }
}

impl Item {
    fn scan(self) -> Scan {
        match self {
            Self::Number => Scan::Zigzag,
            Self::Bytes(count) => Scan::Bytes(count),
            Self::Prefixed => Scan::PrefixedSigned,
        }
    }
}

/// Whether a record is text that could not be cut.
pub(super) fn is_word(record: &[u8]) -> bool {
    !is_structured(record) && is_text(record)
}

/// Whether a record, if it is text, can be cut: it has a delimiter, or is JSON that holds something.
fn is_structured(record: &[u8]) -> bool {
    let holds = record.len() > 2 && matches!(record[0], b'{' | b'[');
    holds || memchr3(b' ', b',', b';', record).or_else(|| memchr2(b'\t', b'|', record)).is_some()
}

fn is_text(record: &[u8]) -> bool {
    let control = |byte: &u8| *byte < b' ' && !matches!(byte, b'\t' | b'\n' | b'\r');
    !record.iter().any(control) && std::str::from_utf8(record).is_ok()
}

/// Start and end of bytes that stand behind their number, from which `length` makes their length.
fn prefixed(
    bytes: &[u8],
    at: usize,
    end: usize,
    length: impl FnOnce(u64) -> Option<u64>,
) -> Option<(usize, usize)> {
    let (number, start) = varint(bytes, at, end)?;
    if start - at != varint_bytes(number) {
        return None;
    }
    let stop = start.checked_add(usize::try_from(length(number)?).ok()?)?;
    (stop <= end).then_some((start, stop))
}

/// The length that a zigzag number says.
fn unsigned(number: u64) -> Option<u64> {
    number.is_multiple_of(2).then_some(number >> 1)
}

/// Bytes that a number needs, seven bits each.
pub(super) fn varint_bytes(number: u64) -> usize {
    (64 - (number | 1).leading_zeros() as usize).div_ceil(7)
}

/// End of an Avro array of scalars. An array that tells the size of its blocks is none of those.
fn blocks(bytes: &[u8], mut at: usize, end: usize, item: Item) -> Option<usize> {
    let item = item.scan();
    loop {
        let (count, items) = varint(bytes, at, end)?;
        at = items;
        if count == 0 {
            return Some(at);
        }
        if count & 1 == 1 {
            return None;
        }
        for _ in 0..count >> 1 {
            // An item takes a byte at least, so that this ends.
            at = item.end(bytes, at, end)?;
        }
    }
}

/// The number of seven bits a byte at `at`, and where it ends.
pub(super) fn varint(bytes: &[u8], at: usize, end: usize) -> Option<(u64, usize)> {
    let mut number = 0;
    for (index, &byte) in bytes[at..end].iter().take(10).enumerate() {
        number |= u64::from(byte & 0x7f) << (7 * index);
        if byte < 0x80 {
            return Some((number, at + index + 1));
        }
    }
    None
}

/// End of a JSON string, behind its closing quote, which no odd number of backslashes precedes.
#[inline(always)]
pub(super) fn json_string(bytes: &[u8], at: usize, end: usize) -> Option<usize> {
    let quote = find(bytes, at + 1, end, b'"')?;
    if bytes[quote - 1] != b'\\' { Some(quote + 1) } else { escaped_string(&bytes[..end], at + 1, quote) }
}

/// The same where a backslash stands before the first quote.
#[cold]
fn escaped_string(record: &[u8], mut from: usize, mut quote: usize) -> Option<usize> {
    loop {
        let backslashes = record[from..quote].iter().rev().take_while(|&&byte| byte == b'\\').count();
        if backslashes % 2 == 0 {
            return Some(quote + 1);
        }
        from = quote + 1;
        quote = from + memchr(b'"', record.get(from..)?)?;
    }
}

/// End of a JSON number, true, false or null.
#[inline]
fn json_bare(record: &[u8], at: usize) -> usize {
    let mut end = at;
    while end < record.len() && !ENDS_BARE[usize::from(record[end])] {
        end += 1;
    }
    end
}

/// End of a field that begins with a quote: behind the quote before the delimiter or the end of the record.
fn quoted_field(record: &[u8], at: usize, delimiter: u8) -> Option<usize> {
    let mut from = at + 1;
    while let Some(quote) = find(record, from, record.len(), b'"') {
        match record.get(quote + 1) {
            None => return Some(quote + 1),
            Some(&byte) if byte == delimiter => return Some(quote + 1),
            // Two quotes stand for one within.
            Some(b'"') => from = quote + 2,
            _ => from = quote + 1,
        }
    }
    // A quote that is not closed is a character as any other.
    Some(find(record, at, record.len(), delimiter).unwrap_or(record.len()))
}

/// Where `byte` stands next, before `end`. Most values are short: their first words are looked at in place, and with them
/// what lies behind the end.
#[inline(always)]
pub(super) fn find(bytes: &[u8], mut from: usize, end: usize, byte: u8) -> Option<usize> {
    const LOW: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let pattern = LOW * u64::from(byte);
    for _ in 0..3 {
        let Some(word) = bytes.get(from..).and_then(<[u8]>::first_chunk) else { break };
        let word = u64::from_le_bytes(*word) ^ pattern;
        let found = word.wrapping_sub(LOW) & !word & HIGH;
        if found != 0 {
            let found = from + found.trailing_zeros() as usize / 8;
            return (found < end).then_some(found);
        }
        from += 8;
    }
    find_far(bytes, from, end, byte)
}

#[inline(never)]
fn find_far(bytes: &[u8], from: usize, end: usize, byte: u8) -> Option<usize> {
    memchr(byte, bytes.get(from..end)?).map(|found| from + found)
}

static ENDS_BARE: [bool; 256] = {
    let mut ends = [false; 256];
    let bytes = b",}] \t\r\n";
    let mut i = 0;
    while i < bytes.len() {
        ends[bytes[i] as usize] = true;
        i += 1;
    }
    ends
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_end_at_their_own_quote() {
        let end = |text: &[u8]| Scan::Json.end(text, 0, text.len());
        assert_eq!(end(br#""a",1"#), Some(3));
        assert_eq!(end(br#""a\"b",1"#), Some(6));
        assert_eq!(end(br#""a\\",1"#), Some(5));
        assert_eq!(end(br#""a\\\"",1"#), Some(7));
        assert_eq!(end(br#""","#), Some(2));
        assert_eq!(end(br#""open"#), None);
        assert_eq!(end(br#""\"#), None);
        assert_eq!(end(b"12.5e3}"), Some(6));
        assert_eq!(end(b""), Some(0));
    }

    #[test]
    fn fields_end_at_the_delimiter_outside_of_quotes() {
        let end = |text: &[u8]| Scan::Field(b',').end(text, 0, text.len());
        assert_eq!(end(b"ab,c"), Some(2));
        assert_eq!(end(b"ab"), Some(2));
        assert_eq!(end(br#""a,b",c"#), Some(5));
        assert_eq!(end(br#""a"",b",c"#), Some(7));
        assert_eq!(end(br#""a,b"#), Some(2));
    }

    #[test]
    fn a_byte_is_found_wherever_it_stands() {
        for length in 0..70 {
            for at in 0..length {
                let mut text = vec![b'x'; length];
                text[at] = b',';
                assert_eq!(find(&text, 0, text.len(), b','), Some(at));
                assert_eq!(find(&text, at + 1, text.len(), b','), None);
                assert_eq!(find(&text, 0, at, b','), None, "what lies behind the end");
            }
        }
        // Neighbours of the byte sought are no match, above a match or below.
        assert_eq!(find(b"-+,-+...........", 0, 16, b','), Some(2));
        assert_eq!(find(b"-+-+-+-+-+-+-+-+", 0, 16, b','), None);
    }

    #[test]
    fn a_value_ends_within_its_record() {
        assert_eq!(Scan::Json.end(br#""ab","#, 0, 3), None);
        assert_eq!(Scan::Json.end(b"123,", 0, 2), Some(2));
        assert_eq!(Scan::Before(b',').end(b"123,", 0, 3), None);
        assert_eq!(Scan::BeforeEither(b',', b';').end(b"12;,", 0, 4), Some(2));
        assert_eq!(Scan::UpTo(b',').end(b"123,", 0, 3), Some(3));
        assert_eq!(Scan::Varint.end(b"\x81\x01", 0, 1), None);
        assert_eq!(Scan::Varint.end(b"\x81\x01", 0, 2), Some(2));
        assert_eq!((Scan::Bytes(4).end(b"1234", 0, 4), Scan::Bytes(4).end(b"1234", 1, 4)), (Some(4), None));
        assert_eq!(Scan::Zigzag.end(b"\x80\x01", 0, 2), Some(2));
        assert_eq!(
            (Scan::Prefixed.end(b"\x02ab", 0, 3), Scan::Prefixed.end(b"\x02ab", 0, 2)),
            (Some(3), None)
        );
    }

    #[test]
    fn a_length_is_left_out_if_it_is_written_in_the_usual_way() {
        let value = |scan: Scan, bytes: &[u8]| scan.value(bytes, 0, bytes.len());
        assert_eq!(value(Scan::Prefixed, b"\x02ab"), Some((1, 3)));
        assert_eq!(value(Scan::PrefixedSigned, b"\x04ab"), Some((1, 3)));
        assert_eq!(value(Scan::PrefixedSigned, b"\x03ab"), None);
        assert_eq!(value(Scan::Prefixed, b"\x82\x00ab"), None);
        let optional = Scan::Optional(Branches { some: 2, none: 0 }, Item::Prefixed);
        assert_eq!(value(optional, b"\x02\x04ab"), Some((2, 4)));
        assert_eq!(value(optional, b"\x00"), Some((0, 1)));
        assert_eq!(value(optional, b"\x02\x02\x00"), None, "as the other branch");
        assert_eq!((value(optional, b"\x04\x04ab"), value(optional, b"")), (None, None));
        let number = Scan::Optional(Branches { some: 0, none: 2 }, Item::Number);
        assert_eq!((value(number, b"\x00\x81\x01"), value(number, b"\x02")), (Some((0, 3)), Some((0, 1))));
    }
}
