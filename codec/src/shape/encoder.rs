//! The coder's side: records to ways and columns.

use std::sync::Arc;

use super::chain::ChainId;
use super::dress::Dress;
use super::follow::{Known, Paths};
use super::graph::{
    CHOICE_EMPTY, CHOICE_NULL, CHOICE_WHOLE, END, EdgeId, Graph, Node, START_NODES, WHOLE_KEYS, WHOLE_VALUES,
    Way, ends,
};
use super::origin::Tracer;
use super::parcel::Parcel;
use super::scan::is_word;
use super::token::{self, Schemas, Scope, Token};
use super::topic::{Half, Membership, Names, Topics};
use super::{Counts, flag};
use crate::avro::Schema;
use crate::batch::{Batch, Meta, NULL, length};
use crate::column::{ColumnEncoders, Input};
use crate::limits::{MAX_COLUMN_VALUES, MAX_SHAPE_TOPICS};

/// Turns keys and values into columns, and remembers what [`Decoder`](super::Decoder) remembers.
#[derive(Debug)]
pub(crate) struct Encoder {
    graph: Graph,
    topics: Topics,
    names: Names,
    schemas: Schemas,
    columns: ColumnEncoders,
    parcel: Parcel,
    tokens: Vec<Token>,
    paths: Paths,
    /// Chains of the record that is being followed, each with its first edge.
    links: Vec<(ChainId, EdgeId)>,
    /// Edges of the record that is being gone edge by edge.
    way: Vec<EdgeId>,
    counts: Counts,
    /// Shapes had to be left out as the graph is full.
    full: bool,
    /// The decoder did not get what was written last.
    astray: bool,
    plain_since_reset: u64,
    /// Chains of all keys, then of all values, one way behind the other; and where those of values begin.
    ways: Vec<ChainId>,
    first_value: usize,
    tracer: Tracer,
}

/// A key or value, and whose it is.
#[derive(Debug, Clone, Copy)]
struct Record<'a> {
    bytes: &'a [u8],
    start: usize,
    end: usize,
    slot: u32,
    topic: usize,
    half: Half,
}

impl Encoder {
    pub(crate) fn new() -> Self {
        Self {
            graph: Graph::new(),
            topics: Topics::default(),
            names: Names::default(),
            schemas: Schemas::default(),
            columns: ColumnEncoders::default(),
            parcel: Parcel::default(),
            tokens: Vec::new(),
            paths: Paths::default(),
            links: Vec::new(),
            way: Vec::new(),
            counts: Counts::default(),
            full: false,
            astray: false,
            plain_since_reset: 0,
            ways: Vec::new(),
            first_value: 0,
            tracer: Tracer::default(),
        }
    }

    /// Takes over from `before` what is no memory of records: names, schemas, and how many there were.
    pub(crate) fn succeed(&mut self, before: &mut Self) {
        self.names = std::mem::take(&mut before.names);
        self.schemas = std::mem::take(&mut before.schemas);
        self.counts = before.counts;
    }

    /// Whether columns are to cost little time rather than the fewest bytes.
    pub(crate) fn set_thrifty(&mut self, thrifty: bool) {
        self.columns.set_thrifty(thrifty);
    }

    /// Bytes held.
    pub(crate) fn memory(&self) -> usize {
        self.graph.memory()
            + self.topics.memory()
            + self.names.memory()
            + self.columns.memory()
            + self.parcel.memory()
            + self.tokens.capacity() * size_of::<Token>()
            + self.way.capacity() * size_of::<EdgeId>()
            + self.links.capacity() * size_of::<(ChainId, EdgeId)>()
            + self.paths.memory()
            + self.ways.capacity() * size_of::<ChainId>()
            + self.tracer.memory()
    }

    /// What became of keys and values so far.
    pub(crate) fn counts(&self) -> Counts {
        Counts { columns: self.graph.columns(), edges: self.graph.edge_count() as u32, ..self.counts }
    }

    /// Bytes with which the last parcel defined shapes.
    pub(crate) fn defined_bytes(&self) -> usize {
        self.parcel.defined_bytes()
    }

    /// Tells of which topic a source partition is.
    pub(crate) fn set_topic(&mut self, slot: u32, topic: &str) {
        if self.names.add(slot, topic) {
            self.topics.forget_slot(slot);
        }
    }

    /// Cuts records by an Avro schema from now on: those of this source partition, or all; of this id, or any.
    pub(crate) fn use_avro(&mut self, slot: Option<u32>, id: Option<u32>, schema: Arc<Schema>) {
        self.schemas.add(Scope { slot, id }, schema);
        self.topics.learn_again();
    }

    /// Notes from now on which schema ids are not known.
    pub(crate) fn note_schema_ids(&mut self) {
        self.schemas.note_unknown();
    }

