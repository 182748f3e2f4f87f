//! What Kafka's own record batches need for the same records: the bytes that a producer sends, a broker stores and
//! MirrorMaker 2 moves.
//!
//! Format 2 (Kafka's documentation, "Record Batch"): a header of 61 bytes, then records with varint lengths and
//! deltas of timestamp and offset from the batch's first, together compressed. Each partition fills its own batches.
//! Request headers are not counted.

use std::io::Write as _;

use super::topic::{Topic, View};

/// Bytes of a batch's header.
const HEADER: usize = 61;
/// The level that Kafka's zstd uses unless `compression.zstd.level` says otherwise.
const ZSTD_LEVEL: i32 = 3;
/// The Java producer's `batch.size` unless configured.
const BATCH_SIZE: usize = 16 * 1024;

/// A way to make batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Batches {
    pub(super) packing: Packing,
    pub(super) fill: Fill,
}

/// `compression.type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packing {
    None,
    /// Frames of independent blocks of 64 KiB, as Kafka's clients write them.
    Lz4,
    /// Level 3.
    Zstd,
}

/// When a batch is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fill {
    /// At so many bytes of keys and values.
    Raw(u64),
    /// As the Java producer fills batches of its default 16 KB while it is kept busy: it estimates what they will be
    /// once compressed, from how well the topic's last ones were (`MemoryRecordsBuilder`, `CompressionRatioEstimator`
    /// of Apache Kafka 4). The estimate is always the newest one, where the producer keeps that of a batch's beginning:
    /// to Kafka's favour, by about 1 %.
    Java,
}

impl Batches {
    /// What every topic is compared with.
    pub(super) const STANDARD: [Self; 5] = [
        Self { packing: Packing::None, fill: Fill::Raw(16 << 10) },
        Self { packing: Packing::Lz4, fill: Fill::Raw(16 << 10) },
        Self { packing: Packing::Zstd, fill: Fill::Raw(16 << 10) },
        Self { packing: Packing::Zstd, fill: Fill::Java },
        Self { packing: Packing::Zstd, fill: Fill::Raw(1 << 20) },
    ];

    /// For a table.
    pub(super) fn title(self) -> String {
        let packing = match self.packing {
            Packing::None => "not compressed",
            Packing::Lz4 => "lz4",
            Packing::Zstd => "zstd-3",
        };
        match self.fill {
            Fill::Java => format!("{packing}, as the Java producer fills 16 KB"),
            Fill::Raw(bytes) if bytes >= 1 << 20 && bytes % (1 << 20) == 0 => {
                format!("{packing}, batches of {} MB", bytes >> 20)
            }
            Fill::Raw(bytes) if bytes % 1024 == 0 => format!("{packing}, batches of {} KB", bytes >> 10),
            Fill::Raw(bytes) => format!("{packing}, batches of {bytes} B"),
        }
    }

    /// For a script.
    pub(super) fn key(self) -> String {
        let packing = match self.packing {
            Packing::None => "none",
            Packing::Lz4 => "lz4",
            Packing::Zstd => "zstd3",
        };
        match self.fill {
            Fill::Java => format!("{packing}_java"),
            Fill::Raw(16_384) => format!("{packing}_16k"),
            Fill::Raw(1_048_576) => format!("{packing}_1m"),
            Fill::Raw(bytes) => format!("{packing}_{bytes}"),
        }
    }

    /// Bytes of all batches of a topic.
    pub(super) fn bytes(self, topic: &Topic) -> u64 {
        let mut open: Vec<Open> = (0..topic.partitions()).map(|_| Open::default()).collect();
        let mut estimator = Estimator { ratio: 1.0 };
        let mut bytes = 0;
        for record in topic.views() {
            let batch = &mut open[record.slot as usize];
            if !batch.has_room(self.fill, &record, estimator.ratio) {
                bytes += self.close(batch, &mut estimator);
            }
            if batch.count == 0 {
                batch.begin(&record);
            }
            batch.push(&record);
        }
        bytes + open.iter_mut().map(|batch| self.close(batch, &mut estimator)).sum::<u64>()
    }

    fn close(self, batch: &mut Open, estimator: &mut Estimator) -> u64 {
        if batch.count == 0 {
            return 0;
        }
        let packed = self.packing.size(&batch.records);
        estimator.observe(packed as f32 / batch.records.len() as f32);
        batch.records.clear();
        (batch.count, batch.raw) = (0, 0);
        (HEADER + packed) as u64
    }
}

impl Packing {
    fn size(self, records: &[u8]) -> usize {
        const IN_MEMORY: &str = "writing to memory does not fail";
        match self {
            Self::None => records.len(),
            Self::Lz4 => {
                let mut info = lz4_flex::frame::FrameInfo::new();
                info.block_size = lz4_flex::frame::BlockSize::Max64KB;
                let mut encoder = lz4_flex::frame::FrameEncoder::with_frame_info(info, Vec::new());
                encoder.write_all(records).expect(IN_MEMORY);
                encoder.finish().expect(IN_MEMORY).len()
            }
            // In one call, which makes it up to 1 % smaller than the clients' streams: to Kafka's favour.
            Self::Zstd => zstd::bulk::compress(records, ZSTD_LEVEL).expect(IN_MEMORY).len(),
        }
    }
}

