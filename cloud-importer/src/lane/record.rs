//! What a lane puts on record.

use std::time::{Duration, Instant};

use crate::target::Obstacle;
use observe::event::{self, Event, Place};
use proto::{
    hold::Reason,
    ids::{Offset, SourcePartition},
    progress::{Table, Tally},
};

use super::{
    Held, Stopped, Worker,
    commit::commit_entries,
    pending::{Part, Pending},
};

impl Worker {
    /// Puts governed events on record before what they speak of takes effect. While the audit log cannot be
    /// written, the lane waits: data pauses and nothing is lost.
    pub(super) fn govern(&mut self, events: Vec<Event>) -> Result<(), Stopped> {
        if events.is_empty() {
            return Ok(());
        }
        let mut said = false;
        loop {
            match self.context.audit.record_many(events.clone()) {
                Ok(()) => return Ok(()),
                Err(error) => {
                    if !said {
                        let (link, lane) = (&self.context.link_name, self.context.lane);
                        tracing::error!(%link, %lane, "{error}; the lane waits until the audit log can be written");
                        said = true;
                    }
                    self.pause(AUDIT_RETRY)?;
                }
            }
        }
    }

    /// Waits while the audit log cannot be written.
    pub(super) fn wait_for_audit(&mut self) -> Result<(), Stopped> {
        while !self.context.audit.healthy() && self.context.audit.probe().is_err() {
            self.pause(AUDIT_RETRY)?;
        }
        Ok(())
    }

    /// Gaps that have a name of their own, once each.
    pub(super) fn record_gaps(&mut self) -> Result<(), Stopped> {
        let link = self.context.link_name.clone();
        let events =
            self.pending.parcels().iter().filter(|accepted| !accepted.gaps_recorded).flat_map(|accepted| {
                accepted.parts.iter().zip(accepted.batch.groups()).filter_map(|(part, group)| {
                    let reason = match group.gap {
                        codec::GapReason::NotVisible => return None,
                        codec::GapReason::Expired => "expired",
                        codec::GapReason::Quarantined => "quarantined",
                        codec::GapReason::Skipped => "skipped",
                    };
                    let at = place(&link, part.permit.topic(), &part.partition);
                    let (first, next) = (group.prev_next, group.next);
                    Some(Event::from(event::Gap { at, first, next, reason: reason.into() }))
                })
            });
        let events: Vec<Event> = events.collect();
        self.govern(events)?;
        self.pending.parcels_mut().iter_mut().for_each(|accepted| accepted.gaps_recorded = true);
        Ok(())
    }

    /// Holds a source partition: on record, in the metrics, and told to the exporter.
    pub(super) fn hold(&mut self, partition: &SourcePartition, topic: &str, reason: Reason, detail: &str) {
        let at = place(&self.context.link_name, topic, partition);
        // Between two take-overs the last one's progress tells: without it the hold would end with the next open.
        let table = self.owned.as_ref().map(|owned| &owned.table).or(self.last_table.as_ref());
        let beyond = table.and_then(|table| table.entries.get(partition)).map(|entry| entry.next);
        let held = Held { reason, beyond: beyond.filter(|_| reason.comes_of_a_record()) };
        let before = self.held.insert(partition.clone(), held);
        if before.is_none_or(|before| before.reason != reason) {
            tracing::error!(link = %self.context.link_name, topic, partition = partition.partition, %reason, "held: {detail}");
            let event = event::Hold { at, reason: reason.word().into(), detail: detail.into() };
            // A hold writes nothing at the target: it takes effect even if it cannot be recorded now. The log's own
            // `audit_resumed` line tells that it was out, and the exporter has the hold on record too.
            if let Err(error) = self.context.audit.record(event) {
                tracing::error!("{error}");
            }
        }
        self.context.board.hold(topic, partition, reason, detail);
        if let Some(slot) = self.machine.slot_of(partition) {
            self.machine.hold(slot, reason, detail);
        }
    }

    /// Records of a partition are committed up to `next`: a hold that a record had caused is over.
    pub(super) fn released(&mut self, part: &Part, next: Offset) {
        let over = |held: &Held| held.beyond.is_some_and(|beyond| next > beyond);
        if !self.held.get(&part.partition).is_some_and(over) {
            return;
        }
        self.held.remove(&part.partition);
        let at = place(&self.context.link_name, part.permit.topic(), &part.partition);
        if let Err(error) =
            self.context.audit.record(event::Release { at, reason: "its records are taken again".into() })
        {
            tracing::error!("{error}");
        }
    }

