//! Records that look real and are damaged: bits flipped, ends cut off, pieces moved, one format spliced into another.
//! Each of them comes back as it was.
//!
//! | variable | meaning |
//! |---|---|
//! | `LONGHAUL_MUTATIONS` | how many records; a million take a minute or so in a release build. Default 50,000 |
//! | `LONGHAUL_MUTATION_SEED` | where to begin. Default 1; a failure names it |
//! | `LONGHAUL_MUTATION_DATA` | folder of `.kds.zst` topics whose records are damaged too. Default: none |

use std::io::Read as _;
use std::path::Path;

use longhaul_codec::{Batch, Decoder, Encoder, avro};
use zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer};

use crate::support::{decoder, encoder, stamp};

/// Parcels of one lane epoch, at most.
const PARCELS: u64 = 40;
/// Source partitions of the lane.
const SLOTS: u64 = 5;
/// Records that are taken of a file.
const SAMPLE: usize = 3000;

#[test]
fn damaged_records_come_back_as_they_were() {
    let number = |name: &str, default: u64| {
        std::env::var(name).map_or(default, |text| text.parse().expect("a number in the environment"))
    };
    let (wanted, first) = (number("LONGHAUL_MUTATIONS", 50_000), number("LONGHAUL_MUTATION_SEED", 1));
    let samples = samples();
    let (mut records, mut seed) = (0, first);
    while records < wanted {
        records += lane_epoch(seed, &samples, (wanted - records).max(1));
        seed += 1;
    }
    eprintln!("{records} damaged records came back as they were, seeds {first} to {}", seed - 1);
}

/// Sends parcels of a lane epoch of its own until there are `most` records or enough parcels; says how many it sent.
fn lane_epoch(seed: u64, samples: &[Vec<Record>], most: u64) -> u64 {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let formats: Vec<usize> =
        (0..1 + random.below(4)).map(|_| random.index(FORMATS + samples.len())).collect();
    // From hardly any to most.
    let damaged = [2, 10, 30, 70][random.index(4)];
    let (mut encoder, mut decoder) = (encoder(), decoder());
    if random.below(4) > 0 {
        let schema = avro::Schema::parse(SCHEMA).expect("a sound schema");
        encoder.use_avro(None, [Some(9), None][random.index(2)], schema.into());
    }
    let mut next = [0i64; SLOTS as usize];
    let mut sent = 0;
    for parcel in 0..PARCELS {
        if sent >= most {
            break;
        }
        if random.below(20) == 0 {
            encoder.set_level(1 + random.below(9) as i32);
        }
        let most = [4, 40, 300][random.index(3)];
        let count = 1 + random.below(most);
        let mut batch = Batch::new();
        for _ in 0..count {
            let (key, value) = record(&mut random, &formats, samples, sent, damaged);
            let slot = random.below(SLOTS);
            let group = batch.group_index(slot as u32);
            let offset = next[slot as usize] + batch.group_record_count(group) as i64;
            let time = 1_700_000_000_000 + sent as i64 * 7 + random.below(5) as i64;
            batch.push(group, offset, time, key.as_deref(), value.as_deref(), []);
            sent += 1;
        }
        for group in 0..batch.groups().len() {
            let slot = batch.groups()[group].slot as usize;
            let after = next[slot] + batch.group_record_count(group) as i64;
            stamp(&mut batch, group, next[slot], after);
            next[slot] = after;
        }
        arrives(&mut encoder, &mut decoder, &batch, || {
            format!("parcel {parcel}; again with LONGHAUL_MUTATION_SEED={seed}")
        });
    }
    assert!(encoder.memory() < 32 << 20 && decoder.memory() < 32 << 20, "seed {seed}");
    sent
}

