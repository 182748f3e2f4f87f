//! What both ends know of the shapes of a lane's records: a graph that grows, and a guess where each record goes next.
//!
//! A node is a column: the place of a value. An edge is the text that stands between one value and the next, or before
//! the first, or after the last. A record is a way through the graph, from a start node to [`END`]:
//!
//! ```text
//! {"id":7,"tags":["a","b"]}     VALUES -{"id":-> 1 -,"tags":[-> 2 -,-> 2 -]}-> END
//! ```
//!
//! So optional fields and arrays of any length are branches, and cost a number only where the guess is wrong. What is
//! guessed depends on the way so far, so that a topic of many shapes says at the first branch of a record which one it is.
//!
//! Nothing but [`Graph`] decides what a number on the wire means: coder and decoder call the same methods in the same
//! order. All of it is bounded; a record that does not fit the bounds goes by the node for whole records.

use crate::limits::{
    MAX_SHAPE_COLUMNS, MAX_SHAPE_EDGES, MAX_SHAPE_LITERAL, MAX_SHAPE_LITERAL_BYTES, MAX_SHAPE_NODE_EDGES,
};

/// Index of a node.
pub(super) type Node = u32;
/// Index of an edge.
pub(super) type EdgeId = u32;

/// Where the way of a key begins.
pub(super) const KEYS: Node = 0;
/// Where the way of a value begins.
pub(super) const VALUES: Node = 1;
/// The column of keys without a shape, whole.
pub(super) const WHOLE_KEYS: Node = 2;
/// The column of values without a shape, whole.
pub(super) const WHOLE_VALUES: Node = 3;
/// Nodes before the first column.
pub(super) const START_NODES: u32 = 2;

/// Not a node: the record ends here.
pub(super) const END: Node = u32::MAX;
/// Not a node: key or value is null.
pub(super) const NULL: Node = u32::MAX - 1;

/// Whether a way ends there.
#[inline]
pub(super) fn ends(target: Node) -> bool {
    target == END || target == NULL
}

/// Choices that every start node has.
pub(super) const CHOICE_NULL: usize = 0;
pub(super) const CHOICE_EMPTY: usize = 1;
pub(super) const CHOICE_WHOLE: usize = 2;

/// The text between two values.
#[derive(Debug, Clone, Copy)]
pub(super) struct Edge {
    /// The first bytes of the text, and which of the sixteen count.
    head: u128,
    mask: u128,
    start: u32,
    pub(super) length: u32,
    /// Which of its node's edges this is.
    pub(super) position: u32,
    /// The node that it leads to, [`END`] or [`NULL`].
    pub(super) target: Node,
    /// Another edge of its node has the same text, and more.
    begins_another: bool,
}

#[derive(Debug, Default)]
struct NodeEdges {
    /// The edge, while there is but one.
    only: EdgeId,
    /// Position in `edges` of the edge last taken.
    last: u32,
    edges: Vec<EdgeId>,
}

/// Why a definition was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// One of the limits is reached.
    Full,
    /// It leads from or to what there is not, or nowhere on.
    Malformed,
}

/// The graph and its guesses.
#[derive(Debug)]
pub(super) struct Graph {
    nodes: Vec<NodeEdges>,
    edges: Vec<Edge>,
    literals: Vec<u8>,
    /// By a hash of node and way: high half a check, low half a position in the node's edges.
    guesses: Vec<u32>,
    /// How often what follows a node without a choice has changed.
    changes: u64,
}

/// The way of a record so far, as a number: each choice taken at a branch changes it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Way(u64);

impl Way {
    /// The beginning of a key's or a value's way in records of `slot`.
    #[inline]
    pub(super) fn begin(slot: u32) -> Self {
        Self((u64::from(slot) + 1).wrapping_mul(MIX))
    }

    #[inline]
    fn at(self, node: Node) -> u64 {
        (self.0 ^ (u64::from(node) << 17)).wrapping_mul(MIX)
    }

