//! What happened in one direction since the counters were last set to zero.

use std::{collections::VecDeque, ops::AddAssign};

use serde_json::{Value, json};

/// Packets and bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// Packets.
    pub packets: u64,
    /// Their bytes, IP headers included.
    pub bytes: u64,
}

impl Count {
    pub(super) fn add(&mut self, bytes: usize) {
        self.packets += 1;
        self.bytes += bytes as u64;
    }

    fn json(self) -> Value {
        json!({ "packets": self.packets, "bytes": self.bytes })
    }
}

impl AddAssign for Count {
    fn add_assign(&mut self, other: Self) {
        self.packets += other.packets;
        self.bytes += other.bytes;
    }
}

/// Counters of one direction.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    /// Sent into the link by the sending side.
    pub offered: Count,
    /// Of these, what got onto the line: the bytes that are paid for.
    pub carried: Count,
    /// Written into the receiving side.
    pub delivered: Count,
    /// Dropped by the queue.
    pub queue_drops: Count,
    /// Lost behind the line.
    pub loss_drops: Count,
    /// Lost because the link was cut.
    pub down_drops: Count,
    /// Of `carried`, TCP.
    pub tcp: Count,
    /// Of `carried`, UDP.
    pub udp: Count,
    /// Waiting time in front of the line, microseconds.
    pub queue_us: Histogram,
    /// How late the emulator itself delivered, microseconds.
    pub late_us: Histogram,
    /// What was offered in any [`Peak::WINDOW_NS`].
    pub peak: Peak,
    /// Packets that the kernel dropped before the emulator saw them.
    pub tun_drops: u64,
}

impl Counts {
    /// Counts a packet by its IP protocol, as carried on the line.
    pub(super) fn protocol(&mut self, packet: &[u8]) {
        let protocol = match packet.first().map(|byte| byte >> 4) {
            Some(4) => packet.get(9),
            Some(6) => packet.get(6),
            _ => None,
        };
        match protocol {
            Some(&TCP) => self.tcp.add(packet.len()),
            Some(&UDP) => self.udp.add(packet.len()),
            _ => {}
        }
    }

    /// Why a measurement during which this was counted does not count; `None` when it does.
    ///
    /// An emulator that was late has added delay of its own, and a packet that the kernel dropped was never on the path.
    pub fn objection(&self) -> Option<String> {
        let late = self.late_us.quantile(0.99);
        if late >= MAX_LATE_US {
            return Some(format!("the emulator was late: p99 {late} us"));
        }
        (self.tun_drops > 0).then(|| format!("the kernel dropped {} packets before the path", self.tun_drops))
    }

    /// For scripts.
    pub fn json(&self) -> Value {
        json!({
            "offered": self.offered.json(),
            "carried": self.carried.json(),
            "delivered": self.delivered.json(),
            "queue_drops": self.queue_drops.json(),
            "loss_drops": self.loss_drops.json(),
            "down_drops": self.down_drops.json(),
            "carried_tcp": self.tcp.json(),
            "carried_udp": self.udp.json(),
            "queue_ms": self.queue_us.json(1000.0),
            "late_us": self.late_us.json(1.0),
            "peak_100ms_bytes": self.peak.bytes(),
            "tun_drops": self.tun_drops,
        })
    }
}

/// A histogram of microseconds: values are kept to within 1.6 %.
#[derive(Debug, Clone)]
pub struct Histogram {
    buckets: Vec<u64>,
    count: u64,
    sum: u64,
    max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: vec![0; BUCKETS], count: 0, sum: 0, max: 0 }
    }
}

impl Histogram {
    /// Counts a value.
    pub fn add(&mut self, micros: u64) {
        self.buckets[index(micros)] += 1;
        self.count += 1;
        self.sum += micros;
        self.max = self.max.max(micros);
    }

    /// The mean, in microseconds; 0 when there is nothing.
    pub fn mean(&self) -> f64 {
        self.sum as f64 / self.count.max(1) as f64
    }

    /// The least value that is not below the share `quantile` of all; 0 when there is nothing.
    pub fn quantile(&self, quantile: f64) -> u64 {
        let wanted = ((self.count as f64 * quantile).ceil() as u64).max(1);
        let mut seen = 0;
        let at = self.buckets.iter().position(|count| {
            seen += count;
            seen >= wanted
        });
        at.map_or(0, value)
    }

    fn json(&self, unit: f64) -> Value {
        let round = |micros: f64| (micros / unit * 100.0).round() / 100.0;
        let at = |quantile| round(self.quantile(quantile) as f64);
        json!({
            "mean": round(self.mean()),
            "p50": at(0.5),
            "p95": at(0.95),
            "p99": at(0.99),
            "max": round(self.max as f64),
        })
    }
}

