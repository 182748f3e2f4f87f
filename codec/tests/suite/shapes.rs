//! Records of every shape come back as they were, whatever was made of them on the way.

use longhaul_codec::{Batch, Decoder, Encoder, Error, ShapeCounts};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use crate::support::{Parcel, decoder, encode, encoder, noise, stamp};

pub(crate) type Record = (Option<Vec<u8>>, Option<Vec<u8>>);

fn record(key: &str, value: &str) -> Record {
    (Some(key.into()), Some(value.into()))
}

/// A lane: both ends, and where its slots are.
struct Lane {
    encoder: Encoder,
    decoder: Decoder,
    next: Vec<i64>,
}

impl Lane {
    fn new() -> Self {
        Self { encoder: encoder(), decoder: decoder(), next: vec![0; 64] }
    }

    /// Sends records, each with its slot; asserts that they arrive. Returns the size of the parcel.
    fn send(&mut self, records: &[(u32, Record)]) -> usize {
        let mut batch = Batch::new();
        for (slot, (key, value)) in records {
            let group = batch.group_index(*slot);
            let offset = self.next[*slot as usize] + batch.group_record_count(group) as i64;
            batch.push(group, offset, 1_700_000_000_000 + offset, key.as_deref(), value.as_deref(), []);
        }
        for group in 0..batch.groups().len() {
            let slot = batch.groups()[group].slot;
            let first = self.next[slot as usize];
            let next = first + batch.group_record_count(group) as i64;
            stamp(&mut batch, group, first, next);
            self.next[slot as usize] = next;
        }
        let parcel = encode(&mut self.encoder, &batch);
        let received = self.decoder.decode(&parcel.coded, parcel.plain).expect("decodes");
        assert!(received == batch, "{records:?}");
        assert!(self.encoder.memory() < 32 << 20 && self.decoder.memory() < 32 << 20);
        parcel.coded.len()
    }

    fn send_to_one(&mut self, records: &[Record]) -> usize {
        let records: Vec<_> = records.iter().map(|record| (0, record.clone())).collect();
        self.send(&records)
    }

    fn counts(&self) -> ShapeCounts {
        self.encoder.shapes()
    }
}

