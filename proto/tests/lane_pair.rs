//! Both lanes together, with batches lost, doubled and swapped, parcels that do not decode, sessions that replace each
//! other while parcels are under way, recycled producers and answers that come late.

use std::collections::{BTreeMap, VecDeque};

use codec::Batch;
use longhaul_proto::{
    ids::{Lane as LaneId, LaneEpoch, Offset, ResumeEpoch, SessionId, Slot, SourcePartition, TopicId},
    policy::{LinkPolicy, Mapping, Pattern, Permit, Policy},
    receiver::{self, Admission, Verdict},
    sender::{self, Stamped},
    wire::{Answer, ParcelHeader, ToExporter},
};
use proptest::{collection::vec, prelude::*};

/// Source partitions of the lane.
const PARTITIONS: i32 = 3;
/// Plain bytes that may be outstanding: a few small parcels.
const WINDOW: u64 = 1000;
/// Where the sources end.
const END: i64 = 60;

#[derive(Debug, Clone)]
enum Step {
    /// The exporter reads so many offsets of each partition into one batch.
    Read([i64; PARTITIONS as usize]),
    Send,
    /// A batch is chained, and never sent.
    Misplace,
    SendTwice,
    /// Two batches are chained in order and sent the other way round.
    Swap,
    /// The next parcel arrives; it decodes or not.
    Arrive(bool),
    Speak,
    Hear,
    Commit,
    /// What is not committed is forgotten, and asked for again.
    Recycle,
    /// A new connection replaces this one; parcels of the old one may still arrive. What was accepted and is not
    /// committed is kept, or forgotten.
    Replace(bool),
}

fn step() -> impl Strategy<Value = Step> {
    let some = || prop_oneof![1 => Just(0_i64), 2 => 1..6_i64];
    prop_oneof![
        6 => (some(), some(), some()).prop_map(|(a, b, c)| Step::Read([a, b, c])),
        6 => Just(Step::Send),
        1 => Just(Step::Misplace),
        1 => Just(Step::SendTwice),
        1 => Just(Step::Swap),
        8 => prop::bool::weighted(0.9).prop_map(Step::Arrive),
        6 => Just(Step::Speak),
        8 => Just(Step::Hear),
        4 => Just(Step::Commit),
        1 => Just(Step::Recycle),
        1 => any::<bool>().prop_map(Step::Replace),
    ]
}

/// Whether a source partition has a record at an offset.
fn visible(partition: i32, offset: i64) -> bool {
    (offset * 7 + i64::from(partition)) % 3 != 0
}

fn partition(number: i32) -> SourcePartition {
    SourcePartition { cluster: "c".into(), topic: TopicId([1; 16]), partition: number }
}

fn permit() -> Permit {
    let topics = vec![Pattern::Exact("orders".into())];
    let mapping = Mapping::default();
    let mut policy = Policy::new();
    policy.insert("l", LinkPolicy { identity: "i".into(), cluster: None, topics, mapping, rate: None });
    let grant = policy.admit("l", "i", "c").expect("the policy admits it");
    grant.permit("orders").expect("the policy grants it")
}

/// A group that was accepted and is not committed yet.
struct Accepted {
    number: i32,
    next: i64,
    session: SessionId,
    epoch: LaneEpoch,
    /// Bytes of the whole parcel, at its last accepted group.
    plain: u64,
}

struct Pair {
    exporter: sender::Lane,
    importer: receiver::Lane,
    session: SessionId,
    /// Next offset to read and the resume epoch it belongs to, per slot.
    reading: BTreeMap<u32, (i64, u32)>,
    read: VecDeque<Batch>,
    parcels: VecDeque<(SessionId, ParcelHeader, Batch)>,
    answers: VecDeque<ToExporter>,
    memory: Vec<Accepted>,
    accepted: BTreeMap<i32, i64>,
    committed: BTreeMap<i32, i64>,
    outstanding: u64,
}

