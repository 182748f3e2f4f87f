//! Records put together: the text of their shapes and their values, one behind the other.
//!
//! What all records of a parcel have in common along a chain is put together first, values included that are the same
//! for all of them. What is left is a list of copies, short ones as a rule: those are made sixteen bytes at a time, or twice
//! as many, over what comes next, which is written afterwards.

use super::chain::{ChainId, Chains};
use super::dress::Dress;
use super::graph::{END, Graph, NULL, START_NODES};
use crate::column::Sink;

/// Appends records to an arena.
#[derive(Debug, Default)]
pub(super) struct Builder {
    /// By chain: where its pieces begin and one, 0 before they are made; they end with the first that has no column.
    plans: Vec<u32>,
    pieces: Vec<Piece>,
    /// Text of the pieces.
    text: Vec<u8>,
    /// By place of a column: its next value among all.
    next: Vec<u32>,
    at: usize,
}

/// Text, then a value of a column unless it is the last of its chain.
#[derive(Debug, Clone, Copy)]
struct Piece {
    start: u32,
    length: u32,
    /// The place of the column among those of the parcel.
    place: u32,
    /// What its values wear.
    dress: Dress,
}

/// What keys and values of one parcel are made of.
pub(super) struct Parts<'a> {
    pub(super) graph: &'a Graph,
    pub(super) chains: &'a Chains,
    /// By column: its place among those of the parcel.
    pub(super) places: &'a [u32],
    /// By column: what its values wear; bare are those beyond the last.
    pub(super) dresses: &'a [Dress],
    pub(super) sink: &'a Sink,
}

impl Builder {
    /// Bytes held.
    pub(super) fn memory(&self) -> usize {
        (self.plans.capacity() + self.next.capacity()) * size_of::<u32>()
            + self.pieces.capacity() * size_of::<Piece>()
            + self.text.capacity()
    }

    /// Begins a parcel whose records come to `bytes`, from `begin` on in `arena`.
    pub(super) fn begin(&mut self, sink: &Sink, begin: usize, arena: &mut Vec<u8>, bytes: usize) {
        self.next.clear();
        self.next.extend(sink.starts().iter().map(|&start| start as u32));
        arena.reserve_exact(bytes + SLACK);
        arena.resize(begin + bytes + SLACK, 0);
        self.at = begin;
    }

    /// Where the next record begins.
    #[inline]
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// Appends what lies along the next way; false for null.
    #[inline]
    pub(super) fn record(
        &mut self,
        way: &mut std::slice::Iter<'_, ChainId>,
        parts: &Parts<'_>,
        arena: &mut [u8],
    ) -> bool {
        let (chains, sink) = (parts.chains, parts.sink);
        let mut at = self.at;
        for &id in way {
            let mut piece = match self.plans.get(id as usize) {
                Some(&plan @ 1..) => plan as usize - 1,
                _ => self.plan(id, parts),
            };
            loop {
                let Piece { start, length, place, dress } = self.pieces[piece];
                at = copy(&self.text, start as usize, length as usize, arena, at);
                if place == NO_COLUMN {
                    break;
                }
                let next = &mut self.next[place as usize];
                let span = sink.nth(*next as usize);
                *next += 1;
                if dress != Dress::Bare {
                    at = dress.write_before(sink.value(span), arena, at);
                }
                at = copy(sink.arena(), span.start as usize, (span.end - span.start) as usize, arena, at);
                piece += 1;
            }
            let target = chains.get(id).target;
            if target == END || target == NULL {
                self.at = at;
                return target == END;
            }
        }
        self.at = at;
        true
    }

    /// Makes the pieces of a chain.
    #[cold]
    fn plan(&mut self, id: ChainId, parts: &Parts<'_>) -> usize {
        let &Parts { graph, chains, places, dresses, sink } = parts;
        let first = self.pieces.len();
        let mut start = self.text.len();
        let mut end_piece = |text: &[u8], place: u32, dress: Dress, start: &mut usize| {
            let length = (text.len() - *start) as u32;
            self.pieces.push(Piece { start: *start as u32, length, place, dress });
            *start = text.len();
        };
        for edge in chains.edges_of(id).iter().map(|&id| graph.edge(id)) {
            self.text.extend_from_slice(graph.literal(edge));
            if edge.target == END || edge.target == NULL {
                break;
            }
            let column = (edge.target - START_NODES) as usize;
            let (place, dress) = (places[column], dresses.get(column).copied().unwrap_or_default());
            match sink.repeated(place as usize) {
                Some(span) => {
                    let value = sink.value(span);
                    dress.put_before(value, &mut self.text);
                    self.text.extend_from_slice(value);
                }
                None => end_piece(&self.text, place, dress, &mut start),
            }
        }
        end_piece(&self.text, NO_COLUMN, Dress::Bare, &mut start);
        if self.plans.len() <= id as usize {
            self.plans.resize(chains.len(), 0);
        }
        self.plans[id as usize] = first as u32 + 1;
        first
    }

    /// Ends a parcel: what was made for it is of no more use.
    pub(super) fn end(&mut self) {
        self.plans.clear();
        self.pieces.clear();
        self.text.clear();
        if self.text.capacity() > KEEP {
            self.text = Vec::new();
        }
    }
}

/// Copies so many bytes of `source` from `start` on to `at`, where there is room for [`SLACK`] more. Returns the end.
#[inline(always)]
fn copy(source: &[u8], start: usize, length: usize, into: &mut [u8], at: usize) -> usize {
    if length <= SHORT
        && let Some(from) = source.get(start..).and_then(<[u8]>::first_chunk::<SHORT>)
        && let Some(to) = into.get_mut(at..).and_then(<[u8]>::first_chunk_mut::<SHORT>)
    {
        *to = *from;
    } else if length <= SLACK
        && let Some(from) = source.get(start..).and_then(<[u8]>::first_chunk::<SLACK>)
        && let Some(to) = into.get_mut(at..).and_then(<[u8]>::first_chunk_mut::<SLACK>)
    {
        *to = *from;
    } else {
        into[at..at + length].copy_from_slice(&source[start..start + length]);
    }
    at + length
}

/// Bytes that are copied at once, or else so many.
const SHORT: usize = 16;
const SLACK: usize = 32;
const NO_COLUMN: u32 = u32::MAX;
/// Bytes of text whose memory is kept.
const KEEP: usize = 256 << 10;
