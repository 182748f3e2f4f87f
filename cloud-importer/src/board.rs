//! What one link looks like right now: for metrics, `/api/status` and whoever runs the engine in-process.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use link::{PathStatus, SentStatus};
use observe::metrics::{self, Flow};
use proto::{
    hold::Reason,
    ids::{Lane, Offset, SessionId, Slot, SourcePartition},
    progress::Tally,
};
use serde::Serialize;

use crate::lane::now_ms;

/// A link as it is now.
#[derive(Debug, Clone, Serialize)]
pub struct LinkStatus {
    /// Its name.
    pub link: String,
    /// The exporter that is connected.
    pub session: Option<SessionStatus>,
    /// The path to it, as it was within the last second.
    pub path: Option<PathStatus>,
    /// Its source partitions.
    pub partitions: Vec<PartitionStatus>,
    /// What keeps lanes from working, by lane.
    pub trouble: BTreeMap<u16, String>,
    /// How often a producer was replaced.
    pub recycled: u64,
}

/// An exporter that is connected.
#[derive(Debug, Clone, Serialize)]
pub struct SessionStatus {
    /// The session's number.
    pub session: u64,
    /// Its SPIFFE id.
    pub peer: String,
    /// Its address.
    pub remote: String,
    /// Its process.
    pub instance: String,
}

/// A source partition as it is now. Offsets are the source's.
#[derive(Debug, Clone, Serialize)]
pub struct PartitionStatus {
    /// The topic at the source.
    pub topic: String,
    /// The topic's id.
    pub topic_id: String,
    /// The partition.
    pub partition: i32,
    /// `running`, or `held`.
    pub state: &'static str,
    /// Why it is held, as a word.
    pub reason: Option<&'static str>,
    /// Why it is held and what to do.
    pub detail: Option<String>,
    /// The next offset that is not committed at the target.
    pub committed: i64,
    /// The source's last stable offset, as last heard.
    pub stable: i64,
    /// The source's high watermark, as last heard.
    pub high: i64,
    /// Records committed by this process.
    pub records: u64,
    /// Their plain bytes.
    pub plain_bytes: u64,
}

/// One link's numbers.
pub(crate) struct Board {
    link: Arc<str>,
    flow: Flow,
    recycles: metrics::Counter,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    session: Option<SessionStatus>,
    path: Option<PathStatus>,
    last_heard: Option<Instant>,
    rows: BTreeMap<SourcePartition, Row>,
    slots: BTreeMap<Slot, SourcePartition>,
    trouble: BTreeMap<u16, String>,
    recycled: u64,
}

struct Row {
    topic: Arc<str>,
    held: Option<(Reason, String)>,
    committed: Offset,
    stable: Offset,
    high: Offset,
    /// Timestamp of the newest record committed.
    newest_ms: Option<i64>,
    /// Since when the source has more than this, which is committed.
    waiting: Option<(Offset, Instant)>,
    records: u64,
    plain_bytes: u64,
}

impl Board {
    pub(crate) fn new(link: Arc<str>, flow: Flow, recycles: metrics::Counter) -> Self {
        flow.connected.get_or_create(&metrics::Link { link: link.to_string() }).set(0);
        Self { link, flow, recycles, state: Mutex::default() }
    }

    pub(crate) fn connected(&self, session: SessionStatus) {
        let mut state = self.lock();
        state.session = Some(session);
        state.last_heard = Some(Instant::now());
        state.slots.clear();
        self.flow.connected.get_or_create(&self.link_label()).set(1);
    }

    pub(crate) fn disconnected(&self, session: SessionId) {
        let mut state = self.lock();
        if state.session.as_ref().is_some_and(|current| current.session == session.0) {
            (state.session, state.path) = (None, None);
            self.flow.connected.get_or_create(&self.link_label()).set(0);
        }
    }

    /// Something came from the exporter.
    pub(crate) fn heard(&self) {
        self.lock().last_heard = Some(Instant::now());
    }

