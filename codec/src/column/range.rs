//! Numbers that hardly repeat, by how likely their size is: a range coder with adaptive models.
//!
//! zstd finds repeats and uneven bytes. Of measurements and of gaps between events neither is left, but their size is
//! still no surprise: it goes with the size of the last ones. A number is coded as its bit length (given the lengths of
//! the two before), its sign with its three highest bits, and the rest as it is: two symbols of sixteen, mostly, as each
//! costs as much time as a single bit would.
//!
//! ```text
//! range-coded symbols ... | ... bits as they are, the first in the last byte, its lowest bit first |
//! ```
//! The coder has 32 bits of range, as LZMA's; carries go back into what was written. Models live with the column.

use super::ColumnFault;

/// How likely each of sixteen symbols is, learnt fast and slowly: of each, what it and all below it have together, in
/// 32767ths. Both are added up.
#[derive(Debug, Clone, Copy)]
struct Symbols {
    fast: [i16; SYMBOLS],
    slow: [i16; SYMBOLS],
    /// Symbols that were met, and some more; enough is enough.
    met: u32,
}

const SYMBOLS: usize = 16;
/// What all symbols have together, fast and slow.
const ALL: u32 = 2 * i16::MAX as u32;
/// The first symbols are learnt by an 8th, those after so many by a 128th.
const FIRST: u32 = 1 << 2;
const ENOUGH: u32 = 1 << 6;

impl Symbols {
    const EVEN: Self = {
        let mut even = [0; SYMBOLS];
        let mut symbol = 0;
        while symbol < SYMBOLS {
            even[symbol] = ((symbol as i32 + 1) * 2048 - 1) as i16;
            symbol += 1;
        }
        Self { fast: even, slow: even, met: FIRST }
    };

    /// What each symbol and all below it have: at most [`ALL`].
    #[inline(always)]
    fn sums(&self) -> [u16; SYMBOLS] {
        std::array::from_fn(|index| (self.fast[index] as u16).wrapping_add(self.slow[index] as u16))
    }

    /// What lies below a symbol, and what it has itself: never nothing.
    #[inline(always)]
    fn share(&self, symbol: usize) -> (u32, u32) {
        let up_to = |symbol: usize| {
            u32::from((self.fast[symbol % SYMBOLS] as u16).wrapping_add(self.slow[symbol % SYMBOLS] as u16))
        };
        let below = if symbol == 0 { 0 } else { up_to(symbol - 1) };
        (below, up_to(symbol) - below)
    }

    /// The symbol that `at` of all belongs to.
    #[inline(always)]
    fn find(&self, at: u16) -> usize {
        let beyond: [u16; SYMBOLS] = self.sums().map(|sum| u16::from(sum <= at));
        usize::from(beyond.iter().sum::<u16>())
    }

    /// Moves by a 16th and a 128th of the way to where only this symbol is left; by an 8th and more while little is known.
    #[inline(always)]
    fn learn(&mut self, symbol: usize) {
        let goal = &GOALS[symbol % SYMBOLS];
        let slowly = self.met.ilog2() + 1;
        let fast = slowly.min(4);
        self.met = (self.met + 1).min(ENOUGH);
        for ((fast_share, slow_share), goal) in self.fast.iter_mut().zip(&mut self.slow).zip(goal) {
            *fast_share += (goal - *fast_share) >> fast;
            *slow_share += (goal - *slow_share) >> slowly;
        }
    }
}

/// For each symbol the shares when it has all but one for each of the others. As these ascend by one at least, so do all
/// shares for ever.
static GOALS: [[i16; SYMBOLS]; SYMBOLS] = {
    let mut goals = [[0; SYMBOLS]; SYMBOLS];
    let mut symbol = 0;
    while symbol < SYMBOLS {
        let mut index = 0;
        while index < SYMBOLS {
            let few = index as i16 + 1;
            goals[symbol][index] = if index < symbol { few } else { i16::MAX - (SYMBOLS as i16 - few) };
            index += 1;
        }
        symbol += 1;
    }
    goals
};

/// What a column has learnt of its numbers.
#[derive(Debug)]
pub(super) struct Model {
    /// 0, and lengths around those of the last two, by these.
    lengths: [Symbols; CONTEXTS],
    /// Lengths that are far from those: the higher bits, and the lower ones by the higher.
    far: (Symbols, [Symbols; SYMBOLS]),
    /// Signs and highest bits, by length and the last sign.
    tops: [[Symbols; 3]; LENGTHS],
    last: (u32, u32),
    last_sign: usize,
}

/// Lengths of a number that is not 0.
const LENGTHS: usize = 64;
/// Lengths above this are one context.
const LONG: u32 = 23;
const CONTEXTS: usize = 2 * LONG as usize + 1;
/// Bits below the highest that are modelled.
const TOP: u32 = 3;
/// What stands for a length that is below the least of its context, or far above.
const FAR: u32 = SYMBOLS as u32 - 1;
/// How far below what is expected the least length of a context is: more numbers are small than large.
const BELOW: u32 = 8;