    /// The way beyond a branch where `edge` was taken.
    #[inline]
    pub(super) fn after(self, edge: EdgeId) -> Self {
        Self((self.0.rotate_left(23) ^ u64::from(edge)).wrapping_mul(MIX))
    }
}

impl Graph {
    pub(super) fn new() -> Self {
        let mut graph = Self {
            nodes: Vec::new(),
            edges: Vec::new(),
            literals: Vec::new(),
            guesses: Vec::new(),
            changes: 0,
        };
        graph.reset();
        graph
    }

    /// Forgets all but the two start nodes and the columns for whole keys and values.
    pub(super) fn reset(&mut self) {
        self.nodes.clear();
        self.edges.clear();
        self.literals.clear();
        self.guesses.clear();
        self.changes += 1;
        self.nodes.resize_with(WHOLE_VALUES as usize + 1, NodeEdges::default);
        for (start, whole) in [(KEYS, WHOLE_KEYS), (VALUES, WHOLE_VALUES)] {
            // In the order of the fixed choices.
            for target in [NULL, END, whole] {
                self.push(start, b"", target);
            }
            self.push(whole, b"", END);
        }
    }

    /// Columns, those for whole records included.
    pub(super) fn columns(&self) -> u32 {
        self.nodes.len() as u32 - START_NODES
    }

    pub(super) fn edge_count(&self) -> usize {
        self.edges.len()
    }

    pub(super) fn memory(&self) -> usize {
        self.nodes.capacity() * size_of::<NodeEdges>()
            + self.edges.capacity() * (size_of::<Edge>() + 8)
            + self.literals.capacity()
            + self.guesses.capacity() * 4
    }

    /// Whether `edges` more of `bytes` text in all, to as many new columns, surely fit.
    pub(super) fn has_room(&self, edges: usize, bytes: usize) -> bool {
        self.columns() as usize + edges <= MAX_SHAPE_COLUMNS
            && self.edges.len() + edges <= MAX_SHAPE_EDGES
            && self.literals.len() + bytes <= MAX_SHAPE_LITERAL_BYTES
    }

    /// Adds an edge. A `target` one above the last node is a new column.
    pub(super) fn define(&mut self, from: Node, literal: &[u8], target: Node) -> Result<EdgeId, Refused> {
        let nodes = self.nodes.len() as u32;
        let leads_on = target == END || (START_NODES..=nodes).contains(&target);
        if from >= nodes || !leads_on {
            return Err(Refused::Malformed);
        }
        let fits = self.has_room(1, literal.len())
            && literal.len() <= MAX_SHAPE_LITERAL
            && self.nodes[from as usize].edges.len() < MAX_SHAPE_NODE_EDGES;
        if !fits {
            return Err(Refused::Full);
        }
        if target == nodes {
            self.nodes.push(NodeEdges::default());
        }
        Ok(self.push(from, literal, target))
    }

    fn push(&mut self, from: Node, literal: &[u8], target: Node) -> EdgeId {
        let id = self.edges.len() as EdgeId;
        let mut head = [0; 16];
        let mut mask = [0; 16];
        for (i, &byte) in literal.iter().take(16).enumerate() {
            (head[i], mask[i]) = (byte, 0xff);
        }
        let of_node = &self.nodes[from as usize].edges;
        let text_of = |id: EdgeId| self.literal(&self.edges[id as usize]);
        let goes_on =
            |text: &[u8], beginning: &[u8]| text.len() > beginning.len() && text.starts_with(beginning);
        let begins_another = of_node.iter().any(|&other| goes_on(text_of(other), literal));
        let begun: Vec<EdgeId> =
            of_node.iter().copied().filter(|&other| goes_on(literal, text_of(other))).collect();
        begun.into_iter().for_each(|other| self.edges[other as usize].begins_another = true);
        self.edges.push(Edge {
            head: u128::from_le_bytes(head),
            mask: u128::from_le_bytes(mask),
            start: self.literals.len() as u32,
            length: literal.len() as u32,
            position: self.nodes[from as usize].edges.len() as u32,
            target,
            begins_another,
        });
        self.literals.extend_from_slice(literal);
        let node = &mut self.nodes[from as usize];
        if node.edges.is_empty() {
            node.only = id;
        }
        // The first edge makes longer what led here, the second makes a branch of it.
        self.changes += u64::from(node.edges.len() < 2);
        node.edges.push(id);
        id
    }

