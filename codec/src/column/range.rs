//! Numbers that hardly repeat, by how likely their size is: a range coder with adaptive models.
//!
//! zstd finds repeats and uneven bytes. Of measurements and of gaps between events neither is left, but their size is
//! still no surprise: it goes with the size of the last ones. A number is coded as its bit length (given the lengths of
//! the two before), its sign, its three highest bits, and the rest as it is.
//!
//! The coder is the one of LZMA: 32 bits of range, the same bytes; carries go back into what was written. Models live with the
//! column.

use super::ColumnFault;

/// Likelihood of a bit being 0, learnt fast (the lower half) and slowly (the upper), in 65536ths. Both are one number, so that
/// they are learnt in one go.
#[derive(Debug, Clone, Copy)]
struct Bit(u32);

impl Bit {
    const EVEN: Self = Self(1 << 31 | 1 << 15);

    /// In 4096ths, neither 0 nor all.
    #[inline]
    fn zero(self) -> u32 {
        (((self.0 & 0xffff) + (self.0 >> 16)) >> 5).clamp(32, 4096 - 32)
    }

    /// Moves by a 16th and a 128th of what there is towards nothing; for a 0, of what is missing towards all.
    #[inline]
    fn learn(&mut self, bit: bool) {
        let turned = u32::from(bit).wrapping_sub(1);
        let left = self.0 ^ turned;
        let step = (left >> 4 & 0x0fff) | (left >> 7 & 0x01ff_0000);
        self.0 = (left - step) ^ turned;
    }
}

/// What a column has learnt of its numbers.
#[derive(Debug)]
pub(super) struct Model {
    /// Lengths, by those of the last two.
    lengths: Vec<[Bit; LENGTHS]>,
    signs: [[Bit; 3]; LENGTHS + 1],
    tops: [[Bit; 1 << TOP]; LENGTHS + 1],
    last: (u32, u32),
    last_sign: usize,
}

/// Lengths that have a symbol of their own; the last one stands for itself and the next.
const LENGTHS: usize = 64;
/// Lengths above this are one context.
const FAR: u32 = 23;
/// Highest bits (below the first) that are modelled.
const TOP: u32 = 3;

impl Default for Model {
    fn default() -> Self {
        Self {
            lengths: vec![[Bit::EVEN; LENGTHS]; 2 * FAR as usize + 1],
            signs: [[Bit::EVEN; 3]; LENGTHS + 1],
            tops: [[Bit::EVEN; 1 << TOP]; LENGTHS + 1],
            last: (0, 0),
            last_sign: 0,
        }
    }
}

impl Model {
    /// Bytes that a model holds.
    pub(super) const MEMORY: usize =
        ((2 * FAR as usize + 1) * LENGTHS + (LENGTHS + 1) * (3 + (1 << TOP))) * size_of::<Bit>();

    /// One number: `code` gets a model and the bit (when coding), and gives the bit.
    #[inline]
    fn number<C: Coder>(&mut self, coder: &mut C, number: i64) -> i64 {
        let magnitude = number.unsigned_abs();
        let context = (self.last.0.min(FAR) + self.last.1.min(FAR)) as usize;
        let length = 64 - magnitude.leading_zeros();
        let mut symbol = coder.tree(&mut self.lengths[context], 6, length.min(63));
        if symbol == 63 {
            symbol += coder.plain(1, u64::from(length == 64)) as u32;
        }
        self.last = (symbol, self.last.0);
        let length = symbol;
        if length == 0 {
            return 0;
        }
        let sign = coder.bit(&mut self.signs[length as usize][self.last_sign], number < 0);
        self.last_sign = 1 + usize::from(sign);
        let below = length - 1;
        let top = below.min(TOP);
        let rest = below - top;
        let bits = magnitude & !(1 << below);
        let high = coder.tree(&mut self.tops[length as usize], top, (bits >> rest) as u32);
        let low = coder.plain(rest, bits & ((1 << rest) - 1));
        let magnitude = 1 << below | u64::from(high) << rest | low;
        (if sign { magnitude.wrapping_neg() } else { magnitude }) as i64
    }
}

/// The range has more than 24 bits before each step. A bit leaves at least 17 of them, so one byte is enough to make up for it;
/// 16 bits at once need two.
const LEAST: u32 = 1 << 24;

/// Both directions. What is given is ignored when decoding; what is returned is the truth in both.
trait Coder {
    fn bit(&mut self, model: &mut Bit, bit: bool) -> bool;

    /// `count` bits without a model, at most 60.
    fn plain(&mut self, count: u32, bits: u64) -> u64;

    /// `depth` bits, highest first, each modelled by those before it.
    #[inline]
    fn tree<const N: usize>(&mut self, models: &mut [Bit; N], depth: u32, symbol: u32) -> u32 {
        const { assert!(N.is_power_of_two()) };
        let mut node = 1;
        for level in (0..depth).rev() {
            // Below N in any case, which the compiler does not know.
            let bit = self.bit(&mut models[node & (N - 1)], symbol >> level & 1 != 0);
            node = node << 1 | usize::from(bit);
        }
        node as u32 - (1 << depth)
    }
}

