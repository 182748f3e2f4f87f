//! What was accepted and is not committed yet. It stays in memory until then, so that it can be replayed.

use std::collections::BTreeMap;

use codec::Batch;
use proto::{
    ids::{LaneEpoch, Offset, SessionId, SourcePartition},
    policy::Permit,
    progress::Tally,
};

/// Accepted parcels, in their order.
#[derive(Debug, Default)]
pub(super) struct Pending {
    parcels: Vec<Accepted>,
    plain: u64,
}

/// What was accepted of one parcel.
#[derive(Debug)]
pub(super) struct Accepted {
    /// Only groups that were accepted.
    pub(super) batch: Batch,
    /// What each group is, and the right to write it.
    pub(super) parts: Vec<Part>,
    pub(super) session: SessionId,
    pub(super) epoch: LaneEpoch,
    /// What it took from the lane's credit, refused groups included.
    pub(super) plain: u64,
    /// What it took on the wire, headers of QUIC apart.
    wire: u64,
    /// Plain bytes of the parcel as it came: groups share `wire` by it.
    came: u64,
    /// Whether its gaps are in the audit log.
    pub(super) gaps_recorded: bool,
}

/// What a group is.
#[derive(Debug, Clone)]
pub(super) struct Part {
    pub(super) partition: SourcePartition,
    pub(super) permit: Permit,
}

impl Pending {
    pub(super) fn push(&mut self, accepted: Accepted) {
        self.plain += accepted.plain;
        self.parcels.push(accepted);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.parcels.is_empty()
    }

    /// Plain bytes of the parcels, as the lane's credit counts them.
    pub(super) fn plain_bytes(&self) -> u64 {
        self.plain
    }

    pub(super) fn parcels(&self) -> &[Accepted] {
        &self.parcels
    }

    pub(super) fn parcels_mut(&mut self) -> &mut [Accepted] {
        &mut self.parcels
    }

    /// The source partitions that have groups here.
    pub(super) fn parts(&self) -> BTreeMap<SourcePartition, Part> {
        let parts = self.parcels.iter().flat_map(|accepted| &accepted.parts);
        parts.map(|part| (part.partition.clone(), part.clone())).collect()
    }

    /// Takes everything out.
    pub(super) fn take(&mut self) -> Vec<Accepted> {
        self.plain = 0;
        std::mem::take(&mut self.parcels)
    }

    /// Drops what came with `session` or one before it. Its credit is void with it.
    pub(super) fn void(&mut self, session: SessionId) {
        self.parcels.retain(|accepted| accepted.session > session);
        self.plain = self.parcels.iter().map(|accepted| accepted.plain).sum();
    }

    /// Drops the groups of source partitions that are not to be kept. Their credit comes free with their parcel.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&Part, &codec::Group) -> bool) {
        for accepted in &mut self.parcels {
            let kept: Vec<bool> = accepted
                .parts
                .iter()
                .zip(accepted.batch.groups())
                .map(|(part, group)| keep(part, group))
                .collect();
            if kept.iter().all(|kept| *kept) {
                continue;
            }
            let mut flags = kept.iter();
            accepted.batch.retain_groups(|_| flags.next().copied().unwrap_or(false));
            let mut flags = kept.iter();
            accepted.parts.retain(|_| flags.next().copied().unwrap_or(false));
        }
    }
}

impl Accepted {
    pub(super) fn new(batch: Batch, session: SessionId, epoch: LaneEpoch, plain: u64, wire: u64) -> Self {
        let came = batch.plain_size().max(1);
        let parts = Vec::with_capacity(batch.groups().len());
        Self { batch, parts, session, epoch, plain, wire, came, gaps_recorded: false }
    }

    /// What the audit log is to say of the group at `index`.
    pub(super) fn tally(&self, index: usize) -> Tally {
        let group = &self.batch.groups()[index];
        let count = self.batch.group_record_count(index) as u64;
        let covered = group.next.abs_diff(group.prev_next);
        let plain_bytes = self.batch.group_plain_bytes(index);
        Tally {
            from: Offset(group.prev_next),
            records: offsets(&self.batch, index),
            count,
            named_gaps: if group.gap == codec::GapReason::NotVisible { 0 } else { covered - count },
            plain_bytes,
            wire_bytes: (u128::from(self.wire) * u128::from(plain_bytes) / u128::from(self.came)) as u64,
            digest: self.batch.group_digest(index),
        }
    }
}

