//! A lane's thread: decodes and judges what arrives, and commits it with its progress in one transaction.
//!
//! ```text
//!  mailbox ─ session, opens ─┐
//!                            ▼
//!  parcels ─▶ decode ─▶ judge ─▶ pending ─▶ transaction ─▶ acknowledge
//!                                   ▲            │ anything but a clean commit
//!                                   └─ take-over ◀┘ new producer, progress read again, replay from memory
//! ```
//!
//! One recovery path serves everything: whatever goes wrong, the producer is dropped and the lane taken over anew.
//! A transaction is begun only when parcels are in hand, and never waits for the network.

mod aside;
mod commit;
mod open;
mod pending;
mod record;
mod tail;
mod takeover;
mod words;

use std::{
    collections::{BTreeMap, BTreeSet},
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use codec::{DecodeLimits, Decoder};
use observe::Audit;
use proto::{
    PeerMisbehaved,
    hold::Reason,
    ids::{Lane as LaneId, LaneEpoch, Offset, SessionId, SourcePartition, TopicId},
    progress::Table,
    receiver::{Admission, Lane, Verdict},
    wire::ToExporter,
};
use tokio::{
    runtime::Handle,
    sync::{Semaphore, mpsc},
};

use crate::{
    board::Board,
    config,
    mailbox::{Arrived, Mailbox, Order},
    target::{Claims, TargetTopic},
};
pub(crate) use commit::now_ms;
use pending::Pending;
use takeover::Owned;

/// What a lane needs of its surroundings.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) link: Arc<config::Link>,
    pub(crate) link_name: Arc<str>,
    pub(crate) lane: LaneId,
    pub(crate) kafka: kafka::Settings,
    pub(crate) transaction: config::Transaction,
    pub(crate) planted: config::Planted,
    pub(crate) admin: Arc<kafka::Admin>,
    pub(crate) audit: Audit,
    pub(crate) board: Arc<Board>,
    pub(crate) claims: Arc<Claims>,
    /// Names this process in progress.
    pub(crate) instance: Arc<str>,
}

/// What a lane says to its session's connection.
#[derive(Debug)]
pub(crate) enum Reply {
    Answer(ToExporter),
    /// The exporter broke the protocol: end the connection.
    Misbehaved(PeerMisbehaved),
}

/// A running lane.
pub(crate) struct LaneHandle {
    pub(crate) mailbox: Arc<Mailbox>,
    pub(crate) parcels: mpsc::Sender<Arrived>,
    /// KiB of parcels that may wait for the lane's thread: an exporter that ignores its credit gets no more memory.
    pub(crate) room: Arc<Semaphore>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl LaneHandle {
    /// Starts the lane's thread. It touches no broker before the first session.
    pub(crate) fn start(context: Context, runtime: Handle) -> std::io::Result<Self> {
        let mailbox = Arc::new(Mailbox::default());
        let (parcels, inbox) = mpsc::channel(MAX_QUEUED_PARCELS);
        let room = (context.link.lane_credit() + u64::from(proto::limits::MAX_PARCEL_CODED)).div_ceil(KIB);
        let name = format!("lane-{}-{}", context.link_name, context.lane);
        let worker = Worker::new(context, mailbox.clone(), inbox, runtime);
        let run = move || {
            // The machines assert what must hold. A lane without its thread would stand still without a word; a
            // process that ends is started again, and nothing that was not committed was acknowledged.
            if std::panic::catch_unwind(AssertUnwindSafe(|| worker.run())).is_err() {
                tracing::error!("a lane's thread failed: the importer ends, to be started again");
                std::process::abort();
            }
        };
        let thread = std::thread::Builder::new().name(name).spawn(run)?;
        let room = Arc::new(Semaphore::new(room as usize));
        Ok(Self { mailbox, parcels, room, thread: Mutex::new(Some(thread)) })
    }

    /// Waits until the lane has ended, as [`Mailbox::order`] told it to.
    pub(crate) fn join(&self) {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("a lane's thread panicked");
        }
    }
}