    pub(crate) fn unknown_schema_ids(&mut self) -> Vec<u32> {
        self.schemas.take_unknown()
    }

    /// What was [written](Self::write) last is not sent: the next time all begins anew, at both ends.
    pub(crate) fn forget(&mut self) {
        self.astray = true;
    }

    /// Counts a batch, by shapes or not.
    pub(crate) fn passed(&mut self, plain: u64) {
        self.plain_since_reset += plain;
    }

    /// Appends keys and values of all records of `batch` to `out`: a payload section without its kind. Returns where in `out` a
    /// zstd block had better begin, ascending.
    pub(crate) fn write(&mut self, batch: &Batch, out: &mut Vec<u8>) -> &[usize] {
        let reset = self.astray || self.full && self.plain_since_reset >= WORTH_A_RESET;
        if reset {
            self.graph.reset();
            self.topics.reset();
            self.columns.reset();
            (self.full, self.astray, self.plain_since_reset) = (false, false, 0);
        }
        self.parcel.begin(&self.graph);
        self.paths.begin(&Known { graph: &self.graph, topics: &self.topics, columns: &self.columns });
        self.ways.clear();
        let mut left = batch.record_count() * 2;
        for half in [Half::Key, Half::Value] {
            if half == Half::Value {
                self.first_value = self.ways.len();
            }
            for group in &batch.groups {
                let topic = self.topic_of(batch, group.slot, &group.records);
                for meta in &group.records {
                    left -= 1;
                    self.record(batch, group.slot, topic, half, meta, left);
                }
                self.paths.flush(&mut self.parcel);
            }
            self.parcel.end_half();
        }
        self.parcel.write(if reset { flag::RESET } else { 0 }, out);
        let halves: [&[ChainId]; 2] = self.ways.split_at(self.first_value).into();
        self.tracer.begin();
        halves.iter().for_each(|ways| self.tracer.count(ways, self.paths.chains(), &self.graph));
        self.tracer.trace(batch, halves, self.paths.chains(), &self.graph);
        let input = |(id, spans)| {
            let (set, binary) = (self.tracer.set_of(id as usize), self.topics.scan(id as usize).binary());
            Input { id, spans, set, binary }
        };
        let inputs: Vec<Input<'_>> = self.parcel.used().map(input).collect();
        self.columns.encode(&batch.arena, self.tracer.origins(), &inputs, out)
    }

    /// The topic of a slot: known, or that of another slot of the same name, or found by the shape of one of the first values.
    fn topic_of(&mut self, batch: &Batch, slot: u32, records: &[Meta]) -> usize {
        let known = self.topics.of_slot(slot);
        if let Some(Membership { topic, settled: true }) = known {
            return topic;
        }
        let name = self.names.of(slot);
        if let Some(topic) = name.and_then(|name| self.topics.of_name(name)) {
            self.topics.assign(slot, name, Membership { topic, settled: true });
            return topic;
        }
        let value = |meta: &Meta| {
            let start = meta.start as usize + length(meta.key);
            (start, start + length(meta.value))
        };
        let values = || records.iter().map(value).filter(|(start, end)| start < end).take(FIRST_RECORDS);
        // A word, or nothing between braces, may stand in any topic.
        let telling = values().filter(|&(start, end)| !is_word(&batch.arena[start..end]));
        let telling = telling.max_by_key(|(start, end)| end - start);
        let (known, settled) = (known.map(|known| known.topic), telling.is_some());
        if let (Some(topic), false) = (known, settled) {
            return topic;
        }
        let Some((start, end)) = telling.or_else(|| values().next()) else { return 0 };
        let candidate = Record { bytes: &batch.arena, start, end, slot, topic: 0, half: Half::Value };
        let followed = (1..self.topics.len()).find(|&topic| self.go(Record { topic, ..candidate }));
        let topic = match followed {
            Some(topic) => {
                self.parcel.take_back(&self.graph, &self.way);
                topic
            }
            None => {
                token::cut(&batch.arena[start..end], slot, &mut self.schemas, &mut self.tokens);
                self.topics.nearest(&self.tokens, MAX_SHAPE_TOPICS)
            }
        };
        self.topics.assign(slot, name, Membership { topic, settled });
        topic
    }

