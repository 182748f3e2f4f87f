//! Cutting a record of no known shape into values: the only place that knows JSON, text, Avro and Protobuf.
//!
//! What stands between the values becomes the shape. Each value is given a path, which tells its column: the keys that
//! lead to it, or the number of its field. A record that is of no kind known here has no shape.

mod avro;
mod json;
mod protobuf;
mod text;

use std::collections::BTreeSet;
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

/// Avro schemas that an encoder was given, and for which records.
#[derive(Debug, Default, Clone)]
pub(super) struct Schemas {
    schemas: Vec<(Scope, Arc<Schema>)>,
    /// Ids that stood before records and are of none of them, while that is to be known.
    unknown: Option<BTreeSet<u32>>,
}

/// Which records a schema is for. Without an id they have any, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Scope {
    /// Records of this source partition, else of all.
    pub(super) slot: Option<u32>,
    /// Those that this id of a schema registry stands before.
    pub(super) id: Option<u32>,
}

impl Schemas {
    pub(super) fn add(&mut self, scope: Scope, schema: Arc<Schema>) {
        match self.schemas.iter_mut().find(|(of, _)| *of == scope) {
            Some((_, known)) => *known = schema,
            None => self.schemas.push((scope, schema)),
        }
    }

    /// Begins to note ids that are not known.
    pub(super) fn note_unknown(&mut self) {
        self.unknown.get_or_insert_default();
    }

    /// The ids that were noted since they were taken last.
    pub(super) fn take_unknown(&mut self) -> Vec<u32> {
        self.unknown.as_mut().map(std::mem::take).unwrap_or_default().into_iter().collect()
    }

    /// Cuts a record of `slot` by the schema that its id names, else by one that it happens to follow.
    fn cut(&mut self, record: &[u8], slot: u32, tokens: &mut Vec<Token>) -> bool {
        let id = match record.first_chunk::<SCHEMA_ID>() {
            Some([0, id @ ..]) => Some(u32::from_be_bytes(*id)),
            _ => None,
        };
        let of_slot = |scope: &Scope| scope.slot.is_none_or(|of| of == slot);
        let cut = self.schemas.iter().filter(|(scope, _)| of_slot(scope)).any(|(scope, schema)| {
            match (scope.id, id) {
                (Some(of), Some(id)) => of == id && avro::cut(record, SCHEMA_ID, schema, tokens),
                (Some(_), None) => false,
                (None, _) => {
                    (id.is_some() && avro::cut(record, SCHEMA_ID, schema, tokens))
                        || avro::cut(record, 0, schema, tokens)
                }
            }
        });
        if let (Some(unknown), Some(id), false) = (&mut self.unknown, id, cut)
            && unknown.len() < MAX_UNKNOWN
            && self.schemas.iter().all(|(scope, _)| scope.id != Some(id))
        {
            unknown.insert(id);
        }
        cut
    }
}

/// Cuts a record of `slot`; positions count from its first byte. Empty when it has no shape.
pub(super) fn cut(record: &[u8], slot: u32, schemas: &mut Schemas, tokens: &mut Vec<Token>) {
    tokens.clear();
    if record.len() > MAX_RECORD {
        return;
    }
    let first = record.iter().find(|byte| !byte.is_ascii_whitespace());
    let cut = schemas.cut(record, slot, tokens)
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
/// Ids that are noted before somebody takes them.
const MAX_UNKNOWN: usize = 64;
/// Longest record that is cut.
const MAX_RECORD: usize = 1 << 20;
/// Most values of a record that is cut.
const MAX_TOKENS: usize = 1 << 14;