struct Worker {
    context: Context,
    mailbox: Arc<Mailbox>,
    parcels: mpsc::Receiver<Arrived>,
    runtime: Handle,
    machine: Lane,
    replies: Option<mpsc::Sender<Reply>>,
    decoding: Option<Decoding>,
    /// Batches that are done with, for their memory.
    spare: Vec<codec::Batch>,
    /// A session whose exporter broke the protocol: nothing more is taken from it.
    rejected: Option<SessionId>,
    /// The producer and what progress said when it was taken over, and since.
    owned: Option<Owned>,
    pending: Pending,
    /// Target topics as they were when their partitions were opened.
    targets: BTreeMap<Arc<str>, TargetTopic>,
    last_begin: Option<Instant>,
    takeover: takeover::State,
    /// Partitions on hold, to say so once per hold and to record its end.
    held: BTreeMap<SourcePartition, Held>,
    /// Topics that progress named when the session began.
    known_topics: Option<BTreeSet<TopicId>>,
    /// Where the audit log's `delivered` lines of each partition end.
    audited: BTreeMap<SourcePartition, Offset>,
    /// Partitions whose progress does not say yet where those lines end.
    unnoted: BTreeSet<SourcePartition>,
    last_audit: Instant,
    /// What progress said when the lane was ours last.
    last_table: Option<Table>,
    /// A lane epoch that ended and is not begun anew yet.
    broken: Option<Broken>,
    /// Lane epochs that ended one soon after the other, and when the last one did.
    breaks: (u32, Option<Instant>),
    /// When the order to drain was first seen.
    draining: Option<Instant>,
}

struct Decoding {
    session: SessionId,
    epoch: LaneEpoch,
    decoder: Decoder,
}

/// Why a lane epoch ended, and when the next one begins.
struct Broken {
    why: String,
    until: Instant,
}

/// Why a partition is on hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Held {
    reason: Reason,
    /// The hold ends when something beyond this is committed; `None`: when the partition is opened again.
    beyond: Option<Offset>,
}

/// The lane is to end: unwinds whatever waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stopped;

impl Worker {
    fn new(
        context: Context,
        mailbox: Arc<Mailbox>,
        parcels: mpsc::Receiver<Arrived>,
        runtime: Handle,
    ) -> Self {
        let machine = Lane::new(context.lane, context.link.lane_credit());
        Self {
            context,
            mailbox,
            parcels,
            runtime,
            machine,
            replies: None,
            decoding: None,
            spare: Vec::new(),
            rejected: None,
            owned: None,
            pending: Pending::default(),
            targets: BTreeMap::new(),
            last_begin: None,
            takeover: takeover::State::default(),
            held: BTreeMap::new(),
            known_topics: None,
            audited: BTreeMap::new(),
            unnoted: BTreeSet::new(),
            last_audit: Instant::now(),
            last_table: None,
            broken: None,
            breaks: (0, None),
            draining: None,
        }
    }

    fn run(mut self) {
        while self.step().is_ok() {}
        if self.draining.is_some() {
            self.record_deliveries();
            self.note_deliveries();
        }
    }

    /// One turn: news, parcels, a transaction when one is due, answers, and waiting for more.
    fn step(&mut self) -> Result<(), Stopped> {
        self.read_mail()?;
        self.begin_anew();
        while self.pending.plain_bytes() < self.context.transaction.bytes.bytes()
            && let Ok(arrived) = self.parcels.try_recv()
        {
            self.arrived(arrived);
        }
        if self.draining.is_some() || self.due_in().is_some_and(|wait| wait.is_zero()) {
            self.flush()?;
        }
        if self.last_audit.elapsed() >= AUDIT_INTERVAL {
            self.record_deliveries();
        }
        if self.pending.is_empty() && self.last_begin.is_none_or(|begin| begin.elapsed() >= QUIET) {
            self.note_deliveries();
            self.spare.clear();
        }
        let answered = self.answer();
        if self.draining.is_some() {
            return Err(Stopped);
        }
        self.wait(answered);
        Ok(())
    }

