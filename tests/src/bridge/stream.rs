//! Records that keep coming while something else happens.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kafka::{ProducerOptions, TransactionalProducer};
use lab::generator::{TortureOptions, torture};
use lab::load::{LoadOptions, Loaded, Transactions, load};

use super::{PATIENCE, settings_at, wait_until};

/// Writes to a topic in the background until it is stopped.
#[derive(Debug)]
pub struct Stream {
    topic: String,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Loaded>>,
}

impl Stream {
    /// Writes torture records at about this rate; `options` say how.
    pub fn start(bootstrap: &str, topic: &str, per_second: u32, seed: u64, options: LoadOptions) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (settings, name, stopped) = (settings_at(bootstrap), topic.to_owned(), stop.clone());
        let thread = std::thread::spawn(move || {
            let started = Instant::now();
            let records = torture(seed, TortureOptions { large_one_in: 10_000, ..Default::default() });
            let paced = (0_u32..).zip(records).map_while(|(number, record)| {
                let due = started + Duration::from_secs(1) * number / per_second.max(1);
                // Short sleeps: a stop is noticed at once.
                while !stopped.load(Ordering::Relaxed) && Instant::now() < due {
                    std::thread::sleep(Duration::from_millis(5));
                }
                (!stopped.load(Ordering::Relaxed)).then_some(record)
            });
            load(&settings, &name, paced, &options).expect("the source takes records")
        });
        Self { topic: topic.to_owned(), stop, thread: Some(thread) }
    }

    /// Stops, and waits until everything is acknowledged.
    ///
    /// # Panics
    /// When writing failed.
    pub fn stop(mut self) -> Loaded {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("a stream is stopped once");
        thread.join().unwrap_or_else(|_| panic!("writing to {} failed", self.topic))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// In transactions of so many records, one in five written in vain first.
pub fn transactional(records: usize) -> LoadOptions {
    let transactions = Some(Transactions { records, abort_one_in: Some(5) });
    LoadOptions { transactions, ..LoadOptions::default() }
}

/// With this compression and without transactions.
pub fn compressed(codec: &str) -> LoadOptions {
    LoadOptions { compression: codec.to_owned(), ..LoadOptions::default() }
}

/// A producer of somebody else with a record in a transaction that it leaves open; the broker aborts it after `timeout`.
///
/// # Panics
/// When the cluster refuses.
pub fn open_transaction(
    bootstrap: &str,
    (topic, partition): (&str, i32),
    timeout: Duration,
) -> TransactionalProducer {
    let options = ProducerOptions { transaction_timeout: timeout, ..ProducerOptions::default() };
    let mut producer = TransactionalProducer::new(&settings_at(bootstrap), "somebody-else", options)
        .expect("a producer can be made");
    producer.init_transactions(PATIENCE).expect("the cluster has transactions");
    producer.begin().expect("a transaction begins");
    let topic = producer.topic(topic).expect("the topic is known");
    let (now, stray) = (lab::generator::now_ms(), Some(&b"stray"[..]));
    producer
        .produce(&topic, partition, now, stray, stray, std::iter::empty(), 1)
        .expect("the producer takes a record");
    let mut outcome = None;
    let told = wait_until(PATIENCE, || {
        producer.deliveries(Duration::from_millis(100), |delivery| outcome = Some(delivery.outcome));
        outcome.is_some()
    });
    assert!(told && matches!(outcome, Some(Ok(_))), "the stray record was not taken: {outcome:?}");
    producer
}
