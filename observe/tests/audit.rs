//! The audit log as programs use it: continued after a stop or a crash, shared by threads, and tampered with.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
};

use longhaul_observe::{
    Audit, AuditError,
    audit::{Options, Summary, VerifyError, check, read, verify, wrong_name},
    event::{Connect, Delivered, Event, Place, Stop, Torn},
};

struct Folder {
    dir: tempfile::TempDir,
}

impl Folder {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    /// In a folder that does not exist yet.
    fn log(&self) -> PathBuf {
        self.dir.path().join("audit").join("edge.jsonl")
    }
}

fn open(path: &Path) -> Audit {
    Audit::open(path, Options::default()).unwrap()
}

fn stop(n: u64) -> Stop {
    Stop { reason: format!("number {n}") }
}

fn delivered(partition: i32, first: i64, records: u64) -> Delivered {
    let last = first + i64::try_from(records).unwrap() - 1;
    Delivered {
        at: Place {
            link: "fra-to-aws".into(),
            cluster: "c1".into(),
            topic: "orders".into(),
            topic_id: "AAAAAAAAAAAAAAAAAAAAAA".into(),
            partition,
        },
        from: first,
        next: last + 1,
        first: Some(first),
        last: Some(last),
        records,
        not_visible: 0,
        plain_bytes: records * 100,
        wire_bytes: records * 10,
        digest: "00".repeat(32),
    }
}

/// A log of `count` lines and the lines themselves.
fn log_of(path: &Path, count: u64) -> Vec<String> {
    open(path).record_many((0..count).map(stop)).unwrap();
    fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect()
}

fn rewrite(path: &Path, lines: &[String]) {
    fs::write(path, lines.iter().map(|line| format!("{line}\n")).collect::<String>()).unwrap();
}

fn intact(path: &Path) -> Summary {
    verify(path).unwrap_or_else(|error| panic!("{error}"))
}

fn broken(path: &Path) -> (u64, String) {
    match verify(path) {
        Err(VerifyError::Broken { line, what, .. }) => (line, what),
        other => panic!("expected a broken chain, found {other:?}"),
    }
}

#[test]
fn a_line_has_its_number_the_hash_of_the_line_before_its_time_and_its_event() {
    let folder = Folder::new();
    let path = folder.log();
    let audit = open(&path);
    audit
        .record(Connect {
            link: "fra-to-aws".into(),
            peer: "spiffe://example.org/exporter/fra".into(),
            remote: "192.0.2.7:7443".into(),
            session: Some(4),
            cluster: None,
            instance: None,
        })
        .unwrap();
    audit.record(stop(1)).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    let (first, second) = text.split_once('\n').unwrap();
    let zeros = "0".repeat(64);
    assert!(first.starts_with(&format!("{{\"seq\":0,\"prev\":\"{zeros}\",\"time\":\"2")), "{first}");
    assert!(
        first.contains("Z\",\"event\":\"connect\",\"link\":\"fra-to-aws\",\"peer\":\"spiffe://"),
        "{first}"
    );
    let hash = blake3::hash(first.as_bytes()).to_hex();
    assert!(second.starts_with(&format!("{{\"seq\":1,\"prev\":\"{hash}\",")), "{second}");
    assert_eq!(intact(&path).head, blake3::hash(second.trim_end().as_bytes()).to_hex().to_string());
}

#[test]
fn a_log_is_continued_when_it_is_opened_again() {
    let folder = Folder::new();
    let path = folder.log();
    for n in 0..3 {
        open(&path).record(stop(n)).unwrap();
    }
    let lines: Vec<_> = read(&path).unwrap().map(Result::unwrap).collect();
    assert_eq!(lines.iter().map(|line| line.seq).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!(lines[2].event, Event::from(stop(2)));
    assert_eq!(intact(&path).lines, 3);
}

#[test]
fn the_summary_counts_events_and_adds_up_what_was_delivered() {
    let folder = Folder::new();
    let path = folder.log();
    let audit = open(&path);
    audit.record(stop(0)).unwrap();
    audit.record_many([delivered(1, 10, 5), delivered(0, 0, 3), delivered(1, 20, 2)]).unwrap();
    let summary = intact(&path);
    assert_eq!((summary.lines, summary.events["delivered"], summary.events["stop"]), (4, 3, 1));
    let totals: Vec<_> = summary
        .delivered
        .iter()
        .map(|total| {
            (total.at.partition, total.from, total.next, total.records, total.plain_bytes, total.wire_bytes)
        })
        .collect();
    assert_eq!(totals, [(0, 0, 3, 3, 300, 30), (1, 10, 22, 7, 700, 70)]);
    assert!(summary.first_time <= summary.last_time && summary.first_time.is_some());
}

#[test]
fn every_changed_byte_but_those_of_the_last_line_is_named_with_its_line() {
    let folder = Folder::new();
    let path = folder.log();
    log_of(&path, 4);
    let whole = fs::read(&path).unwrap();
    let mut line = 1;
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x02;
        fs::write(&path, &bytes).unwrap();
        if line < 4 {
            let (named, what) = broken(&path);
            assert_eq!(named, line, "byte {at}: {what}");
        }
        line += u64::from(whole[at] == b'\n');
    }
    fs::write(&path, &whole).unwrap();
    intact(&path);
}