/// The offsets of the first and the last record of a group.
pub(super) fn offsets(batch: &Batch, index: usize) -> Option<(i64, i64)> {
    let mut records = batch.records(index);
    let last = records.len().checked_sub(1)?;
    let first = records.next()?.offset;
    let last = if last == 0 { first } else { records.nth(last - 1)?.offset };
    Some((first, last))
}

/// The first record of a group that the target would refuse for its size, in words.
pub(super) fn too_large(batch: &Batch, index: usize, limit: usize) -> Option<String> {
    // Most groups are smaller than the limit as a whole: nothing to look at.
    if batch.group_plain_bytes(index) + (BATCH_OVERHEAD + RECORD_OVERHEAD) as u64 <= limit as u64 {
        return None;
    }
    batch.records(index).find_map(|record| {
        let size = batch_size(&record);
        (size > limit).then(|| {
            format!(
                "the record at source offset {} takes {size} bytes, the target topic's max.message.bytes is {limit}; raise \
                 it with kafka-configs.sh and the partition goes on by itself, or name the offset in a [[skip]] table of \
                 the exporter",
                record.offset
            )
        })
    })
}

/// Bytes of an uncompressed batch with this one record (Kafka's RecordBatch v2).
fn batch_size(record: &codec::RecordView<'_>) -> usize {
    let bytes = |field: Option<&[u8]>| field.map_or(1, |field| varint(field.len() as i64) + field.len());
    let headers = record.headers();
    let count = varint(headers.len() as i64);
    let headers: usize =
        headers.map(|(name, value)| varint(name.len() as i64) + name.len() + bytes(value)).sum();
    // Attributes, timestamp delta and offset delta take a byte each.
    let body = 3 + bytes(record.key) + bytes(record.value) + count + headers;
    BATCH_OVERHEAD + varint(body as i64) + body
}

/// Bytes of a zigzag varint.
fn varint(value: i64) -> usize {
    let zigzag = ((value << 1) ^ (value >> 63)) as u64;
    (64 - (zigzag | 1).leading_zeros() as usize).div_ceil(7)
}

/// Bytes of a RecordBatch v2 before its first record.
const BATCH_OVERHEAD: usize = 61;
/// What a record may take beyond its plain size.
const RECORD_OVERHEAD: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(value: usize) -> Batch {
        let mut batch = Batch::new();
        let group = batch.group_index(0);
        batch.push(group, 5, 0, None, Some(b"small"), std::iter::empty());
        let value = vec![0; value];
        batch.push(group, 7, 0, Some(b"key"), Some(&value), [(&b"h"[..], None)]);
        batch
    }

    #[test]
    fn the_size_of_a_batch_is_what_the_broker_counts() {
        let mut batch = Batch::new();
        let group = batch.group_index(0);
        batch.push(group, 0, 0, None, Some(&[0; 100]), std::iter::empty());
        assert_eq!(batch_size(&batch.records(0).next().unwrap()), 61 + 2 + 3 + 1 + 2 + 100 + 1);
    }

    #[test]
    fn a_record_above_the_limit_is_named_and_one_at_the_limit_passes() {
        let batch = batch(1000);
        let size = batch_size(&batch.records(0).nth(1).unwrap());
        assert_eq!(too_large(&batch, 0, size), None);
        assert!(too_large(&batch, 0, size - 1).unwrap().contains("source offset 7"));
    }

    #[test]
    fn what_came_with_a_session_whose_grant_was_taken_back_is_dropped() {
        let mut pending = Pending::default();
        for session in [1, 2, 3] {
            pending.push(Accepted::new(batch(1), SessionId(session), LaneEpoch(1), 10, 10));
        }
        pending.void(SessionId(2));
        let left: Vec<SessionId> = pending.parcels().iter().map(|accepted| accepted.session).collect();
        assert_eq!(left, [SessionId(3)]);
        assert_eq!(pending.plain_bytes(), 10);
    }

    #[test]
    fn the_offsets_of_a_group_are_its_first_and_last() {
        assert_eq!(offsets(&batch(1), 0), Some((5, 7)));
        let mut single = Batch::new();
        let group = single.group_index(0);
        assert_eq!(offsets(&single, 0), None);
        single.push(group, 9, 0, None, None, std::iter::empty());
        assert_eq!(offsets(&single, 0), Some((9, 9)));
    }
}