    fn read_mail(&mut self) -> Result<(), Stopped> {
        let mail = self.mailbox.take();
        match mail.order {
            Order::Run => {}
            Order::Drain => drop(self.draining.get_or_insert_with(Instant::now)),
            Order::Kill => return Err(Stopped),
        }
        if let Some(session) = mail.void {
            self.void(session);
        }
        if let Some(session) = mail.session {
            self.machine.begin_session(session.id);
            self.replies = Some(session.replies);
            self.decoding = None;
            self.takeover.new_session();
            // Another importer may have had the lane since: what is believed of progress is read anew.
            self.disown();
            self.broken = None;
            self.known_topics = None;
        }
        if mail.ended {
            self.record_deliveries();
        }
        for slot in mail.closes {
            self.machine.close(slot);
        }
        if !mail.opens.is_empty() {
            // What was accepted is committed first, so that every answer can speak of committed positions.
            self.flush()?;
            // The session's grant may have been taken back meanwhile.
            if self.machine.session().is_some() {
                self.open(mail.opens.into_values().collect())?;
            }
        }
        Ok(())
    }

    /// The grant of a session was taken back: what the lane holds of it is not written (R-7). Nothing of it was
    /// acknowledged, so nothing is lost. A transaction that has begun already is finished.
    fn void(&mut self, session: SessionId) {
        let before = self.pending.plain_bytes();
        self.pending.void(session);
        self.machine.void(session);
        if self.machine.session().is_none() {
            self.broken = None;
        }
        let dropped = before - self.pending.plain_bytes();
        if dropped > 0 {
            let (link, lane) = (&self.context.link_name, self.context.lane);
            tracing::warn!(%link, %lane, "{dropped} bytes of a session whose grant was taken back are not written");
        }
    }

    fn arrived(&mut self, arrived: Arrived) {
        let Arrived { session, preface, header, body, room } = arrived;
        // What is under way in an epoch that ended is of no use.
        if self.rejected == Some(session) || self.broken.is_some() {
            return;
        }
        match self.machine.parcel(session, &header) {
            Ok(Admission::Decode) => {}
            Ok(Admission::Stale) => return,
            Err(misbehaved) => return self.reject(session, misbehaved),
        }
        let plain = u64::from(header.plain);
        let readable =
            u8::try_from(preface.codec_version).is_ok_and(|version| codec::READABLE.contains(&version));
        if !readable || preface.epoch != header.epoch {
            let why = format!("codec version {} is not spoken here", preface.codec_version);
            return self.broken(session, header.epoch, plain, &why);
        }
        match self.decode(session, header.epoch, &body, header.plain) {
            Ok(batch) => {
                let wire = body.len() as u64 + proto::wire::ParcelHeader::LENGTH as u64;
                drop(room);
                self.accept(pending::Accepted::new(batch, session, header.epoch, plain, wire));
            }
            Err(error) => self.broken(session, header.epoch, plain, &error.to_string()),
        }
    }

    fn decode(
        &mut self,
        session: SessionId,
        epoch: LaneEpoch,
        body: &[u8],
        plain: u32,
    ) -> Result<codec::Batch, codec::Error> {
        let current = self.decoding.as_ref().is_some_and(|it| (it.session, it.epoch) == (session, epoch));
        if !current {
            let decoder = Decoder::new(DecodeLimits::default())?;
            self.decoding = Some(Decoding { session, epoch, decoder });
        }
        let mut batch = self.spare.pop().unwrap_or_default();
        let decoder = &mut self.decoding.as_mut().expect("it was just made").decoder;
        decoder.decode_into(body, plain, &mut batch)?;
        Ok(batch)
    }

