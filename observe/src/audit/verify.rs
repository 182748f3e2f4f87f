//! Reading a log back and following its chain.
//!
//! A log is the files that were put aside, oldest first, and the file itself. They are streamed: memory does not grow
//! with the log. The oldest files may be gone (archived elsewhere); [`Summary::first_seq`] tells.

use std::{
    collections::{BTreeMap, VecDeque},
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::{Path, PathBuf},
};

use serde::Serialize;

use super::{
    chain::{Head, Header, Line, MAX_LINE, hash},
    files,
};
use crate::event::{Event, Place};

/// What an intact log holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// The files read, oldest first.
    pub files: Vec<PathBuf>,
    /// Whole lines.
    pub lines: u64,
    /// Number of the first line; above 0 when older files are not there any more.
    pub first_seq: u64,
    /// Time of the first line.
    pub first_time: Option<String>,
    /// Time of the last line.
    pub last_time: Option<String>,
    /// How often each event occurs.
    pub events: BTreeMap<String, u64>,
    /// What was delivered, by source partition.
    pub delivered: Vec<Delivery>,
    /// Bytes after the last whole line: a crash, or a line being written right now.
    pub torn_bytes: u64,
    /// BLAKE3 (hex) of the last line. Keep it elsewhere to see later whether the end was cut off or changed.
    pub head: String,
}

/// The sum of the `delivered` lines of one source partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Delivery {
    /// The source partition.
    #[serde(flatten)]
    pub at: Place,
    /// The first source offset covered.
    pub from: i64,
    /// The next source offset that is not yet delivered.
    pub next: i64,
    /// Records.
    pub records: u64,
    /// Plain bytes.
    pub plain_bytes: u64,
    /// Bytes on the link.
    pub wire_bytes: u64,
    /// `delivered` lines.
    pub lines: u64,
}

/// Why a log is not proven intact.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// It could not be read.
    #[error("{}: cannot read the audit log: {source}", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Its chain is broken.
    #[error("{}:{line}: the chain is broken: {what}", file.display())]
    Broken {
        /// The file.
        file: PathBuf,
        /// The line in it, from 1.
        line: u64,
        /// What is wrong with that line.
        what: String,
    },
}

/// Follows the chain of the log at `path`, files put aside included.
///
/// # Errors
/// When it cannot be read, or at the first line that does not fit.
pub fn verify(path: &Path) -> Result<Summary, VerifyError> {
    let mut lines = RawLines::open(path)?;
    let mut summary = Summary { files: lines.files(), ..Summary::default() };
    let mut delivered = BTreeMap::new();
    let mut before: Option<Link> = None;
    while let Some(line) = lines.next()? {
        let header = line.header().map_err(|what| line.broken(what))?;
        match &before {
            None if header.seq == 0 && header.prev != Head::genesis().prev => {
                return Err(line.broken("it is numbered as the first line but follows another one".into()));
            }
            None => {
                summary.first_seq = header.seq;
                summary.first_time = Some(header.time.clone());
            }
            Some(before) if (before.head.seq, &before.head.prev) != (header.seq, &header.prev) => {
                let next = lines.next()?;
                return Err(blame(before, &line, &header, next.as_ref()));
            }
            Some(_) => {}
        }
        if header.event == "delivered" {
            add_delivered(&mut delivered, &line)?;
        }
        summary.lines += 1;
        summary.last_time = Some(header.time);
        *summary.events.entry(header.event).or_default() += 1;
        let head = Head::after(header.seq, &line.bytes);
        summary.head.clone_from(&head.prev);
        before = Some(Link { file: line.file, line: line.number, is_first: before.is_none(), head });
    }
    summary.torn_bytes = lines.torn_bytes;
    summary.delivered = delivered.into_values().collect();
    if summary.lines == 0 {
        // Every log begins with the line of its first start.
        let source = io::Error::new(io::ErrorKind::InvalidData, "it holds no line of one");
        return Err(VerifyError::Unreadable { file: path.to_owned(), source });
    }
    Ok(summary)
}

/// Reads the log at `path` back, files put aside included, without following its chain. A torn end is left out.
///
/// # Errors
/// When a file cannot be opened; each line can fail too.
pub fn read(path: &Path) -> Result<Lines, VerifyError> {
    Ok(Lines(RawLines::open(path)?))
}

/// See [`read`].
pub struct Lines(RawLines);

impl Iterator for Lines {
    type Item = Result<Line, VerifyError>;

    fn next(&mut self) -> Option<Self::Item> {
        let line = self.0.next().transpose()?;
        Some(line.and_then(|line| line.parsed()))
    }
}

/// An intact line, for the one after it.
struct Link {
    file: PathBuf,
    line: u64,
    is_first: bool,
    head: Head,
}

impl Link {
    fn broken(&self, what: String) -> VerifyError {
        VerifyError::Broken { file: self.file.clone(), line: self.line, what }
    }
}

