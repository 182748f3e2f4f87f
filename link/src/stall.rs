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

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn nothing_outstanding_is_never_a_stall() {
        let start = Instant::now();
        assert!(!is_stalled(start + ms(3_600_000), None, None, ms(100)));
        assert!(!is_stalled(start + ms(3_600_000), Some(start), None, ms(100)));
    }

    #[test]
    fn a_short_path_stalls_after_a_second_and_a_long_one_after_four_round_trips() {
        let start = Instant::now();
        for (rtt, limit) in
            [(ms(0), 1000), (ms(100), 1000), (ms(250), 1000), (ms(300), 1200), (ms(600), 2400)]
        {
            assert!(!is_stalled(start + ms(limit), None, Some(start), rtt), "{rtt:?}");
            assert!(is_stalled(start + ms(limit + 1), None, Some(start), rtt), "{rtt:?}");
        }
    }

    #[test]
    fn silence_counts_from_the_last_acknowledgement_or_the_first_debt_whichever_is_later() {
        let start = Instant::now();
        // Idle for ten seconds, then something was sent: a second from there, not from the old acknowledgement.
        assert!(!is_stalled(start + ms(10_900), Some(start), Some(start + ms(10_000)), ms(1)));
        assert!(is_stalled(start + ms(11_001), Some(start), Some(start + ms(10_000)), ms(1)));
        // Always something outstanding, and acknowledged all the time.
        assert!(!is_stalled(start + ms(60_000), Some(start + ms(59_500)), Some(start), ms(1)));
        assert!(is_stalled(start + ms(60_501), Some(start + ms(59_500)), Some(start), ms(1)));
        // A clock reading from before the last acknowledgement is no silence.
        assert!(!is_stalled(start, Some(start + ms(5)), Some(start + ms(5)), ms(0)));
    }

    struct Path {
        start: Instant,
        watch: Watch,
        sample: Sample,
    }

    impl Path {
        fn new() -> Self {
            let sample = Sample { last_ack: None, acks: 0, in_flight: 0, eliciting: 0, rtt: ms(50) };
            Self { start: Instant::now(), watch: Watch::default(), sample }
        }

        fn ack(&mut self, at: u64, in_flight: u64) {
            self.sample.acks += 1;
            self.sample.last_ack = Some(self.start + ms(at));
            self.sample.in_flight = in_flight;
        }

        /// Looks every tick from `from` to `to`; when the stall was seen.
        fn run(&mut self, from: u64, to: u64) -> Option<u64> {
            (from..=to)
                .step_by(50)
                .find(|at| self.watch.observe(self.start + ms(*at), &self.sample).is_some())
        }
    }

    #[test]
    fn what_was_in_flight_at_the_last_acknowledgement_must_be_acknowledged_in_time() {
        let mut path = Path::new();
        path.ack(0, 5000);
        assert_eq!(path.run(0, 5000), Some(1150), "three samples in a row beyond a second");
    }

    #[test]
    fn what_was_sent_after_the_last_acknowledgement_must_be_acknowledged_in_time() {
        let mut path = Path::new();
        path.ack(0, 0);
        assert_eq!(path.run(0, 5000), None);
        path.sample.eliciting += 1;
        assert_eq!(path.run(5050, 9000), Some(5050 + 1150));
    }

    #[test]
    fn an_idle_connection_never_stalls() {
        let mut path = Path::new();
        path.sample.eliciting = 10;
        path.ack(0, 0);
        assert_eq!(path.run(0, 100_000), None);
    }

    #[test]
    fn an_acknowledgement_ends_the_silence() {
        let mut path = Path::new();
        path.ack(0, 5000);
        assert_eq!(path.run(0, 1100), None);
        path.ack(1110, 5000);
        assert_eq!(path.run(1150, 2100), None);
    }

    #[test]
    fn lost_packets_that_nobody_sends_again_are_no_debt() {
        let mut path = Path::new();
        path.ack(0, 5000);
        assert_eq!(path.run(0, 900), None);
        path.sample.in_flight = 0;
        assert_eq!(path.run(950, 9000), None);
    }

    #[test]
    fn a_process_that_did_not_run_does_not_take_its_own_sleep_for_a_stall() {
        let mut path = Path::new();
        path.ack(0, 5000);
        assert_eq!(path.run(0, 500), None);
        // Stopped for a minute: the first look sees the old state, the next the acknowledgements that waited.
        assert_eq!(path.run(60_000, 60_050), None);
        path.ack(60_060, 5000);
        assert_eq!(path.run(60_100, 61_000), None);
    }
}
