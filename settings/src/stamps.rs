//! Whether files changed: without reading them, or by what they hold.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::SystemTime,
};

/// What tells changed files: when each was written, its length and which file it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamps(Vec<Option<(SystemTime, u64, u64)>>);

impl Stamps {
    /// Looks at `files` as they are now; those that are not there count too.
    pub fn of(files: impl IntoIterator<Item = PathBuf>) -> Self {
        Self(files.into_iter().map(|file| stamp(&file)).collect())
    }
}

/// What files hold, as a number that is another one when that changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Contents(u64);

impl Contents {
    /// Reads `files` as they are now; those that are not there count too.
    pub fn of(files: impl IntoIterator<Item = PathBuf>) -> Self {
        let mut hasher = DefaultHasher::new();
        for file in files {
            std::fs::read(&file).ok().hash(&mut hasher);
        }
        Self(hasher.finish())
    }
}

fn stamp(file: &Path) -> Option<(SystemTime, u64, u64)> {
    let metadata = std::fs::metadata(file).ok()?;
    Some((metadata.modified().ok()?, metadata.len(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_are_the_same_until_something_else_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let (one, other) = (dir.path().join("a"), dir.path().join("b"));
        let look = || Contents::of([one.clone(), other.clone()]);
        let absent = look();
        std::fs::write(&one, "x").unwrap();
        let written = look();
        assert_ne!(absent, written);
        std::fs::write(&one, "x").unwrap();
        assert_eq!(written, look());
        std::fs::rename(&one, &other).unwrap();
        assert_ne!(written, look());
    }

    #[test]
    fn a_file_that_is_written_replaced_or_removed_has_another_stamp() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a");
        let look = || Stamps::of([file.clone()]);
        let absent = look();
        std::fs::write(&file, "one").unwrap();
        let one = look();
        assert_ne!(absent, one);
        assert_eq!(one, look());
        // As long as before, and perhaps within the clock's tick.
        let other = dir.path().join("b");
        std::fs::write(&other, "two").unwrap();
        std::fs::rename(&other, &file).unwrap();
        assert_ne!(one, look());
        std::fs::remove_file(&file).unwrap();
        assert_eq!(absent, look());
    }
}
