//! Cubic's window as arithmetic: RFC 9438, in bytes, without the question which losses it hears of.

use std::time::{Duration, Instant};

#[derive(Debug, Clone)]
pub(super) struct Curve {
    window: f64,
    mtu: f64,
    slow_start: bool,
    /// The window before the last reduction, as the curve sees it, and as it was.
    plateau: f64,
    prior: f64,
    /// What Reno would have by now.
    reno: f64,
    /// When the curve of now began, and when it is back at the plateau, seconds after that.
    began: Option<(Instant, f64)>,
    /// What was sent before is of the time before the last reduction.
    reduced: Option<Instant>,
    last: Option<Instant>,
}

impl Curve {
    pub(super) fn new(window: u64, mtu: u16) -> Self {
        Self {
            window: window as f64,
            mtu: mtu.into(),
            slow_start: true,
            plateau: 0.0,
            prior: 0.0,
            reno: 0.0,
            began: None,
            reduced: None,
            last: None,
        }
    }

    pub(super) fn window(&self) -> u64 {
        self.window as u64
    }

    pub(super) fn in_slow_start(&self) -> bool {
        self.slow_start
    }

    pub(super) fn set_mtu(&mut self, mtu: u16) {
        self.mtu = mtu.into();
        self.window = self.window.max(self.least());
    }

    /// `bytes` that were sent at `sent` have arrived; `idle`: there was not more to send.
    pub(super) fn acked(
        &mut self,
        now: Instant,
        sent: Instant,
        bytes: u64,
        idle: bool,
        round_trip: Duration,
    ) {
        let since = self.last.replace(now).map_or(Duration::ZERO, |last| now.saturating_duration_since(last));
        if idle {
            // The curve stands still while nobody needs it.
            if let Some((began, _)) = &mut self.began {
                *began += since;
            }
            return;
        }
        if self.reduced.is_some_and(|reduced| sent <= reduced) {
            return;
        }
        if self.slow_start {
            self.window += bytes as f64;
        } else {
            self.avoid(now, bytes as f64, round_trip);
        }
    }

    /// Congestion avoidance: RFC 9438, 4.2 to 4.5.
    fn avoid(&mut self, now: Instant, bytes: f64, round_trip: Duration) {
        let (began, back) = *self.began.get_or_insert_with(|| {
            self.plateau = self.plateau.max(self.window);
            self.reno = self.window;
            (now, ((self.plateau - self.window) / self.mtu / C).cbrt())
        });
        let elapsed = now.saturating_duration_since(began);
        let at = |time: Duration| self.plateau + C * (time.as_secs_f64() - back).powi(3) * self.mtu;
        let step = if self.reno < self.prior { RENO } else { 1.0 };
        self.reno += step * self.mtu * bytes / self.window;
        if at(elapsed) < self.reno {
            self.window = self.window.max(self.reno);
        } else {
            let target = at(elapsed + round_trip).clamp(self.window, 1.5 * self.window);
            self.window += (target - self.window) * bytes / self.window;
        }
    }

    /// Slow start is over, and nothing was lost: on from `window`, as Linux does.
    #[cfg(test)]
    pub(super) fn level_off(&mut self, window: u64) {
        self.slow_start = false;
        self.window = (window as f64).max(self.least());
        (self.plateau, self.prior, self.began) = (0.0, self.window, None);
    }

    /// Congestion met what was sent at `sent`: 4.6 and 4.7. Once for all that was under way together.
    pub(super) fn reduce(&mut self, now: Instant, sent: Instant) {
        if self.reduced.is_some_and(|reduced| sent <= reduced) {
            return;
        }
        self.reduced = Some(now);
        self.slow_start = false;
        self.plateau =
            if self.window < self.plateau { self.window * (1.0 + BETA) / 2.0 } else { self.window };
        self.prior = self.window;
        self.window = (self.window * BETA).max(self.least());
        self.began = None;
    }

    /// Everything was lost for a while: from the beginning, up to where it was.
    pub(super) fn collapse(&mut self) {
        self.plateau = self.window;
        self.window = self.least();
        (self.prior, self.began, self.reduced) = (self.plateau, None, None);
    }

    fn least(&self) -> f64 {
        2.0 * self.mtu
    }
}

const C: f64 = 0.4;
const BETA: f64 = 0.7;
/// Reno's growth that is fair to a reduction by [`BETA`]: 4.3.
const RENO: f64 = 3.0 * (1.0 - BETA) / (1.0 + BETA);

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    /// A window's worth of acknowledgements each 100 ms, for so long.
    fn run(curve: &mut Curve, now: &mut Instant, seconds: u64) {
        for _ in 0..seconds * 10 {
            *now += ms(100);
            for _ in 0..curve.window() / 1000 {
                curve.acked(*now, *now, 1000, false, ms(100));
            }
        }
    }

    #[test]
    fn slow_start_doubles_each_round_trip() {
        let (mut curve, mut now) = (Curve::new(10_000, 1000), Instant::now());
        run(&mut curve, &mut now, 1);
        assert_eq!(curve.window(), 10_000 << 10);
    }

    #[test]
    fn after_a_reduction_it_is_back_at_the_plateau_after_k_and_goes_beyond() {
        let (mut curve, mut now) = (Curve::new(1_000_000, 1000), Instant::now());
        curve.reduce(now, now);
        assert_eq!(curve.window(), 700_000);
        // (1000 packets x 0.3 / 0.4) ^ (1/3) = 9.1 s
        run(&mut curve, &mut now, 5);
        assert!((940_000..1_000_000).contains(&curve.window()), "{}", curve.window());
        run(&mut curve, &mut now, 4);
        assert!((990_000..1_010_000).contains(&curve.window()), "{}", curve.window());
        run(&mut curve, &mut now, 9);
        assert!(curve.window() > 1_200_000, "{}", curve.window());
    }

    #[test]
    fn losses_of_one_round_trip_count_once() {
        let (mut curve, now) = (Curve::new(1_000_000, 1000), Instant::now());
        curve.reduce(now + ms(100), now);
        curve.reduce(now + ms(101), now + ms(1));
        assert_eq!(curve.window(), 700_000);
        curve.reduce(now + ms(300), now + ms(150));
        assert!((489_000..=490_000).contains(&curve.window()), "{}", curve.window());
    }

    #[test]
    fn an_idle_time_is_no_time_to_grow() {
        let (mut curve, mut now) = (Curve::new(1_000_000, 1000), Instant::now());
        curve.reduce(now, now);
        run(&mut curve, &mut now, 3);
        let before = curve.window();
        for _ in 0..1000 {
            now += ms(100);
            curve.acked(now, now, 1000, true, ms(100));
        }
        curve.acked(now, now, 1000, false, ms(100));
        assert!(curve.window() < before + 2000, "{} after {before}", curve.window());
    }

    #[test]
    fn nothing_overflows() {
        let (mut curve, now) = (Curve::new(1_000_000, 1000), Instant::now());
        curve.level_off(0);
        for day in 0..10 {
            let at = now + Duration::from_secs(day * 86_400);
            curve.acked(at, at, u64::MAX, false, Duration::MAX.min(ms(100_000)));
        }
        curve.reduce(now, now);
        curve.collapse();
        assert_eq!(curve.window(), 2000);
    }
}
