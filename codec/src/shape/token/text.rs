//! Lines of text: fields between delimiters, or words between spaces with quotes and brackets.

use super::{Token, below, step};
use crate::shape::scan::Scan;

/// Adds the fields of `record` to `tokens`; false when it is not text of one line.
pub(super) fn cut(record: &[u8], tokens: &mut Vec<Token>) -> bool {
    if record.is_empty() || record.iter().any(|&byte| byte < b' ' && byte != b'\t' && byte != b'\r') {
        return false;
    }
    let count = |wanted: u8| record.iter().filter(|&&byte| byte == wanted).count();
    let spaces = count(b' ');
    let (fields, delimiter) = b",;\t|".iter().map(|&byte| (count(byte), byte)).max().expect("there are some");
    if fields >= 3 && fields * 3 > spaces || fields >= 1 && spaces == 0 || delimiter == b'\t' && fields >= 2 {
        delimited(record, delimiter, tokens);
    } else if spaces >= 1 {
        Words { record, at: 0, tokens }.cut();
    } else {
        tokens.push(Token { start: 0, end: record.len(), path: WORD, scan: Scan::Lone });
    }
    true
}

fn delimited(record: &[u8], delimiter: u8, tokens: &mut Vec<Token>) {
    let base = below(FIELDS, delimiter.into());
    let scan = Scan::Field(delimiter);
    let mut at = 0;
    for field in 0u64.. {
        let end = if field < MAX_FIELDS {
            scan.end(record, at, record.len()).unwrap_or(record.len())
        } else {
            record.len()
        };
        let scan = if field < MAX_FIELDS { scan } else { Scan::Rest };
        tokens.push(Token { start: at, end, path: below(base, field), scan });
        if end == record.len() {
            return;
        }
        at = end + 1;
    }
}

struct Words<'a> {
    record: &'a [u8],
    at: usize,
    tokens: &'a mut Vec<Token>,
}

impl Words<'_> {
    fn cut(&mut self) {
        for word in 0u64.. {
            let place = below(WORDS, word.min(MAX_WORDS));
            if word >= MAX_WORDS {
                self.push(self.record.len(), place, Scan::Rest);
                return;
            }
            let place = self.name().map_or(place, |name| below(WORDS_BY_NAME, name));
            match self.record.get(self.at) {
                Some(b'"') if self.quoted(b'"', place) => {}
                Some(b'[') if self.quoted(b']', below(place, 1)) => {}
                _ => {
                    let end = Scan::UpTo(b' ').end(self.record, self.at, self.record.len());
                    self.push(end.unwrap_or(self.record.len()), place, Scan::UpTo(b' '));
                }
            }
            if self.at == self.record.len() {
                return;
            }
            // The space, or what follows a closing quote.
            self.at += usize::from(self.record[self.at] == b' ');
            if self.at == self.record.len() {
                self.push(self.at, below(WORDS, word + 1), Scan::UpTo(b' '));
                return;
            }
        }
    }

    fn push(&mut self, end: usize, path: u64, scan: Scan) {
        self.tokens.push(Token { start: self.at, end, path, scan });
        self.at = end;
    }

    /// `name=` before the value, as a step of a path.
    fn name(&mut self) -> Option<u64> {
        let rest = &self.record[self.at..];
        let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || b"_.-".contains(byte);
        let length = rest.iter().take(MAX_NAME).take_while(|byte| is_name(byte)).count();
        if length == 0 || rest.get(length) != Some(&b'=') || !rest[0].is_ascii_alphabetic() {
            return None;
        }
        self.at += length + 1;
        Some(step(&rest[..length]))
    }

    /// What stands between the quote or bracket here and `close`; false when it is not closed before a space or the end.
    fn quoted(&mut self, close: u8, place: u64) -> bool {
        let open = self.at;
        let inside = open + 1;
        let mut from = inside;
        let end = loop {
            let Some(end) = super::super::scan::find(self.record, from, self.record.len(), close) else {
                return false;
            };
            let escaped = close == b'"' && self.record[end - 1] == b'\\';
            if !escaped && matches!(self.record.get(end + 1), None | Some(b' ')) {
                break end;
            }
            // A bracket within, or a word goes on behind it: another kind of text.
            if close == b']' {
                return false;
            }
            from = end + 1;
        };
        self.at = inside;
        if close == b'"' && is_request(&self.record[inside..end]) {
            for part in 0..2 {
                let space = Scan::BeforeEither(b' ', b'"');
                let stop = space.end(self.record, self.at, end).unwrap_or(end);
                self.push(stop, below(place, 10 + part), space);
                self.at += 1;
            }
            self.push(end, below(place, 12), Scan::Before(close));
        } else {
            self.push(end, below(place, 2), Scan::Before(close));
        }
        self.at = end + 1;
        true
    }
}

