//! Clients that have fallen silent are told again which brokers there are.
//!
//! A broker that its controller gave up for a while (it stood still, it has just begun) answers a question for metadata with
//! topics and no brokers. librdkafka (2.12) then forgets all its brokers, those that it was configured with too; the way back
//! that it has begins when the last connection ends, and is called off when the very answer is dealt with
//! (`rd_kafka_rebootstrap_tmr_stop`). Whichever comes last decides; a client that loses never sends anything again
//! (<https://github.com/confluentinc/librdkafka/issues/5301>).
//!
//! A client at work sends something at least as often as it looks for changes in the cluster, every 5 s as configured here. One
//! that has sent nothing for longer is given the brokers of its configuration anew: known ones are left as they are, so it does
//! no harm where the cluster is down or the client has nothing to do.

use std::{
    ffi::CString,
    ptr::NonNull,
    sync::{
        Arc, LazyLock, Mutex, Once, OnceLock, PoisonError, Weak,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use super::sys;

/// What is heard of one instance.
#[derive(Debug)]
pub(super) struct Voice {
    /// When a request was written last, in milliseconds of this process.
    sent: AtomicU64,
    /// How often the brokers were given anew since then.
    told: AtomicU32,
    brokers: CString,
    /// The instance, from when it is made until it is given up.
    instance: Mutex<Option<Instance>>,
}

#[derive(Debug)]
struct Instance(NonNull<sys::rd_kafka_t>);

// SAFETY: instances are thread-safe.
unsafe impl Send for Instance {}

impl Voice {
    /// For an instance that will be made with these `brokers`, separated by commas.
    pub(super) fn new(brokers: CString) -> Arc<Self> {
        let (sent, told) = (AtomicU64::new(now()), AtomicU32::new(0));
        Arc::new(Self { sent, told, brokers, instance: Mutex::new(None) })
    }

    /// From now on silence is noticed.
    pub(super) fn begin(self: &Arc<Self>, rk: NonNull<sys::rd_kafka_t>) {
        *self.instance.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instance(rk));
        VOICES.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(self));
        static LISTENING: Once = Once::new();
        LISTENING.call_once(|| {
            if let Err(error) = thread::Builder::new().name("kafka-silence".into()).spawn(listen) {
                tracing::warn!(%error, "clients of Kafka that fall silent will not be noticed");
            }
        });
    }

    /// The instance is about to be destroyed; it is not touched any more when this returns.
    pub(super) fn end(&self) {
        *self.instance.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// A request was written.
    pub(super) fn sent(&self) {
        self.sent.store(now(), Ordering::Relaxed);
        self.told.store(0, Ordering::Relaxed);
    }

    /// Gives the brokers anew if it is time.
    fn listen(&self, now: u64) {
        let times = self.told.load(Ordering::Relaxed);
        if !is_due(now.saturating_sub(self.sent.load(Ordering::Relaxed)), times) {
            return;
        }
        let instance = self.instance.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(Instance(rk)) = &*instance else { return };
        self.told.store(times + 1, Ordering::Relaxed);
        // SAFETY: the instance is live while the lock is held; the text is copied.
        let known = unsafe { sys::rd_kafka_brokers_add(rk.as_ptr(), self.brokers.as_ptr()) };
        tracing::debug!(brokers = ?self.brokers, known, "a client that sends nothing was given its brokers anew");
    }
}

/// Whether an instance that has sent nothing for so many milliseconds is to be told for the next time.
fn is_due(silent: u64, times: u32) -> bool {
    silent >= (SILENCE << times.min(16)).min(u64::from(times) * LONGEST_PAUSE + SILENCE)
}

fn listen() {
    loop {
        thread::sleep(LISTEN_INTERVAL);
        let mut voices = VOICES.lock().unwrap_or_else(PoisonError::into_inner);
        voices.retain(|voice| voice.strong_count() > 0);
        let heard: Vec<Arc<Voice>> = voices.iter().filter_map(Weak::upgrade).collect();
        drop(voices);
        let now = now();
        heard.iter().for_each(|voice| voice.listen(now));
    }
}

fn now() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    u64::try_from(START.get_or_init(Instant::now).elapsed().as_millis()).unwrap_or(u64::MAX)
}

static VOICES: LazyLock<Mutex<Vec<Weak<Voice>>>> = LazyLock::new(Mutex::default);
const LISTEN_INTERVAL: Duration = Duration::from_millis(500);
/// Milliseconds without a request, at first: more than `topic.metadata.refresh.interval.ms`, so little that records flow again
/// within ten seconds of a fault's end.
const SILENCE: u64 = 6000;
/// Milliseconds between two times, at most. Silence as it is meant here begins with an answer, so with something sent: long
/// pauses are for clusters that are down.
const LONGEST_PAUSE: u64 = 600_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_client_is_told_after_six_seconds_and_then_more_and_more_seldom() {
        let told_at = |times| (0..).step_by(500).find(|silent| is_due(*silent, times)).unwrap() / 1000;
        let times: Vec<u64> = (0..10).map(told_at).collect();
        assert_eq!(times, [6, 12, 24, 48, 96, 192, 384, 768, 1536, 3072]);
        assert_eq!((told_at(20) - told_at(19), told_at(40) - told_at(39)), (600, 600));
    }
}
