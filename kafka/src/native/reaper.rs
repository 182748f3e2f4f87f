//! Ends client instances without letting anybody wait for a broker.
//!
//! Destroying an instance joins its threads, and one of those can sit in a name look-up or a socket call. So it
//! happens on a thread of its own; the caller waits a moment for the usual case and goes on otherwise. The
//! number of such threads is bounded: past the bound the caller pays itself.

use std::{
    ptr::NonNull,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use super::{client::Ears, sys};

/// An instance that nobody else uses any more, and what its callbacks point to.
struct Doomed {
    rk: NonNull<sys::rd_kafka_t>,
    ears: Arc<Ears>,
}

// SAFETY: instances are thread-safe, and this is the last reference to it.
unsafe impl Send for Doomed {}

impl Doomed {
    fn destroy(self) {
        // SAFETY: the owner gave it up in its `drop`, so this is the only call, and the last use. The flag
        // spares the consumer's goodbye; a transaction left open is left to the broker: no EndTxn is sent.
        unsafe {
            sys::rd_kafka_destroy_flags(self.rk.as_ptr(), sys::RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
        }
        // All threads of the instance have ended: its callbacks are over.
        drop(self.ears);
    }
}

/// Destroys `rk`, then gives up its `ears`.
pub(super) fn destroy(rk: NonNull<sys::rd_kafka_t>, ears: Arc<Ears>) {
    let doomed = Doomed { rk, ears };
    if RUNNING.fetch_add(1, Ordering::Relaxed) >= MAX_THREADS {
        doomed.destroy();
        RUNNING.fetch_sub(1, Ordering::Relaxed);
        return;
    }
    let (hand_over, take) = mpsc::sync_channel::<Doomed>(1);
    let (done, finished) = mpsc::sync_channel::<()>(1);
    let spawned = thread::Builder::new().name("kafka-destroy".into()).spawn(move || {
        if let Ok(doomed) = take.recv() {
            doomed.destroy();
        }
        RUNNING.fetch_sub(1, Ordering::Relaxed);
        let _ = done.send(());
    });
    if spawned.is_err() {
        RUNNING.fetch_sub(1, Ordering::Relaxed);
        return doomed.destroy();
    }
    // The thread waits for it, and the channel has room: this neither fails nor blocks.
    let _ = hand_over.send(doomed);
    let _ = finished.recv_timeout(PATIENCE);
}

static RUNNING: AtomicUsize = AtomicUsize::new(0);
const MAX_THREADS: usize = 32;
const PATIENCE: Duration = Duration::from_millis(500);
