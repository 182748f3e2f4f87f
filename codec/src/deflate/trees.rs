//! Tokens to a block's bits, with the very codes that zlib gives it.
//!
//! Any prefix code would do to compress; what counts here is that ties are broken and lengths are limited as zlib does
//! it (`trees.c`), because the bytes must come out the same.

use super::token::{DISTANCES, LENGTHS, Token, distance_code, length_code};

/// In which order the lengths of the codes of lengths stand.
pub(super) const ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];

const LITERALS: usize = 286;
const END: usize = 256;
const REPEAT: usize = 16;
const ZEROS: usize = 17;
const MANY_ZEROS: usize = 18;

/// Bits in the order of the stream.
#[derive(Debug)]
pub(super) struct Writer<'a> {
    out: &'a mut Vec<u8>,
    held: u64,
    count: u32,
}

impl<'a> Writer<'a> {
    pub(super) fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out, held: 0, count: 0 }
    }

    /// At most 16 bits.
    #[inline]
    fn put(&mut self, bits: u32, count: u32) {
        self.held |= u64::from(bits) << self.count;
        self.count += count;
        while self.count >= 8 {
            self.out.push(self.held as u8);
            self.held >>= 8;
            self.count -= 8;
        }
    }

    /// Fills the last byte.
    pub(super) fn end(&mut self) {
        if self.count > 0 {
            self.put(0, 8 - self.count);
        }
    }
}

/// A code: frequency, length and bits of each symbol.
#[derive(Debug)]
struct Tree {
    frequencies: Vec<u32>,
    lengths: Vec<u8>,
    codes: Vec<u16>,
    longest: usize,
    /// Highest symbol in use.
    last: usize,
}

/// What is needed to write blocks, to be used again.
#[derive(Debug)]
pub(super) struct Trees {
    literals: Tree,
    distances: Tree,
    lengths: Tree,
    heap: Heap,
}

impl Trees {
    pub(super) fn new() -> Self {
        Self {
            literals: Tree::new(LITERALS, 15),
            distances: Tree::new(DISTANCES.len(), 15),
            lengths: Tree::new(ORDER.len(), 7),
            heap: Heap::default(),
        }
    }

    /// Writes `tokens`, which stand for `plain`, as one block. False where zlib would store the bytes as they are.
    pub(super) fn block(&mut self, tokens: &[Token], plain: &[u8], last: bool, out: &mut Writer<'_>) -> bool {
        for tree in [&mut self.literals, &mut self.distances, &mut self.lengths] {
            tree.frequencies.fill(0);
        }
        self.literals.frequencies[END] = 1;
        let (mut at, mut extra) = (0, 0);
        for token in tokens {
            if token.length == 0 {
                self.literals.frequencies[usize::from(plain[at])] += 1;
            } else {
                let (length, distance) = (length_code(token.length), distance_code(token.distance));
                self.literals.frequencies[END + 1 + length] += 1;
                self.distances.frequencies[distance] += 1;
                extra += u64::from(LENGTHS[length].1) + u64::from(DISTANCES[distance].1);
            }
            at += token.bytes();
        }
        let fixed_bits = extra
            + sum(&self.literals.frequencies, |symbol| fixed_literal(symbol).1)
            + sum(&self.distances.frequencies, |_| 5);
        self.literals.build(&mut self.heap);
        self.distances.build(&mut self.heap);
        for tree in [&self.literals, &self.distances] {
            runs(&tree.lengths[..=tree.last], |symbol, _, _| self.lengths.frequencies[symbol] += 1);
        }
        self.lengths.build(&mut self.heap);
        let ranks =
            (3..ORDER.len()).rev().find(|rank| self.lengths.lengths[ORDER[*rank]] != 0).unwrap_or(2) + 1;
        let header = 3 * ranks as u64 + 14;
        let own_bits = extra
            + header
            + self.literals.bits()
            + self.distances.bits()
            + self.lengths.bits()
            + self.repeats();
        let bytes = |bits: u64| (bits + 3 + 7) >> 3;
        let least = bytes(own_bits).min(bytes(fixed_bits));
        if plain.len() as u64 + 4 <= least {
            return false;
        }
        if bytes(fixed_bits) == least {
            out.put(1 << 1 | u32::from(last), 3);
            write(tokens, plain, (fixed_literal, |code| (reversed(code as u32, 5), 5)), out);
            return true;
        }
        out.put(2 << 1 | u32::from(last), 3);
        self.write_codes(ranks, out);
        let codes = (|symbol| self.literals.code(symbol), |code| self.distances.code(code));
        write(tokens, plain, codes, out);
        true
    }

    /// Extra bits of the lengths' lengths.
    fn repeats(&self) -> u64 {
        let extra = |symbol: usize| u64::from(self.lengths.frequencies[symbol]);
        2 * extra(REPEAT) + 3 * extra(ZEROS) + 7 * extra(MANY_ZEROS)
    }

