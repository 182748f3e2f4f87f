//! An alarm that goes off on time.
//!
//! The runtime's timers have steps of a millisecond, in which 60 kB pass at 500 Mbit/s. The kernel's own timers are
//! exact to tens of microseconds; they are used where there are any (Linux), through a descriptor of their own.

use std::{
    future::Future as _,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use tokio::time::Sleep;

/// One alarm at a time, for one task.
#[derive(Debug)]
pub(super) struct Alarm {
    exact: Option<exact::Exact>,
    sleep: Pin<Box<Sleep>>,
}

impl Alarm {
    /// Made inside the runtime.
    pub(super) fn new() -> Self {
        let exact = exact::Exact::new().inspect_err(|error| tracing::debug!(%error, "no exact timer")).ok();
        Self { exact, sleep: Box::pin(tokio::time::sleep(Duration::ZERO)) }
    }

    /// Ready once it is `at`, which may change from call to call.
    pub(super) fn poll(&mut self, at: Instant, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(exact) = &mut self.exact {
            match exact.poll(at, cx) {
                Ok(poll) => return poll,
                Err(error) => {
                    tracing::warn!(%error, "the exact timer fails: a coarse one takes over");
                    self.exact = None;
                }
            }
        }
        // The other direction wakes this task all the time: leave the timer alone while nothing changed.
        if self.sleep.deadline().into_std() != at {
            self.sleep.as_mut().reset(at.into());
        }
        self.sleep.as_mut().poll(cx)
    }
}

#[cfg(target_os = "linux")]
mod exact {
    use std::{
        io,
        os::fd::OwnedFd,
        task::{Context, Poll},
        time::{Duration, Instant},
    };

    use rustix::time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
        timerfd_settime,
    };
    use tokio::io::{Interest, unix::AsyncFd};

    /// A timer of the kernel's.
    #[derive(Debug)]
    pub(super) struct Exact {
        timer: AsyncFd<OwnedFd>,
        set: Option<Instant>,
    }

    impl Exact {
        pub(super) fn new() -> io::Result<Self> {
            let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
            let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
            #[expect(
                deprecated,
                reason = "its unsafe successor asks for a descriptor that is owned and stays: this one is"
            )]
            let timer = AsyncFd::with_interest(timer, Interest::READABLE)?;
            Ok(Self { timer, set: None })
        }

        pub(super) fn poll(&mut self, at: Instant, cx: &mut Context<'_>) -> io::Result<Poll<()>> {
            if self.set != Some(at) {
                let wait = at.saturating_duration_since(Instant::now());
                // Nothing at all would switch the timer off.
                let wait = wait.max(Duration::from_nanos(1));
                let value = Timespec::try_from(wait).map_err(|_| io::ErrorKind::InvalidInput)?;
                let once = Itimerspec { it_interval: Timespec::default(), it_value: value };
                timerfd_settime(self.timer.get_ref(), TimerfdTimerFlags::empty(), &once)?;
                self.set = Some(at);
            }
            loop {
                let Poll::Ready(guard) = self.timer.poll_read_ready(cx) else { return Ok(Poll::Pending) };
                let mut guard = guard?;
                let mut expirations = [0; 8];
                let read = rustix::io::read(self.timer.get_ref(), &mut expirations);
                // It went off once, or for an earlier setting: either way this readiness is used up.
                guard.clear_ready();
                match read {
                    Ok(_) => {
                        self.set = None;
                        return Ok(Poll::Ready(()));
                    }
                    Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod exact {
    use std::{
        io,
        task::{Context, Poll},
        time::Instant,
    };

    /// There is none here.
    #[derive(Debug)]
    pub(super) enum Exact {}

    impl Exact {
        pub(super) fn new() -> io::Result<Self> {
            Err(io::ErrorKind::Unsupported.into())
        }

        pub(super) fn poll(&mut self, _at: Instant, _cx: &mut Context<'_>) -> io::Result<Poll<()>> {
            match *self {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn it_never_goes_off_early_and_can_be_set_again_and_again() {
        let mut alarm = Alarm::new();
        for micros in [0, 50, 700, 1500, 20, 3000] {
            let at = Instant::now() + Duration::from_micros(micros);
            poll_fn(|cx| alarm.poll(at, cx)).await;
            assert!(Instant::now() >= at, "{micros}");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_alarm_that_was_moved_goes_off_for_the_later_time_only() {
        let mut alarm = Alarm::new();
        let (first, second) = (Duration::from_millis(5), Duration::from_millis(60));
        let start = Instant::now();
        let early = poll_fn(|cx| Poll::Ready(alarm.poll(start + first, cx).is_ready())).await;
        assert!(!early);
        // The first time passes before anybody looks.
        tokio::time::sleep(Duration::from_millis(20)).await;
        poll_fn(|cx| alarm.poll(start + second, cx)).await;
        assert!(start.elapsed() >= second);
        // And a time that has passed is now.
        poll_fn(|cx| alarm.poll(start, cx)).await;
    }
}
