//! The exporter as one thing that is started, asked, and stopped.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

use certs::{Identity, SpiffeId};
use link::Dialer;
use observe::{
    Audit, AuditError,
    admin::{self, Admin, Endpoints, Readiness},
    audit,
    event::{Start, Stop as Stopped},
};
use tokio::sync::{mpsc, watch};

use crate::{
    clerk,
    config::Config,
    holds::Holds,
    lane::Shared,
    lanes::Lanes,
    metrics::Meters,
    partition::Table,
    session::{Parts, Session},
    source::{News, Source},
    status::{LinkFacts, PartitionStatus, Status},
    stop::Stop,
    topic_check,
};

/// Makes running exporters.
#[derive(Debug, Clone, Copy)]
pub struct Engine;

/// A running exporter. Dropping it kills it.
pub struct Handle {
    view: View,
    audit: Audit,
    stop: Stop,
    leave: watch::Sender<bool>,
    session: tokio::task::JoinHandle<Vec<JoinHandle<()>>>,
    ticker: tokio::task::JoinHandle<()>,
    threads: Vec<JoinHandle<()>>,
    admin: Option<Admin>,
}

/// Why an exporter cannot start. Nothing is left running.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The identity in `[tls] dir` cannot be used.
    #[error("[tls] dir {}: {source}", dir.display())]
    Identity {
        /// The folder.
        dir: PathBuf,
        /// What is wrong.
        source: certs::Error,
    },
    /// `[importer] identity` is not a SPIFFE id.
    #[error("[importer] identity: {0}")]
    Importer(#[from] certs::InvalidSpiffeId),
    /// The link cannot be set up.
    #[error("the link cannot be set up: {0}")]
    Link(#[from] link::Error),
    /// The configuration does not hold.
    #[error(transparent)]
    Config(#[from] settings::Error),
    /// The audit log cannot be opened or written: nothing is done that cannot be put on record.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// The Kafka client refuses its configuration.
    #[error("[kafka]: {0}")]
    Kafka(#[from] kafka::Error),
    /// The HTTP endpoint cannot listen.
    #[error(transparent)]
    Admin(#[from] admin::AdminError),
    /// The operating system gives no thread.
    #[error("a thread cannot be started: {0}")]
    Thread(#[from] std::io::Error),
}

/// What can be asked at any time.
#[derive(Clone)]
struct View {
    link: Arc<str>,
    instance: Arc<str>,
    table: Arc<Table>,
    holds: Arc<Mutex<Holds>>,
    facts: Arc<LinkFacts>,
    meters: Arc<Meters>,
    cluster: watch::Receiver<Option<Arc<str>>>,
    audit: Audit,
}

impl Engine {
    /// Starts an exporter on the caller's tokio runtime. Neither the source cluster nor the importer needs to be up:
    /// both are tried until they are.
    ///
    /// # Errors
    /// What is wrong with the identity, the audit log, the endpoint's address or the Kafka properties.
    pub async fn start(config: Config) -> Result<Handle, Error> {
        let identity = Identity::load(&config.tls.dir)
            .map_err(|source| Error::Identity { dir: config.tls.dir.clone(), source })?;
        let importer: SpiffeId = config.importer.identity.parse()?;
        let rate = config.importer.rate.map(settings::Rate::bits_per_second);
        let link_settings = link::Settings { rate, ..link::Settings::default() };
        let dialer = Dialer::new(&identity, importer, link_settings)?;
        let rules = config.topic_rules()?;
        let instance: Arc<str> =
            config.instance.clone().unwrap_or_else(|| instance(&config.audit.file)).into();
        let audit = Audit::open(&config.audit.file, audit::Options::default())?;
        audit.record(Start {
            program: "edge-exporter".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            instance: instance.to_string(),
            identity: identity.spiffe_id().to_string(),
            config: Some(blake3::hash(settings::effective(&config)?.as_bytes()).to_hex().to_string()),
        })?;

        let config = Arc::new(config);
        let (stop, table) = (Stop::default(), Arc::<Table>::default());
        let (meters, metrics) = Meters::new(&config.link);
        let (tell, news) = mpsc::channel(MAX_NEWS);
        let (source, asks) = Source::new(&config, Arc::clone(&table), tell.clone(), stop.clone(), rules)?;
        let check_settings = config.kafka_settings().named(format!("longhaul-{}-check", config.link));
        let (asker, checker) =
            topic_check::channel(kafka::Admin::new(&check_settings)?, move |topic, loss| {
                // Without a session there is nobody to be told; the next one finds out.
                let _ = tell.blocking_send(News::Lost(Arc::clone(topic), loss));
            });
        let (clerk, items) = mpsc::channel(MAX_ITEMS);
        let (leave, leaving) = watch::channel(false);
        let (cluster_told, cluster) = watch::channel(None);
        let view = View {
            link: config.link.as_str().into(),
            instance: Arc::clone(&instance),
            table: Arc::clone(&table),
            holds: Arc::default(),
            facts: Arc::default(),
            meters: Arc::clone(&meters),
            cluster,
            audit: audit.clone(),
        };
        let admin = match &config.admin {
            Some(settings) => Some(admin::serve(settings.listen, view.endpoints(metrics)).await?),
            None => None,
        };

        let (checker_stop, clerk_audit, clerk_stop) = (stop.clone(), audit.clone(), stop.clone());
        let threads = vec![
            spawn("source", move || source.run())?,
            spawn("topic-check", move || checker.run(|| checker_stop.is_killed()))?,
            spawn("clerk", move || clerk::run(&clerk_audit, items, &clerk_stop))?,
        ];
        let (lane_tell, lane_events) = mpsc::channel(MAX_LANE_EVENTS);
        let waiting = Waiting {
            news,
            cluster_told,
            leave: leaving,
            make: {
                let (view, audit, stop) = (view.clone(), audit.clone(), stop.clone());
                Box::new(move |cluster, news, leave| {
                    let shared = Shared {
                        config: Arc::clone(&config),
                        cluster: Arc::clone(&cluster),
                        audit,
                        asker,
                        meters: Arc::clone(&meters),
                        events: lane_tell,
                        stop,
                    };
                    Session::new(Parts {
                        config,
                        instance,
                        dialer,
                        table,
                        holds: view.holds,
                        facts: view.facts,
                        meters,
                        asks,
                        news,
                        lane_events,
                        clerk,
                        cluster,
                        lanes: Lanes::new(shared),
                        leave,
                    })
                })
            },
        };
        let session = tokio::spawn(waiting.run());
        let ticker = tokio::spawn(view.clone().tick());
        Ok(Handle { view, audit, stop, leave, session, ticker, threads, admin })
    }
}

impl Handle {
    /// The exporter right now.
    pub fn status(&self) -> Status {
        self.view.status()
    }

    /// Where the HTTP endpoint listens, if there is one.
    pub fn admin_address(&self) -> Option<std::net::SocketAddr> {
        self.admin.as_ref().map(Admin::local_addr)
    }

    /// Leaves in good order: reads nothing more, sends what was read, waits (10 s at most) until it is acknowledged,
    /// commits, says goodbye.
    pub async fn stop(mut self) {
        self.stop.stop();
        self.leave.send_replace(true);
        let lanes = (&mut self.session).await.unwrap_or_default();
        let threads: Vec<_> = lanes.into_iter().chain(self.threads.drain(..)).collect();
        let joined = join(threads, STOP_PATIENCE).await;
        self.stop.kill();
        if !joined {
            tracing::warn!("a thread still waits for the source cluster; it is left behind");
        }
        let audit = self.audit.clone();
        let recorded =
            tokio::task::spawn_blocking(move || audit.record(Stopped { reason: "told to stop".into() }))
                .await;
        if let Ok(Err(error)) = recorded {
            tracing::error!(%error, "the stop is not on record");
        }
        self.ticker.abort();
        if let Some(admin) = self.admin.take() {
            admin.shutdown().await;
        }
    }

    /// Drops everything at once, as a crash would: nothing is flushed, committed or said. Returns when its threads
    /// are gone, so that another exporter can take over its audit log.
    pub async fn kill(mut self) {
        self.stop.kill();
        self.session.abort();
        self.ticker.abort();
        let _ = (&mut self.session).await;
        let threads = self.threads.drain(..).collect();
        join(threads, KILL_PATIENCE).await;
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.stop.kill();
        self.session.abort();
        self.ticker.abort();
    }
}

impl View {
    fn status(&self) -> Status {
        let holds = self.holds.lock().unwrap_or_else(PoisonError::into_inner);
        let partitions = PartitionStatus::all(&self.table, &holds, &self.meters);
        let path = self.facts.path();
        Status {
            link: self.link.to_string(),
            instance: self.instance.to_string(),
            cluster: self.cluster.borrow().as_ref().map(ToString::to_string),
            session: self.facts.session().map(|session| session.0),
            importer: self.facts.importer(),
            sessions: self.facts.sessions(),
            last_failure: self.facts.last_failure(),
            rtt_seconds: path.rtt.map(|rtt| rtt.as_secs_f64()),
            wire_bytes: path.wire_bytes,
            lost_packets: path.lost_packets,
            records: partitions.iter().map(|partition| partition.records).sum(),
            plain_bytes: partitions.iter().map(|partition| partition.plain_bytes).sum(),
            lag_records: partitions.iter().map(|partition| partition.lag_records).sum(),
            lag_seconds: partitions.iter().map(|partition| partition.lag_seconds).fold(0.0, f64::max),
            audit_healthy: self.audit.healthy(),
            partitions,
        }
    }

    fn endpoints(&self, metrics: Arc<observe::metrics::Metrics>) -> Endpoints {
        let (ready, status) = (self.clone(), self.clone());
        Endpoints {
            metrics,
            readiness: Arc::new(move || {
                Readiness::ready()
                    .and(ready.cluster.borrow().is_some(), "the source cluster was not reached yet")
                    .and(ready.facts.session().is_some(), "no session with the importer")
                    .and(ready.audit.healthy(), "the audit log cannot be written")
            }),
            status: Arc::new(move || serde_json::to_value(status.status()).unwrap_or_default()),
        }
    }

    /// Keeps numbers up to date, and tries an audit log again that could not be written.
    async fn tick(self) {
        let mut every = tokio::time::interval(TICK);
        loop {
            every.tick().await;
            self.meters.refresh(&self.table, &self.facts, self.audit.healthy());
            if !self.audit.healthy() {
                let audit = self.audit.clone();
                // Its failure shows as a log that stays unhealthy.
                let _ = tokio::task::spawn_blocking(move || audit.probe()).await;
            }
        }
    }
}

/// The session before the source cluster has told its id.
struct Waiting<F> {
    news: mpsc::Receiver<News>,
    cluster_told: watch::Sender<Option<Arc<str>>>,
    leave: watch::Receiver<bool>,
    make: Box<F>,
}

impl<F> Waiting<F>
where
    F: FnOnce(Arc<str>, mpsc::Receiver<News>, watch::Receiver<bool>) -> Session,
{
    async fn run(self) -> Vec<JoinHandle<()>> {
        let Self { mut news, cluster_told, mut leave, make } = self;
        loop {
            let told = tokio::select! {
                told = news.recv() => told,
                _ = leave.wait_for(|leave| *leave) => None,
            };
            match told {
                Some(News::Cluster(id)) => {
                    tracing::info!(cluster = %id, "the source cluster answers");
                    cluster_told.send_replace(Some(Arc::clone(&id)));
                    return make(id, news, leave).run().await;
                }
                Some(_) => {}
                None => return Vec::new(),
            }
        }
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name.into()).spawn(run)
}

/// Waits for threads without blocking the runtime. Says whether all ended in time.
async fn join(threads: Vec<JoinHandle<()>>, patience: Duration) -> bool {
    let until = std::time::Instant::now() + patience;
    while threads.iter().any(|thread| !thread.is_finished()) {
        if std::time::Instant::now() > until {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for thread in threads {
        if thread.join().is_err() {
            tracing::error!("a thread of the exporter panicked");
        }
    }
    true
}

/// The name of this exporter, the same after a restart: then the importer lets it in at once in place of the run
/// before, which may have died without a word. The audit log is in the name because one process at a time can hold it.
fn instance(audit: &Path) -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_else(|_| "localhost".into());
    let audit = std::path::absolute(audit).unwrap_or_else(|_| audit.into());
    format!("{}:{}", host.trim(), audit.display())
}

const TICK: Duration = Duration::from_secs(1);
const MAX_NEWS: usize = 4096;
const MAX_ITEMS: usize = 256;
const MAX_LANE_EVENTS: usize = 1024;
/// How long threads may take to end after the session has.
const STOP_PATIENCE: Duration = Duration::from_secs(8);
const KILL_PATIENCE: Duration = Duration::from_secs(2);