/// Records as they are found in topics, of all kinds that are cut, and of some that are not.
pub(crate) fn kinds(i: u64) -> Vec<Record> {
    let hex = format!("{:016x}", i.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let tags = (0..i % 7).map(|tag| format!("\"tag-{tag}\"")).collect::<Vec<_>>().join(",");
    let optional = if i.is_multiple_of(3) {
        format!(",\"optional\":{{\"deep\":[{i},{i}.5,-1e{}]}}", i % 20)
    } else {
        String::new()
    };
    let (a, b) = if i.is_multiple_of(2) { ("first", "second") } else { ("second", "first") };
    let time = format!("2023-05-28T20:{:02}:{:02}.{:03}Z", i / 60 % 60, i % 60, i % 1000);
    vec![
        record(
            &format!("key-{}", i % 9),
            &format!("{{\"id\":{i},\"at\":\"{time}\"{optional},\"tags\":[{tags}]}}"),
        ),
        record(&hex, &format!("{{\n  \"{a}\" : \"say \\\"{i}\\\"\\\\\",\n  \"{b}\" : null\n}}\n")),
        record(&format!("{{\"id\":{i}}}"), &format!("[{{\"{hex}\":[[{i},2],[3,{i}]]}},{{}},[],\"\"]")),
        record("", &format!("vm-{},PostgreSQL,\"a, quoted \"\"field\"\"\",{i}.25,{time}", i % 5)),
        record("k", &format!("{i}\tx\t\t{hex}")),
        record(
            "10.0.0.1",
            &format!(
                "10.0.0.{} - - [28/May/2023:20:{:02}:08 +0000] \"GET /a/{i}?q=%20 HTTP/1.1\" 200 {i} \"-\" \"Mozilla (X11)\"",
                i % 256,
                i % 60
            ),
        ),
        record("k", &format!("{time} level=info msg=\"it took {i} ms\" id={hex} n={i}")),
        record("k", &format!("one word and {i} more  ")),
        (Some(vec![i as u8]), Some(protobuf(i))),
        (None, Some(format!("plain-{hex}").into_bytes())),
        (Some(noise(i, 20)), None),
        (None, Some(Vec::new())),
        (Some(Vec::new()), Some(noise(i, 200))),
        record("k", &format!("{{\"broken\":\"{hex}")),
        record("k", &format!("text\nof two lines {i}\n")),
        record(
            "k",
            &format!("{{\"text\":\"ünïcode \\u00e9 {i}\",\"empty\":\"\",\"zero\":-0,\"odd\":00{i}}}"),
        ),
    ]
}

/// A message with optional, repeated and nested fields.
fn protobuf(i: u64) -> Vec<u8> {
    let mut out = vec![0x08, i as u8 | 0x80, 1, 0x12, 3, b'a', b'b', b'0' + (i % 10) as u8];
    out.extend((0..i % 3).flat_map(|n| [0x1a, 4, 0x08, n as u8, 0x10, 0x7f]));
    out.push(0x21);
    out.extend((i as f64 * 0.5).to_le_bytes());
    out.extend([0x2d, 1, 2, 3, i as u8, 0x32, 0]);
    out
}

#[test]
fn records_of_every_kind_arrive_apart_and_mixed() {
    for kind in 0..kinds(0).len() {
        let mut lane = Lane::new();
        for parcel in 0..6 {
            let records: Vec<_> = (0..40).map(|i| kinds(parcel * 40 + i).swap_remove(kind)).collect();
            lane.send_to_one(&records);
        }
    }
    let mut lane = Lane::new();
    for parcel in 0..6 {
        let own_slots = |i: u64| kinds(i).into_iter().enumerate().map(|(slot, record)| (slot as u32, record));
        let one_slot = |i: u64| kinds(i).into_iter().map(|record| (50, record));
        let records: Vec<_> = (0..20).flat_map(|i| own_slots(parcel * 20 + i).chain(one_slot(i))).collect();
        lane.send(&records);
    }
}

#[test]
fn records_of_known_shapes_are_followed_not_parsed() {
    let mut lane = Lane::new();
    for parcel in 0..10 {
        let records: Vec<_> = (0..100).map(|i| kinds(parcel * 100 + i).swap_remove(0)).collect();
        lane.send_to_one(&records);
    }
    let counts = lane.counts();
    assert_eq!(counts.followed + counts.parsed + counts.whole, 2000);
    assert!(counts.parsed < 30 && counts.whole == 0, "{counts:?}");
}

#[test]
fn a_shape_that_begins_as_another_goes_on_is_followed_too() {
    // A row that is there or not, in no order that could be guessed.
    let row = |there: bool, i: u64| {
        if there { format!("{{\"id\":{i},\"city\":\"c{i}\"}}") } else { "null".to_owned() }
    };
    let change = |i: u64| {
        let (before, after) = [(true, true), (true, false), (false, true)][(i * i % 7 % 3) as usize];
        record("k", &format!("{{\"after\":{},\"before\":{},\"op\":{i}}}", row(after, i), row(before, i + 1)))
    };
    let mut lane = Lane::new();
    for parcel in 0..10 {
        lane.send_to_one(&(0..100).map(|i| change(parcel * 100 + i)).collect::<Vec<_>>());
    }
    let counts = lane.counts();
    assert!(counts.parsed < 30 && counts.whole == 0, "{counts:?}");
}

/// What a few records of new shapes have to tell can be more than they have bytes themselves.
#[test]
fn wide_records_of_little_arrive_also_alone() {
    let digits = |columns: usize, seed: usize| (0..columns).map(move |column| (column * 7 + seed) % 10);
    let csv =
        |columns, seed| digits(columns, seed).map(|digit| digit.to_string()).collect::<Vec<_>>().join(",");
    let json = |columns, seed| {
        let fields: Vec<_> =
            digits(columns, seed).enumerate().map(|(f, digit)| format!("\"f{f}\":{digit}")).collect();
        format!("{{{}}}", fields.join(","))
    };
    for columns in [80, 300, 1000, 3000] {
        for value in [&csv as &dyn Fn(usize, usize) -> String, &json] {
            let mut lane = Lane::new();
            for seed in 0..5 {
                lane.send_to_one(&[record("k", &value(columns, seed))]);
            }
            // Others of other widths, each one of its own shape.
            for seed in 0..5 {
                lane.send_to_one(&[record("k", &value(columns + 1 + seed, seed))]);
            }
        }
    }
}

/// Chains of text are cut short when all of them together become too long. A value behind such a cut is one of those of
/// the same column that other chains expect to be what it always was.
#[test]
fn a_value_that_changes_where_a_chain_is_cut_short_is_in_its_place() {
    let mut count = 1000;
    let mut value = |kind: usize, at: usize, change: &str| {
        count += 1;
        let field = |field: usize| match field {
            _ if field.is_multiple_of(20) => format!(",\"f{field}\":{}", field * 1000 + count),
            _ => format!(",\"f{field}\":\"{}\"", if field == at { change } else { "c" }),
        };
        let fields: String = (0..1000).map(field).collect();
        record("k", &format!("{{\"kind{kind}\":1{fields}}}"))
    };
    let kinds = 70;
    let mut lane = Lane::new();
    for _ in 0..3 {
        let all: Vec<Record> = (0..kinds).map(|kind| value(kind, 0, "c")).collect();
        lane.send_to_one(&all);
    }
    for at in [1, 501, 999] {
        lane.send_to_one(&[value(0, at, "c"), value(kinds - 1, at, "other"), value(1, at, "c")]);
    }
    // One without a shape ends too, with all the room for chains used up.
    for _ in 0..20 {
        let mut records: Vec<Record> = (0..20).map(|kind| value(kind, 0, "c")).collect();
        records.insert(7, (Some(b"k".to_vec()), Some(noise(7, 50))));
        lane.send_to_one(&records);
    }
}

#[test]
fn a_live_lane_needs_a_fraction_of_what_a_single_parcel_needs() {
    // A few records at a time, as a topic with little traffic sends them.
    let records = |parcel: u64| (0..4).map(|i| kinds(parcel * 4 + i).swap_remove(3)).collect::<Vec<_>>();
    let mut lane = Lane::new();
    let live: usize = (0..100).map(|parcel| lane.send_to_one(&records(parcel))).skip(10).sum();
    let alone: usize = (0..100).map(|parcel| Lane::new().send_to_one(&records(parcel))).skip(10).sum();
    assert!(live * 3 < alone, "{live} bytes live, {alone} bytes alone");
}

#[test]
fn three_unlike_topics_in_one_lane_cost_no_more_than_three_lanes() {
    let topics = [0, 3, 5];
    let of_topic = |topic: usize, parcel: u64| {
        let records = (parcel * 90..(parcel + 1) * 90).map(|i| kinds(i).swap_remove(topics[topic]));
        records.enumerate().map(move |(i, record)| ((topic * 3 + i % 3) as u32, record)).collect::<Vec<_>>()
    };
    let (mut mixed, mut apart) = (Lane::new(), [Lane::new(), Lane::new(), Lane::new()]);
    let (mut together, mut alone) = (0, 0);
    for parcel in 0..20 {
        let all: Vec<_> = (0..3).flat_map(|topic| of_topic(topic, parcel)).collect();
        together += mixed.send(&all);
        alone += (0..3).map(|topic| apart[topic].send(&of_topic(topic, parcel))).sum::<usize>();
    }
    assert!(together * 100 <= alone * 103, "{together} bytes together, {alone} bytes apart");
    let columns: u32 = apart.iter().map(|lane| lane.counts().columns - 2).sum();
    assert_eq!(mixed.counts().columns - 2, columns, "no topic's columns are another's");
}

#[test]
fn partitions_of_one_topic_share_columns_whatever_their_first_records_look_like() {
    let line = |i: u64| {
        let long = format!(
            "kernel: IN=eth0 OUT= SRC=10.0.0.{} DST=10.0.1.{} LEN=60 TTL=64 PROTO=TCP SPT=443 ACK",
            i % 90,
            i % 80
        );
        let rest = if i.is_multiple_of(2) { long } else { format!("CRON[{i}]: (root) CMD") };
        (None, Some(format!("<38>Nov 14 host-{} {rest}", i % 7).into_bytes()))
    };
    let columns = |named: bool, rested: bool| {
        let mut lane = Lane::new();
        for slot in (0..2).filter(|_| named) {
            lane.encoder.set_topic(slot, "syslog");
        }
        lane.send_to_one(&[line(0)]);
        if rested {
            let mut rest = Vec::new();
            let sizes = lane.encoder.rest(&mut rest).expect("a sound encoder");
            lane.decoder.decode(&rest, sizes.plain).expect("decodes");
        }
        // The first record of one partition is a long line, that of the other a short one.
        let records: Vec<_> = (0..400).map(|i| ((i % 2) as u32, line(i))).collect();
        lane.send(&records);
        lane.send(&records);
        lane.counts().columns
    };
    let (shared, apart) = (columns(true, false), columns(false, false));
    assert!(shared < apart, "{shared} columns of one topic, {apart} of two");
    assert_eq!(columns(true, true), shared, "a lane that rested knows its topics");
}

/// What may stand in any topic tells nothing of it, and takes no other record for its like.
#[test]
fn a_first_record_that_is_a_word_hides_no_shape() {
    let of_topic = |topic: u64, i: u64| -> Record {
        let value = match topic {
            0 => format!("{{\"id\":{i},\"user\":\"u{}\",\"ok\":true}}", i % 50),
            1 => format!("{i},host-{},{}", i % 9, i * 7),
            _ => format!("{i},a{},b,c,d{},e,f,{},h", i % 7, i % 11, i * 3),
        };
        (None, Some(value.into_bytes()))
    };
    let columns = |first: Option<&str>, apart: bool| {
        let mut lane = Lane::new();
        for (topic, slots) in [("events", 0..3), ("lines", 3..6), ("wide", 6..9)] {
            slots.for_each(|slot| lane.encoder.set_topic(slot, topic));
        }
        let firsts =
            || first.into_iter().flat_map(|word| [0, 3, 6].map(|slot| (slot, (None, Some(word.into())))));
        if apart {
            lane.send(&firsts().collect::<Vec<_>>());
        }
        let records = (0..900u64).map(|i| ((i % 9) as u32, of_topic(i % 9 / 3, i)));
        let records: Vec<_> = firsts().filter(|_| !apart).chain(records).collect();
        lane.send(&records);
        let counts = lane.counts();
        assert_eq!(counts.whole, 0, "{counts:?}");
        counts.columns
    };
    let clean = columns(None, false);
    assert_eq!(clean, 2 + 3 + 3 + 9, "two for what goes whole, and those of each topic");
    for word in ["hello", "{}", "12"] {
        let words = [columns(Some(word), false), columns(Some(word), true)];
        assert!(words.iter().all(|columns| (clean + 1..=clean + 3).contains(columns)), "{word}: {words:?}");
    }
}

#[test]
fn a_partition_of_another_topic_from_now_on_has_the_columns_of_that() {
    let event = |i: u64| (None, Some(format!("{{\"id\":{i},\"user\":\"u{}\"}}", i % 50).into_bytes()));
    let mut lane = Lane::new();
    lane.encoder.set_topic(0, "events");
    lane.encoder.set_topic(1, "lines");
    let send = |lane: &mut Lane| {
        let records = |slot, from| (from..from + 50).map(move |i| (slot, event(i)));
        let lines = (0..50).map(|i| (1, (None, Some(format!("{i};{}", i * 3).into_bytes()))));
        lane.send(&records(0, 0).chain(lines).collect::<Vec<_>>());
        lane.counts().columns
    };
    assert_eq!(send(&mut lane), 2 + 2 + 2);
    lane.encoder.set_topic(1, "events");
    assert_eq!(send(&mut lane), 2 + 2 + 2 + 2, "lines in the topic of events, of which it is now");
}

/// The state of one of many devices: all of it but little is as it was when the same device spoke last, thousands of
/// records before.
fn device(at: u64) -> Record {
    let number = at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    let (device, mut fields) = (number % 4000, String::new());
    for (name, length) in [("serial", 10), ("mac", 12), ("cert", 40), ("site", 8), ("owner", 16)] {
        let bytes = noise(device * 31 + length as u64, length / 2);
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        fields += &format!(",\"{name}\":\"{hex}\"");
    }
    record(
        &format!("dev-{device:05}"),
        &format!("{{\"device\":\"dev-{device:05}\"{fields},\"uptime\":{at}}}"),
    )
}

/// In rows a record of these is one match with the one before of its device, however many fields it has.
#[test]
fn what_comes_again_thousands_of_records_later_costs_little() {
    let mut lane = Lane::new();
    lane.encoder.set_level(9);
    let mut parcel = |parcel: u64| {
        let records: Vec<_> = (0..500).map(|i| device(parcel * 500 + i)).collect();
        lane.send_to_one(&records)
    };
    let bytes = (0..65).map(&mut parcel).skip(60).sum::<usize>() / (5 * 500);
    assert!(bytes < 3, "{bytes} bytes for each record");
}

#[test]
fn memory_is_bounded_at_the_highest_levels_too() {
    for level in 9..=12 {
        let mut lane = Lane::new();
        lane.encoder.set_level(level);
        for parcel in 0..30u64 {
            let of_kind =
                |kind: u32| (0..300).map(move |i| (kind, kinds(parcel * 300 + i).swap_remove(kind as usize)));
            let devices = (0..300).map(|i| (50, device(parcel * 300 + i)));
            // That both ends stay below 32 MiB is asserted for each parcel.
            lane.send(&(0..5).flat_map(of_kind).chain(devices).collect::<Vec<_>>());
        }
    }
}

#[test]
fn records_without_end_of_new_shapes_go_whole_and_are_no_burden() {
    let mut lane = Lane::new();
    for parcel in 0..60u64 {
        let new = |i: u64| {
            let fields = (0..20).map(|field| format!("\"f{parcel}_{i}_{field}\":{i}")).collect::<Vec<_>>();
            record("k", &format!("{{{}}}", fields.join(",")))
        };
        lane.send_to_one(&(0..50).map(new).collect::<Vec<_>>());
    }
    let counts = lane.counts();
    assert!(counts.whole > counts.parsed, "{counts:?}");
    assert!(counts.columns <= 4096, "{counts:?}");
}

/// One of them has keys as others have values.
#[test]
fn a_topic_without_shapes_leaves_another_room_for_its_own() {
    let mut lane = Lane::new();
    let without = |i: u64| {
        let keys = noise(i, 40);
        let fields: Vec<_> = keys.iter().map(|key| format!("\"k{key:02}\":{}", i % 7)).collect();
        record("k", &format!("{{{}}}", fields.join(",")))
    };
    // A new one every ten records.
    let with = |i: u64| {
        let kind = i % (i / 10 + 1);
        let fields: Vec<_> = (0..8).map(|field| format!("\"f{}\":{i}", kind * 8 + field)).collect();
        record("k", &format!("{{\"a\":1,\"b\":2,\"c\":3,{}}}", fields.join(",")))
    };
    let followed = |lane: &mut Lane, from: u64| {
        let before = lane.counts().followed;
        for parcel in from..from + 20 {
            let of = |i: u64| [(0, without(i)), (1, with(i))];
            lane.send(&(parcel * 50..parcel * 50 + 50).flat_map(of).collect::<Vec<_>>());
        }
        lane.counts().followed - before
    };
    followed(&mut lane, 0);
    let followed = followed(&mut lane, 20);
    // Keys of both, and what has shapes.
    assert!(followed > 2 * 1000 + 700, "{followed} of 3,000 followed: {:?}", lane.counts());
}

#[test]
fn a_lane_that_was_full_of_old_shapes_learns_new_ones() {
    let mut lane = Lane::new();
    // Many topics, whose shapes are all different, fill what there is room for.
    for slot in 0..63u32 {
        let fields = (0..80).map(|field| format!("\"s{slot}f{field}\":1")).collect::<Vec<_>>();
        lane.send(&[(slot, record("k", &format!("{{{}}}", fields.join(","))))]);
    }
    let new = |i: u64| record("k", &format!("{{\"new\":{i},\"shape\":\"x{i}\"}}"));
    lane.send(&[(63, record("k", &format!("[{}]", "{\"a\":1,\"b\":2},".repeat(4000) + "1")))]);
    let large = noise(7, 900_000);
    for _ in 0..40 {
        lane.send(&[(63, (None, Some(large.clone())))]);
    }
    for parcel in 0..40 {
        lane.send(&(0..50).map(|i| (63, new(parcel * 50 + i))).collect::<Vec<_>>());
    }
    let counts = lane.counts();
    assert!(counts.followed > 1500, "{counts:?}");
}

#[test]
fn avro_by_its_schema_is_followed_and_the_decoder_needs_none() {
    let schema = r#"{"type":"record","name":"R","fields":[{"name":"id","type":"long"},
        {"name":"name","type":["null","string"]},{"name":"at","type":"double"},
        {"name":"tags","type":{"type":"array","items":"int"}}]}"#;
    let schema = std::sync::Arc::new(longhaul_codec::avro::Schema::parse(schema).expect("a sound schema"));
    let value = |i: u64| {
        let mut out = vec![0, 0, 0, 0, 7, (i as u8 & 0x3f) << 1];
        match i % 3 {
            0 => out.push(0),
            _ => out.extend([2, 4, b'a', b'0' + (i % 10) as u8]),
        }
        out.extend((i as f64).to_le_bytes());
        let tags = (i % 4) as u8;
        if tags > 0 {
            out.push(tags << 1);
            out.extend((0..tags).map(|tag| tag << 1));
        }
        out.push(0);
        (Some(b"key".to_vec()), Some(out))
    };
    let mut lane = Lane::new();
    lane.encoder.use_avro(None, Some(7), schema);
    for parcel in 0..10 {
        lane.send_to_one(&(0..50).map(|i| value(parcel * 50 + i)).collect::<Vec<_>>());
        // Cut off, and of another schema.
        let cut = value(parcel).1.map(|value| value[..value.len() - 2].to_vec());
        lane.send_to_one(&[(None, cut), (None, Some(noise(parcel, 40)))]);
    }
    let counts = lane.counts();
    assert!(counts.followed > 980 && counts.parsed < 40, "{counts:?}");
}

