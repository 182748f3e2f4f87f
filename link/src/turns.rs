//! Whose parcel goes next when a link is full.
//!
//! Start-time fair queueing over lanes: each has a weight, and of lanes that have something to send each gets the share
//! of its weight. Nobody starves, and who was idle takes its next turn at once but saves nothing up. The turn decides in
//! which order parcels enter the connection; inside, quinn serves streams that hold data packet by packet in turn.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::oneshot, time::sleep};

/// The turns of one connection.
#[derive(Debug, Clone, Default)]
pub(crate) struct Turns(Arc<Mutex<Order>>);

/// It is a lane's turn until this is dropped.
#[derive(Debug)]
pub(crate) struct Turn(Option<(Turns, u16)>);

#[derive(Debug, Default)]
struct Order {
    taken: bool,
    /// A lane whose turn is over and who has the next one as well, if it comes for it; which time that was.
    kept: Option<(u16, u64)>,
    clock: Clock,
    /// By start and then by arrival.
    waiting: BTreeMap<(u64, u64), (u16, oneshot::Sender<Turn>)>,
    /// Tells arrivals, and turns that were kept, apart.
    count: u64,
}

/// Virtual time: bytes sent at weight 1.
#[derive(Debug, Default)]
struct Clock {
    now: u64,
    /// When what each lane was let in with ends.
    ends: BTreeMap<u16, u64>,
}

impl Turns {
    /// Waits until `lane` may hand `bytes` over. Cancel-safe: a turn that nobody takes goes to the next.
    pub(crate) async fn wait(&self, lane: u16, weight: u16, bytes: u64) -> Turn {
        let waiting = {
            let mut order = self.lock();
            let start = order.clock.start(lane, weight, bytes);
            let kept = order.kept.take_if(|(keeper, _)| *keeper == lane).is_some();
            if kept || !order.taken {
                order.taken = true;
                order.clock.served(start);
                return Turn(Some((self.clone(), lane)));
            }
            let (sender, waiting) = oneshot::channel();
            order.count += 1;
            let arrival = order.count;
            order.waiting.insert((start, arrival), (lane, sender));
            waiting
        };
        waiting.await.expect("whoever ends a turn gives it to the next")
    }

    /// The turn of `lane` is over. When the next one is its own again, which it cannot wait for yet, it is kept for a
    /// moment: a lane of a great weight would else get no more than every other turn.
    fn end(&self, lane: u16) {
        let mut order = self.lock();
        let end = order.clock.ends.get(&lane).copied().unwrap_or(0);
        let first = order.waiting.first_key_value().map(|((start, _), _)| *start);
        let runtime = tokio::runtime::Handle::try_current();
        match (first, runtime) {
            (Some(start), Ok(runtime)) if end < start => {
                order.count += 1;
                let (turns, kept) = (self.clone(), (lane, order.count));
                order.kept = Some(kept);
                drop(order);
                runtime.spawn(async move {
                    sleep(KEPT).await;
                    let gone = turns.lock().kept.take_if(|now| *now == kept).is_some();
                    if gone {
                        turns.pass();
                    }
                });
            }
            _ => {
                drop(order);
                self.pass();
            }
        }
    }

