//! Answering where a source partition is to go on: what progress says, if the target agrees with it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use observe::event::{self, Event};
use proto::{
    hold::Reason,
    progress::{Entry, Table, Tally, Target},
    receiver::OpenPartition,
};

use super::{Context, Stopped, Worker, commit::commit_entries, record::place, tail::inspect};
use crate::{
    config::Recreated,
    progress_topic,
    target::{self, At, Obstacle, Tail, TargetTopic, Want},
};

/// What a source partition is answered.
enum Decision {
    Resume(Entry),
    New(Entry),
    Hold(Reason, String),
}

/// Opens by their target topic.
type ByTarget = BTreeMap<Arc<str>, Vec<OpenPartition>>;

/// Opens that cannot be answered yet.
#[derive(Default)]
struct Later {
    opens: Vec<OpenPartition>,
    why: String,
}

impl Later {
    fn add(&mut self, opens: Option<Vec<OpenPartition>>, why: &str) {
        self.opens.extend(opens.unwrap_or_default());
        if !why.is_empty() {
            self.why = why.to_owned();
        }
    }

    /// None of `topics` can be answered yet.
    fn all<T>(&mut self, topics: &mut ByTarget, why: &str) -> BTreeMap<Arc<str>, T> {
        self.add(Some(std::mem::take(topics).into_values().flatten().collect()), why);
        BTreeMap::new()
    }
}

impl Worker {
    /// Answers `opens`. Everything accepted before is committed already.
    pub(super) fn open(&mut self, opens: Vec<OpenPartition>) -> Result<(), Stopped> {
        match self.acquire(&opens)? {
            Ok(()) => {}
            Err(Obstacle::Passing(why)) => return self.ask_again(opens, &why),
            Err(Obstacle::Hold(reason, detail)) => return self.hold_opens(opens, reason, &detail),
        }
        let mut topics: ByTarget = BTreeMap::new();
        for open in opens {
            topics.entry(open.permit.target().clone()).or_default().push(open);
        }
        let mut later = Later::default();
        self.claim(&mut topics)?;
        let prepared = self.prepare(&mut topics, &mut later)?;
        let decisions = self.decide_all(topics, &prepared, &mut later)?;
        if decisions.iter().any(|(_, decision)| matches!(decision, Decision::Hold(..)))
            && !self.is_still_ours()
        {
            self.takeover.fenced();
            self.recycle("another importer has taken the lane over");
            later.add(Some(decisions.into_iter().map(|(open, _)| open).collect()), "");
        } else {
            self.answer_opens(decisions)?;
        }
        if later.opens.is_empty() { Ok(()) } else { self.ask_again(later.opens, &later.why) }
    }

    /// Whether progress still names this importer. A lane that has nothing to write does not notice that it was taken over,
    /// and would take for a stranger's what its new owner wrote.
    fn is_still_ours(&self) -> bool {
        let Context { kafka, link, lane, instance, .. } = &self.context;
        match progress_topic::read_committed(kafka, &link.progress_topic(), *lane) {
            Ok((table, _)) => table.owner.is_none_or(|owner| owner.instance == **instance),
            // Nothing is known of a new owner.
            Err(_) => true,
        }
    }

    /// A target topic belongs to one source topic.
    fn claim(&mut self, topics: &mut ByTarget) -> Result<(), Stopped> {
        let (claims, link) = (self.context.claims.clone(), self.context.link_name.clone());
        let refused = keep_claimed(topics, |target, source| claims.claim(target, &link, source));
        for (open, owner) in refused {
            let detail = format!(
                "target topic `{}` is already written by {owner}: two source topics cannot share it; give one of them \
                 another name with `map` in the link's table; if the other is not copied any more, restart the importer",
                open.permit.target()
            );
            self.hold_opens(vec![open], Reason::MappingChanged, &detail)?;
        }
        Ok(())
    }