/// A shape that was begun and could not be gone on with leads nowhere: the next record of its kind goes whole too.
#[test]
fn records_that_cannot_have_their_shape_go_whole_however_often() {
    let long = |inside: &str| inside.repeat(3000);
    let values = [
        format!("{{\"a\":1,\"list\":[{}{{}}],\"b\":2}}", long("{},")),
        format!("{{\"a\":1,\"list\":[{}[]]}}", long("[],")),
        format!("{{\"a\":1,\"{}\":2}}", long("key")),
        format!("{{\"a\":1,{}\"b\":2}}", long("    ")),
    ];
    for value in values {
        let mut lane = Lane::new();
        for _ in 0..4 {
            lane.send_to_one(&[record("k", &value), record("k", "{\"a\":1}"), record("k", &value)]);
        }
    }
}

/// What a lane remembers for its trials is bounded also where next to nothing is new in its records.
#[test]
fn many_small_parcels_of_constants_take_bounded_memory() {
    let fields: String = (0..60).map(|field| format!("\"f{field}\":\"always\",")).collect();
    let mut lane = Lane::new();
    let mut before = 0;
    for parcel in 0..300u64 {
        let value = |i: u64| record("k", &format!("{{{fields}\"n\":{}}}", parcel * 100 + i));
        lane.send_to_one(&(0..100).map(value).collect::<Vec<_>>());
        if parcel == 50 {
            before = lane.encoder.memory();
        }
    }
    assert!(lane.encoder.memory() < before + (6 << 20), "{before} {}", lane.encoder.memory());
}

