//! What is carried: three kinds of made-up records, or the user's files.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use longhaul_lab::generator::{access_log, changes, metrics, now_ms};
use longhaul_lab::record::Record;
use longhaul_lab::topicfile::TopicFile;

/// Records over all topics, without files and without `--records`.
const DEFAULT_RECORDS: u64 = 150_000;
const SEED: u64 = 20;
const PARTITIONS: i32 = 4;
/// Bytes of a record: Kafka's default `max.message.bytes` (1,048,588), less what a batch needs around it.
const MAX_RECORD: u64 = 1_048_000;
/// Kafka's own limit is 249.
const MAX_NAME: usize = 200;

/// A topic on premise and what will be in it.
#[derive(Debug, Clone)]
pub(crate) struct Topic {
    pub(crate) name: String,
    /// What the records are, in words.
    pub(crate) what: String,
    pub(crate) partitions: i32,
    pub(crate) records: u64,
    data: Data,
}

#[derive(Debug, Clone)]
enum Data {
    Changes,
    AccessLog,
    Metrics,
    File(PathBuf),
}

impl Topic {
    /// A topic for each file, or three of made-up records. Files are read through once: what cannot be read is told
    /// before anything is started.
    pub(crate) fn of(files: &[PathBuf], records: Option<u64>) -> Result<Vec<Self>> {
        if files.is_empty() {
            return Ok(made_up(records.unwrap_or(DEFAULT_RECORDS)));
        }
        let mut names = BTreeSet::new();
        let mut topics = Vec::new();
        for (index, path) in files.iter().enumerate() {
            let most = records.map_or(u64::MAX, |records| share(records, files.len(), index));
            let in_file = count(path, most)?;
            ensure!(in_file > 0, "{} holds no records", path.display());
            topics.push(Self {
                name: free_name(path, &mut names),
                what: path.display().to_string(),
                partitions: PARTITIONS,
                records: in_file.min(most),
                data: Data::File(path.clone()),
            });
        }
        topics.retain(|topic| topic.records > 0);
        Ok(topics)
    }

    /// Its records, in order. Their timestamps are set when they are produced.
    pub(crate) fn records(&self) -> Result<Box<dyn Iterator<Item = Record> + Send>> {
        let limit = usize::try_from(self.records).unwrap_or(usize::MAX);
        Ok(match &self.data {
            Data::Changes => Box::new(changes(SEED, now_ms()).take(limit)),
            Data::AccessLog => Box::new(access_log(SEED, now_ms()).take(limit)),
            Data::Metrics => Box::new(metrics(SEED, now_ms()).take(limit)),
            // Read to its end before: an error now is a file that changed meanwhile, and shows as records that miss.
            Data::File(path) => Box::new(TopicFile::open(path, now_ms())?.map_while(Result::ok).take(limit)),
        })
    }
}

fn made_up(records: u64) -> Vec<Topic> {
    let kinds = [
        ("shop.orders", "changes of database rows, JSON as Debezium writes it", Data::Changes),
        ("web.access", "lines of a web server's log", Data::AccessLog),
        ("host.metrics", "small samples of 200 time series, JSON", Data::Metrics),
    ];
    let count = kinds.len();
    let topics = kinds.into_iter().enumerate().map(|(index, (name, what, data))| Topic {
        name: name.to_owned(),
        what: what.to_owned(),
        partitions: PARTITIONS,
        records: share(records, count, index),
        data,
    });
    topics.filter(|topic| topic.records > 0).collect()
}

/// The part at `index` when `total` is cut into `parts` as equal as can be.
fn share(total: u64, parts: usize, index: usize) -> u64 {
    let (parts, index) = (parts as u64, index as u64);
    total / parts + u64::from(index < total % parts)
}

