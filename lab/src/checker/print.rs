//! What the checker remembers of a record.

use super::history::Seen;

/// Hashes of a record's parts, its timestamp and where it was: 40 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Print {
    key: u64,
    value: u64,
    headers: u64,
    /// Milliseconds since 1970.
    pub timestamp: i64,
    /// Its offset on the side it was read from.
    pub offset: i64,
}

/// What makes two records the same record.
pub(super) type Identity = [u64; 4];

const NULL: u64 = 0;
const EMPTY: u64 = 1;

/// A part of a record that can be changed by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Key,
    Value,
    Headers,
    Timestamp,
}

impl Part {
    pub(super) const ALL: [Self; 4] = [Self::Key, Self::Value, Self::Headers, Self::Timestamp];

    fn name(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Value => "value",
            Self::Headers => "headers",
            Self::Timestamp => "timestamp",
        }
    }
}

impl Print {
    /// The print of a record.
    pub fn of(seen: &Seen<'_>) -> Self {
        Self {
            key: hash(seen.key),
            value: hash(seen.value),
            headers: hash_headers(seen.headers),
            timestamp: seen.timestamp,
            offset: seen.offset,
        }
    }

    pub(super) fn identity(&self) -> Identity {
        self.facets(&Part::ALL)
    }

    /// These parts; zero in the place of the others.
    pub(super) fn facets(&self, parts: &[Part]) -> Identity {
        Part::ALL.map(|part| if parts.contains(&part) { self.part(part) } else { 0 })
    }

    /// Null, empty and absent parts say nothing about which record this is.
    pub(super) fn is_telling(&self, part: Part) -> bool {
        part != Part::Timestamp && !matches!(self.part(part), NULL | EMPTY)
    }

    /// Same but for the timestamp, which is 0 here: librdkafka writes "now" in its place.
    pub(super) fn is_rewritten_as(&self, target: &Self) -> bool {
        let content = [Part::Key, Part::Value, Part::Headers];
        self.timestamp == 0 && self.facets(&content) == target.facets(&content)
    }

    /// The names of the parts that differ.
    pub(super) fn differences(&self, other: &Self) -> String {
        let differs = |part: &Part| self.part(*part) != other.part(*part);
        let names: Vec<_> = Part::ALL.into_iter().filter(differs).map(Part::name).collect();
        names.join(", ")
    }

    fn part(&self, part: Part) -> u64 {
        match part {
            Part::Key => self.key,
            Part::Value => self.value,
            Part::Headers => self.headers,
            Part::Timestamp => self.timestamp.cast_unsigned(),
        }
    }
}

fn hash(bytes: Option<&[u8]>) -> u64 {
    match bytes {
        None => NULL,
        Some([]) => EMPTY,
        Some(bytes) => first_word(&blake3::hash(bytes)),
    }
}

fn hash_headers(headers: &[(&str, Option<&[u8]>)]) -> u64 {
    if headers.is_empty() {
        return NULL;
    }
    let mut hasher = blake3::Hasher::new();
    let mut part = |bytes: Option<&[u8]>| {
        // Null, and every length, as a number of its own: no two lists of headers give the same bytes.
        let length = bytes.map_or(u64::MAX, |it| u64::try_from(it.len()).expect("usize has 64 bits or less"));
        hasher.update(&length.to_le_bytes());
        hasher.update(bytes.unwrap_or_default());
    };
    for (name, value) in headers {
        part(Some(name.as_bytes()));
        part(*value);
    }
    first_word(&hasher.finalize())
}

fn first_word(hash: &blake3::Hash) -> u64 {
    u64::from_le_bytes(hash.as_bytes()[..8].try_into().expect("8 bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn print(value: Option<&[u8]>, headers: &[(&str, Option<&[u8]>)]) -> Print {
        Print::of(&Seen { offset: 0, timestamp: 5, key: None, value, headers })
    }

    #[test]
    fn null_and_empty_and_every_order_of_headers_are_told_apart() {
        let prints = [
            print(None, &[]),
            print(Some(b""), &[]),
            print(Some(b"a"), &[]),
            print(None, &[("a", None)]),
            print(None, &[("a", Some(b""))]),
            print(None, &[("", Some(b"a"))]),
            print(None, &[("a", None), ("b", None)]),
            print(None, &[("b", None), ("a", None)]),
            print(None, &[("a", None), ("a", None)]),
        ];
        for (i, one) in prints.iter().enumerate() {
            for (j, other) in prints.iter().enumerate() {
                assert_eq!(one.identity() == other.identity(), i == j, "{i} and {j}");
            }
        }
    }
}