    /// What a connection carried since the last call, and how it is.
    pub(crate) fn link_stats(&self, wire_bytes: u64, lost_packets: u64, rtt: Duration) {
        let label = self.link_label();
        self.flow.wire_bytes.get_or_create(&label).inc_by(wire_bytes);
        self.flow.lost_packets.get_or_create(&label).inc_by(lost_packets);
        self.flow.rtt_seconds.get_or_create(&label).set(rtt.as_secs_f64());
    }

    /// The path of a session's connection, and what was sent on it since the last call.
    pub(crate) fn path(&self, session: SessionId, path: PathStatus, added: &SentStatus) {
        let label = self.link_label();
        for (cause, bytes) in added.causes() {
            self.flow.path.sent(&label, cause, bytes);
        }
        let mut state = self.lock();
        if state.session.as_ref().is_some_and(|current| current.session == session.0) {
            for (name, value) in path.gauges() {
                self.flow.path.set(&label, name, value);
            }
            self.flow.path.congestion(&label, path.congestion);
            state.path = Some(path);
        }
    }

    pub(crate) fn running(
        &self,
        topic: &Arc<str>,
        partition: &SourcePartition,
        committed: Offset,
        slot: Slot,
        end: Offset,
    ) {
        let mut state = self.lock();
        let row = state.row(topic, partition);
        row.held = None;
        row.committed = committed;
        row.stable = row.stable.max(end);
        row.high = row.high.max(end);
        state.slots.insert(slot, partition.clone());
    }

    /// The name of a source partition's topic.
    pub(crate) fn topic_of(&self, partition: &SourcePartition) -> Arc<str> {
        let state = self.lock();
        state.rows.get(partition).map_or_else(|| "?".into(), |row| row.topic.clone())
    }

    pub(crate) fn hold(&self, topic: &str, partition: &SourcePartition, reason: Reason, detail: &str) {
        self.lock().row(&topic.into(), partition).held = Some((reason, detail.into()));
    }

    pub(crate) fn end(&self, slot: Slot, stable: Offset, high: Offset) {
        let mut state = self.lock();
        if let Some(partition) = state.slots.get(&slot).cloned()
            && let Some(row) = state.rows.get_mut(&partition)
        {
            row.stable = stable;
            row.high = high;
        }
    }

    pub(crate) fn committed(
        &self,
        topic: &Arc<str>,
        partition: &SourcePartition,
        next: Offset,
        tally: &Tally,
        newest_ms: Option<i64>,
    ) {
        let label = self.label(topic, partition);
        self.flow.records.get_or_create(&label).inc_by(tally.count);
        self.flow.plain_bytes.get_or_create(&label).inc_by(tally.plain_bytes);
        let mut state = self.lock();
        let row = state.row(topic, partition);
        row.committed = next;
        row.stable = row.stable.max(next);
        row.high = row.high.max(next);
        row.newest_ms = newest_ms.or(row.newest_ms);
        row.records += tally.count;
        row.plain_bytes += tally.plain_bytes;
    }

    pub(crate) fn committed_in(&self, lane: Lane, time: Duration) {
        let label = metrics::Lane { link: self.link.to_string(), lane: lane.0 };
        self.flow.commit_seconds.get_or_create(&label).observe(time.as_secs_f64());
    }

    pub(crate) fn recycled(&self) {
        self.recycles.inc();
        self.lock().recycled += 1;
    }

    /// What keeps a lane from working; nothing does when `why` is empty. News is logged.
    pub(crate) fn trouble(&self, lane: Lane, why: &str) {
        let mut state = self.lock();
        if why.is_empty() {
            if state.trouble.remove(&lane.0).is_some() {
                tracing::info!(link = %self.link, %lane, "the lane works again");
            }
        } else if state.trouble.insert(lane.0, why.into()).is_none_or(|before| before != why) {
            tracing::warn!(link = %self.link, %lane, "{why}; tried again until it works");
        }
    }