fn arrives(encoder: &mut Encoder, decoder: &mut Decoder, batch: &Batch, place: impl Fn() -> String) {
    let mut body = Vec::new();
    let sizes = encoder.encode(batch, &mut body).unwrap_or_else(|error| panic!("{error}: {}", place()));
    let received = decoder.decode(&body, sizes.plain).unwrap_or_else(|error| panic!("{error}: {}", place()));
    for group in 0..batch.groups().len() {
        for (one, other) in batch.records(group).zip(received.records(group)) {
            assert!(one == other, "{one:?} came back as {other:?}: {}", place());
        }
    }
    assert!(*batch == received, "{}", place());
}

type Bytes = Option<Vec<u8>>;
type Record = (Bytes, Bytes);

fn record(random: &mut Random, formats: &[usize], samples: &[Vec<Record>], at: u64, damaged: u64) -> Record {
    let of = |random: &mut Random| match formats[random.index(formats.len())] {
        format if format < FORMATS => well_formed(random, format, at),
        sample => {
            let sample = &samples[sample - FORMATS];
            sample[(at as usize + random.index(3)) % sample.len()].clone()
        }
    };
    let (mut key, mut value) = of(random);
    if random.below(100) < damaged {
        let (_, other) = of(random);
        value = damage(random, value, other.as_deref());
        if random.below(4) == 0 {
            key = damage(random, key, value.as_deref());
        }
    }
    (key, value)
}

/// One to three kinds of damage; `other` is spliced in.
fn damage(random: &mut Random, bytes: Bytes, other: Option<&[u8]>) -> Bytes {
    let mut bytes = bytes.unwrap_or_default();
    for _ in 0..1 + random.below(3) {
        let at = random.index(bytes.len() + 1);
        let end = at + random.index(bytes.len() - at + 1);
        match random.below(13) {
            0 | 1 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            2 => bytes.truncate(at),
            3 => drop(bytes.drain(..at)),
            4 => drop(bytes.drain(at..end)),
            5 => bytes.extend_from_within(at..end),
            6 => {
                let other = other.unwrap_or_default();
                let cut = random.index(other.len() + 1);
                bytes.truncate(at);
                bytes.extend_from_slice(&other[cut..]);
            }
            7 => {
                let other = other.unwrap_or_default();
                let cut = random.index(other.len() + 1);
                drop(bytes.splice(at..at, other[..cut].iter().copied()));
            }
            8 => bytes.insert(at, random.below(256) as u8),
            9 => bytes.insert(at, SYNTAX[random.index(SYNTAX.len())]),
            10 | 11 => odd_number(random, &mut bytes, at),
            _ => {
                // A digit becomes another one, so that shapes hold and numbers do not.
                let digits = bytes.iter().enumerate().skip(at).find(|(_, byte)| byte.is_ascii_digit());
                if let Some((digit, _)) = digits {
                    bytes[digit] = b"0123456789-+."[random.index(13)];
                }
            }
        }
    }
    if bytes.is_empty() && random.below(2) == 0 { None } else { Some(bytes) }
}

/// The number behind `at`, and the quotes around it, become something that programs write where they have no number, or
/// one that is written in another way.
fn odd_number(random: &mut Random, bytes: &mut Vec<u8>, at: usize) {
    let is_part = |byte: &u8| byte.is_ascii_digit() || *byte == b'.';
    let Some(start) = bytes.iter().skip(at).position(u8::is_ascii_digit).map(|further| at + further) else {
        return;
    };
    let length = bytes[start..].iter().position(|byte| !is_part(byte)).unwrap_or(bytes.len() - start);
    let (mut start, mut end) = (start, start + length);
    if start > 0 && bytes[start - 1] == b'"' && bytes.get(end) == Some(&b'"') {
        (start, end) = (start - 1, end + 1);
    }
    let odd = ODD_NUMBERS[random.index(ODD_NUMBERS.len())];
    drop(bytes.splice(start..end, odd.bytes()));
}

/// No numbers, and numbers that are not written as most are.
const ODD_NUMBERS: [&str; 12] = [
    "null",
    "",
    "-",
    "NaN",
    "1e-05",
    "-1.03989471325e-05",
    "-0",
    "007",
    "1.",
    "1.50",
    "\"7.5\"",
    "99999999999999999999",
];

