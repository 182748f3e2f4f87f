//! What zlib itself makes of many kinds of bytes is taken apart and made again.

use std::io::Write;

use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};

use super::opener::reopened;
use super::{Closer, MAX_OPENED, Opener};
use crate::Batch;
use crate::varint::Reader;

fn noise(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed;
    move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 33
    }
}

fn json(records: usize, seed: u64) -> Vec<u8> {
    let mut next = noise(seed);
    let mut text = Vec::new();
    for record in 0..records {
        let (a, b, c) = (next() % 1000, next() % 7, next());
        write!(
            text,
            r#"{{"id":{record},"name":"user-{a}","state":"s{b}","hash":"{c:x}","tags":["a{b}","b"]}},"#
        )
        .expect("to memory");
    }
    text
}

fn samples() -> Vec<Vec<u8>> {
    let mut next = noise(7);
    let random: Vec<u8> = (0..5000).map(|_| next() as u8).collect();
    let few: Vec<u8> = (0..70_000).map(|_| b'a' + (next() % 3) as u8).collect();
    let runs: Vec<u8> = (0..3000).flat_map(|_| vec![next() as u8; (next() % 40) as usize]).collect();
    vec![
        json(1, 1),
        json(12, 2),
        json(800, 3),
        json(6000, 4),
        b"one short line that has next to nothing to repeat".to_vec(),
        vec![0; 100_000],
        random,
        few,
        runs,
    ]
}

fn gzip(plain: &[u8], level: u32) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::new(level));
    encoder.write_all(plain).expect("to memory");
    encoder.finish().expect("to memory")
}

fn zlib(plain: &[u8], level: u32) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::new(level));
    // Not in one piece, as programs write.
    plain.chunks(1000).for_each(|chunk| encoder.write_all(chunk).expect("to memory"));
    encoder.finish().expect("to memory")
}

#[test]
fn what_zlib_makes_at_any_level_is_made_again_without_corrections() {
    for (sample, plain) in samples().iter().enumerate() {
        for level in 1..=9 {
            for value in [gzip(plain, level), zlib(plain, level)] {
                // Stored as it is, too short to be looked at, or holding more than any text would.
                let is_left = value.len() > plain.len() || plain.len() > 200 * value.len();
                match reopened(&value) {
                    Some((held, corrections)) => {
                        assert_eq!(corrections, 0, "sample {sample}, level {level}");
                        assert!(held == *plain);
                    }
                    None => assert!(is_left, "sample {sample}, level {level}"),
                }
            }
        }
    }
}

#[test]
fn what_is_damaged_is_left_alone() {
    for plain in &samples()[..3] {
        let value = gzip(plain, 6);
        // With one bit changed it is another stream, or none.
        for bit in (90..value.len() * 8 - 64).step_by(31 + value.len() / 20) {
            let mut other = value.clone();
            other[bit / 8] ^= 1 << (bit % 8);
            assert!(reopened(&other).is_none(), "the checksum does not fit");
        }
        assert!(reopened(&value[..value.len() - 1]).is_none());
        assert!(reopened(&[&value[..], b"x"].concat()).is_none());
    }
}

fn batch(values: &[Vec<u8>]) -> Batch {
    let mut batch = Batch::new();
    let group = batch.group_index(3);
    for (value, at) in values.iter().zip(0..) {
        batch.push(group, at, at, Some(b"key"), Some(value), []);
    }
    batch.groups_mut()[group].next = values.len() as i64;
    batch
}