    /// Judges every group of a parcel: what is accepted becomes pending.
    fn accept(&mut self, mut accepted: pending::Accepted) {
        let mut keep = Vec::with_capacity(accepted.batch.groups().len());
        for index in 0..accepted.batch.groups().len() {
            let span = pending::offsets(&accepted.batch, index);
            match self.machine.judge(&accepted.batch.groups()[index], span) {
                Ok(Verdict::Accept(partition, permit)) => {
                    let (partition, permit) = (partition.clone(), permit.clone());
                    let limit = self.targets.get(permit.target()).map(|target| target.max_message_bytes);
                    let too_large = limit.and_then(|limit| pending::too_large(&accepted.batch, index, limit));
                    if let Some(detail) = too_large {
                        self.hold(&partition, permit.topic(), proto::hold::Reason::RecordTooLarge, &detail);
                        keep.push(false);
                    } else {
                        accepted.parts.push(pending::Part { partition, permit });
                        keep.push(true);
                    }
                }
                Ok(Verdict::Stale | Verdict::Rewound) => keep.push(false),
                Err(misbehaved) => {
                    // Groups before it were accepted; the session ends, and its successor sends them again.
                    self.machine.free(accepted.session, accepted.epoch, accepted.plain);
                    return self.reject(accepted.session, misbehaved);
                }
            }
        }
        let mut keep = keep.into_iter();
        accepted.batch.retain_groups(|_| keep.next().unwrap_or(false));
        if accepted.parts.is_empty() {
            self.machine.free(accepted.session, accepted.epoch, accepted.plain);
        } else {
            self.pending.push(accepted);
        }
    }

    fn broken(&mut self, session: SessionId, epoch: LaneEpoch, plain: u64, why: &str) {
        let (link, lane) = (&self.context.link_name, self.context.lane);
        tracing::error!(%link, %lane, %epoch, "a parcel does not decode: {why}; the lane starts a new epoch");
        self.record_refusal(format!("lane {lane}: a parcel does not decode: {why}"));
        self.machine.free(session, epoch, plain);
        self.decoding = None;
        let now = Instant::now();
        let soon = self.breaks.1.is_some_and(|last| now.saturating_duration_since(last) < BREAK_MEMORY);
        let breaks = if soon { self.breaks.0.saturating_add(1) } else { 1 };
        self.breaks = (breaks, Some(now));
        // An exporter that sends nothing else is not asked for more at once.
        self.broken = Some(Broken { why: why.to_owned(), until: now + break_pause(breaks) });
        self.begin_anew();
    }

    /// Begins the next lane epoch, when it is time.
    fn begin_anew(&mut self) {
        if let Some(broken) = self.broken.take_if(|broken| broken.until <= Instant::now()) {
            self.machine.broken(&broken.why);
        }
    }

    fn reject(&mut self, session: SessionId, misbehaved: PeerMisbehaved) {
        self.rejected = Some(session);
        if let Some(replies) = &self.replies {
            // A full or closed channel means that the connection is ending anyway.
            let _ = replies.try_send(Reply::Misbehaved(misbehaved));
        }
    }

    /// Sends what the machine has to say, as far as the session takes it; says whether that was all.
    fn answer(&mut self) -> bool {
        let Some(replies) = self.replies.clone() else {
            while self.machine.poll_transmit().is_some() {}
            return true;
        };
        loop {
            match replies.try_reserve() {
                Ok(permit) => match self.machine.poll_transmit() {
                    Some(message) => permit.send(Reply::Answer(message)),
                    None => return true,
                },
                Err(mpsc::error::TrySendError::Full(())) => return false,
                Err(mpsc::error::TrySendError::Closed(())) => {
                    self.replies = None;
                    return true;
                }
            }
        }
    }

    /// How long until a transaction is due; `None` when nothing is pending.
    fn due_in(&self) -> Option<Duration> {
        if self.pending.is_empty() {
            return None;
        }
        if self.pending.plain_bytes() >= self.context.transaction.bytes.bytes() {
            return Some(Duration::ZERO);
        }
        let interval = self.context.transaction.interval.duration();
        Some(self.last_begin.map_or(Duration::ZERO, |begin| interval.saturating_sub(begin.elapsed())))
    }

    fn wait(&mut self, answered: bool) {
        let longest = if answered { IDLE_WAIT } else { Duration::from_millis(10) };
        let mut wait = self.due_in().unwrap_or(longest).min(longest);
        if let Some(broken) = &self.broken {
            // One tick more, so that it is time then.
            wait = wait.min(broken.until.saturating_duration_since(Instant::now()) + TICK);
        }
        if wait.is_zero() {
            return;
        }
        let (parcels, mailbox) = (&mut self.parcels, &self.mailbox);
        let arrived = self.runtime.block_on(async {
            tokio::select! {
                arrived = parcels.recv() => arrived,
                () = mailbox.news() => None,
                () = tokio::time::sleep(wait) => None,
            }
        });
        if let Some(arrived) = arrived {
            self.arrived(arrived);
        }
    }

