//! The thread that carries packets in one direction.

use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;
use tun_rs::SyncDevice;

use super::counts::{Count, Counts};
use super::packets::{Sink, Source};
use super::path::{Fate, OnTheWay, Path};
use super::side;

/// One direction: the model and its counters, shared with whoever changes and reads them.
#[derive(Debug)]
pub(super) struct Direction {
    state: Mutex<State>,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) path: Path,
    pub(super) counts: Counts,
}

impl State {
    /// A packet comes from the sending side at `now`.
    fn admit(&mut self, packet: &[u8], now: u64, way: &mut OnTheWay) {
        let (length, counts) = (packet.len(), &mut self.counts);
        counts.offered.add(length);
        counts.peak.add(now, length as u64);
        let queued = match self.path.fate(length as u64, now) {
            Fate::Arrives { queued, due } => {
                way.push(due, packet);
                queued
            }
            Fate::Lost { queued } => {
                counts.loss_drops.add(length);
                queued
            }
            Fate::Dropped => return counts.queue_drops.add(length),
            Fate::Down => return counts.down_drops.add(length),
        };
        counts.queue_us.add(queued / NANOS_PER_MICRO);
        counts.carried.add(length);
        counts.protocol(packet);
    }
}

impl Direction {
    pub(super) fn new(path: Path) -> Self {
        Self { state: Mutex::new(State { path, counts: Counts::default() }) }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the thread has.
pub(super) struct Carrier {
    pub(super) direction: Arc<Direction>,
    pub(super) stop: Arc<AtomicBool>,
    pub(super) from: Arc<SyncDevice>,
    pub(super) to: Arc<SyncDevice>,
    /// The beginning of time, the same for both directions.
    pub(super) base: Instant,
    /// Packets are handled in rounds of this length while traffic flows: bounds the error of times, and the processor
    /// time that is used, here and by who receives: what is due in a round arrives together.
    pub(super) round: Duration,
}

impl Carrier {
    /// Carries packets until it is told to stop.
    pub(super) fn run(self, realtime: bool) {
        precise_timers(realtime);
        let (mut source, mut sink) = (Source::new(), Sink::new());
        let (mut way, round) = (OnTheWay::default(), nanos(self.round));
        while !self.stop.load(Ordering::Relaxed) {
            let read = self.take(&mut way, &mut source);
            let now = self.deliver(&mut way, &mut sink);
            let next = way.next_due().unwrap_or(u64::MAX);
            match read {
                // Nothing came: wait for a packet, or until one is due, or a round's worth of them.
                0 => self.wait_readable(next.saturating_sub(now).max(round)),
                1..MAX_ROUND => std::thread::sleep(self.round),
                _ => {}
            }
        }
    }

    /// Takes what the sending side has sent and decides about it. Says how many packets that were.
    fn take(&self, way: &mut OnTheWay, source: &mut Source) -> usize {
        let mut state = self.direction.lock();
        if state.path.params.down {
            let State { path, counts } = &mut *state;
            path.clear();
            way.drain().for_each(|packet| counts.down_drops.add(packet.bytes().len()));
        }
        let mut taken = 0;
        while taken < MAX_ROUND {
            let Ok(packets) = source.read(&self.from) else { break };
            let now = self.now();
            for packet in packets {
                taken += 1;
                state.admit(packet, now, way);
            }
        }
        taken
    }

    /// Writes the packets that are due. Says what time it is.
    fn deliver(&self, way: &mut OnTheWay, sink: &mut Sink) -> u64 {
        let mut now = self.now();
        if way.next_due().is_none_or(|due| due > now) {
            return now;
        }
        let mut state = self.direction.lock();
        let (mut batch, mut full) = (Count::default(), false);
        loop {
            while !full && let Some((due, packet)) = way.pop(now) {
                state.counts.late_us.add((now - due) / NANOS_PER_MICRO);
                batch.add(packet.bytes().len());
                full = sink.put(packet);
            }
            match sink.flush(&self.to) {
                Ok(()) => state.counts.delivered += batch,
                Err(_) => state.counts.down_drops += batch,
            }
            sink.written().for_each(|packet| way.recycle(packet));
            (batch, now) = (Count::default(), self.now());
            if !std::mem::take(&mut full) {
                return now;
            }
        }
    }

    fn now(&self) -> u64 {
        nanos(self.base.elapsed())
    }

    fn wait_readable(&self, nanos: u64) {
        let wait = TimeSpec::from(Duration::from_nanos(nanos).min(LONGEST_WAIT));
        let mut files = [PollFd::new(self.from.as_fd(), PollFlags::POLLIN)];
        // Interrupted or not: what is there is looked at next.
        let _ = ppoll(&mut files, Some(wait), None);
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).expect("an emulator does not run for 584 years")
}

/// Takes away the kernel's tolerance of 50 us for timers of this thread, and lets it go before all others if wanted.
fn precise_timers(realtime: bool) {
    if let Err(error) = nix::sys::prctl::set_timerslack(1) {
        tracing::warn!(%error, "timers of the emulator stay imprecise");
    }
    if realtime {
        let thread = nix::unistd::gettid().to_string();
        if let Err(error) = side::run("chrt", ["--fifo", "--pid", PRIORITY, &thread]) {
            tracing::warn!("the emulator has no priority over other processes and may be late: {error}");
        }
    }
}

/// Packets taken before those that are due are looked at again.
const MAX_ROUND: usize = 512;
/// A change of the parameters is seen after this, also when nothing happens.
const LONGEST_WAIT: Duration = Duration::from_millis(50);
/// Under SCHED_FIFO.
const PRIORITY: &str = "10";
const NANOS_PER_MICRO: u64 = 1000;
