//! The first byte says what the rest is. Shared by the fuzz target and the test that replays its corpus.

use longhaul_proto::wire::{LanePreface, ParcelHeader, ToExporter, ToImporter};

/// Decodes; what is accepted is written again and read as the same.
pub(crate) fn feed(input: &[u8]) {
    let Some((kind, rest)) = input.split_first() else { return };
    match kind % 4 {
        0 => {
            if let Ok(message) = ToImporter::decode_frame(rest) {
                let frame = message.encode_frame();
                let again = ToImporter::decode_frame(&frame[4..]).expect("what was written is read");
                assert!(again.encode_frame() == frame);
            }
        }
        1 => {
            if let Ok(message) = ToExporter::decode_frame(rest) {
                let frame = message.encode_frame();
                let again = ToExporter::decode_frame(&frame[4..]).expect("what was written is read");
                assert!(again.encode_frame() == frame);
            }
        }
        2 => {
            if let Some(Ok(preface)) = rest.first_chunk().map(LanePreface::decode) {
                assert!(LanePreface::decode(&preface.encode()) == Ok(preface));
            }
        }
        _ => {
            if let Some(Ok(header)) = rest.first_chunk().map(ParcelHeader::decode) {
                assert!(ParcelHeader::decode(&header.encode()) == Ok(header));
            }
        }
    }
}