    /// Sleeps for `time`, unless the lane is to end.
    fn pause(&mut self, time: Duration) -> Result<(), Stopped> {
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.check_order()?;
            std::thread::sleep(
                Duration::from_millis(20).min(until.saturating_duration_since(Instant::now())),
            );
        }
        self.check_order()
    }

    /// Whether what waits may go on waiting.
    fn check_order(&mut self) -> Result<(), Stopped> {
        match self.mailbox.current_order() {
            Order::Run => Ok(()),
            Order::Kill => Err(Stopped),
            Order::Drain => {
                let since = *self.draining.get_or_insert_with(Instant::now);
                if since.elapsed() > DRAIN_PATIENCE { Err(Stopped) } else { Ok(()) }
            }
        }
    }
}

/// None after the first time, then 200 ms, 400 ms and up to 5 s: well within the time in which records flow again (R-9).
fn break_pause(breaks: u32) -> Duration {
    match breaks {
        0 | 1 => Duration::ZERO,
        more => (BREAK_PAUSE * 2_u32.saturating_pow(more - 1)).min(MOST_BREAK_PAUSE),
    }
}

/// How long the end of a lane epoch is remembered.
const BREAK_MEMORY: Duration = Duration::from_secs(60);
const BREAK_PAUSE: Duration = Duration::from_millis(100);
const MOST_BREAK_PAUSE: Duration = Duration::from_secs(5);
const TICK: Duration = Duration::from_millis(1);
/// Parcels that may wait for the lane's thread, whatever their size.
const MAX_QUEUED_PARCELS: usize = 4096;
const KIB: u64 = 1024;
/// How often a lane looks round when nothing happens.
const IDLE_WAIT: Duration = Duration::from_secs(1);
/// Batches whose memory is kept while records flow: about what comes in between two transactions.
const MAX_SPARE: usize = 32;
/// How often `delivered` lines are written to the audit log.
const AUDIT_INTERVAL: Duration = Duration::from_secs(5);
/// A lane that has written nothing for so long makes nobody wait with a transaction of its own.
const QUIET: Duration = Duration::from_secs(1);
/// How long a lane may try to commit what it accepted when the importer stops. What is not committed is sent again.
const DRAIN_PATIENCE: Duration = Duration::from_secs(8);

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proto::{
        ids::Slot,
        policy::{LinkPolicy, Mapping, Policy},
        receiver::OpenPartition,
    };

    /// An open of the first partition of `topic`, which is called `target` there.
    pub(crate) fn open_of(topic: &str, target: &str, slot: u32) -> OpenPartition {
        let rename = BTreeMap::from([(topic.to_owned(), target.to_owned())]);
        let link = LinkPolicy {
            identity: "i".into(),
            cluster: None,
            topics: vec![topic.parse().unwrap()],
            mapping: Mapping { prefix: String::new(), rename },
            rate: None,
        };
        let mut policy = Policy::new();
        policy.insert("l", link);
        let mut id = [0; 16];
        id[..topic.len()].copy_from_slice(topic.as_bytes());
        OpenPartition {
            lane: LaneId(0),
            slot: Slot(slot),
            partition: SourcePartition { cluster: "c".into(), topic: TopicId(id), partition: 0 },
            permit: policy.admit("l", "i", "c").unwrap().permit(topic).unwrap(),
            partition_count: 1,
            log_start: Offset(0),
            end: Offset(0),
            start: Offset(0),
        }
    }

    #[test]
    fn an_exporter_whose_parcels_never_decode_is_asked_again_more_and_more_seldom() {
        let millis: Vec<u128> = (1..10).map(|breaks| break_pause(breaks).as_millis()).collect();
        assert_eq!(millis, [0, 200, 400, 800, 1600, 3200, 5000, 5000, 5000]);
        assert_eq!(break_pause(u32::MAX), MOST_BREAK_PAUSE);
    }
}
