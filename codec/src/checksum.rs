//! Checksum of a batch: xxh3 over canonical bytes, the same at both ends whatever lies between.
//!
//! It covers what the batch says, not how it was coded, so that a fault of a transform shows as well as one of
//! the line. It is no protection against forgery: that is the link's encryption and the audit's digests.

use xxhash_rust::xxh3::Xxh3;

use crate::Batch;

/// Checksum of every group and record of `batch`.
///
/// Numbers are little endian, lengths 32 bits with `0xffff_ffff` for null:
/// per group slot, resume epoch, prev_next, next, gap, record count, leader epoch unless negative; per record offset, timestamp, key length,
/// value length, header count, key, value; per header name length, value length, name, value.
pub(crate) fn of_batch(batch: &Batch) -> u64 {
    let mut hash = Gathered { hash: Xxh3::new(), bytes: [0; GATHER], length: 0 };
    for group in &batch.groups {
        let mut head = [0; 29];
        head[..4].copy_from_slice(&group.slot.to_le_bytes());
        head[4..8].copy_from_slice(&group.resume_epoch.to_le_bytes());
        head[8..16].copy_from_slice(&group.prev_next.to_le_bytes());
        head[16..24].copy_from_slice(&group.next.to_le_bytes());
        head[24] = group.gap.to_wire();
        head[25..].copy_from_slice(&(group.records.len() as u32).to_le_bytes());
        hash.update(&head);
        if group.leader_epoch >= 0 {
            hash.update(&group.leader_epoch.to_le_bytes());
        }
        for meta in &group.records {
            let mut head = [0; 28];
            head[..8].copy_from_slice(&meta.offset.to_le_bytes());
            head[8..16].copy_from_slice(&meta.timestamp.to_le_bytes());
            head[16..20].copy_from_slice(&meta.key.to_le_bytes());
            head[20..24].copy_from_slice(&meta.value.to_le_bytes());
            head[24..].copy_from_slice(&meta.headers.to_le_bytes());
            hash.update(&head);
            hash.update(&batch.arena[meta.row()]);
            for header in &batch.headers[meta.header_range()] {
                let mut head = [0; 8];
                head[..4].copy_from_slice(&header.name.to_le_bytes());
                head[4..].copy_from_slice(&header.value.to_le_bytes());
                hash.update(&head);
                hash.update(&batch.arena[header.name_range()]);
                hash.update(&batch.arena[header.value_range()]);
            }
        }
    }
    hash.finish()
}

/// Gathers small pieces, as the hash is fast on large ones only.
struct Gathered {
    hash: Xxh3,
    bytes: [u8; GATHER],
    length: usize,
}

impl Gathered {
    #[inline]
    fn update(&mut self, piece: &[u8]) {
        if let Some(room) = self.bytes.get_mut(self.length..self.length + piece.len()) {
            room.copy_from_slice(piece);
            self.length += piece.len();
            return;
        }
        self.hash.update(&self.bytes[..self.length]);
        self.length = 0;
        if piece.len() > GATHER / 2 {
            self.hash.update(piece);
        } else {
            self.bytes[..piece.len()].copy_from_slice(piece);
            self.length = piece.len();
        }
    }

    fn finish(mut self) -> u64 {
        self.hash.update(&self.bytes[..self.length]);
        self.hash.digest()
    }
}

const GATHER: usize = 4096;
