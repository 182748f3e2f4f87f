//! Noticing that a path is dead long before QUIC gives up.
//!
//! QUIC probes a silent path with doubling intervals: after a cut of ten seconds it goes on six seconds late. So the
//! exporter watches for the first acknowledgement that does not come, and dials afresh.

use std::{
    fmt,
    time::{Duration, Instant},
};

/// No acknowledgement came while data was outstanding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stall {
    /// For how long the peer acknowledged nothing.
    pub silent: Duration,
    /// The smoothed round trip before that.
    pub rtt: Duration,
}

impl fmt::Display for Stall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (silent, rtt) = (self.silent.as_millis(), self.rtt.as_millis());
        write!(f, "nothing acknowledged for {silent} ms (round trip {rtt} ms) with data outstanding")
    }
}

/// Whether a connection counts as stalled: data has been outstanding, and unacknowledged, for more than
/// max(1 s, 4 RTT).
pub fn is_stalled(
    now: Instant,
    last_ack: Option<Instant>,
    outstanding_since: Option<Instant>,
    rtt: Duration,
) -> bool {
    silence(now, last_ack, outstanding_since).is_some_and(|silent| silent > MIN_SILENCE.max(4 * rtt))
}

fn silence(now: Instant, last_ack: Option<Instant>, outstanding_since: Option<Instant>) -> Option<Duration> {
    let since = outstanding_since?.max(last_ack.unwrap_or(outstanding_since?));
    Some(now.saturating_duration_since(since))
}

/// What is known of a connection at one moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    /// When the peer last acknowledged something new, and how often it did.
    pub(crate) last_ack: Option<Instant>,
    pub(crate) acks: u64,
    /// Bytes in flight just after, less what was lost since.
    pub(crate) in_flight: u64,
    /// Frames sent that want an acknowledgement, ever.
    pub(crate) eliciting: u64,
    pub(crate) rtt: Duration,
}

/// Watches one connection through samples taken every [`TICK`].
#[derive(Debug, Default)]
pub(crate) struct Watch {
    acks: Option<u64>,
    /// `eliciting` when the last acknowledgement was noticed.
    baseline: u64,
    outstanding_since: Option<Instant>,
    strikes: u32,
}

impl Watch {
    /// The stall, when this sample is the last of enough that show one.
    pub(crate) fn observe(&mut self, now: Instant, sample: &Sample) -> Option<Stall> {
        if self.acks != Some(sample.acks) {
            self.acks = Some(sample.acks);
            // Sent between that acknowledgement and now: not counted here, but QUIC's own probe soon will be.
            self.baseline = sample.eliciting;
            self.outstanding_since = None;
        }
        if sample.in_flight > 0 || sample.eliciting > self.baseline {
            self.outstanding_since.get_or_insert(now);
        } else {
            self.outstanding_since = None;
        }
        if !is_stalled(now, sample.last_ack, self.outstanding_since, sample.rtt) {
            self.strikes = 0;
            return None;
        }
        // A process that did not run sees a long silence at first, and the acknowledgements right after.
        self.strikes += 1;
        let silent = silence(now, sample.last_ack, self.outstanding_since)?;
        (self.strikes >= STRIKES).then_some(Stall { silent, rtt: sample.rtt })
    }
}

/// How often a connection is looked at.
pub(crate) const TICK: Duration = Duration::from_millis(50);
const MIN_SILENCE: Duration = Duration::from_secs(1);
/// Samples in a row that must show the stall.
const STRIKES: u32 = 3;
