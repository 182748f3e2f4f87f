//! Records that follow known shapes, chain by chain: the coder's fast way.
//!
//! A value that was the same in all records of the parcels before is expected to stay it, and is compared together with
//! the text around it. It is no [span](Span) then until the chain's records are [counted](Paths::flush). A record in which
//! it is another one does not follow this way; it is for the caller to go edge by edge, after a flush.

use super::chain::{Chain, ChainId, Chains};
use super::graph::{END, EdgeId, Graph, NULL, Node, START_NODES};
use super::parcel::Parcel;
use super::scan::Scan;
use super::topic::Topics;
use crate::column::{ColumnEncoders, Span};

/// Chains as a coder goes along them.
#[derive(Debug, Default)]
pub(super) struct Paths {
    chains: Chains,
    /// By chain, as far as they are made.
    plans: Vec<Plan>,
    pieces: Vec<Piece>,
    constants: Vec<Constant>,
    /// Text of the pieces.
    text: Vec<u8>,
    /// Chains that were gone and not counted yet.
    touched: Vec<ChainId>,
    /// Where the pieces of the chain at hand begin.
    places: Vec<u32>,
    parcel: u64,
    /// Changes of the constants when the plans were made.
    seen: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Plan {
    made: bool,
    first: u32,
    pieces: u32,
    first_constant: u32,
    constants: u32,
    /// Records that were not counted yet.
    gone: u32,
    /// The parcel in which the constants' spans lie.
    placed: u64,
}

/// Text, then a value unless it is the last of its chain.
#[derive(Debug, Clone, Copy)]
struct Piece {
    /// The first bytes of the text, and which of the sixteen count.
    head: u128,
    mask: u128,
    start: u32,
    length: u32,
    node: Node,
    scan: Scan,
}

/// A value that is part of a piece's text.
#[derive(Debug, Clone, Copy)]
struct Constant {
    node: Node,
    piece: u32,
    /// Where it is in the piece.
    offset: u32,
    length: u32,
    /// Where it is in the arena of the parcel.
    span: Span,
}

/// What the plans are made of.
pub(super) struct Known<'a> {
    pub(super) graph: &'a Graph,
    pub(super) topics: &'a Topics,
    pub(super) columns: &'a ColumnEncoders,
}

impl Paths {
    pub(super) fn memory(&self) -> usize {
        self.chains.memory()
            + self.plans.capacity() * size_of::<Plan>()
            + self.pieces.capacity() * size_of::<Piece>()
            + self.constants.capacity() * size_of::<Constant>()
            + self.text.capacity()
            + (self.touched.capacity() + self.places.capacity()) * size_of::<u32>()
    }

    /// Begins a parcel.
    pub(super) fn begin(&mut self, known: &Known<'_>) {
        self.parcel += 1;
        let constants = known.columns.constants();
        if self.chains.begin(known.graph) || self.seen != constants || self.text.len() > MOST_TEXT {
            self.plans.clear();
            self.pieces.clear();
            self.constants.clear();
            self.text.clear();
            self.seen = constants;
        }
    }

    #[inline]
    pub(super) fn chain(&self, id: ChainId) -> Chain {
        self.chains.get(id)
    }

    /// All chains there are.
    pub(super) fn chains(&self) -> &Chains {
        &self.chains
    }

    /// The chain of an edge of which the values went to their columns one by one: of this edge alone.
    pub(super) fn single(&mut self, edge: EdgeId, graph: &Graph) -> ChainId {
        self.chains.single(edge, graph)
    }

    /// The chain that begins with `edge`; none when it was cut short, or all plans together became too long.
    #[inline]
    pub(super) fn of(&mut self, edge: EdgeId, known: &Known<'_>) -> Option<ChainId> {
        let id = self.chains.of(edge, known.graph);
        if self.plans.get(id as usize).is_some_and(|plan| plan.made) || self.plan(id, known) {
            return Some(id);
        }
        None
    }

    /// Goes along a chain from `at` on: its values go to their columns. Returns where it ends; none, and nothing has
    /// happened, when the record, which ends at `end`, is another one.
    #[inline]
    pub(super) fn go(
        &mut self,
        id: ChainId,
        bytes: &[u8],
        mut at: usize,
        end: usize,
        parcel: &mut Parcel,
    ) -> Option<usize> {
        let plan = self.plans[id as usize];
        let placing = plan.constants > 0 && plan.placed != self.parcel;
        if placing {
            self.places.clear();
        }
        let pieces = &self.pieces[plan.first as usize..][..plan.pieces as usize];
        for (index, piece) in pieces.iter().enumerate() {
            if placing {
                self.places.push(at as u32);
            }
            let value = if !piece.stands_at(&self.text, bytes, at, end) {
                None
            } else if piece.node == END {
                at += piece.length as usize;
                break;
            } else {
                at += piece.length as usize;
                piece.scan.value(bytes, at, end)
            };
            let Some((start, stop)) = value else {
                pieces[..index].iter().for_each(|piece| parcel.pop(piece.node));
                return None;
            };
            parcel.push(piece.node, start, stop);
            at = stop;
        }
        if self.chains.get(id).target == END && at != end {
            self.take_back(id, parcel);
            return None;
        }
        if placing {
            self.place(id);
        }
        Some(at)
    }

