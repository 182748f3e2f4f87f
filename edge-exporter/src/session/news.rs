//! What the source and the lanes tell the session.

use std::sync::Arc;

use kafka::SourceError;
use link::CloseCode;
use observe::event::Release;
use proto::{hold::Reason, ids::Slot, sender};

use super::{Ended, Live, Session};
use crate::{
    holds::{Cause, Until},
    lane::{Command, LaneEvent},
    partition::{Partition, State, Topic},
    position::skip_lines,
    source::News,
    topic_check::Loss,
};

impl Session {
    /// Something about the source. Without a connection only what lasts is noted: everything is asked anew with the
    /// next session.
    pub(super) fn news(&mut self, news: News, live: Option<&mut Live>) {
        let Some(live) = live else { return };
        match news {
            News::Cluster(_) => {}
            News::Found(slots) => {
                tracing::info!(partitions = slots.len(), "source partitions found");
                live.to_ask.extend(slots);
            }
            News::Lost(topic, loss) => {
                for partition in self.parts.view.table.active() {
                    if Arc::ptr_eq(&partition.topic, &topic) {
                        self.topic_lost(&partition, loss, live);
                    }
                }
            }
            News::Resolved { round, slot, outcome } => {
                if live.session.is_none_or(|session| session.0 != round) || live.leave_by.is_some() {
                    return;
                }
                let Some(partition) =
                    self.parts.view.table.get(slot).filter(|partition| partition.state() != State::Closed)
                else {
                    return;
                };
                match outcome {
                    Err(loss) => self.topic_lost(&partition, loss, live),
                    Ok(open) => match live.doubtful.remove(&slot) {
                        Some(position) => {
                            let ends = crate::position::Ends { log_start: open.log_start, stable: open.end };
                            self.resume(&partition, position, ends, live);
                        }
                        None => self.open(open, live),
                    },
                }
            }
        }
    }

    /// The topic of a partition is not what it was.
    fn topic_lost(&mut self, partition: &Partition, loss: Loss, live: &mut Live) {
        let slot = partition.slot;
        let topic: &Topic = &partition.topic;
        let outstanding = {
            let facts = partition.facts();
            facts.committed.is_none_or(|committed| committed < facts.lag.end())
        };
        let (name, id) = (&topic.name, topic.id);
        let (reason, what) = match loss {
            Loss::Gone => {
                (Reason::SourceGone, format!("topic {name} (id {id}) is not in the source cluster any more"))
            }
            Loss::Recreated => (
                Reason::SourceRecreated,
                format!("topic {name} was deleted and made again: its id is not {id} any more"),
            ),
            Loss::Mirrored => {
                let detail = mirrored(partition);
                return self.hold(slot, Cause::Hold(Reason::WouldLoop), &detail, Until::Resumed, live);
            }
            Loss::Unauthorized => {
                let detail = format!(
                    "the source cluster does not let this principal describe topic {name}; {partition} waits and all \
                     others go on; grant Describe and Read on the topic, nothing needs to be restarted"
                );
                return self.hold(
                    slot,
                    Cause::Hold(Reason::SourceUnauthorized),
                    &detail,
                    Until::Resumed,
                    live,
                );
            }
        };
        let never_carried =
            partition.state() == State::Held(Reason::WouldLoop) && partition.facts().committed.is_none();
        if !outstanding || never_carried {
            return self.close(partition, &what, live);
        }
        let carried = partition.facts().committed;
        let detail = format!(
            "{what}; of {partition} everything below offset {} is at the target, what came after it is not and cannot be \
             read any more; what was read and not sent is dropped, a topic made again is carried as a new one from its \
             first record; restart the exporter once this was noted",
            carried.map_or_else(|| "(unknown)".into(), |next| next.to_string())
        );
        self.hold(slot, Cause::Hold(reason), &detail, Until::Resumed, live);
    }

    /// A partition with nothing outstanding is not carried any more.
    fn close(&mut self, partition: &Partition, why: &str, live: &mut Live) {
        let slot = partition.slot;
        tracing::info!(%partition, "closed: {why}; nothing of it is left to deliver");
        partition.set_state(State::Closed);
        self.holds().forget(slot);
        self.parts.view.meters.forget(partition);
        let reason = format!("closed: {why}; nothing of it is left to deliver");
        live.item.events.push(Release { at: self.place(partition), reason }.into());
        if let Some(session) = live.session {
            let lane = self.lane_of(partition);
            self.command(lane, Command::Remove { session, slot }, live);
            let _ = self.step(live, sender::Event::Close(slot));
        }
    }

