//! JSON objects and arrays, of any nesting and spacing. Escapes and numbers are left as they stand.

use super::{Token, below, step};
use crate::shape::scan::{Scan, json_string};

struct Frame {
    path: u64,
    /// Elements so far, of an array.
    index: Option<u64>,
}

/// Adds the scalars of `record` to `tokens`; false when it is not JSON.
pub(super) fn cut(record: &[u8], tokens: &mut Vec<Token>) -> bool {
    let mut cutter = Cutter { record, at: 0, tokens, frames: Vec::new() };
    let done = cutter.run().is_some();
    if !done {
        tokens.clear();
    }
    done && !tokens.is_empty()
}

struct Cutter<'a> {
    record: &'a [u8],
    at: usize,
    tokens: &'a mut Vec<Token>,
    frames: Vec<Frame>,
}

impl Cutter<'_> {
    fn run(&mut self) -> Option<()> {
        let mut path = ROOT;
        loop {
            // A value begins here; when it is done, so may be what contains it.
            let mut done = !self.opened(&mut path)?;
            while done {
                self.space();
                let Some(frame) = self.frames.last_mut() else {
                    return (self.at == self.record.len()).then_some(());
                };
                match (self.record.get(self.at)?, &mut frame.index) {
                    (b',', index) => {
                        if let Some(index) = index {
                            *index += 1;
                        }
                        self.at += 1;
                        path = self.element()?;
                        done = false;
                    }
                    (b'}', None) | (b']', Some(_)) => {
                        self.at += 1;
                        self.frames.pop();
                    }
                    _ => return None,
                }
            }
        }
    }

    /// Reads a scalar or an empty bracket: false. Or goes into an object or array, to its first value: true.
    fn opened(&mut self, path: &mut u64) -> Option<bool> {
        self.space();
        let (index, close) = match self.record.get(self.at)? {
            b'{' => (None, b'}'),
            b'[' => (Some(0), b']'),
            _ => {
                let end = Scan::Json.end(self.record, self.at, self.record.len())?;
                if end == self.at {
                    return None;
                }
                self.tokens.push(Token { start: self.at, end, path: *path, scan: Scan::Json });
                self.at = end;
                return Some(false);
            }
        };
        self.at += 1;
        self.space();
        if self.record.get(self.at) == Some(&close) {
            self.at += 1;
            return Some(false);
        }
        if self.frames.len() >= MAX_DEPTH {
            return None;
        }
        self.frames.push(Frame { path: *path, index });
        *path = self.element()?;
        Some(true)
    }

    /// The path of the next member or element of the innermost frame; reads the member's key.
    fn element(&mut self) -> Option<u64> {
        self.space();
        let frame = self.frames.last()?;
        let Some(index) = frame.index else {
            return self.key(frame.path);
        };
        let scalar = !matches!(self.record.get(self.at), Some(b'{' | b'['));
        let apart = if scalar { SCALARS_APART } else { OBJECTS_APART };
        Some(below(frame.path, index.min(apart)))
    }

    fn key(&mut self, parent: u64) -> Option<u64> {
        if self.record.get(self.at) != Some(&b'"') {
            return None;
        }
        let end = json_string(self.record, self.at, self.record.len())?;
        let key = &self.record[self.at + 1..end - 1];
        let path = if is_identifier(key) {
            // The key says which one, not what: it is a value itself.
            let path = below(parent, ANY_KEY);
            self.tokens.push(Token { start: self.at, end, path, scan: Scan::Json });
            below(path, 0)
        } else {
            below(parent, step(key))
        };
        self.at = end;
        self.space();
        if self.record.get(self.at) != Some(&b':') {
            return None;
        }
        self.at += 1;
        Some(path)
    }

    fn space(&mut self) {
        while self.record.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
    }
}

/// Whether a key is a number, a UUID, a hash: something of which each record may have another one.
fn is_identifier(key: &[u8]) -> bool {
    let digits = key.iter().filter(|byte| byte.is_ascii_digit()).count();
    let hexadecimal = key.iter().all(|byte| byte.is_ascii_hexdigit() || *byte == b'-');
    (digits == key.len() && digits >= 3) || (hexadecimal && key.len() >= 16 && digits >= 4)
}

const ROOT: u64 = 0x6a73_6f6e;
const ANY_KEY: u64 = 1;
/// Deeper nesting has no shape.
const MAX_DEPTH: usize = 64;
/// The first elements of an array have columns of their own, as coordinates and rows of a fixed length do; later ones
/// share a column.
const SCALARS_APART: u64 = 4;
const OBJECTS_APART: u64 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn values(record: &str) -> Option<Vec<&str>> {
        let mut tokens = Vec::new();
        let done = cut(record.as_bytes(), &mut tokens);
        done.then(|| tokens.iter().map(|token| &record[token.start..token.end]).collect())
    }

    fn paths(record: &str) -> Vec<u64> {
        let mut tokens = Vec::new();
        assert!(cut(record.as_bytes(), &mut tokens), "{record}");
        tokens.iter().map(|token| token.path).collect()
    }

    #[test]
    fn scalars_are_found_at_any_depth_and_spacing() {
        let cases: [(&str, &[&str]); 6] = [
            (r#"{"a":1,"b":"x"}"#, &["1", "\"x\""]),
            ("{ \"a\" : [ 1 , -2.5e3 ] ,\n \"b\" : { \"c\" : null } }\n", &["1", "-2.5e3", "null"]),
            (r#"[[],{},"a\"]"]"#, &[r#""a\"]""#]),
            (r#"{"a":{"b":{"c":[{"d":true}]}}}"#, &["true"]),
            (r#"{"":""}"#, &["\"\""]),
            (r#"[1]"#, &["1"]),
        ];
        for (record, expected) in cases {
            assert_eq!(values(record).as_deref(), Some(expected), "{record}");
        }
    }

    #[test]
    fn what_is_not_json_is_not_cut() {
        for record in [
            "{}",
            "[]",
            "{",
            "[1,]",
            "{\"a\":}",
            "{\"a\" 1}",
            "{\"a\":1]",
            "[1}",
            "{\"a\":1}}",
            "{\"a\":1} x",
            "{a:1}",
            "{\"a\":\"x}",
            "",
            " ",
            "[1,2",
            "{\"a\":1,}",
        ] {
            assert_eq!(values(record), None, "{record}");
        }
        assert_eq!(values(&"[".repeat(100_000)), None);
        assert_eq!(values(&format!("{}1{}", "[".repeat(64), "]".repeat(64))).map(|v| v.len()), Some(1));
    }

    #[test]
    fn the_same_place_has_the_same_path_whatever_stands_around_it() {
        let short = paths(r#"{"a":1,"b":{"c":2}}"#);
        let long = paths(r#"{"x":0, "b":{"c":2,"d":3},"a":"text"}"#);
        assert_eq!((short[0], short[1]), (long[3], long[1]));
        assert_ne!(long[1], long[2]);
        let elements = paths("[1,2,3,4,5,6,7]");
        assert_ne!(elements[0], elements[1]);
        assert_eq!(elements[4], elements[6]);
    }

    #[test]
    fn keys_that_are_identifiers_are_values() {
        let id = "0a1b2c3d-0000-4444-8888-123456789abc";
        let (one, other) = (format!(r#"{{"{id}":1}}"#), r#"{"12345":1}"#);
        assert_eq!(values(&one), Some(vec![&one[1..39], "1"]));
        assert_eq!(paths(&one), paths(other));
        assert_eq!(values(r#"{"field1":1}"#), Some(vec!["1"]));
    }
}
