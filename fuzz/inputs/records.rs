//! Records as text: 1d ends a parcel, 1e a record, 1f the key before its value. A record without a key has none; one that
//! begins with 1f has an empty key; 1c alone is a null value. After a first byte of 02 records may follow an Avro schema. Shared by the fuzz target and the test that replays its corpus.

use longhaul_codec::{Batch, DecodeLimits, Decoder, Encoder, EncoderSettings, avro};

const SCHEMA: &str = r#"{"type":"record","name":"R","fields":[{"name":"n","type":"long"},{"name":"s","type":"string"},
    {"name":"o","type":["null","int"]},{"name":"f","type":"float"},{"name":"t","type":["string","null"]}]}"#;

/// Encodes, decodes and compares.
pub(crate) fn feed(input: &[u8]) {
    let mut encoder = Encoder::new(EncoderSettings::default()).expect("default settings");
    let (avro, input) = input.strip_prefix(&[2]).map_or((false, input), |input| (true, input));
    if avro {
        let schema = avro::Schema::parse(SCHEMA).expect("a sound schema");
        encoder.use_avro(None, None, schema.into());
    }
    let mut decoder = Decoder::new(DecodeLimits::default()).expect("default limits");
    let mut offset = 0;
    for parcel in input.split(|byte| *byte == 0x1d) {
        let mut batch = Batch::new();
        let group = batch.group_index(0);
        let first = offset;
        for record in parcel.split(|byte| *byte == 0x1e) {
            let (key, value) = match record.iter().position(|byte| *byte == 0x1f) {
                Some(end) => (Some(&record[..end]), &record[end + 1..]),
                None => (None, record),
            };
            let value = (value != [0x1c]).then_some(value);
            batch.push(group, offset, 1_700_000_000_000 + offset * 10, key, value, []);
            offset += 1;
        }
        let stamped = &mut batch.groups_mut()[group];
        (stamped.prev_next, stamped.next) = (first, offset);
        let mut body = Vec::new();
        let Ok(sizes) = encoder.encode(&batch, &mut body) else {
            assert!(input.len() > 1 << 20, "only what is too much for a parcel is refused");
            return;
        };
        let received = decoder.decode(&body, sizes.plain).expect("what was encoded is decoded");
        assert!(received == batch, "records came back changed");
    }
}
