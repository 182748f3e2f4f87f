//! `governed`: at the rate that was bought, whatever is lost on the way.
//!
//! The bucket in the socket holds the rate; the window only bounds what is outstanding, so it is generous. It is counted
//! from a round trip that may rise a little, with jitter or a busy host, but not with a standing queue; the part for the
//! floor is counted from the round trip as it is, or a neighbour who fills the queue would take it away.
//!
//! A guard watches whether the path carries the rate. It judges over at least a second and 1,000 packets, or a burst of
//! losses would decide. On a path that was not proven yet it also looks at every acknowledgement: a rate that was
//! configured far too high shows in the queue after one round trip, and in dropped packets soon after. What it finds
//! lowers bucket and window together; it probes upwards again, first quickly to just below the rate that was too much,
//! and beyond only after some seconds. Neither an outage nor an idle time says anything about what the path carries.

use std::time::{Duration, Instant};

use super::{START_PACKETS, path::PathView};
use crate::rate::Rate;

#[derive(Debug, Clone)]
pub(super) struct Governed {
    rate: Rate,
    mtu: u64,
    /// Everything was lost for a while: send little until something is acknowledged again.
    outage: bool,
    /// The path has carried the rate, as far as it was used, over a whole judgement.
    proven: bool,
    /// The rate was lowered by a guess: see `looks_overdriven`.
    guessed: bool,
    /// The ceiling of the last look: a raised one is to be proven anew.
    ceiling: Option<u64>,
    last_ack: Option<Instant>,
    /// Until then acknowledgements tell of the time before the last change.
    settles: Option<Instant>,
    period: Period,
    /// Where the queue of a path that is not proven began to grow: when, and bytes acknowledged since.
    onset: Option<(Instant, u64)>,
    /// A rate that was too much, bytes a second, and when.
    too_much: Option<(f64, Instant)>,
    /// The queue that stood when the rate was lowered below the floor, to see whose queue it is.
    test: Option<Duration>,
    /// Until then a standing queue counts as somebody else's.
    neighbour: Option<Instant>,
    /// The share that was lost when the rate was lowered on account of it, and the rate before: loss that does not go
    /// away with the rate is not the rate's doing.
    blamed: Option<(f64, f64)>,
    /// The share that is lost by chance, whatever the rate, and when it was last seen.
    chance: Option<(f64, Instant)>,
}

/// What a judgement is made of.
#[derive(Debug, Clone, Default)]
struct Period {
    since: Option<Instant>,
    acked: u64,
    /// Of `acked`, while there was nothing more to send.
    idle: u64,
    lost: u64,
    /// The shortest queue: one that stands is never short, one that is only a busy host's doing often is.
    queue: Option<Duration>,
    /// What this host had been late in all when the period began.
    late: Duration,
}

impl Governed {
    pub(super) fn new(rate: Rate, mtu: u16) -> Self {
        Self {
            ceiling: rate.ceiling(),
            rate,
            mtu: mtu.into(),
            outage: false,
            proven: false,
            guessed: false,
            last_ack: None,
            settles: None,
            period: Period::default(),
            onset: None,
            too_much: None,
            test: None,
            neighbour: None,
            blamed: None,
            chance: None,
        }
    }

    pub(super) fn set_mtu(&mut self, mtu: u16) {
        self.mtu = mtu.into();
    }

    pub(super) fn window(&self, path: &PathView) -> u64 {
        if self.outage || !path.is_measured() {
            return START_PACKETS * self.mtu;
        }
        let Some(now) = self.bytes_now() else {
            // Governed without a rate: nothing to go by but what any path bears.
            return UNKNOWN_WINDOW;
        };
        let (least, smoothed) = (path.least(), path.smoothed());
        let reference = smoothed.min(least + JITTER.max(least / 5));
        let ceiling = now * (GAIN * reference.as_secs_f64() + SLACK);
        let floor = self.floor().min(now) * (GAIN * smoothed.min(MAX_FLOOR_RTT).as_secs_f64() + SLACK);
        ceiling.max(floor) as u64 + ALLOWANCE_PACKETS * self.mtu
    }