    /// Makes target topics fit to be written. What cannot be yet, or never, leaves `topics`.
    fn prepare(
        &mut self,
        topics: &mut ByTarget,
        later: &mut Later,
    ) -> Result<BTreeMap<Arc<str>, TargetTopic>, Stopped> {
        let Some(owned) = &self.owned else { return Ok(later.all(topics, "")) };
        let entries = owned.table.entries.values().filter(|entry| entry.target.last.is_some());
        let written: BTreeSet<&str> = entries.map(|entry| &*entry.target.topic).collect();
        let want = |(topic, opens): (&Arc<str>, &Vec<OpenPartition>)| {
            let partitions = opens.iter().map(|open| open.partition_count).max().unwrap_or(1);
            let create = (!written.contains(&**topic)).then_some(partitions);
            Want { topic: topic.clone(), partitions, create }
        };
        let wants: Vec<Want> = topics.iter().map(want).collect();
        let mut ready = BTreeMap::new();
        let mut recycle = None;
        for (topic, outcome) in target::prepare(&self.context.admin, &wants) {
            match outcome {
                Ok(prepared) => {
                    if prepared.grown {
                        recycle = Some("a target topic has partitions that the producer does not know");
                    } else if self.narrows(&prepared) {
                        recycle = Some("a target topic takes smaller batches than the producer makes");
                    }
                    self.targets.insert(topic.clone(), prepared.clone());
                    ready.insert(topic, prepared);
                }
                Err(Obstacle::Passing(why)) => later.add(topics.remove(&topic), &why),
                Err(Obstacle::Hold(reason, detail)) => {
                    let opens = topics.remove(&topic).unwrap_or_default();
                    self.hold_opens(opens, reason, &detail)?;
                }
            }
        }
        if let Some(why) = recycle {
            self.recycle(why);
            return Ok(later.all(topics, ""));
        }
        Ok(ready)
    }

    /// Compares target partitions with progress.
    fn decide_all(
        &mut self,
        topics: ByTarget,
        prepared: &BTreeMap<Arc<str>, TargetTopic>,
        later: &mut Later,
    ) -> Result<Vec<(OpenPartition, Decision)>, Stopped> {
        // A question about a partition without a leader is not answered, and no other in it either.
        let led = |open: &OpenPartition| {
            let target = prepared.get(open.permit.target());
            target.is_some_and(|target| !target.leaderless.contains(&open.partition.partition))
        };
        let (opens, leaderless): (Vec<_>, Vec<_>) = topics.into_values().flatten().partition(led);
        if let Some(open) = leaderless.first() {
            let (target, number) = (open.permit.target(), open.partition.partition);
            let why = format!("partition {number} of target topic `{target}` has no leader");
            later.add(Some(leaderless), &why);
        }
        let Some(owned) = &self.owned else {
            later.add(Some(opens), "");
            return Ok(Vec::new());
        };
        let known = || owned.table.entries.keys().map(|partition| partition.topic).collect();
        self.known_topics.get_or_insert_with(known);
        let at = |open: &OpenPartition| {
            let last = owned.table.entries.get(&open.partition).and_then(|entry| entry.target.last);
            let topic = open.permit.target().clone();
            At { topic, partition: open.partition.partition, position: last.unwrap_or(0) }
        };
        let wanted: Vec<At> = opens.iter().map(at).collect();
        let tails = match target::tails(&self.context.admin, &self.context.kafka, &wanted) {
            Ok(tails) => tails,
            Err(Obstacle::Passing(why)) => {
                later.add(Some(opens), &why);
                return Ok(Vec::new());
            }
            Err(Obstacle::Hold(reason, detail)) => {
                self.hold_opens(opens, reason, &detail)?;
                return Ok(Vec::new());
            }
        };
        let mut decisions = Vec::with_capacity(opens.len());
        for (open, tail) in opens.into_iter().zip(tails) {
            let topic = open.permit.target().clone();
            let Some(prepared) = prepared.get(&topic) else {
                later.add(Some(vec![open]), "");
                continue;
            };
            match tail {
                Ok(tail) => {
                    let decision = self.decide(&owned.table, &open, &topic, prepared, tail);
                    decisions.push((open, decision));
                }
                Err(Obstacle::Passing(why)) => later.add(Some(vec![open]), &why),
                Err(Obstacle::Hold(reason, detail)) => {
                    decisions.push((open, Decision::Hold(reason, detail)));
                }
            }
        }
        Ok(decisions)
    }

