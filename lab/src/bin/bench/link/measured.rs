//! One transport on one path: the figures.

use longhaul_lab::wanlink::Readings;
use serde_json::{Value, json};

use super::site::{FlowOutcome, Outcome};
use super::spec::{Moment, PathView, Transport};

/// Of one run.
#[derive(Debug, Clone)]
pub(crate) struct Measured {
    pub(crate) transport: Transport,
    /// Payload received from the start of dialling to the end, in Mbit/s.
    pub(crate) goodput_mbit: f64,
    /// The same without the first 3 s.
    pub(crate) steady_mbit: f64,
    /// From the start of dialling until the first payload was there, in seconds.
    pub(crate) first_seconds: f64,
    pub(crate) goodput_bytes: u64,
    pub(crate) wire: Option<Wire>,
    pub(crate) cpu_seconds: [f64; 2],
    pub(crate) connections: u32,
    pub(crate) path: Option<PathView>,
}

/// What the path saw, of all flows together.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wire {
    /// IP bytes that the senders put out.
    pub(crate) forth_bytes: u64,
    /// IP bytes that came back.
    pub(crate) back_bytes: u64,
    pub(crate) queue_ms_mean: f64,
    pub(crate) queue_ms_p99: f64,
    /// Share of the senders' packets that the queue dropped.
    pub(crate) dropped: f64,
    /// Most bytes above the configured rate in any 100 ms; above the link's where none is configured.
    pub(crate) above_bytes: u64,
    pub(crate) late_us_p99: u64,
}

impl Wire {
    pub(crate) fn new(readings: &Readings, rate_mbit: f64) -> Self {
        let forth = &readings.ab;
        Self {
            forth_bytes: forth.offered.bytes,
            back_bytes: readings.ba.offered.bytes,
            queue_ms_mean: forth.queue_us.mean() / 1e3,
            queue_ms_p99: forth.queue_us.quantile(0.99) as f64 / 1e3,
            dropped: forth.queue_drops.packets as f64 / forth.offered.packets.max(1) as f64,
            above_bytes: forth.peak.above(rate_mbit),
            late_us_p99: forth.late_us.quantile(0.99).max(readings.ba.late_us.quantile(0.99)),
        }
    }
}

impl Measured {
    /// The figures of one flow; `rate_mbit` is what its bytes on the wire are judged by.
    pub(crate) fn new(transport: Transport, outcome: &Outcome, flow: usize, rate_mbit: f64) -> Self {
        let Outcome { start, end, flows, readings } = outcome;
        let flow: &FlowOutcome = &flows[flow];
        let steady = Moment((start.0 + WARM_UP_NS).min(end.0 - 1));
        Self {
            transport,
            goodput_mbit: flow.mbit(*start, *end),
            first_seconds: flow.first_after(*start).map_or(f64::NAN, |at| at.seconds_since(*start)),
            steady_mbit: flow.mbit(steady, *end),
            goodput_bytes: flow.bytes(*end),
            wire: readings.as_ref().map(|readings| Wire::new(readings, rate_mbit)),
            cpu_seconds: [flow.sent.cpu_seconds, flow.received.iter().map(|it| it.cpu_seconds).sum()],
            connections: flow.sent.connections,
            path: flow.sent.path.clone(),
        }
    }

    /// Wire bytes of the sender for each byte of payload; what is on its way at the end counts against it.
    pub(crate) fn wire_ratio(&self) -> f64 {
        self.wire.map_or(f64::NAN, |wire| wire.forth_bytes as f64 / self.goodput_bytes.max(1) as f64)
    }

    /// Nanoseconds of processor time of both ends for each byte of payload.
    pub(crate) fn cpu_ns_per_byte(&self) -> f64 {
        self.cpu_seconds.iter().sum::<f64>() * 1e9 / self.goodput_bytes.max(1) as f64
    }

    /// For scripts.
    pub(crate) fn json(&self) -> Value {
        let mut json = json!({
            "transport": self.transport.to_string(),
            "goodput_mbit_s": round(self.goodput_mbit),
            "steady_mbit_s": round(self.steady_mbit),
            "first_payload_s": round(self.first_seconds),
            "goodput_bytes": self.goodput_bytes,
            "cpu_s_sender": round(self.cpu_seconds[0]),
            "cpu_s_receiver": round(self.cpu_seconds[1]),
            "connections": self.connections,
            "quic": self.path,
        });
        if let Some(wire) = self.wire {
            json["wire_bytes"] = wire.forth_bytes.into();
            json["wire_bytes_back"] = wire.back_bytes.into();
            json["wire_bytes_per_goodput_byte"] = round(self.wire_ratio()).into();
            json["queue_ms_mean"] = round(wire.queue_ms_mean).into();
            json["queue_ms_p99"] = round(wire.queue_ms_p99).into();
            json["queue_drop_share"] = wire.dropped.into();
            json["bytes_above_rate_in_100ms"] = wire.above_bytes.into();
            json["emulator_late_us_p99"] = wire.late_us_p99.into();
        }
        json
    }
}

/// For figures that are read by people as well.
pub(crate) fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

const WARM_UP_NS: u64 = 3_000_000_000;