impl Default for Model {
    fn default() -> Self {
        Self {
            lengths: [Symbols::EVEN; CONTEXTS],
            far: (Symbols::EVEN, [Symbols::EVEN; SYMBOLS]),
            tops: [[Symbols::EVEN; 3]; LENGTHS],
            last: (0, 0),
            last_sign: 0,
        }
    }
}

impl Model {
    /// Bytes that a model holds.
    pub(super) const MEMORY: usize = size_of::<Self>();

    /// One number, which is ignored when decoding; what is returned is the truth in both.
    #[inline(always)]
    fn number<C: Coder>(&mut self, coder: &mut C, number: i64) -> i64 {
        let magnitude = number.unsigned_abs();
        let length = self.length(coder, 64 - magnitude.leading_zeros());
        if length == 0 {
            return 0;
        }
        let below = length - 1;
        let top = below.min(TOP);
        let rest = below - top;
        let bits = magnitude & !(1 << below);
        let high = (bits >> rest) << (TOP - top);
        let symbol = usize::from(number < 0) << TOP | high as usize;
        let symbol = coder.symbol(&mut self.tops[below as usize % LENGTHS][self.last_sign % 3], symbol);
        let negative = symbol >> TOP != 0;
        self.last_sign = 1 + usize::from(negative);
        let high = (symbol as u64 & ((1 << TOP) - 1)) >> (TOP - top);
        let low = coder.plain(rest, bits & ((1 << rest) - 1));
        let magnitude = 1 << below | high << rest | low;
        (if negative { magnitude.wrapping_neg() } else { magnitude }) as i64
    }

    /// The bit length of a number.
    #[inline(always)]
    fn length<C: Coder>(&mut self, coder: &mut C, length: u32) -> u32 {
        let context = self.last.0.min(LONG) + self.last.1.min(LONG);
        let least = (context / 2).saturating_sub(BELOW).max(1);
        let near = if length == 0 { 0 } else { (length.wrapping_sub(least)).min(FAR - 1) + 1 };
        let near = coder.symbol(&mut self.lengths[context as usize % CONTEXTS], near as usize) as u32;
        let length = match near {
            0 => 0,
            FAR => self.far(coder, length),
            _ => least + near - 1,
        };
        self.last = (length, self.last.0);
        length
    }

    #[cold]
    fn far<C: Coder>(&mut self, coder: &mut C, length: u32) -> u32 {
        // 64 goes with 63.
        let high = coder.symbol(&mut self.far.0, length.min(63) as usize >> 2);
        let low = (length.min(63) & 3) << 1 | length >> 6;
        let low = coder.symbol(&mut self.far.1[high % SYMBOLS], low as usize) as u32;
        ((high as u32) << 2 | (low >> 1 & 3)) + (low & 1)
    }
}

/// Both directions. The range has more than 24 bits before each symbol, which leaves at least 9 of them: one or two bytes
/// make up for it. What is given is ignored when decoding; what is returned is the truth in both.
trait Coder {
    fn symbol(&mut self, symbols: &mut Symbols, symbol: usize) -> usize;

    /// `count` bits without a model, at most 60.
    fn plain(&mut self, count: u32, bits: u64) -> u64;
}

/// Appends `numbers`.
pub(super) fn encode(model: &mut Model, numbers: &[i64], out: &mut Vec<u8>) {
    if numbers.is_empty() {
        return;
    }
    let start = out.len();
    // Each number is four symbols at most.
    out.resize(start + numbers.len() * 8 + 8, 0);
    let plain = Vec::with_capacity(numbers.len() * 2 + 8);
    let mut encoder =
        Encoder { low: 0, range: u32::MAX, out: &mut out[start..], at: 0, plain, bits: 0, count: 0 };
    for number in numbers {
        model.number(&mut encoder, *number);
    }
    let (length, plain) = encoder.finish();
    out.truncate(start + length);
    out.extend(plain.iter().rev());
}

/// Reads `count` numbers of all of `bytes`.
pub(super) fn decode(
    model: &mut Model,
    count: usize,
    bytes: &[u8],
    numbers: &mut Vec<i64>,
) -> Result<(), ColumnFault> {
    let mut decoder =
        Decoder { code: 0, range: u32::MAX, bytes, at: 0, plain: bytes.len() as isize, bits: 0, count: 0 };
    decoder.shift(4);
    for _ in 0..count {
        numbers.push(model.number(&mut decoder, 0));
    }
    if decoder.is_at_end() { Ok(()) } else { Err(ColumnFault::Number) }
}

