//! Records from files: real data to benchmark with, or an operator's own.
//!
//! | name ends with | records |
//! |---|---|
//! | `.kds.zst` | partition, timestamp, key and value in binary, zstd-compressed (below) |
//! | `.jsonl` | one a line, without a key; blank lines are none |
//! | anything else | one a line, without a key; a blank line is an empty value |
//!
//! `.kds` is little endian, one record after another: u32 partition, i64 timestamp in milliseconds, u32 key length, u32
//! value length, key, value. It has neither null nor headers.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use crate::record::Record;

/// Files are packed with `--long=25`.
const WINDOW_LOG_MAX: u32 = 27;
/// Above every record that a broker would take.
const MAX_LENGTH: u32 = 64 << 20;

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot open {}", path.display())]
    Open { path: PathBuf, source: io::Error },
    #[error("cannot read record {record} of {}", path.display())]
    Read { path: PathBuf, record: u64, source: io::Error },
    #[error("record {record} of {} claims a length of {length} bytes: not a .kds file", path.display())]
    Length { path: PathBuf, record: u64, length: u32 },
}

/// The records of a file, in its order.
pub struct TopicFile {
    path: PathBuf,
    reader: Box<dyn BufRead + Send>,
    format: Format,
    records: u64,
    first_timestamp: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Kds,
    JsonLines,
    Lines,
}

impl TopicFile {
    /// Opens a file; its name tells the format. Lines get timestamps a millisecond apart, from `first_timestamp` on,
    /// and partitions in turns.
    pub fn open(path: &Path, first_timestamp: i64) -> Result<Self, Error> {
        let fail = |source| Error::Open { path: path.to_owned(), source };
        let file = File::open(path).map_err(fail)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let (format, reader): (Format, Box<dyn BufRead + Send>) = if name.ends_with(".kds.zst") {
            let mut decoder = zstd::Decoder::new(file).map_err(fail)?;
            decoder.window_log_max(WINDOW_LOG_MAX).map_err(fail)?;
            (Format::Kds, Box::new(BufReader::with_capacity(1 << 18, decoder)))
        } else if name.ends_with(".jsonl") {
            (Format::JsonLines, Box::new(BufReader::new(file)))
        } else {
            (Format::Lines, Box::new(BufReader::new(file)))
        };
        Ok(Self { path: path.to_owned(), reader, format, records: 0, first_timestamp })
    }

    /// What a topic of this file's records may be called: the file's name, up to its first dot.
    pub fn topic(&self) -> String {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        name.split('.').next().unwrap_or_default().to_owned()
    }

    fn read(&mut self) -> Result<Option<Record>, Error> {
        let record = match self.format {
            Format::Kds => self.binary(),
            Format::JsonLines | Format::Lines => self.line(),
        }?;
        self.records += u64::from(record.is_some());
        Ok(record)
    }

    fn line(&mut self) -> Result<Option<Record>, Error> {
        let mut line = Vec::new();
        loop {
            line.clear();
            if self.reader.read_until(b'\n', &mut line).map_err(|error| self.failed(error))? == 0 {
                return Ok(None);
            }
            for end in [b'\n', b'\r'] {
                if line.last() == Some(&end) {
                    line.pop();
                }
            }
            if self.format == Format::Lines || !line.trim_ascii().is_empty() {
                break;
            }
        }
        let number = i64::try_from(self.records).expect("a file has fewer than 2^63 lines");
        Ok(Some(Record {
            partition: i32::try_from(number % i64::from(i32::MAX)).expect("below i32::MAX"),
            timestamp: self.first_timestamp + number,
            value: Some(line),
            ..Record::default()
        }))
    }