/// A field becomes optional, or of another type, and records of both versions come one after the other: behind ids of
/// schemas, and without.
#[test]
fn versions_of_an_avro_schema_are_told_apart() {
    let types = [
        r#""string""#,
        r#"["null","string"]"#,
        r#"["string","null"]"#,
        r#""long""#,
        r#"["null","long"]"#,
        r#""double""#,
        r#"{"type":"array","items":"int"}"#,
    ];
    let field = |of: usize, i: u8| match of {
        0 => vec![4, b'n', b'0' + i % 7],
        1 if i.is_multiple_of(5) => vec![0],
        // One byte that could be taken for the branch of null.
        1 if i.is_multiple_of(7) => vec![2, 2, 0],
        1 => vec![2, 4, b'n', b'0' + i % 7],
        2 if i.is_multiple_of(5) => vec![2],
        2 if i.is_multiple_of(7) => vec![0, 2, 2],
        2 => vec![0, 4, b'n', b'0' + i % 7],
        3 => vec![i & 0x7f],
        4 => vec![2, i & 0x7f],
        5 => f64::from(i).to_le_bytes().to_vec(),
        _ => vec![4, i & 0x7f, 2, 0],
    };
    let schema = |of: usize| {
        let text = format!(
            r#"{{"type":"record","name":"R","fields":[{{"name":"id","type":"int"}},
            {{"name":"name","type":{}}},{{"name":"n","type":"int"}}]}}"#,
            types[of]
        );
        std::sync::Arc::new(longhaul_codec::avro::Schema::parse(&text).expect("a sound schema"))
    };
    for (one, other) in (0..types.len()).flat_map(|one| (0..types.len()).map(move |other| (one, other))) {
        for with_id in [true, false] {
            let mut lane = Lane::new();
            for (id, of) in [(1, one), (2, other)] {
                lane.encoder.use_avro(None, with_id.then_some(id), schema(of));
            }
            for parcel in 0..6u8 {
                // The first is one that cannot be told from the other branch.
                let value = |i: u8| {
                    let i = i + 7;
                    let newer = parcel >= 2 && i.is_multiple_of(2);
                    let mut value = if with_id { vec![0, 0, 0, 0, 1 + u8::from(newer)] } else { Vec::new() };
                    value.push(i & 0x7f);
                    value.extend(field(if newer { other } else { one }, i));
                    value.push(i & 0x7e);
                    (None, Some(value))
                };
                lane.send_to_one(&(0..60).map(value).collect::<Vec<_>>());
            }
        }
    }
}

