//! The modelled target: topics, a progress topic, and transactions that make both visible at once.
//!
//! It keeps what bit in reality: an `EndTxn` that arrives late is applied to whatever transaction is open, as long as
//! the producer epoch is the current one; a transaction that stays open too long is aborted and its producer fenced.

use std::{collections::BTreeMap, sync::Arc};

use codec::GapReason;
use proto::ids::SourcePartition;

use super::source::Content;

#[derive(Debug)]
pub(super) struct Target {
    /// What a read_committed reader sees.
    pub(super) logs: BTreeMap<(Arc<str>, i32), Vec<Content>>,
    /// The progress topic, as a read_committed reader sees it.
    pub(super) progress: Progress,
    /// Which importer wrote a lane's progress last.
    pub(super) owners: Vec<u64>,
    /// The ranges that groups said they cover, for the checker: audit lines, in a way.
    pub(super) ranges: Vec<Range>,
    transactions: Vec<Transactional>,
    /// Planted: a producer's epoch does not matter.
    pub(super) unfenced: bool,
}

/// Per source partition the next offset, and the leader epoch of the one before.
pub(super) type Progress = BTreeMap<SourcePartition, (i64, Option<i32>)>;

/// The broker's view of one transactional id.
#[derive(Debug, Default)]
struct Transactional {
    epoch: u32,
    open: Option<Transaction>,
}

#[derive(Debug, Default)]
struct Transaction {
    token: u64,
    writes: Vec<Write>,
    progress: Option<(u64, Progress)>,
}

/// One accepted group as written.
#[derive(Debug, Clone)]
pub(super) struct Write {
    pub(super) topic: Arc<str>,
    pub(super) range: Range,
    pub(super) records: Vec<Content>,
}

/// What one group covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) partition: SourcePartition,
    pub(super) from: i64,
    pub(super) to: i64,
    pub(super) gap: GapReason,
    pub(super) leader_epoch: Option<i32>,
}

impl Range {
    /// The progress that it makes.
    pub(super) fn end(&self) -> (i64, Option<i32>) {
        (self.to, self.leader_epoch)
    }
}

/// What the broker refuses with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// Another producer of this transactional id is newer.
    Fenced,
    /// The transaction that this belongs to is over.
    InvalidState,
}

impl Target {
    pub(super) fn new(lanes: u16, unfenced: bool) -> Self {
        let lanes = usize::from(lanes);
        Self {
            logs: BTreeMap::new(),
            progress: BTreeMap::new(),
            owners: vec![0; lanes],
            ranges: Vec::new(),
            transactions: (0..lanes).map(|_| Transactional::default()).collect(),
            unfenced,
        }
    }

    /// `init_transactions`: aborts what is open, and fences whoever was before.
    pub(super) fn init(&mut self, lane: usize) -> u32 {
        let transactional = &mut self.transactions[lane];
        transactional.open = None;
        transactional.epoch += 1;
        transactional.epoch
    }

    /// The transaction time-out: as an init by nobody.
    pub(super) fn time_out(&mut self, lane: usize) {
        if self.transactions[lane].open.is_some() {
            self.init(lane);
        }
    }

    /// Records and their range; the first of a transaction opens it at the broker.
    pub(super) fn produce(&mut self, lane: usize, producer: Producer, write: Write) -> Result<(), Refused> {
        self.open(lane, producer)?.writes.push(write);
        Ok(())
    }

    /// Progress, written in the same transaction.
    pub(super) fn produce_progress(
        &mut self,
        lane: usize,
        producer: Producer,
        owner: u64,
        progress: Progress,
    ) -> Result<(), Refused> {
        self.open(lane, producer)?.progress = Some((owner, progress));
        Ok(())
    }

    fn open(&mut self, lane: usize, producer: Producer) -> Result<&mut Transaction, Refused> {
        self.fence(lane, producer.epoch)?;
        let Producer { token, begun, .. } = producer;
        let open = &mut self.transactions[lane].open;
        if !begun && open.is_none() {
            return Ok(open.insert(Transaction { token, ..Transaction::default() }));
        }
        open.as_mut().filter(|open| open.token == token || self.unfenced).ok_or(Refused::InvalidState)
    }

    /// `EndTxn(commit)`: of whatever is open. A repeated one, with nothing open, succeeds.
    pub(super) fn commit(&mut self, lane: usize, epoch: u32) -> Result<(), Refused> {
        self.fence(lane, epoch)?;
        let Some(transaction) = self.transactions[lane].open.take() else { return Ok(()) };
        for Write { topic, range, records } in transaction.writes {
            self.logs.entry((topic, range.partition.partition)).or_default().extend(records);
            self.ranges.push(range);
        }
        if let Some((owner, progress)) = transaction.progress {
            self.write_progress(lane, owner, progress);
        }
        Ok(())
    }

    /// Progress becomes visible.
    pub(super) fn write_progress(&mut self, lane: usize, owner: u64, progress: Progress) {
        self.owners[lane] = owner;
        self.progress.extend(progress);
    }

    fn fence(&self, lane: usize, epoch: u32) -> Result<(), Refused> {
        if epoch != self.transactions[lane].epoch && !self.unfenced {
            return Err(Refused::Fenced);
        }
        Ok(())
    }
}

/// A producer's request: its epoch, its transaction, and whether the broker knows of that already.
#[derive(Debug, Clone, Copy)]
pub(super) struct Producer {
    pub(super) epoch: u32,
    pub(super) token: u64,
    pub(super) begun: bool,
}
