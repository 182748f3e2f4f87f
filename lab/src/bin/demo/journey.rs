//! The run itself: engines, records, faults, and the reading back.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use longhaul_lab::checker::{Check, LiveHistory, Trail, group_offsets};
use longhaul_lab::deployment::Deployment;
use longhaul_lab::load::{self, LoadOptions, Loaded, create_topic, load};
use longhaul_lab::pace::Paced;
use longhaul_lab::relay::{Conditions, Counts, Relay};
use longhaul_lab::tail::{Delays, Tail};
use observe::audit::{Summary, verify};
use tokio::runtime::Runtime;

use crate::clusters::Clusters;
use crate::display::{Display, Progress};
use crate::result::{Carried, Outcome};
use crate::topics::Topic;

const LINK: &str = "demo";
const SEED: u64 = 1;
/// Records are produced over so much time, or over more where there are too many.
const PRODUCING: Duration = Duration::from_secs(16);
const CUT: Duration = Duration::from_secs(2);
const DOWN: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(100);
/// Without any record arriving for so long, what is missing is taken for lost.
const PATIENCE: Duration = Duration::from_secs(45);
/// IPv4 and UDP headers of a packet.
const HEADERS: u64 = 28;

/// Everything that a demo needs, started but for the engines.
pub(crate) struct Journey {
    clusters: Clusters,
    topics: Vec<Topic>,
    deployment: Deployment,
    folder: PathBuf,
    runtime: Runtime,
}

/// Both engines and what lies between them.
struct Link {
    exporter: edge_exporter::engine::Handle,
    importer: Option<cloud_importer::engine::Handle>,
    importer_config: PathBuf,
    relay: Relay,
}

/// A topic that is being produced.
struct Feeder {
    produced: Arc<AtomicU64>,
    thread: Option<JoinHandle<Result<Loaded, load::Error>>>,
    loaded: Option<Loaded>,
}

/// What was done to the link so far.
struct Faults {
    cut: bool,
    killed: bool,
}

impl Journey {
    /// Creates the topics on premise, certificates and configuration files.
    pub(crate) fn new(clusters: Clusters, topics: Vec<Topic>, folder: &Path) -> Result<Self> {
        for topic in &topics {
            create_topic(&clusters.source, &topic.name, topic.partitions, &[])
                .with_context(|| format!("cannot create {} on premise", topic.name))?;
        }
        let names = topics.iter().map(|topic| topic.name.clone()).collect();
        let deployment = Deployment::create(folder, LINK, names)?;
        let runtime = Runtime::new().context("cannot start threads")?;
        Ok(Self { clusters, topics, deployment, folder: folder.to_owned(), runtime })
    }

    /// Carries everything, then reads both clusters back.
    pub(crate) fn travel(self, display: &Display, faults: bool) -> Result<Outcome> {
        let mut link = self.open()?;
        let partitions: Vec<(String, i32)> =
            self.topics.iter().map(|topic| (topic.name.clone(), topic.partitions)).collect();
        let tail = Tail::start(&self.clusters.target, &partitions)?;
        let started = Instant::now();
        let mut feeders = self.feed()?;
        self.watch(&mut link, &mut feeders, &tail, display, faults)?;
        let took = started.elapsed();
        let held = held(&link.exporter.status());
        let Link { exporter, importer, relay, .. } = link;
        display.clear();
        display.event("both ends are stopped, both clusters are read back and compared");
        self.close(exporter, importer);
        let run = Run {
            produced: feeders.iter().map(|it| it.loaded.map_or(0, |it| it.visible)).collect(),
            delays: tail.stop().context("cannot follow the topics in the cloud")?,
            took,
            wire_bytes: wire_bytes(&relay),
            faults,
            held,
        };
        self.outcome(run)
    }

