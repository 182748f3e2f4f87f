//! Batches to try the codec on.

use longhaul_codec::{Batch, DecodeLimits, Decoder, Encoder, EncoderSettings, GapReason};

/// A parcel as the link would carry it.
#[derive(Debug, Clone)]
pub(crate) struct Parcel {
    pub(crate) coded: Vec<u8>,
    pub(crate) plain: u32,
}

pub(crate) fn encoder() -> Encoder {
    Encoder::new(EncoderSettings::default()).expect("default settings")
}

pub(crate) fn decoder() -> Decoder {
    Decoder::new(DecodeLimits::default()).expect("default limits")
}

pub(crate) fn encode(encoder: &mut Encoder, batch: &Batch) -> Parcel {
    let mut coded = b"before".to_vec();
    let sizes = encoder.encode(batch, &mut coded).expect("a sound batch");
    assert_eq!(coded.len(), 6 + sizes.coded as usize, "only appends, and counts what it appended");
    assert_eq!(u64::from(sizes.plain), batch.plain_size());
    Parcel { coded: coded.split_off(6), plain: sizes.plain }
}

/// Stamps the range that the records of `group` span, so that the batch can be encoded.
pub(crate) fn stamp(batch: &mut Batch, group: usize, prev_next: i64, next: i64) {
    let group = &mut batch.groups_mut()[group];
    (group.prev_next, group.next) = (prev_next, next);
}

/// Bytes that do not compress, the same for the same seed.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

/// Orders as a shop would send them: text values, keys within values, two headers, three partitions.
pub(crate) fn orders(parcel: i64, records: i64) -> Batch {
    let mut batch = Batch::new();
    let first = parcel * records;
    for slot in 0..3u32 {
        let group = batch.group_index(slot);
        for offset in first..first + records {
            let seed = offset as u64 * 7 + u64::from(slot);
            let id = noise(seed, 2).iter().fold(0u32, |id, byte| id << 8 | u32::from(*byte));
            let key = format!("order-{id:05}");
            let value = format!(
                "{{\"id\":\"{key}\",\"customer\":{},\"status\":\"{}\",\"total\":{}.{:02},\"currency\":\"EUR\"}}",
                id % 997,
                ["NEW", "PAID", "SENT"][seed as usize % 3],
                id % 300,
                id % 100
            );
            let trace = format!("{seed:032x}");
            let headers = [(&b"trace"[..], Some(trace.as_bytes())), (&b"type"[..], Some(&b"order.v1"[..]))];
            let time = 1_700_000_000_000 + offset * 40 + i64::from(slot);
            batch.push(group, offset, time, Some(key.as_bytes()), Some(value.as_bytes()), headers);
        }
        stamp(&mut batch, group, first, first + records);
        batch.groups_mut()[group].resume_epoch = 1;
    }
    batch
}

/// Letters of several lines: text without a shape, in which later parts resemble earlier ones.
pub(crate) fn letters(parcel: u64, records: u64) -> Batch {
    const WORDS: [&str; 16] = [
        "the", "shipment", "arrives", "on", "Monday,", "we", "are", "waiting", "for", "your", "answer.",
        "please", "call", "before", "noon", "regards",
    ];
    let mut batch = Batch::new();
    let group = batch.group_index(0);
    for number in 0..records {
        let words = noise(parcel * records + number + 1, 30);
        let line = |words: &[u8]| {
            words.iter().map(|word| WORDS[usize::from(word % 16)]).collect::<Vec<_>>().join(" ")
        };
        let letter = words.chunks(6).map(line).collect::<Vec<_>>().join("\n");
        let offset = (parcel * records + number) as i64;
        batch.push(group, offset, offset, None, Some(letter.as_bytes()), []);
    }
    stamp(&mut batch, group, (parcel * records) as i64, ((parcel + 1) * records) as i64);
    batch
}

/// One of everything that is easily confused.
pub(crate) fn oddities() -> Batch {
    let mut batch = Batch::new();
    let a = batch.group_index(5);
    batch.push(a, 10, i64::MIN, None, None, []);
    batch.push(a, 12, i64::MAX, Some(b""), Some(b""), [(&b""[..], None), (&b""[..], Some(&b""[..]))]);
    batch.push(a, 13, -1, Some(b"key"), None, [(&b"h"[..], Some(&b"1"[..])), (&b"h"[..], Some(&b"1"[..]))]);
    batch.push(a, 1 << 40, 0, None, Some(b"value"), []);
    stamp(&mut batch, a, 7, (1 << 40) + 5);
    let b = batch.group_index(u32::MAX);
    stamp(&mut batch, b, i64::MIN, i64::MAX);
    batch.groups_mut()[b].resume_epoch = u32::MAX;
    batch.groups_mut()[b].gap = GapReason::Expired;
    let c = batch.group_index(1 << 20);
    batch.push(c, -3, 5, Some(b"k"), Some(b"v"), []);
    stamp(&mut batch, c, -3, -2);
    batch.groups_mut()[c].gap = GapReason::Quarantined;
    batch
}