    /// Brings the gauges up to date; call it every second.
    ///
    /// Lag is never under-reported: while the exporter is silent, at least the silence is added.
    pub(crate) fn refresh(&self) {
        let mut state = self.lock();
        let silent = state.last_heard.map_or(Duration::ZERO, |heard| heard.elapsed());
        let silent = if silent > EXPECTED_SILENCE { silent.as_secs_f64() } else { 0.0 };
        let (mut running, mut held) = (0, 0);
        let mut reasons: BTreeMap<Reason, i64> = BTreeMap::new();
        for (partition, row) in &mut state.rows {
            let label = self.label(&row.topic, partition);
            self.flow.lag_records.get_or_create(&label).set(row.lag_records());
            self.flow.lag_bytes.get_or_create(&label).set(row.lag_bytes());
            self.flow.lag_seconds.get_or_create(&label).set(row.age(Instant::now()).max(silent));
            match &row.held {
                None => running += 1,
                Some((reason, _)) => {
                    held += 1;
                    *reasons.entry(*reason).or_default() += 1;
                }
            }
        }
        for (name, count) in [("running", running), ("held", held)] {
            let label = metrics::State { link: self.link.to_string(), state: name.into() };
            self.flow.partitions.get_or_create(&label).set(count);
        }
        for reason in Reason::ALL {
            let label = metrics::Reason { link: self.link.to_string(), reason: reason.word().into() };
            match reasons.get(reason) {
                Some(count) => drop(self.flow.holds.get_or_create(&label).set(*count)),
                None => drop(self.flow.holds.remove(&label)),
            }
        }
    }

    pub(crate) fn status(&self) -> LinkStatus {
        let state = self.lock();
        let partitions = state.rows.iter().map(|(partition, row)| PartitionStatus {
            topic: row.topic.to_string(),
            topic_id: partition.topic.to_string(),
            partition: partition.partition,
            state: if row.held.is_some() { "held" } else { "running" },
            reason: row.held.as_ref().map(|(reason, _)| reason.word()),
            detail: row.held.as_ref().map(|(_, detail)| detail.clone()),
            committed: row.committed.0,
            stable: row.stable.0,
            high: row.high.0,
            records: row.records,
            plain_bytes: row.plain_bytes,
        });
        LinkStatus {
            link: self.link.to_string(),
            session: state.session.clone(),
            path: state.path.clone(),
            partitions: partitions.collect(),
            trouble: state.trouble.clone(),
            recycled: state.recycled,
        }
    }

    fn label(&self, topic: &str, partition: &SourcePartition) -> metrics::Partition {
        metrics::Partition {
            link: self.link.to_string(),
            topic: topic.into(),
            partition: partition.partition,
        }
    }

