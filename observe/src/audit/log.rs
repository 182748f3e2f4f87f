//! Writing the chain to disk.

use std::{
    fs::{self, File, Metadata},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::{
        ffi::OsStrExt as _,
        fs::{FileExt, MetadataExt},
    },
    path::{Path, PathBuf},
    time::{Instant, SystemTime},
};

use super::{
    AuditError, Options,
    chain::{Head, Header, MAX_LINE, hash},
    files,
};
use crate::event::{AuditResumed, Event, Torn};

/// The audit log as its one writer has it; [`Audit`](super::Audit) shares it.
pub struct AuditLog {
    path: PathBuf,
    options: Options,
    /// Where the chain goes on after what is durable.
    head: Head,
    /// How many bytes of the file are durable; what lies beyond is the rest of a failed write.
    durable: u64,
    /// `None` while the file has to be opened and checked again.
    file: Option<File>,
    outage: Option<Outage>,
    medium: Box<dyn Medium>,
    _lock: File,
}

/// A time in which the log could not be written.
struct Outage {
    since: Instant,
    failures: u64,
    cause: String,
}

/// The two steps at which a disk fails late. Tests put a failing one in.
trait Medium: Send {
    fn write(&mut self, file: &mut File, bytes: &[u8]) -> io::Result<()>;
    fn sync(&mut self, file: &File) -> io::Result<()>;
}

struct Disk;

impl Medium for Disk {
    fn write(&mut self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        file.write_all(bytes)
    }

    fn sync(&mut self, file: &File) -> io::Result<()> {
        file.sync_data()
    }
}

impl AuditLog {
    /// See [`Audit::open`](super::Audit::open).
    ///
    /// # Errors
    /// When it cannot be opened or written, is in use, or does not end in an intact chain.
    pub fn open(path: &Path, options: Options) -> Result<Self, AuditError> {
        Self::open_on(path, options, Box::new(Disk))
    }

    fn open_on(path: &Path, options: Options, medium: Box<dyn Medium>) -> Result<Self, AuditError> {
        let unopenable = |source| AuditError::Unopenable { file: path.to_owned(), source };
        fs::create_dir_all(files::folder(path)).map_err(unopenable)?;
        let lock = files::lock(path)?;
        let (file, length) = open_file(path).map_err(unopenable)?;
        let tail = read_tail(&file, length).map_err(|wrong| wrong.in_file(path))?;
        let head = match tail.head {
            Some(head) => head,
            None => head_of_put_aside(path)?,
        };
        let mut log = Self {
            path: path.to_owned(),
            options,
            head,
            durable: tail.keep,
            file: Some(file),
            outage: None,
            medium,
            _lock: lock,
        };
        let torn = length - tail.keep;
        if torn > 0 {
            log.file = None;
            log.reopen().map_err(unopenable)?;
            log.append(&[Torn { bytes: torn }.into()])?;
        }
        Ok(log)
    }

    /// Adds `events` in their order; durable when this returns `Ok`. An unhealthy log is resumed first.
    ///
    /// # Errors
    /// See [`Audit::record`](super::Audit::record).
    pub fn append(&mut self, events: &[Event]) -> Result<(), AuditError> {
        if events.is_empty() {
            return Ok(());
        }
        self.resume()?;
        self.write(events)
    }

    /// Opens and checks the file again after a failure, and records how long the log was out.
    ///
    /// # Errors
    /// While it still cannot be written.
    pub fn resume(&mut self) -> Result<(), AuditError> {
        if self.file.is_none() {
            self.reopen().map_err(|source| self.failed(source))?;
        }
        if self.outage.is_some() {
            self.check_room().map_err(|source| self.failed(source))?;
        }
        let Some(outage) = &self.outage else { return Ok(()) };
        let resumed = AuditResumed {
            out_ms: u64::try_from(outage.since.elapsed().as_millis()).unwrap_or(u64::MAX),
            failures: outage.failures,
            cause: outage.cause.clone(),
        };
        self.write(&[resumed.into()])?;
        self.outage = None;
        Ok(())
    }

