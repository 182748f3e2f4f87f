//! Topics held in memory, so that reading files is no part of what is measured.

use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use longhaul_lab::topicfile::TopicFile;

/// The timestamp of the first line of a file that has none: some day in 2023.
const FIRST_TIMESTAMP: i64 = 1_700_000_000_000;

/// The records of one file.
pub(super) struct Topic {
    name: String,
    partitions: u32,
    arena: Vec<u8>,
    records: Vec<Spans>,
}

/// A record in the arena: its key, then its value.
struct Spans {
    partition: u32,
    timestamp: i64,
    start: usize,
    key: Option<usize>,
    value: Option<usize>,
}

/// One record as it is lent.
#[derive(Debug, Clone, Copy)]
pub(super) struct View<'a> {
    /// Which source partition of all it belongs to.
    pub(super) slot: u32,
    pub(super) timestamp: i64,
    pub(super) key: Option<&'a [u8]>,
    pub(super) value: Option<&'a [u8]>,
}

impl View<'_> {
    /// Bytes of key and value.
    pub(super) fn raw(&self) -> u64 {
        (self.key.map_or(0, <[u8]>::len) + self.value.map_or(0, <[u8]>::len)) as u64
    }
}

impl Topic {
    pub(super) fn load(path: &Path, partitions: u32) -> Result<Self> {
        let shown = path.display();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        ensure!(!path.is_dir(), "{shown} is a folder: name the files in it");
        if let Some(packed) = PACKED.iter().find(|end| name.ends_with(**end) && !name.ends_with(".kds.zst")) {
            bail!("{shown} is compressed ({packed}), and not a .kds.zst: unpack it first");
        }
        let mut topic = Self { name, partitions, arena: Vec::new(), records: Vec::new() };
        for record in TopicFile::open(path, FIRST_TIMESTAMP)? {
            let record = record?;
            let start = topic.arena.len();
            let mut append = |bytes: &Option<Vec<u8>>| {
                bytes.as_ref().map(|bytes| {
                    topic.arena.extend_from_slice(bytes);
                    bytes.len()
                })
            };
            let (key, value) = (append(&record.key), append(&record.value));
            let partition = u32::try_from(record.partition).context("a partition below 0")? % partitions;
            topic.records.push(Spans { partition, timestamp: record.timestamp, start, key, value });
        }
        ensure!(!topic.arena.is_empty(), "{shown} has no records with bytes in them: nothing to measure");
        Ok(topic)
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn partitions(&self) -> u32 {
        self.partitions
    }

    pub(super) fn views(&self) -> impl Iterator<Item = View<'_>> {
        (0..self.records.len()).map(|at| self.view(at, 0))
    }

    fn view(&self, at: usize, first_slot: u32) -> View<'_> {
        let spans = &self.records[at];
        let middle = spans.start + spans.key.unwrap_or(0);
        View {
            slot: first_slot + spans.partition,
            timestamp: spans.timestamp,
            key: spans.key.map(|_| &self.arena[spans.start..middle]),
            value: spans.value.map(|length| &self.arena[middle..middle + length]),
        }
    }
}

/// Records of one topic, or of several mixed, in the order in which they are sent.
pub(super) struct Records<'a> {
    topics: Vec<&'a Topic>,
    /// Topic and record, when there are several topics.
    order: Vec<(u32, u32)>,
}

impl<'a> Records<'a> {
    /// Those of one file, in its order.
    pub(super) fn of(topic: &'a Topic) -> Self {
        Self { topics: vec![topic], order: Vec::new() }
    }

    /// Those of all files, each spread evenly over the whole.
    pub(super) fn mixed(topics: &'a [Topic]) -> Self {
        let mut order: Vec<(f64, u32, u32)> = Vec::new();
        for (number, topic) in topics.iter().enumerate() {
            let count = topic.records.len();
            order.extend((0..count).map(|at| ((at as f64 + 0.5) / count as f64, number as u32, at as u32)));
        }
        order.sort_by(|one, other| one.0.total_cmp(&other.0).then((one.1, one.2).cmp(&(other.1, other.2))));
        let order = order.into_iter().map(|(_, topic, record)| (topic, record)).collect();
        Self { topics: topics.iter().collect(), order }
    }

    pub(super) fn name(&self) -> String {
        let names: Vec<&str> = self.topics.iter().map(|topic| topic.name()).collect();
        names.join(" + ")
    }

    /// Records, and their bytes of keys and values.
    pub(super) fn totals(&self) -> (u64, u64) {
        let records: usize = self.topics.iter().map(|topic| topic.records.len()).sum();
        let raw: usize = self.topics.iter().map(|topic| topic.arena.len()).sum();
        (records as u64, raw as u64)
    }

    /// How many slots there are over all topics.
    pub(super) fn slots(&self) -> u32 {
        self.topics.iter().map(|topic| topic.partitions).sum()
    }

    /// Which of the topics a slot is of.
    pub(super) fn topic_of(&self, slot: u32) -> usize {
        (slot / self.topics[0].partitions) as usize
    }

    /// Where a slot's records come from, for people.
    pub(super) fn place(&self, slot: u32) -> String {
        let partitions = self.topics[0].partitions;
        format!("{}, partition {}", self.topics[self.topic_of(slot)].name, slot % partitions)
    }

    pub(super) fn views(&self) -> Box<dyn Iterator<Item = View<'a>> + '_> {
        match self.topics.as_slice() {
            [topic] => Box::new(topic.views()),
            topics => Box::new(self.order.iter().map(|&(number, record)| {
                let topic = topics[number as usize];
                topic.view(record as usize, number * topic.partitions)
            })),
        }
    }
}

/// Ends of names that would be read as if they were text.
const PACKED: [&str; 6] = [".zst", ".gz", ".xz", ".bz2", ".lz4", ".zip"];

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(name: &str, lines: &str) -> Result<Topic> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(name);
        std::fs::write(&path, lines).unwrap();
        Topic::load(&path, 2)
    }

    #[test]
    fn files_that_are_no_topics_are_refused_by_name() {
        for (name, lines, words) in [
            ("empty.jsonl", "\n\n", "empty.jsonl has no records"),
            ("topic.jsonl.gz", "x", "unpack it first"),
            ("topic.kds.zst", "x", "cannot read record 0"),
        ] {
            let error = format!("{:#}", topic(name, lines).err().expect("is refused"));
            assert!(error.contains(words), "{error}");
        }
        assert!(Topic::load(Path::new("/"), 1).err().unwrap().to_string().contains("folder"));
        assert!(
            Topic::load(Path::new("absent.jsonl"), 1).err().unwrap().to_string().contains("absent.jsonl")
        );
    }

    #[test]
    fn mixed_topics_are_spread_evenly_and_keep_their_order() {
        let topics = [topic("a.log", "1\n2\n3\n4\n").unwrap(), topic("b.log", "x\ny\n").unwrap()];
        let records = Records::mixed(&topics);
        let mixed: Vec<(u32, &[u8])> = records.views().map(|it| (it.slot, it.value.unwrap())).collect();
        let expected = [(0, "1"), (2, "x"), (1, "2"), (0, "3"), (3, "y"), (1, "4")];
        assert_eq!(mixed, expected.map(|(slot, value)| (slot, value.as_bytes())));
        assert_eq!((records.totals(), records.slots()), ((6, 6), 4));
        assert_eq!(records.place(3), "b.log, partition 1");
    }
}