    /// A refusal on record, without waiting for the log.
    pub(super) fn record_refusal(&self, reason: String) {
        let link = Some(self.context.link_name.to_string());
        if let Err(error) =
            self.context.audit.record(event::Refuse { link, reason, ..event::Refuse::default() })
        {
            tracing::error!("{error}");
        }
    }

    /// Writes what was committed since the last time, a line per source partition.
    pub(super) fn record_deliveries(&mut self) {
        self.last_audit = Instant::now();
        let Some(owned) = &mut self.owned else { return };
        let link = &self.context.link_name;
        let mut events: Vec<Event> = Vec::new();
        let mut written = Vec::new();
        for (partition, entry) in &mut owned.table.entries {
            let done = self.audited.get(partition).copied();
            // A line was written for this range after its progress was: the next range begins at its end.
            if done == Some(entry.next) {
                entry.unaudited = Tally::starting(entry.next);
            }
            if entry.unaudited.from < entry.next {
                events.push(delivered(link, &entry.topic, partition, &entry.unaudited, entry.next).into());
                written.push((partition.clone(), entry.next));
            }
        }
        if events.is_empty() {
            return;
        }
        if let Err(error) = self.context.audit.record_many(events) {
            tracing::error!("{error}; tried again later");
            return;
        }
        for (partition, next) in written {
            if let Some(entry) = owned.table.entries.get_mut(&partition) {
                entry.unaudited = Tally::starting(next);
            }
            self.audited.insert(partition.clone(), next);
            self.unnoted.insert(partition);
        }
    }

    /// Writes what was committed and not put on record of partitions that progress has forgotten: only this process knows
    /// of it any more.
    pub(super) fn record_lost(&mut self, found: &Table) {
        let Some(before) = self.last_table.take() else { return };
        let link = &self.context.link_name;
        let lost: Vec<Event> = before
            .entries
            .iter()
            .filter(|(partition, entry)| {
                !found.entries.contains_key(partition)
                    && entry.unaudited.from < entry.next
                    && self.audited.get(partition) != Some(&entry.next)
            })
            .map(|(partition, entry)| {
                delivered(link, &entry.topic, partition, &entry.unaudited, entry.next).into()
            })
            .collect();
        if lost.is_empty() {
            return;
        }
        if let Err(error) = self.context.audit.record_many(lost) {
            tracing::error!("{error}; tried again with the next take-over");
            self.last_table = Some(before);
        }
    }

    /// Notes in progress what is on record, so that a successor does not write the same lines again. A partition that
    /// flows is noted with its next records; this is for those that stand still, and costs no other a wait.
    pub(super) fn note_deliveries(&mut self) {
        let Some(owned) = &mut self.owned else { return };
        let entries = std::mem::take(&mut self.unnoted).into_iter().filter_map(|partition| {
            let entry = owned.table.entries.get(&partition)?.clone();
            Some((partition, entry))
        });
        let entries: Vec<_> = entries.collect();
        if entries.is_empty() {
            return;
        }
        if let Err(Obstacle::Passing(why) | Obstacle::Hold(_, why)) =
            commit_entries(&self.context, owned, entries)
        {
            self.recycle(&format!("what is on record was not noted in progress: {why}"));
        }
    }

    /// Forgets what of the pending groups belongs to `partitions`.
    pub(super) fn drop_pending(&mut self, doomed: impl Fn(&SourcePartition) -> bool) {
        Pending::retain(&mut self.pending, |part, _| !doomed(&part.partition));
    }
}

/// A source partition as the audit log names it.
pub(super) fn place(link: &str, topic: &str, partition: &SourcePartition) -> Place {
    Place {
        link: link.into(),
        cluster: partition.cluster.to_string(),
        topic: topic.into(),
        topic_id: partition.topic.to_string(),
        partition: partition.partition,
    }
}

fn delivered(
    link: &str,
    topic: &str,
    partition: &SourcePartition,
    tally: &Tally,
    next: Offset,
) -> event::Delivered {
    let covered = next.0.abs_diff(tally.from.0);
    event::Delivered {
        at: place(link, topic, partition),
        from: tally.from.0,
        next: next.0,
        first: tally.records.map(|(first, _)| first),
        last: tally.records.map(|(_, last)| last),
        records: tally.count,
        not_visible: covered - tally.count - tally.named_gaps,
        plain_bytes: tally.plain_bytes,
        wire_bytes: tally.wire_bytes,
        digest: tally.digest.to_string(),
    }
}

/// How often an audit log that cannot be written is tried again.
const AUDIT_RETRY: Duration = Duration::from_millis(500);
