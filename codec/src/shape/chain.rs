//! Stretches of the graph without a branch: an edge, and all that follow it without a choice.
//!
//! Most of a record is one or a few of them. Both ends go from chain to chain, so that a record costs what its branches
//! cost and what its values cost, not what its shape is long.

use super::graph::{END, EdgeId, Graph, Node, START_NODES, ends};

/// Index of a chain. It means the same edges until [`Chains::begin`] is called.
pub(super) type ChainId = u32;

/// One chain.
#[derive(Debug, Clone, Copy)]
pub(super) struct Chain {
    /// Its edges, in `edges`.
    first: u32,
    count: u32,
    /// Where it leads: [`END`], [`NULL`](super::graph::NULL), or a node.
    pub(super) target: Node,
    /// Values on it, that of `target` included.
    pub(super) values: u32,
    /// Bytes of the text of all edges.
    pub(super) text: u32,
}

/// The chains of a graph, made when they are asked for.
#[derive(Debug, Default)]
pub(super) struct Chains {
    /// By edge: the chain that begins with it and one, 0 when there is none yet.
    by_edge: Vec<u32>,
    /// The same for chains of this one edge, which stand in when there is no room for longer ones.
    single: Vec<u32>,
    chains: Vec<Chain>,
    edges: Vec<EdgeId>,
    /// By node: the last of all attempts to make a chain that came there, counted from 1.
    passed: Vec<u32>,
    attempts: u32,
    /// Changes of the graph when the chains were made.
    seen: u64,
    /// Some chains are no longer those of their edge.
    orphans: bool,
}

impl Chains {
    pub(super) fn memory(&self) -> usize {
        (self.by_edge.capacity() + self.single.capacity() + self.edges.capacity() + self.passed.capacity())
            * size_of::<u32>()
            + self.chains.capacity() * size_of::<Chain>()
    }

    /// Begins a parcel. True when all chains were forgotten, as the graph is another one than when they were made.
    pub(super) fn begin(&mut self, graph: &Graph) -> bool {
        let stale = self.orphans || self.seen != graph.changes();
        if stale {
            self.by_edge.clear();
            self.single.clear();
            self.chains.clear();
            self.edges.clear();
            self.passed.clear();
            self.attempts = 0;
            (self.seen, self.orphans) = (graph.changes(), false);
        }
        stale
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.chains.len()
    }

    #[inline]
    pub(super) fn get(&self, id: ChainId) -> Chain {
        self.chains[id as usize]
    }

    #[inline]
    pub(super) fn edges_of(&self, id: ChainId) -> &[EdgeId] {
        let Chain { first, count, .. } = self.chains[id as usize];
        &self.edges[first as usize..][..count as usize]
    }

    /// Whether the chain does not go on to a branch or to the end, as there was no room, or it would be a circle, or nothing
    /// leads on.
    pub(super) fn is_cut_short(&self, id: ChainId, graph: &Graph) -> bool {
        let target = self.get(id).target;
        !ends(target) && graph.edges_of(target).len() < 2
    }

    /// The chain that begins with `edge`.
    #[inline]
    pub(super) fn of(&mut self, edge: EdgeId, graph: &Graph) -> ChainId {
        if self.seen == graph.changes()
            && let Some(&made @ 1..) = self.by_edge.get(edge as usize)
        {
            return made - 1;
        }
        self.make(edge, graph)
    }

    #[cold]
    fn make(&mut self, edge: EdgeId, graph: &Graph) -> ChainId {
        if self.seen != graph.changes() {
            // What was one way may be a branch now.
            self.by_edge.fill(0);
            (self.seen, self.orphans) = (graph.changes(), true);
        }
        let edges = graph.edge_count();
        self.by_edge.resize(edges, 0);
        self.passed.resize((graph.columns() + START_NODES) as usize, 0);
        self.attempts += 1;
        let (first, number) = (self.edges.len(), self.attempts);
        let (mut next, mut target) = (Some(edge), END);
        while let Some(id) = next.filter(|_| self.edges.len() < MOST_EDGES) {
            let to = graph.edge(id).target;
            let ends = ends(to);
            // In a circle, a chain passes each node once.
            if !ends && std::mem::replace(&mut self.passed[to as usize], number) == number {
                break;
            }
            self.edges.push(id);
            target = to;
            next = if ends { None } else { graph.only(to) };
        }
        let id = if self.edges.len() - first < 2 {
            self.edges.truncate(first);
            self.single(edge, graph)
        } else {
            self.add(first, target, graph)
        };
        self.by_edge[edge as usize] = id + 1;
        id
    }

    /// The chain of this edge alone.
    pub(super) fn single(&mut self, edge: EdgeId, graph: &Graph) -> ChainId {
        if self.single.len() <= edge as usize {
            self.single.resize(graph.edge_count(), 0);
        }
        match self.single[edge as usize] {
            0 => {
                let first = self.edges.len();
                self.edges.push(edge);
                let id = self.add(first, graph.edge(edge).target, graph);
                self.single[edge as usize] = id + 1;
                id
            }
            known => known - 1,
        }
    }

