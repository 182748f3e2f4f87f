//! What was sent, until it is acknowledged; and what was acknowledged, until it is on record.
//!
//! Bounded by the lane's credit: a group is kept from when it is sent until the importer has it committed. Digests of
//! groups add up, so a line of the audit log can speak for any run of them.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Instant,
};

use codec::{Batch, Digest, GapReason};
use observe::event::{Delivered, Event};
use proto::ids::Slot;

use crate::{journal::Tally, partition::Partition};

/// See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    accounts: BTreeMap<Slot, Account>,
}

#[derive(Debug)]
struct Account {
    partition: Arc<Partition>,
    sent: VecDeque<Sent>,
    /// Whether acknowledgements of what was sent are waited for.
    awaited: bool,
    /// Acknowledged, and not on record yet.
    runs: Vec<Tally>,
}

#[derive(Debug)]
struct Sent {
    tally: Tally,
    /// Timestamp of the first record, ms since 1970.
    timestamp: Option<i64>,
    at: Instant,
}

/// What an acknowledgement settled.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub(crate) struct Settled {
    /// First offset that is not settled; `None` when nothing was.
    pub(crate) next: Option<i64>,
    pub(crate) records: u64,
    pub(crate) plain: u64,
    /// Plain bytes still outstanding of the slot.
    pub(crate) outstanding: u64,
    /// When the oldest group that it settled was sent.
    pub(crate) oldest: Option<Instant>,
}

impl Ledger {
    /// The group at `index` of `batch` is sent, in a parcel of `coded` bytes. Gives what is to be noted of it.
    pub(crate) fn sent(
        &mut self,
        partition: &Arc<Partition>,
        batch: &Batch,
        index: usize,
        coded: u32,
        now: Instant,
    ) -> Tally {
        let group = &batch.groups()[index];
        let plain = batch.group_plain_bytes(index);
        let share = (plain + GROUP) as f64 / batch.plain_size().max(1) as f64;
        let mut offsets = batch.records(index).map(|record| record.offset);
        let first = offsets.next();
        let tally = Tally {
            from: group.prev_next,
            next: group.next,
            first,
            last: offsets.last().or(first),
            records: batch.group_record_count(index) as u64,
            named: if group.gap == GapReason::NotVisible { 0 } else { distance(group.prev_next, group.next) },
            plain,
            wire: (f64::from(coded) * share).round() as u64,
            digest: batch.group_digest(index).to_string(),
        };
        let timestamp = batch.records(index).next().map(|record| record.timestamp);
        let account = self.account(partition);
        account.sent.push_back(Sent { tally: tally.clone(), timestamp, at: now });
        if account.sent.len() == 1 {
            account.note_oldest();
        }
        account.awaited = true;
        tally
    }

    /// What a former run sent of a partition and did not put on record, unless this run knows the partition already.
    pub(crate) fn adopt(
        &mut self,
        partition: &Arc<Partition>,
        left: impl FnOnce() -> Vec<Tally>,
        now: Instant,
    ) {
        if self.accounts.contains_key(&partition.slot) {
            return;
        }
        let left = left();
        let sent = left.into_iter().map(|tally| Sent { tally, timestamp: None, at: now });
        self.account(partition).sent = sent.collect();
    }

    /// Everything of the slot below `next` is durable at the target.
    pub(crate) fn committed(&mut self, slot: Slot, next: i64) -> Option<(Arc<Partition>, Settled)> {
        let mut settled = Settled::default();
        let account = self.accounts.get_mut(&slot)?;
        while account.sent.front().is_some_and(|sent| sent.tally.next <= next) {
            let Some(Sent { tally, at, .. }) = account.sent.pop_front() else { break };
            settled.next = Some(tally.next);
            settled.records += tally.records;
            settled.plain += tally.plain;
            settled.oldest.get_or_insert(at);
            match account.runs.last_mut() {
                Some(run) if run.next == tally.from => add(run, &tally),
                // A run ends where the chain does: another exporter carried what lies between.
                _ => account.runs.push(tally),
            }
        }
        settled.outstanding = account.sent.iter().map(|sent| sent.tally.plain).sum();
        account.note_oldest();
        Some((Arc::clone(&account.partition), settled))
    }

    /// The slot is sent anew from `next`: what was sent beyond never arrived.
    pub(crate) fn rewound(&mut self, slot: Slot, next: i64) {
        let Some(account) = self.accounts.get_mut(&slot) else { return };
        account.sent.retain(|sent| sent.tally.next <= next);
        account.note_oldest();
    }

    /// Whether everything that was sent is acknowledged.
    pub(crate) fn is_settled(&self) -> bool {
        self.accounts.values().all(|account| !account.awaited || account.sent.is_empty())
    }

    /// The slot stands still: what was sent of it and not acknowledged is not waited for.
    pub(crate) fn held(&mut self, slot: Slot) {
        if let Some(account) = self.accounts.get_mut(&slot) {
            account.awaited = false;
        }
    }

    /// What was acknowledged since the last [`written`](Self::written), a line for each run of a source partition.
    pub(crate) fn lines(&self, link: &str, cluster: &str) -> Vec<Event> {
        self.accounts
            .values()
            .flat_map(|account| account.runs.iter().map(|run| line(run, &account.partition, link, cluster)))
            .collect()
    }

    /// The lines are on record.
    pub(crate) fn written(&mut self) {
        for account in self.accounts.values_mut() {
            account.runs.clear();
        }
    }