    fn open(&self) -> Result<Link> {
        let any_port: SocketAddr = ([127, 0, 0, 1], 0).into();
        let importer_config =
            self.deployment.write_importer(any_port, &self.clusters.target.bootstrap, None)?;
        let importer = self.start_importer(&importer_config)?;
        let relay = Relay::start(importer.local_addr(), Conditions::default(), SEED)
            .context("cannot open the link on loopback")?;
        let exporter =
            self.deployment.write_exporter(&self.clusters.source.bootstrap, relay.address(), None)?;
        let exporter = edge_exporter::config::Config::load(&exporter)?;
        let exporter = self.runtime.block_on(edge_exporter::engine::Engine::start(exporter))?;
        Ok(Link { exporter, importer: Some(importer), importer_config, relay })
    }

    fn start_importer(&self, config: &Path) -> Result<cloud_importer::engine::Handle> {
        let config = cloud_importer::config::Config::load(config)?;
        Ok(self.runtime.block_on(cloud_importer::engine::start(config))?)
    }

    fn feed(&self) -> Result<Vec<Feeder>> {
        let feeder = |topic: &Topic| {
            let produced = Arc::new(AtomicU64::new(0));
            let per_second = topic.records as f64 / PRODUCING.as_secs_f64();
            let records = Paced::new(topic.records()?, per_second, produced.clone());
            let (settings, name) = (self.clusters.source.clone(), topic.name.clone());
            let options = LoadOptions { at_once: at_once(per_second), ..LoadOptions::default() };
            let run = move || load(&settings, &name, records, &options);
            let thread = std::thread::Builder::new().name("feeder".to_owned()).spawn(run)?;
            Ok(Feeder { produced, thread: Some(thread), loaded: None })
        };
        self.topics.iter().map(feeder).collect()
    }

    /// Until everything arrived, or nothing does any more.
    fn watch(
        &self,
        link: &mut Link,
        feeders: &mut [Feeder],
        tail: &Tail,
        display: &Display,
        faults: bool,
    ) -> Result<()> {
        let total: u64 = self.topics.iter().map(|topic| topic.records).sum();
        let mut done = Faults { cut: !faults, killed: !faults };
        let mut last_arrival = (0, Instant::now());
        loop {
            std::thread::sleep(LOOK);
            let produced = feeders.iter().map(|feeder| feeder.produced.load(Ordering::Relaxed)).sum();
            let arrived = tail.seen_in_all();
            display.update(&Progress {
                arrived: (0..self.topics.len()).map(|topic| tail.seen(topic)).collect(),
                produced,
                total,
                wire_bytes: wire_bytes(&link.relay),
            });
            for feeder in feeders.iter_mut() {
                feeder.look()?;
            }
            if tail.has_ended() {
                break;
            }
            self.disturb(link, &mut done, produced as f64 / total as f64, display)?;
            if arrived > last_arrival.0 {
                last_arrival = (arrived, Instant::now());
            }
            let fed = feeders.iter().map(|feeder| feeder.loaded.map(|it| it.visible));
            if fed.sum::<Option<u64>>().is_some_and(|fed| arrived >= fed) && done.cut && done.killed {
                break;
            }
            if last_arrival.1.elapsed() > PATIENCE {
                display.event(&format!("nothing arrived for {} s: giving up", PATIENCE.as_secs()));
                break;
            }
        }
        Ok(())
    }

    /// Cuts the link when a third, kills the importer when two thirds of the records are produced.
    fn disturb(&self, link: &mut Link, done: &mut Faults, produced: f64, display: &Display) -> Result<()> {
        if !done.cut && produced >= 1.0 / 3.0 {
            done.cut = true;
            display.event(&format!("the link is cut for {} s", CUT.as_secs()));
            link.relay.cut(CUT);
        } else if !done.killed && produced >= 2.0 / 3.0 {
            done.killed = true;
            display.event("the importer is killed");
            if let Some(importer) = link.importer.take() {
                self.runtime.block_on(importer.kill());
            }
            std::thread::sleep(DOWN);
            let importer = self.start_importer(&link.importer_config)?;
            link.relay.set_target(importer.local_addr());
            link.importer = Some(importer);
            display.event("the importer is started again");
        }
        Ok(())
    }

