//! Whether a topic is still the one that was read.
//!
//! Kafka's clients follow a topic by name: when it is deleted and made again under the same name, records of both
//! would be mixed. So nothing that was fetched is released before the topic's id was checked, in a check that *began
//! after the fetch*: had the topic been made again before the fetch, the check would see the new id.
//!
//! ```text
//! lane     fetch ──▶ close (moment r) ──▶ ask ─ ─ ─ ─ ─ ─ ─ ─ ─▶ verdict(r): released, as b > r
//! checker                                   began b ──▶ DescribeTopics ──▶ verified(b)
//! ```
//!
//! A check that fails or times out releases nothing; the data waits and the check is tried again.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use kafka::KafkaCode;
use proto::ids::TopicId;

use crate::partition::Topic;

/// A point on the process's own clock, comparable between threads. Never zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(u64);

impl Moment {
    pub(crate) fn now() -> Self {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        Self(u64::try_from(START.elapsed().as_nanos()).unwrap_or(u64::MAX).saturating_add(1))
    }
}

/// Whether a topic's name still stands for the incarnation that was read.
#[derive(Debug, Default)]
pub(crate) struct Standing {
    /// When the latest check began that found the incarnation in place; 0 before the first.
    verified: AtomicU64,
    /// A check is asked for and has not begun.
    wanted: AtomicBool,
    /// A [`Loss`], 0 for none.
    loss: AtomicU8,
}

/// What became of an incarnation that is not there any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loss {
    /// There is no topic of the name.
    Gone = 1,
    /// The name stands for another incarnation.
    Recreated = 2,
    /// The cluster does not let us see it.
    Unauthorized = 3,
    /// A link writes the topic in this cluster: it is in place, and not to be carried on.
    Mirrored = 4,
}

/// Whether something that was fetched may leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Not yet known.
    Wait,
    /// A check that began after the fetch found the topic in place.
    Released,
    /// It must never leave.
    Lost(Loss),
}

impl Standing {
    /// The verdict on what was fetched before `read`.
    pub(crate) fn verdict(&self, read: Moment) -> Verdict {
        match self.loss() {
            Some(loss) => Verdict::Lost(loss),
            None if self.verified.load(Ordering::Acquire) > read.0 => Verdict::Released,
            None => Verdict::Wait,
        }
    }

    /// What became of the incarnation, if it is not in place.
    pub(crate) fn loss(&self) -> Option<Loss> {
        match self.loss.load(Ordering::Acquire) {
            1 => Some(Loss::Gone),
            2 => Some(Loss::Recreated),
            3 => Some(Loss::Unauthorized),
            4 => Some(Loss::Mirrored),
            _ => None,
        }
    }

    /// A check that began at `began` found the incarnation in place.
    pub(crate) fn verify(&self, began: Moment) {
        self.verified.fetch_max(began.0, Ordering::AcqRel);
    }

    /// The incarnation is not in place. Says whether that is news.
    pub(crate) fn lose(&self, loss: Loss) -> bool {
        self.loss.swap(loss as u8, Ordering::AcqRel) != loss as u8
    }

    /// The incarnation is in place again: whoever asks for a position anew may go on.
    pub(crate) fn restore(&self) {
        self.loss.store(0, Ordering::Release);
    }
}

/// Asks for checks; shared by the lanes.
#[derive(Debug, Clone)]
pub(crate) struct Asker {
    requests: Sender<Arc<Topic>>,
}

impl Asker {
    /// Asks for a check of `topic` that has not begun yet. Cheap, and may be called again and again.
    pub(crate) fn ask(&self, topic: &Arc<Topic>) {
        if !topic.standing.wanted.swap(true, Ordering::AcqRel)
            && self.requests.try_send(Arc::clone(topic)).is_err()
        {
            // Full: whoever waits for the verdict asks again.
            topic.standing.wanted.store(false, Ordering::Release);
        }
    }
}

/// What answers checks: the cluster, or a test's.
pub(crate) trait Describe {
    /// The ids of topics, in the order asked for.
    fn ids(&self, names: &[&str]) -> Result<Vec<Result<TopicId, KafkaCode>>, kafka::Error>;
}

impl Describe for kafka::Admin {
    fn ids(&self, names: &[&str]) -> Result<Vec<Result<TopicId, KafkaCode>>, kafka::Error> {
        let topics = self.describe(names, TIMEOUT)?;
        Ok(topics.into_iter().map(|topic| topic.map(|topic| topic.id).map_err(|(_, code)| code)).collect())
    }
}