    /// Takes back the values of a chain that was gone.
    pub(super) fn take_back(&self, id: ChainId, parcel: &mut Parcel) {
        let plan = self.plans[id as usize];
        let pieces = &self.pieces[plan.first as usize..][..plan.pieces as usize];
        pieces.iter().filter(|piece| piece.node != END).for_each(|piece| parcel.pop(piece.node));
    }

    /// A record followed this chain to its end, and others beyond it to its own.
    #[inline]
    pub(super) fn gone(&mut self, id: ChainId) {
        let plan = &mut self.plans[id as usize];
        if plan.constants > 0 {
            if plan.gone == 0 {
                self.touched.push(id);
            }
            plan.gone += 1;
        }
    }

    /// Puts the values that were as expected into their columns. To be called before anything else is put there.
    pub(super) fn flush(&mut self, parcel: &mut Parcel) {
        for id in self.touched.drain(..) {
            let plan = &mut self.plans[id as usize];
            let gone = std::mem::take(&mut plan.gone) as usize;
            let constants = &self.constants[plan.first_constant as usize..][..plan.constants as usize];
            constants.iter().for_each(|constant| parcel.repeat(constant.node, constant.span, gone));
        }
    }

    /// Notes where the constants of a chain lie that was just gone.
    #[cold]
    fn place(&mut self, id: ChainId) {
        let plan = &mut self.plans[id as usize];
        plan.placed = self.parcel;
        let constants = &mut self.constants[plan.first_constant as usize..][..plan.constants as usize];
        for constant in constants {
            let start = self.places[constant.piece as usize] + constant.offset;
            constant.span = Span { start, end: start + constant.length };
        }
    }

    /// Makes the pieces of a chain; false when there is no room for them, or the chain was cut short: its last value
    /// cannot be expected to be what it always was, as that of other chains is, and would come before theirs.
    #[cold]
    fn plan(&mut self, id: ChainId, known: &Known<'_>) -> bool {
        if self.text.len() > MOST_TEXT || self.chains.is_cut_short(id, known.graph) {
            return false;
        }
        let (first, first_constant) = (self.pieces.len(), self.constants.len());
        let mut start = self.text.len();
        let edges = self.chains.edges_of(id);
        for (index, edge) in edges.iter().map(|&id| known.graph.edge(id)).enumerate() {
            self.text.extend_from_slice(known.graph.literal(edge));
            let node = edge.target;
            if node == END || node == NULL {
                break;
            }
            let next = edges.get(index + 1).map(|&id| known.graph.edge(id));
            // Its end must be seen by what follows, or it could be the beginning of a longer value.
            let shut = next.is_some_and(|next| next.length > 0 || next.target == END);
            let value = known.columns.constant(node - START_NODES).filter(|_| shut);
            let scan = known.topics.scan((node - START_NODES) as usize);
            if let Some(value) = value {
                let piece = (self.pieces.len() - first) as u32;
                scan.dress().put_before(value, &mut self.text);
                let (offset, length) = ((self.text.len() - start) as u32, value.len() as u32);
                self.constants.push(Constant { node, piece, offset, length, span: Span::default() });
                self.text.extend_from_slice(value);
                continue;
            }
            self.pieces.push(Piece::new(&self.text, start, node, scan));
            start = self.text.len();
        }
        self.pieces.push(Piece::new(&self.text, start, END, Scan::Rest));
        if self.plans.len() <= id as usize {
            self.plans.resize(self.chains.len(), Plan::default());
        }
        self.plans[id as usize] = Plan {
            made: true,
            first: first as u32,
            pieces: (self.pieces.len() - first) as u32,
            first_constant: first_constant as u32,
            constants: (self.constants.len() - first_constant) as u32,
            gone: 0,
            placed: 0,
        };
        true
    }
}

impl Piece {
    /// The text of `all` from `start` on, then a value of `node`; none if that is [`END`].
    fn new(all: &[u8], start: usize, node: Node, scan: Scan) -> Self {
        let text = &all[start..];
        let (mut head, mut mask) = ([0; 16], [0; 16]);
        for (i, &byte) in text.iter().take(16).enumerate() {
            (head[i], mask[i]) = (byte, 0xff);
        }
        Self {
            head: u128::from_le_bytes(head),
            mask: u128::from_le_bytes(mask),
            start: start as u32,
            length: text.len() as u32,
            node,
            scan,
        }
    }

    /// Whether the text stands at `at` of a record that ends at `end`.
    #[inline(always)]
    fn stands_at(&self, text: &[u8], bytes: &[u8], at: usize, end: usize) -> bool {
        let (start, length) = (self.start as usize, self.length as usize);
        if at + length > end {
            return false;
        }
        let Some(window) = bytes.get(at..).and_then(<[u8]>::first_chunk) else {
            return bytes[at..at + length] == text[start..start + length];
        };
        (u128::from_le_bytes(*window) ^ self.head) & self.mask == 0
            && (length <= 16 || bytes[at + 16..at + length] == text[start + 16..start + length])
    }
}

/// Bytes of text of all plans, beyond which no more are made in a parcel.
const MOST_TEXT: usize = 1 << 20;
