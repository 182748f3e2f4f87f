//! As much of Kafka's wire protocol as the lab needs: frames, request headers, and a reader and writer of its types.
//!
//! Source of the formats: the Kafka protocol guide (<https://kafka.apache.org/protocol>). A frame is a big-endian u32
//! length and that many bytes; a request begins with ApiKey (i16), ApiVersion (i16), correlation id (i32) and client id;
//! "flexible" versions end their header and every structure with tagged fields.

use std::fmt;
use std::io::{self, Read, Write};

/// Kafka's own bound is 100 MiB (`socket.request.max.bytes`).
const MAX_FRAME: usize = 128 << 20;

/// Which request a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ApiKey(pub i16);

#[allow(non_upper_case_globals, reason = "the protocol guide spells them so")]
impl ApiKey {
    pub const Produce: Self = Self(0);
    pub const Fetch: Self = Self(1);
    pub const ListOffsets: Self = Self(2);
    pub const Metadata: Self = Self(3);
    pub const OffsetCommit: Self = Self(8);
    pub const OffsetFetch: Self = Self(9);
    pub const FindCoordinator: Self = Self(10);
    pub const ApiVersions: Self = Self(18);
    pub const CreateTopics: Self = Self(19);
    pub const InitProducerId: Self = Self(22);
    pub const OffsetForLeaderEpoch: Self = Self(23);
    pub const AddPartitionsToTxn: Self = Self(24);
    pub const EndTxn: Self = Self(26);
    pub const DescribeTopicPartitions: Self = Self(75);

    fn name(self) -> Option<&'static str> {
        Some(match self {
            Self::Produce => "Produce",
            Self::Fetch => "Fetch",
            Self::ListOffsets => "ListOffsets",
            Self::Metadata => "Metadata",
            Self::OffsetCommit => "OffsetCommit",
            Self::OffsetFetch => "OffsetFetch",
            Self::FindCoordinator => "FindCoordinator",
            Self::ApiVersions => "ApiVersions",
            Self::CreateTopics => "CreateTopics",
            Self::InitProducerId => "InitProducerId",
            Self::OffsetForLeaderEpoch => "OffsetForLeaderEpoch",
            Self::AddPartitionsToTxn => "AddPartitionsToTxn",
            Self::EndTxn => "EndTxn",
            Self::DescribeTopicPartitions => "DescribeTopicPartitions",
            Self(_) => return None,
        })
    }
}

impl fmt::Display for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "ApiKey {}", self.0),
        }
    }
}

/// The part of a request header that all versions share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestHeader {
    pub api_key: ApiKey,
    pub version: i16,
    pub correlation_id: i32,
    pub client_id: Option<String>,
}

impl RequestHeader {
    /// Reads the header at the front of a request frame; `None` when the frame is too short to have one.
    pub fn parse(frame: &[u8]) -> Option<Self> {
        Self::read(&mut Reader::new(frame))
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Option<Self> {
        Some(Self {
            api_key: ApiKey(reader.i16()?),
            version: reader.i16()?,
            correlation_id: reader.i32()?,
            client_id: reader.string()?.map(str::to_owned),
        })
    }
}

/// Reads one frame without its length; `None` at the end of the stream between frames.
pub(crate) fn read_frame(stream: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    let mut have = 0;
    while have < length.len() {
        match stream.read(&mut length[have..]) {
            Ok(0) if have == 0 => return Ok(None),
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => have += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let length = usize::try_from(u32::from_be_bytes(length)).expect("usize has 32 bits or more");
    if length > MAX_FRAME {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("a frame of {length} bytes is not Kafka's"),
        ));
    }
    let mut frame = vec![0; length];
    stream.read_exact(&mut frame)?;
    Ok(Some(frame))
}

/// Writes one frame behind its length, in one call to the socket.
pub(crate) fn write_frame(stream: &mut impl Write, frame: &[u8]) -> io::Result<()> {
    let length = u32::try_from(frame.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let mut bytes = Vec::with_capacity(4 + frame.len());
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(frame);
    stream.write_all(&bytes)
}

/// Reads Kafka's types from a frame; every method answers `None` past the end.
pub(crate) struct Reader<'a> {
    frame: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(frame: &'a [u8]) -> Self {
        Self { frame, at: 0 }
    }

    pub(crate) fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let bytes = self.frame.get(self.at..self.at.checked_add(length)?)?;
        self.at += length;
        Some(bytes)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn i16(&mut self) -> Option<i16> {
        self.array().map(i16::from_be_bytes)
    }

    pub(crate) fn i32(&mut self) -> Option<i32> {
        self.array().map(i32::from_be_bytes)
    }

    pub(crate) fn i64(&mut self) -> Option<i64> {
        self.array().map(i64::from_be_bytes)
    }

    pub(crate) fn unsigned_varint(&mut self) -> Option<u32> {
        let mut value = 0_u32;
        for shift in (0..32).step_by(7) {
            let byte = self.u8()?;
            value |= u32::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    /// A nullable string of the older versions.
    pub(crate) fn string(&mut self) -> Option<Option<&'a str>> {
        match self.i16()? {
            -1 => Some(None),
            length => std::str::from_utf8(self.take(usize::try_from(length).ok()?)?).ok().map(Some),
        }
    }

    /// A nullable string of the flexible versions.
    pub(crate) fn compact_string(&mut self) -> Option<Option<&'a str>> {
        match self.unsigned_varint()? {
            0 => Some(None),
            length => {
                let length = usize::try_from(length - 1).ok()?;
                std::str::from_utf8(self.take(length)?).ok().map(Some)
            }
        }
    }

    /// Steps over tagged fields.
    pub(crate) fn tags(&mut self) -> Option<()> {
        for _ in 0..self.unsigned_varint()? {
            self.unsigned_varint()?;
            let size = usize::try_from(self.unsigned_varint()?).ok()?;
            self.take(size)?;
        }
        Some(())
    }
}

/// Appends Kafka's types to a frame.
#[derive(Debug, Default)]
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    /// A frame that begins with a request header; flexible when `flexible`.
    pub(crate) fn request(header: &RequestHeader, flexible: bool) -> Self {
        let mut frame = Self::default()
            .i16(header.api_key.0)
            .i16(header.version)
            .i32(header.correlation_id)
            .string(header.client_id.as_deref());
        if flexible {
            frame = frame.tags();
        }
        frame
    }