/// Makes the two ends of the check: lanes ask, one thread runs [`Checker::run`].
pub(crate) fn channel<D: Describe, F: Fn(&Arc<Topic>, Loss)>(cluster: D, lost: F) -> (Asker, Checker<D, F>) {
    let (requests, asked) = crossbeam_channel::bounded(MAX_REQUESTS);
    (Asker { requests }, Checker { cluster, asked, lost, pending: BTreeMap::new(), failing: false })
}

/// Runs the checks, back to back while any are asked for.
pub(crate) struct Checker<D, F> {
    cluster: D,
    asked: Receiver<Arc<Topic>>,
    /// Told of each loss, once.
    lost: F,
    /// What is to be checked, by topic id; with the first time that no topic of the name was found.
    pending: BTreeMap<TopicId, (Arc<Topic>, Option<Instant>)>,
    failing: bool,
}

impl<D: Describe, F: Fn(&Arc<Topic>, Loss)> Checker<D, F> {
    /// Checks until every [`Asker`] is gone or `stopped` says so.
    pub(crate) fn run(mut self, stopped: impl Fn() -> bool) {
        let mut next = Instant::now();
        while !stopped() {
            match self.asked.recv_timeout(if self.pending.is_empty() { IDLE } else { Duration::ZERO }) {
                Ok(topic) => self.add(topic),
                Err(RecvTimeoutError::Timeout) if self.pending.is_empty() => continue,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            // What is asked for meanwhile goes with this check.
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
            next = Instant::now() + if self.check() { INTERVAL } else { RETRY };
        }
    }

    fn add(&mut self, topic: Arc<Topic>) {
        self.pending.entry(topic.id).or_insert((topic, None));
    }

    /// One check of everything asked for. Says whether all of it is settled.
    fn check(&mut self) -> bool {
        while let Ok(topic) = self.asked.try_recv() {
            self.add(topic);
        }
        let topics: Vec<Arc<Topic>> = self.pending.values().map(|(topic, _)| Arc::clone(topic)).collect();
        for topic in &topics {
            topic.standing.wanted.store(false, Ordering::Release);
        }
        // Only now: what was fetched after `wanted` was cleared asks anew.
        let began = Moment::now();
        let names: Vec<&str> = topics.iter().map(|topic| &*topic.name).collect();
        let answers = match self.cluster.ids(&names) {
            Ok(answers) => answers,
            Err(error) => {
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::warn!(
                        %error,
                        "topic ids cannot be checked: what was read waits, nothing is sent until the source cluster answers"
                    );
                }
                return false;
            }
        };
        if std::mem::take(&mut self.failing) {
            tracing::info!("topic ids can be checked again");
        }
        for (topic, answer) in topics.iter().zip(answers) {
            self.judge(topic, answer, began);
        }
        self.pending.is_empty()
    }

    fn judge(&mut self, topic: &Arc<Topic>, answer: Result<TopicId, KafkaCode>, began: Moment) {
        let Some((_, missing)) = self.pending.get_mut(&topic.id) else { return };
        let loss = match answer {
            Ok(id) if id == topic.id => {
                topic.standing.verify(began);
                self.pending.remove(&topic.id);
                return;
            }
            Ok(_) => Loss::Recreated,
            Err(KafkaCode::TOPIC_AUTHORIZATION_FAILED) => Loss::Unauthorized,
            Err(KafkaCode::UNKNOWN_TOPIC_OR_PARTITION | KafkaCode::UNKNOWN_TOPIC_ID) => {
                // A broker that just came up may not know a topic yet.
                if missing.get_or_insert_with(Instant::now).elapsed() < MISSING_PATIENCE {
                    return;
                }
                Loss::Gone
            }
            Err(code) => {
                tracing::debug!(topic = %topic.name, %code, "the topic's id is not known yet");
                return;
            }
        };
        self.pending.remove(&topic.id);
        if topic.standing.lose(loss) {
            (self.lost)(topic, loss);
        }
    }
}