impl Pair {
    fn new() -> Self {
        let mut pair = Self {
            exporter: sender::Lane::new(LaneEpoch(1), WINDOW),
            importer: receiver::Lane::new(LaneId(0), WINDOW),
            session: SessionId(0),
            reading: BTreeMap::new(),
            read: VecDeque::new(),
            parcels: VecDeque::new(),
            answers: VecDeque::new(),
            memory: Vec::new(),
            accepted: BTreeMap::new(),
            committed: BTreeMap::new(),
            outstanding: 0,
        };
        pair.replace(false);
        pair
    }

    /// Slots of a session: other numbers, in another order, than in the session before.
    fn number_of(&self, slot: u32) -> i32 {
        ((slot + self.session.0 as u32) % PARTITIONS as u32) as i32
    }

    fn replace(&mut self, keep: bool) {
        self.session = SessionId(self.session.0 + 1);
        self.exporter = sender::Lane::new(LaneEpoch(1), WINDOW);
        // Slots and resume epochs begin anew: what was read for the session before could pass for this one's.
        self.reading.clear();
        self.read.clear();
        self.answers.clear();
        if !keep {
            self.memory.clear();
        }
        self.outstanding = 0;
        self.importer.begin_session(self.session);
        for slot in 0..PARTITIONS as u32 {
            let number = self.number_of(slot);
            let committed = self.committed.get(&number).copied();
            let kept = self.memory.iter().rfind(|accepted| accepted.number == number);
            let next = kept.map(|accepted| accepted.next).or(committed).unwrap_or(0);
            self.accepted.insert(number, next);
            let new = committed.is_none();
            self.importer.open(Slot(slot), partition(number), permit(), Offset(next), None, new);
        }
    }

    fn read(&mut self, counts: [i64; PARTITIONS as usize]) {
        let mut batch = Batch::new();
        for (slot, (next, resume_epoch)) in self.reading.clone() {
            let number = self.number_of(slot);
            let end = END.min(next + counts[number as usize]);
            if end == next {
                continue;
            }
            let index = batch.group_index(slot);
            for offset in (next..end).filter(|offset| visible(number, *offset)) {
                batch.push(index, offset, 0, None, None, []);
            }
            let group = &mut batch.groups_mut()[index];
            (group.resume_epoch, group.next) = (resume_epoch, end);
            self.reading.insert(slot, (end, resume_epoch));
        }
        if !batch.is_empty() {
            self.read.push_back(batch);
        }
    }

    /// The next batch, chained, if it is of use and fits the credit.
    fn chain(&mut self) -> Option<Batch> {
        if self.read.front()?.plain_size() > self.exporter.credit_left() {
            return None;
        }
        let mut batch = self.read.pop_front()?;
        (self.exporter.stamp(&mut batch) == Stamped::Send).then_some(batch)
    }

    fn send(&mut self, batch: Batch) {
        let plain = batch.plain_size();
        if plain <= self.exporter.credit_left() {
            let header = self.exporter.header(1, plain as u32);
            self.parcels.push_back((self.session, header, batch));
        }
    }

    fn arrive(&mut self, decodes: bool) {
        let Some((session, header, batch)) = self.parcels.pop_front() else { return };
        let admission =
            self.importer.parcel(session, &header).expect("an honest exporter keeps to the rules");
        if admission == Admission::Stale {
            return;
        }
        assert_eq!(session, self.session, "a replaced connection");
        self.outstanding += u64::from(header.plain);
        assert!(self.outstanding <= WINDOW, "{} bytes in memory", self.outstanding);
        if !decodes {
            self.outstanding = 0;
            self.importer.broken("bits");
            return;
        }
        let before = self.memory.len();
        for (index, group) in batch.groups().iter().enumerate() {
            let offsets: Vec<i64> = batch.records(index).map(|record| record.offset).collect();
            let bounds = offsets.first().copied().zip(offsets.last().copied());
            let verdict = self.importer.judge(group, bounds).expect("an honest exporter keeps to the rules");
            let Verdict::Accept(partition, _) = verdict else { continue };
            let number = partition.partition;
            assert_eq!(self.accepted.insert(number, group.next), Some(group.prev_next), "one gapless chain");
            let there: Vec<i64> = (group.prev_next..group.next).filter(|o| visible(number, *o)).collect();
            assert_eq!(offsets, there, "partition {number}: nothing left out, nothing twice");
            self.memory.push(Accepted { number, next: group.next, session, epoch: header.epoch, plain: 0 });
        }
        if self.memory.len() > before {
            self.memory.last_mut().expect("it just grew").plain = header.plain.into();
        } else {
            self.free(session, header.epoch, header.plain.into());
        }
    }