struct Encoder<'a> {
    low: u32,
    range: u32,
    /// With room for all that comes.
    out: &'a mut [u8],
    at: usize,
    plain: Vec<u8>,
    /// Of `plain`, not yet whole.
    bits: u64,
    count: u32,
}

impl Encoder<'_> {
    #[inline(always)]
    fn add(&mut self, part: u32) {
        let (low, carries) = self.low.overflowing_add(part);
        self.low = low;
        if carries {
            self.carry();
        }
    }

    /// One more in what was written: rare, and rarely further than a byte.
    #[cold]
    fn carry(&mut self) {
        for byte in self.out[..self.at].iter_mut().rev() {
            *byte = byte.wrapping_add(1);
            if *byte != 0 {
                return;
            }
        }
    }

    /// Bytes of the symbols, and those of the bits.
    fn finish(mut self) -> (usize, Vec<u8>) {
        // The fewest bytes that leave the range whatever follows them.
        let (low, high) = (u64::from(self.low), u64::from(self.low) + u64::from(self.range) - 1);
        let up = |rest: u32| (low + (1 << rest) - 1) >> rest << rest;
        let fits = |bytes: &u32| up(32 - 8 * bytes) + (1 << (32 - 8 * bytes)) - 1 <= high;
        let bytes = (0..4).find(fits).unwrap_or(4);
        self.add((up(32 - 8 * bytes) - low) as u32);
        self.out[self.at..self.at + 4].copy_from_slice(&self.low.to_be_bytes());
        while self.count > 0 {
            self.plain.push(self.bits as u8);
            self.bits >>= 8;
            self.count = self.count.saturating_sub(8);
        }
        (self.at + bytes as usize, self.plain)
    }
}

impl Coder for Encoder<'_> {
    #[inline(always)]
    fn symbol(&mut self, symbols: &mut Symbols, symbol: usize) -> usize {
        let (below, share) = symbols.share(symbol);
        symbols.learn(symbol);
        let part = self.range >> 16;
        self.add(part * below);
        self.range = part * share;
        let shift = self.range.leading_zeros() / 8;
        if let Some(next) = self.out.get_mut(self.at..self.at + 4) {
            next.copy_from_slice(&self.low.to_be_bytes());
        }
        self.at += shift as usize;
        self.low <<= 8 * shift;
        self.range <<= 8 * shift;
        symbol
    }

    #[inline(always)]
    fn plain(&mut self, count: u32, bits: u64) -> u64 {
        let mut left = count;
        let mut rest = bits;
        while left > 0 {
            let step = left.min(32);
            self.bits |= (rest & ((1 << step) - 1)) << self.count;
            self.count += step;
            if self.count >= 32 {
                self.plain.extend_from_slice(&(self.bits as u32).to_le_bytes());
                self.bits >>= 32;
                self.count -= 32;
            }
            rest >>= step;
            left -= step;
        }
        bits
    }
}

struct Decoder<'a> {
    code: u32,
    range: u32,
    bytes: &'a [u8],
    at: usize,
    /// Where those begin that were taken from the end; below 0 when more were than there are.
    plain: isize,
    /// Taken from there and not yet used.
    bits: u64,
    count: u32,
}

impl Decoder<'_> {
    #[inline(always)]
    fn shift(&mut self, bytes: u32) {
        let next = match self.bytes.get(self.at..self.at + 4) {
            Some(next) => u32::from_be_bytes([next[0], next[1], next[2], next[3]]),
            None => self.last(),
        };
        let code = u64::from(self.code) << 32 | u64::from(next);
        self.code = (code >> (32 - 8 * bytes)) as u32;
        self.at += bytes as usize;
    }

    /// The last bytes, and zeros for those behind the end.
    #[cold]
    fn last(&self) -> u32 {
        let byte = |at: usize| u32::from(self.bytes.get(at).copied().unwrap_or(0));
        (0..4).fold(0, |next, ahead| next << 8 | byte(self.at + ahead))
    }

    #[cold]
    fn fill_from_start(&mut self) {
        while self.count <= 32 {
            self.plain -= 1;
            let byte = usize::try_from(self.plain).ok().and_then(|at| self.bytes.get(at));
            self.bits |= u64::from(byte.copied().unwrap_or(0)) << self.count;
            self.count += 8;
        }
    }

    /// Whether all bytes were used, and nothing but them: the coder wrote up to two that decide no symbol, of the four that
    /// are looked at ahead.
    fn is_at_end(&self) -> bool {
        let plain = self.plain + (self.count / 8) as isize;
        (0..=2).contains(&(plain + 4 - self.at as isize))
    }
}

