//! Files that are read again when they change while a program runs.

use crate::Stamps;

/// Files that are looked at again and again, to be read once they changed and are whole.
#[derive(Debug)]
pub struct Watched {
    /// As they were when they were read; `None` when that is not known.
    done: Option<Stamps>,
    /// As they were at the last look.
    last: Option<Stamps>,
}

impl Watched {
    /// Files that were as `done` says before they were read. Without it they are read a second time.
    pub fn new(done: Option<Stamps>) -> Self {
        Self { done, last: None }
    }

    /// Whether the files, which are as `seen` says now, are to be read. Half of a file can be a good file too: it is read
    /// when two looks find it the same, or at once for somebody who asked for it (`told`).
    pub fn is_due(&mut self, seen: &Stamps, told: bool) -> bool {
        let still = self.last.replace(seen.clone()).as_ref() == Some(seen);
        told || (still && self.done.as_ref() != Some(seen))
    }

    /// What was to be done with the files as `seen` says is done. Until then they stay due.
    pub fn done(&mut self, seen: Stamps) {
        self.done = Some(seen);
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
        let mut write = || {
            std::fs::write(&file, "x".repeat(lengths.next().unwrap())).unwrap();
            Stamps::of([file.clone()])
        };
        let start = write();
        let mut watched = Watched::new(Some(start.clone()));
        assert!(!watched.is_due(&start, false) && !watched.is_due(&start, false), "as it was read");
        let half = write();
        assert!(!watched.is_due(&half, false));
        let whole = write();
        assert!(!watched.is_due(&whole, false), "it was written to since the last look");
        assert!(watched.is_due(&whole, false));
        assert!(watched.is_due(&whole, false), "until it could be put on record");
        watched.done(whole.clone());
        assert!(!watched.is_due(&whole, false));
        assert!(watched.is_due(&write(), true), "somebody asked");
    }
}