    fn write_codes(&self, ranks: usize, out: &mut Writer<'_>) {
        out.put((self.literals.last + 1 - 257) as u32, 5);
        out.put(self.distances.last as u32, 5);
        out.put((ranks - 4) as u32, 4);
        for symbol in &ORDER[..ranks] {
            out.put(self.lengths.lengths[*symbol].into(), 3);
        }
        for tree in [&self.literals, &self.distances] {
            runs(&tree.lengths[..=tree.last], |symbol, more, bits| {
                let (code, length) = self.lengths.code(symbol);
                out.put(code.into(), length);
                out.put(more, bits);
            });
        }
    }
}

impl Tree {
    fn new(symbols: usize, longest: usize) -> Self {
        let (frequencies, lengths, codes) = (vec![0; symbols], vec![0; symbols], vec![0; symbols]);
        Self { frequencies, lengths, codes, longest, last: 0 }
    }

    #[inline]
    fn code(&self, symbol: usize) -> (u16, u32) {
        (self.codes[symbol], self.lengths[symbol].into())
    }

    /// Bits of all symbols, extra ones apart. Those that are there only because a code has two symbols at least count
    /// nothing.
    fn bits(&self) -> u64 {
        self.frequencies
            .iter()
            .zip(&self.lengths)
            .map(|(times, length)| u64::from(*times) * u64::from(*length))
            .sum()
    }

    /// Gives each symbol its length and code.
    fn build(&mut self, heap: &mut Heap) {
        let symbols = self.frequencies.len();
        heap.begin(symbols);
        let mut last = None;
        for (symbol, times) in self.frequencies.iter().enumerate().filter(|(_, times)| **times > 0) {
            heap.add(symbol, *times);
            last = Some(symbol);
        }
        while heap.length < 2 {
            let forced = match last {
                None => 0,
                Some(last @ 0..2) => last + 1,
                Some(_) => 0,
            };
            if forced == last.map_or(0, |last| last + 1) {
                last = Some(forced);
            }
            heap.add(forced, 1);
        }
        self.last = last.unwrap_or(0);
        heap.join(symbols);
        self.lengths.fill(0);
        heap.lengths(symbols, self.longest, &mut self.lengths);
        self.number();
    }

    /// Codes of one length follow each other.
    fn number(&mut self) {
        let (mut counts, mut next, mut code) = ([0u16; 16], [0u16; 16], 0u16);
        self.lengths.iter().for_each(|length| counts[usize::from(*length)] += 1);
        counts[0] = 0;
        for length in 1..16 {
            code = (code + counts[length - 1]) << 1;
            next[length] = code;
        }
        for (code, length) in self.codes.iter_mut().zip(&self.lengths).filter(|(_, length)| **length > 0) {
            let number = &mut next[usize::from(*length)];
            *code = reversed((*number).into(), (*length).into());
            *number += 1;
        }
    }
}

/// The heap of `build_tree`, and the order in which nodes left it.
#[derive(Debug, Default)]
struct Heap {
    /// From 1 on.
    nodes: Vec<usize>,
    length: usize,
    frequencies: Vec<u32>,
    depths: Vec<u8>,
    parents: Vec<usize>,
    /// Nodes as they were taken out: two at a time, least frequent first, the root last.
    taken: Vec<usize>,
}

impl Heap {
    fn begin(&mut self, symbols: usize) {
        let nodes = 2 * symbols + 1;
        self.nodes.clear();
        self.nodes.resize(nodes + 1, 0);
        for numbers in [&mut self.parents, &mut self.taken] {
            numbers.clear();
        }
        self.parents.resize(nodes, 0);
        self.frequencies.clear();
        self.frequencies.resize(nodes, 0);
        self.depths.clear();
        self.depths.resize(nodes, 0);
        self.length = 0;
    }

    fn add(&mut self, symbol: usize, times: u32) {
        self.length += 1;
        self.nodes[self.length] = symbol;
        self.frequencies[symbol] = times;
    }

    fn is_smaller(&self, left: usize, right: usize) -> bool {
        let (a, b) = (self.frequencies[left], self.frequencies[right]);
        a < b || a == b && self.depths[left] <= self.depths[right]
    }

    fn sink(&mut self, mut place: usize) {
        let node = self.nodes[place];
        let mut child = place * 2;
        while child <= self.length {
            if child < self.length && self.is_smaller(self.nodes[child + 1], self.nodes[child]) {
                child += 1;
            }
            if self.is_smaller(node, self.nodes[child]) {
                break;
            }
            self.nodes[place] = self.nodes[child];
            place = child;
            child *= 2;
        }
        self.nodes[place] = node;
    }