    fn record(&mut self, batch: &Batch, slot: u32, topic: usize, half: Half, meta: &Meta, left: usize) {
        self.parcel.next_record();
        let start = meta.start as usize;
        let (start, size) = match half {
            Half::Key => (start, meta.key),
            Half::Value => (start + length(meta.key), meta.value),
        };
        if size == NULL || size == 0 {
            let choice = if size == NULL { CHOICE_NULL } else { CHOICE_EMPTY };
            return self.fixed(half.start(), slot, choice);
        }
        let end = start + size as usize;
        let record = Record { bytes: &batch.arena, start, end, slot, topic, half };
        // What is left must have room even if all of it goes whole.
        let room = MAX_COLUMN_VALUES as usize - self.parcel.values - left;
        if self.follow(record) {
            let values: usize = self.links.iter().map(|(id, _)| self.paths.chain(*id).values as usize).sum();
            if values <= room {
                self.counts.followed += 1;
                self.topics.followed(topic, half, size as usize);
                return self.commit_links(half.start(), slot, values);
            }
            self.links.iter().for_each(|(id, _)| self.paths.take_back(*id, &mut self.parcel));
        }
        self.paths.flush(&mut self.parcel);
        if self.go(record) {
            if self.way.len() - 1 <= room {
                self.counts.followed += 1;
                self.topics.followed(topic, half, size as usize);
                return self.commit(half.start(), slot);
            }
            self.parcel.take_back(&self.graph, &self.way);
        } else if self.topics.may_learn(topic, half) && self.learn(record, room) {
            self.counts.parsed += 1;
            self.topics.parsed(topic, half);
            return self.commit(half.start(), slot);
        }
        self.counts.whole += 1;
        let whole = if half == Half::Key { WHOLE_KEYS } else { WHOLE_VALUES };
        self.parcel.push(whole, start, end);
        self.parcel.values += 1;
        self.fixed(half.start(), slot, CHOICE_WHOLE);
    }

    /// Follows a record through the graph, chain by chain: its values go to their columns, its chains to `links`. False,
    /// and nothing has happened, when it leads nowhere or a value is not what it always was.
    #[inline]
    fn follow(&mut self, record: Record<'_>) -> bool {
        let Record { bytes, end, slot, topic, half, .. } = record;
        self.links.clear();
        let known = Known { graph: &self.graph, topics: &self.topics, columns: &self.columns };
        let graph = &self.graph;
        let mut way = Way::begin(slot);
        let (mut node, mut at) = (half.start(), record.start);
        let starts = self.topics.starts(topic, half);
        let guess = graph.edges_of(node)[graph.guess(node, way)];
        let first = if starts.contains(&guess) { Some(guess) } else { starts.last().copied() };
        let mut found = first.and_then(|first| graph.choose(first, starts, bytes, at, end));
        if let Some(edge) = found {
            way = way.after(edge);
        }
        while let Some(edge) = found {
            let Some(id) = self.paths.of(edge, &known) else { break };
            let Some(stop) = self.paths.go(id, bytes, at, end, &mut self.parcel) else { break };
            self.links.push((id, edge));
            (at, node) = (stop, self.paths.chain(id).target);
            if node == END {
                return true;
            }
            found = match graph.only(node) {
                Some(edge) => Some(edge),
                None => graph.branch(node, &mut way, bytes, at, end),
            };
        }
        self.links.iter().for_each(|(id, _)| self.paths.take_back(*id, &mut self.parcel));
        false
    }

    /// As [`follow`](Self::follow), edge by edge and whatever the values are: the edges go to `way`.
    fn go(&mut self, record: Record<'_>) -> bool {
        let Record { bytes, end, slot, topic, half, .. } = record;
        let graph = &self.graph;
        self.way.clear();
        let mut way = Way::begin(slot);
        let (mut node, mut at) = (half.start(), record.start);
        let starts = self.topics.starts(topic, half);
        let guess = graph.edges_of(node)[graph.guess(node, way)];
        let first = if starts.contains(&guess) { Some(guess) } else { starts.last().copied() };
        let mut found = first.and_then(|first| graph.choose(first, starts, bytes, at, end));
        if let Some(edge) = found {
            way = way.after(edge);
        }
        while let Some(id) = found {
            let edge = graph.edge(id);
            if edge.target == END {
                self.way.push(id);
                return true;
            }
            at += edge.length as usize;
            node = edge.target;
            let scan = self.topics.scan((node - START_NODES) as usize);
            let Some((start, stop)) = scan.value(bytes, at, end) else {
                break;
            };
            self.way.push(id);
            self.parcel.push(node, start, stop);
            at = stop;
            found = match graph.only(node) {
                Some(edge) => graph.stands_at(edge, bytes, at, end).then_some(edge),
                None => graph.branch(node, &mut way, bytes, at, end),
            };
        }
        self.parcel.take_back(graph, &self.way);
        false
    }

    /// Tells the branches of `links`, as the decoder will take them.
    #[inline]
    fn commit_links(&mut self, start: Node, slot: u32, values: usize) {
        let mut way = Way::begin(slot);
        let mut node = start;
        for &(id, edge) in &self.links {
            if self.graph.only(node).is_none() {
                let position = self.graph.edge(edge).position as usize;
                self.parcel.choose(&mut self.graph, node, &mut way, position);
            }
            self.paths.gone(id);
            self.ways.push(id);
            node = self.paths.chain(id).target;
        }
        self.parcel.values += values;
    }

