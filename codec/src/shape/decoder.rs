//! The receiver's side: ways and columns to records.
//!
//! Two passes. The first goes all ways, which needs no values: it counts what each column must hold and what the text
//! between them comes to. Then the columns are decoded, within what is left of the declared size. The second pass puts
//! everything one behind the other.

use super::build::{Builder, Parts};
use super::chain::{ChainId, Chains};
use super::dress::Dress;
use super::flag;
use super::graph::{END, EdgeId, Graph, KEYS, Node, Refused, START_NODES, VALUES, Way, ends};
use super::origin::Tracer;
use crate::Error;
use crate::batch::{self, Batch};
use crate::column::{ColumnDecoders, Expected, Origins, Sink, Span};
use crate::limits::{MAX_COLUMN_VALUES, MAX_SHAPE_COLUMNS, MAX_SHAPE_EDGES, MAX_SHAPE_LITERAL};
use crate::varint::Reader;

/// Turns columns into keys and values, and remembers what [`Encoder`](super::Encoder) remembers.
#[derive(Debug)]
pub(crate) struct Decoder {
    graph: Graph,
    columns: ColumnDecoders,
    sink: Sink,
    chains: Chains,
    /// Chains of all keys, then of all values, one way behind the other; and where those of values begin.
    ways: Vec<ChainId>,
    first_value: usize,
    /// Bytes of the text between the values of this parcel.
    text: u64,
    builder: Builder,
    /// By column: which of the decoded columns it is.
    places: Vec<u32>,
    expected: Vec<Expected>,
    choices: Vec<Told>,
    listed: Vec<Node>,
    tracer: Tracer,
    /// By column: what its values wear; bare are those beyond the last.
    dresses: Vec<Dress>,
    /// Bytes of what the values of this parcel wear.
    worn: u64,
}

/// The choices that were told for one node, and how many are used up.
#[derive(Debug, Default)]
struct Told {
    choices: Vec<u16>,
    used: usize,
}

/// An edge to be added before the way of number `ordinal`.
struct Definition<'a> {
    ordinal: u64,
    from: Node,
    target: Node,
    literal: &'a [u8],
}

impl Decoder {
    pub(crate) fn new() -> Self {
        Self {
            graph: Graph::new(),
            columns: ColumnDecoders::default(),
            sink: Sink::default(),
            chains: Chains::default(),
            ways: Vec::new(),
            first_value: 0,
            text: 0,
            builder: Builder::default(),
            places: Vec::new(),
            expected: Vec::new(),
            choices: Vec::new(),
            listed: Vec::new(),
            tracer: Tracer::default(),
            dresses: Vec::new(),
            worn: 0,
        }
    }

    /// Bytes held.
    pub(crate) fn memory(&self) -> usize {
        let choices: usize = self.choices.iter().map(|told| told.choices.capacity() * 2).sum();
        self.graph.memory()
            + self.columns.memory()
            + self.sink.memory()
            + choices
            + self.choices.capacity() * size_of::<Told>()
            + (self.ways.capacity() + self.places.capacity()) * 4
            + self.chains.memory()
            + self.builder.memory()
            + self.expected.capacity() * size_of::<Expected>()
            + self.tracer.memory()
            + self.dresses.capacity() * size_of::<Dress>()
    }

    /// Reads a payload section behind its kind. `left` bytes of plain size are not spent yet: no record needs more.
    pub(crate) fn read(&mut self, reader: &mut Reader<'_>, batch: &Batch, left: u64) -> Result<(), Error> {
        let flags = reader.byte()?;
        if flags & !flag::KNOWN != 0 {
            return Err(Error::Shape("flags are not known"));
        }
        if flags & flag::RESET != 0 {
            self.graph.reset();
            self.columns.reset();
            self.dresses.clear();
        }
        let definitions = read_definitions(reader, flags)?;
        let dressed = self.read_dresses(reader, flags)?;
        self.read_choices(reader, flags)?;
        self.go(&definitions, batch, left)?;
        if dressed > self.graph.columns() as usize {
            return Err(Error::Shape("a column's values wear something, and it is not defined"));
        }
        let halves = self.ways.split_at(self.first_value);
        self.tracer.trace(batch, halves.into(), &self.chains, &self.graph);
        for expected in &mut self.expected {
            expected.set = self.tracer.set_of(expected.id as usize);
        }
        self.sink.set_limit(usize::try_from(left - self.text).unwrap_or(usize::MAX));
        reader.section = "columns";
        self.columns.decode(reader, self.tracer.origins(), &self.expected, &mut self.sink)?;
        self.worn = self.worn();
        match self.text + self.sink.used() as u64 + self.worn {
            needed if needed > left => Err(Error::Shape("values are longer than the plain size allows")),
            _ => Ok(()),
        }
    }