/// Records in a file, up to `most`; each must be one that a topic takes.
fn count(path: &Path, most: u64) -> Result<u64> {
    // Looked at twice: a pipe would be empty the second time.
    let is_file =
        std::fs::metadata(path).with_context(|| format!("cannot open {}", path.display()))?.is_file();
    ensure!(is_file, "{} is no regular file: write it to one first", path.display());
    let mut count = 0;
    // One at least is looked at: whether the file has any does not depend on how many are wanted.
    for record in TopicFile::open(path, 0)?.take(usize::try_from(most.max(1)).unwrap_or(usize::MAX)) {
        let bytes = record?.payload_bytes();
        count += 1;
        ensure!(
            bytes <= MAX_RECORD,
            "{}: record {count} has {bytes} bytes; the demo's topics take up to {MAX_RECORD}, Kafka's default",
            path.display()
        );
    }
    Ok(count)
}

/// The file's name without its ending, as far as Kafka takes it; with a number where it is taken.
fn free_name(path: &Path, taken: &mut BTreeSet<String>) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let stem = [".kds.zst", ".jsonl", ".txt", ".log", ".csv"]
        .iter()
        .find_map(|ending| name.strip_suffix(ending))
        .unwrap_or(&name);
    let fits = |it: char| if it.is_ascii_alphanumeric() || "._-".contains(it) { it } else { '-' };
    let mut base: String = stem.chars().map(fits).take(MAX_NAME).collect();
    // Names with `__` in front are never carried, `.` and `..` are none.
    if base.starts_with("__") || base.chars().all(|it| it == '.') {
        base = format!("file-{base}");
    }
    let numbered = (2..).map(|number| format!("{base}-{number}"));
    let name = std::iter::once(base.clone()).chain(numbered).find(|name| !taken.contains(name));
    let name = name.expect("numbers do not end");
    taken.insert(name.clone());
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_shared_out_without_losing_one() {
        let topics = Topic::of(&[], Some(10)).unwrap();
        assert_eq!(topics.iter().map(|topic| topic.records).collect::<Vec<_>>(), [4, 3, 3]);
        assert_eq!(topics[0].records().unwrap().count(), 4);
        assert_eq!(Topic::of(&[], Some(1)).unwrap().len(), 1);
    }

    #[test]
    fn names_of_files_become_names_that_kafka_takes_and_the_link_carries() {
        let mut taken = BTreeSet::new();
        let mut name = |path: &str| free_name(Path::new(path), &mut taken);
        assert_eq!(name("/data/cdc.kds.zst"), "cdc");
        assert_eq!(name("other/cdc.jsonl"), "cdc-2");
        assert_eq!(name("my file (1).csv"), "my-file--1-");
        assert_eq!(name("__secret.txt"), "file-__secret");
    }

    #[test]
    fn a_file_that_cannot_be_carried_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let empty = folder.path().join("empty.jsonl");
        std::fs::write(&empty, "\n").unwrap();
        for path in [empty, folder.path().join("missing.txt"), folder.path().to_owned()] {
            let error = format!("{:#}", Topic::of(std::slice::from_ref(&path), None).unwrap_err());
            assert!(error.contains(&path.display().to_string()), "{error}");
        }
    }

    #[test]
    fn a_record_that_no_topic_takes_is_named_before_anything_is_started() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("large.txt");
        std::fs::write(&path, format!("small\n{}\n", "x".repeat(1_048_001))).unwrap();
        let error = Topic::of(std::slice::from_ref(&path), None).unwrap_err().to_string();
        assert!(error.contains("large.txt: record 2 has 1048001 bytes"), "{error}");
        assert_eq!(Topic::of(&[path], Some(1)).unwrap()[0].records, 1, "it is not carried");
    }

    #[test]
    fn a_file_gives_its_records_up_to_the_limit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lines.txt");
        std::fs::write(&path, "a\nb\nc\n").unwrap();
        let all = Topic::of(std::slice::from_ref(&path), None).unwrap();
        assert_eq!((all[0].records, all[0].records().unwrap().count()), (3, 3));
        let some = Topic::of(std::slice::from_ref(&path), Some(2)).unwrap();
        assert_eq!((some[0].records, some[0].records().unwrap().count()), (2, 2));
    }
}
