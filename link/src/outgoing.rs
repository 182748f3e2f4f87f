//! What a connection takes from its lanes: in whose turn, and how far ahead of the path.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use quinn::{SendStream, WriteError};
use tokio::time::timeout;

use crate::{
    congestion::Flight,
    turns::{Turn, Turns},
};

/// The way out that all streams of a connection share.
#[derive(Debug)]
pub(crate) struct Outgoing {
    quic: quinn::Connection,
    flight: Option<Arc<Flight>>,
    /// Bytes that may be held until they are acknowledged, at most.
    most: u64,
    turns: Turns,
}

impl Outgoing {
    pub(crate) fn new(quic: quinn::Connection, flight: Option<Arc<Flight>>, most: u64) -> Self {
        Self { quic, flight, most, turns: Turns::default() }
    }

    /// Hands the parts of a parcel to a lane's stream when it is the lane's turn.
    pub(crate) async fn write(
        &self,
        (lane, weight): (u16, u16),
        stream: &mut SendStream,
        parts: &mut [Bytes],
    ) -> Result<(), WriteError> {
        let bytes = parts.iter().map(|part| part.len() as u64).sum();
        let turn = self.turns.wait(lane, weight, bytes).await;
        self.quic.set_send_window(self.limit());
        write_all(stream, parts, turn).await
    }

    /// Room for a control frame, whatever parcels have taken. The next parcel's turn takes it back.
    pub(crate) fn make_room(&self, bytes: usize) {
        self.quic.set_send_window(self.most + bytes as u64);
    }

    /// How much is held at once: what a path with losses needs, which keeps what was acknowledged behind a hole, and little
    /// more, as what is in here cannot be overtaken by a lane of a greater weight.
    fn limit(&self) -> u64 {
        match self.flight.as_ref().map_or(0, |flight| flight.window()) {
            0 => self.most,
            window => (WINDOWS * window + ALLOWANCE).min(self.most),
        }
    }
}

/// Writes all, in the turn; out of it from when the stream takes nothing for a while, as that may be for reasons of its
/// own, and others must not wait for them.
async fn write_all(stream: &mut SendStream, mut parts: &mut [Bytes], turn: Turn) -> Result<(), WriteError> {
    let mut turn = Some(turn);
    while !parts.is_empty() {
        let written = if turn.is_some() {
            match timeout(PATIENCE, stream.write_chunks(parts)).await {
                Ok(written) => written?,
                Err(_) => {
                    turn = None;
                    continue;
                }
            }
        } else {
            stream.write_chunks(parts).await?
        };
        parts = &mut parts[written.chunks..];
    }
    Ok(())
}

const WINDOWS: u64 = 4;
const ALLOWANCE: u64 = 256 << 10;
/// Longer than a path that is alive takes nothing.
const PATIENCE: Duration = Duration::from_millis(500);