    /// Reads what values of new columns wear; returns how many columns there must be for that.
    fn read_dresses(&mut self, reader: &mut Reader<'_>, flags: u8) -> Result<usize, Error> {
        if flags & flag::DRESSES == 0 {
            return Ok(0);
        }
        let mut most = 0;
        for _ in 0..reader.count("dressed columns", 2, MAX_SHAPE_COLUMNS as u64)? {
            let column = reader.number()?;
            if column >= MAX_SHAPE_COLUMNS as u64 {
                return Err(reader.out_of_range());
            }
            let column = column as usize;
            if self.dresses.len() <= column {
                self.dresses.resize(column + 1, Dress::Bare);
            }
            self.dresses[column] = Dress::read(reader)?;
            most = most.max(column + 1);
        }
        Ok(most)
    }

    /// Bytes that the values of this parcel wear.
    fn worn(&self) -> u64 {
        let dressed = self.expected.iter().enumerate().filter_map(|(place, expected)| {
            let dress = *self.dresses.get(expected.id as usize)?;
            (dress != Dress::Bare).then(|| {
                let bytes = |span: &Span| dress.extra(self.sink.value(*span)) as u64;
                self.sink.column(place).iter().map(bytes).sum::<u64>()
            })
        });
        dressed.sum()
    }

    fn read_choices(&mut self, reader: &mut Reader<'_>, flags: u8) -> Result<(), Error> {
        for node in self.listed.drain(..) {
            let told = &mut self.choices[node as usize];
            told.choices.clear();
            told.used = 0;
        }
        if flags & flag::CHOICES == 0 {
            return Ok(());
        }
        reader.section = "choices";
        let branches = reader.count("branches", 3, MAX_NODES)?;
        let mut next = 0;
        for _ in 0..branches {
            let node = reader.number()?.checked_add(next).filter(|&node| node < MAX_NODES);
            let node = node.ok_or(Error::Shape("a choice is told for what is no branch"))?;
            let count = reader.count("choices", 1, u64::from(MAX_COLUMN_VALUES))?;
            if self.choices.len() <= node as usize {
                self.choices.resize_with(node as usize + 1, Told::default);
            }
            let told = &mut self.choices[node as usize].choices;
            told.reserve_exact(count as usize);
            for _ in 0..count {
                told.push(reader.number()?.try_into().map_err(|_| reader.out_of_range())?);
            }
            self.listed.push(node as Node);
            next = node + 1;
        }
        Ok(())
    }