/// Whether `text` is the first line of an HTTP request: method, target, version.
fn is_request(text: &[u8]) -> bool {
    let mut parts = text.split(|&byte| byte == b' ');
    let method = parts.next().is_some_and(|part| !part.is_empty() && part.iter().all(u8::is_ascii_uppercase));
    let target = parts.next().is_some_and(|part| !part.is_empty() && !part.contains(&b'"'));
    let version = parts.next().is_some_and(|part| part.starts_with(b"HTTP/"));
    method && target && version && parts.next().is_none()
}

const WORD: u64 = 0x776f_7264;
const WORDS: u64 = 0x776f_7264_7300;
const WORDS_BY_NAME: u64 = 0x776f_7264_7301;
const FIELDS: u64 = 0x6669_656c_6473;
/// Fields beyond are one value.
const MAX_FIELDS: u64 = 512;
/// Words beyond are one value.
const MAX_WORDS: u64 = 32;
const MAX_NAME: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn values(record: &str) -> Vec<&str> {
        let mut tokens = Vec::new();
        assert!(cut(record.as_bytes(), &mut tokens), "{record}");
        tokens.iter().map(|token| &record[token.start..token.end]).collect()
    }

    #[test]
    fn fields_and_words_are_found() {
        let cases: [(&str, &[&str]); 12] = [
            ("a,b,,d", &["a", "b", "", "d"]),
            ("a;b;c;", &["a", "b", "c", ""]),
            ("a,\"b,c\",d,e", &["a", "\"b,c\"", "d", "e"]),
            ("x\ty z\t-", &["x", "y z", "-"]),
            ("order-17", &["order-17"]),
            ("10.0.0.1 - me [1/May 10:00] end", &["10.0.0.1", "-", "me", "1/May 10:00", "end"]),
            (
                r#"- "GET /a?b=1 HTTP/1.1" 200 "Mozilla (x; y)""#,
                &["-", "GET", "/a?b=1", "HTTP/1.1", "200", "Mozilla (x; y)"],
            ),
            (r#"a "say \"so\" twice" b"#, &["a", r#"say \"so\" twice"#, "b"]),
            (r#"level=info msg="it works" n=3"#, &["info", "it works", "3"]),
            ("a  b ", &["a", "", "b", ""]),
            ("open \"quote and [bracket", &["open", "\"quote", "and", "[bracket"]),
            ("[[a]b] c", &["[[a]b]", "c"]),
        ];
        for (record, expected) in cases {
            assert_eq!(values(record), expected, "{record}");
        }
    }

    #[test]
    fn binary_and_many_lines_are_not_cut() {
        for record in [&b""[..], b"a\0b", b"one\ntwo", b"\x01"] {
            assert!(!cut(record, &mut Vec::new()), "{record:?}");
        }
    }

    #[test]
    fn names_make_paths_wherever_they_stand() {
        let paths = |record: &str| {
            let mut tokens = Vec::new();
            assert!(cut(record.as_bytes(), &mut tokens));
            tokens.iter().map(|token| token.path).collect::<Vec<_>>()
        };
        let (one, other) = (paths("a=1 b=2"), paths("x b=3 a=4"));
        assert_eq!((one[0], one[1]), (other[2], other[1]));
    }
}