    /// Whether the last attempt to write succeeded.
    pub fn is_healthy(&self) -> bool {
        self.outage.is_none()
    }

    /// The file that lines are written to.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn write(&mut self, events: &[Event]) -> Result<(), AuditError> {
        let mut head = self.head.clone();
        let mut bytes = Vec::with_capacity(events.len() * 320);
        for event in events {
            let length = head.append(event, SystemTime::now(), &mut bytes);
            if length > MAX_LINE {
                return Err(AuditError::TooLong { bytes: length, limit: MAX_LINE });
            }
        }
        // Whatever happens in between, a file that is not put back is opened and checked again.
        let file = self.file.take();
        let file = self.put(file, &bytes).map_err(|source| self.failed(source))?;
        self.file = Some(file);
        self.head = head;
        self.durable += bytes.len() as u64;
        Ok(())
    }

    /// Writes and syncs `bytes`, into a new file when this one is full.
    fn put(&mut self, file: Option<File>, bytes: &[u8]) -> io::Result<File> {
        let mut file = file.ok_or_else(|| io::Error::other("the file is not open"))?;
        self.check_unmoved(&file)?;
        if self.durable > 0 && self.durable + bytes.len() as u64 > self.options.rotate_bytes {
            file = self.rotate()?;
        }
        self.medium.write(&mut file, bytes)?;
        self.medium.sync(&file)?;
        Ok(file)
    }

    /// An outage is over when there is room for a while: the short line that says so may fit into the last page of
    /// a disk that is still full, and governed actions would go on until the next line does not.
    fn check_room(&mut self) -> io::Result<()> {
        let mut file = self.file.take().ok_or_else(|| io::Error::other("the file is not open"))?;
        self.medium.write(&mut file, &[0; ROOM])?;
        file.set_len(self.durable)?;
        file.seek(SeekFrom::End(0))?;
        self.file = Some(file);
        Ok(())
    }

    /// A file that was moved or replaced would swallow lines that nobody finds again.
    fn check_unmoved(&self, file: &File) -> io::Result<()> {
        let same = |ours: &Metadata, there: &Metadata| (ours.dev(), ours.ino()) == (there.dev(), there.ino());
        let there = fs::metadata(&self.path)?;
        if !same(&file.metadata()?, &there) {
            return Err(io::Error::other("the file was replaced by another one"));
        }
        if there.len() != self.durable {
            return Err(io::Error::other(format!(
                "the file has {} bytes where {} were written",
                there.len(),
                self.durable
            )));
        }
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<File> {
        let next = files::list_put_aside(&self.path)?.last().map_or(1, |(number, _)| number + 1);
        fs::rename(&self.path, files::put_aside(&self.path, next))?;
        self.durable = 0;
        let (file, _) = open_file(&self.path)?;
        Ok(file)
    }

    /// Opens the file, checks that it still ends as it was left, and cuts off what a failed write added.
    fn reopen(&mut self) -> io::Result<()> {
        let (mut file, length) = open_file(&self.path)?;
        if length == 0 {
            // The old file was moved away: the chain goes on in a new one, as after a rotation.
            self.durable = 0;
        } else if length < self.durable {
            return Err(io::Error::other(format!("it shrank from {} to {length} bytes", self.durable)));
        } else if !ends_with(&file, self.durable, &self.head)? {
            return Err(io::Error::other("its last line is not the one that was written"));
        }
        file.set_len(self.durable)?;
        file.seek(SeekFrom::End(0))?;
        self.medium.sync(&file)?;
        self.file = Some(file);
        Ok(())
    }

    fn failed(&mut self, source: io::Error) -> AuditError {
        let first = || Outage { since: Instant::now(), failures: 0, cause: source.to_string() };
        self.outage.get_or_insert_with(first).failures += 1;
        AuditError::Unwritable { file: self.path.clone(), source }
    }
}

/// Opens or creates the file for reading and for writing at its end.
fn open_file(path: &Path) -> io::Result<(File, u64)> {
    let new = !path.exists();
    let mut file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
    if new {
        files::sync_folder(path)?;
    }
    let length = file.seek(SeekFrom::End(0))?;
    Ok((file, length))
}

