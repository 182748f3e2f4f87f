//! The exporter as one thing that is started, asked, and stopped.

mod view;

pub(crate) use view::View;

use std::{
    path::Path,
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use certs::{Identity, SpiffeId};
use link::Dialer;
use observe::{
    Audit, AuditError,
    admin::{self, Admin},
    audit,
    event::{Start, Stop as Stopped},
};
use settings::Watched;
use tokio::sync::{Notify, mpsc, watch};

use crate::{
    clerk,
    commit::Commit,
    config::Config,
    journal::Journal,
    lane::Shared,
    lanes::Lanes,
    metrics::Meters,
    partition::Cluster,
    reload::Reload,
    schemas::Schemas,
    session::{Parts, Session},
    source::{News, Source},
    status::Status,
    stop::Stop,
    topic_check,
};

/// Makes running exporters.
#[derive(Debug, Clone, Copy)]
pub struct Engine;

/// A running exporter. Dropping it kills it.
pub struct Handle {
    view: View,
    stop: Stop,
    leave: watch::Sender<bool>,
    session: tokio::task::JoinHandle<Vec<JoinHandle<()>>>,
    helpers: Vec<tokio::task::JoinHandle<()>>,
    threads: Vec<JoinHandle<()>>,
    /// Shared with each lane.
    alive: Arc<()>,
    commit: Commit,
    admin: Option<Admin>,
    /// Asks for a look at the identity's files.
    hurry: Arc<Notify>,
}

/// Why an exporter cannot start. Nothing is left running.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
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
    Audit(AuditError),
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

/// Nothing waits here until the log can be written.
impl From<AuditError> for Error {
    fn from(error: AuditError) -> Self {
        Self::Audit(error.at_start())
    }
}

impl Error {
    /// Whether what the operator wrote is wrong, and nothing was touched.
    pub fn is_of_configuration(&self) -> bool {
        matches!(self, Self::Importer(_) | Self::Config(_))
    }
}

impl Engine {
    /// Starts an exporter on the caller's tokio runtime. Neither the source cluster nor the importer needs to be up:
    /// both are tried until they are.
    ///
    /// # Errors
    /// What is wrong with the identity, the audit log, the endpoint's address or the Kafka properties.
    pub async fn start(config: Config) -> Result<Handle, Error> {
        let identity_files = Watched::before_reading(Identity::files(&config.tls.dir));
        let identity = identity(&config)?;
        let dialer = Arc::new(dialer(&config, &identity)?);
        let rules = config.topic_rules()?;
        let instance: Arc<str> =
            config.instance.clone().unwrap_or_else(|| instance(&config.audit.file)).into();
        let admin = match &config.admin {
            Some(admin) => Some(admin::bind(admin.listen).await?),
            None => None,
        };
        let (audit, journal) = open_audit(&config, &instance, &identity)?;
        let (meters, metrics) = Meters::new(&config.link);
        let (schemas, registry) = Schemas::new(&config.codec, Arc::clone(&meters.schemas))
            .map_err(|(key, what)| config.refuse(&key, what))?;
        let view = View {
            link: config.link.as_str().into(),
            instance,
            cluster: Cluster::default(),
            table: Arc::default(),
            holds: Arc::default(),
            facts: Arc::default(),
            meters,
            audit,
        };
        let (stop, alive) = (Stop::default(), Arc::new(()));
        let (tell, news) = mpsc::channel(MAX_NEWS);
        let (source, asks) = Source::new(
            &config,
            Arc::clone(&view.table),
            (view.cluster.clone(), tell.clone()),
            stop.clone(),
            rules,
        )?;
        let check = kafka::Admin::new(&client(&config, "check"))?;
        let (asker, checker) = topic_check::channel(check, move |topic, loss| {
            // Without a session there is nobody to be told; the next one finds out.
            let _ = tell.blocking_send(News::Lost(Arc::clone(topic), loss));
        });
        let admin = admin.map(|admin| admin.serve(view.endpoints(metrics)));
        let (clerk, items) = mpsc::channel(MAX_ITEMS);
        let commit = Commit::default();
        let group = group_positions(&config)?;
        let (clerk_audit, checker_stop) = (view.audit.clone(), stop.clone());
        let (clerk_stop, commit_stop, commits) = (stop.clone(), stop.clone(), commit.clone());
        let threads = vec![
            spawn("source", move || source.run())?,
            spawn("topic-check", move || checker.run(|| checker_stop.is_killed()))?,
            spawn("commit", move || commits.run(group, &commit_stop))?,
            spawn("clerk", move || clerk::run(&clerk_audit, items, &clerk_stop))?,
        ];
        let (leave, leaving) = watch::channel(false);
        let (events, lane_events) = mpsc::channel(MAX_LANE_EVENTS);
        let config = Arc::new(config);
        let shared = Shared {
            config: Arc::clone(&config),
            cluster: view.cluster.clone(),
            audit: view.audit.clone(),
            commit: commit.clone(),
            journal,
            asker,
            meters: Arc::clone(&view.meters),
            facts: Arc::clone(&view.facts),
            events,
            stop: stop.clone(),
            schemas,
            _alive: Arc::clone(&alive),
        };
        let lanes = Lanes::new(shared);
        let parts = Parts {
            view: view.clone(),
            config,
            dialer,
            asks,
            news,
            lane_events,
            clerk,
            lanes,
            leave: leaving,
        };
        let reload = Reload::new(&parts.config, (identity, identity_files), Arc::clone(&parts.dialer), &view);
        let session = tokio::spawn(Session::new(parts).run());
        let hurry = Arc::<Notify>::default();
        let mut helpers = vec![tokio::spawn(view.clone().tick()), tokio::spawn(reload.run(hurry.clone()))];
        helpers.extend(registry.map(|registry| tokio::spawn(registry.run())));
        Ok(Handle { view, stop, leave, session, helpers, threads, alive, commit, admin, hurry })
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

    /// Looks at once at the identity's files, whatever their times say.
    pub fn reload(&self) {
        self.hurry.notify_one();
    }

    /// Leaves in good order: reads nothing more, sends what was read, waits (10 s at most) until it is acknowledged,
    /// commits, says goodbye.
    pub async fn stop(mut self) {
        self.stop.stop();
        self.leave.send_replace(true);
        let lanes = (&mut self.session).await.unwrap_or_default();
        let mut joined = join(lanes, STOP_PATIENCE).await;
        self.commit.close();
        joined &= join(self.threads.drain(..).collect(), STOP_PATIENCE).await;
        self.stop.kill();
        if !joined {
            tracing::warn!("a thread still waits for the source cluster; it is left behind");
        }
        let audit = self.view.audit.clone();
        let recorded =
            tokio::task::spawn_blocking(move || audit.record(Stopped { reason: "told to stop".into() }))
                .await;
        if let Ok(Err(error)) = recorded {
            tracing::error!(%error, "the stop is not on record");
        }
        self.helpers.iter().for_each(tokio::task::JoinHandle::abort);
        if let Some(admin) = self.admin.take() {
            admin.shutdown().await;
        }
    }

    /// Drops everything at once, as a crash would: nothing is flushed, committed or said. Returns when its threads
    /// are gone, so that another exporter can take over its audit log.
    pub async fn kill(mut self) {
        self.stop.kill();
        self.session.abort();
        self.helpers.iter().for_each(tokio::task::JoinHandle::abort);
        let _ = (&mut self.session).await;
        self.commit.close();
        let until = Instant::now() + KILL_PATIENCE;
        // The lanes' threads went with the session: what they share tells when the last one is gone.
        while Arc::strong_count(&self.alive) > 1 && Instant::now() < until {
            tokio::time::sleep(JOIN_INTERVAL).await;
        }
        join(self.threads.drain(..).collect(), until.saturating_duration_since(Instant::now())).await;
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.stop.kill();
        self.commit.close();
        self.session.abort();
        self.helpers.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

/// Looks at the files that a configuration names, as a start would, and touches nothing.
///
/// # Errors
/// What is wrong with the identity in `[tls] dir`.
pub fn check(config: &Config) -> Result<(), Error> {
    dialer(config, &identity(config)?)?;
    Ok(audit::check(&config.audit.file)?)
}

/// An importer's would do for nothing here.
fn identity(config: &Config) -> Result<Identity, Error> {
    let identity = Identity::load_exporter(&config.tls.dir)
        .map_err(|error| config.refuse("tls.dir", error.to_string()))?;
    if identity.spiffe_id().to_string() == config.importer.identity {
        let what = "this is the exporter's own identity; write the importer's";
        return Err(config.refuse("importer.identity", what).into());
    }
    Ok(identity)
}

fn dialer(config: &Config, identity: &Identity) -> Result<Dialer, Error> {
    let importer: SpiffeId = config.importer.identity.parse()?;
    Ok(Dialer::new(identity, importer, config.importer.link_settings())?)
}

/// Settings of a Kafka client, which is named after the link and its part in it.
fn client(config: &Config, part: &str) -> kafka::Settings {
    config.kafka_settings().named(format!("longhaul-{}-{part}", config.link))
}

fn group_positions(config: &Config) -> Result<kafka::GroupPositions, kafka::Error> {
    kafka::GroupPositions::new(&client(config, "commit"), &config.group())
}

/// What a run of this configuration is recorded as.
fn start_line(config: &Config, instance: &str, identity: &Identity) -> Result<Start, settings::Error> {
    Ok(Start {
        program: "edge-exporter".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        instance: instance.into(),
        identity: identity.spiffe_id().to_string(),
        config: Some(audit::fingerprint(&settings::effective(config)?)),
    })
}

/// Opens the audit log; its first lines of this run are on record when this returns.
fn open_audit(config: &Config, instance: &str, identity: &Identity) -> Result<(Audit, Journal), Error> {
    let audit = Audit::open(&config.audit.file, audit::Options::default())?;
    audit.record(start_line(config, instance, identity)?)?;
    let (journal, pending) = Journal::open(&config.audit.file);
    audit.record_many(pending)?;
    journal.begin();
    Ok((audit, journal))
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name.into()).spawn(run)
}

/// Waits for threads without blocking the runtime. Says whether all ended in time.
async fn join(threads: Vec<JoinHandle<()>>, patience: Duration) -> bool {
    let until = Instant::now() + patience;
    while threads.iter().any(|thread| !thread.is_finished()) {
        if Instant::now() > until {
            return false;
        }
        tokio::time::sleep(JOIN_INTERVAL).await;
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

const MAX_NEWS: usize = 4096;
const MAX_ITEMS: usize = 256;
const MAX_LANE_EVENTS: usize = 1024;
/// How long threads may take to end after the session has.
const STOP_PATIENCE: Duration = Duration::from_secs(8);
const JOIN_INTERVAL: Duration = Duration::from_millis(5);
const KILL_PATIENCE: Duration = Duration::from_secs(2);