/// Least time from the end of one check to the next, so that an eager lane does not drown the cluster.
const INTERVAL: Duration = Duration::from_millis(20);
/// Time to the next check when one did not settle everything.
const RETRY: Duration = Duration::from_millis(200);
/// How long no topic of a name must be found before it counts as gone.
const MISSING_PATIENCE: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_secs(5);
const IDLE: Duration = Duration::from_millis(200);
/// Topics that wait for a check to begin; each topic asks once.
const MAX_REQUESTS: usize = 4096;

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, rc::Rc};

    use super::*;

    type Answers = Rc<RefCell<Vec<Result<Vec<Result<TopicId, KafkaCode>>, kafka::Error>>>>;

    struct Cluster {
        answers: Answers,
        during: Box<dyn Fn()>,
    }

    impl Describe for Cluster {
        fn ids(&self, _: &[&str]) -> Result<Vec<Result<TopicId, KafkaCode>>, kafka::Error> {
            (self.during)();
            self.answers.borrow_mut().remove(0)
        }
    }

    fn topic() -> Arc<Topic> {
        Arc::new(Topic::new("orders", TopicId([1; 16])))
    }

    fn timed_out() -> kafka::Error {
        kafka::Error::Timeout { what: "describe".into(), timeout: TIMEOUT }
    }

    #[test]
    fn what_was_fetched_before_the_check_began_is_released() {
        let topic = topic();
        let answers: Answers = Rc::new(RefCell::new(vec![Ok(vec![Ok(topic.id)])]));
        let (asker, mut checker) = channel(Cluster { answers, during: Box::new(|| ()) }, |_, _| ());
        let read = Moment::now();
        asker.ask(&topic);
        assert_eq!(topic.standing.verdict(read), Verdict::Wait);
        assert!(checker.check());
        assert_eq!(topic.standing.verdict(read), Verdict::Released);
    }

    #[test]
    fn a_batch_fetched_after_the_check_began_is_not_released_by_it() {
        let topic = topic();
        let answers: Answers = Rc::new(RefCell::new(vec![Ok(vec![Ok(topic.id)]), Ok(vec![Ok(topic.id)])]));
        let read: Rc<RefCell<Option<Moment>>> = Rc::default();
        let (during_read, during_topic) = (Rc::clone(&read), Arc::clone(&topic));
        let again: Rc<RefCell<Option<Asker>>> = Rc::default();
        let during_again = Rc::clone(&again);
        // The fetch happens while the cluster works on its answer.
        let during = Box::new(move || {
            if during_read.borrow().is_none() {
                *during_read.borrow_mut() = Some(Moment::now());
                if let Some(asker) = &*during_again.borrow() {
                    asker.ask(&during_topic);
                }
            }
        });
        let (asker, mut checker) = channel(Cluster { answers, during }, |_, _| ());
        *again.borrow_mut() = Some(asker.clone());
        asker.ask(&topic);
        assert!(checker.check());
        let read = read.borrow().unwrap();
        assert_eq!(topic.standing.verdict(read), Verdict::Wait, "the check began before the fetch");
        assert!(checker.check(), "it was asked for anew");
        assert_eq!(topic.standing.verdict(read), Verdict::Released);
    }

    #[test]
    fn a_check_that_fails_releases_nothing_and_is_tried_again() {
        let topic = topic();
        let answers: Answers = Rc::new(RefCell::new(vec![Err(timed_out()), Ok(vec![Ok(topic.id)])]));
        let (asker, mut checker) = channel(Cluster { answers, during: Box::new(|| ()) }, |_, _| ());
        let read = Moment::now();
        asker.ask(&topic);
        assert!(!checker.check());
        assert_eq!(topic.standing.verdict(read), Verdict::Wait);
        assert!(checker.check());
        assert_eq!(topic.standing.verdict(read), Verdict::Released);
    }

    #[test]
    fn another_id_loses_the_topic_at_once_and_says_so_once() {
        let topic = topic();
        let other = || Ok(vec![Ok(TopicId([2; 16]))]);
        let answers: Answers = Rc::new(RefCell::new(vec![other(), other()]));
        let told = RefCell::new(Vec::new());
        let cluster = Cluster { answers, during: Box::new(|| ()) };
        let (asker, mut checker) = channel(cluster, |_: &Arc<Topic>, loss| told.borrow_mut().push(loss));
        topic.standing.verify(Moment::now());
        let read = Moment::now();
        for _ in 0..2 {
            asker.ask(&topic);
            checker.check();
            assert_eq!(topic.standing.verdict(read), Verdict::Lost(Loss::Recreated));
        }
        assert_eq!(*told.borrow(), [Loss::Recreated]);
    }

    #[test]
    fn a_broker_that_does_not_know_a_topic_for_a_moment_does_not_lose_it() {
        let topic = topic();
        let unknown = Ok(vec![Err(KafkaCode::UNKNOWN_TOPIC_OR_PARTITION)]);
        let answers: Answers = Rc::new(RefCell::new(vec![unknown, Ok(vec![Ok(topic.id)])]));
        let cluster = Cluster { answers, during: Box::new(|| ()) };
        let (asker, mut checker) = channel(cluster, |_: &Arc<Topic>, loss| panic!("{loss:?}"));
        let read = Moment::now();
        asker.ask(&topic);
        assert!(!checker.check());
        assert_eq!(topic.standing.verdict(read), Verdict::Wait);
        assert!(checker.check());
        assert_eq!(topic.standing.verdict(read), Verdict::Released);
    }
}
