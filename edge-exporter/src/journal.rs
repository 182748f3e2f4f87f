//! What was sent and is not on record yet, for the next run.
//!
//! The importer may commit what this process sent and die with it before it was acknowledged, or this process may die
//! before it put an acknowledgement on record. The audit log would then have a hole where nothing is missing. So each
//! group is noted beside the audit log (`edge.jsonl.sent`) before it is sent; the next run reads what is left, and when
//! the importer says how far it has committed, puts it on record.
//!
//! It proves, it does not decide: positions come from the importer alone. It is not flushed to disk for each group, so
//! it survives the end of the process, not a power cut. When it cannot be written carrying goes on.
//!
//! ```text
//! {"sent":{..group..}}        about to be sent          {"rewound":{..}}   sent anew from here
//! {"settling":{..lines..}}    about to be recorded      (rewritten whole once they are)
//! ```

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use observe::event::{Delivered, Event};
use proto::ids::Lane as LaneId;
use serde::{Deserialize, Serialize};

use crate::partition::Partition;

/// A group, or a run of groups, of one source partition: what a line of the audit log says of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tally {
    pub(crate) from: i64,
    pub(crate) next: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) first: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) last: Option<i64>,
    pub(crate) records: u64,
    /// Offsets in gaps that have lines of their own.
    pub(crate) named: u64,
    pub(crate) plain: u64,
    pub(crate) wire: u64,
    /// Sum of the groups' digests, in hex.
    pub(crate) digest: String,
}

/// Names a source partition in the journal: topic id and number.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Key {
    topic_id: String,
    partition: i32,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Sent {
        #[serde(flatten)]
        key: Key,
        #[serde(flatten)]
        tally: Tally,
    },
    Rewound {
        #[serde(flatten)]
        key: Key,
        next: i64,
    },
    Settling {
        lane: u16,
        lines: Vec<Event>,
    },
}

/// The journal, shared by the lanes. See the [module](self).
#[derive(Clone)]
pub(crate) struct Journal {
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    path: PathBuf,
    file: Option<File>,
    /// Groups that are not on record, in the order of sending.
    sent: BTreeMap<Key, Vec<Tally>>,
    /// Lines that are being recorded, by lane.
    settling: BTreeMap<LaneId, Vec<Event>>,
    failing: bool,
}

impl Journal {
    /// Reads what the run before left beside the audit log. Gives the lines that it may or may not have recorded: they
    /// are to be recorded again, word for word.
    pub(crate) fn open(audit: &Path) -> (Self, Vec<Event>) {
        let mut path = audit.as_os_str().to_owned();
        path.push(".sent");
        let path = PathBuf::from(path);
        let mut inner =
            Inner { file: None, sent: BTreeMap::new(), settling: BTreeMap::new(), failing: false, path };
        let text = std::fs::read_to_string(&inner.path).unwrap_or_default();
        let mut pending: BTreeMap<u16, Vec<Event>> = BTreeMap::new();
        // What does not parse is the end of a write that was cut off.
        for line in text.lines().map_while(|line| serde_json::from_str(line).ok()) {
            match line {
                Line::Sent { key, tally } => inner.sent.entry(key).or_default().push(tally),
                Line::Rewound { key, next } => inner.rewind(&key, next),
                // An earlier attempt of the lane failed, or this line would not be there.
                Line::Settling { lane, lines } => drop(pending.insert(lane, lines)),
            }
        }
        let pending: Vec<Event> = pending.into_values().flatten().collect();
        inner.settle(&pending);
        (Self { inner: Arc::new(Mutex::new(inner)) }, pending)
    }

    /// The pending lines are on record: from here on the file tells of this run too.
    pub(crate) fn begin(&self) {
        self.lock().rewrite();
    }

