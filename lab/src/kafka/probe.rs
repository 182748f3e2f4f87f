//! Asks a broker over its plain listener which brokers it knows: the smallest sign that a node is ready.

use std::io;
use std::net::TcpStream;
use std::time::Duration;

use crate::wire::{ApiKey, Reader, RequestHeader, Writer, read_frame, write_frame};

/// The first version librdkafka and Kafka 4 both speak with topic ids; any flexible one would do.
const METADATA_VERSION: i16 = 12;
const PATIENCE: Duration = Duration::from_secs(3);

/// The ids of the live brokers, as the broker at `address` sees them.
pub(super) fn brokers(address: &str) -> io::Result<Vec<i32>> {
    let socket = address.parse().map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let mut stream = TcpStream::connect_timeout(&socket, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let header = RequestHeader {
        api_key: ApiKey::Metadata,
        version: METADATA_VERSION,
        correlation_id: 1,
        client_id: Some("lab-probe".to_owned()),
    };
    // No topics (a compact array of length 0 is 1), no creation, no authorised operations.
    let request = Writer::request(&header, true).unsigned_varint(1).u8(0).u8(0).tags().finish();
    write_frame(&mut stream, &request)?;
    let answer = read_frame(&mut stream)?.ok_or(io::ErrorKind::UnexpectedEof)?;
    broker_ids(&answer)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the metadata answer is cut short"))
}

fn broker_ids(answer: &[u8]) -> Option<Vec<i32>> {
    let mut reader = Reader::new(answer);
    reader.i32()?; // correlation id
    reader.tags()?;
    reader.i32()?; // throttle time
    let count = reader.unsigned_varint()?.checked_sub(1)?;
    let mut ids = Vec::new();
    for _ in 0..count {
        ids.push(reader.i32()?);
        reader.compact_string()?; // host
        reader.i32()?; // port
        reader.compact_string()?; // rack
        reader.tags()?;
    }
    Some(ids)
}