    pub(super) fn acked(&mut self, bytes: u64, app_limited: bool) {
        self.outage = false;
        let period = &mut self.period;
        period.acked = period.acked.saturating_add(bytes);
        if app_limited {
            period.idle = period.idle.saturating_add(bytes);
        }
        if let Some((_, since)) = &mut self.onset {
            *since = since.saturating_add(bytes);
        }
    }

    pub(super) fn lost(&mut self, bytes: u64, persistent: bool) {
        self.period.lost = self.period.lost.saturating_add(bytes);
        if persistent {
            self.forget();
            self.outage = true;
        }
    }

    pub(super) fn end_of_acks(&mut self, now: Instant, path: &PathView) {
        if !path.is_measured() {
            return;
        }
        let ceiling = self.rate.ceiling();
        if ceiling != self.ceiling {
            if ceiling > self.ceiling {
                (self.proven, self.guessed) = (false, false);
            }
            self.ceiling = ceiling;
            self.forget();
        }
        let gap = self.last_ack.map_or(Duration::ZERO, |last| now.saturating_duration_since(last));
        self.last_ack = Some(now);
        if gap > MIN_GAP.max(4 * path.smoothed()) {
            // An idle time or an outage, not congestion.
            self.forget();
        }
        if self.settles.is_some_and(|until| now < until) {
            self.period = Period::default();
            return;
        }
        self.settles = None;
        let period = &mut self.period;
        period.queue = Some(period.queue.map_or_else(|| path.queue(), |least| least.min(path.queue())));
        if period.since.is_none() {
            period.late = self.rate.late();
        }
        let since = *period.since.get_or_insert(now);
        let elapsed = now.saturating_duration_since(since);
        if !self.proven && self.looks_overdriven(now, elapsed, path) {
            return;
        }
        let enough = self.period.packets(self.mtu) >= JUDGE_PACKETS || self.is_clearly_free();
        if enough && elapsed > JUDGE_AFTER.max(4 * path.smoothed()) {
            self.judge(now, elapsed, path);
            self.period = Period::default();
        }
    }

    /// At a low rate a thousand packets take long: fewer are enough to go up again where nothing speaks against it.
    fn is_clearly_free(&self) -> bool {
        self.rate.scale() < 1.0
            && self.test.is_none()
            && self.period.packets(self.mtu) >= FREE_PACKETS
            && self.period.loss_share() < MAX_LOSS_SHARE / 2.0
            && self.period.queue.unwrap_or_default() < MIN_FOREIGN
    }

    /// The share of loss that does not speak against the rate.
    fn bearable_loss(&self, now: Instant) -> f64 {
        match self.chance {
            Some((share, at)) if now.saturating_duration_since(at) < CHANCE_FOR => {
                MAX_LOSS_SHARE.max(CHANCE_ROOM * share)
            }
            _ => MAX_LOSS_SHARE,
        }
    }

    /// Much is lost. True when it is by chance: as much was lost at a higher rate, which is taken again.
    fn lost_by_chance(&mut self, before: f64, now: Instant, path: &PathView) -> bool {
        let share = self.period.loss_share();
        match self.blamed.take() {
            Some((was, rate)) if share > was / 2.0 => {
                (self.chance, self.too_much, self.test) = (Some((share.max(was), now)), None, None);
                self.set(rate.max(before), before, now, path);
                true
            }
            _ => {
                self.blamed = Some((share, before));
                false
            }
        }
    }

