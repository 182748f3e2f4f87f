//! What the protocol tells the exporter to do.

use std::{sync::Arc, time::Duration, time::Instant};

use link::CloseCode;
use observe::event::{Connect, Hold, New, Policy, Refuse, Release, Resume as Resumed};
use proto::{
    hold::Reason,
    ids::{Lane as LaneId, Slot},
    sender::Action,
    wire,
};

use super::{Ended, FIRST_EPOCH, Live, Position, Session};
use crate::{
    holds::{Cause, Held, Until},
    lane::{Command, Expired, Resume},
    partition::{Partition, State},
    position::{Decision, Ends, decide},
};

impl Session {
    pub(super) fn act(&mut self, action: Action, live: &mut Live) -> Result<(), Ended> {
        let Some(session) = live.session else {
            return match action {
                Action::Established { .. } => self.established(action, live),
                Action::Drain(reason) => Err(drained(&reason)),
                _ => Ok(()),
            };
        };
        match action {
            Action::Established { .. } => {}
            Action::Resume { slot, resume_epoch, next, leader_epoch, new, .. } => {
                let committed = live.awaiting.remove(&slot);
                live.unanswered.remove(&slot);
                // The importer takes no ends of what it has not begun: they are told again.
                live.ends.remove(&slot);
                self.positioned(slot, Position { resume_epoch, next, leader_epoch, new, committed }, live);
            }
            Action::Hold { slot, reason, detail, .. } => {
                let until = self.until(slot, reason, live.unanswered.remove(&slot));
                self.hold(slot, Cause::Hold(reason), &detail, until, live);
            }
            Action::Refuse { slot, detail, .. } => {
                self.hold(slot, Cause::Refused, &detail, Until::Resumed, live);
            }
            Action::Committed { lane, slot, next } => {
                self.resets.remove(&slot);
                let ended = self.holds().committed(slot, next.0);
                if let Some(held) = ended
                    && let Some(partition) = self.parts.view.table.get(slot)
                {
                    partition.set_state(State::Flowing);
                    self.release(&partition, &held, "records beyond it are committed", live);
                }
                self.command(lane, Command::Committed { session, slot, next }, live);
            }
            Action::Credit { lane, epoch, total } => {
                self.command(lane, Command::Credit { session, epoch, total }, live);
            }
            Action::LaneReset { lane, epoch, credit, reason } => {
                tracing::warn!(%lane, %epoch, %reason, "the importer starts a lane anew; nothing is lost");
                let parcels = live.streams.open(lane, epoch);
                self.command(lane, Command::Reset { session, epoch, credit, parcels }, live);
            }
            Action::Granted { topics, rate } => self.granted(&topics, rate, live),
            Action::Drain(reason) => return Err(drained(&reason)),
            Action::Unanswered { silent } => {
                let why = format!("the importer answered no heartbeat for {} s", silent.as_secs());
                return Err(Ended::again(CloseCode::Stalled, why));
            }
        }
        Ok(())
    }

    /// What ends a hold of the importer's. One that is the answer to an open, before any record was looked at, ends with
    /// the position that the next open is answered with, also where no record follows.
    fn until(&self, slot: Slot, reason: Reason, answers_open: bool) -> Until {
        let committed = self.parts.view.table.get(slot).and_then(|partition| partition.facts().committed);
        committed
            .filter(|_| reason.comes_of_a_record() && !answers_open)
            .map_or(Until::Resumed, Until::Committed)
    }

    fn established(&mut self, action: Action, live: &mut Live) -> Result<(), Ended> {
        let Action::Established { session, lanes, credit, topics, rate } = action else { return Ok(()) };
        if let Err(why) = self.parts.lanes.ensure(lanes) {
            return Err(Ended { pause: LANE_PAUSE, ..Ended::again(CloseCode::Failed, why) });
        }
        let shared = self.parts.dialer.rate();
        shared.grant(rate);
        tracing::info!(%session, lanes, rate = shared.ceiling(), granted = ?topics, "the session stands");
        live.session = Some(session);
        self.parts.view.facts.established(session);
        live.item.events.push(
            Connect {
                link: self.parts.config.link.clone(),
                peer: live.connection.peer().to_string(),
                remote: live.connection.remote_address().to_string(),
                session: Some(session.0),
                cluster: Some(self.parts.view.cluster.id().into()),
                instance: Some(self.parts.view.instance.to_string()),
            }
            .into(),
        );
        let begins = self.parts.lanes.all().map(|(lane, commands)| {
            let parcels = live.streams.open(lane, FIRST_EPOCH);
            (commands.clone(), Command::Begin { session, epoch: FIRST_EPOCH, credit, parcels })
        });
        let begins: Vec<_> = begins.collect();
        live.item.commands.extend(begins);
        live.to_ask = self.parts.view.table.active().iter().map(|partition| partition.slot).collect();
        Ok(())
    }

    /// The importer's policy changed, and everything that was granted still is.
    fn granted(&mut self, topics: &[String], rate: Option<u64>, live: &mut Live) {
        let shared = self.parts.dialer.rate();
        shared.grant(rate);
        tracing::info!(rate = shared.ceiling(), granted = ?topics, "the importer grants this from now on");
        let limit =
            rate.map_or_else(|| "no rate of its own".into(), |rate| format!("at most {rate} bits a second"));
        let summary = format!("the importer grants topics = {topics:?}, {limit}");
        live.item.events.push(Policy { link: self.parts.config.link.clone(), summary }.into());
        // What was refused may be granted now.
        live.to_ask.extend(self.holds().refused());
    }

