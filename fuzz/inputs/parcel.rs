//! Parcels of one lane epoch, one after the other: u32 plain size, u32 size of the body (little endian), the body.
//! Shared by the fuzz target and the test that replays its corpus.

use longhaul_codec::{Batch, DecodeLimits, Decoder, Encoder, EncoderSettings};

/// Memory that a decoder of default limits may hold between parcels, in bytes.
const MOST_MEMORY: usize = 32 << 20;

/// Decodes until something is refused. What is accepted is what its sender declared, and can be sent on.
pub(crate) fn feed(mut input: &[u8]) {
    let mut decoder = Decoder::new(DecodeLimits::default()).expect("default limits");
    let mut encoder = Encoder::new(EncoderSettings::default()).expect("default settings");
    let mut batch = Batch::new();
    while let Some((head, rest)) = input.split_first_chunk::<8>() {
        let word = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().expect("four bytes"));
        let length = (word(4) as usize).min(rest.len());
        let (body, rest) = rest.split_at(length);
        let decoded = decoder.decode_into(body, word(0), &mut batch);
        assert!(decoder.memory() <= MOST_MEMORY, "{} bytes are held", decoder.memory());
        if decoded.is_err() {
            assert!(batch.is_empty(), "nothing of a refused parcel is left");
            assert!(
                decoder.decode_into(body, word(0), &mut batch).is_err(),
                "nothing is decoded after an error"
            );
            return;
        }
        assert_eq!(batch.plain_size(), u64::from(word(0)));
        let mut again = Vec::new();
        encoder.encode(&batch, &mut again).expect("what was decoded can be encoded");
        input = rest;
    }
}
