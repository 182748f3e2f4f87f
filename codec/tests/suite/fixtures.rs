//! What a version has written, later versions read: the format's promise.
//!
//! A fixture is a lane epoch as a file: per parcel u32 plain size, u32 coded size (little endian) and the body.
//! Fixtures are never changed. A new version adds its own:
//! `cargo test -p longhaul-codec --test suite -- --ignored write_the_fixture`.

use std::path::PathBuf;

use longhaul_codec::{Batch, VERSION};

use crate::shapes::kinds;
use crate::support::{Parcel, decoder, encode, encoder, noise, oddities, orders, stamp};

/// Sent as version 1: text, oddities, a change of level, parcels without zstd, a group without records.
fn version_1() -> Vec<Batch> {
    let mut batches = vec![orders(0, 8), oddities(), orders(1, 8)];
    batches.extend((0..3).map(|seed| {
        let mut batch = Batch::new();
        let group = batch.group_index(9);
        let length = if seed == 0 { 140_000 } else { 1_500 };
        batch.push(group, seed, seed, Some(b"noise"), Some(&noise(seed as u64, length)), []);
        stamp(&mut batch, group, seed, seed + 1);
        batch
    }));
    let mut empty = Batch::new();
    let group = empty.group_index(0);
    stamp(&mut empty, group, 16, 20);
    batches.extend([empty, orders(2, 8)]);
    batches
}

/// Sent as version 2: the same, then records of every kind by shapes, apart and mixed, timestamps of a coarse clock and
/// of a fine one.
fn version_2() -> Vec<Batch> {
    let mut batches = version_1();
    let mut next = [0i64; 17];
    for parcel in 0..8u64 {
        let mut batch = Batch::new();
        for i in parcel * 30..(parcel + 1) * 30 {
            for (kind, (key, value)) in kinds(i).into_iter().enumerate() {
                let slot = if i % 3 == 0 { 16 } else { kind };
                let group = batch.group_index(1000 + slot as u32);
                let fine = if parcel < 4 { 0 } else { i64::from(noise(i, 1)[0]) };
                let time = 1_700_000_000_000 + i as i64 * 5_000 + fine;
                batch.push(group, next[slot], time, key.as_deref(), value.as_deref(), []);
                next[slot] += 1;
            }
        }
        for group in 0..batch.groups().len() {
            let slot = batch.groups()[group].slot as usize - 1000;
            let first = next[slot] - batch.group_record_count(group) as i64;
            stamp(&mut batch, group, first, next[slot]);
        }
        batches.push(batch);
    }
    batches
}

fn path(version: u8) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "fixtures", &format!("v{version}.lane")].iter().collect()
}

fn parcels(mut file: &[u8]) -> Vec<Parcel> {
    let mut parcels = Vec::new();
    while let Some((head, rest)) = file.split_first_chunk::<8>() {
        let number = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().expect("four bytes"));
        let (coded, rest) = rest.split_at(number(4) as usize);
        parcels.push(Parcel { coded: coded.to_vec(), plain: number(0) });
        file = rest;
    }
    assert!(file.is_empty(), "the fixture ends with a parcel");
    parcels
}

#[test]
fn version_1_is_still_read() {
    let (mut decoder, expected) = (decoder(), version_1());
    let parcels = parcels(&std::fs::read(path(1)).expect("the fixture is part of the sources"));
    let decoded: Vec<_> = parcels
        .iter()
        .map(|parcel| decoder.decode(&parcel.coded, parcel.plain).expect("version 1"))
        .collect();
    assert!(decoded == expected);
    let firsts: Vec<u8> = parcels.iter().map(|parcel| parcel.coded[0]).collect();
    assert_eq!(firsts, [0x12, 0x10, 0x12, 0x10, 0x11, 0x11, 0x10, 0x10], "every flag is covered");
}

#[test]
fn version_2_is_still_read() {
    let (mut decoder, expected) = (decoder(), version_2());
    let parcels = parcels(&std::fs::read(path(2)).expect("the fixture is part of the sources"));
    assert_eq!(parcels.len(), expected.len());
    for (parcel, expected) in parcels.iter().zip(&expected) {
        assert!(decoder.decode(&parcel.coded, parcel.plain).expect("version 2") == *expected);
        assert_eq!(parcel.coded[0] >> 4, 2);
    }
}

#[test]
#[ignore = "writes the fixture of a new version; never again for an old one"]
fn write_the_fixture() {
    let mut encoder = encoder();
    let mut file = Vec::new();
    for (number, batch) in version_2().iter().enumerate() {
        if number == 2 {
            encoder.set_level(9);
        }
        let parcel = encode(&mut encoder, batch);
        file.extend(parcel.plain.to_le_bytes());
        file.extend((parcel.coded.len() as u32).to_le_bytes());
        file.extend(parcel.coded);
    }
    let path = path(VERSION);
    assert!(!path.exists(), "{} is a promise and stays as it is", path.display());
    std::fs::write(path, file).expect("the folder is part of the sources");
}
