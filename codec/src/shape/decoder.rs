//! The receiver's side: ways and columns to records.
//!
//! Two passes. The first goes all ways, which needs no values: it counts what each column must hold and what the text
//! between them comes to. Then the columns are decoded, within what is left of the declared size. The second pass puts
//! everything one behind the other.

use super::cover::Covers;
use super::dress::Dress;
use super::flag;
use super::graph::{END, EdgeId, Graph, KEYS, NULL, Node, Refused, START_NODES, VALUES, Way};
use crate::Error;
use crate::batch::{self, Batch};
use crate::column::{ColumnDecoders, Expected, Sink, Span};
use crate::limits::{MAX_COLUMN_VALUES, MAX_SHAPE_COLUMNS, MAX_SHAPE_EDGES, MAX_SHAPE_LITERAL};
use crate::varint::Reader;

/// Turns columns into keys and values, and remembers what [`Encoder`](super::Encoder) remembers.
#[derive(Debug)]
pub(crate) struct Decoder {
    graph: Graph,
    columns: ColumnDecoders,
    sink: Sink,
    /// Edges of all keys, then of all values, one way behind the other; and where those of values begin.
    ways: Vec<EdgeId>,
    first_value: usize,
    /// By column: values of this parcel, then which of the decoded columns it is.
    counts: Vec<u32>,
    places: Vec<u32>,
    expected: Vec<Expected>,
    choices: Vec<Told>,
    listed: Vec<Node>,
    covers: Covers,
    /// By column: what its values wear; bare are those beyond the last.
    dresses: Vec<Dress>,
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
            ways: Vec::new(),
            first_value: 0,
            counts: Vec::new(),
            places: Vec::new(),
            expected: Vec::new(),
            choices: Vec::new(),
            listed: Vec::new(),
            covers: Covers::default(),
            dresses: Vec::new(),
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
            + (self.ways.capacity() + self.counts.capacity() + self.places.capacity()) * 4
            + self.expected.capacity() * size_of::<Expected>()
            + self.covers.memory()
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
        let literals = self.go(&definitions, batch, left)?;
        if dressed > self.graph.columns() as usize {
            return Err(Error::Shape("a column's values wear something, and it is not defined"));
        }
        self.covers.end(batch);
        for expected in &mut self.expected {
            expected.timestamps = self.covers.set_of(expected.id, expected.count as usize, batch);
        }
        self.sink.set_limit(usize::try_from(left - literals).unwrap_or(usize::MAX));
        reader.section = "columns";
        self.columns.decode(reader, self.covers.sets(), &self.expected, &mut self.sink)?;
        match literals + self.sink.used() as u64 + self.worn() {
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

    /// Goes the ways of all keys, then of all values. Returns the bytes of the text between the values.
    fn go(&mut self, definitions: &[Definition<'_>], batch: &Batch, left: u64) -> Result<u64, Error> {
        self.ways.clear();
        self.counts.clear();
        self.counts.resize(self.graph.columns() as usize, 0);
        self.expected.clear();
        self.places.clear();
        self.covers.begin(batch.groups.len(), self.graph.columns());
        let (mut values, mut literals, mut ordinal) = (0, 0, 0);
        let mut definitions = definitions.iter().peekable();
        for start in [KEYS, VALUES] {
            if start == VALUES {
                self.first_value = self.ways.len();
            }
            for (index, group) in batch.groups.iter().enumerate() {
                for _ in &group.records {
                    ordinal += 1;
                    while let Some(new) = definitions.next_if(|new| new.ordinal == ordinal) {
                        self.define(new)?;
                    }
                    self.way(start, group.slot, left, &mut values, &mut literals)?;
                }
                self.covers.end_group(index, group.records.len(), self.counts.iter().copied());
            }
            self.expect();
        }
        if definitions.next().is_some() {
            return Err(Error::Shape("an edge is defined where no record begins"));
        }
        if self
            .listed
            .iter()
            .map(|&node| &self.choices[node as usize])
            .any(|told| told.used < told.choices.len())
        {
            return Err(Error::Shape("more choices are told than are taken"));
        }
        Ok(literals)
    }

    fn define(&mut self, new: &Definition<'_>) -> Result<(), Error> {
        let refused = |refused| match refused {
            Refused::Full => Error::Shape("an edge is defined beyond the limits"),
            Refused::Malformed => Error::Shape("an edge is defined that leads nowhere"),
        };
        self.graph.define(new.from, new.literal, new.target).map_err(refused)?;
        self.counts.resize(self.graph.columns() as usize, 0);
        Ok(())
    }

    /// Goes one way from `start` to its end.
    #[inline]
    fn way(
        &mut self,
        start: Node,
        slot: u32,
        left: u64,
        values: &mut u32,
        literals: &mut u64,
    ) -> Result<(), Error> {
        let mut way = Way::begin(slot);
        let mut node = start;
        loop {
            let id = match self.graph.only(node) {
                Some(id) => id,
                None => self.choice(node, &mut way)?,
            };
            let edge = self.graph.edge(id);
            self.ways.push(id);
            *literals += u64::from(edge.length);
            if *literals > left {
                return Err(Error::Shape("the text of its shapes is longer than the plain size allows"));
            }
            node = edge.target;
            if node == END || node == NULL {
                return Ok(());
            }
            *values += 1;
            if *values > MAX_COLUMN_VALUES {
                let limit = MAX_COLUMN_VALUES.into();
                return Err(Error::TooMuch { what: "values", actual: (*values).into(), limit });
            }
            self.counts[(node - START_NODES) as usize] += 1;
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
        self.places.resize(self.counts.len(), NOWHERE);
        for (id, (&count, place)) in self.counts.iter().zip(&mut self.places).enumerate() {
            match self.expected.get_mut(*place as usize) {
                Some(expected) => expected.count = count,
                None if count > 0 => {
                    *place = self.expected.len() as u32;
                    self.expected.push(Expected { id: id as u32, count, timestamps: 0 });
                }
                None => {}
            }
        }
    }

    /// Appends keys and values to the arena of `batch`, side by side, and points its records to them. Returns how many
    /// bytes of the plain size that took.
    pub(crate) fn build(&mut self, batch: &mut Batch) -> u64 {
        // Of no more use, they become how many values of each column are used.
        self.counts.iter_mut().for_each(|count| *count = 0);
        let begin = batch.arena.len();
        let (keys, values) = self.ways.split_at(self.first_value);
        let mut builder = Builder {
            graph: &self.graph,
            sink: &self.sink,
            places: &self.places,
            used: &mut self.counts,
            dresses: &self.dresses,
        };
        let (mut keys, mut values) = (keys.iter(), values.iter());
        for group in &mut batch.groups {
            for meta in &mut group.records {
                let start = batch.arena.len();
                let key = builder.record(&mut keys, &mut batch.arena);
                let middle = batch.arena.len();
                let value = builder.record(&mut values, &mut batch.arena);
                let end = batch.arena.len();
                let size = |present: bool, bytes: usize| if present { bytes as u32 } else { batch::NULL };
                meta.start = start as u32;
                meta.key = size(key, middle - start);
                meta.value = size(value, end - middle);
                group.plain += (end - start) as u64;
            }
        }
        (batch.arena.len() - begin) as u64
    }
}

/// Puts one record after the other together.
struct Builder<'a> {
    graph: &'a Graph,
    sink: &'a Sink,
    places: &'a [u32],
    used: &'a mut [u32],
    dresses: &'a [Dress],
}

impl Builder<'_> {
    /// Appends what lies along the next way, which the first pass has gone; false for null.
    #[inline]
    fn record(&mut self, way: &mut std::slice::Iter<'_, EdgeId>, arena: &mut Vec<u8>) -> bool {
        for &id in way {
            let edge = self.graph.edge(id);
            arena.extend_from_slice(self.graph.literal(edge));
            if edge.target == END {
                break;
            }
            if edge.target == NULL {
                return false;
            }
            let column = (edge.target - START_NODES) as usize;
            let span = self.sink.column(self.places[column] as usize)[self.used[column] as usize];
            self.used[column] += 1;
            let value = self.sink.value(span);
            if let Some(dress) = self.dresses.get(column) {
                dress.put_before(value, arena);
            }
            arena.extend_from_slice(value);
        }
        true
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
