//! From a closed batch to a parcel on the lane's stream.

use std::time::{Duration, Instant};

use bytes::Bytes;
use codec::{Encoder, EncoderSettings, GapReason};
use observe::event::{Event, Gap, Operator};
use proto::{
    ids::{LaneEpoch, SessionId, Slot},
    sender::{self, Stamped},
};
use tokio::sync::mpsc;

use super::{
    Lane,
    assembly::{Closed, NamedGap},
    command::{LaneEvent, Parcel},
    effort::Waits,
};
use crate::{schemas::Waiting, topic_check::Verdict};

/// A lane within a session.
pub(super) struct Running {
    pub(super) session: SessionId,
    pub(super) machine: sender::Lane,
    encoder: Encoder,
    /// Schemas that the encoder could do with.
    waiting: Waiting,
    parcels: mpsc::Sender<Parcel>,
    /// When the last batch left.
    sent: Instant,
    /// Something went wrong in a way that only a new session cures.
    failed: bool,
}

impl Running {
    pub(super) fn new(
        session: SessionId,
        epoch: LaneEpoch,
        credit: u64,
        parcels: mpsc::Sender<Parcel>,
        level: i32,
    ) -> Result<Self, codec::Error> {
        let encoder = Encoder::new(EncoderSettings { level, ..EncoderSettings::default() })?;
        let (machine, waiting) = (sender::Lane::new(epoch, credit), Waiting::default());
        Ok(Self { session, machine, encoder, waiting, parcels, sent: Instant::now(), failed: false })
    }

    pub(super) fn encoder_mut(&mut self) -> &mut Encoder {
        &mut self.encoder
    }

    pub(super) fn encoder(&self) -> &Encoder {
        &self.encoder
    }

    /// From the next parcel on.
    pub(super) fn set_level(&mut self, level: i32) {
        self.encoder.set_level(level);
    }

    /// There is nothing to send: after a while the codec's memory goes, at both ends.
    fn rest_if_idle(&mut self) {
        if self.encoder.is_resting() || self.sent.elapsed() < REST_AFTER {
            return;
        }
        let Ok(permit) = self.parcels.clone().try_reserve_owned() else { return };
        let mut body = Vec::new();
        match self.encoder.rest(&mut body) {
            Ok(sizes) => {
                let header = self.machine.header(sizes.coded, sizes.plain);
                permit.send((header, Bytes::from(body)));
            }
            // The next batch will fail, and say so.
            Err(error) => tracing::debug!(%error, "an idle lane keeps its memory"),
        }
    }
}

impl Lane {
    /// Sends what may leave: in order, released by the topic check, within credit, while the audit log is written.
    pub(super) fn send(&mut self) {
        self.effort.waits(Waits::Records);
        if self.assembly.front().is_none()
            && let Some(running) = &mut self.running
            && !running.failed
        {
            running.rest_if_idle();
        }
        while self.is_released() && self.shared.audit.healthy() {
            let Some(running) = &mut self.running else { return };
            let Some(front) = self.assembly.front() else { return };
            if running.failed {
                return;
            }
            if front.batch.plain_size() > running.machine.credit_left() {
                return self.effort.waits(Waits::Credit);
            }
            // The stream task has its hands full, or is gone with its connection.
            let Ok(permit) = running.parcels.clone().try_reserve_owned() else {
                return self.effort.waits(Waits::Stream);
            };
            if !self.gaps_on_record() {
                return;
            }
            let Some(closed) = self.assembly.pop() else { return };
            self.send_batch(closed, permit);
        }
    }

    /// Whether the topics of the front batch were checked after it was read.
    fn is_released(&mut self) -> bool {
        let Some(front) = self.assembly.front() else { return false };
        let read = front.read;
        let mut released = true;
        let mut lost = Vec::new();
        front.topics.retain(|topic| match topic.standing.verdict(read) {
            Verdict::Released => false,
            Verdict::Wait => {
                released = false;
                self.shared.asker.ask(topic);
                true
            }
            Verdict::Lost(loss) => {
                lost.push((topic.clone(), loss));
                false
            }
        });
        for (topic, loss) in lost {
            // Its slots are out of the lane from here on, so the batch's groups of it are not stamped.
            self.drop_topic(&topic, loss);
        }
        released
    }

    /// Puts the named gaps of the front batch on record, once, before they take effect.
    fn gaps_on_record(&mut self) -> bool {
        let Some(front) = self.assembly.front() else { return true };
        if front.gaps.is_empty() {
            return true;
        }
        let (link, cluster) = (&self.shared.config.link, self.shared.cluster.id());
        let lines: Vec<Event> = front.gaps.iter().flat_map(|gap| lines_of(gap, link, cluster)).collect();
        match self.shared.audit.record_many(lines) {
            Ok(()) => {
                front.gaps.clear();
                true
            }
            Err(error) => {
                tracing::warn!(%error, "a gap waits to be put on record; its lane waits with it");
                false
            }
        }
    }

    fn send_batch(&mut self, mut closed: Closed, permit: mpsc::OwnedPermit<Parcel>) {
        let Some(running) = &mut self.running else { return };
        if running.machine.stamp(&mut closed.batch) == Stamped::Nothing {
            self.assembly.recycle(closed.batch);
            return;
        }
        let mut body = Vec::new();
        let encoder = &mut running.encoder;
        let sizes = match self.effort.encode(|| encoder.encode(&closed.batch, &mut body)) {
            Ok(sizes) => sizes,
            Err(error) => {
                // The groups are stamped: what follows them must not be sent without them.
                running.failed = true;
                let what = format!("lane {}: a batch cannot be encoded: {error}", self.id);
                self.tell(|session| LaneEvent::Failed { session, what });
                return;
            }
        };
        self.shared.schemas.follow(&mut running.waiting, &mut running.encoder);
        let header = running.machine.header(sizes.coded, sizes.plain);
        let now = Instant::now();
        let (assembly, ledger) = (&self.assembly, &mut self.ledger);
        let groups = closed.batch.groups().iter().enumerate().filter_map(|(index, group)| {
            let partition = assembly.partition_of(Slot(group.slot))?;
            Some((partition, ledger.sent(partition, &closed.batch, index, sizes.coded, now)))
        });
        self.shared.journal.sent(groups);
        running.sent = now;
        permit.send((header, Bytes::from(body)));
        self.assembly.recycle(closed.batch);
    }
}

/// A lane without records gives the codec's memory back after so long: what it has learnt is worth more than the memory
/// while records come every few seconds.
const REST_AFTER: Duration = Duration::from_secs(60);

/// A gap, and the operator's act behind it.
fn lines_of(gap: &NamedGap, link: &str, cluster: &str) -> [Event; 2] {
    let at = gap.partition.place(link, cluster);
    let (first, last) = (gap.first, gap.next - 1);
    let (word, act) = match gap.reason {
        GapReason::Expired => {
            ("expired", format!("accepted that offsets {first} to {last} are lost: {}", gap.why))
        }
        GapReason::Quarantined => {
            ("quarantined", format!("set offsets {first} to {last} aside: {}", gap.why))
        }
        GapReason::Skipped | GapReason::NotVisible => {
            ("skipped", format!("skipped offsets {first} to {last}: {}", gap.why))
        }
    };
    let operator = Operator { who: "configuration".into(), act, at: Some(at.clone()) };
    [operator.into(), Gap { at, first, next: gap.next, reason: word.into() }.into()]
}
