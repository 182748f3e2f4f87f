//! The files of a log: the one being written, those put aside, and the lock.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::AuditError;

/// The path that `path` gets when it is put aside as number `n`: `edge.jsonl` -> `edge.3.jsonl`.
pub(super) fn put_aside(path: &Path, n: u32) -> PathBuf {
    let (stem, extension) = name_parts(path);
    path.with_file_name(format!("{stem}.{n}{extension}"))
}

/// The files of `path` that were put aside, oldest first, with their numbers.
pub(super) fn list_put_aside(path: &Path) -> io::Result<Vec<(u32, PathBuf)>> {
    let (stem, extension) = name_parts(path);
    let mut found = Vec::new();
    for entry in fs::read_dir(folder(path))? {
        let entry = entry?;
        let name = entry.file_name();
        let number = name
            .to_str()
            .and_then(|name| name.strip_prefix(&stem)?.strip_prefix('.')?.strip_suffix(&extension))
            .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
            .and_then(|digits| digits.parse().ok());
        if let Some(number) = number {
            found.push((number, entry.path()));
        }
    }
    found.sort();
    Ok(found)
}

/// The folder that holds `path`.
pub(super) fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Makes a created or renamed file of `path`'s folder survive a power cut.
pub(super) fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(folder(path))?.sync_all()
}

/// Takes the lock of the log at `path`; it is released when the file is dropped.
pub(super) fn lock(path: &Path) -> Result<File, AuditError> {
    let unopenable = |source| AuditError::Unopenable { file: path.to_owned(), source };
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    // The lock file lies beside the log and is not the log itself, which is renamed when it is put aside.
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(PathBuf::from(name))
        .map_err(unopenable)?;
    match lock_soon(&file) {
        Ok(()) => {}
        Err(TryLockError::Error(source)) => return Err(unopenable(source)),
        Err(TryLockError::WouldBlock) => {
            let mut owner = String::new();
            let known = file.read_to_string(&mut owner).is_ok() && !owner.trim().is_empty();
            let by = if known { format!(" ({})", owner.trim()) } else { String::new() };
            return Err(AuditError::InUse { file: path.to_owned(), by });
        }
    }
    // Only for the message above; a disk too full for it must not stop the start.
    let _ = file.set_len(0).and_then(|()| writeln!(file, "pid {}", std::process::id()));
    Ok(file)
}

/// Takes the lock, waiting a little for a process that was killed a moment ago and is not quite gone.
fn lock_soon(file: &File) -> Result<(), TryLockError> {
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => std::thread::sleep(LOCK_RETRY),
            outcome => return outcome,
        }
    }
}

/// File name without extension, and the extension with its dot.
fn name_parts(path: &Path) -> (String, String) {
    let text = |part: Option<&std::ffi::OsStr>| part.unwrap_or_default().to_string_lossy().into_owned();
    let extension = path.extension().map(|extension| format!(".{}", extension.to_string_lossy()));
    (text(path.file_stem()), extension.unwrap_or_default())
}

/// How long a dying process may keep the lock.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);
const LOCK_RETRY: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn put_aside_files_are_listed_oldest_first_and_strangers_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("edge.jsonl");
        for name in
            ["edge.jsonl", "edge.10.jsonl", "edge.2.jsonl", "edge.x.jsonl", "edge..jsonl", "edge.2.jsonl.gz"]
        {
            fs::write(dir.path().join(name), "").unwrap();
        }
        let names: Vec<_> = list_put_aside(&path).unwrap();
        assert_eq!(names, vec![(2, put_aside(&path, 2)), (10, put_aside(&path, 10))]);
        assert_eq!(put_aside(Path::new("a/audit"), 1), Path::new("a/audit.1"));
    }

    #[test]
    fn a_bare_file_name_lies_in_the_working_directory() {
        assert_eq!(folder(Path::new("edge.jsonl")), Path::new("."));
        assert_eq!(folder(Path::new("a/edge.jsonl")), Path::new("a"));
    }
}
