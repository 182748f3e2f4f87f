//! Deflate streams to what they hold, and to the tokens that they hold it by (RFC 1951).

use super::token::{DISTANCES, LENGTHS, Token};

/// A stream, taken apart.
#[derive(Debug, Default)]
pub(super) struct Stream {
    pub(super) tokens: Vec<Token>,
    /// Tokens up to the end of each block.
    pub(super) blocks: Vec<usize>,
    /// Bytes of the stream.
    pub(super) length: usize,
}

impl Stream {
    /// Takes the stream at the beginning of `coded` apart and appends what it holds to `plain`, at most `most` bytes.
    /// Nothing for a stream that is malformed, longer, or has parts that are stored as they are.
    pub(super) fn read(&mut self, coded: &[u8], most: usize, plain: &mut Vec<u8>) -> Option<()> {
        self.tokens.clear();
        self.blocks.clear();
        let mut bits = Bits { bytes: coded, at: 0, held: 0, count: 0 };
        let begin = plain.len();
        loop {
            let last = bits.take(1)? == 1;
            let (literals, distances) = match bits.take(2)? {
                1 => fixed(),
                2 => dynamic(&mut bits)?,
                _ => return None,
            };
            self.block(&mut bits, (&literals, &distances), (begin, most), plain)?;
            self.blocks.push(self.tokens.len());
            if last {
                break;
            }
        }
        self.length = bits.used();
        Some(())
    }

    fn block(
        &mut self,
        bits: &mut Bits<'_>,
        (literals, distances): (&Codes, &Codes),
        (begin, most): (usize, usize),
        plain: &mut Vec<u8>,
    ) -> Option<()> {
        loop {
            let symbol = literals.read(bits)?;
            if symbol < END {
                if plain.len() - begin >= most {
                    return None;
                }
                plain.push(symbol as u8);
                self.tokens.push(Token::LITERAL);
                continue;
            }
            if symbol == END {
                return Some(());
            }
            let (base, extra) = *LENGTHS.get(usize::from(symbol - END - 1))?;
            let length = usize::from(base) + bits.take(extra.into())? as usize;
            let (base, extra) = *DISTANCES.get(usize::from(distances.read(bits)?))?;
            let distance = usize::from(base) + bits.take(extra.into())? as usize;
            if distance > plain.len() - begin || plain.len() - begin + length > most {
                return None;
            }
            let from = plain.len() - distance;
            if distance >= length {
                plain.extend_from_within(from..from + length);
            } else {
                (from..from + length).for_each(|at| plain.push(plain[at]));
            }
            self.tokens.push(Token { length: length as u16, distance: distance as u16 });
        }
    }
}

/// Symbol of the end of a block.
const END: u16 = 256;

/// Bits from the low end of each byte. Behind the last byte there are zeros, but none that may be used.
struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
    held: u64,
    count: u32,
}

impl Bits<'_> {
    #[inline]
    fn fill(&mut self) {
        while self.count <= 56 {
            self.held |= u64::from(self.bytes.get(self.at).copied().unwrap_or(0)) << self.count;
            self.at += 1;
            self.count += 8;
        }
    }

    #[inline]
    fn drop(&mut self, count: u32) -> Option<()> {
        self.held >>= count;
        self.count -= count;
        (self.used() <= self.bytes.len()).then_some(())
    }

    /// The next `count` bits, at most 16.
    #[inline]
    fn take(&mut self, count: u32) -> Option<u32> {
        self.fill();
        let bits = self.held as u32 & ((1 << count) - 1);
        self.drop(count).map(|()| bits)
    }

    /// Bytes that were used, the last perhaps in part.
    #[inline]
    fn used(&self) -> usize {
        self.at - self.count as usize / 8
    }
}

/// A prefix code, as a table by the next bits: symbol and length; longer codes are looked for one bit at a time.
struct Codes {
    table: Vec<u16>,
    counts: [u16; 16],
    symbols: Vec<u16>,
}

