//! Reading and writing PEM files: a key is never, at any moment, readable by others.

use std::{
    fs::{self, OpenOptions},
    io::{self, Read as _, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use rustls::pki_types::pem::{self, PemObject};

use crate::Error;

/// Who may read a file that is written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Owner,
    Everybody,
}

/// Writes `content` so that a reader sees the old file or the new one, never half of it.
///
/// The temporary file is created with its final mode and must not exist before: nobody can have it open already.
pub(crate) fn write(path: &Path, content: &str, access: Access) -> Result<(), Error> {
    let failed = |source| Error::Unwritable { path: path.into(), source };
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}.new", std::process::id()));
    let temporary = PathBuf::from(temporary);
    let mode = if access == Access::Owner { 0o600 } else { 0o644 };
    let result = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        file.write_all(content.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    })();
    if result.is_err() {
        // Best effort: the error that matters is the one above.
        let _ = fs::remove_file(&temporary);
    }
    result.map_err(failed)
}

pub(crate) fn create_folder(path: &Path) -> Result<(), Error> {
    fs::create_dir_all(path).map_err(|source| Error::Unwritable { path: path.into(), source })
}

/// Reads a file whole; `hint` tells what makes it when it is missing.
pub(crate) fn read(path: &Path, hint: &'static str) -> Result<Vec<u8>, Error> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => Error::Missing { path: path.into(), hint },
        _ => Error::Unreadable { path: path.into(), source },
    };
    let mut content = Vec::new();
    fs::File::open(path).map_err(failed)?.take(MAX_FILE + 1).read_to_end(&mut content).map_err(failed)?;
    if content.len() as u64 > MAX_FILE {
        return Err(failed(io::Error::other(format!("it is longer than {} MiB", MAX_FILE >> 20))));
    }
    Ok(content)
}

/// No file of keys, certificates or revocations is longer.
const MAX_FILE: u64 = 16 << 20;

/// Like [`read`], `None` when the file does not exist.
pub(crate) fn read_optional(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    match read(path, "") {
        Ok(content) => Ok(Some(content)),
        Err(Error::Missing { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// An error when anybody but the owner can read, write or run `path`.
pub(crate) fn check_private(path: &Path, hint: &'static str) -> Result<(), Error> {
    let metadata = fs::metadata(path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => Error::Missing { path: path.into(), hint },
        _ => Error::Unreadable { path: path.into(), source },
    })?;
    if metadata.is_dir() {
        let source = io::ErrorKind::IsADirectory.into();
        return Err(Error::Unreadable { path: path.into(), source });
    }
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(Error::KeyExposed { path: path.into(), mode });
    }
    Ok(())
}

/// All PEM sections of one kind in `content`; an error when there is none or one is torn.
pub(crate) fn sections<T: PemObject>(
    path: &Path,
    content: &[u8],
    wanted: &'static str,
) -> Result<Vec<T>, Error> {
    let mut found = Vec::new();
    for section in T::pem_slice_iter(content) {
        found.push(section.map_err(|error| match error {
            pem::Error::NoItemsFound => Error::NotPem { path: path.into(), wanted },
            pem::Error::MissingSectionEnd { .. } => {
                Error::Malformed { path: path.into(), why: format!("its {wanted} is cut off") }
            }
            error => Error::Malformed { path: path.into(), why: error.to_string() },
        })?);
    }
    if found.is_empty() {
        return Err(match content.windows(ENCRYPTED.len()).any(|window| window == ENCRYPTED) {
            true => Error::EncryptedKey { path: path.into() },
            false => Error::NotPem { path: path.into(), wanted },
        });
    }
    Ok(found)
}

/// PKCS #8 and the older form both say it so.
const ENCRYPTED: &[u8] = b"ENCRYPTED";
