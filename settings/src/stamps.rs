//! Whether files changed, without reading them.

use std::{
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::SystemTime,
};

/// What tells changed files: when each was written, its length and which file it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stamps(Vec<Option<(SystemTime, u64, u64)>>);

impl Stamps {
    /// Looks at `files` as they are now; those that are not there count too.
    pub(crate) fn of(files: &[PathBuf]) -> Self {
        Self(files.iter().map(|file| stamp(file)).collect())
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
    fn a_file_that_is_written_replaced_or_removed_has_another_stamp() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a");
        let look = || Stamps::of(std::slice::from_ref(&file));
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