impl Codes {
    /// Of the length of each symbol's code. Nothing if there are more codes than fit; there may be fewer.
    fn of(lengths: &[u8]) -> Option<Self> {
        let mut counts = [0u16; 16];
        lengths.iter().for_each(|length| counts[usize::from(*length)] += 1);
        counts[0] = 0;
        let mut left = 1i32;
        for count in &counts[1..] {
            left = (left << 1) - i32::from(*count);
            if left < 0 {
                return None;
            }
        }
        let (mut code, mut next, mut place, mut places) = (0u32, [0u32; 16], 0, [0u16; 16]);
        for length in 1..16 {
            code <<= 1;
            (next[length], places[length]) = (code, place);
            code += u32::from(counts[length]);
            place += counts[length];
        }
        let mut table = vec![0; 1 << FAST];
        let mut symbols = vec![0; usize::from(place)];
        for (symbol, &length) in lengths.iter().enumerate().filter(|(_, length)| **length > 0) {
            let bits = usize::from(length);
            symbols[usize::from(places[bits])] = symbol as u16;
            places[bits] += 1;
            let code = next[bits];
            next[bits] += 1;
            if bits <= FAST {
                let reversed = (code.reverse_bits() >> (32 - bits)) as usize;
                let entry = (symbol as u16) << 4 | u16::from(length);
                (reversed..1 << FAST).step_by(1 << bits).for_each(|at| table[at] = entry);
            }
        }
        Some(Self { table, counts, symbols })
    }

    #[inline]
    fn read(&self, bits: &mut Bits<'_>) -> Option<u16> {
        bits.fill();
        let entry = self.table[bits.held as usize & ((1 << FAST) - 1)];
        if entry != 0 {
            return bits.drop(u32::from(entry & 15)).map(|()| entry >> 4);
        }
        let (mut code, mut first, mut place) = (0i32, 0i32, 0i32);
        for length in 1..16 {
            code |= (bits.held >> (length - 1)) as i32 & 1;
            let count = i32::from(self.counts[length]);
            if code - count < first {
                bits.drop(length as u32)?;
                return self.symbols.get((place + code - first) as usize).copied();
            }
            place += count;
            first = (first + count) << 1;
            code <<= 1;
        }
        None
    }
}

/// Bits that the table is indexed by.
const FAST: usize = 10;

fn fixed() -> (Codes, Codes) {
    let mut lengths = [8u8; 288];
    lengths[144..256].fill(9);
    lengths[256..280].fill(7);
    let of = |lengths| Codes::of(lengths).expect("a complete code");
    (of(&lengths), of(&[5; 30]))
}

/// The codes of a block that brings its own.
fn dynamic(bits: &mut Bits<'_>) -> Option<(Codes, Codes)> {
    let literals = bits.take(5)? as usize + 257;
    let distances = bits.take(5)? as usize + 1;
    let ranks = bits.take(4)? as usize + 4;
    if literals > 286 || distances > 30 {
        return None;
    }
    let mut lengths = [0u8; 320];
    for place in &super::trees::ORDER[..ranks] {
        lengths[*place] = bits.take(3)? as u8;
    }
    let codes = Codes::of(&lengths[..19])?;
    lengths = [0; 320];
    let mut at = 0;
    while at < literals + distances {
        let symbol = codes.read(bits)?;
        let (length, times) = match symbol {
            0..16 => (symbol as u8, 1),
            16 => (*lengths.get(at.checked_sub(1)?)?, 3 + bits.take(2)? as usize),
            17 => (0, 3 + bits.take(3)? as usize),
            _ => (0, 11 + bits.take(7)? as usize),
        };
        if at + times > literals + distances {
            return None;
        }
        lengths[at..at + times].fill(length);
        at += times;
    }
    Some((Codes::of(&lengths[..literals])?, Codes::of(&lengths[literals..at])?))
}