    /// Another number than before when what follows some node without a choice is not what it was.
    #[inline]
    pub(super) fn changes(&self) -> u64 {
        self.changes
    }

    #[inline]
    pub(super) fn edge(&self, id: EdgeId) -> &Edge {
        &self.edges[id as usize]
    }

    #[inline]
    pub(super) fn literal(&self, edge: &Edge) -> &[u8] {
        &self.literals[edge.start as usize..][..edge.length as usize]
    }

    /// Edges of `node`, in the order in which they were defined.
    #[inline]
    pub(super) fn edges_of(&self, node: Node) -> &[EdgeId] {
        &self.nodes[node as usize].edges
    }

    /// The edge of `node` if it has no other, so that no choice is to be told.
    #[inline]
    pub(super) fn only(&self, node: Node) -> Option<EdgeId> {
        let node = &self.nodes[node as usize];
        (node.edges.len() == 1).then_some(node.only)
    }

    /// Whether the text of `id` stands at `at` in a record that ends at `end` of `bytes`; if it leads to the end, whether
    /// it also ends the record.
    #[inline(always)]
    pub(super) fn stands_at(&self, id: EdgeId, bytes: &[u8], at: usize, end: usize) -> bool {
        let edge = &self.edges[id as usize];
        let length = edge.length as usize;
        let Some(window) = bytes.get(at..).and_then(<[u8]>::first_chunk) else {
            return at + length <= end
                && bytes[at..at + length] == *self.literal(edge)
                && (edge.target != END || at + length == end);
        };
        (u128::from_le_bytes(*window) ^ edge.head) & edge.mask == 0
            && at + length <= end
            && (edge.target != END || at + length == end)
            && (length <= 16 || bytes[at + 16..at + length] == self.literal(edge)[16..])
    }

    /// The edge of `node`, which has several or none, whose text stands at `at`; `way` goes on with it. There is none to guess
    /// where a shape was begun that could not be gone on with.
    #[inline]
    pub(super) fn branch(
        &self,
        node: Node,
        way: &mut Way,
        bytes: &[u8],
        at: usize,
        end: usize,
    ) -> Option<EdgeId> {
        let edges = self.edges_of(node);
        let guess = *edges.get(self.guess(node, *way))?;
        let chosen = self.choose(guess, edges, bytes, at, end)?;
        *way = way.after(chosen);
        Some(chosen)
    }

    /// The longest of `edges` whose text stands at `at`; `guess` is looked at first, and taken if it stands there and none
    /// can be longer.
    #[inline]
    pub(super) fn choose(
        &self,
        guess: EdgeId,
        edges: &[EdgeId],
        bytes: &[u8],
        at: usize,
        end: usize,
    ) -> Option<EdgeId> {
        if let &[only] = edges {
            return self.stands_at(only, bytes, at, end).then_some(only);
        }
        if !self.edges[guess as usize].begins_another && self.stands_at(guess, bytes, at, end) {
            return Some(guess);
        }
        let standing = edges.iter().copied().filter(|&id| self.stands_at(id, bytes, at, end));
        standing.max_by_key(|&id| (self.edges[id as usize].length, id == guess))
    }

    /// Position of the edge that a record most likely takes from `node`, which has several.
    #[inline]
    pub(super) fn guess(&self, node: Node, way: Way) -> usize {
        let hash = way.at(node);
        let count = self.nodes[node as usize].edges.len();
        match self.guesses.get(guess_index(hash)) {
            Some(&entry) if entry >> 16 == guess_check(hash) && ((entry & 0xffff) as usize) < count => {
                (entry & 0xffff) as usize
            }
            _ => self.nodes[node as usize].last as usize,
        }
    }

