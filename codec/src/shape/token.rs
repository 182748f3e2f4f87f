//! Cutting a record of no known shape into values: the only place that knows JSON, text, Avro and Protobuf.
//!
//! What stands between the values becomes the shape. Each value is given a path, which tells its column: the keys that
//! lead to it, or the number of its field. A record that is of no kind known here has no shape.

mod avro;
mod json;
mod protobuf;
mod text;

use std::sync::Arc;

use super::scan::Scan;
use crate::avro::Schema;

/// A value of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) start: usize,
    pub(super) end: usize,
    /// Values of one path share a column.
    pub(super) path: u64,
    pub(super) scan: Scan,
}

/// Avro schemas that an encoder was given, by the id that stands before a record; without one, for any record.
#[derive(Debug, Default, Clone)]
pub(super) struct Schemas {
    schemas: Vec<(Option<u32>, Arc<Schema>)>,
}

impl Schemas {
    pub(super) fn add(&mut self, id: Option<u32>, schema: Arc<Schema>) {
        self.schemas.push((id, schema));
    }

    /// Cuts `record` by the schema that its id names, else by one that it happens to follow.
    fn cut(&self, record: &[u8], tokens: &mut Vec<Token>) -> bool {
        let id = match record.first_chunk::<SCHEMA_ID>() {
            Some([0, id @ ..]) => Some(u32::from_be_bytes(*id)),
            _ => None,
        };
        self.schemas.iter().any(|(of, schema)| match (of, id) {
            (Some(of), Some(id)) => *of == id && avro::cut(record, SCHEMA_ID, schema, tokens),
            (Some(_), None) => false,
            (None, _) => {
                (id.is_some() && avro::cut(record, SCHEMA_ID, schema, tokens))
                    || avro::cut(record, 0, schema, tokens)
            }
        })
    }
}

/// Cuts `record`; positions count from its first byte. Empty when it has no shape.
pub(super) fn cut(record: &[u8], schemas: &Schemas, tokens: &mut Vec<Token>) {
    tokens.clear();
    if record.len() > MAX_RECORD {
        return;
    }
    let first = record.iter().find(|byte| !byte.is_ascii_whitespace());
    let cut = schemas.cut(record, tokens)
        || match first {
            Some(b'{' | b'[') => json::cut(record, tokens) || text::cut(record, tokens),
            _ => text::cut(record, tokens) || protobuf::cut(record, tokens),
        };
    if !cut || tokens.len() > MAX_TOKENS {
        tokens.clear();
    }
}

/// A path below `path`.
fn below(path: u64, step: u64) -> u64 {
    (path.rotate_left(17) ^ step).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// A key as a step of a path.
fn step(key: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(key)
}

/// Bytes of a magic byte and a schema id, as schema registries have them.
const SCHEMA_ID: usize = 5;
/// Longest record that is cut.
const MAX_RECORD: usize = 1 << 20;
/// Most values of a record that is cut.
const MAX_TOKENS: usize = 1 << 14;
