//! What is around a deflate stream: gzip (RFC 1952) or zlib (RFC 1950).

/// Header and kind of a value that is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wrapper {
    Gzip,
    Zlib,
}

/// A value, by its parts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parts<'a> {
    pub(super) wrapper: Wrapper,
    pub(super) header: &'a [u8],
    /// The deflate stream and what follows.
    pub(super) rest: &'a [u8],
}

impl Wrapper {
    /// Bytes of the checksum, and of the length, behind the stream.
    pub(super) fn trailer_bytes(self) -> usize {
        match self {
            Self::Gzip => 8,
            Self::Zlib => 4,
        }
    }

    /// Appends what stands behind the stream of `plain`.
    pub(super) fn put_trailer(self, plain: &[u8], out: &mut Vec<u8>) {
        match self {
            Self::Gzip => {
                out.extend_from_slice(&crc32(plain).to_le_bytes());
                out.extend_from_slice(&(plain.len() as u32).to_le_bytes());
            }
            Self::Zlib => out.extend_from_slice(&adler32(plain).to_be_bytes()),
        }
    }
}

/// Whether `value` begins as one that is compressed.
#[inline]
pub(super) fn is_likely(value: &[u8]) -> bool {
    match value {
        [0x1f, 0x8b, 8, ..] => value.len() >= LEAST,
        [first, second, ..] => {
            first & 0x8f == 8
                && second & 0x20 == 0
                && (u32::from(*first) << 8 | u32::from(*second)).is_multiple_of(31)
                && value.len() >= LEAST
        }
        _ => false,
    }
}

/// Takes a value apart; nothing if its header is none.
pub(super) fn parts(value: &[u8]) -> Option<Parts<'_>> {
    if !is_likely(value) {
        return None;
    }
    let (wrapper, length) = match value[0] {
        0x1f => (Wrapper::Gzip, gzip_header(value)?),
        _ => (Wrapper::Zlib, 2),
    };
    let (header, rest) = value.split_at_checked(length)?;
    Some(Parts { wrapper, header, rest })
}

/// Length of a gzip header.
fn gzip_header(value: &[u8]) -> Option<usize> {
    let flags = *value.get(3)?;
    let mut at = GZIP_HEADER;
    if flags & 0xe0 != 0 {
        return None;
    }
    if flags & 4 != 0 {
        let extra = value.get(at..)?.first_chunk::<2>()?;
        at += 2 + usize::from(u16::from_le_bytes(*extra));
    }
    // Name and comment.
    for flag in [8, 16] {
        if flags & flag != 0 {
            at += value.get(at..)?.iter().position(|byte| *byte == 0)? + 1;
        }
    }
    if flags & 2 != 0 {
        at += 2;
    }
    (at <= MAX_HEADER).then_some(at)
}

/// Where the time stands in a gzip header.
pub(super) const TIME: std::ops::Range<usize> = 4..8;
/// Bytes of a gzip header without extras.
pub(super) const GZIP_HEADER: usize = 10;
/// Longest header that is taken.
pub(super) const MAX_HEADER: usize = 64;
/// Shorter values hold nothing worth the work.
const LEAST: usize = 32;

/// The checksum of gzip, eight bytes at a time.
fn crc32(bytes: &[u8]) -> u32 {
    let mut chunks = bytes.chunks_exact(8);
    let crc = chunks.by_ref().fold(!0u32, |crc, chunk| {
        let low = crc ^ u32::from_le_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]);
        let of = |table: usize, byte: u8| CRC[table][usize::from(byte)];
        let [a, b, c, d] = low.to_le_bytes();
        of(7, a)
            ^ of(6, b)
            ^ of(5, c)
            ^ of(4, d)
            ^ of(3, chunk[4])
            ^ of(2, chunk[5])
            ^ of(1, chunk[6])
            ^ of(0, chunk[7])
    });
    let step = |crc: u32, byte: &u8| crc >> 8 ^ CRC[0][usize::from(crc as u8 ^ byte)];
    !chunks.remainder().iter().fold(crc, step)
}

static CRC: [[u32; 256]; 8] = {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut table = 1;
    while table < 8 {
        byte = 0;
        while byte < 256 {
            let crc: u32 = tables[table - 1][byte];
            tables[table][byte] = crc >> 8 ^ tables[0][(crc & 0xff) as usize];
            byte += 1;
        }
        table += 1;
    }
    tables
};

/// The checksum of zlib.
fn adler32(bytes: &[u8]) -> u32 {
    const PRIME: u32 = 65_521;
    let (mut low, mut high) = (1u32, 0u32);
    // As many as cannot overflow.
    for chunk in bytes.chunks(5552) {
        for byte in chunk {
            low += u32::from(*byte);
            high += low;
        }
        (low, high) = (low % PRIME, high % PRIME);
    }
    high << 16 | low
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_the_formats() {
        assert_eq!((crc32(b""), crc32(b"123456789")), (0, 0xcbf4_3926));
        assert_eq!((adler32(b""), adler32(b"Wikipedia")), (1, 0x11e6_0398));
    }

    #[test]
    fn headers_are_told_from_what_only_looks_like_them() {
        let gzip =
            |flags: u8, rest: &[u8]| [&[0x1f, 0x8b, 8, flags, 0, 0, 0, 0, 0, 3], rest, &[0; 40]].concat();
        assert_eq!(parts(&gzip(0, b"")).map(|parts| parts.header.len()), Some(10));
        assert_eq!(parts(&gzip(8, b"name\0")).map(|parts| parts.header.len()), Some(15));
        assert_eq!(parts(&gzip(4, b"\x03\0abc")).map(|parts| parts.header.len()), Some(15));
        assert_eq!(parts(&gzip(2, b"xy")).map(|parts| parts.header.len()), Some(12));
        assert!(parts(&gzip(0xe0, b"")).is_none());
        assert!(parts(&gzip(8, &[b'n'; 80])).is_none());
        let zlib = |second: u8| parts(&[&[0x78, second][..], &[0; 40]].concat()).is_some();
        assert_eq!((zlib(0x9c), zlib(0x9d), zlib(0x01), zlib(0xda)), (true, false, true, true));
        assert!(parts(b"{\"id\":1,\"text\":\"nothing that is compressed\"}").is_none());
    }
}
