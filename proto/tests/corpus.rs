//! The fuzz target's corpus, and what lies next to it, on every run of the tests.

#[path = "../../fuzz/inputs/wire.rs"]
mod wire;

use std::path::PathBuf;

use longhaul_proto::{
    ids::{Lane, LaneEpoch},
    wire::{Ack, Heartbeat, Hello, LanePreface, Open, ParcelHeader, ToExporter, ToImporter, Welcome},
};

#[test]
fn every_message_of_the_corpus_is_read_or_refused() {
    let mut inputs = 0;
    for entry in std::fs::read_dir(folder()).expect("the corpus is part of the sources") {
        let path = entry.expect("an entry of the corpus").path();
        let input = std::fs::read(&path).expect("a readable input");
        // Shown when something below panics.
        println!("{}", path.display());
        wire::feed(&input);
        for at in 0..input.len() {
            wire::feed(&input[..at]);
            for change in [1, 2, 0x80, 0xff] {
                let mut changed = input.clone();
                changed[at] ^= change;
                wire::feed(&changed);
            }
        }
        inputs += 1;
    }
    assert!(inputs >= 3, "{inputs} inputs");
}

#[test]
#[ignore = "writes the corpus's beginnings"]
fn write_the_corpus() {
    let message = |kind: u8, frame: Vec<u8>| [&[kind][..], &frame[4..]].concat();
    let hello = Hello { link: "fra-to-aws".into(), ..Hello::default() };
    let open = Open { topic: "orders".into(), ..Open::default() };
    let preface = LanePreface { lane: Lane(3), codec_version: 2, epoch: LaneEpoch(7) };
    let header = ParcelHeader { epoch: LaneEpoch(7), sequence: 9, coded: 1000, plain: 20_000 };
    for (name, bytes) in [
        ("hello", message(0, ToImporter::from(hello).encode_frame())),
        ("open", message(0, ToImporter::from(open).encode_frame())),
        ("heartbeat", message(0, ToImporter::from(Heartbeat::default()).encode_frame())),
        ("welcome", message(1, ToExporter::from(Welcome::default()).encode_frame())),
        ("ack", message(1, ToExporter::from(Ack::default()).encode_frame())),
        ("preface", [&[2][..], &preface.encode()].concat()),
        ("header", [&[3][..], &header.encode()].concat()),
    ] {
        std::fs::write(folder().join(name), bytes).expect("the folder is part of the sources");
    }
}

fn folder() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "..", "fuzz", "corpus", "wire"].iter().collect()
}
