//! What goes in comes out: round trips of single batches and of long streams.

use longhaul_codec::{
    Batch, DecodeLimits, Decoder, Digest, Encoder, EncoderSettings, Error, GapReason, limits,
};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::support::{Parcel, decoder, encode, encoder, letters, noise, oddities, orders, stamp};

fn one_record(value: &[u8]) -> Batch {
    let mut batch = Batch::new();
    let group = batch.group_index(0);
    batch.push(group, 0, 0, None, Some(value), []);
    stamp(&mut batch, group, 0, 1);
    batch
}

fn digests(batch: &Batch) -> Vec<Digest> {
    (0..batch.groups().len()).map(|group| batch.group_digest(group)).collect()
}

/// Sends all through one stream and asserts that each arrives; returns the parcels.
fn assert_arrive(batches: &[Batch]) -> Vec<Parcel> {
    let (mut encoder, mut decoder) = (encoder(), decoder());
    let sent = |batch: &Batch| {
        let parcel = encode(&mut encoder, batch);
        let received = decoder.decode(&parcel.coded, parcel.plain).expect("decodes");
        assert_eq!(&received, batch);
        assert_eq!(received.plain_size(), batch.plain_size());
        assert_eq!(received.record_count(), batch.record_count());
        for group in 0..batch.groups().len() {
            assert_eq!(received.group_plain_bytes(group), batch.group_plain_bytes(group));
        }
        assert_eq!(digests(&received), digests(batch));
        parcel
    };
    batches.iter().map(sent).collect()
}

#[test]
fn oddities_arrive_as_they_are_however_often() {
    let again = [oddities(), oddities(), Batch::new(), orders(0, 5), oddities()];
    assert_arrive(&again);
}

#[test]
fn a_stream_of_many_parcels_shares_one_context() {
    let batches: Vec<_> = (0..200).map(|parcel| orders(parcel, 10)).collect();
    let parcels = assert_arrive(&batches);
    let alone: usize = batches.iter().map(|batch| encode(&mut encoder(), batch).coded.len()).sum();
    let together: usize = parcels.iter().map(|parcel| parcel.coded.len()).sum();
    assert!(together * 10 < alone * 8, "{together} bytes as one stream, {alone} as single parcels");
}

#[test]
fn a_record_of_900_kb_arrives() {
    let text = "a long text, not all the same: ".repeat(29_000);
    let parcels = assert_arrive(&[one_record(text.as_bytes()), one_record(&noise(1, 900_000)), orders(0, 3)]);
    assert!(parcels[0].coded.len() < 2_000 && parcels[1].coded.len() < 901_000);
}

#[test]
fn a_maximal_record_arrives_and_a_larger_one_is_refused_without_harm() {
    let room = limits::MAX_RECORD_PLAIN as usize - limits::RECORD_OVERHEAD as usize;
    let (mut encoder, mut decoder) = (encoder(), decoder());
    let maximal = one_record(&vec![b'x'; room]);
    let parcel = encode(&mut encoder, &maximal);
    assert!(decoder.decode(&parcel.coded, parcel.plain).expect("decodes") == maximal);
    let mut out = vec![1, 2, 3];
    let too_large = one_record(&vec![b'x'; limits::MAX_PLAIN as usize]);
    assert!(matches!(
        encoder.encode(&too_large, &mut out),
        Err(Error::BatchTooLarge { what: "plain bytes", .. })
    ));
    assert_eq!(out, [1, 2, 3]);
    let parcel = encode(&mut encoder, &orders(0, 1));
    assert_eq!(decoder.decode(&parcel.coded, parcel.plain).expect("still in step"), orders(0, 1));
}

#[test]
fn batches_at_the_limits_of_counts_arrive_and_above_them_are_refused() {
    let groups = |count: u32| {
        let mut batch = Batch::new();
        (0..count).for_each(|slot| _ = batch.group_index(slot * 2));
        batch
    };
    let records = |count: u32, headers: u32| {
        let mut batch = Batch::new();
        let group = batch.group_index(1);
        for offset in 0..count {
            let header = (&b""[..], None);
            batch.push(group, offset.into(), 0, None, None, (0..headers).map(|_| header));
        }
        stamp(&mut batch, group, 0, count.into());
        batch
    };
    assert_arrive(&[
        groups(limits::MAX_GROUPS),
        records(limits::MAX_RECORDS, 0),
        records(1, limits::MAX_HEADERS),
    ]);
    let refused = |batch: &Batch| match encoder().encode(batch, &mut Vec::new()) {
        Err(Error::BatchTooLarge { what, .. }) => what,
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(&groups(limits::MAX_GROUPS + 1)), "groups");
    assert_eq!(refused(&records(limits::MAX_RECORDS + 1, 0)), "records");
    assert_eq!(refused(&records(1, limits::MAX_HEADERS + 1)), "headers");
}