impl Coder for Decoder<'_> {
    #[inline(always)]
    fn symbol(&mut self, symbols: &mut Symbols, _: usize) -> usize {
        let part = self.range >> 16;
        // Hostile bytes can lie beyond the range, where no encoder goes.
        let at = (self.code / part).min(ALL - 1);
        let symbol = symbols.find(at as u16);
        let (below, share) = symbols.share(symbol);
        symbols.learn(symbol);
        self.code = self.code.wrapping_sub(part * below);
        self.range = part * share;
        let shift = self.range.leading_zeros() / 8;
        self.range <<= 8 * shift;
        self.shift(shift);
        symbol
    }

    #[inline(always)]
    fn plain(&mut self, count: u32, _: u64) -> u64 {
        let (mut left, mut done, mut bits) = (count, 0, 0);
        while left > 0 {
            let step = left.min(32);
            if self.count < step {
                match usize::try_from(self.plain - 4)
                    .ok()
                    .and_then(|from| self.bytes.get(from..)?.first_chunk())
                {
                    Some(next) => {
                        self.bits |= u64::from(u32::from_be_bytes(*next)) << self.count;
                        self.count += 32;
                        self.plain -= 4;
                    }
                    None => self.fill_from_start(),
                }
            }
            bits |= (self.bits & ((1 << step) - 1)) << done;
            self.bits >>= step;
            self.count -= step;
            done += step;
            left -= step;
        }
        bits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn there_and_back(model: &mut Model, mirror: &mut Model, numbers: &[i64]) -> usize {
        let (mut bytes, mut decoded) = (Vec::new(), Vec::new());
        encode(model, numbers, &mut bytes);
        decode(mirror, numbers.len(), &bytes, &mut decoded).expect("what was encoded");
        assert_eq!(decoded, numbers);
        bytes.len()
    }

    #[test]
    fn numbers_of_every_size_come_back_over_many_parcels() {
        let (mut model, mut mirror) = (Model::default(), Model::default());
        let mut state = 88_172_645_463_325_252u64;
        for parcel in 0..300 {
            let numbers: Vec<i64> = (0..parcel)
                .map(|_| {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    state as i64 >> (state >> 7 & 63)
                })
                .chain([0, -1, 1, i64::MIN, i64::MAX, i64::MIN + 1, 1 << 62, -(1 << 62)])
                .collect();
            there_and_back(&mut model, &mut mirror, &numbers);
        }
    }

    #[test]
    fn what_is_of_one_size_costs_little_more_than_its_bits() {
        let (mut model, mut mirror) = (Model::default(), Model::default());
        let mut state = 1u64;
        let numbers: Vec<i64> = (0..20_000)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 44) as i64
            })
            .collect();
        let bytes = there_and_back(&mut model, &mut mirror, &numbers);
        assert!(bytes < 20_000 * 20 / 8 * 102 / 100, "{bytes}");
        assert!(there_and_back(&mut model, &mut mirror, &[7; 10_000]) < 300);
        assert_eq!(there_and_back(&mut Model::default(), &mut Model::default(), &[]), 0);
    }

    /// Ends meet other versions: the bytes are the format.
    #[test]
    fn the_bytes_are_what_they_always_were() {
        let (mut model, mut bytes) = (Model::default(), Vec::new());
        let mut state = 11u64;
        let numbers: Vec<i64> = (0..50_000)
            .map(|row| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                // All sizes, often the same, now and then one that is all ones.
                if row % 97 == 0 { -1 } else { state as i64 >> ((row / 640) % 64) }
            })
            .collect();
        for part in numbers.chunks(7_001) {
            encode(&mut model, part, &mut bytes);
        }
        let expected = "b93d301fe0c4dc545bbd5915de998a1477c58285d2dd53242e116ab5e8f01f9f";
        assert_eq!((bytes.len(), &*blake3::hash(&bytes).to_hex()), (232_681, expected));
    }

    #[test]
    fn bytes_that_no_number_needs_are_refused() {
        let numbers: Vec<i64> = (0..100).map(|row| row * 1_000_003 % 70_001).collect();
        let mut bytes = Vec::new();
        encode(&mut Model::default(), &numbers, &mut bytes);
        let read = |bytes: &[u8]| decode(&mut Model::default(), numbers.len(), bytes, &mut Vec::new());
        assert!(read(&bytes).is_ok());
        assert!(read(&[&bytes[..60], &[7; 3], &bytes[60..]].concat()).is_err());
        assert!(read(&[&bytes[..60], &bytes[63..]].concat()).is_err());
        assert!(read(&[]).is_err());
    }

    #[test]
    fn any_bytes_decode_to_something_or_are_refused() {
        let mut state = 5u64;
        for length in 0..400 {
            let bytes: Vec<u8> = (0..length)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(length);
                    (state >> 56) as u8
                })
                .collect();
            let mut numbers = Vec::new();
            let _ = decode(&mut Model::default(), 100, &bytes, &mut numbers);
            assert_eq!(numbers.len(), 100);
        }
    }
}