    /// On a path that is not proven: whether the rate is far above what it carries, judged at once.
    fn looks_overdriven(&mut self, now: Instant, elapsed: Duration, path: &PathView) -> bool {
        let (queue, least) = (path.queue(), path.least());
        if self.host_is_busy(elapsed) {
            return false;
        }
        if queue < EARLY_ONSET {
            self.onset = None;
        } else if self.onset.is_none() {
            self.onset = Some((now, 0));
        }
        let delivered = match self.onset {
            Some((since, acked)) if queue > EARLY_QUEUE.max(least / 6) => {
                let time = now.saturating_duration_since(since);
                // Too short to tell a rate.
                if time < EARLY_SPAN || acked < EARLY_PACKETS * self.mtu {
                    return false;
                }
                acked as f64 / time.as_secs_f64()
            }
            _ if self.period.packets(self.mtu) >= EARLY_LOSS_PACKETS
                && self.period.loss_share() > EARLY_LOSS_SHARE
                && elapsed > path.smoothed() =>
            {
                self.period.acked as f64 / elapsed.as_secs_f64()
            }
            _ => return false,
        };
        let Some(before) = self.bytes_now() else { return false };
        if delivered > before {
            // What comes in faster than we send was held up before: not a path that is too narrow.
            return false;
        }
        let delivered = self.on_wire(delivered);
        // The first time the queue grew so fast that the rate is only a guess; from there on it is found step by step.
        let again = std::mem::replace(&mut self.guessed, true);
        self.proven = again;
        self.too_much = again.then_some((delivered, now));
        let target = if again { STEP_DOWN } else { EARLY_STEP } * delivered;
        // A neighbour who fills the queue looks the same for a moment: what was asked for in so many words holds.
        let promised = self.rate.promised().map_or(0.0, |bits| bits as f64 / 8.0);
        self.set(target.max(promised.min(before)), before, now, path);
        true
    }

    /// Whether this host could not send in time for much of the period.
    fn host_is_busy(&self, elapsed: Duration) -> bool {
        self.rate.late().saturating_sub(self.period.late) > elapsed / 10
    }

    fn judge(&mut self, now: Instant, elapsed: Duration, path: &PathView) {
        let Some(before) = self.bytes_now() else { return };
        if self.period.idle > self.period.acked / 2 {
            return; // it was hardly used: neither too much nor enough was shown
        }
        let delivered = self.on_wire(self.period.acked as f64 / elapsed.as_secs_f64());
        let (share, least) = (self.period.loss_share(), path.least());
        let lossy = share > self.bearable_loss(now);
        if !lossy {
            self.blamed = None;
            if let Some((_, at)) = self.chance.as_mut().filter(|_| share > MAX_LOSS_SHARE) {
                *at = now;
            }
        }
        let queue = self.period.queue.unwrap_or_default();
        let stands = queue > MAX_QUEUE.max(least / 2);
        if !lossy && self.host_is_busy(elapsed) {
            return; // neither what arrived nor how long it took was the path's doing
        }
        if !lossy && !stands {
            self.proven |= !self.guessed || self.rate.scale() >= 1.0;
            return match self.test.take() {
                Some(stood) if path.queue() > MIN_FOREIGN.max(stood / 5) => {
                    self.hold_floor(before, now, path)
                }
                _ => self.raise(before, now),
            };
        }
        if lossy && self.lost_by_chance(before, now, path) {
            return;
        }
        (self.too_much, self.proven) = (Some((delivered.min(before), now)), true);
        let lower = STEP_DOWN * delivered;
        if lossy || delivered < CARRIED * before || lower >= self.floor() {
            self.test = None;
            return self.set(lower, before, now, path);
        }
        // A queue stands and the path carries what we send: it is ours when the floor is about what the path carries,
        // or a neighbour's, and then the floor is kept. It shows when we send a little less for a moment.
        let known = self.neighbour.is_some_and(|until| now < until);
        if known || self.test.take().is_some() {
            self.hold_floor(before, now, path);
        } else {
            self.test = Some(queue);
            self.set(TEST_STEP * delivered, before, now, path);
        }
    }

    /// The queue is a neighbour's: what is guaranteed is kept, or taken back step by step.
    fn hold_floor(&mut self, before: f64, now: Instant, path: &PathView) {
        if self.neighbour.is_none_or(|until| now >= until) {
            self.neighbour = Some(now + NEIGHBOUR_FOR);
        }
        self.set(self.floor().min(before * STEP_TO_FLOOR).max(STEP_DOWN * before), before, now, path);
    }

    /// Another rate, in bytes a second; what was seen so far tells of the one before.
    fn set(&mut self, target: f64, before: f64, now: Instant, path: &PathView) {
        self.rate.set_scale(self.rate.scale() * target / before);
        self.settles = Some(now + 2 * path.smoothed());
        self.forget();
    }