    /// Joins the two rarest nodes until one is left.
    fn join(&mut self, symbols: usize) {
        (1..=self.length / 2).rev().for_each(|place| self.sink(place));
        let mut node = symbols;
        while self.length >= 2 {
            let first = self.nodes[1];
            self.nodes[1] = self.nodes[self.length];
            self.length -= 1;
            self.sink(1);
            let second = self.nodes[1];
            self.taken.extend([first, second]);
            self.frequencies[node] = self.frequencies[first] + self.frequencies[second];
            self.depths[node] = self.depths[first].max(self.depths[second]) + 1;
            (self.parents[first], self.parents[second]) = (node, node);
            self.nodes[1] = node;
            node += 1;
            self.sink(1);
        }
        self.taken.push(self.nodes[1]);
    }

    /// Lengths of all symbols, none above `longest`.
    fn lengths(&self, symbols: usize, longest: usize, out: &mut [u8]) {
        let mut lengths = vec![0usize; self.parents.len()];
        let (mut counts, mut overflow) = ([0usize; 16], 0i32);
        for node in self.taken.iter().rev().skip(1) {
            let mut bits = lengths[self.parents[*node]] + 1;
            if bits > longest {
                bits = longest;
                overflow += 1;
            }
            lengths[*node] = bits;
            if *node < symbols {
                counts[bits] += 1;
            }
        }
        if overflow > 0 {
            while overflow > 0 {
                let bits = (1..longest).rev().find(|bits| counts[*bits] > 0).unwrap_or(1);
                counts[bits] = counts[bits].saturating_sub(1);
                counts[bits + 1] += 2;
                counts[longest] = counts[longest].saturating_sub(1);
                overflow -= 2;
            }
            let mut leaves = self.taken.iter().filter(|node| **node < symbols);
            for bits in (1..=longest).rev() {
                leaves.by_ref().take(counts[bits]).for_each(|node| lengths[*node] = bits);
            }
        }
        out.iter_mut().zip(&lengths).for_each(|(out, length)| *out = *length as u8);
    }
}

/// Lengths as symbols with repeats: calls `f(symbol, extra, bits of extra)`.
fn runs(lengths: &[u8], mut f: impl FnMut(usize, u32, u32)) {
    let (mut before, mut count) = (None, 0usize);
    let limits = |now: Option<u8>, next: Option<u8>| match next {
        Some(0) => (138, 3),
        _ if now == next => (6, 3),
        _ => (7, 4),
    };
    let (mut most, mut least) = limits(None, lengths.first().copied());
    for (at, &length) in lengths.iter().enumerate() {
        let next = lengths.get(at + 1).copied();
        count += 1;
        if count < most && next == Some(length) {
            continue;
        }
        if count < least {
            (0..count).for_each(|_| f(length.into(), 0, 0));
        } else if length != 0 {
            if before != Some(length) {
                f(length.into(), 0, 0);
                count -= 1;
            }
            f(REPEAT, count as u32 - 3, 2);
        } else if count <= 10 {
            f(ZEROS, count as u32 - 3, 3);
        } else {
            f(MANY_ZEROS, count as u32 - 11, 7);
        }
        (before, count) = (Some(length), 0);
        (most, least) = limits(Some(length), next);
    }
}

fn write(
    tokens: &[Token],
    plain: &[u8],
    (literal, distance): (impl Fn(usize) -> (u16, u32), impl Fn(usize) -> (u16, u32)),
    out: &mut Writer<'_>,
) {
    let mut at = 0;
    let put = |(code, bits): (u16, u32), out: &mut Writer<'_>| out.put(code.into(), bits);
    for token in tokens {
        if token.length == 0 {
            put(literal(plain[at].into()), out);
        } else {
            let code = length_code(token.length);
            put(literal(END + 1 + code), out);
            let (least, bits) = LENGTHS[code];
            put((token.length - least, bits.into()), out);
            let code = distance_code(token.distance);
            put(distance(code), out);
            let (least, bits) = DISTANCES[code];
            put((token.distance - least, bits.into()), out);
        }
        at += token.bytes();
    }
    put(literal(END), out);
}

fn fixed_literal(symbol: usize) -> (u16, u32) {
    let (code, bits) = match symbol {
        0..144 => (symbol + 0x30, 8),
        144..256 => (symbol - 144 + 0x190, 9),
        256..280 => (symbol - 256, 7),
        _ => (symbol - 280 + 0xc0, 8),
    };
    (reversed(code as u32, bits), bits)
}

#[inline]
fn reversed(code: u32, bits: u32) -> u16 {
    (code.reverse_bits() >> (32 - bits)) as u16
}

fn sum(frequencies: &[u32], bits: impl Fn(usize) -> u32) -> u64 {
    frequencies.iter().enumerate().map(|(symbol, times)| u64::from(*times) * u64::from(bits(symbol))).sum()
}
