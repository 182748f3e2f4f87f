//! One exporter and one importer between two clusters: what most tests need.

use std::time::{Duration, Instant};

use lab::checker::{self, Anomaly, Check, LiveHistory, Report, Trail, group_offsets};
use observe::event::Hold;

use super::pair::CALL;
use super::{Exporter, Ground, Importer, LinkSettings, PATIENCE, Pair, say, settings_at, wait_until};

/// How long after a commit its `delivered` line may come.
const RECORD_PATIENCE: Duration = Duration::from_secs(12);

/// Exporter and importer of one link. Not started yet when made.
pub struct Bridge<'a> {
    /// On premise.
    pub exporter: Exporter,
    /// In the cloud.
    pub importer: Importer,
    /// The clusters.
    pub pair: &'a Pair,
    /// The folder of the test; dropped last.
    pub ground: Ground,
}

/// A source partition that is not caught up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Behind {
    /// The source topic.
    pub topic: String,
    /// Its partition.
    pub partition: i32,
    /// The exporter's group offset, if it has one.
    pub committed: Option<i64>,
    /// The end that a read_committed reader sees.
    pub stable: i64,
}

impl<'a> Bridge<'a> {
    /// The bridge called `link`, which carries and is granted these topics.
    pub fn new(pair: &'a Pair, link: &str, topics: &[&str]) -> Self {
        let ground = Ground::new();
        let links = vec![LinkSettings::new(link, topics)];
        let importer = Importer::new(&ground, "importer", &pair.target.bootstrap(), links);
        let exporter = Exporter::new(&ground, link, &pair.source.bootstrap(), &importer.address(), topics);
        Self { exporter, importer, pair, ground }
    }

    /// Starts both.
    pub fn start(&mut self) {
        self.importer.start();
        self.exporter.start();
    }

    /// Partitions of these source topics whose end the exporter's group has not reached: what `kafka-consumer-groups`
    /// would show. It is above nothing that is not at the target, which the [check](Self::check) proves.
    pub fn behind(&self, topics: &[&str]) -> Vec<Behind> {
        behind(self.pair, &self.exporter.group(), topics)
    }