    fn link_label(&self) -> metrics::Link {
        metrics::Link { link: self.link.to_string() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Numbers for people: whole at each step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Row {
    /// Offsets that are not committed. What is heard of the source is older than what is committed: not below none.
    fn lag_records(&self) -> i64 {
        (self.high.0 - self.committed.0).max(0)
    }

    /// How old the newest record committed is while there are others to come, in seconds; at least for how long none was.
    fn age(&mut self, now: Instant) -> f64 {
        if self.stable <= self.committed {
            self.waiting = None;
            return 0.0;
        }
        let since = match self.waiting {
            Some((committed, since)) if committed == self.committed => since,
            _ => now,
        };
        self.waiting = Some((self.committed, since));
        let newest = self.newest_ms.map_or(0.0, |ms| (now_ms() - ms).max(0) as f64 / 1000.0);
        newest.max(now.saturating_duration_since(since).as_secs_f64())
    }

    /// What the source has and the target has not, in plain bytes: as many records as there are offsets, each as long
    /// as the partition's records were until now. An estimate: markers and compacted offsets make it too much, records that
    /// are longer than those before them too little. The lag in records is exact in offsets.
    fn lag_bytes(&self) -> i64 {
        let offsets = self.lag_records();
        let mean = self.plain_bytes.checked_div(self.records).unwrap_or(UNKNOWN_RECORD).max(1);
        offsets.saturating_mul(i64::try_from(mean).unwrap_or(i64::MAX))
    }
}

impl State {
    fn row(&mut self, topic: &Arc<str>, partition: &SourcePartition) -> &mut Row {
        self.rows.entry(partition.clone()).or_insert_with(|| Row {
            topic: topic.clone(),
            held: None,
            committed: Offset(0),
            stable: Offset(0),
            high: Offset(0),
            newest_ms: None,
            waiting: None,
            records: 0,
            plain_bytes: 0,
        })
    }
}

/// Plain bytes of a record where none was seen yet.
const UNKNOWN_RECORD: u64 = 1024;
/// An exporter sends a heartbeat every 5 s: a silence up to this says nothing.
const EXPECTED_SILENCE: Duration = Duration::from_secs(7);

#[cfg(test)]
mod tests {
    use super::*;
    use observe::metrics::{Metrics, Side};
    use proto::ids::TopicId;

    struct Shown {
        board: Board,
        metrics: Metrics,
        partition: SourcePartition,
    }

    impl Shown {
        fn new() -> Self {
            let mut metrics = Metrics::new(Side::Importer);
            let board = Board::new("l".into(), Flow::new(&mut metrics), metrics::Counter::default());
            let partition = SourcePartition { cluster: "c".into(), topic: TopicId([1; 16]), partition: 0 };
            board.running(&"orders".into(), &partition, Offset(0), SLOT, Offset(10));
            Self { board, metrics, partition }
        }

        fn commit(&self, next: i64, tally: &Tally) {
            self.board.committed(&"orders".into(), &self.partition, Offset(next), tally, None);
        }

        fn number(&self, name: &str) -> Option<f64> {
            self.board.refresh();
            let text = self.metrics.encode();
            let line = text.lines().find(|line| line.starts_with(&format!("longhaul_importer_{name}{{")));
            line.and_then(|line| line.rsplit(' ').next()?.parse().ok())
        }
    }

    const SLOT: Slot = Slot(1);

    #[test]
    fn lag_in_bytes_counts_what_the_source_has_beyond_what_is_committed() {
        let shown = Shown::new();
        let bytes = || shown.number("lag_bytes");
        assert_eq!(bytes(), Some(10.0 * UNKNOWN_RECORD as f64), "nothing is known of its records yet");
        let tally = Tally { count: 4, plain_bytes: 400, ..Tally::starting(Offset(0)) };
        shown.commit(4, &tally);
        assert_eq!(bytes(), Some(600.0));
        shown.board.end(SLOT, Offset(20), Offset(24));
        assert_eq!(bytes(), Some(2000.0));
        shown.commit(24, &Tally { count: 20, plain_bytes: 2000, ..tally });
        assert_eq!(bytes(), Some(0.0));
    }

    /// a negative number would hide in a sum what other partitions have to go.
    #[test]
    fn lag_in_records_is_never_negative_though_the_source_is_heard_of_late() {
        let shown = Shown::new();
        shown.commit(50, &Tally::starting(Offset(0)));
        shown.board.end(SLOT, Offset(30), Offset(30));
        assert_eq!(shown.number("lag_records"), Some(0.0));
        shown.board.end(SLOT, Offset(60), Offset(70));
        assert_eq!(shown.number("lag_records"), Some(20.0));
    }

    /// a partition may wait from the start on, with no record committed whose age would be known.
    #[test]
    fn lag_in_seconds_grows_where_records_wait_and_nothing_was_ever_committed() {
        let shown = Shown::new();
        shown.number("lag_seconds");
        std::thread::sleep(Duration::from_millis(30));
        let age = shown.number("lag_seconds").unwrap();
        assert!((0.03..5.0).contains(&age), "{age}");
        shown.commit(10, &Tally::starting(Offset(0)));
        assert_eq!(shown.number("lag_seconds"), Some(0.0));
    }
}
