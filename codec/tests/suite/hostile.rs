//! Whatever arrives is decoded into what was sent or refused by name: never a panic, never another batch, nothing
//! allocated on a sender's word alone.

use std::sync::LazyLock;

use longhaul_codec::{Batch, DecodeLimits, Decoder, Error, limits};
use proptest::prelude::*;
use zstd_safe::zstd_sys::ZSTD_EndDirective;
use zstd_safe::{CCtx, CParameter, InBuffer, OutBuffer};

use crate::support::{Parcel, decoder, encode, encoder, noise, oddities, orders};

const RAW: u8 = 0x11;
const CONTINUED: u8 = 0x10;
const FRAME: u8 = 0x12;

/// A parcel body: first byte, declared serialized size, the rest.
fn body(first: u8, serialized: u64, rest: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    put(&mut bytes, serialized);
    bytes.extend_from_slice(rest);
    bytes
}

fn put(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

/// A serialized batch as a raw parcel, with a checksum of zero behind the sections.
fn raw(sections: &[u8]) -> Vec<u8> {
    let serialized = [sections, &[0; 8]].concat();
    body(RAW, serialized.len() as u64, &serialized)
}

fn refused(coded: &[u8], plain: u32) -> Error {
    refused_by(&mut decoder(), coded, plain)
}

/// The error of `coded`, after which the decoder decodes nothing more.
fn refused_by(decoder: &mut Decoder, coded: &[u8], plain: u32) -> Error {
    let error = decoder.decode(coded, plain).expect_err("is refused");
    let sound = encode(&mut encoder(), &orders(0, 1));
    assert_eq!(decoder.decode(&sound.coded, sound.plain), Err(Error::Poisoned), "after {error}");
    error
}

/// One zstd frame as the encoder makes it, of pieces that are flushed apart.
fn frame(parameters: &[CParameter], pieces: &[&[u8]], last: ZSTD_EndDirective) -> Vec<u8> {
    let mut context = CCtx::create();
    parameters.iter().for_each(|parameter| _ = context.set_parameter(*parameter).expect("a valid parameter"));
    let mut out = Vec::with_capacity(1 << 20);
    for (index, piece) in pieces.iter().enumerate() {
        let directive = if index + 1 == pieces.len() { last } else { ZSTD_EndDirective::ZSTD_e_flush };
        let position = out.len();
        let mut output = OutBuffer::around_pos(&mut out, position);
        let left = context.compress_stream2(&mut output, &mut InBuffer::around(piece), directive);
        assert_eq!(left, Ok(0));
    }
    out
}

fn flushed(bytes: &[u8]) -> Vec<u8> {
    frame(&[], &[bytes], ZSTD_EndDirective::ZSTD_e_flush)
}

#[test]
fn sizes_are_refused_before_anything_is_allocated() {
    let limit = limits::MAX_PLAIN.into();
    assert_eq!(refused(&[RAW], 1 << 31), Error::TooMuch { what: "plain bytes", actual: 1 << 31, limit });
    let limit = limits::serialized_bound(1000);
    let declared = body(FRAME, 1 << 31, &flushed(b"x"));
    assert_eq!(refused(&declared, 1000), Error::TooMuch { what: "serialized bytes", actual: 1 << 31, limit });
    let tight = DecodeLimits { max_coded: 100, ..DecodeLimits::default() };
    let mut decoder = Decoder::new(tight).expect("valid limits");
    let error = refused_by(&mut decoder, &[0; 101], 1000);
    assert_eq!(error, Error::TooMuch { what: "coded bytes", actual: 101, limit: 100 });
}

#[test]
fn other_versions_and_unknown_flags_are_named() {
    assert_eq!(refused(&body(0x30, 9, &[0; 9]), 0), Error::Version(3));
    assert_eq!(refused(&body(0x14, 9, &[0; 9]), 0), Error::Flags(4));
    assert_eq!(refused(&body(0x13, 9, &[0; 9]), 0), Error::Flags(3));
    assert_eq!(refused(&[0x14], 0), Error::Flags(4), "version 1 never rests");
    assert_eq!(refused(&[0x25], 0), Error::Flags(5));
    assert_eq!(refused(&[0x24, 0], 0), size("parcel of a lane that rests", 1, 2));
    assert_eq!(refused(&[0x24], 32), size("plain batch", 32, 0));
    assert_eq!(refused(&[], 0), Error::Truncated { section: "preface" });
    assert_eq!(refused(&[RAW, 0x80], 0), Error::Truncated { section: "preface" });
    assert_eq!(refused(&body(RAW, 8, &[0; 9]), 0), size("serialized batch", 8, 9));
}

#[test]
fn only_a_plain_zstd_frame_is_accepted() {
    let magic = 0xFD2F_B528_u32.to_le_bytes();
    // Legacy frames of zstd 0.1 and 0.7, a skippable frame, noise.
    for other in [0xFD2F_B51E_u32, 0xFD2F_B527, 0x184D_2A50, 0x1234_5678] {
        let bytes = [&other.to_le_bytes()[..], &[0; 20]].concat();
        assert_eq!(refused(&body(FRAME, 100, &bytes), 1000), Error::Magic);
    }
    assert_eq!(refused(&body(FRAME, 100, &magic), 1000), Error::Truncated { section: "zstd frame header" });
    let checksummed = frame(&[CParameter::ChecksumFlag(true)], &[b"text"], ZSTD_EndDirective::ZSTD_e_flush);
    assert_eq!(refused(&body(FRAME, 4, &checksummed), 1000), Error::FrameHeader(0x04));
    let sized = frame(&[], &[b"text"], ZSTD_EndDirective::ZSTD_e_end);
    assert_eq!(refused(&body(FRAME, 4, &sized), 1000), Error::FrameHeader(0x20));
    let wide = frame(&[CParameter::WindowLog(23)], &[b"text"], ZSTD_EndDirective::ZSTD_e_flush);
    assert_eq!(refused(&body(FRAME, 4, &wide), 1000), Error::Window { window: 1 << 23, limit: 1 << 22 });
    let slightly_wide = [&magic[..], &[0, 12 << 3 | 1], &[0; 20]].concat();
    assert!(matches!(refused(&body(FRAME, 4, &slightly_wide), 1000), Error::Window { .. }));
    assert_eq!(refused(&body(CONTINUED, 4, &flushed(b"text")), 1000), Error::NoFrame);
    let ended = frame(&[], &[b"te", b"xt"], ZSTD_EndDirective::ZSTD_e_end);
    assert_eq!(refused(&body(FRAME, 4, &ended), 1000), Error::FrameEnded);
    let corrupt = [&magic[..], &[0, 12 << 3], &[0xff; 20]].concat();
    assert!(matches!(refused(&body(FRAME, 4, &corrupt), 1000), Error::Zstd(_)));
}

#[test]
fn a_bomb_is_refused_at_the_declared_size() {
    let bomb = flushed(&vec![0; 64 << 20]);
    assert!(bomb.len() < 10_000);
    let Error::SizeMismatch { what, declared, actual } = refused(&body(FRAME, 1000, &bomb), 1000) else {
        panic!("another error");
    };
    assert_eq!((what, declared), ("serialized batch", 1000));
    assert!(actual <= 1001, "{actual} bytes were decompressed");
}

#[test]
fn bytes_left_in_the_context_are_refused() {
    // 5,536 bytes more than declared: they would have become the next parcel's.
    let more = flushed(&noise(1, 65_536));
    assert!(matches!(
        refused(&body(FRAME, 60_000, &more), 60_000),
        Error::SizeMismatch { actual: 60_001, .. }
    ));
    // Less than declared, as the last block, a stored one, is cut off.
    let cut = &flushed(&noise(1, 1000))[..900];
    assert_eq!(refused(&body(FRAME, 1000, cut), 1000), size("serialized batch", 1000, 900 - 6 - 3));
    // The beginning of a block that the next parcel would go on with.
    let sound = encode(&mut encoder(), &orders(0, 10));
    for extra in 1..=2 {
        let longer = [sound.coded.as_slice(), &vec![0; extra]].concat();
        assert_eq!(refused(&longer, sound.plain), Error::Leftover);
    }
}

#[test]
fn unknown_kinds_are_named_with_their_section() {
    let group = [1, 1, 0, 0, 1, 0];
    let cases: [(&str, &[u8]); 6] = [
        ("offsets", &[]),
        ("timestamps", &[8]),
        ("headers", &[8, 0x10, 0]),
        ("payload", &[8, 0x10, 0, 0x18]),
        ("key lengths", &[8, 0x10, 0, 0x18, 0x20]),
        ("value lengths", &[8, 0x10, 0, 0x18, 0x20, 0x28, 0]),
    ];
    assert_eq!(refused(&raw(&[0x7e, 0, 0, 0]), 0), Error::UnknownKind { section: "groups", kind: 0x7e });
    for (section, before) in cases {
        let sections = [&group[..], before, &[0x7f, 0, 0, 0, 0]].concat();
        assert_eq!(refused(&raw(&sections), 64), Error::UnknownKind { section, kind: 0x7f });
    }
}

#[test]
fn counts_are_bounded_by_what_is_left_and_by_the_limits() {
    let too_much = |sections: &[u8], plain| match refused(&raw(sections), plain) {
        Error::TooMuch { what, actual, limit } => (what, actual, limit),
        other => panic!("{other:?}"),
    };
    assert_eq!(too_much(&[1, 100, 0, 0, 0, 0], 3200), ("groups", 100, 1));
    let few = raw(&[1, 1, 0, 0, 100, 0, 8, 0x10, 0]);
    assert_eq!(refused(&few, 3232), Error::Truncated { section: "timestamps" });
    let named = [1, 1, 0, 0, 1, 0, 8, 0x10, 0, 0x19, 100, 0, 0];
    assert_eq!(too_much(&named, 864), ("headers", 100, 1));

    let parcel = encode(&mut encoder(), &orders(0, 10));
    let refused =
        |limits: DecodeLimits| match Decoder::new(limits).expect("valid").decode(&parcel.coded, parcel.plain)
        {
            Err(Error::TooMuch { what, actual, limit }) => (what, actual, limit),
            other => panic!("{other:?}"),
        };
    let limits = DecodeLimits::default;
    assert_eq!(refused(DecodeLimits { max_groups: 2, ..limits() }), ("groups", 3, 2));
    assert_eq!(refused(DecodeLimits { max_records: 29, ..limits() }), ("records", 30, 29));
    assert_eq!(refused(DecodeLimits { max_headers: 59, ..limits() }), ("headers", 2, 1));
    let max_plain = parcel.plain - 1;
    assert_eq!(refused(DecodeLimits { max_plain, ..limits() }).0, "plain bytes");
}

#[test]
fn the_plain_size_must_be_exact() {
    let parcel = encode(&mut encoder(), &orders(0, 10));
    for plain in [parcel.plain - 1, parcel.plain + 1, parcel.plain - 1000] {
        let error = refused(&parcel.coded, plain);
        let named = matches!(error, Error::SizeMismatch { what: "plain batch", .. } | Error::Column { .. });
        assert!(named, "{error}");
    }
    // Lengths that no budget covers, among them the largest there is.
    for length in [100, u64::from(u32::MAX), u64::from(u32::MAX) + 1, u64::MAX] {
        let mut sections = vec![1, 1, 0, 0, 1, 0, 8, 0x10, 0, 0x18, 0x20, 0x28];
        put(&mut sections, length);
        sections.extend([0x28, 0]);
        assert!(matches!(refused(&raw(&sections), 100), Error::SizeMismatch { what: "plain batch", .. }));
    }
}

#[test]
fn groups_that_make_no_sense_are_named() {
    assert_eq!(refused(&raw(&[1, 1, 9, 0x04, 0, 0]), 32), Error::GroupFlags { slot: 9, flags: 4 });
    assert_eq!(refused(&raw(&[1, 1, 9, 0x40, 0, 0]), 32), Error::GroupFlags { slot: 9, flags: 0x40 });
    let range = Error::OffsetRange { slot: 9 };
    // More offsets than there are: in the count, and in the range.
    let mut endless = vec![1, 1, 9, 0, 1];
    put(&mut endless, u64::MAX);
    assert_eq!(refused(&raw(&endless), 64), range);
    let mut reversed = vec![1, 1, 9, 0, 0];
    put(&mut reversed, 1 << 63);
    assert_eq!(refused(&raw(&reversed), 32), range);
    // Two records and one offset missing: runs of none, of too many, beyond the end.
    for runs in [[0, 0, 0, 0], [0, 3, 0, 0], [2, 2, 0, 0], [0, 1, 2, 1]] {
        let sections = [&[1, 1, 9, 0, 2, 1, 8][..], &runs, &[0; 6]].concat();
        assert_eq!(refused(&raw(&sections), 96), range, "{runs:?}");
    }
    let mut far = vec![1, 1, 9, 0, 2, 1, 8];
    put(&mut far, u64::MAX);
    far.extend([1, 0, 0, 0, 0, 0]);
    assert_eq!(refused(&raw(&far), 96), range);
    let mut slot = vec![1, 1];
    put(&mut slot, 1 << 32);
    assert_eq!(refused(&raw(&[&slot[..], &[0; 4]].concat()), 32), Error::Number { section: "groups" });
}

#[test]
fn header_names_must_be_defined_and_fit() {
    let before = [1, 1, 0, 0, 1, 0, 8, 0x10, 0, 0x19, 1];
    let header = |reference: &[u8]| raw(&[&before[..], reference, &[0; 8]].concat());
    assert_eq!(refused(&header(&[2, 0]), 72), Error::HeaderName(0));
    let long = [&[1, 0x81, 0x02][..], &[b'n'; 257], &[0]].concat();
    assert_eq!(refused(&header(&long), 72 + 257), Error::HeaderNameDefinition(257));
    let cut = raw(&[&before[..], &[0, 100, 0]].concat());
    assert_eq!(refused(&cut, 1000), Error::Truncated { section: "headers" });
}

#[test]
fn every_section_may_be_cut_short_and_none_may_be_long() {
    let whole = [1, 1, 0, 0, 1, 0, 8, 0x10, 0, 0x18, 0x20, 0x28, 2, 0x28, 2, b'k', b'v'];
    for end in 0..whole.len() {
        let error = refused(&raw(&whole[..end]), 66);
        let cut = matches!(error, Error::Truncated { .. } | Error::TooMuch { .. });
        assert!(cut, "cut after {end}: {error}");
    }
    assert!(matches!(refused(&raw(&whole), 66), Error::Checksum { expected: 0, .. }));
    assert_eq!(refused(&raw(&[&whole[..], &[0; 3]].concat()), 66), Error::Trailing(3));
    assert_eq!(refused(&body(RAW, 7, &[0; 7]), 0), Error::Truncated { section: "checksum" });
}

#[test]
fn a_parcel_out_of_turn_is_never_taken_for_another() {
    let mut encoder = encoder();
    let parcels: Vec<_> = (0..4).map(|number| encode(&mut encoder, &orders(number, 30))).collect();
    // Left out, repeated, exchanged.
    for order in [&[0, 2][..], &[0, 0], &[0, 1, 1], &[1], &[0, 1, 3, 2]] {
        let mut decoder = decoder();
        let mut failed = false;
        for (place, number) in order.iter().enumerate() {
            let Parcel { coded, plain } = &parcels[*number];
            match decoder.decode(coded, *plain) {
                Ok(batch) => assert!(!failed && batch == orders(place as i64, 30), "{order:?}"),
                Err(_) => failed = true,
            }
        }
        assert!(failed, "{order:?}");
    }
}

/// Three parcels, the last of them stored, as the encoder does with what does not compress: there every byte of the
/// batch lies open to damage.
fn sample() -> (Vec<Batch>, Vec<Parcel>) {
    static SAMPLE: LazyLock<(Vec<Batch>, Vec<Parcel>)> = LazyLock::new(|| {
        let mut encoder = encoder();
        let batches = vec![orders(0, 8), oddities(), orders(1, 2)];
        let mut parcels: Vec<_> = batches.iter().map(|batch| encode(&mut encoder, batch)).collect();
        let mut stream = Vec::with_capacity(1 << 20);
        let mut context = zstd_safe::DCtx::create();
        for parcel in &mut parcels {
            let (declared, rest) = split(&parcel.coded);
            let before = stream.len();
            let (mut output, mut input) =
                (OutBuffer::around_pos(&mut stream, before), InBuffer::around(rest));
            while input.pos() < rest.len() {
                context.decompress_stream(&mut output, &mut input).expect("sound");
            }
            assert_eq!(stream.len() - before, declared);
        }
        let (declared, _) = split(&parcels[2].coded);
        parcels[2].coded = body(RAW, declared as u64, &stream[stream.len() - declared..]);
        (batches, parcels)
    });
    SAMPLE.clone()
}

/// The serialized size that a body declares, and what follows it.
fn split(coded: &[u8]) -> (usize, &[u8]) {
    let length = 1 + coded[1..].iter().take_while(|byte| **byte >= 0x80).count();
    let size = coded[1..=length].iter().rev().fold(0, |size, byte| size << 7 | usize::from(byte & 0x7f));
    (size, &coded[length + 1..])
}

/// Decodes until an error; what was decoded must be what was sent.
fn assert_same_or_refused(batches: &[Batch], parcels: &[Parcel]) -> usize {
    let mut decoder = decoder();
    let mut decoded = 0;
    for (batch, parcel) in batches.iter().zip(parcels) {
        match decoder.decode(&parcel.coded, parcel.plain) {
            Ok(received) => assert_eq!(&received, batch),
            Err(_) => break,
        }
        decoded += 1;
    }
    decoded
}

#[test]
fn the_damaged_sample_is_sound_before_the_damage() {
    let (batches, parcels) = sample();
    assert_eq!(assert_same_or_refused(&batches, &parcels), 3);
}

#[test]
fn every_single_flipped_bit_of_a_raw_parcel_is_refused() {
    let (batches, parcels) = sample();
    for bit in 0..parcels[2].coded.len() * 8 {
        let mut damaged = parcels.clone();
        damaged[2].coded[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(assert_same_or_refused(&batches, &damaged), 2, "bit {bit}");
    }
}

#[test]
fn every_truncation_is_refused() {
    let (batches, parcels) = sample();
    for number in 0..parcels.len() {
        for length in 0..parcels[number].coded.len() {
            let mut damaged = parcels.clone();
            damaged[number].coded.truncate(length);
            assert_eq!(
                assert_same_or_refused(&batches, &damaged),
                number,
                "{length} bytes of parcel {number}"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn flipped_bits_never_yield_another_batch(flips in proptest::collection::vec(any::<(u8, u32)>(), 1..4)) {
        let (batches, mut parcels) = sample();
        for (number, bit) in flips {
            let coded = &mut parcels[usize::from(number) % 3].coded;
            let bit = bit as usize % (coded.len() * 8);
            coded[bit / 8] ^= 1 << (bit % 8);
        }
        assert_same_or_refused(&batches, &parcels);
    }

    #[test]
    fn spliced_parcels_never_yield_another_batch(
        (number, from) in (0..3usize, 0..3usize), (at, start, length) in any::<(u16, u16, u16)>(),
    ) {
        let (batches, mut parcels) = sample();
        let donor = parcels[from].coded.clone();
        let start = usize::from(start) % donor.len();
        let piece = &donor[start..(start + usize::from(length)).min(donor.len())];
        let coded = &mut parcels[number].coded;
        let at = usize::from(at) % coded.len();
        let end = (at + piece.len()).min(coded.len());
        coded.splice(at..end, piece.iter().copied());
        assert_same_or_refused(&batches, &parcels);
    }

    #[test]
    fn any_bytes_are_decoded_or_refused(
        first in prop_oneof![Just(RAW), Just(FRAME), any::<u8>()],
        bytes in proptest::collection::vec(prop_oneof![0..4u8, any::<u8>()], 0..200), plain in 0..5000u32,
    ) {
        let coded = body(first, bytes.len() as u64, &bytes);
        let _ = decoder().decode(&coded, plain);
    }

    /// Past the first kinds, where the counts and lengths are.
    #[test]
    fn any_sections_are_decoded_or_refused(
        records in 0..6u8, missing in 0..3u8, rest in proptest::collection::vec(0..5u8, 0..60), plain in 0..600u32,
        headers in 0x18..0x1au8,
    ) {
        let mut sections = vec![1, 1, 0, 0, records, missing, 8];
        sections.extend((0..missing).map(|_| 1));
        sections.push(0x10);
        sections.extend((0..records).map(|_| 2));
        sections.push(headers);
        sections.extend(rest);
        prop_assert!(decoder().decode(&raw(&sections), plain).is_err(), "the checksum is wrong at least");
    }
}

fn size(what: &'static str, declared: u64, actual: u64) -> Error {
    Error::SizeMismatch { what, declared, actual }
}