    /// Stops both engines in good order, so that both audit logs are complete.
    fn close(
        &self,
        exporter: edge_exporter::engine::Handle,
        importer: Option<cloud_importer::engine::Handle>,
    ) {
        self.runtime.block_on(async {
            exporter.stop().await;
            if let Some(importer) = importer {
                importer.stop().await;
            }
        });
    }

    /// Reads both clusters and both audit logs back.
    fn outcome(&self, run: Run) -> Result<Outcome> {
        let names: Vec<&str> = self.deployment.topics().iter().map(String::as_str).collect();
        let audit = [self.deployment.edge_audit(), self.deployment.cloud_audit()];
        let check = Check {
            committed: group_offsets(&self.clusters.source, &self.deployment.group(), &names)?,
            edge: Some(Trail::read(&audit[0])?),
            cloud: Some(Trail::read(&audit[1])?),
            ..Check::of(&names)
        };
        let source = LiveHistory::new(self.clusters.source.clone());
        let target = LiveHistory::new(self.clusters.target.clone());
        let report = check.run(&source, &target).context("cannot read the clusters back")?;
        let [edge, cloud] = [verify(&audit[0])?, verify(&audit[1])?];
        let shares = shares(&names, &cloud, run.wire_bytes);
        let carried = run.produced.into_iter().zip(shares).zip(run.delays);
        let topics = carried
            .map(|((produced, wire_bytes), delays)| Carried { produced, wire_bytes, delays })
            .collect();
        Ok(Outcome {
            kafka: self.clusters.kind,
            topics,
            report,
            took: run.took,
            wire_bytes: run.wire_bytes,
            faults: run.faults,
            held: run.held,
            audit,
            audit_lines: edge.lines + cloud.lines,
            folder: self.folder.clone(),
        })
    }
}

/// What was seen while the records were carried.
struct Run {
    produced: Vec<u64>,
    delays: Vec<Delays>,
    took: Duration,
    wire_bytes: u64,
    faults: bool,
    held: Vec<String>,
}

impl Feeder {
    /// Takes note when it is done; an error is the demo's.
    fn look(&mut self) -> Result<()> {
        if self.thread.as_ref().is_some_and(JoinHandle::is_finished) {
            let thread = self.thread.take().expect("there is one");
            let loaded = thread.join().map_err(|_| anyhow!("producing on premise panicked"))?;
            self.loaded = Some(loaded.context("cannot produce on premise")?);
        }
        Ok(())
    }
}

/// Small enough that no record waits for others for more than some milliseconds.
fn at_once(per_second: f64) -> usize {
    ((per_second / 200.0) as usize).clamp(1, LoadOptions::default().at_once)
}

/// All that passed the link, both ways, with headers.
fn wire_bytes(relay: &Relay) -> u64 {
    let bytes = |counts: Counts| counts.passed_bytes + HEADERS * counts.passed;
    bytes(relay.up()) + bytes(relay.down())
}

/// What of `total` each topic took, by its share of the parcels that the importer has on record.
fn shares(names: &[&str], cloud: &Summary, total: u64) -> Vec<u64> {
    let of_topic = |name: &str| {
        let mine = cloud.delivered.iter().filter(|delivery| delivery.at.topic == name);
        mine.map(|delivery| delivery.wire_bytes).sum::<u64>()
    };
    let all: u64 = names.iter().map(|name| of_topic(name)).sum();
    let share = |part: u64| u128::from(total) * u128::from(part) / u128::from(all.max(1));
    names.iter().map(|name| u64::try_from(share(of_topic(name))).unwrap_or(total)).collect()
}

/// Partitions that wait for an operator, with the reason.
fn held(status: &edge_exporter::status::Status) -> Vec<String> {
    let held = status.partitions.iter().filter(|partition| partition.state != "flowing");
    held.map(|it| {
        let why = it.detail.as_deref().or(it.reason).unwrap_or(it.state);
        format!("{} [{}]: {why}", it.topic, it.partition)
    })
    .collect()
}