/// How a file ends.
struct Tail {
    /// Where its chain goes on; `None` when it has no whole line.
    head: Option<Head>,
    /// Length of its whole lines.
    keep: u64,
}

/// Why a file's end cannot be used.
enum WrongTail {
    Unreadable(io::Error),
    Corrupt(String),
}

impl WrongTail {
    fn in_file(self, path: &Path) -> AuditError {
        let file = path.to_owned();
        match self {
            Self::Unreadable(source) => AuditError::Unopenable { file, source },
            Self::Corrupt(what) => AuditError::Corrupt { file, what },
        }
    }
}

/// Checks the chain over the end of the file and finds where it stops: at the last line break, or before a line with
/// a zero byte. Zeros are what a power cut leaves of pages that were never written; JSON has none.
fn read_tail(file: &File, length: u64) -> Result<Tail, WrongTail> {
    let start = length.saturating_sub(TAIL_WINDOW);
    let mut bytes = Vec::new();
    let mut reader = file;
    reader
        .seek(SeekFrom::Start(start))
        .and_then(|_| reader.take(TAIL_WINDOW).read_to_end(&mut bytes))
        .and_then(|_| reader.seek(SeekFrom::End(0)))
        .map_err(WrongTail::Unreadable)?;
    let written = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let end = bytes[..written].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    // The window may begin within a line.
    let begin =
        if start == 0 { 0 } else { bytes.iter().position(|byte| *byte == b'\n').map_or(end, |at| at + 1) };
    let mut head: Option<Head> = None;
    for line in bytes[begin.min(end)..end].split_inclusive(|byte| *byte == b'\n') {
        let line = &line[..line.len() - 1];
        let header: Header = serde_json::from_slice(line).map_err(|error| {
            WrongTail::Corrupt(format!("a line near its end is not an audit line ({error})"))
        })?;
        if head.as_ref().is_some_and(|head| (head.seq, &head.prev) != (header.seq, &header.prev)) {
            return Err(WrongTail::Corrupt(format!("the chain is broken at seq {}", header.seq)));
        }
        head = Some(Head::after(header.seq, line));
    }
    if head.is_none() && start > 0 {
        return Err(WrongTail::Corrupt(format!("it has no line within its last {TAIL_WINDOW} bytes")));
    }
    if end == 0 && !may_begin_a_line(&bytes) {
        return Err(WrongTail::Corrupt("it is a file of another kind".into()));
    }
    Ok(Tail { head, keep: start + end as u64 })
}

/// Whether a first line that was cut off can have left this: its beginning, or zeros in place of it.
fn may_begin_a_line(bytes: &[u8]) -> bool {
    bytes.first() == Some(&0) || bytes.iter().zip(FIRST_KEY).all(|(found, wanted)| found == wanted)
}

/// Looks at the log at `path` as opening it would, and touches nothing.
///
/// # Errors
/// When it cannot be read, or does not end in an intact chain.
pub fn check(path: &Path) -> Result<(), AuditError> {
    let unopenable = |source| AuditError::Unopenable { file: path.to_owned(), source };
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        file => file.map_err(unopenable)?,
    };
    let length = file.metadata().map_err(unopenable)?.len();
    read_tail(&file, length).map(drop).map_err(|wrong| wrong.in_file(path))
}

/// Why a log cannot have this name, if it cannot.
pub fn wrong_name(path: &Path) -> Option<&'static str> {
    let name = path.as_os_str().as_bytes();
    if name.trim_ascii().is_empty() {
        return Some("expected the name of a file, found nothing");
    }
    if name.contains(&0) {
        return Some("no file's name holds a NUL");
    }
    (name.ends_with(b"/") || path.is_dir()).then_some("expected the name of a file, found a folder's")
}