    pub(crate) fn u8(mut self, value: u8) -> Self {
        self.0.push(value);
        self
    }

    pub(crate) fn i16(mut self, value: i16) -> Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    pub(crate) fn i32(mut self, value: i32) -> Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    pub(crate) fn i64(mut self, value: i64) -> Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    pub(crate) fn unsigned_varint(mut self, mut value: u32) -> Self {
        while value >= 0x80 {
            self.0.push(u8::try_from(value & 0x7f).expect("seven bits") | 0x80);
            value >>= 7;
        }
        self.0.push(u8::try_from(value).expect("seven bits"));
        self
    }

    pub(crate) fn string(mut self, value: Option<&str>) -> Self {
        match value {
            None => self.i16(-1),
            Some(value) => {
                self =
                    self.i16(i16::try_from(value.len()).expect("a string of the protocol is below 32 KiB"));
                self.0.extend_from_slice(value.as_bytes());
                self
            }
        }
    }

    pub(crate) fn compact_string(mut self, value: &str) -> Self {
        self =
            self.unsigned_varint(u32::try_from(value.len() + 1).expect("a string of the protocol is short"));
        self.0.extend_from_slice(value.as_bytes());
        self
    }

    /// No tagged fields.
    pub(crate) fn tags(self) -> Self {
        self.u8(0)
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_writer_writes_the_reader_reads() {
        let header = RequestHeader {
            api_key: ApiKey::EndTxn,
            version: 3,
            correlation_id: 77,
            client_id: Some("edge".to_owned()),
        };
        let frame = Writer::request(&header, true)
            .compact_string("longhaul.fra.0")
            .i64(1 << 40)
            .unsigned_varint(300)
            .string(None)
            .tags()
            .finish();
        let mut reader = Reader::new(&frame);
        assert_eq!(RequestHeader::read(&mut reader), Some(header));
        reader.tags().unwrap();
        assert_eq!(reader.compact_string(), Some(Some("longhaul.fra.0")));
        assert_eq!(reader.i64(), Some(1 << 40));
        assert_eq!(reader.unsigned_varint(), Some(300));
        assert_eq!(reader.string(), Some(None));
        reader.tags().unwrap();
        assert_eq!(reader.u8(), None);
    }

    #[test]
    fn frames_pass_through_a_stream_and_a_torn_one_is_an_error() {
        let mut stream = Vec::new();
        write_frame(&mut stream, b"one").unwrap();
        write_frame(&mut stream, b"").unwrap();
        let mut reader = &stream[..];
        assert_eq!(read_frame(&mut reader).unwrap().unwrap(), b"one");
        assert_eq!(read_frame(&mut reader).unwrap().unwrap(), b"");
        assert!(read_frame(&mut reader).unwrap().is_none());
        assert!(read_frame(&mut &stream[..5]).is_err());
        assert!(read_frame(&mut &stream[..2]).is_err());
        assert!(read_frame(&mut &b"GET / HTTP/1.1"[..]).is_err());
    }
}
