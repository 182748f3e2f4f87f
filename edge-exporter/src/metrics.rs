//! The exporter's numbers.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use codec::{Encoder, ShapeCounts, level::Gauges};
use observe::metrics::{
    Family, FloatGauge, Flow, Gauge, Lane, Link, Metrics, Partition as Labels, Reason, Side,
    State as StateLabel, raise_to,
};
use proto::{hold, ids::Lane as LaneId};

use crate::{
    lane::Settled,
    partition::{Partition, State, Table},
    schemas,
    status::LinkFacts,
};

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Meters {
    link: String,
    flow: Flow,
    level: Family<Lane, Gauge>,
    ratio: Family<Lane, FloatGauge>,
    cpu_share: Family<Lane, FloatGauge>,
    hit_ratio: Family<Lane, FloatGauge>,
    memory: Family<Lane, Gauge>,
    /// Of the schema registry.
    pub(crate) schemas: Arc<schemas::Meters>,
}

impl Meters {
    /// All numbers, and what is printed of them.
    pub(crate) fn new(link: &str) -> (Arc<Self>, Arc<Metrics>) {
        let mut metrics = Metrics::new(Side::Exporter);
        let flow = Flow::new(&mut metrics);
        let level = metrics.gauges("codec_level", "zstd level that the lane encodes with");
        let ratio =
            metrics.float_gauges("codec_ratio", "Coded bytes per plain byte of the last second with records");
        let cpu_share = metrics.float_gauges(
            "codec_cpu_share",
            "Share of one core that the lane encoded for in the last second",
        );
        let hit_ratio = metrics.float_gauges(
            "codec_template_hit_ratio",
            "Share of keys and values of a known shape, since the lane's stream began",
        );
        let memory = metrics.gauges("codec_memory_bytes", "Memory that the lane's encoder holds");
        let schemas = Arc::new(schemas::Meters::new(&mut metrics));
        let meters = Self { link: link.into(), flow, level, ratio, cpu_share, hit_ratio, memory, schemas };
        (Arc::new(meters), Arc::new(metrics))
    }

    /// How a lane encodes now.
    pub(crate) fn encoding(&self, lane: LaneId, encoder: &Encoder, gauges: Gauges) {
        let labels = Lane { link: self.link.clone(), lane: lane.0 };
        self.level.get_or_create(&labels).set(encoder.level().into());
        let ShapeCounts { followed, parsed, whole, .. } = encoder.shapes();
        if followed + parsed + whole > 0 {
            let hits = followed as f64 / (followed + parsed + whole) as f64;
            self.hit_ratio.get_or_create(&labels).set(hits);
        }
        self.memory.get_or_create(&labels).set(i64::try_from(encoder.memory()).unwrap_or(i64::MAX));
        self.ratio.get_or_create(&labels).set(gauges.ratio);
        self.cpu_share.get_or_create(&labels).set(gauges.cpu_share);
    }

    /// Records are known to be durable at the target.
    pub(crate) fn acknowledged(&self, lane: LaneId, partition: &Partition, settled: &Settled) {
        let labels = self.labels(partition);
        self.flow.records.get_or_create(&labels).inc_by(settled.records);
        self.flow.plain_bytes.get_or_create(&labels).inc_by(settled.plain);
        partition.facts().outstanding = settled.outstanding;
        if let Some(oldest) = settled.oldest {
            let lane = Lane { link: self.link.clone(), lane: lane.0 };
            let seconds = Instant::now().saturating_duration_since(oldest).as_secs_f64();
            self.flow.commit_seconds.get_or_create(&lane).observe(seconds);
        }
    }

    /// Brings the numbers that describe a state up to date.
    pub(crate) fn refresh(&self, table: &Table, link: &LinkFacts, audit_healthy: bool) {
        let mut states: BTreeMap<&str, i64> =
            ["opening", "flowing", "held", "refused"].into_iter().map(|state| (state, 0)).collect();
        let mut holds: BTreeMap<hold::Reason, i64> =
            hold::Reason::ALL.iter().map(|reason| (*reason, 0)).collect();
        for partition in table.all() {
            let state = partition.state();
            let labels = self.labels(&partition);
            if state == State::Closed {
                continue;
            }
            *states.entry(state.word()).or_default() += 1;
            if let State::Held(reason) = state {
                *holds.entry(reason).or_default() += 1;
            }
            let (records, seconds) = partition.lag();
            self.flow.lag_records.get_or_create(&labels).set(i64::try_from(records).unwrap_or(i64::MAX));
            self.flow.lag_seconds.get_or_create(&labels).set(seconds);
            self.flow.lag_bytes.get_or_create(&labels).set(self.lag_bytes(&partition, records));
        }
        for (state, count) in states {
            let labels = StateLabel { link: self.link.clone(), state: state.into() };
            self.flow.partitions.get_or_create(&labels).set(count);
        }
        for (reason, count) in holds {
            let labels = Reason { link: self.link.clone(), reason: reason.word().into() };
            self.flow.holds.get_or_create(&labels).set(count);
        }
        let labels = Link { link: self.link.clone() };
        self.flow.connected.get_or_create(&labels).set(i64::from(link.session().is_some()));
        let path = link.path();
        if let Some(rtt) = path.rtt {
            self.flow.rtt_seconds.get_or_create(&labels).set(rtt.as_secs_f64());
        }
        raise_to(&self.flow.wire_bytes.get_or_create(&labels), path.wire_bytes);
        raise_to(&self.flow.lost_packets.get_or_create(&labels), path.lost_packets);
        let (path, added) = link.measure();
        for (cause, bytes) in added.causes() {
            self.flow.path.sent(&labels, cause, bytes);
        }
        if let Some(status) = path {
            for (name, value) in status.gauges() {
                self.flow.path.set(&labels, name, value);
            }
            self.flow.path.congestion(&labels, status.congestion);
        }
        self.flow.audit_healthy.set(i64::from(audit_healthy));
    }

    /// What the source has and the target has not, in plain bytes: at least what was sent and is not acknowledged, and
    /// for what was not read yet as many records as there are offsets, each as long as the partition's were until now.
    fn lag_bytes(&self, partition: &Partition, lag_records: u64) -> i64 {
        let (records, plain) = self.delivered(partition);
        let mean = plain.checked_div(records).unwrap_or(UNKNOWN_RECORD).max(1);
        let bytes = lag_records.saturating_mul(mean).max(partition.facts().outstanding);
        i64::try_from(bytes).unwrap_or(i64::MAX)
    }

    /// A partition is not carried any more.
    pub(crate) fn forget(&self, partition: &Partition) {
        self.flow.forget(&self.labels(partition));
    }

    /// Records and plain bytes of a partition that are durable at the target.
    pub(crate) fn delivered(&self, partition: &Partition) -> (u64, u64) {
        let labels = self.labels(partition);
        (self.flow.records.get_or_create(&labels).get(), self.flow.plain_bytes.get_or_create(&labels).get())
    }

    fn labels(&self, partition: &Partition) -> Labels {
        Labels {
            link: self.link.clone(),
            topic: partition.topic.name.to_string(),
            partition: partition.number,
        }
    }
}

/// Plain bytes of a record where none was seen yet.
const UNKNOWN_RECORD: u64 = 1024;