/// Where the chain goes on when the log itself has no line: after the youngest file that was put aside.
fn head_of_put_aside(path: &Path) -> Result<Head, AuditError> {
    let unopenable = |file: &Path, source| AuditError::Unopenable { file: file.to_owned(), source };
    let aside = files::list_put_aside(path).map_err(|source| unopenable(path, source))?;
    let Some((_, youngest)) = aside.last() else { return Ok(Head::genesis()) };
    let file = File::open(youngest).map_err(|source| unopenable(youngest, source))?;
    let length = file.metadata().map_err(|source| unopenable(youngest, source))?.len();
    let tail = read_tail(&file, length).map_err(|wrong| wrong.in_file(youngest))?;
    tail.head.filter(|_| tail.keep == length).ok_or_else(|| AuditError::Corrupt {
        file: youngest.clone(),
        what: "it does not end with a whole line".into(),
    })
}

/// Whether the first `length` bytes of the file end with the line that `head` follows.
fn ends_with(file: &File, length: u64, head: &Head) -> io::Result<bool> {
    if length == 0 {
        return Ok(true);
    }
    let start = length.saturating_sub(MAX_LINE as u64 + 2);
    let mut bytes = vec![0; usize::try_from(length - start).expect("a window fits in memory")];
    file.read_exact_at(&mut bytes, start)?;
    let Some(text) = bytes.strip_suffix(b"\n") else { return Ok(false) };
    let line = text.rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
    Ok(hash(line) == head.prev)
}

/// How much of the end is checked when a log is opened; at least one whole line of any length.
const TAIL_WINDOW: u64 = 2 << 20;
const _: () = assert!(TAIL_WINDOW >= 2 * MAX_LINE as u64);

/// How every line begins.
const FIRST_KEY: &[u8] = b"{\"seq\":";

