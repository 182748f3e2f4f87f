//! A series of numbers outside of columns, as the timestamps of records: by range coder where that is smaller.

use super::number::{put_ranged, read_ranged, zigzag};
use super::range::Model;
use crate::Error;
use crate::varint::{Reader, put};

/// The encoding end of a series of a lane epoch.
#[derive(Debug, Default)]
pub(crate) struct SeriesEncoder {
    model: Option<Box<Model>>,
    in_use: bool,
    since: usize,
    interval: usize,
}

impl SeriesEncoder {
    /// Appends `differences` and returns true; or appends nothing, as they should go as varints in this parcel.
    pub(crate) fn encode(&mut self, differences: &mut [i64], out: &mut Vec<u8>) -> bool {
        if differences.len() < FEWEST {
            return false;
        }
        self.since = self.since.saturating_add(differences.len());
        if self.since >= self.interval {
            self.interval = (self.since * 4).min(LONGEST);
            self.since = 0;
            self.in_use = is_smaller(differences);
        }
        if self.in_use {
            put_ranged(self.model.get_or_insert_default(), differences, out);
        }
        self.in_use
    }

    /// Bytes held.
    pub(crate) fn memory(&self) -> usize {
        self.model.as_ref().map_or(0, |_| Model::MEMORY)
    }
}

/// The decoding end.
#[derive(Debug, Default)]
pub(crate) struct SeriesDecoder {
    model: Option<Box<Model>>,
}

impl SeriesDecoder {
    /// Reads `count` differences that [`SeriesEncoder::encode`] appended.
    ///
    /// # Errors
    /// [`Error::Truncated`] and [`Error::Number`] for what it never writes. The caller has bounded `count`.
    pub(crate) fn decode(
        &mut self,
        count: usize,
        reader: &mut Reader<'_>,
        differences: &mut Vec<i64>,
    ) -> Result<(), Error> {
        differences.clear();
        read_ranged(self.model.get_or_insert_default(), count, reader, differences)
    }

    /// Bytes held.
    pub(crate) fn memory(&self) -> usize {
        self.model.as_ref().map_or(0, |_| Model::MEMORY)
    }
}

/// Whether a fresh range coder needs fewer bytes than zstd makes of varints: repeats are better left to zstd.
fn is_smaller(differences: &[i64]) -> bool {
    let head = &differences[..differences.len().min(MOST_TRIED)];
    let mut varints = Vec::with_capacity(head.len() * 4);
    head.iter().for_each(|difference| put(&mut varints, zigzag(*difference)));
    let mut compressed = Vec::with_capacity(zstd_safe::compress_bound(varints.len()));
    let Ok(plain) = zstd_safe::compress(&mut compressed, &varints, 3) else { return false };
    let mut ranged = Vec::new();
    put_ranged(&mut Model::default(), &mut head.to_vec(), &mut ranged);
    ranged.len() < plain
}

/// Differences below which the coder's end and its learning cost more than it saves.
const FEWEST: usize = 128;
/// Differences that a trial looks at.
const MOST_TRIED: usize = 8192;
const LONGEST: usize = 1 << 22;

#[cfg(test)]
mod tests {
    use super::*;

    fn pass(encoder: &mut SeriesEncoder, decoder: &mut SeriesDecoder, differences: &[i64]) -> Option<usize> {
        let mut bytes = Vec::new();
        if !encoder.encode(&mut differences.to_vec(), &mut bytes) {
            assert!(bytes.is_empty());
            return None;
        }
        let (mut reader, mut decoded) = (Reader::new(&bytes, "test"), Vec::new());
        decoder.decode(differences.len(), &mut reader, &mut decoded).expect("what was encoded");
        assert_eq!((decoded.as_slice(), reader.remaining()), (differences, 0));
        Some(bytes.len())
    }

    #[test]
    fn random_gaps_are_ranged_and_repeats_left_to_zstd() {
        let mut state = 1u64;
        let mut gap = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 50) as i64 * 10
        };
        let (mut encoder, mut decoder) = (SeriesEncoder::default(), SeriesDecoder::default());
        for _ in 0..5 {
            let gaps: Vec<i64> = (0..2000).map(|_| gap()).collect();
            let bytes = pass(&mut encoder, &mut decoder, &gaps).expect("smaller than varints");
            assert!(bytes < 2000 * 14 / 8 * 108 / 100, "{bytes}");
        }
        assert_eq!(pass(&mut encoder, &mut decoder, &[5; FEWEST - 1]), None);
        let mut encoder = SeriesEncoder::default();
        assert_eq!(pass(&mut encoder, &mut decoder, &[0, 300_000].repeat(1000)), None);
    }
}
