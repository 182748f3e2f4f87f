//! Everything that can be wrong with a certificate, a key or a folder of them.

use std::{io, path::PathBuf};

use crate::{Role, spiffe::InvalidSpiffeId};

/// What is wrong, where, and what to do about it.
///
/// Paths are as the operator gave them. A certificate that came from a peer has no path: its errors say `peer`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file that must be there is not.
    #[error("{} does not exist: {hint}", path.display())]
    Missing {
        /// The file looked for.
        path: PathBuf,
        /// What makes it.
        hint: &'static str,
    },
    /// A file is there and cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A file or folder cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Unwritable {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A file that must not be there is: nothing is overwritten.
    #[error("{} already exists: a certificate authority is not overwritten, choose another folder", path.display())]
    AlreadyExists {
        /// The file.
        path: PathBuf,
    },
    /// The private key can be read by others.
    #[error(
        "{} is a private key that others can read (mode {mode:04o}): chmod 600 {}", path.display(), path.display()
    )]
    KeyExposed {
        /// The key file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// This system vouches for no server at all.
    #[error(
        "this system trusts no certificate authority ({why}): install its CA certificates or name a file of them"
    )]
    NobodyTrusted {
        /// What was found instead.
        why: String,
    },
    /// A file holds no PEM section of the kind wanted.
    #[error("{} holds no PEM {wanted}: expected text with a line -----BEGIN ...-----", path.display())]
    NotPem {
        /// The file.
        path: PathBuf,
        /// What was looked for: `private key`, `certificate`, `revocation list`.
        wanted: &'static str,
    },
    /// The private key is under a passphrase, which nobody could type.
    #[error("{} is encrypted: write it without a passphrase, readable by its owner only", path.display())]
    EncryptedKey {
        /// The key file.
        path: PathBuf,
    },
    /// A PEM section is torn, or its content does not parse.
    #[error("{} is damaged: {why}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What the parser said.
        why: String,
    },
    /// The private key is of a kind that cannot sign here.
    #[error("{} cannot be used: {why}; issue a new identity", path.display())]
    UnusableKey {
        /// The key file.
        path: PathBuf,
        /// What the cryptographic library said.
        why: String,
    },
    /// The key belongs to another certificate.
    #[error(
        "{} is not the key of the certificate in {}: issue both together or copy both together",
        key.display(),
        chain.display()
    )]
    KeyMismatch {
        /// The key file.
        key: PathBuf,
        /// The certificate file.
        chain: PathBuf,
    },
    /// A certificate is past its end.
    #[error("the certificate in {} expired at {not_after}: issue a new one", path.display())]
    Expired {
        /// The certificate file.
        path: PathBuf,
        /// Its end, UTC.
        not_after: String,
    },
    /// A certificate has not begun.
    #[error("the certificate in {} is not valid before {not_before}: check this machine's clock", path.display())]
    NotYetValid {
        /// The certificate file.
        path: PathBuf,
        /// Its beginning, UTC.
        not_before: String,
    },
    /// The revocation list is past its next update.
    #[error("the revocation list in {} is stale since {next_update}: fetch the authority's newest one", path.display())]
    StaleRevocationList {
        /// The revocation list.
        path: PathBuf,
        /// When the next one was due, UTC.
        next_update: String,
    },
    /// A certificate names nobody.
    #[error("the certificate in {place} has no SPIFFE id (a URI name starting with spiffe://)")]
    NoSpiffeId {
        /// The certificate file, or `peer`.
        place: String,
    },
    /// A certificate has more than one URI name.
    #[error("the certificate in {place} has {count} URI names, exactly one SPIFFE id is allowed: {names}")]
    SeveralSpiffeIds {
        /// The certificate file, or `peer`.
        place: String,
        /// How many.
        count: usize,
        /// The first of them, separated by blanks.
        names: String,
    },
    /// The one URI name is no SPIFFE id.
    #[error("the certificate in {place}: {source}")]
    InvalidSpiffeId {
        /// The certificate file, or `peer`.
        place: String,
        /// What is wrong with it.
        source: InvalidSpiffeId,
    },
    /// A peer's certificate does not parse.
    #[error("the certificate in {place} does not parse: {why}")]
    MalformedCertificate {
        /// The certificate file, or `peer`.
        place: String,
        /// What the parser said.
        why: String,
    },
    /// A peer's certificate is not, or no longer, trusted.
    #[error("the peer's certificate is not trusted: {why}")]
    Untrusted {
        /// In words.
        why: String,
    },
    /// There is nothing to check a peer against.
    #[error("{} holds no certificate authority: no peer could ever be trusted", path.display())]
    RootsEmpty {
        /// The roots file.
        path: PathBuf,
    },
    /// A root cannot be a trust anchor.
    #[error("a certificate in {} cannot be a certificate authority: {why}", path.display())]
    RootUnusable {
        /// The roots file.
        path: PathBuf,
        /// What the verifier said.
        why: String,
    },
    /// The extended key usage allows another role, or none.
    #[error("the certificate in {} is for {found}, not for {wanted}: issue one for {wanted}", path.display())]
    WrongPurpose {
        /// The certificate file.
        path: PathBuf,
        /// What the certificate is for.
        found: Role,
        /// What it was wanted for.
        wanted: Role,
    },
    /// A request for a certificate that cannot be issued.
    #[error("cannot issue: {why}")]
    Request {
        /// What to change.
        why: String,
    },
    /// The cryptographic library failed.
    #[error("cannot {what}: {why}")]
    Crypto {
        /// What was tried.
        what: &'static str,
        /// What the library said.
        why: String,
    },
}