/// Bytes that must fit before an outage counts as over.
const ROOM: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::{
        audit::{Audit, read, verify},
        event::Stop,
    };

    /// A disk that takes only so many more bytes, and whose sync can fail.
    #[derive(Clone)]
    struct Failing(Arc<Mutex<Faults>>);

    struct Faults {
        room: usize,
        sync_fails: bool,
    }

    impl Failing {
        fn healthy() -> Self {
            Self(Arc::new(Mutex::new(Faults { room: usize::MAX, sync_fails: false })))
        }

        fn set(&self, room: usize, sync_fails: bool) {
            *self.0.lock().unwrap() = Faults { room, sync_fails };
        }
    }

    impl Medium for Failing {
        fn write(&mut self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
            let mut faults = self.0.lock().unwrap();
            let fits = bytes.len().min(faults.room);
            faults.room -= fits;
            file.write_all(&bytes[..fits])?;
            if fits < bytes.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
        }

        fn sync(&mut self, file: &File) -> io::Result<()> {
            if self.0.lock().unwrap().sync_fails {
                Err(io::Error::from_raw_os_error(5))
            } else {
                file.sync_data()
            }
        }
    }

    fn stop(n: usize) -> Stop {
        Stop { reason: format!("number {n}") }
    }

    fn open_failing(path: &Path, rotate_bytes: u64) -> (Audit, Failing) {
        let disk = Failing::healthy();
        let log = AuditLog::open_on(path, Options { rotate_bytes }, Box::new(disk.clone())).unwrap();
        (Audit::from(log), disk)
    }

    fn events(path: &Path) -> Vec<Event> {
        read(path).unwrap().map(|line| line.unwrap().event).collect()
    }

    #[test]
    fn a_full_disk_stops_recording_and_a_probe_brings_it_back_with_the_chain_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("edge.jsonl");
        let (audit, disk) = open_failing(&path, u64::MAX);
        audit.record(stop(0)).unwrap();

        disk.set(40, false);
        let error = audit.record_many([stop(1), stop(2)]).unwrap_err().to_string();
        assert!(
            error.contains("edge.jsonl cannot be written: ") && error.contains("governed actions wait"),
            "{error}"
        );
        assert!(!audit.healthy());
        let partly = fs::metadata(&path).unwrap().len();
        assert_eq!(verify(&path).unwrap().torn_bytes, 40, "{partly} bytes");
        audit.probe().unwrap_err();
        audit.record(stop(3)).unwrap_err();
        assert!(!audit.healthy());

        disk.set(usize::MAX, false);
        audit.probe().unwrap();
        assert!(audit.healthy());
        audit.record(stop(4)).unwrap();
        let found = events(&path);
        let Event::AuditResumed(resumed) = &found[1] else { panic!("{found:?}") };
        assert_eq!(resumed.failures, 3);
        assert!(resumed.cause.contains("space"), "{}", resumed.cause);
        assert_eq!([&found[0], &found[2]], [&Event::from(stop(0)), &Event::from(stop(4))]);
        assert_eq!(verify(&path).unwrap().lines, 3);
    }

    #[test]
    fn a_failed_sync_counts_as_not_recorded_and_the_next_record_resumes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("edge.jsonl");
        let (audit, disk) = open_failing(&path, u64::MAX);
        disk.set(usize::MAX, true);
        audit.record(stop(0)).unwrap_err();
        assert!(!audit.healthy());
        disk.set(usize::MAX, false);
        audit.record(stop(1)).unwrap();
        assert!(audit.healthy());
        let found = events(&path);
        assert!(matches!(found[0], Event::AuditResumed(_)), "{found:?}");
        assert_eq!(found[1..], [stop(1).into()]);
        verify(&path).unwrap();
    }

    #[test]
    fn a_disk_that_fills_up_just_after_a_file_was_put_aside_loses_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("edge.jsonl");
        let (audit, disk) = open_failing(&path, 300);
        audit.record(stop(0)).unwrap();
        disk.set(10, false);
        audit.record(stop(1)).unwrap_err();
        disk.set(usize::MAX, false);
        audit.record(stop(1)).unwrap();
        let summary = verify(&path).unwrap();
        assert_eq!((summary.lines, summary.events["stop"]), (3, 2), "{summary:?}");
        assert!(summary.files.len() > 1);
        drop(audit);
        Audit::open(&path, Options::default()).unwrap().record(stop(2)).unwrap();
        assert_eq!(verify(&path).unwrap().lines, 4);
    }

    #[test]
    fn a_file_moved_away_is_noticed_and_the_chain_goes_on_in_a_new_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("edge.jsonl");
        let (audit, _) = open_failing(&path, u64::MAX);
        audit.record(stop(0)).unwrap();
        fs::rename(&path, dir.path().join("edge.7.jsonl")).unwrap();
        audit.record(stop(1)).unwrap_err();
        assert!(!audit.healthy());
        audit.record(stop(2)).unwrap();
        assert!(audit.healthy());
        let summary = verify(&path).unwrap();
        assert_eq!((summary.lines, summary.first_seq, summary.files.len()), (3, 0, 2));
    }

    #[test]
    fn a_file_that_somebody_shortened_stays_unhealthy_until_it_is_put_right() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("edge.jsonl");
        let (audit, _) = open_failing(&path, u64::MAX);
        audit.record_many([stop(0), stop(1)]).unwrap();
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        audit.record(stop(2)).unwrap_err();
        let error = audit.probe().unwrap_err().to_string();
        assert!(error.contains("it shrank"), "{error}");
        fs::write(&path, [&whole[..whole.len() - 3], b"x}\n"].concat()).unwrap();
        assert!(audit.probe().unwrap_err().to_string().contains("its last line"));
        fs::write(&path, &whole).unwrap();
        audit.probe().unwrap();
        assert_eq!(verify(&path).unwrap().lines, 3);
    }

    #[test]
    fn an_event_too_long_for_a_line_is_refused_and_the_log_stays_healthy() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("edge.jsonl");
        let (audit, _) = open_failing(&path, u64::MAX);
        let long = Stop { reason: "x".repeat(MAX_LINE) };
        assert!(matches!(audit.record(long), Err(AuditError::TooLong { .. })));
        assert!(audit.healthy());
        audit.record(stop(0)).unwrap();
        assert_eq!(verify(&path).unwrap().lines, 1);
    }
}