    /// Goes the ways of all keys, then of all values.
    fn go(&mut self, definitions: &[Definition<'_>], batch: &Batch, left: u64) -> Result<(), Error> {
        self.chains.begin(&self.graph);
        self.ways.clear();
        self.tracer.begin();
        self.expected.clear();
        self.places.clear();
        self.text = 0;
        let (mut values, mut ordinal) = (0, 0);
        let mut definitions = definitions.iter().peekable();
        for start in [KEYS, VALUES] {
            if start == VALUES {
                self.first_value = self.ways.len();
            }
            for group in &batch.groups {
                for _ in &group.records {
                    ordinal += 1;
                    while let Some(new) = definitions.next_if(|new| new.ordinal == ordinal) {
                        self.define(new)?;
                    }
                    self.way(start, group.slot, left, &mut values)?;
                }
            }
            let first = if start == KEYS { 0 } else { self.first_value };
            self.tracer.count(&self.ways[first..], &self.chains, &self.graph);
            self.expect();
        }
        if definitions.next().is_some() {
            return Err(Error::Shape("an edge is defined where no record begins"));
        }
        let mut told = self.listed.iter().map(|&node| &self.choices[node as usize]);
        match told.any(|told| told.used < told.choices.len()) {
            true => Err(Error::Shape("more choices are told than are taken")),
            false => Ok(()),
        }
    }

    fn define(&mut self, new: &Definition<'_>) -> Result<(), Error> {
        let refused = |refused| match refused {
            Refused::Full => Error::Shape("an edge is defined beyond the limits"),
            Refused::Malformed => Error::Shape("an edge is defined that leads nowhere"),
        };
        self.graph.define(new.from, new.literal, new.target).map_err(refused)?;
        Ok(())
    }

    /// Goes one way from `start` to its end.
    #[inline]
    fn way(&mut self, start: Node, slot: u32, left: u64, values: &mut u32) -> Result<(), Error> {
        let mut way = Way::begin(slot);
        let mut node = start;
        loop {
            let edge = match self.graph.only(node) {
                Some(id) => id,
                None => self.choice(node, &mut way)?,
            };
            let id = self.chains.of(edge, &self.graph);
            let chain = self.chains.get(id);
            self.ways.push(id);
            self.text += u64::from(chain.text);
            if self.text > left {
                return Err(Error::Shape("the text of its shapes is longer than the plain size allows"));
            }
            *values += chain.values;
            if *values > MAX_COLUMN_VALUES {
                let limit = MAX_COLUMN_VALUES.into();
                return Err(Error::TooMuch { what: "values", actual: (*values).into(), limit });
            }
            node = chain.target;
            if ends(node) {
                return Ok(());
            }
        }
    }

    #[inline]
    fn choice(&mut self, node: Node, way: &mut Way) -> Result<EdgeId, Error> {
        let mut position = self.graph.guess(node, *way);
        if let Some(told) = self.choices.get_mut(node as usize)
            && let Some(&choice) = told.choices.get(told.used)
        {
            told.used += 1;
            if choice > 0 {
                position = usize::from(choice) - 1;
            }
        }
        let edge = self.graph.edges_of(node).get(position).copied();
        let edge = edge.ok_or(Error::Shape("a choice is none of its branch"))?;
        self.graph.take(node, way, position);
        Ok(edge)
    }

    /// Lists the columns that have values and were not listed before.
    fn expect(&mut self) {
        self.places.resize(self.graph.columns() as usize, NOWHERE);
        for (id, (count, place)) in self.tracer.values().zip(&mut self.places).enumerate() {
            match self.expected.get_mut(*place as usize) {
                Some(expected) => expected.count = count,
                None if count > 0 => {
                    *place = self.expected.len() as u32;
                    self.expected.push(Expected { id: id as u32, count, set: Origins::ALL });
                }
                None => {}
            }
        }
    }

    /// Appends keys and values to the arena of `batch`, side by side, and points its records to them. Returns how many
    /// bytes of the plain size that took.
    pub(crate) fn build(&mut self, batch: &mut Batch) -> u64 {
        let begin = batch.arena.len();
        let bytes = (self.text + self.worn) as usize + self.sink.used();
        self.builder.begin(&self.sink, begin, &mut batch.arena, bytes);
        let (keys, values) = self.ways.split_at(self.first_value);
        let (mut keys, mut values) = (keys.iter(), values.iter());
        let parts = Parts {
            graph: &self.graph,
            chains: &self.chains,
            places: &self.places,
            dresses: &self.dresses,
            sink: &self.sink,
        };
        for group in &mut batch.groups {
            for meta in &mut group.records {
                let start = self.builder.at();
                let key = self.builder.record(&mut keys, &parts, &mut batch.arena);
                let middle = self.builder.at();
                let value = self.builder.record(&mut values, &parts, &mut batch.arena);
                let end = self.builder.at();
                let size = |present: bool, bytes: usize| if present { bytes as u32 } else { batch::NULL };
                meta.start = start as u32;
                meta.key = size(key, middle - start);
                meta.value = size(value, end - middle);
                group.plain += (end - start) as u64;
            }
        }
        debug_assert_eq!(self.builder.at(), begin + bytes);
        batch.arena.truncate(self.builder.at());
        self.builder.end();
        self.sink.trim();
        (batch.arena.len() - begin) as u64
    }
}

fn read_definitions<'a>(reader: &mut Reader<'a>, flags: u8) -> Result<Vec<Definition<'a>>, Error> {
    if flags & flag::DEFINITIONS == 0 {
        return Ok(Vec::new());
    }
    reader.section = "shapes";
    let count = reader.count("edges", 4, MAX_SHAPE_EDGES as u64)?;
    let mut definitions = Vec::with_capacity(count as usize);
    let (mut ordinal, mut last_target) = (0u64, END);
    for _ in 0..count {
        ordinal = ordinal.saturating_add(reader.number()?);
        let from = match reader.number_u32()? {
            0 => last_target,
            node => node - 1,
        };
        let target = match reader.number_u32()? {
            0 => END,
            node => node,
        };
        let length = reader.count("bytes of a shape", 1, MAX_SHAPE_LITERAL as u64)?;
        let literal = reader.take(length as usize)?;
        definitions.push(Definition { ordinal, from, target, literal });
        last_target = target;
    }
    Ok(definitions)
}

/// The place of a column that has no values.
const NOWHERE: u32 = u32::MAX;
const MAX_NODES: u64 = MAX_SHAPE_COLUMNS as u64 + START_NODES as u64;