#[test]
fn a_removed_line_is_named() {
    let folder = Folder::new();
    let path = folder.log();
    let mut lines = log_of(&path, 6);
    lines.remove(2);
    rewrite(&path, &lines);
    assert_eq!(broken(&path), (3, "the line before it (seq 2) is missing".into()));
    lines.remove(2);
    rewrite(&path, &lines);
    assert_eq!(broken(&path), (3, "the lines before it (seq 2 to 3) are missing".into()));
}

#[test]
fn a_repeated_line_is_named() {
    let folder = Folder::new();
    let path = folder.log();
    let mut lines = log_of(&path, 4);
    lines.insert(2, lines[1].clone());
    rewrite(&path, &lines);
    assert_eq!(broken(&path), (3, "it repeats the line before it".into()));
    lines.remove(2);
    lines.push(lines[0].clone());
    rewrite(&path, &lines);
    assert_eq!(broken(&path), (5, "it is out of order: seq 0 where 4 belongs".into()));
}

#[test]
fn swapped_lines_are_named() {
    let folder = Folder::new();
    let path = folder.log();
    let mut lines = log_of(&path, 5);
    lines.swap(1, 2);
    rewrite(&path, &lines);
    assert_eq!(broken(&path), (2, "it is out of order: seq 2 where 1 belongs".into()));
}

#[test]
fn a_rewritten_line_with_a_fitting_number_does_not_fit_the_chain() {
    let folder = Folder::new();
    let path = folder.log();
    let mut lines = log_of(&path, 4);
    lines[1] = lines[1].replace("number 1", "number 9");
    rewrite(&path, &lines);
    assert_eq!(broken(&path), (2, "it was changed: the line after it does not fit any more".into()));
}

#[test]
fn a_torn_last_line_is_cut_off_and_put_on_record() {
    let folder = Folder::new();
    let path = folder.log();
    let lines = log_of(&path, 3);
    for torn in ["{\"seq\":3,\"prev\":\"12", "\0\0\0\0\0", "{\"seq\":3\0\0\0\n\0\0\n"] {
        rewrite(&path, &lines);
        let mut bytes = fs::read(&path).unwrap();
        bytes.extend_from_slice(torn.as_bytes());
        fs::write(&path, bytes).unwrap();
        open(&path).record(stop(9)).unwrap();
        let events: Vec<_> = read(&path).unwrap().map(|line| line.unwrap().event).collect();
        assert_eq!(events[3], Event::from(Torn { bytes: torn.len() as u64 }), "{torn:?}");
        assert_eq!(intact(&path).lines, 5);
    }
}

#[test]
fn a_first_line_torn_by_a_crash_begins_the_log_anew() {
    let folder = Folder::new();
    let path = folder.log();
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, "{\"seq\":0,\"pr").unwrap();
    open(&path).record(stop(0)).unwrap();
    let summary = intact(&path);
    assert_eq!((summary.lines, summary.first_seq), (2, 0));
}

#[test]
fn a_log_whose_end_is_not_an_intact_chain_is_not_continued() {
    let folder = Folder::new();
    let path = folder.log();
    let mut lines = log_of(&path, 4);
    lines.swap(1, 2);
    rewrite(&path, &lines);
    let error = Audit::open(&path, Options::default()).err().unwrap();
    assert!(matches!(error, AuditError::Corrupt { .. }), "{error}");
    assert!(error.to_string().contains("longhaul audit verify"), "{error}");
    for other in ["this is another kind of file\n", "precious text without a line's end", "x"] {
        fs::write(&path, other).unwrap();
        assert!(matches!(check(&path), Err(AuditError::Corrupt { .. })), "{other:?}");
        assert!(matches!(Audit::open(&path, Options::default()), Err(AuditError::Corrupt { .. })));
        assert_eq!(fs::read_to_string(&path).unwrap(), other, "it is not touched");
    }
}

