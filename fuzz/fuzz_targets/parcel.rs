//! The parcels of a lane epoch, as a hostile exporter sends them: columns, dictionaries and shapes through them.

#![no_main]

#[path = "../inputs/parcel.rs"]
mod parcel;

libfuzzer_sys::fuzz_target!(|input: &[u8]| parcel::feed(input));