#[test]
fn offsets_that_do_not_fit_their_group_are_refused_without_harm() {
    let build = |offsets: &[i64], prev_next, next| {
        let mut batch = Batch::new();
        let group = batch.group_index(3);
        offsets.iter().for_each(|offset| batch.push(group, *offset, 0, None, None, []));
        stamp(&mut batch, group, prev_next, next);
        batch
    };
    let mut encoder = encoder();
    let cases: [(&[i64], i64, i64, i64); 5] =
        [(&[5, 5], 5, 9, 5), (&[6, 5], 5, 9, 5), (&[4], 5, 9, 4), (&[9], 5, 9, 9), (&[], 9, 5, 5)];
    for (offsets, prev_next, next, offset) in cases {
        let error =
            encoder.encode(&build(offsets, prev_next, next), &mut Vec::new()).expect_err("does not fit");
        assert_eq!(error, Error::BatchRange { slot: 3, prev_next, next, offset });
    }
    let sound = build(&[5, 8], 5, 9);
    let parcel = encode(&mut encoder, &sound);
    assert_eq!(decoder().decode(&parcel.coded, parcel.plain).expect("nothing had changed"), sound);
}

#[test]
fn a_new_level_takes_effect_within_the_stream() {
    // One level from the start, and the other set after the first parcel.
    let sizes = |first: i32, then: i32| {
        let settings = EncoderSettings { level: first, ..EncoderSettings::default() };
        let (mut encoder, mut decoder) = (Encoder::new(settings).expect("a valid level"), decoder());
        let mut total = 0;
        for number in 0..6 {
            let batch = letters(number, 700);
            let parcel = encode(&mut encoder, &batch);
            assert_eq!(decoder.decode(&parcel.coded, parcel.plain).expect("decodes"), batch);
            total += if number > 0 { parcel.coded.len() } else { 0 };
            encoder.set_level(then);
            assert_eq!(encoder.level(), then);
        }
        total
    };
    let (low, changed, high) = (sizes(1, 1), sizes(1, 12), sizes(12, 12));
    assert!(changed * 100 < low * 95, "level 1: {low}, 1 then 12: {changed}, 12: {high}");
}

#[test]
fn setting_the_same_level_begins_no_frame() {
    let (mut plain, mut set) = (encoder(), encoder());
    for number in 0..3 {
        set.set_level(3);
        let batch = orders(number, 50);
        assert_eq!(encode(&mut plain, &batch).coded, encode(&mut set, &batch).coded);
    }
}

#[test]
fn levels_and_windows_out_of_range_are_refused_or_clamped() {
    for (level, window_log) in [(0, 22), (13, 22), (3, 16), (3, 28)] {
        let error = Encoder::new(EncoderSettings { level, window_log }).expect_err("out of range");
        assert!(matches!(error, Error::Setting { .. }), "{error}");
    }
    let limits = DecodeLimits { window_log_max: 40, ..DecodeLimits::default() };
    assert!(matches!(Decoder::new(limits), Err(Error::Setting { value: 40, .. })));
    let limits = DecodeLimits { max_plain: u32::MAX, ..DecodeLimits::default() };
    assert!(matches!(Decoder::new(limits), Err(Error::Setting { .. })));
    let mut encoder = encoder();
    encoder.set_level(99);
    assert_eq!(encoder.level(), 12);
    encoder.set_level(-99);
    assert_eq!(encoder.level(), 1);
}

#[test]
fn what_does_not_compress_goes_as_it_is_and_the_stream_stays_in_step() {
    let mut batches: Vec<_> = (0..12).map(|seed| one_record(&noise(seed, 250_000))).collect();
    batches.push(letters(0, 700));
    batches.extend((0..3).map(|seed| one_record(&noise(seed + 100, 250_000))));
    batches.push(letters(0, 700));
    let parcels = assert_arrive(&batches);
    let raw = |parcel: &Parcel| parcel.coded[0] & 1 == 1;
    let pattern: String = parcels.iter().map(|parcel| if raw(parcel) { 'r' } else { 'z' }).collect();
    assert_eq!(
        pattern, "zrrrrzrrrrrrzzzzz",
        "tried after 4, text at once, noise again only with new evidence"
    );
    assert!(parcels[16].coded.len() < parcels[12].coded.len(), "the window has outlived the raw parcels");
    assert!(parcels[1].coded.len() < 250_000 + 64);
}

#[test]
fn a_recycled_batch_holds_the_new_content_only() {
    let (mut encoder, mut decoder) = (encoder(), decoder());
    let mut batch = Batch::new();
    for sent in [orders(0, 100), oddities(), orders(1, 3), Batch::new(), orders(2, 50)] {
        let parcel = encode(&mut encoder, &sent);
        decoder.decode_into(&parcel.coded, parcel.plain, &mut batch).expect("decodes");
        assert_eq!(batch, sent);
        assert_eq!(batch.plain_size(), sent.plain_size());
    }
}

#[test]
fn more_header_names_than_the_dictionary_holds_arrive() {
    let many = |salt: u32| {
        let mut batch = Batch::new();
        let group = batch.group_index(0);
        for offset in 0..2000u32 {
            let name = format!("{salt}-{offset}");
            batch.push(group, offset.into(), 0, None, None, [(name.as_bytes(), None), (&b"same"[..], None)]);
        }
        let long = vec![b'n'; limits::MAX_HEADER_NAME + 1];
        batch.push(group, 2000, 0, None, None, [(&long[..], Some(&long[..]))]);
        stamp(&mut batch, group, 0, 2001);
        batch
    };
    assert_arrive(&[many(0), many(1), many(0)]);
}