    fn decide(
        &self,
        table: &Table,
        open: &OpenPartition,
        topic: &Arc<str>,
        prepared: &TargetTopic,
        tail: Tail,
    ) -> Decision {
        let shared = self.context.link.map.shared;
        if let Some(entry) = table.entries.get(&open.partition) {
            return match inspect(entry, topic, prepared, tail, shared, &self.context.link.progress_topic()) {
                Ok(()) => Decision::Resume(entry.clone()),
                Err((reason, detail)) => Decision::Hold(reason, detail),
            };
        }
        let source = open.permit.topic();
        let before = table.entries.iter().find(|(partition, entry)| {
            entry.topic == *source
                && entry.target.topic == *topic
                && entry.target.last.is_some()
                && partition.partition == open.partition.partition
                && partition.cluster == open.partition.cluster
        });
        let appends = self.context.link.recreated == Recreated::Append;
        if let Some((old, entry)) = before
            && !appends
        {
            let detail = format!(
                "source topic `{source}` was deleted and made again (its id was {}, it is {}): its records would follow the \
                 old topic's, which target topic `{topic}` holds up to source offset {}; to append them write recreated = \
                 \"append\" in the link's table at the importer; to keep them apart give the topic a new name at the target",
                old.topic, open.partition.topic, entry.next
            );
            return Decision::Hold(Reason::SourceRecreated, detail);
        }
        if before.is_none() && tail.first.is_some() && !shared {
            let detail = format!(
                "nothing is known of this partition, and target topic `{topic}` has records in it from offset {}: copying it \
                 from the start could repeat them; empty the target topic, give the topic a new name at the target, or, if \
                 the records are of others and may stay, write shared = true in the link's map",
                tail.first.unwrap_or_default()
            );
            return Decision::Hold(Reason::TargetNotEmpty, detail);
        }
        // A new partition of a topic that an earlier session carried begins with its first record, whatever `start`
        // says: the ones between would be lost.
        let known = self.known_topics.as_ref().is_some_and(|known| known.contains(&open.partition.topic));
        let start = if known { open.log_start } else { open.start };
        Decision::New(Entry {
            topic: source.clone(),
            next: start,
            leader_epoch: None,
            target: Target { topic: topic.clone(), id: prepared.id, last: None, lasting: false },
            unaudited: Tally::starting(start),
        })
    }

    fn answer_opens(&mut self, decisions: Vec<(OpenPartition, Decision)>) -> Result<(), Stopped> {
        if decisions.is_empty() {
            return Ok(());
        }
        let mut new = Vec::new();
        for (open, decision) in &decisions {
            if let Decision::New(entry) = decision {
                new.push((open.partition.clone(), entry.clone()));
            }
        }
        let events = decisions.iter().filter(|(_, decision)| matches!(decision, Decision::New(_)));
        let events: Vec<Event> = events
            .map(|(open, decision)| {
                let start = if let Decision::New(entry) = decision { entry.next.0 } else { 0 };
                event::New { at: self.place_of(open), start }.into()
            })
            .collect();
        self.govern(events)?;
        if !new.is_empty() {
            let context = &self.context;
            let committed = match &mut self.owned {
                Some(owned) => commit_entries(context, owned, new),
                None => Err(Obstacle::Passing("no producer".to_owned())),
            };
            if let Err(obstacle) = committed {
                self.recycle("first positions were not committed");
                let opens = decisions.into_iter().map(|(open, _)| open).collect();
                return match obstacle {
                    Obstacle::Passing(why) => self.ask_again(opens, &why),
                    Obstacle::Hold(reason, detail) => self.hold_opens(opens, reason, &detail),
                };
            }
        }
        let mut events = Vec::new();
        for (open, decision) in decisions {
            match decision {
                Decision::Hold(reason, detail) => self.hold_open(&open, reason, &detail),
                Decision::Resume(entry) => self.start(&open, &entry, false, &mut events),
                Decision::New(entry) => self.start(&open, &entry, true, &mut events),
            }
        }
        self.context.board.trouble(self.context.lane, "");
        // Answers leave only when this function has returned.
        self.govern(events)
    }