/// What formats are made of.
const SYNTAX: &[u8] = b"\"\\\n,{}[]:0 -+.eE\t\0\xff;=%";
/// Kinds of [`well_formed`] records.
const FORMATS: usize = 13;

fn well_formed(random: &mut Random, format: usize, at: u64) -> Record {
    let (n, small) = (random.below(1_000_000), random.below(9));
    let (minute, second, ms) = (at / 60 % 60, at % 60, n % 1000);
    let host = format!("host-{small}");
    let time = format!("2023-05-28T20:{minute:02}:{second:02}.{ms:03}Z");
    let hex = format!("{:016x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let text = match format {
        0 => format!(
            "{{\"host\":\"{host}\",\"at\":\"{time}\",\"value\":{n}.{small},\"price\":\"{small}.{ms}\",\"ok\":true,\"none\":null}}"
        ),
        1 => {
            let row = |state: u64| {
                format!("{{\"id\":{at},\"state\":{state},\"cents\":{},\"t\":{}}}", n * 7, at * 1000)
            };
            let (before, after) = (row(small), row(small + 1));
            format!(
                "{{\"before\":{before},\"after\":{after},\"source\":{{\"lsn\":{}}},\"op\":\"u\",\"ts_ms\":{at}}}",
                at * 99
            )
        }
        2 => format!("{at},{host},\"quoted, {small}\",{n}.{ms:03},,{time},{hex}"),
        3 => format!("{at}.{ms:03}\tC{hex}\t10.0.0.{small}\t{n}\tudp\t-\t{second}\tF\tT"),
        4 => format!(
            "10.1.{small}.{second} - - [28/May/2023:20:{minute:02}:{second:02} +0000] \"GET /p/{n}?x={small} HTTP/1.1\" 200 {n} \"-\" \"agent ({host})\""
        ),
        5 => format!("ts={time} level=info host={host} took={n}us msg=\"did {small} things\" id={hex}"),
        6 => {
            let tags: Vec<String> =
                (0..small).map(|tag| format!("{{\"k\":\"t{tag}\",\"v\":[{n},{tag}.5e-3]}}")).collect();
            let optional = if n % 3 == 0 { format!(",\"opt\":\"{hex}\"") } else { String::new() };
            format!(
                "{{ \"n\" : {n}{optional}, \"tags\" : [{}], \"esc\":\"a\\\"b\\\\{small}\\u00e9\" }}",
                tags.join(", ")
            )
        }
        7 => format!("{}-{}-4{}-a{}-{}", &hex[..8], &hex[8..12], &hex[12..15], &hex[1..4], &hex[4..16]),
        8 => "SGVsbG8gd29ybGQ=".repeat(small as usize),
        11 => return (Some(host.clone().into_bytes()), Some(compressed(random, at, &host, &hex))),
        12 => return (None, Some(avro(random, at, &host))),
        9 => return (Some(at.to_be_bytes().to_vec()), Some(wire_format(random, at, &host))),
        _ => return (None, Some(random.bytes(small as usize * 40))),
    };
    let key = [Some(host.into_bytes()), Some(format!("{{\"id\":{at}}}").into_bytes()), None];
    (key[random.index(20).min(2) % 3].clone(), Some(text.into_bytes()))
}

/// Some records in one value, as programs compress them.
fn compressed(random: &mut Random, at: u64, host: &str, hex: &str) -> Vec<u8> {
    let rows = 1 + random.below(12);
    let text: String = (0..rows)
        .map(|row| {
            format!("{{\"host\":\"{host}\",\"at\":{},\"hex\":\"{hex}\",\"row\":{row}}}\n", at * 50 + row)
        })
        .collect();
    let level = flate2::Compression::new([1, 6, 6, 9][random.index(4)]);
    let mut packed = Vec::new();
    let done = match random.below(2) {
        0 => flate2::read::GzEncoder::new(text.as_bytes(), level).read_to_end(&mut packed),
        _ => flate2::read::ZlibEncoder::new(text.as_bytes(), level).read_to_end(&mut packed),
    };
    done.expect("from memory");
    packed
}

