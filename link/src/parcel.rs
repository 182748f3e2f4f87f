//! Lane streams: a preface, then parcels of a header and a body.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use proto::wire::{LanePreface, ParcelHeader};
use quinn::{RecvStream, SendStream, VarInt};

use crate::{Error, outgoing::Outgoing, stats::Carried};

/// The sending end of one lane epoch.
#[derive(Debug)]
pub struct ParcelSend {
    stream: SendStream,
    preface: LanePreface,
    /// A parcel was begun and not ended: a `send` failed or was dropped on the way.
    torn: bool,
    weight: u16,
    outgoing: Arc<Outgoing>,
    carried: Arc<Carried>,
}

impl ParcelSend {
    pub(crate) async fn open(
        mut stream: SendStream,
        preface: LanePreface,
        outgoing: Arc<Outgoing>,
        carried: Arc<Carried>,
    ) -> Result<Self, Error> {
        stream.write_all(&preface.encode()).await?;
        Ok(Self { stream, preface, torn: false, weight: 1, outgoing, carried })
    }

    /// The lane and its epoch.
    pub fn preface(&self) -> LanePreface {
        self.preface
    }

    /// Sends one parcel; the body is not copied. Waits while the windows of the connection are full.
    ///
    /// Not cancel-safe: a future dropped before its end has torn the stream, and it is reset.
    ///
    /// # Errors
    /// [`Error::Unsendable`] when the header does not fit the body, [`Error::Stopped`] when the importer gave the
    /// epoch up, or why the connection is over.
    pub async fn send(&mut self, header: &ParcelHeader, body: Bytes) -> Result<(), Error> {
        if body.len() != header.coded as usize {
            let why = format!("a body of {} bytes under a header that says {}", body.len(), header.coded);
            return Err(Error::Unsendable { why });
        }
        let bytes = header.encode();
        // What the peer would refuse must not leave.
        ParcelHeader::decode(&bytes).map_err(|error| Error::Unsendable { why: error.to_string() })?;
        if self.torn {
            return Err(Error::Finished);
        }
        self.torn = true;
        let lane = (self.preface.lane.0, self.weight);
        let mut parts = [Bytes::copy_from_slice(&bytes), body];
        self.outgoing.write(lane, &mut self.stream, &mut parts).await?;
        self.torn = false;
        self.carried.sent(bytes.len() + header.coded as usize);
        Ok(())
    }

    /// Of several lanes with something to send, each gets a share of the link by its weight, 1 unless set. Control frames go
    /// before all of them.
    pub fn set_weight(&mut self, weight: u16) {
        self.weight = weight.max(1);
    }

    /// Resolves when the importer does not want this stream any more, or the connection is over.
    pub async fn stopped(&self) {
        // Also `Ok(None)`, all was received after `finish`: in each case there is nothing more to send.
        let _ = self.stream.stopped().await;
    }

    /// Says that no parcel will follow. Parcels sent before still arrive while the connection lives.
    ///
    /// # Errors
    /// [`Error::Finished`] when that was said before or the stream is torn.
    pub fn finish(&mut self) -> Result<(), Error> {
        if self.torn {
            return Err(Error::Finished);
        }
        self.stream.finish().map_err(|_| Error::Finished)
    }

    /// Gives the stream up: what did not arrive yet never will.
    pub fn reset(&mut self) {
        // Closed already: that is what was wanted.
        let _ = self.stream.reset(GIVEN_UP);
    }
}

impl Drop for ParcelSend {
    fn drop(&mut self) {
        // quinn would finish the stream, and half a parcel would look like its end.
        if self.torn {
            self.reset();
        }
    }
}

/// The receiving end of one lane epoch. Dropping it tells the exporter to send no more, as [`Self::stop`] does.
#[derive(Debug)]
pub struct ParcelRecv {
    stream: RecvStream,
    preface: LanePreface,
    header: [u8; ParcelHeader::LENGTH],
    /// How much of `header` was read.
    header_filled: usize,
    body: BytesMut,
    carried: Arc<Carried>,
}

impl ParcelRecv {
    pub(crate) async fn accept(mut stream: RecvStream, carried: Arc<Carried>) -> Result<Self, Error> {
        let mut bytes = [0; LanePreface::LENGTH];
        if !fill(&mut stream, &mut bytes, &mut 0, PREFACE).await? {
            return Err(Error::Truncated { what: PREFACE });
        }
        let preface =
            LanePreface::decode(&bytes).map_err(|source| Error::Malformed { what: PREFACE, source })?;
        let header = [0; ParcelHeader::LENGTH];
        Ok(Self { stream, preface, header, header_filled: 0, body: BytesMut::new(), carried })
    }

    /// The lane and its epoch.
    pub fn preface(&self) -> LanePreface {
        self.preface
    }

    /// The next parcel; `None` when the exporter finished between two parcels.
    ///
    /// Every bound of the header is checked before memory is taken for the body, and memory is taken as bytes arrive.
    /// Cancel-safe: what was read stays for the next call.
    ///
    /// # Errors
    /// [`Error::Malformed`], [`Error::Truncated`], [`Error::Reset`] when the exporter gave the epoch up, or why the
    /// connection is over.
    pub async fn recv(&mut self) -> Result<Option<(ParcelHeader, Bytes)>, Error> {
        if !fill(&mut self.stream, &mut self.header, &mut self.header_filled, HEADER).await? {
            return Ok(None);
        }
        let header =
            ParcelHeader::decode(&self.header).map_err(|source| Error::Malformed { what: HEADER, source })?;
        let length = header.coded as usize;
        while self.body.len() < length {
            let chunk = self.stream.read_chunk(length - self.body.len(), true).await?;
            let chunk = chunk.ok_or(Error::Truncated { what: "a parcel's body" })?;
            if self.body.is_empty() {
                self.body.reserve(length.min(FIRST_ALLOCATION));
            }
            self.body.extend_from_slice(&chunk.bytes);
        }
        self.header_filled = 0;
        self.carried.received(ParcelHeader::LENGTH + length);
        Ok(Some((header, std::mem::take(&mut self.body).freeze())))
    }

    /// Tells the exporter to send no more on this stream.
    pub fn stop(&mut self) {
        // Ended already: that is what was wanted.
        let _ = self.stream.stop(GIVEN_UP);
    }
}

/// Reads until `bytes` is full; `false` when the stream ended before its first byte.
async fn fill(
    stream: &mut RecvStream,
    bytes: &mut [u8],
    filled: &mut usize,
    what: &'static str,
) -> Result<bool, Error> {
    while *filled < bytes.len() {
        match stream.read(&mut bytes[*filled..]).await? {
            Some(read) => *filled += read,
            None if *filled == 0 => return Ok(false),
            None => return Err(Error::Truncated { what }),
        }
    }
    Ok(true)
}

/// The code of a stream that is reset or stopped: the control stream says why.
const GIVEN_UP: VarInt = VarInt::from_u32(1);
const PREFACE: &str = "a lane's preface";
const HEADER: &str = "a parcel's header";
/// A declared size is a promise; only this much is taken on its word.
const FIRST_ALLOCATION: usize = proto::limits::PARCEL_TARGET as usize;
