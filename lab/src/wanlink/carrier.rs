//! The thread that carries packets in one direction.

use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;
use tun_rs::SyncDevice;

use super::counts::Counts;
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
    /// time that is used.
    pub(super) round: Duration,
}

impl Carrier {
    /// Carries packets until it is told to stop.
    pub(super) fn run(self, realtime: bool) {
        precise_timers(realtime);
        let mut buffer = vec![0; MAX_PACKET];
        let mut way = OnTheWay::default();
        while !self.stop.load(Ordering::Relaxed) {
            let read = self.take(&mut way, &mut buffer);
            let now = self.deliver(&mut way);
            let next = way.next_due().unwrap_or(u64::MAX);
            match read {
                // Nothing came: wait for a packet, or until one is due.
                0 => self.wait_readable(next.saturating_sub(now)),
                // Some came: let a round's worth of them gather.
                1..MAX_ROUND => sleep(next.min(now + self.round.as_nanos() as u64).saturating_sub(now)),
                _ => {}
            }
        }
    }

    /// Takes what the sending side has sent and decides about it. Says how many packets that were.
    fn take(&self, way: &mut OnTheWay, buffer: &mut [u8]) -> usize {
        let mut state = self.direction.lock();
        let State { path, counts } = &mut *state;
        if path.params.down {
            path.clear();
            way.drain().for_each(|packet| counts.down_drops.add(packet.len()));
        }
        for taken in 0..MAX_ROUND {
            let Ok(length) = self.from.recv(buffer) else { return taken };
            let packet = &buffer[..length];
            let now = self.now();
            counts.offered.add(length);
            counts.peak.add(now, length as u64);
            let queued = match path.fate(length as u64, now) {
                Fate::Arrives { queued, due } => {
                    way.push(due, packet);
                    queued
                }
                Fate::Lost { queued } => {
                    counts.loss_drops.add(length);
                    queued
                }
                Fate::Dropped => {
                    counts.queue_drops.add(length);
                    continue;
                }
                Fate::Down => {
                    counts.down_drops.add(length);
                    continue;
                }
            };
            counts.queue_us.add(queued / NANOS_PER_MICRO);
            counts.carried.add(length);
            counts.protocol(packet);
        }
        MAX_ROUND
    }

    /// Writes the packets that are due. Says what time it is.
    fn deliver(&self, way: &mut OnTheWay) -> u64 {
        let mut now = self.now();
        if way.next_due().is_none_or(|due| due > now) {
            return now;
        }
        let mut state = self.direction.lock();
        while let Some((due, packet)) = way.pop(now) {
            match self.to.send(&packet) {
                Ok(_) => state.counts.delivered.add(packet.len()),
                Err(_) => state.counts.down_drops.add(packet.len()),
            }
            state.counts.late_us.add((now - due) / NANOS_PER_MICRO);
            way.recycle(packet);
            now = self.now();
        }
        now
    }

    fn now(&self) -> u64 {
        u64::try_from(self.base.elapsed().as_nanos()).expect("an emulator does not run for 584 years")
    }

    fn wait_readable(&self, nanos: u64) {
        let wait = TimeSpec::from(Duration::from_nanos(nanos).min(LONGEST_WAIT));
        let mut files = [PollFd::new(self.from.as_fd(), PollFlags::POLLIN)];
        // Interrupted or not: what is there is looked at next.
        let _ = ppoll(&mut files, Some(wait), None);
    }
}

fn sleep(nanos: u64) {
    if nanos > 0 {
        std::thread::sleep(Duration::from_nanos(nanos));
    }
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

const MAX_PACKET: usize = 65_536;
/// Packets taken before those that are due are looked at again.
const MAX_ROUND: usize = 512;
/// A change of the parameters is seen after this, also when nothing happens.
const LONGEST_WAIT: Duration = Duration::from_millis(50);
/// Under SCHED_FIFO.
const PRIORITY: &str = "10";
const NANOS_PER_MICRO: u64 = 1000;