    /// Something about a lane.
    pub(super) fn lane_event(&mut self, event: LaneEvent, live: &mut Live) -> Result<(), Ended> {
        match event {
            LaneEvent::Drained(lane) => drop(live.drained.insert(lane)),
            LaneEvent::Lost { session, slot, cause } if live.session == Some(session) => {
                self.lost(slot, cause, live);
            }
            LaneEvent::TooLarge { session, slot, offset, bytes } if live.session == Some(session) => {
                self.too_large(slot, offset, bytes, live);
            }
            LaneEvent::Misbehaved { session, error } if live.session == Some(session) => {
                return Err(Ended::again(CloseCode::Misbehaved, error.to_string()));
            }
            LaneEvent::Failed { session, what } if live.session == Some(session) => {
                return Err(Ended::again(CloseCode::Failed, what));
            }
            // Of a session that is over.
            LaneEvent::Lost { .. }
            | LaneEvent::TooLarge { .. }
            | LaneEvent::Misbehaved { .. }
            | LaneEvent::Failed { .. } => {}
        }
        Ok(())
    }

    fn lost(&mut self, slot: Slot, cause: SourceError, live: &mut Live) {
        let Some(partition) = self.parts.view.table.get(slot) else { return };
        // A position alone proves nothing: only what is read beyond it shows that the trouble is over.
        let read = partition.facts().position.unwrap_or(0);
        let beyond = Until::Committed(read);
        match cause {
            SourceError::Reset { reason } => {
                let resets = self.resets.entry(slot).or_default();
                *resets += 1;
                if *resets == 1 {
                    // Fresh ends tell truncation from divergence; a passing trouble shows none of them.
                    live.to_ask.insert(slot);
                    return;
                }
                let detail = format!(
                    "the source does not have the position of {partition} any more although its log reaches beyond \
                     ({reason}): the log was cut back and grew again with other records (an unclean leader election); the \
                     partition waits and all others go on; compare both clusters, then give the topic a new target in \
                     the importer's mapping or restore the source"
                );
                self.hold(slot, Cause::Hold(Reason::SourceDiverged), &detail, beyond, live);
            }
            SourceError::Authorization { code } => {
                let detail = format!(
                    "the source cluster does not let this principal read {partition} ({code}); the partition waits and all \
                     others go on; grant Read on the topic, nothing needs to be restarted"
                );
                self.hold(slot, Cause::Hold(Reason::SourceUnauthorized), &detail, beyond, live);
            }
            SourceError::TopicGone { code } => {
                let losses = self.resets.entry(slot).or_default();
                *losses += 1;
                if *losses == 1 {
                    // The topic's id tells whether it is gone, made again, or not known to a broker for a moment.
                    live.to_ask.insert(slot);
                    return;
                }
                let detail = format!(
                    "a broker does not know {partition} ({code}); the partition waits and all others go on; it is tried \
                     again by itself, look at the partition's leader if this lasts"
                );
                self.hold(slot, Cause::Hold(Reason::SourceGone), &detail, beyond, live);
            }
            SourceError::Other { code, reason } => {
                let detail = format!(
                    "{partition} cannot be read: {code} ({reason}); the partition waits and all others go on; look at the \
                     log of its leader, it is tried again by itself"
                );
                self.hold(slot, Cause::Hold(Reason::Other), &detail, beyond, live);
            }
        }
    }

    fn too_large(&mut self, slot: Slot, offset: i64, bytes: u64, live: &mut Live) {
        let Some(partition) = self.parts.view.table.get(slot) else { return };
        let detail = format!(
            "the record at offset {offset} of {partition} takes {bytes} bytes with its headers, a parcel carries {} at \
             most; the partition waits and all others go on; to leave the record out, add to edge-exporter.toml and \
             restart:\n{}",
            codec::limits::MAX_RECORD_PLAIN,
            skip_lines(&partition, offset, offset + 1, "too large for the link")
        );
        self.hold(slot, Cause::Hold(Reason::RecordTooLargeForLink), &detail, Until::Committed(offset), live);
    }
}

/// Why a topic that a link writes here is not carried on.
fn mirrored(partition: &Partition) -> String {
    let topic = &partition.topic.name;
    let link = partition.topic.writer().unwrap_or_else(|| "?".into());
    format!(
        "topic {topic} is written here by link {link}, whose progress topic `{}` in this cluster names it as a target: carried \
         on, its records could come back in a circle; {partition} waits and all others go on; leave the topic out with \
         [topics] exclude, or, if it is to go on to another cluster, name it in [topics] relay and restart; if the link \
         was given up, delete its progress topic, nothing needs to be restarted",
        proto::progress::topic_of(&link)
    )
}