/// The most bytes that came within any 100 ms.
#[derive(Debug, Clone, Default)]
pub struct Peak {
    /// When packets of the last 100 ms came, with their bytes.
    window: VecDeque<(u64, u64)>,
    inside: u64,
    most: u64,
}

impl Peak {
    /// Length of the window.
    pub const WINDOW_NS: u64 = 100_000_000;

    /// A packet came; times never go back.
    pub(super) fn add(&mut self, now: u64, bytes: u64) {
        self.inside += bytes;
        match self.window.back_mut() {
            // Packets that were read together came together, as far as is known.
            Some((at, sum)) if *at == now => *sum += bytes,
            _ => self.window.push_back((now, bytes)),
        }
        while let Some((_, gone)) = self.window.pop_front_if(|(at, _)| *at + Self::WINDOW_NS <= now) {
            self.inside -= gone;
        }
        self.most = self.most.max(self.inside);
    }

    /// The most bytes within any window so far.
    pub fn bytes(&self) -> u64 {
        self.most
    }

    /// The most bytes within any window above what `rate_mbit` allows in it.
    pub fn above(&self, rate_mbit: f64) -> u64 {
        let allowed = rate_mbit * 1e6 / 8.0 * Self::WINDOW_NS as f64 / 1e9;
        (self.most as f64 - allowed).max(0.0) as u64
    }
}

fn index(micros: u64) -> usize {
    if micros < SUB {
        return micros as usize;
    }
    let shift = micros.ilog2() - SUB.ilog2();
    (u64::from(shift + 1) * SUB + ((micros >> shift) - SUB)) as usize
}

fn value(index: usize) -> u64 {
    let (major, minor) = (index as u64 / SUB, index as u64 % SUB);
    if major == 0 { minor } else { (SUB + minor) << (major - 1) }
}

/// Buckets for each power of two.
const SUB: u64 = 64;
const BUCKETS: usize = 60 * SUB as usize;
/// 99 of 100 packets must be delivered less late than this for a measurement to count.
const MAX_LATE_US: u64 = 1000;
/// IP protocol numbers.
const TCP: u8 = 6;
const UDP: u8 = 17;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_keeps_values_to_within_two_percent() {
        for micros in [0, 1, 15, 63, 64, 65, 999, 100_000, 123_456_789, u64::MAX >> 1] {
            let kept = value(index(micros));
            assert!(kept <= micros && (micros - kept) as f64 <= micros as f64 / 64.0, "{micros} {kept}");
        }
    }

    #[test]
    fn quantiles_are_those_of_the_values() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile(0.99), 0);
        (1..=50).for_each(|micros| histogram.add(micros));
        assert_eq!((histogram.quantile(0.5), histogram.quantile(0.99)), (25, 50));
        assert!((histogram.mean() - 25.5).abs() < 1e-9);
    }

    #[test]
    fn the_peak_is_the_fullest_window_wherever_it_lies() {
        let mut peak = Peak::default();
        let ms = 1_000_000;
        // 1,000 bytes a millisecond for half a second, and 5,000 at once in the middle.
        for n in 0..500 {
            peak.add(n * ms, 1000);
            if n == 250 {
                peak.add(n * ms, 5000);
            }
        }
        assert_eq!(peak.bytes(), 105_000);
        assert_eq!(peak.above(8.0), 5000);
        assert_eq!(peak.above(100.0), 0);
    }

    #[test]
    fn bytes_in_the_last_moment_of_a_window_do_not_meet_those_of_its_first() {
        let mut peak = Peak::default();
        peak.add(0, 700);
        peak.add(Peak::WINDOW_NS, 700);
        assert_eq!(peak.bytes(), 700);
    }

    #[test]
    fn a_late_emulator_and_dropped_packets_void_a_measurement() {
        let mut counts = Counts::default();
        assert_eq!(counts.objection(), None);
        (0..1000).for_each(|_| counts.late_us.add(20));
        (0..5).for_each(|_| counts.late_us.add(5000));
        assert_eq!(counts.objection(), None, "half a percent late");
        (0..10).for_each(|_| counts.late_us.add(5000));
        assert!(counts.objection().unwrap().contains("late"));
        let dropped = Counts { tun_drops: 1, ..Counts::default() };
        assert!(dropped.objection().unwrap().contains("dropped 1"));
    }

    #[test]
    fn packets_are_counted_by_protocol() {
        let mut counts = Counts::default();
        let mut packet = [0_u8; 40];
        (packet[0], packet[9]) = (0x45, 17);
        counts.protocol(&packet);
        packet[9] = 6;
        counts.protocol(&packet);
        (packet[0], packet[6]) = (0x60, 17);
        counts.protocol(&packet);
        counts.protocol(&[]);
        assert_eq!((counts.tcp.packets, counts.udp.packets), (1, 2));
    }
}
