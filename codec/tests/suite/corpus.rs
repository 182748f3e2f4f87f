//! The fuzz targets' corpus, and what lies next to it, on every run of the tests.

#[path = "../../../fuzz/inputs/parcel.rs"]
mod parcel;
#[path = "../../../fuzz/inputs/records.rs"]
mod records;

use std::io::Read as _;
use std::path::PathBuf;

use longhaul_codec::{Batch, VERSION, avro};
use zstd_safe::{DCtx, InBuffer, OutBuffer};

use crate::support::{Parcel, encode, encoder, noise, oddities, orders, stamp};

/// First byte of a parcel that carries its batch without zstd.
const RAW: u8 = VERSION << 4 | 1;
const FRAME_FLAG: u8 = 2;
const OPENED_FLAG: u8 = 8;

#[test]
fn every_parcel_of_the_corpus_is_decoded_or_refused() {
    replay("parcel", parcel::feed);
}

#[test]
fn all_records_of_the_corpus_come_back() {
    replay("records", records::feed);
}

/// Feeds every input, cut short anywhere, and with single bytes changed.
fn replay(target: &str, feed: fn(&[u8])) {
    let mut inputs = 0;
    for entry in std::fs::read_dir(folder(target)).expect("the corpus is part of the sources") {
        let path = entry.expect("an entry of the corpus").path();
        let input = std::fs::read(&path).expect("a readable input");
        let feed = |input: &[u8]| {
            let fed = std::panic::catch_unwind(|| feed(input));
            assert!(fed.is_ok(), "{}, as it is or changed: see the panic above", path.display());
        };
        feed(&input);
        let step = 1 + input.len() / 60;
        for at in (0..input.len()).step_by(step) {
            feed(&input[..at]);
            for change in [1, 0x80, 0xff] {
                let mut changed = input.clone();
                changed[at] ^= change;
                feed(&changed);
            }
        }
        inputs += 1;
    }
    assert!(inputs >= 3, "{inputs} inputs");
}

/// The text of a record.
type Line = fn(u64) -> String;

fn folder(target: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "..", "fuzz", "corpus", target].iter().collect()
}

#[test]
#[ignore = "writes the corpus's beginnings, for a new version of the format"]
fn write_the_corpus() {
    let lines: [(&str, Line); 6] = [
        ("json", |i| {
            let time = format!("2023-05-28T20:{:02}:{:02}.{:03}Z", i / 60, i % 60, i * 7 % 1000);
            format!(
                "{{\"id\":{i},\"at\":\"{time}\",\"v\":{}.25,\"tags\":[\"a\",\"b{}\"],\"n\":null}}",
                i * 3,
                i % 4
            )
        }),
        ("changes", |i| {
            let row =
                |state: u64| format!("{{\"id\":{i},\"state\":{state},\"t\":{}}}", 1_685_304_000_000 + i * 13);
            let (before, after) = (row(i % 3), row(i % 3 + 1));
            format!(
                "{{\"before\":{before},\"after\":{after},\"lsn\":{},\"ts_us\":{}}}",
                i * 99,
                (1_685_304_000_000 + i * 13) * 1000
            )
        }),
        ("csv", |i| {
            format!(
                "vm-{},{},{}.{:02},{:08x}-12ab-4cd0-a111-{:012x}",
                i % 5,
                1_500_000_000 + i * 300,
                i % 9,
                i % 100,
                i * 7919,
                i * i
            )
        }),
        ("log", |i| {
            format!(
                "10.0.0.{} - - [28/May/2023:20:05:{:02} +0000] \"GET /a/{i} HTTP/1.1\" 200 {}",
                i % 9,
                i % 60,
                i * 31
            )
        }),
        ("packed", |i| {
            format!(
                "{:032x} SGVsbG8gd29ybG{}= {}",
                u128::from(i) * 0x9e37_79b9_7f4a_7c15,
                ["Q", "R", "S"][i as usize % 3],
                i % 2 == 0
            )
        }),
        ("whole", |i| String::from_utf8_lossy(&noise(i, 30)).into_owned()),
    ];
    for (name, line) in lines {
        let batches: Vec<Batch> = (0..4).map(|parcel| batch(parcel, line)).collect();
        write("parcel", name, &plain_parcels(&batches));
        let texts = (0..3).map(|parcel| {
            let records = (0..8).map(|i| format!("key-{}\x1f{}", i % 3, line(parcel * 8 + i)));
            records.collect::<Vec<_>>().join("\x1e")
        });
        write("records", name, texts.collect::<Vec<_>>().join("\x1d").as_bytes());
    }
    write("parcel", "oddities", &plain_parcels(&[oddities(), orders(0, 3), oddities()]));
    write("parcel", "binary", &plain_parcels(&(0..8).map(binary).collect::<Vec<_>>()));
    write("parcel", "opened", &plain_parcels(&(0..4).map(compressed).collect::<Vec<_>>()));
    let mut encoder = encoder();
    let packed = [orders(0, 4), oddities()].map(|batch| file(&encode(&mut encoder, &batch))).concat();
    write("parcel", "zstd", &packed);
}