/// Appends `numbers`.
pub(super) fn encode(model: &mut Model, numbers: &[i64], out: &mut Vec<u8>) {
    let start = out.len();
    let mut encoder = Encoder::new(out);
    for number in numbers {
        model.number(&mut encoder, *number);
    }
    encoder.finish();
    // The decoder takes zeros for what is behind the end.
    let length = out[start..].iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    out.truncate(start + length);
}

/// Reads `count` numbers of all of `bytes`.
pub(super) fn decode(
    model: &mut Model,
    count: usize,
    bytes: &[u8],
    numbers: &mut Vec<i64>,
) -> Result<(), ColumnFault> {
    let mut decoder = Decoder { code: 0, range: u32::MAX, bytes, at: 0 };
    (0..5).for_each(|_| decoder.shift());
    for _ in 0..count {
        numbers.push(model.number(&mut decoder, 0));
    }
    // The last bytes decide nothing more, so a few may be left; more were never written.
    if bytes.len() > decoder.at { Err(ColumnFault::Number) } else { Ok(()) }
}

struct Encoder<'a> {
    low: u32,
    range: u32,
    /// What was written before is not ours: no carry goes there.
    out: &'a mut Vec<u8>,
}

impl<'a> Encoder<'a> {
    fn new(out: &'a mut Vec<u8>) -> Self {
        // LZMA's first byte is always 0.
        out.push(0);
        Self { low: 0, range: u32::MAX, out }
    }

    #[inline]
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
        for byte in self.out.iter_mut().rev() {
            *byte = byte.wrapping_add(1);
            if *byte != 0 {
                return;
            }
        }
    }

    #[inline]
    fn normalize(&mut self) {
        if self.range < LEAST {
            self.range <<= 8;
            self.shift();
        }
    }

    #[inline]
    fn shift(&mut self) {
        self.out.push((self.low >> 24) as u8);
        self.low <<= 8;
    }

    /// Ends with a number of the last range that has many zeros at its end.
    fn finish(mut self) {
        let (low, high) = (u64::from(self.low), u64::from(self.low) + u64::from(self.range) - 1);
        let up = |zeros: u32| {
            let mask = (1u64 << zeros) - 1;
            (low + mask) & !mask
        };
        let zeros = (0..=32).rev().find(|zeros| up(*zeros) <= high).unwrap_or(0);
        self.add((up(zeros) - low) as u32);
        (0..4).for_each(|_| self.shift());
    }
}

impl Coder for Encoder<'_> {
    #[inline]
    fn bit(&mut self, model: &mut Bit, bit: bool) -> bool {
        let bound = (self.range >> 12) * model.zero();
        self.add(if bit { bound } else { 0 });
        self.range = if bit { self.range - bound } else { bound };
        model.learn(bit);
        self.normalize();
        bit
    }

    #[inline]
    fn plain(&mut self, count: u32, bits: u64) -> u64 {
        let mut left = count;
        while left > 0 {
            let step = left.min(16);
            left -= step;
            self.range >>= step;
            self.add(self.range * (bits >> left & ((1 << step) - 1)) as u32);
            self.normalize();
            self.normalize();
        }
        bits
    }
}

struct Decoder<'a> {
    code: u32,
    range: u32,
    bytes: &'a [u8],
    at: usize,
}

impl Decoder<'_> {
    #[inline]
    fn shift(&mut self) {
        self.code = self.code << 8 | u32::from(self.bytes.get(self.at).copied().unwrap_or(0));
        self.at += 1;
    }

    #[inline]
    fn normalize(&mut self) {
        if self.range < LEAST {
            self.range <<= 8;
            self.shift();
        }
    }
}

impl Coder for Decoder<'_> {
    #[inline]
    fn bit(&mut self, model: &mut Bit, _: bool) -> bool {
        let bound = (self.range >> 12) * model.zero();
        let bit = self.code >= bound;
        if bit {
            self.code -= bound;
            self.range -= bound;
        } else {
            self.range = bound;
        }
        model.learn(bit);
        self.normalize();
        bit
    }

    #[inline]
    fn plain(&mut self, count: u32, _: u64) -> u64 {
        let (mut left, mut bits) = (count, 0);
        while left > 0 {
            let step = left.min(16);
            left -= step;
            self.range >>= step;
            // Hostile bytes can lie beyond the range, where no encoder goes.
            let part = (self.code / self.range).min((1 << step) - 1);
            self.code = self.code.wrapping_sub(part.wrapping_mul(self.range));
            bits = bits << step | u64::from(part);
            self.normalize();
            self.normalize();
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
        let expected = "0642c682cb86abf341085c73a67b7d4262cf4c3ea19e42836dcd6fa207ea21f9";
        assert_eq!((bytes.len(), &*blake3::hash(&bytes).to_hex()), (232_844, expected));
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
