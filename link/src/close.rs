//! Why a connection was closed: QUIC application error codes, and what every end of a connection is called in words.

use std::fmt;

use certs::{explain_alert, explain_own_alert};
use quinn::{ConnectionError, VarInt};

/// The QUIC application error code of a close. The numbers are part of the protocol and never change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u32)]
pub enum CloseCode {
    /// The work is done, or the process ends in good order.
    Done = 0,
    /// A newer connection of the same exporter took over.
    Superseded = 1,
    /// The certificate names somebody else than expected, or nobody.
    WrongIdentity = 2,
    /// The identity has no grant here, or not this one.
    NotGranted = 3,
    /// The peer broke the protocol: the reason names how.
    Misbehaved = 4,
    /// No protocol version in common.
    Version = 5,
    /// Too much at once: try again later.
    Busy = 6,
    /// The link stalled and was given up.
    Stalled = 7,
    /// The peer's certificate ended, or was revoked, while connected.
    Untrusted = 8,
    /// Something failed on the closing side: the reason says what.
    Failed = 9,
}

impl CloseCode {
    const ALL: [Self; 10] = [
        Self::Done,
        Self::Superseded,
        Self::WrongIdentity,
        Self::NotGranted,
        Self::Misbehaved,
        Self::Version,
        Self::Busy,
        Self::Stalled,
        Self::Untrusted,
        Self::Failed,
    ];

    /// The number on the wire.
    pub fn number(self) -> u32 {
        self as u32
    }

    /// The code of a number, when this version knows it.
    pub fn from_number(number: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|code| u64::from(code.number()) == number)
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Done => "done",
            Self::Superseded => "superseded by a newer connection",
            Self::WrongIdentity => "wrong identity",
            Self::NotGranted => "not granted",
            Self::Misbehaved => "protocol violation",
            Self::Version => "no protocol version in common",
            Self::Busy => "busy, try again later",
            Self::Stalled => "stalled",
            Self::Untrusted => "certificate no longer trusted",
            Self::Failed => "failure on the closing side",
        })
    }
}

impl From<CloseCode> for VarInt {
    fn from(code: CloseCode) -> Self {
        Self::from_u32(code.number())
    }
}

/// Whose fault the end of a handshake was, as far as it can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// We did not accept the peer: its certificate or its TLS.
    Theirs,
    /// The peer did not accept us: our certificate or our TLS.
    Ours,
    /// The peer does not want a connection now.
    Refused,
    /// The peer did not answer.
    Silence,
    /// Anything else.
    Other,
}

/// Why a connection ended, in words.
pub(crate) fn words(error: &ConnectionError) -> String {
    match error {
        ConnectionError::VersionMismatch => "the peer speaks another version of QUIC".into(),
        ConnectionError::TransportError(error) => match alert(u64::from(error.code)) {
            Some(alert) => format!("the peer is refused: {}", explain_own_alert(alert, &error.reason)),
            None => format!("the peer broke QUIC: {error}"),
        },
        ConnectionError::ConnectionClosed(close) => match alert(u64::from(close.error_code)) {
            Some(alert) => format!("the peer refused the handshake: {}", explain_alert(alert)),
            None if u64::from(close.error_code) == CONNECTION_REFUSED => {
                "the peer takes no connection now: it is starting, stopping or has too many pending".into()
            }
            None if u64::from(close.error_code) == APPLICATION_ERROR => {
                "the peer gave up before the handshake was finished".into()
            }
            None => format!("the peer's transport closed: {close}"),
        },
        ConnectionError::ApplicationClosed(close) => {
            let number = close.error_code.into_inner();
            let name =
                CloseCode::from_number(number).map_or_else(|| format!("code {number}"), |c| c.to_string());
            match shown(&close.reason) {
                reason if reason.is_empty() => format!("closed by the peer: {name}"),
                reason => format!("closed by the peer: {name}: {reason}"),
            }
        }
        ConnectionError::Reset => "the peer does not know this connection: it was restarted".into(),
        ConnectionError::TimedOut => "the peer was silent for the idle time".into(),
        ConnectionError::LocallyClosed => "closed on this side".into(),
        ConnectionError::CidsExhausted => "no connection id left".into(),
    }
}

/// Who is to blame for a handshake that ended with `error`.
pub(crate) fn fault(error: &ConnectionError) -> Fault {
    match error {
        ConnectionError::TransportError(error) if alert(u64::from(error.code)).is_some() => Fault::Theirs,
        ConnectionError::ConnectionClosed(close) if alert(u64::from(close.error_code)).is_some() => {
            Fault::Ours
        }
        ConnectionError::ConnectionClosed(close) if u64::from(close.error_code) == CONNECTION_REFUSED => {
            Fault::Refused
        }
        ConnectionError::ApplicationClosed(_) => Fault::Refused,
        ConnectionError::TimedOut => Fault::Silence,
        _ => Fault::Other,
    }
}

/// The TLS alert in a QUIC transport error code, RFC 9001, 4.8.
fn alert(code: u64) -> Option<u8> {
    u8::try_from(code.checked_sub(0x100)?).ok()
}

/// A reason that a peer chose: short, and nothing in it that could move a terminal's cursor.
fn shown(reason: &[u8]) -> String {
    let text = String::from_utf8_lossy(&reason[..reason.len().min(MAX_REASON)]);
    text.escape_debug().to_string()
}

/// RFC 9000, 20.1.
const CONNECTION_REFUSED: u64 = 2;
const APPLICATION_ERROR: u64 = 12;
/// Bytes of a close reason, at most, both given and shown.
pub(crate) const MAX_REASON: usize = 500;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_of_close_codes_never_change() {
        let numbers: Vec<u32> = CloseCode::ALL.iter().map(|code| code.number()).collect();
        assert_eq!(numbers, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
        assert_eq!(CloseCode::from_number(1), Some(CloseCode::Superseded));
        assert_eq!(CloseCode::from_number(4), Some(CloseCode::Misbehaved));
        assert_eq!(CloseCode::from_number(10), None);
        assert_eq!(CloseCode::from_number(u64::MAX), None);
    }

    #[test]
    fn a_reason_from_a_peer_cannot_play_with_the_terminal() {
        let close = quinn::ApplicationClose {
            error_code: CloseCode::Misbehaved.into(),
            reason: b"bad\x1b[2Jthing\n".to_vec().into(),
        };
        let words = words(&ConnectionError::ApplicationClosed(close));
        assert_eq!(words, "closed by the peer: protocol violation: bad\\u{1b}[2Jthing\\n");
    }
}