    /// Gives the turn to who is next.
    fn pass(&self) {
        loop {
            let (lane, next) = {
                let mut order = self.lock();
                let Some(((start, _), next)) = order.waiting.pop_first() else {
                    order.taken = false;
                    return;
                };
                order.clock.served(start);
                next
            };
            match next.send(Turn(Some((self.clone(), lane)))) {
                Ok(()) => return,
                // It did not wait for it: the turn comes back, and is not passed on by itself as well.
                Err(mut back) => drop(back.0.take()),
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Order> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some((turns, lane)) = self.0.take() {
            turns.end(lane);
        }
    }
}

impl Clock {
    /// When what `lane` wants to send begins.
    fn start(&mut self, lane: u16, weight: u16, bytes: u64) -> u64 {
        let end = self.ends.entry(lane).or_default();
        let start = self.now.max(*end);
        *end = start.saturating_add(bytes.saturating_mul(UNIT) / u64::from(weight.max(1)));
        start
    }

    /// What began then is sent now.
    fn served(&mut self, start: u64) {
        self.now = self.now.max(start);
    }
}

/// How long a turn is kept for a lane that is on its way back.
const KEPT: Duration = Duration::from_millis(1);
/// So that a division by a weight loses nothing that matters.
const UNIT: u64 = 1 << 10;

#[cfg(test)]
mod tests {
    use std::{future::Future, pin::pin, task::Poll};

    use super::*;

    /// Lanes that always have a parcel of `bytes` waiting, for so many turns; gives what each sent.
    fn saturated(lanes: &[(u16, u64)], turns: usize) -> Vec<u64> {
        let (mut clock, mut sent) = (Clock::default(), vec![0; lanes.len()]);
        let mut starts: Vec<u64> = Vec::new();
        for (lane, (weight, bytes)) in (0..).zip(lanes) {
            starts.push(clock.start(lane, *weight, *bytes));
        }
        for _ in 0..turns {
            let next = (0..lanes.len()).min_by_key(|lane| starts[*lane]).unwrap();
            clock.served(starts[next]);
            let (weight, bytes) = lanes[next];
            sent[next] += bytes;
            starts[next] = clock.start(next as u16, weight, bytes);
        }
        sent
    }

    #[test]
    fn bytes_follow_the_weights_whatever_the_size_of_parcels() {
        for lanes in [
            vec![(1, 65_536), (1, 65_536), (1, 65_536)],
            vec![(1, 65_536), (4, 65_536), (10, 65_536)],
            vec![(1, 1_000_000), (3, 300), (2, 65_536), (100, 65_536)],
        ] {
            let sent = saturated(&lanes, 400_000);
            let (all, weights) =
                (sent.iter().sum::<u64>(), lanes.iter().map(|(w, _)| u64::from(*w)).sum::<u64>());
            for ((weight, _), sent) in lanes.iter().zip(&sent) {
                let due = all as f64 * f64::from(*weight) / weights as f64;
                assert!((0.98..1.02).contains(&(*sent as f64 / due)), "{lanes:?}: {sent} of {due}");
            }
        }
    }

    #[test]
    fn who_was_idle_is_next_and_has_saved_nothing_up() {
        let mut clock = Clock::default();
        for _ in 0..1000 {
            let start = clock.start(0, 1, 65_536);
            clock.served(start);
        }
        let (late, busy) = (clock.start(1, 1, 65_536), clock.start(0, 1, 65_536));
        assert!(late < busy, "it does not wait behind all that is before it");
        assert!(clock.start(1, 1, 65_536) >= busy, "and takes turns from then on");
    }

    #[test]
    fn nothing_overflows() {
        let mut clock = Clock::default();
        for weight in [0, 1, u16::MAX] {
            let start = clock.start(0, weight, u64::MAX);
            clock.served(start);
        }
    }

    #[tokio::test]
    async fn a_lane_of_a_great_weight_has_turns_in_a_row_and_one_that_does_not_come_back_blocks_nobody() {
        let turns = Turns::default();
        drop(turns.wait(1, 1, 1000).await);
        let mut heavy = turns.wait(0, 10, 1000).await;
        {
            let mut light = pin!(turns.wait(1, 1, 1000));
            assert!(poll(light.as_mut()).await.is_none());
            for _ in 0..9 {
                drop(heavy);
                assert!(poll(light.as_mut()).await.is_none());
                heavy = turns.wait(0, 10, 1000).await;
            }
            drop(heavy);
            drop(poll(light.as_mut()).await.expect("ten to one"));
        }
        let heavy = turns.wait(0, 10, 1000).await;
        let mut light = pin!(turns.wait(1, 1, 1000));
        assert!(poll(light.as_mut()).await.is_none());
        drop(heavy);
        drop(light.await);
    }

    #[tokio::test]
    async fn a_turn_that_nobody_takes_any_more_goes_to_the_next() {
        let turns = Turns::default();
        let first = turns.wait(0, 1, 10).await;
        let mut third = pin!(turns.wait(2, 1, 10));
        {
            let mut second = pin!(turns.wait(1, 1, 5));
            assert!(poll(second.as_mut()).await.is_none() && poll(third.as_mut()).await.is_none());
            drop(first);
            // The turn is on its way to the second, which is dropped with it.
        }
        drop(poll(third.as_mut()).await.expect("it is the third's turn"));
        drop(turns.wait(0, 1, 10).await);
    }

    #[tokio::test]
    async fn who_went_away_while_waiting_is_passed_over() {
        let turns = Turns::default();
        let first = turns.wait(0, 1, 10).await;
        drop(poll(pin!(turns.wait(1, 1, 5))).await);
        let mut third = pin!(turns.wait(2, 1, 10));
        assert!(poll(third.as_mut()).await.is_none());
        drop(first);
        assert!(poll(third.as_mut()).await.is_some());
    }

    async fn poll<F: Future>(mut future: std::pin::Pin<&mut F>) -> Option<F::Output> {
        std::future::poll_fn(|cx| {
            Poll::Ready(match future.as_mut().poll(cx) {
                Poll::Ready(output) => Some(output),
                Poll::Pending => None,
            })
        })
        .await
    }
}