    fn binary(&mut self) -> Result<Option<Record>, Error> {
        let at_end = self.reader.fill_buf().map(<[u8]>::is_empty);
        if at_end.map_err(|error| self.failed(error))? {
            return Ok(None);
        }
        let mut header = [0; 20];
        self.fill(&mut header)?;
        let word = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("4 bytes"));
        let timestamp = i64::from_le_bytes(header[4..12].try_into().expect("8 bytes"));
        let (key, value) = (self.part(word(12))?, self.part(word(16))?);
        let partition = i32::try_from(word(0) & 0x7fff_ffff).expect("31 bits");
        Ok(Some(Record { partition, timestamp, key: Some(key), value: Some(value), headers: Vec::new() }))
    }

    fn part(&mut self, length: u32) -> Result<Vec<u8>, Error> {
        if length > MAX_LENGTH {
            return Err(Error::Length { path: self.path.clone(), record: self.records, length });
        }
        let mut part = vec![0; usize::try_from(length).expect("usize has 32 bits or more")];
        self.fill(&mut part)?;
        Ok(part)
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), Error> {
        self.reader.read_exact(bytes).map_err(|error| self.failed(error))
    }

    fn failed(&self, source: io::Error) -> Error {
        Error::Read { path: self.path.clone(), record: self.records, source }
    }
}

impl Iterator for TopicFile {
    type Item = Result<Record, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read().transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, bytes: &[u8]) -> Result<Vec<Record>, Error> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        TopicFile::open(&path, 1000).unwrap().collect()
    }

    fn values(records: &[Record]) -> Vec<&str> {
        records.iter().map(|it| std::str::from_utf8(it.value.as_ref().unwrap()).unwrap()).collect()
    }

    #[test]
    fn a_line_is_a_record_with_or_without_an_end() {
        let records = read("access.log", b"one\r\n\ntwo").unwrap();
        assert_eq!(values(&records), ["one", "", "two"]);
        assert_eq!(
            records.iter().map(|it| (it.partition, it.timestamp)).collect::<Vec<_>>(),
            [(0, 1000), (1, 1001), (2, 1002)]
        );
        assert!(records.iter().all(|it| it.key.is_none()));
    }

    #[test]
    fn blank_lines_of_json_are_no_records() {
        let records = read("events.jsonl", b"{\"a\":1}\n\n  \n{\"a\":2}\n").unwrap();
        assert_eq!(values(&records), ["{\"a\":1}", "{\"a\":2}"]);
    }

    fn kds() -> Vec<u8> {
        let mut bytes = Vec::new();
        for (partition, timestamp, key, value) in [(3_u32, 5_i64, "k", "value"), (7, -1, "", "")] {
            bytes.extend(partition.to_le_bytes());
            bytes.extend(timestamp.to_le_bytes());
            bytes.extend(u32::try_from(key.len()).unwrap().to_le_bytes());
            bytes.extend(u32::try_from(value.len()).unwrap().to_le_bytes());
            bytes.extend(key.as_bytes());
            bytes.extend(value.as_bytes());
        }
        bytes
    }

    #[test]
    fn a_packed_topic_is_read_as_it_was_written() {
        let packed = zstd::encode_all(&kds()[..], 3).unwrap();
        let records = read("cdc.kds.zst", &packed).unwrap();
        let expected = |partition, timestamp, key: &str, value: &str| Record {
            partition,
            timestamp,
            key: Some(key.into()),
            value: Some(value.into()),
            headers: Vec::new(),
        };
        assert_eq!(records, [expected(3, 5, "k", "value"), expected(7, -1, "", "")]);
    }

    #[test]
    fn a_torn_or_foreign_file_is_an_error_that_names_the_record() {
        let torn = zstd::encode_all(&kds()[..30], 3).unwrap();
        assert!(read("cdc.kds.zst", &torn).unwrap_err().to_string().starts_with("cannot read record 1 of"));
        let foreign = zstd::encode_all(&[0xff_u8; 100][..], 3).unwrap();
        assert!(read("cdc.kds.zst", &foreign).unwrap_err().to_string().contains("4294967295 bytes"));
        assert!(read("cdc.kds.zst", b"not zstd at all").is_err());
    }
}