/// JSON as text, spelled in odd ways.
fn json() -> impl Strategy<Value = String> {
    let space = || prop_oneof![6 => Just(""), 1 => Just(" "), 1 => Just("\n\t"), 1 => Just("  ")];
    let scalar = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        any::<i64>().prop_map(|n| n.to_string()),
        any::<f64>().prop_map(|n| format!("{n:e}")),
        "(0|[1-9][0-9]{0,20})(\\.[0-9]{1,9})?([eE][+-]?[0-9]{1,3})?",
        "\"[a-z ,:{}\\[\\]]{0,12}\"",
        "\"([a-z]|\\\\\"|\\\\\\\\|\\\\u00[0-9a-f]{2}|é){0,8}\"",
    ];
    scalar.prop_recursive(4, 40, 6, move |inner| {
        let key = prop_oneof![4 => "[a-d]", 1 => "[0-9a-f]{16,20}", 1 => "([a-z]|\\\\\"){0,4}"];
        let member = (space(), key, space(), inner.clone())
            .prop_map(|(a, key, b, value)| format!("{a}\"{key}\"{b}:{value}"));
        prop_oneof![
            (vec(member, 0..6), space()).prop_map(|(members, end)| format!("{{{}{end}}}", members.join(","))),
            (vec(inner, 0..6), space())
                .prop_map(|(elements, end)| format!("[{end}{}{end}]", elements.join(", "))),
        ]
    })
}