    /// Opens a source partition at the importer, its ends just looked at.
    pub(super) fn open(&mut self, open: wire::Open, live: &mut Live) {
        let slot = Slot(open.slot);
        let Some(partition) = self.parts.view.table.get(slot) else { return };
        let weight = self.parts.config.topics.weight_of(&partition.topic.name);
        live.streams.raise(self.lane_of(&partition), weight);
        if live.opened.insert(slot) {
            live.awaiting.insert(slot);
            let (log_start, end) = (open.log_start, open.end);
            live.item.events.push(observe::event::Open { at: self.place(&partition), log_start, end }.into());
        }
        live.unanswered.insert(slot);
        let _ = self.step(live, proto::sender::Event::Open(open));
    }

    /// The importer gave a position. When it looks wrong, the log's ends are looked at once more first.
    fn positioned(&mut self, slot: Slot, position: Position, live: &mut Live) {
        let Some(partition) = self.parts.view.table.get(slot) else { return };
        let known = partition.facts().ends;
        match known {
            Some(ends) if position.next.0 >= ends.log_start && position.next.0 <= ends.stable => {
                self.resume(&partition, position, ends, live);
            }
            _ => {
                live.doubtful.insert(slot, position);
                live.to_ask.insert(slot);
            }
        }
    }

    /// Reads a source partition from a position, or holds it; `ends` are fresh.
    pub(super) fn resume(
        &mut self,
        partition: &Arc<Partition>,
        position: Position,
        ends: Ends,
        live: &mut Live,
    ) {
        let Some(session) = live.session else { return };
        let Position { resume_epoch, next, leader_epoch, new, committed } = position;
        let expired = match decide(partition, next.0, ends) {
            Decision::Read => None,
            Decision::Expired { why, log_start } => Some(Expired { log_start, why }),
            Decision::Hold(reason, detail) => {
                if committed {
                    partition.restart(next.0);
                }
                return self.hold(partition.slot, Cause::Hold(reason), &detail, Until::Resumed, live);
            }
        };
        let at = self.place(partition);
        live.item.events.push(if new {
            New { at, start: next.0 }.into()
        } else {
            Resumed { at, committed: next.0, resume_epoch: resume_epoch.0 }.into()
        });
        let ended = self.holds().resumed(partition.slot);
        if let Some(held) = ended {
            self.release(partition, &held, "the importer gave a position that the source has", live);
        }
        if self.holds().get(partition.slot).is_none() {
            partition.set_state(State::Flowing);
        }
        tracing::debug!(%partition, %next, %resume_epoch, new, "reading");
        let resume = Resume {
            session,
            partition: Arc::clone(partition),
            resume_epoch,
            next,
            leader_epoch,
            committed,
            expired,
        };
        let lane = self.lane_of(partition);
        self.command(lane, Command::Resume(resume), live);
    }

    /// A source partition stands still; it is tried again by itself.
    pub(super) fn hold(&mut self, slot: Slot, cause: Cause, detail: &str, until: Until, live: &mut Live) {
        let Some(partition) = self.parts.view.table.get(slot) else { return };
        let news = self.holds().hold(slot, cause, detail, until, Instant::now());
        partition.set_state(match cause {
            Cause::Hold(reason) => State::Held(reason),
            Cause::Refused => State::Refused,
        });
        live.doubtful.remove(&slot);
        if let Some(session) = live.session {
            let lane = self.lane_of(&partition);
            self.command(lane, Command::Remove { session, slot }, live);
        }
        if !news {
            return;
        }
        match cause {
            Cause::Hold(reason) => {
                tracing::error!(%partition, %reason, "held: {detail}");
                let at = self.place(&partition);
                let hold = Hold { at, reason: reason.word().into(), detail: detail.into() };
                live.item.events.push(hold.into());
            }
            Cause::Refused => {
                tracing::error!(%partition, "not granted by the importer: {detail}");
                live.item.events.push(
                    Refuse {
                        link: Some(self.parts.config.link.clone()),
                        cluster: Some(self.parts.view.cluster.id().into()),
                        peer: Some(live.connection.peer().to_string()),
                        remote: Some(live.connection.remote_address().to_string()),
                        topic: Some(partition.topic.name.to_string()),
                        partition: Some(partition.number),
                        reason: detail.into(),
                    }
                    .into(),
                );
            }
        }
    }

    /// A hold ended.
    pub(super) fn release(&self, partition: &Partition, held: &Held, why: &str, live: &mut Live) {
        let what = match held.cause {
            Cause::Hold(reason) => reason.word(),
            Cause::Refused => "refused",
        };
        tracing::info!(%partition, "no longer held ({what}): {why}");
        let release = Release { at: self.place(partition), reason: format!("{what}: {why}") };
        live.item.events.push(release.into());
    }

    pub(super) fn lane_of(&self, partition: &Partition) -> LaneId {
        let lanes = u16::try_from(self.parts.lanes.count().max(1)).unwrap_or(u16::MAX);
        proto::ids::lane_of(&partition.topic.name, lanes)
    }

    pub(super) fn command(&self, lane: LaneId, command: Command, live: &mut Live) {
        if let Some(commands) = self.parts.lanes.of(lane) {
            live.item.commands.push((commands.clone(), command));
        }
    }
}

fn drained(reason: &str) -> Ended {
    Ended { pause: DRAIN_PAUSE, ..Ended::again(CloseCode::Done, format!("the importer leaves: {reason}")) }
}

/// How long an importer that leaves is given before it, or another, is dialled.
const DRAIN_PAUSE: Duration = Duration::from_secs(1);
const LANE_PAUSE: Duration = Duration::from_secs(1);
