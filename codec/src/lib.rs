//! Batch <-> parcel: records of one lane in plain form, and their coded form on the wire.
//!
//! - [`Batch`]: records grouped by source partition, in one arena. What consumers of Kafka fill and producers read.
//! - [`Encoder`], [`Decoder`]: one of each per lane epoch. They share one zstd stream and what they remember of
//!   header names, positions, shapes and columns, so parcels are decoded in the order in which they were encoded, and any
//!   [`Error`] of the decoder ends the lane epoch.
//! - [`Digest`]: what an audit says about a group, comparable at both ends.
//! - [`level`]: which zstd level a lane uses.
//! - [`avro`]: schemas, by which an encoder finds its way in binary values.
//! - [`limits`]: every bound, and how they relate.
//!
//! Pure: no I/O, no clock, no thread, no randomness. In the steady state nothing is allocated per record: an encoder
//! reuses its buffers, a decoded batch points into the one buffer that it was decompressed to.
//!
//! ```
//! use longhaul_codec::{Batch, DecodeLimits, Decoder, Encoder, EncoderSettings};
//!
//! let mut batch = Batch::new();
//! let group = batch.group_index(7);
//! batch.push(group, 100, 1_700_000_000_000, Some(b"key"), None, [(&b"trace"[..], Some(&b"1"[..]))]);
//! (batch.groups_mut()[group].prev_next, batch.groups_mut()[group].next) = (100, 101);
//!
//! let mut body = Vec::new();
//! let sizes = Encoder::new(EncoderSettings::default())?.encode(&batch, &mut body)?;
//! let received = Decoder::new(DecodeLimits::default())?.decode(&body, sizes.plain)?;
//! assert_eq!(received, batch);
//! assert_eq!(received.group_digest(group), batch.group_digest(group));
//! # Ok::<(), longhaul_codec::Error>(())
//! ```
//!
//! # The format, version 2
//! Numbers are LEB128 *varints*; *signed* ones zigzag; *lengths* are a varint of length + 1, or 0 for null.
//!
//! ```text
//! parcel body
//! | 1 byte                      | varint                 | rest                                             |
//! | version << 4 | flags        | size of the serialized | RAW: the serialized batch as it is               |
//! | flags: 1 RAW, 2 FRAME       | batch; if OPENED,      | else: zstd blocks, flushed; a whole number of them |
//! | 8 OPENED                    | varint opened size     |                                                    |
//! | 4 REST                      |                        | neither size nor rest                              |
//!
//! serialized batch: each section begins with its kind
//! | groups     | 01 | varint groups, then for each:                                                          |
//! |            |    |   varint slot | flags | varint records | varint missing | [varint epoch, signed delta]     |
//! | offsets    | 08 | per group that misses offsets, until all its records have one:                         |
//! |            |    |   varint left out | varint consecutive ones                                             |
//! | timestamps | 10 | signed difference from the record before                                               |
//! |         or | 11 | varint unit | the same difference in units                                           |
//! |         or | 12 | varint unit | the same by range coder                                                |
//! |         or | 13 | per run, until all groups that have records are in one:                                |
//! |            |    |   varint groups | varint unit | coder << 1 + 1 if by range coder | the same for them       |
//! | headers    | 18 | none has any                                                                           |
//! |         or | 19 | per record: varint headers, for each varint name [varint size, name], length of value  |
//! |            |    | then the bytes of all values                                                           |
//! | payload    | 20 | 28, length of each key | 28, length of each value | key and value of each, side by side |
//! |         or | 21 | shapes, then columns: below                                                            |
//! | opened     | 30 | if OPENED: how values are compressed again, see the module `deflate`                   |
//! | checksum   | xxh3-64 over what the batch says, 8 bytes little endian                                     |
//! ```
//!
//! - Columns run over all groups. Without records there are only groups and checksum.
//! - *FRAME*: a zstd frame begins with this parcel: magic number, descriptor 0, window. It never ends; the next one
//!   takes its place, which is how a level changes. A RAW parcel is unknown to zstd, whose window stays.
//! - *REST*: the lane has nothing to send for a while. Both ends forget all that this format remembers (zstd's frame,
//!   positions, names, shapes, columns) and give its memory back; the next parcel is as a lane epoch's first one. The
//!   batch is empty, its plain size 0. From version 2 on.
//! - *Groups*: flags hold the gap's reason in the low half; 0x10 says that resume epoch and `prev_next` (as difference)
//!   follow, otherwise both are what the slot's last group left (0 and 0 for a slot not seen before, or not
//!   remembered); 0x20 that the leader epoch follows, zigzag, otherwise it is the last one (-1 at first).
//!   `next` is `prev_next` + records + missing; when none is missing, offsets need no bytes.
//! - *Timestamps*: the first of a group differs from the first of the last group that had records; the first of a run
//!   from the first of its slot's last group that had records (0 if there was none, or it is not remembered). Range coders
//!   of runs are numbered from 0 as they come into use, at most 16, and have a model each.
//! - *Names*: 0 spelled out, 1 spelled out and given the next number, n + 2 for number n.
//! - *OPENED*: values that are gzip or zlib themselves lie in the payload as what they hold. The opened size is the plain
//!   size with these in their place; it bounds what is allocated, as the plain size does otherwise. The checksum is of the
//!   batch as it was, with all values closed again.
//! - The plain size is no part of the body: it comes with the parcel's header and must come out exactly.
//!
//! Version 1 has neither the sections `11`, `12`, `13` and `21` nor columns nor REST. A decoder reads both; an encoder writes version 2.
//!
//! ## Shapes
//! Keys and values are ways through a graph that grows with the lane epoch. A node is a column, an edge is the text that
//! stands between two values. Nodes: 0 start of keys, 1 start of values, 2 whole keys, 3 whole values, then in the order
//! in which they are defined; the column of node *n* is *n* - 2. A start node has three edges to begin with: null, empty,
//! and whole; the nodes of whole keys and values lead to the end.
//!
//! ```text
//! payload 21
//! | flags       | 1 RESET: all shapes and columns are forgotten first; 2 DEFINITIONS, 8 DRESSES, 4 CHOICES follow |
//! | DEFINITIONS | varint edges, for each: varint keys and values begun since the definition before (keys come   |
//! |             | first), varint from (0: where the one before leads, else node + 1), varint to (0: the end,    |
//! |             | else node; one above the last is a new one), varint length, text                              |
//! | DRESSES     | varint columns, for each: varint column, what stands before each of its values: 1 its length,   |
//! |             | 2 its length zigzag, 3 branch, other branch: the byte of a branch and the length zigzag, or     |
//! |             | nothing before a value that is the byte of the other branch                                     |
//! | CHOICES     | varint branches, for each: varint nodes left out, varint choices, then each: 0 as guessed,    |
//! |             | else the edge's place at its node, from 1                                                     |
//! | columns     | those that have values, of keys first, by their numbers                                       |
//! ```
//!
//! - A node with several edges is a branch. Which edge is taken is guessed at both ends alike, by what was taken on the
//!   same way before, else at the same node; where a branch's choices end, the rest is as guessed.
//! - How many values a column has follows from the ways, so that it is not told.
//!
//! ## Columns
//! All columns of a parcel begin with what changed of their kinds; the module `column` has the layout of each kind.
//!
//! A column may refer to an earlier one: as a copy, by its entries, its order or its numbers. That goes by record, the first
//! value with the first of the same record and so on. Both ends know the record of each value from the ways.
//!
//! # Kinds
//! One registry for sections and columns. A number, once given, keeps its meaning for ever; an unknown one is
//! [`Error::UnknownKind`]. A sender uses a reserved kind only with a receiver of a version that has it.
//!
//! | kind | where | meaning |
//! |---|---|---|
//! | `00` | | never given |
//! | `01` | groups | table of ranges |
//! | `02`-`07` | groups | reserved |
//! | `08` | offsets | runs |
//! | `09`-`0f` | offsets | reserved |
//! | `10`, `11`, `12` | timestamps | difference from the record before; in units; in units by range coder |
//! | `13` | timestamps | in runs of groups, each in units of its own |
//! | `14`-`17` | timestamps | reserved: constant, per key, from the value |
//! | `18`, `19` | headers | none; names by dictionary |
//! | `1a`-`1f` | headers | reserved: values by column |
//! | `20` | payload | rows |
//! | `21` | payload | by shapes, in columns |
//! | `22`-`27` | payload | reserved |
//! | `28` | lengths | one number each |
//! | `29`-`2f` | lengths | reserved: constant |
//! | `30` | opened | how values are compressed again |
//! | `40` | column | constant |
//! | `41`, `42` | column | text, a value a line; lengths, then bytes |
//! | `43` | column | integers, by difference |
//! | `44` | column | dates and times as text, by difference |
//! | `45` | column | decimals |
//! | `46` | column | hexadecimal, UUID and the like, packed |
//! | `47` | column | pattern of digit runs |
//! | `48` | column | dictionary that lives with the lane epoch |
//! | `49` | column | copy of an earlier column, by record |
//! | `4a` | column | as the last value beside the same entry of an earlier column |
//! | `4b` | column | numbers in binary, by difference |
//! | `4c`, `4d` | column | as `48` and `4a`, new entries behind their length |
//! | `4e`-`7f` | column | reserved |
//! | `80`-`ff` | | reserved |

pub mod avro;
pub mod batch;
mod checksum;
mod column;
mod decoder;
mod deflate;
pub mod digest;
mod encoder;
mod error;
mod format;
mod layout;
pub mod level;
pub mod limits;
mod parse;
mod serialize;
mod shape;
mod skip;
mod state;
mod timestamps;
mod varint;

pub use batch::{Batch, GapReason, Group, RecordView, UNKNOWN_LEADER_EPOCH, record_plain_size};
pub use column::ColumnFault;
pub use decoder::{DecodeLimits, Decoder};
pub use digest::{Digest, ParseDigestError};
pub use encoder::{Encoder, EncoderSettings, Sizes};
pub use error::Error;
pub use format::{READABLE, VERSION};
pub use limits::RECORD_OVERHEAD;
pub use shape::Counts as ShapeCounts;