    /// Waits until everything that the source has of these topics is at the target, but for `held` partitions.
    ///
    /// # Panics
    /// When that takes longer than `patience`.
    pub fn wait_but_for(&self, topics: &[&str], held: &[(&str, i32)], patience: Duration) {
        let group = self.exporter.group();
        let started = Instant::now();
        loop {
            let mut left = behind(self.pair, &group, topics);
            left.retain(|it| !held.contains(&(it.topic.as_str(), it.partition)));
            if left.is_empty() {
                say(format_args!(
                    "{}: caught up after {:.1} s",
                    self.exporter.link,
                    started.elapsed().as_secs_f64()
                ));
                return;
            }
            assert!(
                started.elapsed() < patience,
                "after {} s still behind: {left:?}; held: {:?}, {:?}",
                patience.as_secs(),
                self.exporter.journal().held(),
                self.importer.journal().held(),
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Waits until everything that the source has of these topics is at the target.
    ///
    /// # Panics
    /// When that takes longer than `patience`.
    pub fn wait(&self, topics: &[&str], patience: Duration) {
        self.wait_but_for(topics, &[], patience);
    }

    /// Waits until one of the audit logs holds the partition for one of these reasons; its words must contain `words`.
    ///
    /// # Panics
    /// When that takes longer than [`PATIENCE`], or a word is missing.
    pub fn await_hold(&self, (topic, partition): (&str, i32), reasons: &[&str], words: &[&str]) -> Hold {
        let started = Instant::now();
        let find = || {
            let logs = [self.importer.journal(), self.exporter.journal()];
            let last = logs.iter().filter_map(|log| log.hold_of(topic, partition).cloned());
            last.rev().find(|hold| reasons.contains(&hold.reason.as_str()))
        };
        let mut found = None;
        let held = wait_until(PATIENCE, || {
            found = find();
            found.is_some()
        });
        let logs = (self.importer.journal().held(), self.exporter.journal().held());
        assert!(held, "{topic} [{partition}] is not held for any of {reasons:?}; held are {logs:?}");
        let hold = found.expect("it was just found");
        say(format_args!("{} after {:.1} s: {}", hold.reason, started.elapsed().as_secs_f64(), hold.detail));
        for word in words {
            assert!(hold.detail.contains(word), "{word:?} is not in {:?}", hold.detail);
        }
        hold
    }

    /// Compares topics that keep their names.
    pub fn check(&self, topics: &[&str]) -> Report {
        self.run_check(Check::of(topics))
    }

    /// Compares what `check` says; see [`check_of`].
    ///
    /// # Panics
    /// When something cannot be read.
    pub fn run_check(&self, check: Check) -> Report {
        let until = Instant::now() + RECORD_PATIENCE;
        loop {
            let report = check_of(self.pair, &self.exporter, &self.importer, check.clone());
            // Each end writes its lines every few seconds: what only one of them has on record may be on its way.
            if report.count(Anomaly::Digest) == 0 || Instant::now() > until {
                return report;
            }
            std::thread::sleep(Duration::from_millis(500));
        }
    }

    /// Zeros all over, and both audit chains whole.
    ///
    /// # Panics
    /// With the report when something is wrong.
    pub fn assert_exact(&self, topics: &[&str]) -> Report {
        // Both put what was delivered on record a few seconds later; a difference that stays is found below.
        let _ = wait_until(RECORD_PATIENCE, || self.is_on_record(topics));
        let report = self.check(topics);
        assert!(report.is_clean(), "the copy is not exact:\n{report}");
        self.assert_chains();
        report
    }

    /// The importer's audit log is as far as the exporter's group.
    fn is_on_record(&self, topics: &[&str]) -> bool {
        let source = settings_at(&self.pair.source.admin_bootstrap());
        let Ok(committed) = group_offsets(&source, &self.exporter.group(), topics) else { return false };
        let logs = [self.exporter.audit_file(), self.importer.audit_file()].map(Trail::read);
        let mut logs = logs.iter().flatten();
        logs.all(|log| committed.iter().all(|(at, offset)| log.delivered_to(at).unwrap_or(0) >= *offset))
    }

    /// Both audit chains are whole.
    ///
    /// # Panics
    /// At the first line that is not.
    pub fn assert_chains(&self) {
        for file in [self.exporter.audit_file(), self.importer.audit_file()] {
            if let Err(broken) = observe::audit::verify(file) {
                panic!("{} is broken: {broken}", file.display());
            }
        }
    }

    /// [`wait`](Self::wait), then [`assert_exact`](Self::assert_exact).
    ///
    /// # Panics
    /// As those.
    pub fn settle(&self, topics: &[&str], patience: Duration) -> Report {
        self.wait(topics, patience);
        self.assert_exact(topics)
    }
}

/// Compares what `check` says, with the group offsets and audit logs as they are now; see [`check_copy`].
///
/// # Panics
/// When something cannot be read.
pub fn check_of(pair: &Pair, exporter: &Exporter, importer: &Importer, mut check: Check) -> Report {
    check.edge = Some(Trail::read(exporter.audit_file()).expect("the exporter's audit log is readable"));
    check.cloud = Some(Trail::read(importer.audit_file()).expect("the importer's audit log is readable"));
    check_copy(pair, exporter, check)
}

/// Compares what `check` says, with the group offsets as they are now. Topics at the target that are none of this link's
/// are not its business: those whose name does not begin as the link's does.
///
/// # Panics
/// When something cannot be read.
pub fn check_copy(pair: &Pair, exporter: &Exporter, mut check: Check) -> Report {
    let sources: Vec<&str> = check.pairs.iter().map(|pair| pair.source.as_str()).collect();
    let source = pair.source.admin_bootstrap();
    check.committed = group_offsets(&settings_at(&source), &exporter.group(), &sources)
        .expect("the source tells group offsets");
    let target = LiveHistory::at(&pair.target.admin_bootstrap());
    let names = checker::History::topics(&target).expect("the target lists its topics");
    let mine = namespace(&exporter.link);
    check.others_at_target.extend(names.into_iter().filter(|name| namespace(name) != mine));
    check.run(&LiveHistory::at(&source), &target).expect("both clusters can be read")
}

/// Names of one test begin with its link's name; the rest follows a dot.
fn namespace(name: &str) -> &str {
    name.split('.').next().unwrap_or_default()
}

/// Partitions of these topics whose end the group has not reached.
pub fn behind(pair: &Pair, group: &str, topics: &[&str]) -> Vec<Behind> {
    let (admin, source) = (pair.source_admin(), settings_at(&pair.source.admin_bootstrap()));
    // A source that is down tells nothing; whoever waits asks again.
    let unknown =
        |topic: &str| Behind { topic: topic.to_owned(), partition: -1, committed: None, stable: -1 };
    let Ok(committed) = group_offsets(&source, group, topics) else {
        return topics.iter().map(|it| unknown(it)).collect();
    };
    let Ok(known) = admin.topics(CALL) else { return topics.iter().map(|it| unknown(it)).collect() };
    let mut behind = Vec::new();
    for &topic in topics {
        let count = known.iter().find(|it| it.name == topic).map_or(0, |it| it.partitions);
        let partitions: Vec<i32> = (0..count).collect();
        let Ok(ends) = admin.ends(topic, &partitions, CALL) else {
            behind.push(unknown(topic));
            continue;
        };
        for (partition, ends) in partitions.into_iter().zip(ends) {
            let at = committed.get(&(topic.to_owned(), partition)).copied();
            if at.unwrap_or(ends.low) < ends.lso {
                behind.push(Behind { topic: topic.to_owned(), partition, committed: at, stable: ends.lso });
            }
        }
    }
    behind
}