    /// A source partition goes on.
    fn start(&mut self, open: &OpenPartition, entry: &Entry, new: bool, events: &mut Vec<Event>) {
        let OpenPartition { slot, partition, permit, .. } = open;
        let at = self.place_of(open);
        let epoch =
            self.machine.open(*slot, partition.clone(), permit.clone(), entry.next, entry.leader_epoch, new);
        events.push(event::Open { at: at.clone(), log_start: open.log_start.0, end: open.end.0 }.into());
        if self.held.get(partition).is_some_and(|held| held.beyond.is_none()) {
            self.held.remove(partition);
            let reason = "the partition was opened again and nothing stands in the way any more".into();
            events.push(event::Release { at: at.clone(), reason }.into());
        }
        events.push(event::Resume { at, committed: entry.next.0, resume_epoch: epoch.0 }.into());
        self.context.board.running(permit.topic(), partition, entry.next, *slot, open.end);
    }

    /// The answer waits for something that may pass by itself.
    fn ask_again(&mut self, opens: Vec<OpenPartition>, why: &str) -> Result<(), Stopped> {
        if !why.is_empty() {
            self.context.board.trouble(self.context.lane, why);
            self.pause(Duration::from_millis(200))?;
        }
        self.mailbox.put_back(opens);
        Ok(())
    }

    fn hold_opens(&mut self, opens: Vec<OpenPartition>, reason: Reason, detail: &str) -> Result<(), Stopped> {
        for open in &opens {
            self.hold_open(open, reason, detail);
        }
        Ok(())
    }

    fn hold_open(&mut self, open: &OpenPartition, reason: Reason, detail: &str) {
        self.hold(&open.partition, open.permit.topic(), reason, detail);
        self.machine.hold(open.slot, reason, detail);
    }

    fn place_of(&self, open: &OpenPartition) -> event::Place {
        place(&self.context.link_name, open.permit.topic(), &open.partition)
    }

    fn narrows(&self, prepared: &TargetTopic) -> bool {
        self.owned.as_ref().is_some_and(|owned| prepared.max_message_bytes < owned.batch_size)
    }
}

/// Claims each target for every source topic that wants it: opens whose topic does not get it leave `topics`, with who has
/// it already. One batch may hold both topics of a wrong mapping.
fn keep_claimed(
    topics: &mut ByTarget,
    mut claim: impl FnMut(&Arc<str>, &Arc<str>) -> Result<(), String>,
) -> Vec<(OpenPartition, String)> {
    let mut refused = Vec::new();
    for (target, opens) in topics.iter_mut() {
        for open in std::mem::take(opens) {
            match claim(target, open.permit.topic()) {
                Ok(()) => opens.push(open),
                Err(owner) => refused.push((open, owner)),
            }
        }
    }
    topics.retain(|_, opens| !opens.is_empty());
    refused
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lane::tests::open_of;

    #[test]
    fn two_source_topics_in_one_batch_do_not_share_a_target() {
        let opens = [("a", "b", 0), ("b", "b", 1), ("a", "b", 2), ("c", "c", 3)];
        let mut topics = ByTarget::new();
        for (topic, target, slot) in opens {
            topics.entry(target.into()).or_default().push(open_of(topic, target, slot));
        }
        let (claims, link) = (target::Claims::default(), "l".into());
        let refused = keep_claimed(&mut topics, |target, source| claims.claim(target, &link, source));
        let refused: Vec<u32> = refused.into_iter().map(|(open, _)| open.slot.0).collect();
        assert_eq!(refused, [1]);
        let kept: Vec<u32> = topics.values().flatten().map(|open| open.slot.0).collect();
        assert_eq!(kept, [0, 2, 3]);
    }
}
