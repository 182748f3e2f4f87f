//! Records of any kind: what is encoded comes back as it was.

#![no_main]

#[path = "../inputs/records.rs"]
mod records;

libfuzzer_sys::fuzz_target!(|input: &[u8]| records::feed(input));