/// Records of [`SCHEMA`].
fn binary(parcel: u64) -> Batch {
    values(parcel, 40, |i| {
        let mut value = vec![0, 0, 0, 0, 9, 0x80 | (i as u8 & 0x3f) << 1, 1 + (i >> 6) as u8, 6];
        value.extend(format!("{:03}", i % 7).into_bytes());
        value.extend(if i % 3 == 0 { vec![0] } else { vec![2, (i % 9) as u8 * 2] });
        value.extend((i as f64 / 4.0).to_le_bytes());
        value
    })
}

const SCHEMA: &str = r#"{"type":"record","name":"R","fields":[{"name":"n","type":"long"},{"name":"s","type":"string"},
    {"name":"o","type":["null","int"]},{"name":"d","type":"double"}]}"#;

/// Text in gzip.
fn compressed(parcel: u64) -> Batch {
    values(parcel, 6, |i| {
        let text: String =
            (0..9).map(|row| format!("{{\"id\":{},\"row\":\"{}\"}}\n", i * 9 + row, row % 4)).collect();
        let mut packed = Vec::new();
        let mut encoder = flate2::read::GzEncoder::new(text.as_bytes(), flate2::Compression::new(6));
        encoder.read_to_end(&mut packed).expect("from memory");
        packed
    })
}

fn values(parcel: u64, count: u64, value: impl Fn(u64) -> Vec<u8>) -> Batch {
    let mut batch = Batch::new();
    let group = batch.group_index(1);
    for i in parcel * count..(parcel + 1) * count {
        batch.push(group, i as i64, 1_700_000_000_000 + i as i64 * 50, None, Some(&value(i)), []);
    }
    stamp(&mut batch, group, (parcel * count) as i64, ((parcel + 1) * count) as i64);
    batch
}

fn batch(parcel: u64, line: Line) -> Batch {
    let mut batch = Batch::new();
    let group = batch.group_index(1);
    for i in parcel * 6..parcel * 6 + 6 {
        let (key, value) = (format!("key-{}", i % 3), line(i));
        batch.push(
            group,
            i as i64,
            1_700_000_000_000 + i as i64 * 50,
            Some(key.as_bytes()),
            Some(value.as_bytes()),
            [],
        );
    }
    stamp(&mut batch, group, parcel as i64 * 6, parcel as i64 * 6 + 6);
    batch
}

/// Parcels without zstd, so that a changed byte is one of the format.
fn plain_parcels(batches: &[Batch]) -> Vec<u8> {
    let (mut encoder, mut context) = (encoder(), DCtx::create());
    encoder.use_avro(None, Some(9), avro::Schema::parse(SCHEMA).expect("a sound schema").into());
    let mut parcels = Vec::new();
    for batch in batches {
        let Parcel { mut coded, plain } = encode(&mut encoder, batch);
        let flags = coded[0] & 0x0f;
        if flags & 1 == 0 {
            let digits = |from: usize| 1 + coded[from..].iter().take_while(|byte| **byte >= 0x80).count();
            // With values opened there is a second number.
            let mut numbers = digits(1);
            if flags & OPENED_FLAG != 0 {
                numbers += digits(1 + numbers);
            }
            let digits = numbers;
            let (size, body) = coded[1..].split_at(digits);
            if flags & FRAME_FLAG != 0 {
                context.reset(zstd_safe::ResetDirective::SessionOnly).expect("a context");
            }
            let mut serialized = Vec::with_capacity(1 << 20);
            let mut output = OutBuffer::around(&mut serialized);
            context.decompress_stream(&mut output, &mut InBuffer::around(body)).expect("a sound parcel");
            coded = [&[RAW | flags & OPENED_FLAG][..], size, &serialized].concat();
        }
        parcels.extend(file(&Parcel { coded, plain }));
    }
    parcels
}

fn file(parcel: &Parcel) -> Vec<u8> {
    let length = parcel.coded.len() as u32;
    [&parcel.plain.to_le_bytes()[..], &length.to_le_bytes(), &parcel.coded].concat()
}

fn write(target: &str, name: &str, bytes: &[u8]) {
    std::fs::write(folder(target).join(name), bytes).expect("the folder is part of the sources");
}