/// A record of [`SCHEMA`], behind an id.
fn avro(random: &mut Random, at: u64, host: &str) -> Vec<u8> {
    let mut bytes = vec![0, 0, 0, 0, 9];
    let number = |bytes: &mut Vec<u8>, number: u64| {
        let mut rest = number * 2;
        while rest >= 0x80 {
            bytes.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        bytes.push(rest as u8);
    };
    number(&mut bytes, 1_700_000_000_000 + at * 1000);
    number(&mut bytes, host.len() as u64);
    bytes.extend(host.as_bytes());
    match random.below(4) {
        0 => bytes.push(0),
        small => {
            bytes.push(2);
            number(&mut bytes, small * 5);
        }
    }
    bytes.extend((random.below(500) as f64 / 10.0).to_le_bytes());
    match random.below(3) {
        0 => bytes.push(2),
        _ => bytes.extend([0, 4, b'o', b'k']),
    }
    bytes.push(random.below(2) as u8);
    bytes
}

const SCHEMA: &str = r#"{"type":"record","name":"R","fields":[{"name":"at","type":"long"},
    {"name":"host","type":"string"},{"name":"small","type":["null","int"]},{"name":"value","type":"double"},
    {"name":"state","type":["string","null"]},{"name":"ok","type":"boolean"}]}"#;

/// As Protobuf lays fields out, behind a schema id.
fn wire_format(random: &mut Random, at: u64, host: &str) -> Vec<u8> {
    let mut bytes = vec![0, 0, 0, 0, 7, 0x08];
    let mut rest = at * 3;
    while rest >= 0x80 {
        bytes.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    bytes.push(rest as u8);
    bytes.extend([0x12, host.len() as u8]);
    bytes.extend(host.as_bytes());
    bytes.push(0x19);
    bytes.extend((at as f64 * 0.25).to_le_bytes());
    if random.below(3) > 0 {
        bytes.extend([0x22, 4, 0x08, random.below(100) as u8, 0x10, 1]);
    }
    bytes
}

/// Records of the topics in the folder that the environment names.
fn samples() -> Vec<Vec<Record>> {
    let Some(folder) = std::env::var_os("LONGHAUL_MUTATION_DATA") else { return Vec::new() };
    let mut samples = Vec::new();
    for entry in std::fs::read_dir(folder).expect("the folder of LONGHAUL_MUTATION_DATA") {
        let path = entry.expect("an entry of the folder").path();
        if path.to_string_lossy().ends_with(".kds.zst") {
            samples.push(read(&path));
        }
    }
    samples
}

/// The first records of a `.kds.zst`: partition, timestamp, lengths of key and value, both.
fn read(path: &Path) -> Vec<Record> {
    let packed = std::fs::read(path).expect("a readable topic");
    let mut context = DCtx::create();
    context.set_parameter(DParameter::WindowLogMax(27)).expect("a valid window");
    let mut plain = Vec::with_capacity(SAMPLE * 2000);
    let mut output = OutBuffer::around(&mut plain);
    let mut input = InBuffer::around(&packed);
    while output.pos() < output.capacity() && input.pos() < packed.len() {
        context.decompress_stream(&mut output, &mut input).expect("a sound topic");
    }
    let mut records = Vec::new();
    let mut rest = plain.as_slice();
    while let Some((head, tail)) = rest.split_first_chunk::<20>() {
        let length =
            |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().expect("four bytes")) as usize;
        let (key, value) = (length(12), length(16));
        if records.len() == SAMPLE || tail.len() < key + value {
            break;
        }
        records.push((Some(tail[..key].to_vec()), Some(tail[key..key + value].to_vec())));
        rest = &tail[key + value..];
    }
    records
}

/// xorshift: the same numbers for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit
    }

    fn index(&mut self, limit: usize) -> usize {
        self.below(limit as u64) as usize
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.below(256) as u8).collect()
    }
}