#[test]
fn a_batch_is_closed_as_it_was_and_nothing_else_is_believed() {
    let mut values: Vec<Vec<u8>> = (0..40).map(|seed| gzip(&json(10, seed), 6)).collect();
    values.insert(7, b"plain text among them".to_vec());
    let batch = batch(&values);
    let mut opener = Opener::default();
    let opened = opener.open(&batch).expect("it pays");
    assert!(opened.section.len() < 120, "{}", opened.section.len());
    let closed = |section: &[u8], plain: u64| {
        let (mut closer, mut made) = (Closer::default(), opened.batch.clone());
        closer.read(&mut Reader::new(section, "test"), 41)?;
        closer.close(&mut made, plain).map(|()| made)
    };
    let made = closed(&opened.section, batch.plain_size()).expect("what was opened");
    assert!(made.records(0).eq(batch.records(0)));
    assert_eq!(made.group_plain_bytes(0), batch.group_plain_bytes(0));
    assert!(closed(&opened.section, 1000).is_err(), "longer than the plain size allows");
    // Whatever the section says, it is refused or makes something.
    let mut next = noise(5);
    for _ in 0..3000 {
        let mut section = opened.section.clone();
        let at = next() as usize % section.len();
        section[at] = next() as u8;
        let _ = closed(&section, batch.plain_size());
        let _ = closed(&section[..at], batch.plain_size());
    }
}

#[test]
fn a_value_that_holds_more_than_a_parcel_may_is_left_alone() {
    let large = gzip(&json(60_000, 9), 6);
    assert!(reopened(&large).is_none(), "{MAX_OPENED}");
    let bomb = gzip(&vec![0; 3_000_000], 9);
    assert!(reopened(&bomb).is_none());
}

#[test]
fn opening_stops_where_it_does_not_pay_and_is_tried_again() {
    let mut next = noise(11);
    let mut random = || gzip(&(0..2000).map(|_| (next() % 64) as u8).collect::<Vec<u8>>(), 6);
    let mut opener = Opener::default();
    let (mut tried, mut opened) = (0, 0);
    for _ in 0..200 {
        let values: Vec<Vec<u8>> = (0..20).map(|_| random()).collect();
        let before = opener.pauses();
        opened += usize::from(opener.open(&batch(&values)).is_some());
        tried += usize::from(opener.pauses() == 0 || before == 0);
    }
    assert_eq!(opened, 0);
    assert!(tried < 12, "{tried}");
    let values: Vec<Vec<u8>> = (0..20).map(|seed| gzip(&json(20, seed), 6)).collect();
    assert!((0..300).any(|_| opener.open(&batch(&values)).is_some()));
}

/// Of `zlib.gzipSync` of Node 20 on x86-64: three events as JSON.
const OF_NODE: &str = concat!(
    "1f8b080000000000000395d14d4bc3401006e0ff32e735d9afecd759052f7af1262293dd0909b64d",
    "c96e2aa5f4bf4bf4d216ad38e7e17de7615e0e50320461f9f788c63806fd980b04f8a0f6463860b0",
    "a21dad20c0c3e3fd1330c834ed86481020f614dfc7b92c3b586813f76feb25ae125e31c805cb9c21",
    "48ce19cc99260807181204a1a5d70ce2386fcab45f829fe1c8608ba58700356e877a27ea714a34e5",
    "daa8e58432e157634bbc252fd137d15beb5ad49d10928c6aa24b64381cd925c970734e92d7489970",
    "8afd05a8a9b8355740527bf7a76728b4ceb56abc38f168ae62b2ba23871ab9b1ce722f93b7a40425",
    "81f8934789738ff9bfc754468b2b2067b93c05dddefdfe206d943d1121b62e262545e2bc73da3ae3",
    "65d7c9ce792db5c4168eaf9f69b7312b76020000",
);

#[test]
fn what_node_makes_is_opened_too() {
    let digits = OF_NODE.as_bytes().chunks(2).map(|two| std::str::from_utf8(two).expect("two digits"));
    let value: Vec<u8> = digits.map(|two| u8::from_str_radix(two, 16).expect("two digits")).collect();
    let (held, corrections) = reopened(&value).expect("found by four bytes");
    assert!(held.starts_with(b"[{") && corrections <= 1, "{corrections}");
}