#[test]
fn what_cannot_be_the_name_of_a_log_is_said_before_anything_is_opened() {
    let folder = Folder::new();
    for (name, word) in
        [("", "nothing"), (" ", "nothing"), ("a\0b", "NUL"), ("a/", "folder"), ("/", "folder")]
    {
        assert!(wrong_name(Path::new(name)).is_some_and(|why| why.contains(word)), "{name:?}");
    }
    assert_eq!(wrong_name(&folder.log()), None);
    assert!(check(&folder.log()).is_ok(), "a log that is to be made");
}

#[test]
fn a_file_without_a_line_is_no_intact_log() {
    let folder = Folder::new();
    let path = folder.log();
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    for content in ["", "\u{7f}ELF"] {
        fs::write(&path, content).unwrap();
        let error = verify(&path).unwrap_err();
        assert!(matches!(error, VerifyError::Unreadable { .. }), "{error}");
        assert!(error.to_string().contains("holds no line"), "{error}");
    }
}

#[test]
fn only_the_end_of_a_long_log_is_read_when_it_is_opened() {
    let folder = Folder::new();
    let path = folder.log();
    let long = "x".repeat(100_000);
    open(&path).record_many((0..60).map(|n| Stop { reason: format!("{n} {long}") })).unwrap();
    assert!(fs::metadata(&path).unwrap().len() > 5_000_000);
    open(&path).record(stop(60)).unwrap();
    assert_eq!(intact(&path).lines, 61);
}

#[test]
fn a_file_that_is_full_is_put_aside_and_the_chain_goes_on() {
    let folder = Folder::new();
    let path = folder.log();
    let small = Options { rotate_bytes: 1_000 };
    for round in 0..3 {
        let audit = Audit::open(&path, small).unwrap();
        for n in 0..10 {
            audit.record(stop(round * 10 + n)).unwrap();
        }
    }
    let summary = intact(&path);
    assert!(summary.files.len() > 3, "{:?}", summary.files);
    assert_eq!((summary.lines, summary.first_seq), (30, 0));
    assert!(summary.files.iter().all(|file| fs::metadata(file).unwrap().len() <= 1_000));

    // The oldest may be archived; a missing one in the middle breaks the chain.
    fs::remove_file(&summary.files[0]).unwrap();
    assert!(intact(&path).first_seq > 0);
    fs::remove_file(&summary.files[2]).unwrap();
    let (line, what) = broken(&path);
    assert_eq!(line, 1);
    assert!(what.contains("missing"), "{what}");
}

#[test]
fn a_crash_between_putting_aside_and_the_new_file_goes_on_from_the_old_one() {
    let folder = Folder::new();
    let path = folder.log();
    log_of(&path, 3);
    fs::rename(&path, path.with_file_name("edge.1.jsonl")).unwrap();
    open(&path).record(stop(3)).unwrap();
    let summary = intact(&path);
    assert_eq!((summary.lines, summary.files.len()), (4, 2));
}

#[test]
fn a_second_opener_is_refused_while_the_first_lives() {
    let folder = Folder::new();
    let path = folder.log();
    let first = open(&path);
    let error = Audit::open(&path, Options::default()).err().unwrap();
    assert!(matches!(error, AuditError::InUse { .. }), "{error}");
    assert!(error.to_string().contains(&format!("pid {}", std::process::id())), "{error}");
    drop(first);
    open(&path);
}

#[test]
fn concurrent_appends_keep_the_chain() {
    let folder = Folder::new();
    let path = folder.log();
    let audit = Audit::open(&path, Options { rotate_bytes: 4_000 }).unwrap();
    thread::scope(|scope| {
        for worker in 0..8 {
            let audit = audit.clone();
            scope.spawn(move || {
                for n in 0..10 {
                    audit.record_many([stop(worker * 100 + n), stop(worker * 100 + n)]).unwrap();
                }
            });
        }
    });
    let summary = intact(&path);
    assert_eq!(summary.events["stop"], 160);
    // What is recorded together stands together.
    let events: Vec<_> = read(&path).unwrap().map(|line| line.unwrap().event).collect();
    assert!(events.chunks(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn a_log_in_an_impossible_place_is_named() {
    let error = Audit::open(Path::new("/dev/null/audit/edge.jsonl"), Options::default()).err().unwrap();
    assert!(
        error.to_string().starts_with("the audit log /dev/null/audit/edge.jsonl cannot be opened: "),
        "{error}"
    );
}