    fn account(&mut self, partition: &Arc<Partition>) -> &mut Account {
        self.accounts.entry(partition.slot).or_insert_with(|| Account {
            partition: Arc::clone(partition),
            sent: VecDeque::new(),
            awaited: true,
            runs: Vec::new(),
        })
    }
}

impl Account {
    fn note_oldest(&self) {
        let oldest = self.sent.iter().find_map(|sent| sent.timestamp);
        self.partition.facts().lag.oldest(oldest);
    }
}

/// Adds the group behind a run to it.
fn add(run: &mut Tally, other: &Tally) {
    run.next = other.next;
    run.first = run.first.or(other.first);
    run.last = other.last.or(run.last);
    run.records += other.records;
    run.named += other.named;
    run.plain += other.plain;
    run.wire += other.wire;
    run.digest = sum(&run.digest, &other.digest);
}

fn sum(left: &str, right: &str) -> String {
    // A digest that does not parse was changed in the journal: the line must not look right.
    let (Ok(mut sum), Ok(right)) = (left.parse::<Digest>(), right.parse::<Digest>()) else {
        return "unreadable".into();
    };
    sum.add(&right);
    sum.to_string()
}

fn line(run: &Tally, partition: &Partition, link: &str, cluster: &str) -> Event {
    Delivered {
        at: partition.place(link, cluster),
        from: run.from,
        next: run.next,
        first: run.first,
        last: run.last,
        records: run.records,
        not_visible: distance(run.from, run.next).saturating_sub(run.records + run.named),
        plain_bytes: run.plain,
        wire_bytes: run.wire,
        digest: run.digest.clone(),
    }
    .into()
}

fn distance(from: i64, next: i64) -> u64 {
    u64::try_from(next - from).unwrap_or(0)
}

const GROUP: u64 = codec::limits::GROUP_OVERHEAD;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::partition::tests::partition;

    fn send(
        ledger: &mut Ledger,
        partition: &Arc<Partition>,
        from: i64,
        next: i64,
        offsets: &[i64],
    ) -> Digest {
        let mut batch = Batch::new();
        let index = batch.group_index(partition.slot.0);
        for offset in offsets {
            batch.push(index, *offset, 1, None, Some(b"value"), std::iter::empty());
        }
        let group = &mut batch.groups_mut()[index];
        (group.prev_next, group.next) = (from, next);
        ledger.sent(partition, &batch, index, 100, Instant::now());
        batch.group_digest(index)
    }

    fn only_line(ledger: &Ledger) -> Delivered {
        match ledger.lines("l", "c").remove(0) {
            Event::Delivered(delivered) => delivered,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_acknowledged_adds_up_to_one_line_for_each_partition() {
        let (mut ledger, partition) = (Ledger::default(), Arc::new(partition(1, "t")));
        let mut sum = send(&mut ledger, &partition, 10, 14, &[11, 12]);
        sum.add(&send(&mut ledger, &partition, 14, 16, &[]));
        send(&mut ledger, &partition, 16, 20, &[19]);
        let settled = ledger.committed(Slot(1), 16).unwrap().1;
        assert_eq!((settled.next, settled.records), (Some(16), 2));
        let line = only_line(&ledger);
        assert_eq!((line.from, line.next, line.first, line.last), (10, 16, Some(11), Some(12)));
        assert_eq!((line.records, line.not_visible, line.wire_bytes), (2, 4, 200));
        assert_eq!(line.digest, sum.to_string());
        ledger.written();
        assert!(ledger.lines("l", "c").is_empty());
        assert!(!ledger.is_settled(), "16 to 19 are under way");
    }

    #[test]
    fn what_was_sent_beyond_a_rewind_is_never_on_record() {
        let (mut ledger, partition) = (Ledger::default(), Arc::new(partition(1, "t")));
        send(&mut ledger, &partition, 0, 5, &[0]);
        send(&mut ledger, &partition, 5, 9, &[5]);
        ledger.rewound(Slot(1), 5);
        assert_eq!(ledger.committed(Slot(1), 9).unwrap().1.next, Some(5));
        assert_eq!(only_line(&ledger).next, 5);
        assert!(ledger.is_settled());
    }

    #[test]
    fn what_a_former_run_sent_is_on_record_as_far_as_it_was_committed() {
        let (mut former, partition) = (Ledger::default(), Arc::new(partition(1, "t")));
        let digest = send(&mut former, &partition, 0, 5, &[0, 3]);
        send(&mut former, &partition, 5, 9, &[5]);
        let left: Vec<Tally> = former.accounts[&Slot(1)].sent.iter().map(|sent| sent.tally.clone()).collect();
        let mut ledger = Ledger::default();
        ledger.adopt(&partition, || left.clone(), Instant::now());
        ledger.adopt(&partition, || panic!("once"), Instant::now());
        ledger.committed(Slot(1), 5);
        ledger.rewound(Slot(1), 5);
        assert!(ledger.is_settled());
        let line = only_line(&ledger);
        assert_eq!((line.from, line.next, line.records, line.digest), (0, 5, 2, digest.to_string()));
    }

    #[test]
    fn an_acknowledgement_of_half_a_group_settles_nothing() {
        let (mut ledger, partition) = (Ledger::default(), Arc::new(partition(1, "t")));
        send(&mut ledger, &partition, 0, 5, &[0, 3]);
        assert_eq!(ledger.committed(Slot(1), 4).unwrap().1.next, None);
        assert!(ledger.lines("l", "c").is_empty());
    }
}