/// One change of a record: a byte, a cut, a piece of another record.
fn mutate(record: &mut Vec<u8>, other: &[u8], kind: u8, at: &Index, to: &Index, byte: u8) {
    if record.is_empty() {
        return;
    }
    let at = at.index(record.len());
    match kind {
        0 => record[at] ^= 1 << (byte % 8),
        1 => record.truncate(at),
        2 => record.insert(at, byte),
        3 => _ = record.drain(at..at + to.index(record.len() - at + 1)),
        4 => record[at] = b"\"\\,{}[] \n\t:0"[usize::from(byte) % 12],
        _ => {
            let piece = &other[..to.index(other.len() + 1)];
            record.splice(at..at, piece.iter().copied());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_json_arrives(parcels in vec(vec((0..3u32, json(), json()), 1..12), 1..5)) {
        let mut lane = Lane::new();
        for parcel in parcels {
            let records = parcel.iter().map(|(slot, key, value)| (*slot, record(key, value)));
            lane.send(&records.collect::<Vec<_>>());
        }
    }

    #[test]
    fn records_that_were_tampered_with_arrive(
        changes in vec((0..200u64, 0..16usize, 0..16usize, 0..6u8, any::<Index>(), any::<Index>(), any::<u8>(), any::<bool>()), 1..80)
    ) {
        let mut lane = Lane::new();
        for parcel in changes.chunks(20) {
            let mut records = Vec::new();
            for (i, kind, other, change, at, to, byte, in_key) in parcel {
                let mut changed = kinds(*i).swap_remove(*kind);
                let other = kinds(i + 1).swap_remove(*other).1.unwrap_or_default();
                let half = if *in_key { &mut changed.0 } else { &mut changed.1 };
                if let Some(half) = half {
                    mutate(half, &other, *change, at, to, *byte);
                }
                records.push((0, kinds(*i).swap_remove(*kind)));
                records.push((0, changed));
            }
            lane.send(&records);
        }
    }
}

/// The serialized batch of a parcel, as the decoder sees it behind zstd.
fn serialized(context: &mut zstd_safe::DCtx<'_>, parcel: &Parcel) -> Vec<u8> {
    let head = 1 + parcel.coded[1..].iter().take_while(|byte| **byte >= 0x80).count() + 1;
    let mut out = Vec::with_capacity(1 << 20);
    let mut input = zstd_safe::InBuffer::around(&parcel.coded[head..]);
    let mut output = zstd_safe::OutBuffer::around(&mut out);
    while input.pos() < parcel.coded.len() - head {
        context.decompress_stream(&mut output, &mut input).expect("sound");
    }
    out
}

/// A serialized batch as a parcel of its own.
fn raw(serialized: &[u8], plain: u32) -> Parcel {
    let mut coded = vec![0x21];
    let mut size = serialized.len();
    while size >= 0x80 {
        coded.push(size as u8 | 0x80);
        size >>= 7;
    }
    coded.push(size as u8);
    coded.extend_from_slice(serialized);
    Parcel { coded, plain }
}

/// The parcels of a lane, without zstd.
fn sections() -> Vec<(Vec<u8>, u32)> {
    let (mut encoder, mut context) = (encoder(), zstd_safe::DCtx::create());
    let parcel = |number: u64| {
        let mut batch = Batch::new();
        let group = batch.group_index(0);
        let records = (0..30).flat_map(|i| kinds(number * 30 + i));
        for (offset, (key, value)) in records.enumerate() {
            let offset = (number * 1000) as i64 + offset as i64;
            batch.push(group, offset, offset, key.as_deref(), value.as_deref(), []);
        }
        stamp(&mut batch, group, (number * 1000) as i64, (number * 1000) as i64 + 1000);
        let parcel = encode(&mut encoder, &batch);
        (serialized(&mut context, &parcel), parcel.plain)
    };
    (0..3).map(parcel).collect()
}

#[test]
fn hostile_sections_are_refused_or_harmless() {
    let sound = sections();
    let mut refused = 0;
    for seed in 0..3000u64 {
        let random = noise(seed, 64);
        let number = |at: usize| usize::from_le_bytes(random[at * 8..][..8].try_into().expect("eight bytes"));
        let mut decoder = decoder();
        let which = number(0) % sound.len();
        for (section, plain) in &sound[..which] {
            let parcel = raw(section, *plain);
            decoder.decode(&parcel.coded, parcel.plain).expect("untouched");
        }
        let (mut section, mut plain) = sound[which].clone();
        for change in 0..=number(1) % 3 {
            let at = number(2 + change) % (section.len() - 8);
            match number(5) % 5 {
                0 => section[at] ^= 1 << (number(6) % 8),
                1 => section[at] = [0, 0xff, 0x7f, 0x80, 1][number(6) % 5],
                2 => _ = section.remove(at),
                3 => section.insert(at, number(6) as u8),
                _ => plain = plain.wrapping_add(number(6) as u32 % 1000).wrapping_sub(500),
            }
        }
        let parcel = raw(&section, plain);
        match decoder.decode(&parcel.coded, parcel.plain) {
            Ok(_) => {}
            Err(error) => {
                refused += 1;
                assert_ne!(error, Error::Poisoned);
                assert!(!error.to_string().is_empty());
            }
        }
        assert!(decoder.memory() < 64 << 20);
    }
    assert!(refused > 2800, "{refused} of 3000: what is changed does not go unnoticed");
}