    /// Tells the branches of `way`, as the decoder will take them.
    fn commit(&mut self, start: Node, slot: u32) {
        let mut way = Way::begin(slot);
        let mut node = start;
        for &id in &self.way {
            let edge = *self.graph.edge(id);
            if self.graph.only(node).is_none() {
                self.parcel.choose(&mut self.graph, node, &mut way, edge.position as usize);
            }
            self.ways.push(self.paths.single(id, &self.graph));
            node = edge.target;
        }
        self.parcel.values += self.way.len() - 1;
    }

    /// A way that every start node has: of one edge, or of two by way of the column of what goes whole.
    fn fixed(&mut self, start: Node, slot: u32, choice: usize) {
        self.parcel.choose(&mut self.graph, start, &mut Way::begin(slot), choice);
        let mut next = Some(self.graph.edges_of(start)[choice]);
        while let Some(edge) = next {
            self.ways.push(self.paths.single(edge, &self.graph));
            let target = self.graph.edge(edge).target;
            next = if ends(target) { None } else { self.graph.only(target) };
        }
    }

    /// Cuts a record of unknown shape and adds what is new of it to the graph. False when it has no shape, or one that
    /// does not fit; its values are not in their columns then.
    fn learn(&mut self, record: Record<'_>, room: usize) -> bool {
        let Record { bytes, start, end, slot, topic, half } = record;
        self.way.clear();
        token::cut(&bytes[start..end], slot, &mut self.schemas, &mut self.tokens);
        let cost = if self.tokens.is_empty() { (end - start) / 2 } else { 64 };
        self.topics.pay(topic, half, cost);
        if self.tokens.is_empty() || self.tokens.len() > room {
            return false;
        }
        if !self.graph.has_room(self.tokens.len() + 1, end - start) {
            self.full = true;
            return false;
        }
        let tokens = std::mem::take(&mut self.tokens);
        let learned = self.extend(record, &tokens);
        self.tokens = tokens;
        if learned.is_none() {
            self.parcel.take_back(&self.graph, &self.way);
        }
        learned.is_some()
    }

    /// Goes along `tokens`, adding the columns and edges that are missing. None where a limit refuses one.
    fn extend(&mut self, record: Record<'_>, tokens: &[Token]) -> Option<()> {
        let Record { bytes, start, end, topic, half, .. } = record;
        let (mut node, mut at) = (half.start(), start);
        for token in tokens {
            let known = self.topics.column(topic, half, token.path);
            let target = known.unwrap_or_else(|| self.graph.columns() + START_NODES);
            let edge = self.edge(record, node, &bytes[at..start + token.start], target)?;
            if known.is_none() {
                self.topics.add_column(topic, half, token, target);
                self.parcel.dress(target, token.scan.dress());
            }
            let scan = self.topics.scan((target - START_NODES) as usize);
            let inner = match scan.dress() {
                Dress::Bare => start + token.start,
                // What is not as it should be leads nowhere.
                _ => match scan.value(bytes, start + token.start, start + token.end)? {
                    (inner, stop) if stop == start + token.end => inner,
                    _ => return None,
                },
            };
            // Both or none: what is taken back has both.
            self.way.push(edge);
            self.parcel.push(target, inner, start + token.end);
            (node, at) = (target, start + token.end);
        }
        let edge = self.edge(record, node, &bytes[at..end], END)?;
        self.way.push(edge);
        Some(())
    }

    /// The edge from `node` to `target` with this text: a known one or a new one.
    fn edge(&mut self, record: Record<'_>, node: Node, literal: &[u8], target: Node) -> Option<EdgeId> {
        let at_start = node == record.half.start();
        let edges = match at_start {
            true => self.topics.starts(record.topic, record.half),
            false => self.graph.edges_of(node),
        };
        let is_it = |id: &&EdgeId| {
            let edge = self.graph.edge(**id);
            edge.target == target && self.graph.literal(edge) == literal
        };
        if let Some(&known) = edges.iter().find(is_it) {
            return Some(known);
        }
        let new = self.graph.define(node, literal, target).ok()?;
        self.parcel.define(node, literal, target);
        self.topics.pay(record.topic, record.half, literal.len() + 16);
        self.topics.defined(record.topic, record.half);
        if at_start {
            self.topics.add_start(record.topic, record.half, new);
        }
        Some(new)
    }
}

/// Of how many records of a slot one tells its topic.
const FIRST_RECORDS: usize = 8;
/// Plain bytes after which a full graph begins anew.
const WORTH_A_RESET: u64 = 16 * 1024 * 1024;
