//! Where one zstd block had better end: between columns whose bytes have little in common.
//!
//! zstd codes what it does not find again with one table of byte frequencies for a block. Digits, identifiers and range-coded
//! bytes in one block are coded badly by a table for all of them, and zstd itself looks for a better place only where it
//! finds much again. Here the boundaries of columns are known: a block ends at one where tables apart save more than they
//! cost, by the order-0 entropies of the bytes on either side and of both.

use std::sync::LazyLock;

/// The block that grows, and where those before it ended.
#[derive(Debug)]
pub(super) struct Blocks {
    /// How often each byte is in the block.
    block: [u32; 256],
    size: usize,
    starts: Vec<usize>,
}

impl Default for Blocks {
    fn default() -> Self {
        Self { block: [0; 256], size: 0, starts: Vec::new() }
    }
}

impl Blocks {
    /// Begins a parcel with what stands before the columns.
    pub(super) fn begin(&mut self, before: &[u8]) {
        self.starts.clear();
        self.block = counts(before);
        self.size = before.len();
    }

    /// Adds a column, which begins at `start` of the parcel.
    pub(super) fn add(&mut self, start: usize, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let column = counts(bytes);
        if self.is_apart(&column, bytes.len()) {
            self.starts.push(start);
            self.block = column;
            self.size = bytes.len();
            return;
        }
        self.block.iter_mut().zip(column).for_each(|(all, more)| *all += more);
        self.size += bytes.len();
    }

    /// Adds the range-coded end of the parcel: nothing is found in it, and a block of it needs no tables.
    pub(super) fn add_ranged(&mut self, start: usize, size: usize) {
        if size >= LEAST_RANGED {
            self.starts.push(start);
        }
    }

    /// Where in the parcel a block had better begin, ascending.
    pub(super) fn starts(&self) -> &[usize] {
        &self.starts
    }

    /// Whether a column of so many bytes had better not be in the block.
    fn is_apart(&self, column: &[u32; 256], size: usize) -> bool {
        let most = parting(self.size as u32, size as u32);
        // What is small beside the other saves little.
        if most < LEAST_SAVED_BITS {
            return false;
        }
        let shared: f32 = self.block.iter().zip(column).map(|(&block, &column)| parting(block, column)).sum();
        most - shared >= LEAST_SAVED_BITS
    }
}

/// Bits that it takes to tell of each of so many bytes from which of two runs it is. Of all bytes that is the most that a table
/// for each run can save; of the same byte in both, that much less.
fn parting(first: u32, second: u32) -> f32 {
    plogp(first + second) - plogp(first) - plogp(second)
}

/// How often each byte occurs.
fn counts(bytes: &[u8]) -> [u32; 256] {
    // Two tables, as the same byte often comes twice in a row.
    let (mut counts, mut others) = ([0; 256], [0; 256]);
    let pairs = bytes.chunks_exact(2);
    pairs.remainder().iter().for_each(|byte| counts[usize::from(*byte)] += 1);
    for pair in pairs {
        counts[usize::from(pair[0])] += 1;
        others[usize::from(pair[1])] += 1;
    }
    counts.iter_mut().zip(others).for_each(|(count, other)| *count += other);
    counts
}

/// `count * log2(count)`.
fn plogp(count: u32) -> f32 {
    static SMALL: LazyLock<Vec<f32>> = LazyLock::new(|| (0..SMALL_COUNTS).map(of).collect());
    fn of(count: u32) -> f32 {
        if count == 0 { 0.0 } else { count as f32 * (count as f32).log2() }
    }
    SMALL.get(count as usize).copied().unwrap_or_else(|| of(count))
}

const SMALL_COUNTS: u32 = 2048;
/// What another block must save: about 320 bytes. Its tables cost 100 to 200, those of the block before cannot be used again,
/// and what zstd finds again is not coded by them. Measured on a hundred kinds of topics: less costs those of many columns.
const LEAST_SAVED_BITS: f32 = 320.0 * 8.0;
/// Range-coded bytes that get a block of their own.
const LEAST_RANGED: usize = 512;

#[cfg(test)]
mod tests {
    use super::{Blocks, LEAST_RANGED};

    /// Bytes of an alphabet, without order.
    fn random(alphabet: &[u8], size: usize) -> Vec<u8> {
        let mut state = 7_u64;
        let mut next = || {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            alphabet[(state >> 33) as usize % alphabet.len()]
        };
        (0..size).map(|_| next()).collect()
    }

    fn starts(columns: &[&[u8]]) -> Vec<usize> {
        let mut blocks = Blocks::default();
        blocks.begin(b"head");
        let mut start = 4;
        for column in columns {
            blocks.add(start, column);
            start += column.len();
        }
        blocks.starts().to_vec()
    }

    #[test]
    fn unlike_columns_get_a_block_each_and_those_of_the_same_bytes_share_one() {
        let bytes: Vec<u8> = (0..=255).collect();
        let (digits, binary) = (random(b"0123456789", 4000), random(&bytes, 4000));
        assert_eq!(starts(&[&digits, &digits, &binary, &binary, &digits]), [8004, 16004]);
    }

    #[test]
    fn a_block_is_not_begun_for_what_saves_less_than_its_tables() {
        let bytes: Vec<u8> = (0..=255).collect();
        let (digits, binary) = (random(b"0123456789", 60_000), random(&bytes, 200));
        assert_eq!(starts(&[&digits, &binary, &digits]), [0; 0]);
        assert_eq!(starts(&[b"", &binary, b""]), [0; 0]);
    }

    #[test]
    fn the_range_coded_end_gets_one_unless_it_is_short() {
        let mut blocks = Blocks::default();
        blocks.begin(b"");
        blocks.add_ranged(10, LEAST_RANGED - 1);
        assert!(blocks.starts().is_empty());
        blocks.add_ranged(10, LEAST_RANGED);
        assert_eq!(blocks.starts(), [10]);
        blocks.begin(b"");
        assert!(blocks.starts().is_empty(), "those of another parcel");
    }
}