type Header = (Vec<u8>, Option<Vec<u8>>);
type Record = (u64, i64, Option<Vec<u8>>, Option<Vec<u8>>, Vec<Header>);

fn field() -> impl Strategy<Value = Option<Vec<u8>>> {
    prop_oneof![Just(None), Just(Some(vec![])), vec(any::<u8>(), 1..40).prop_map(Some)]
}

fn record() -> impl Strategy<Value = Record> {
    let name = prop_oneof![Just(b"trace".to_vec()), Just(b"type".to_vec()), vec(any::<u8>(), 0..6)];
    let skipped = prop_oneof![4 => Just(0u64), 1 => 1..5u64, 1 => 0..1u64 << 50];
    let timestamp = prop_oneof![4 => 1_700_000_000_000..1_700_000_100_000i64, 1 => any::<i64>()];
    (skipped, timestamp, field(), field(), vec((name, field()), 0..4))
}

prop_compose! {
    /// A group: slot, epoch, where it starts, records, offsets left out at its end, gap.
    fn group()(
        slot in prop_oneof![0..6u32, any::<u32>()], epoch in 0..3u32, start in prop_oneof![0..100i64, any::<i64>()],
        records in vec(record(), 0..12), tail in prop_oneof![Just(0u64), 0..1000u64], gap in 0..4u8,
    ) -> (u32, u32, i64, Vec<Record>, u64, u8) {
        (slot, epoch, start.clamp(i64::MIN / 2, i64::MAX / 2), records, tail, gap)
    }
}

prop_compose! {
    fn batch()(groups in vec(group(), 0..6)) -> Batch {
        let mut batch = Batch::new();
        for (slot, epoch, start, records, tail, gap) in groups {
            let before = batch.groups().len();
            let index = batch.group_index(slot);
            if index < before {
                continue;
            }
            let mut next = start;
            for (skipped, timestamp, key, value, headers) in &records {
                let offset = next + *skipped as i64;
                let headers = headers.iter().map(|(name, value)| (name.as_slice(), value.as_deref()));
                batch.push(index, offset, *timestamp, key.as_deref(), value.as_deref(), headers);
                next = offset + 1;
            }
            let group = &mut batch.groups_mut()[index];
            (group.resume_epoch, group.prev_next, group.next) = (epoch, start, next + tail as i64);
            group.gap = GapReason::from_wire(gap).expect("0 to 3");
        }
        batch
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn whatever_is_sent_arrives(batches in vec(batch(), 1..8)) {
        assert_arrive(&batches);
    }

    #[test]
    fn declared_bounds_hold_for_every_batch(batch in batch()) {
        let parcel = encode(&mut encoder(), &batch);
        prop_assert!(parcel.coded.len() as u64 <= limits::coded_bound(parcel.plain));
    }
}

#[test]
fn a_lane_that_rests_gives_its_memory_back_at_both_ends_and_goes_on_as_a_new_one() {
    let (mut encoder, mut decoder) = (encoder(), decoder());
    assert!(encoder.is_resting());
    let mut first = Vec::new();
    for round in 0..3 {
        for parcel in 0..20 {
            let batch = orders(round * 20 + parcel, 40);
            let Parcel { coded, plain } = encode(&mut encoder, &batch);
            assert!(decoder.decode(&coded, plain).expect("decodes") == batch);
            if parcel == 0 {
                first.push(coded.len());
            }
        }
        let (sending, receiving) = (encoder.memory(), decoder.memory());
        let mut body = vec![7];
        let sizes = encoder.rest(&mut body).expect("can rest");
        assert_eq!((sizes.plain, sizes.coded, body.len()), (0, 1, 2));
        let mut received = orders(0, 1);
        decoder.decode_into(&body[1..], 0, &mut received).expect("decodes");
        assert!(received.is_empty() && encoder.is_resting());
        assert!(encoder.memory() * 20 < sending && encoder.memory() < 64 * 1024, "{}", encoder.memory());
        assert!(decoder.memory() * 20 < receiving && decoder.memory() < 64 * 1024, "{}", decoder.memory());
    }
    assert!(first.iter().all(|size| size.abs_diff(first[0]) < 40), "{first:?} bytes of first parcels");
    assert!(encoder.shapes().followed > 0, "counts go on");
    let out_of_step = encode(&mut encoder, &orders(60, 1));
    let (body, mut late) = (encode(&mut encoder, &orders(61, 1)), self::decoder());
    late.decode(&out_of_step.coded, out_of_step.plain).expect("as a first parcel");
    let mut rest = Vec::new();
    encoder.rest(&mut rest).expect("can rest");
    late.decode(&rest, 0).expect("decodes");
    assert_eq!(late.decode(&body.coded, body.plain), Err(Error::NoFrame), "nothing is left of before");
}