    fn free(&mut self, session: SessionId, epoch: LaneEpoch, plain: u64) {
        self.importer.free(session, epoch, plain);
        if session == self.session && epoch == self.importer.epoch() {
            self.outstanding -= plain;
        }
    }

    fn commit(&mut self) {
        for accepted in std::mem::take(&mut self.memory) {
            self.committed.insert(accepted.number, accepted.next);
            self.importer.committed(&partition(accepted.number), Offset(accepted.next), None);
            self.free(accepted.session, accepted.epoch, accepted.plain);
        }
    }

    fn recycle(&mut self) {
        for accepted in std::mem::take(&mut self.memory) {
            self.free(accepted.session, accepted.epoch, accepted.plain);
        }
        for number in 0..PARTITIONS {
            let committed = self.committed.get(&number).copied().unwrap_or(0);
            if self.accepted.insert(number, committed) != Some(committed) {
                self.importer.rewind(&partition(number), Offset(committed), None);
            }
        }
    }

    fn hear(&mut self) {
        let Some(ToExporter { answer: Some(answer) }) = self.answers.pop_front() else { return };
        match answer {
            Answer::Resume(resume) => {
                let epoch = ResumeEpoch(resume.resume_epoch);
                self.exporter.resume(Slot(resume.slot), epoch, Offset(resume.next));
                self.reading.insert(resume.slot, (resume.next, resume.resume_epoch));
            }
            Answer::LaneReset(reset) => {
                self.exporter.reset(LaneEpoch(reset.epoch), reset.credit);
                self.reading.clear();
            }
            Answer::Ack(ack) => {
                for committed in ack.committed {
                    let at_target = self.committed.get(&self.number_of(committed.slot)).copied();
                    assert!(Some(committed.next) <= at_target, "acknowledged above the commit");
                    let (slot, next) = (Slot(committed.slot), Offset(committed.next));
                    self.exporter.committed(slot, next).expect("an honest importer keeps to the rules");
                }
                for credit in ack.credit {
                    self.exporter.grant(LaneEpoch(credit.epoch), credit.total);
                }
            }
            other => panic!("{other:?}"),
        }
        assert!(self.exporter.credit_left() <= WINDOW, "more credit than the window");
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Read(counts) => self.read(counts),
            Step::Send => {
                if let Some(batch) = self.chain() {
                    self.send(batch);
                }
            }
            Step::Misplace => drop(self.chain()),
            Step::SendTwice => {
                if let Some(batch) = self.chain() {
                    self.send(batch.clone());
                    self.send(batch);
                }
            }
            Step::Swap => {
                let (first, second) = (self.chain(), self.chain());
                second.into_iter().chain(first).for_each(|batch| self.send(batch));
            }
            Step::Arrive(decodes) => self.arrive(decodes),
            Step::Speak => self.answers.extend(self.importer.poll_transmit()),
            Step::Hear => self.hear(),
            Step::Commit => self.commit(),
            Step::Recycle => self.recycle(),
            Step::Replace(keep) => self.replace(keep),
        }
    }

    /// Nothing goes wrong any more.
    fn settle(&mut self) {
        // A last break: what was misplaced at the very end has nothing behind it that would tell.
        self.replace(false);
        for _ in 0..400 {
            for step in [
                Step::Speak,
                Step::Speak,
                Step::Hear,
                Step::Hear,
                Step::Read([5; PARTITIONS as usize]),
                Step::Send,
                Step::Arrive(true),
                Step::Commit,
            ] {
                self.step(step);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(800))]

    #[test]
    fn whatever_happens_on_the_way_each_partition_arrives_whole_and_once(steps in vec(step(), 0..250)) {
        let mut pair = Pair::new();
        for step in steps {
            pair.step(step);
        }
        pair.settle();
        for number in 0..PARTITIONS {
            prop_assert_eq!(pair.committed.get(&number), Some(&END), "partition {} comes to its end", number);
        }
    }
}
