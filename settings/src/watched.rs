//! Files that are read again when they change while a program runs.

use std::path::PathBuf;

use crate::stamps::Stamps;

/// Files that are looked at again and again, to be read once they changed and are whole.
#[derive(Debug)]
pub struct Watched {
    files: Vec<PathBuf>,
    /// As they were when they were read; `None` when that is not known.
    done: Option<Stamps>,
    /// As they were at the last look.
    last: Option<Stamps>,
}

impl Watched {
    /// Files that were read some time ago: they are read a second time.
    pub fn after_reading(files: impl IntoIterator<Item = PathBuf>) -> Self {
        Self { files: files.into_iter().collect(), done: None, last: None }
    }

    /// Files that are going to be read: what is replaced meanwhile is a change.
    pub fn before_reading(files: impl IntoIterator<Item = PathBuf>) -> Self {
        let mut watched = Self::after_reading(files);
        watched.done = Some(watched.look());
        watched
    }

    /// Whether the files are to be read. Half of a file can be a good file too: it is read when two looks find it the same,
    /// or at once for somebody who asked for it (`told`).
    pub fn is_due(&mut self, told: bool) -> bool {
        let seen = self.look();
        let still = self.last.as_ref() == Some(&seen);
        let due = told || (still && self.done.as_ref() != Some(&seen));
        self.last = Some(seen);
        due
    }

    /// What was to be done with the files, as they were when they were found due, is done. Until then they stay due.
    pub fn done(&mut self) {
        self.done.clone_from(&self.last);
    }

    fn look(&self) -> Stamps {
        Stamps::of(&self.files)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_being_written_is_not_read_yet() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a");
        let mut lengths = 0..;
        let mut write = || std::fs::write(&file, "x".repeat(lengths.next().unwrap())).unwrap();
        write();
        let mut watched = Watched::before_reading([file.clone()]);
        assert!(!watched.is_due(false) && !watched.is_due(false), "as it was read");
        write();
        assert!(!watched.is_due(false));
        write();
        assert!(!watched.is_due(false), "it was written to since the last look");
        assert!(watched.is_due(false));
        assert!(watched.is_due(false), "until it could be put on record");
        watched.done();
        assert!(!watched.is_due(false));
        write();
        assert!(watched.is_due(true), "somebody asked");
        let mut again = Watched::after_reading([file.clone()]);
        assert!(!again.is_due(false) && again.is_due(false), "it may have changed since it was read");
    }
}