/// `CompressionRatioEstimator`: quick to believe that a topic compresses worse, slow to believe the opposite.
struct Estimator {
    ratio: f32,
}

impl Estimator {
    const IMPROVING_STEP: f32 = 0.005;
    const DETERIORATING_STEP: f32 = 0.05;

    fn observe(&mut self, ratio: f32) {
        self.ratio = if ratio > self.ratio {
            ratio.max(self.ratio + Self::DETERIORATING_STEP)
        } else {
            ratio.max(self.ratio - Self::IMPROVING_STEP)
        };
    }
}

/// A batch that is being filled.
#[derive(Default)]
struct Open {
    /// The records as they are compressed.
    records: Vec<u8>,
    count: i64,
    raw: u64,
    first_timestamp: i64,
    limit: usize,
}

impl Open {
    fn begin(&mut self, record: &View<'_>) {
        self.first_timestamp = record.timestamp;
        // A larger record gets a batch of its size: `DefaultRecordBatch.estimateBatchSizeUpperBound`.
        self.limit = BATCH_SIZE.max(HEADER + MAX_RECORD_OVERHEAD + record.raw() as usize);
    }

    fn has_room(&self, fill: Fill, record: &View<'_>, ratio: f32) -> bool {
        if self.count == 0 {
            return true;
        }
        match fill {
            Fill::Raw(bytes) => self.raw + record.raw() <= bytes,
            Fill::Java => {
                /// `COMPRESSION_RATE_ESTIMATION_FACTOR`
                const MARGIN: f32 = 1.05;
                let estimated = HEADER + (self.records.len() as f32 * ratio * MARGIN) as usize;
                self.limit > estimated && self.limit >= estimated + self.size_of(record)
            }
        }
    }

    fn size_of(&self, record: &View<'_>) -> usize {
        let body = self.body_of(record);
        varint_size(body as i64) + body
    }

    /// Bytes of a record behind its length.
    fn body_of(&self, record: &View<'_>) -> usize {
        let field =
            |bytes: Option<&[u8]>| bytes.map_or(1, |bytes| varint_size(bytes.len() as i64) + bytes.len());
        let deltas = varint_size(record.timestamp - self.first_timestamp) + varint_size(self.count);
        // Attributes before, the number of headers behind.
        1 + deltas + field(record.key) + field(record.value) + 1
    }

    fn push(&mut self, record: &View<'_>) {
        let body = self.body_of(record);
        put_varint(&mut self.records, body as i64);
        let start = self.records.len();
        self.records.push(0);
        put_varint(&mut self.records, record.timestamp - self.first_timestamp);
        put_varint(&mut self.records, self.count);
        for field in [record.key, record.value] {
            put_varint(&mut self.records, field.map_or(-1, |bytes| bytes.len() as i64));
            self.records.extend_from_slice(field.unwrap_or_default());
        }
        put_varint(&mut self.records, 0);
        debug_assert_eq!(self.records.len() - start, body);
        self.count += 1;
        self.raw += record.raw();
    }
}

fn zigzag(number: i64) -> u64 {
    (number << 1 ^ number >> 63) as u64
}

fn varint_size(number: i64) -> usize {
    (64 - (zigzag(number) | 1).leading_zeros() as usize).div_ceil(7)
}

fn put_varint(out: &mut Vec<u8>, number: i64) {
    let mut rest = zigzag(number);
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// `DefaultRecord.MAX_RECORD_OVERHEAD`
const MAX_RECORD_OVERHEAD: usize = 21;

#[cfg(test)]
mod tests {
    use super::*;

    fn view<'a>(timestamp: i64, key: Option<&'a [u8]>, value: Option<&'a [u8]>) -> View<'a> {
        View { slot: 0, timestamp, key, value }
    }

    #[test]
    fn records_are_written_as_kafka_documents_them() {
        let mut batch = Open::default();
        let first = view(1000, Some(b"k"), Some(b"value"));
        batch.begin(&first);
        batch.push(&first);
        batch.push(&view(1100, None, Some(b"")));
        let expected = [&[24, 0, 0, 0, 2, b'k', 10][..], b"value", &[0], &[14, 0, 0xc8, 0x01, 2, 1, 0, 0]];
        assert_eq!(batch.records, expected.concat());
    }

    #[test]
    fn varints_are_as_long_as_they_say() {
        for number in [0, 1, -1, 63, 64, -64, -65, 8191, 8192, i64::MAX, i64::MIN] {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, number);
            assert_eq!(bytes.len(), varint_size(number), "{number}");
        }
    }

    #[test]
    fn the_estimate_falls_slowly_and_rises_at_once() {
        let mut estimator = Estimator { ratio: 1.0 };
        (0..100).for_each(|_| estimator.observe(0.1));
        assert!((estimator.ratio - 0.5).abs() < 0.001, "{}", estimator.ratio);
        estimator.observe(0.9);
        assert!((estimator.ratio - 0.9).abs() < 0.001, "{}", estimator.ratio);
    }
}
