//! The control stream: frames of a little-endian `u32` length and that many bytes.

use std::sync::Arc;

use proto::{limits::MAX_CONTROL_MESSAGE, wire::WireError};
use quinn::{RecvStream, SendStream};

use crate::{Error, outgoing::Outgoing};

/// The sending half of the control stream. It goes before parcels on the wire.
#[derive(Debug)]
pub struct ControlSend {
    stream: SendStream,
    outgoing: Arc<Outgoing>,
}

impl ControlSend {
    pub(crate) fn new(stream: SendStream, outgoing: Arc<Outgoing>) -> Self {
        // Strict priority: an ack or a hold never queues behind megabytes of parcels. A closed stream shows at `send`.
        let _ = stream.set_priority(i32::MAX);
        Self { stream, outgoing }
    }

    /// Sends one frame as `encode_frame` made it: the length included.
    ///
    /// Not cancel-safe: a future dropped before its end leaves half a frame and the connection is of no use.
    ///
    /// # Errors
    /// [`Error::Unsendable`] when the length is wrong or above the bound, or why the stream is over.
    pub async fn send(&mut self, frame: &[u8]) -> Result<(), Error> {
        let content = frame.len().checked_sub(LENGTH_BYTES);
        let declared = frame.first_chunk::<LENGTH_BYTES>().map(|bytes| u32::from_le_bytes(*bytes) as usize);
        if content.is_none() || content != declared {
            return Err(Error::Unsendable {
                why: format!(
                    "a control frame of {} bytes declares {declared:?} after its length",
                    frame.len()
                ),
            });
        }
        if frame.len() > LENGTH_BYTES + MAX_CONTROL_MESSAGE {
            return Err(Error::Unsendable { why: format!("a control frame of {} bytes", frame.len()) });
        }
        self.outgoing.make_room(frame.len());
        Ok(self.stream.write_all(frame).await?)
    }

    /// Says that no frame will follow. Frames sent before still arrive while the connection lives.
    ///
    /// # Errors
    /// [`Error::Finished`] when that was said before.
    pub fn finish(&mut self) -> Result<(), Error> {
        self.stream.finish().map_err(|_| Error::Finished)
    }
}

/// The receiving half of the control stream.
#[derive(Debug)]
pub struct ControlRecv {
    stream: RecvStream,
    length: [u8; LENGTH_BYTES],
    /// How much of `length` was read.
    length_filled: usize,
    frame: Vec<u8>,
}

impl ControlRecv {
    pub(crate) fn new(stream: RecvStream) -> Self {
        Self { stream, length: [0; LENGTH_BYTES], length_filled: 0, frame: Vec::new() }
    }

    /// The content of the next frame, without its length; `None` when the peer finished between two frames.
    ///
    /// Cancel-safe: what was read stays for the next call.
    ///
    /// # Errors
    /// [`Error::Malformed`] when the length is above its bound, [`Error::Truncated`], or why the stream is over.
    pub async fn recv(&mut self) -> Result<Option<Vec<u8>>, Error> {
        while self.length_filled < LENGTH_BYTES {
            match self.stream.read(&mut self.length[self.length_filled..]).await? {
                Some(read) => self.length_filled += read,
                None if self.length_filled == 0 => return Ok(None),
                None => return Err(Error::Truncated { what: WHAT }),
            }
        }
        let length = u32::from_le_bytes(self.length) as usize;
        if length > MAX_CONTROL_MESSAGE {
            let source = WireError::TooLong { what: "control message", bytes: length };
            return Err(Error::Malformed { what: WHAT, source });
        }
        while self.frame.len() < length {
            let chunk = self.stream.read_chunk(length - self.frame.len(), true).await?;
            let chunk = chunk.ok_or(Error::Truncated { what: WHAT })?;
            self.frame.extend_from_slice(&chunk.bytes);
        }
        self.length_filled = 0;
        Ok(Some(std::mem::take(&mut self.frame)))
    }
}

const LENGTH_BYTES: usize = 4;
const WHAT: &str = "a control frame";