/// Names what happened where `line` does not follow `before`; the line after it tells the cases apart.
fn blame(before: &Link, line: &RawLine, header: &Header, next: Option<&RawLine>) -> VerifyError {
    let expected = before.head.seq;
    let next_header = next.and_then(|next| next.header().ok());
    let next_follows = next_header.as_ref().is_some_and(|next| next.prev == hash(&line.bytes));
    let next_seq = next_header.as_ref().map(|next| next.seq);
    if header.seq == expected {
        return match next {
            Some(_) if !next_follows => line.broken("it was changed".into()),
            Some(_) => before.broken("it was changed: the line after it does not fit any more".into()),
            None => before.broken("it was changed, or else the last line, which follows it, was".into()),
        };
    }
    if header.seq < expected {
        if hash(&line.bytes) == before.head.prev {
            return line.broken("it repeats the line before it".into());
        }
        // Nothing vouches for the number of the first line but the lines after it.
        if before.is_first && next_follows {
            return before.broken("it was changed: the lines after it do not fit any more".into());
        }
        return line.broken(out_of_order(header.seq, expected));
    }
    match next_seq {
        Some(next) if next == expected => line.broken(out_of_order(header.seq, expected)),
        Some(next) if next == expected + 1 && !next_follows => line.broken("it was changed".into()),
        _ if header.seq == expected + 1 => {
            line.broken(format!("the line before it (seq {expected}) is missing"))
        }
        _ => line.broken(format!("the lines before it (seq {expected} to {}) are missing", header.seq - 1)),
    }
}

fn out_of_order(seq: u64, expected: u64) -> String {
    format!("it is out of order: seq {seq} where {expected} belongs")
}

fn add_delivered(totals: &mut BTreeMap<Place, Delivery>, line: &RawLine) -> Result<(), VerifyError> {
    let Event::Delivered(delivered) = line.parsed()?.event else {
        return Err(line.broken("its event is not what its name says".into()));
    };
    let total = totals.entry(delivered.at.clone()).or_insert_with(|| Delivery {
        at: delivered.at,
        from: delivered.from,
        next: delivered.next,
        records: 0,
        plain_bytes: 0,
        wire_bytes: 0,
        lines: 0,
    });
    // An importer that dies between a line and noting it in progress writes the same line again when it is back.
    if delivered.next > total.next || total.lines == 0 {
        total.from = total.from.min(delivered.from);
        total.next = delivered.next;
        total.records = total.records.saturating_add(delivered.records);
        total.plain_bytes = total.plain_bytes.saturating_add(delivered.plain_bytes);
        total.wire_bytes = total.wire_bytes.saturating_add(delivered.wire_bytes);
    }
    total.lines += 1;
    Ok(())
}

/// A whole line with its place.
struct RawLine {
    file: PathBuf,
    number: u64,
    /// Without the line break.
    bytes: Vec<u8>,
}

impl RawLine {
    fn header(&self) -> Result<Header, String> {
        serde_json::from_slice(&self.bytes).map_err(|error| not_a_line(&error))
    }

    fn parsed(&self) -> Result<Line, VerifyError> {
        serde_json::from_slice(&self.bytes).map_err(|error| self.broken(not_a_line(&error)))
    }

    fn broken(&self, what: String) -> VerifyError {
        VerifyError::Broken { file: self.file.clone(), line: self.number, what }
    }
}

fn not_a_line(error: &serde_json::Error) -> String {
    format!("it was changed: it is not an audit line any more ({error})")
}

/// The whole lines of all files of a log.
struct RawLines {
    waiting: VecDeque<(PathBuf, BufReader<File>)>,
    current: Option<(PathBuf, BufReader<File>)>,
    /// Number of the last line read from the current file.
    number: u64,
    torn_bytes: u64,
}

impl RawLines {
    fn open(path: &Path) -> Result<Self, VerifyError> {
        let unreadable = |file: &Path, source| VerifyError::Unreadable { file: file.to_owned(), source };
        let mut wrong = unreadable(path, io::Error::other("its files change faster than they can be opened"));
        // A log that is being written may be put aside between listing and opening: then look again.
        for _ in 0..ATTEMPTS {
            let aside = files::list_put_aside(path).map_err(|source| unreadable(path, source))?;
            let opened = (aside.iter().map(|(_, file)| file.as_path())).chain([path]).map(|file| {
                let opened = File::open(file).map_err(|source| unreadable(file, source))?;
                Ok((file.to_owned(), BufReader::with_capacity(1 << 16, opened)))
            });
            let opened: Result<VecDeque<_>, VerifyError> = opened.collect();
            let settled = files::list_put_aside(path).map_err(|source| unreadable(path, source))? == aside;
            match opened {
                Ok(waiting) if settled => {
                    return Ok(Self { waiting, current: None, number: 0, torn_bytes: 0 });
                }
                Ok(_) => {}
                Err(error) => wrong = error,
            }
        }
        Err(wrong)
    }

    fn files(&self) -> Vec<PathBuf> {
        self.waiting.iter().map(|(file, _)| file.clone()).collect()
    }

    /// The next whole line of the log, whichever file it is in.
    fn next(&mut self) -> Result<Option<RawLine>, VerifyError> {
        loop {
            if self.current.is_none() {
                self.number = 0;
                self.current = self.waiting.pop_front();
            }
            let Some((file, reader)) = &mut self.current else { return Ok(None) };
            let mut bytes = Vec::new();
            reader
                .take(MAX_LINE as u64 + 1)
                .read_until(b'\n', &mut bytes)
                .map_err(|source| VerifyError::Unreadable { file: file.clone(), source })?;
            if bytes.is_empty() {
                self.current = None;
                continue;
            }
            self.number += 1;
            let (file, number) = (file.clone(), self.number);
            if bytes.pop_if(|last| *last == b'\n').is_some() {
                return Ok(Some(RawLine { file, number, bytes }));
            }
            let line = RawLine { file, number, bytes };
            if line.bytes.len() > MAX_LINE {
                return Err(line.broken(format!("it is longer than {MAX_LINE} bytes")));
            }
            if !self.waiting.is_empty() {
                return Err(line.broken("it was cut: the file does not end with a whole line".into()));
            }
            self.torn_bytes = line.bytes.len() as u64;
            self.current = None;
        }
    }
}

const ATTEMPTS: usize = 10;
