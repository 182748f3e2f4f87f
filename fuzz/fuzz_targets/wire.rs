//! Messages of the control stream, prefaces and headers of lane streams.

#![no_main]

#[path = "../inputs/wire.rs"]
mod wire;

libfuzzer_sys::fuzz_target!(|input: &[u8]| wire::feed(input));