    /// Notes that the edge at position `choice` was taken from `node`, which has several, and goes on along it.
    #[inline]
    pub(super) fn take(&mut self, node: Node, way: &mut Way, choice: usize) {
        let hash = way.at(node);
        if self.guesses.is_empty() {
            self.guesses.resize(GUESSES, 0);
        }
        self.guesses[guess_index(hash)] = guess_check(hash) << 16 | choice as u32;
        let edges = &mut self.nodes[node as usize];
        edges.last = choice as u32;
        *way = way.after(edges.edges[choice]);
    }
}

#[inline]
fn guess_index(hash: u64) -> usize {
    (hash >> (64 - GUESSES.ilog2())) as usize
}

/// Never 0, which is what an empty place has.
#[inline]
fn guess_check(hash: u64) -> u32 {
    (hash >> 16) as u32 & 0xffff | 1
}

/// Guesses that are remembered; where two ways meet in one place, the later one stays.
const GUESSES: usize = 1 << 14;
const MIX: u64 = 0x9e37_79b9_7f4a_7c15;

const _: () = assert!(MAX_SHAPE_NODE_EDGES < 1 << 16, "a guess has 16 bits");

#[cfg(test)]
mod tests {
    use super::*;

    /// Choices of a start node that every graph has.
    const FIXED_CHOICES: usize = 3;

    #[test]
    fn a_definition_that_leads_nowhere_is_refused() {
        let mut graph = Graph::new();
        let next = graph.columns() + START_NODES;
        assert_eq!(graph.define(next, b"x", END), Err(Refused::Malformed));
        assert_eq!(graph.define(VALUES, b"x", next + 1), Err(Refused::Malformed));
        assert_eq!(graph.define(VALUES, b"x", KEYS), Err(Refused::Malformed));
        assert_eq!(graph.define(VALUES, b"x", NULL), Err(Refused::Malformed));
        assert!(graph.define(VALUES, b"", next).is_ok());
        assert!(graph.define(next, b"", END).is_ok());
    }

    #[test]
    fn a_full_graph_takes_nothing_more() {
        let mut graph = Graph::new();
        while graph.define(graph.columns() + START_NODES - 1, b"x", graph.columns() + START_NODES).is_ok() {}
        assert_eq!(graph.columns() as usize, MAX_SHAPE_COLUMNS);
        let refused =
            (0..MAX_SHAPE_NODE_EDGES + 1).find_map(|_| graph.define(VALUES, b"y", VALUES + 1).err());
        assert_eq!(refused, Some(Refused::Full));
        assert_eq!(Graph::new().define(VALUES, &vec![0; MAX_SHAPE_LITERAL + 1], END), Err(Refused::Full));
        graph.reset();
        assert_eq!((graph.columns(), graph.edge_count()), (2, 8));
    }

    #[test]
    fn guesses_follow_the_way_of_the_record() {
        let mut graph = Graph::new();
        let a = graph.define(VALUES, b"a", 4).expect("fits");
        let b = graph.define(VALUES, b"b", 4).expect("fits");
        graph.define(4, b"x", END).expect("fits");
        graph.define(4, b"y", END).expect("fits");
        // After `a` comes `x`, after `b` comes `y`.
        for _ in 0..2 {
            for choice in 0..2 {
                let mut way = Way::begin(0);
                graph.take(VALUES, &mut way, FIXED_CHOICES + choice);
                graph.take(4, &mut way, choice);
            }
        }
        for choice in 0..2 {
            let mut way = Way::begin(0);
            graph.take(VALUES, &mut way, FIXED_CHOICES + choice);
            assert_eq!(graph.guess(4, way), choice);
        }
        assert_eq!(graph.edges_of(VALUES)[FIXED_CHOICES..], [a, b]);
    }
}