    /// Groups are about to be sent.
    pub(crate) fn sent<'a>(&self, groups: impl Iterator<Item = (&'a Arc<Partition>, Tally)>) {
        let mut inner = self.lock();
        let lines: Vec<Line> = groups
            .map(|(partition, tally)| {
                let key = Key::of(partition);
                inner.sent.entry(key.clone()).or_default().push(tally.clone());
                Line::Sent { key, tally }
            })
            .collect();
        inner.append(&lines);
    }

    /// A partition is sent anew from `next`.
    pub(crate) fn rewound(&self, partition: &Partition, next: i64) {
        let (mut inner, key) = (self.lock(), Key::of(partition));
        if inner.sent.get(&key).is_some_and(|sent| sent.iter().any(|tally| tally.next > next)) {
            inner.rewind(&key, next);
            inner.append(&[Line::Rewound { key, next }]);
        }
    }

    /// What is known to have been sent of a partition and is not on record.
    pub(crate) fn left(&self, partition: &Partition) -> Vec<Tally> {
        self.lock().sent.get(&Key::of(partition)).cloned().unwrap_or_default()
    }

    /// A lane is about to record `lines`.
    pub(crate) fn settling(&self, lane: LaneId, lines: &[Event]) {
        let mut inner = self.lock();
        if inner.settling.get(&lane).is_some_and(|before| before == lines) {
            return;
        }
        inner.settling.insert(lane, lines.to_vec());
        inner.append(&[Line::Settling { lane: lane.0, lines: lines.to_vec() }]);
    }

    /// The lines of a lane are on record.
    pub(crate) fn settled(&self, lane: LaneId) {
        let mut inner = self.lock();
        if let Some(lines) = inner.settling.remove(&lane) {
            inner.settle(&lines);
            inner.rewrite();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn rewind(&mut self, key: &Key, next: i64) {
        if let Some(sent) = self.sent.get_mut(key) {
            sent.retain(|tally| tally.next <= next);
        }
    }

    /// What the lines say is on record.
    fn settle(&mut self, lines: &[Event]) {
        for line in lines {
            let Event::Delivered(Delivered { at, next, .. }) = line else { continue };
            let key = Key { topic_id: at.topic_id.clone(), partition: at.partition };
            if let Some(sent) = self.sent.get_mut(&key) {
                sent.retain(|tally| tally.next > *next);
                if sent.is_empty() {
                    self.sent.remove(&key);
                }
            }
        }
    }

    fn append(&mut self, lines: &[Line]) {
        let Some(mut file) = self.file.take() else { return };
        match file.write_all(&bytes(lines)) {
            Ok(()) => self.file = Some(file),
            // The next rewriting begins anew.
            Err(error) => self.failed(&error),
        }
    }

    /// Writes the file whole, beside the old one and then in its place.
    fn rewrite(&mut self) {
        let mut lines = Vec::new();
        for (key, sent) in &self.sent {
            lines.extend(sent.iter().map(|tally| Line::Sent { key: key.clone(), tally: tally.clone() }));
        }
        let settling = self.settling.iter();
        lines.extend(settling.map(|(lane, lines)| Line::Settling { lane: lane.0, lines: lines.clone() }));
        self.file = None;
        match replace(&self.path, &bytes(&lines)) {
            Ok(file) => {
                self.file = Some(file);
                self.failing = false;
            }
            Err(error) => self.failed(&error),
        }
    }

    fn failed(&mut self, error: &io::Error) {
        if !std::mem::replace(&mut self.failing, true) {
            tracing::warn!(
                %error, file = %self.path.display(),
                "what is sent cannot be noted beside the audit log: carrying goes on, but should the exporter die now its \
                 audit log lacks what is under way; make room or give the right to write"
            );
        }
    }
}

impl Key {
    fn of(partition: &Partition) -> Self {
        Self { topic_id: partition.topic.id.to_string(), partition: partition.number }
    }
}

fn bytes(lines: &[Line]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(lines.len() * 300);
    for line in lines {
        serde_json::to_writer(&mut bytes, line)
            .expect("plain values turn into JSON and a Vec takes every byte");
        bytes.push(b'\n');
    }
    bytes
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<File> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let mut file = File::create(&beside)?;
    file.write_all(bytes)?;
    std::fs::rename(&beside, path)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::partition::tests::partition;

    fn tally(from: i64, next: i64) -> Tally {
        Tally {
            from,
            next,
            first: Some(from),
            last: None,
            records: 1,
            named: 0,
            plain: 9,
            wire: 5,
            digest: "0".into(),
        }
    }

    fn line(next: i64) -> Event {
        Delivered {
            at: partition(1, "t").place("l", "c"),
            from: 0,
            next,
            first: None,
            last: None,
            records: 1,
            not_visible: 0,
            plain_bytes: 0,
            wire_bytes: 0,
            digest: String::new(),
        }
        .into()
    }

    fn open(dir: &Path) -> (Journal, Vec<Event>) {
        let opened = Journal::open(&dir.join("edge.jsonl"));
        opened.0.begin();
        opened
    }

    fn nexts(journal: &Journal) -> Vec<i64> {
        journal.left(&partition(9, "t")).iter().map(|tally| tally.next).collect()
    }

    #[test]
    fn what_was_sent_is_known_to_the_next_run_until_it_is_on_record() {
        let dir = tempfile::tempdir().unwrap();
        let sender = Arc::new(partition(1, "t"));
        let (journal, _) = open(dir.path());
        journal.sent([(&sender, tally(0, 5)), (&sender, tally(5, 9)), (&sender, tally(9, 12))].into_iter());
        let (journal, pending) = open(dir.path());
        assert!(pending.is_empty());
        assert_eq!(nexts(&journal), [5, 9, 12], "also after the file was rewritten");
        assert_eq!(journal.left(&sender)[1], tally(5, 9));
        journal.rewound(&sender, 9);
        journal.settling(LaneId(0), &[line(5)]);
        journal.settled(LaneId(0));
        let (journal, pending) = open(dir.path());
        assert!(pending.is_empty());
        assert_eq!(nexts(&journal), [9]);
    }

    #[test]
    fn lines_that_were_being_recorded_are_recorded_again_word_for_word() {
        let dir = tempfile::tempdir().unwrap();
        let sender = Arc::new(partition(1, "t"));
        let (journal, _) = open(dir.path());
        journal.sent([(&sender, tally(0, 5)), (&sender, tally(5, 9))].into_iter());
        journal.settling(LaneId(2), &[line(3)]);
        // That attempt failed; meanwhile there was more.
        journal.settling(LaneId(2), &[line(5)]);
        let (journal, pending) = open(dir.path());
        assert_eq!(pending, [line(5)]);
        assert_eq!(nexts(&journal), [9]);
        let (_, pending) = open(dir.path());
        assert!(pending.is_empty(), "once");
    }

    #[test]
    fn a_write_that_was_cut_off_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let (journal, _) = open(dir.path());
        journal.sent([(&Arc::new(partition(1, "t")), tally(0, 5))].into_iter());
        let file = dir.path().join("edge.jsonl.sent");
        let mut text = std::fs::read_to_string(&file).unwrap();
        text.push_str("{\"sent\":{\"topic_id\":\"AAA");
        std::fs::write(&file, text).unwrap();
        assert_eq!(nexts(&open(dir.path()).0), [5]);
    }

    #[test]
    fn a_folder_that_cannot_be_written_does_not_stop_anything() {
        let (journal, _) = Journal::open(Path::new("/proc/no/such/edge.jsonl"));
        journal.begin();
        journal.sent([(&Arc::new(partition(1, "t")), tally(0, 5))].into_iter());
        assert_eq!(nexts(&journal), [5]);
    }
}