    fn add(&mut self, first: usize, target: Node, graph: &Graph) -> ChainId {
        let edges = self.edges[first..].iter().map(|&id| graph.edge(id));
        let (mut values, mut text) = (0, 0);
        for edge in edges {
            values += u32::from(!ends(edge.target));
            text += edge.length;
        }
        let count = (self.edges.len() - first) as u32;
        self.chains.push(Chain { first: first as u32, count, target, values, text });
        self.chains.len() as u32 - 1
    }
}

/// The columns of the values on a chain's edges, in order.
pub(super) fn columns<'a>(edges: &'a [EdgeId], graph: &'a Graph) -> impl Iterator<Item = usize> + 'a {
    let targets = edges.iter().map(|&id| graph.edge(id).target);
    targets.filter(|&target| !ends(target)).map(|target| (target - START_NODES) as usize)
}

/// Edges of all chains; beyond, a chain is one edge.
const MOST_EDGES: usize = 1 << 16;

#[cfg(test)]
mod tests {
    use super::super::graph::VALUES;
    use super::*;

    #[test]
    fn a_chain_goes_on_to_the_next_branch_and_ends_sooner_when_one_comes_to_be() {
        let mut graph = Graph::new();
        let a = graph.define(VALUES, b"a", 4).expect("fits");
        let b = graph.define(4, b"bc", 5).expect("fits");
        let c = graph.define(5, b"", END).expect("fits");
        let mut chains = Chains::default();
        assert!(chains.begin(&graph));
        let whole = chains.of(a, &graph);
        assert_eq!(chains.edges_of(whole), [a, b, c]);
        let Chain { target, values, text, .. } = chains.get(whole);
        assert_eq!((target, values, text), (END, 2, 3));
        assert!(!chains.is_cut_short(whole, &graph));
        assert_eq!((chains.of(a, &graph), chains.begin(&graph)), (whole, false));

        let d = graph.define(5, b"d", 6).expect("fits");
        let shorter = chains.of(a, &graph);
        assert_eq!(chains.edges_of(shorter), [a, b]);
        assert_eq!((chains.get(shorter).target, chains.edges_of(whole).len()), (5, 3));
        let open = chains.of(d, &graph);
        assert_eq!((chains.edges_of(open), chains.get(open).target), (&[d][..], 6));
        assert!(!chains.is_cut_short(shorter, &graph));
        assert_eq!(columns(chains.edges_of(shorter), &graph).collect::<Vec<_>>(), [2, 3]);
        graph.reset();
        assert!(chains.begin(&graph));
        assert_eq!(chains.len(), 0);
    }

    #[test]
    fn a_chain_of_one_edge_that_was_known_is_no_circle_for_the_next() {
        let mut graph = Graph::new();
        let start = graph.define(VALUES, b"a", 4).expect("fits");
        let on = graph.define(4, b"b", 5).expect("fits");
        (0..2).for_each(|end| _ = graph.define(5, &[end], END).expect("fits"));
        let mut chains = Chains::default();
        chains.begin(&graph);
        let known = chains.single(on, &graph);
        assert_eq!(chains.of(on, &graph), known);
        let whole = chains.of(start, &graph);
        assert_eq!(chains.edges_of(whole), [start, on]);
    }

    #[test]
    fn circles_and_many_long_chains_take_bounded_memory() {
        let mut graph = Graph::new();
        let first = graph.define(VALUES, b"", 4).expect("fits");
        let again = graph.define(4, b"x", 4).expect("fits");
        let mut chains = Chains::default();
        chains.begin(&graph);
        let circle = chains.of(first, &graph);
        assert_eq!((chains.edges_of(circle), chains.get(circle).target), (&[first][..], 4));
        let around = chains.of(again, &graph);
        assert_eq!(chains.edges_of(around), [again]);
        assert!(chains.is_cut_short(circle, &graph) && chains.is_cut_short(around, &graph));
        let alone = graph.define(VALUES, b"alone", 5).expect("fits");
        assert!(
            {
                let id = chains.of(alone, &graph);
                chains.is_cut_short(id, &graph)
            },
            "nothing leads on"
        );

        let mut graph = Graph::new();
        let long: Vec<EdgeId> =
            (4..1004).map(|node| graph.define(node - 1, b"x", node).expect("fits")).collect();
        let starts: Vec<EdgeId> = (0..200).map(|_| graph.define(VALUES, b"y", 4).expect("fits")).collect();
        chains.begin(&graph);
        for &start in starts.iter().chain(&long) {
            let id = chains.of(start, &graph);
            assert_eq!((chains.edges_of(id)[0], chains.of(start, &graph)), (start, id));
        }
        assert!(chains.edges.len() <= MOST_EDGES + graph.edge_count());
    }
}