    fn raise(&mut self, before: f64, now: Instant) {
        let scale = self.rate.scale();
        if scale >= 1.0 {
            self.too_much = None;
            return;
        }
        let next = match self.too_much {
            Some((rate, at)) if now.saturating_duration_since(at) < PROBE_AFTER => {
                (scale * STEP_UP).min(scale * (BELOW_TOO_MUCH * rate / before).max(1.0))
            }
            Some((rate, _)) if before < STILL_NEAR * rate => scale * PROBE_STEP,
            None if !self.proven => scale * FIND_STEP,
            _ => scale * STEP_UP + 0.005,
        };
        self.rate.set_scale(next);
    }

    fn forget(&mut self) {
        self.period = Period::default();
        self.onset = None;
    }

    /// What may leave now, bytes a second.
    fn bytes_now(&self) -> Option<f64> {
        self.rate.now().map(|bits| bits as f64 / 8.0)
    }

    /// A rate of QUIC packets as the bucket counts it.
    fn on_wire(&self, rate: f64) -> f64 {
        rate * (self.mtu + HEADERS) as f64 / self.mtu as f64
    }

    fn floor(&self) -> f64 {
        self.rate.floor().map_or(0.0, |bits| bits as f64 / 8.0)
    }
}

impl Period {
    fn packets(&self, mtu: u64) -> u64 {
        self.acked.saturating_add(self.lost) / mtu.max(1)
    }

    fn loss_share(&self) -> f64 {
        self.lost as f64 / self.acked.saturating_add(self.lost).max(1) as f64
    }
}

/// How much more than the bare product may be outstanding. The bucket holds the rate; this keeps quinn's own pacer, at
/// 1.25 windows a round trip, out of its way, and covers repeats under loss.
const GAIN: f64 = 1.5;
/// Seconds of the rate on top: on a short path, timers and a busy receiver take longer than the round trip.
const SLACK: f64 = 0.01;
const ALLOWANCE_PACKETS: u64 = 8;
/// IPv4 and UDP.
const HEADERS: u64 = 28;
const JITTER: Duration = Duration::from_millis(20);
/// A neighbour's queue above this does not widen the window any more.
const MAX_FLOOR_RTT: Duration = Duration::from_secs(1);
/// Bytes in flight when no rate is known at all.
const UNKNOWN_WINDOW: u64 = 4 << 20;

/// Random loss on a bad path stays well below.
const MAX_LOSS_SHARE: f64 = 0.08;
/// Loss by chance may grow by so much before the rate is doubted again; it is remembered for so long.
const CHANCE_ROOM: f64 = 1.5;
const CHANCE_FOR: Duration = Duration::from_secs(60);
const MAX_QUEUE: Duration = Duration::from_millis(40);
const JUDGE_AFTER: Duration = Duration::from_secs(1);
const JUDGE_PACKETS: u64 = 1000;
const FREE_PACKETS: u64 = 100;
const MIN_GAP: Duration = Duration::from_secs(1);
/// After too much: of what was delivered.
const STEP_DOWN: f64 = 0.95;
const STEP_UP: f64 = 1.05;
/// How near to a rate that was too much it goes at once, when it goes beyond, and how fast then.
const BELOW_TOO_MUCH: f64 = 0.97;
const PROBE_AFTER: Duration = Duration::from_secs(8);
const PROBE_STEP: f64 = 1.03;
/// Beyond this the path is evidently another one than it was.
const STILL_NEAR: f64 = 1.15;
/// What must arrive of what is sent for the path to count as one that carries it.
const CARRIED: f64 = 0.93;
const STEP_TO_FLOOR: f64 = 2.0;
const TEST_STEP: f64 = 0.93;
const MIN_FOREIGN: Duration = Duration::from_millis(10);
/// How long a queue counts as a neighbour's before it is tested anew.
const NEIGHBOUR_FOR: Duration = Duration::from_secs(60);

const EARLY_ONSET: Duration = Duration::from_millis(5);
const EARLY_QUEUE: Duration = Duration::from_millis(20);
const EARLY_SPAN: Duration = Duration::from_millis(15);
const EARLY_PACKETS: u64 = 30;
const EARLY_STEP: f64 = 0.85;
/// From a guess upwards, each judgement.
const FIND_STEP: f64 = 1.10;
const EARLY_LOSS_PACKETS: u64 = 500;
const EARLY_LOSS_SHARE: f64 = 0.25;

#[cfg(test)]
mod tests;
