//! The importer as a whole: started, looked at, stopped.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::{Duration, Instant},
};

use certs::Identity;
use link::Listener;
use observe::{
    Audit, AuditError, admin, audit, event,
    metrics::{Flow, Metrics, Side},
};
use proto::{ids::Lane, policy::Policy};
use serde::Serialize;
use settings::Watched;
use tokio::{
    runtime::Handle as Runtime,
    sync::{Notify, watch},
    task::JoinHandle,
};

use crate::{
    board::{Board, LinkStatus},
    config::Config,
    lane::{Context, LaneHandle},
    links::LinkState,
    mailbox::Order,
    progress_topic,
    pulse::Pulse,
    refusals::{Limits, Line, Refusals},
    reload::Reload,
    session,
    target::{Claims, Obstacle},
};

/// What all sessions share.
pub(crate) struct Shared {
    /// Who may do what; whoever holds a grant looks again when it changes.
    pub(crate) policy: watch::Sender<Arc<Policy>>,
    pub(crate) links: BTreeMap<String, Arc<LinkState>>,
    pub(crate) audit: Audit,
    identity: RwLock<Arc<Identity>>,
    strangers: Mutex<Refusals>,
    admitted: Mutex<Refusals>,
    target: Pulse,
    /// Becomes true when the importer stops.
    pub(crate) stopping: watch::Sender<bool>,
    started: Instant,
}

impl Shared {
    /// Who the importer is, and whom it trusts.
    pub(crate) fn identity(&self) -> Arc<Identity> {
        Arc::clone(&self.identity.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn set_identity(&self, identity: Identity) {
        *self.identity.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(identity);
    }

    pub(crate) fn set_policy(&self, policy: Policy) {
        self.policy.send_replace(Arc::new(policy));
    }

    /// Puts on record that somebody was turned away, or only counts it when that happens too often.
    pub(crate) async fn refused(&self, refusal: event::Refuse) -> Result<(), String> {
        self.record_unless_flooded(&self.strangers, refusal).await
    }

    /// The same of what an admitted peer is not granted.
    pub(crate) async fn not_granted(&self, refusal: event::Refuse) -> Result<(), String> {
        self.record_unless_flooded(&self.admitted, refusal).await
    }

    async fn record_unless_flooded(
        &self,
        refusals: &Mutex<Refusals>,
        refusal: event::Refuse,
    ) -> Result<(), String> {
        if !lock(refusals).note(&refusal, Instant::now()) {
            return Ok(());
        }
        let remote = refusal.remote.as_deref().unwrap_or_default();
        let peer = refusal.peer.as_deref().unwrap_or_default();
        tracing::warn!(%remote, %peer, "refused: {}", refusal.reason);
        let recorded = session::record(&self.audit, refusal.clone().into()).await;
        if recorded.is_err() {
            lock(refusals).put_back(Line::single(refusal), Instant::now());
        }
        recorded
    }

    /// Refusals that were counted only are put on record as numbers, and what could not be written before is tried again.
    async fn sum_up_refusals(&self, unreported: u64) {
        lock(&self.strangers).note_unseen(unreported, Instant::now());
        for refusals in [&self.strangers, &self.admitted] {
            let lines = lock(refusals).due(Instant::now());
            self.record_lines(refusals, lines).await;
        }
    }

    /// The same when the importer stops: what was counted until now.
    async fn sum_up_the_last_refusals(&self) {
        for refusals in [&self.strangers, &self.admitted] {
            let lines = lock(refusals).last();
            self.record_lines(refusals, lines).await;
        }
    }

    async fn record_lines(&self, refusals: &Mutex<Refusals>, lines: Vec<Line>) {
        let mut broken = false;
        for line in lines {
            if !broken {
                let Err(error) = session::record(&self.audit, line.refusal.clone().into()).await else {
                    let remote = line.refusal.remote.as_deref().unwrap_or_default();
                    tracing::warn!(%remote, "refused: {}", line.refusal.reason);
                    continue;
                };
                tracing::debug!("{error}; tried again");
                broken = true;
            }
            lock(refusals).put_back(line, Instant::now());
        }
    }

    /// Monotonic time since the start.
    pub(crate) fn now(&self) -> Duration {
        self.started.elapsed()
    }
}

/// The importer as it is now.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// Its links.
    pub links: Vec<LinkStatus>,
    /// Whether the audit log can be written.
    pub audit_healthy: bool,
    /// Whether the target cluster answered when it was last asked, some seconds ago at most.
    pub cluster_answers: bool,
}

impl Status {
    fn stopped() -> Self {
        Self { links: Vec::new(), audit_healthy: true, cluster_answers: true }
    }
}

/// Why the importer could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// What the configuration names cannot be used.
    #[error(transparent)]
    Config(#[from] settings::Error),
    /// The audit log.
    #[error(transparent)]
    Audit(AuditError),
    /// The UDP port.
    #[error(transparent)]
    Link(#[from] link::Error),
    /// The Kafka client's settings.
    #[error(transparent)]
    Kafka(#[from] kafka::Error),
    /// The admin endpoint.
    #[error(transparent)]
    Admin(#[from] admin::AdminError),
    /// A thread.
    #[error("cannot start a lane's thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// Nothing waits here until the log can be written.
impl From<AuditError> for StartError {
    fn from(error: AuditError) -> Self {
        Self::Audit(error.at_start())
    }
}

/// A running importer. Dropping it without [`Handle::stop`] is a kill.
pub struct Handle {
    shared: Option<Arc<Shared>>,
    listener: Arc<Listener>,
    accepting: JoinHandle<()>,
    refreshing: JoinHandle<()>,
    reloading: JoinHandle<()>,
    /// Asks for a look at the files that are read again.
    hurry: Arc<Notify>,
    admin: Option<admin::Admin>,
    metrics: Arc<Metrics>,
    local_addr: SocketAddr,
}

/// Looks at the files that a configuration names, as a start would, and touches nothing.
///
/// # Errors
/// What is wrong with the identity in `[tls] dir`, or with an audit log that is there already.
pub fn check(config: &Config) -> Result<(), StartError> {
    identity(config)?;
    Ok(audit::check(&config.audit.file)?)
}

/// An exporter's would do for nothing here.
fn identity(config: &Config) -> Result<Identity, StartError> {
    let identity = Identity::load_importer(&config.tls.dir)
        .map_err(|error| config.refuse("tls.dir", error.to_string()))?;
    let own = identity.spiffe_id().to_string();
    if let Some(index) = config.links.iter().position(|link| link.identity == own) {
        let what = "this is the importer's own identity; write the exporter's";
        return Err(config.refuse(&format!("links[{index}].identity"), what).into());
    }
    Ok(identity)
}

/// Starts an importer on the current tokio runtime. It does not wait for brokers.
///
/// # Errors
/// What is wrong with certificates, audit log, ports or Kafka settings.
pub async fn start(config: Config) -> Result<Handle, StartError> {
    let identity_files = Watched::before_reading(Identity::files(&config.tls.dir));
    let identity = identity(&config)?;
    let audit = Audit::open(&config.audit.file, audit::Options::default())?;
    let instance = instance_name();
    let effective = settings::effective(&config).unwrap_or_default();
    let first = event::Start {
        program: "cloud-importer".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        instance: instance.to_string(),
        identity: identity.spiffe_id().to_string(),
        config: Some(audit::fingerprint(&effective)),
    };
    audit.record(first)?;
    let mut metrics = Metrics::new(Side::Importer);
    let flow = Flow::new(&mut metrics);
    let recycles =
        metrics.counter("producers_recycled", "Producers replaced after anything but a clean commit");
    let metrics = Arc::new(metrics);

    let lanes_most = config.links.iter().map(|link| link.lanes).max().unwrap_or(1);
    let link_settings = link::Settings { lanes: lanes_most, ..link::Settings::default() };
    let listener = Arc::new(Listener::bind(config.listen, &identity, link_settings).await?);
    let local_addr = listener.local_addr();
    let admin = match &config.admin {
        Some(admin) => Some(admin::bind(admin.listen).await?),
        None => None,
    };

    let target = Pulse::start(kafka::Admin::new(&config.kafka_settings("pulse"))?)?;
    let kafka_admin = Arc::new(kafka::Admin::new(&config.kafka_settings("admin"))?);
    let claims = Arc::new(Claims::default());
    let mut links = BTreeMap::new();
    for link in &config.links {
        let link = Arc::new(link.clone());
        let name: Arc<str> = link.name.as_str().into();
        let board = Arc::new(Board::new(name.clone(), flow.clone(), recycles.clone()));
        let mut lanes = Vec::new();
        for lane in 0..link.lanes {
            let context = Context {
                link: link.clone(),
                link_name: name.clone(),
                lane: proto::ids::Lane(lane),
                kafka: config.kafka_settings(&format!("{name}-{lane}")),
                transaction: config.transaction.clone(),
                planted: config.planted,
                admin: kafka_admin.clone(),
                audit: audit.clone(),
                board: board.clone(),
                claims: claims.clone(),
                instance: instance.clone(),
            };
            lanes.push(LaneHandle::start(context, Runtime::current())?);
        }
        links.insert(link.name.clone(), Arc::new(LinkState::new(link, board, lanes)));
    }
    let shared = Arc::new(Shared {
        policy: watch::Sender::new(Arc::new(config.policy())),
        links,
        audit: audit.clone(),
        identity: RwLock::new(Arc::new(identity)),
        strangers: Mutex::new(Refusals::new(Limits::STRANGERS)),
        admitted: Mutex::new(Refusals::new(Limits::ADMITTED)),
        target,
        stopping: watch::Sender::new(false),
        started: Instant::now(),
    });
    let admin = admin.map(|admin| admin.serve(endpoints(&shared, &metrics)));
    tracing::info!(listen = %local_addr, links = shared.links.len(), "cloud-importer is up");
    for link in shared.links.values() {
        let (link, admin) = (link.clone(), kafka_admin.clone());
        drop(tokio::task::spawn_blocking(move || prepare(&link, &admin)));
    }
    let accepting = tokio::spawn(accept(shared.clone(), listener.clone()));
    let refreshing = tokio::spawn(refresh(shared.clone(), listener.clone(), flow));
    let hurry = Arc::<Notify>::default();
    let reload = Reload::new(shared.clone(), listener.clone(), config, identity_files);
    let reloading = tokio::spawn(reload.run(hurry.clone()));
    let shared = Some(shared);
    Ok(Handle { shared, listener, accepting, refreshing, reloading, hurry, admin, metrics, local_addr })
}

impl Handle {
    /// Where exporters reach it.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// How it is now.
    pub fn status(&self) -> Status {
        self.shared.as_ref().map_or_else(Status::stopped, |shared| shared.status())
    }

    /// Its metrics as OpenMetrics text.
    pub fn metrics(&self) -> String {
        self.metrics.encode()
    }

    /// Looks at once at the files that are read again while it runs: certificates and grants.
    pub fn reload(&self) {
        self.hurry.notify_one();
    }

    /// Where its admin endpoint is.
    pub fn admin_addr(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(admin::Admin::local_addr)
    }

    /// Stops in good order: exporters are told, what was accepted is committed.
    pub async fn stop(mut self) {
        self.end(Order::Drain, "stopped").await;
    }

    /// Stops at once, as if the process had died: nothing is committed or told any more.
    pub async fn kill(mut self) {
        self.end(Order::Kill, "killed").await;
    }

    async fn end(&mut self, order: Order, reason: &str) {
        let Some(shared) = self.shared.take() else { return };
        self.accepting.abort();
        self.refreshing.abort();
        self.reloading.abort();
        if order == Order::Kill {
            self.listener.close().await;
        }
        shared.stopping.send_replace(true);
        for link in shared.links.values() {
            link.order(order);
        }
        // Sessions end by themselves now; they hold what is taken apart below.
        let patience = Instant::now() + SESSION_PATIENCE;
        while Arc::strong_count(&shared) > 1 && Instant::now() < patience {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let links: Vec<_> = shared.links.values().cloned().collect();
        let joined = tokio::task::spawn_blocking(move || links.iter().for_each(|link| link.join())).await;
        if joined.is_err() {
            tracing::error!("a lane could not be stopped");
        }
        self.listener.close().await;
        if order == Order::Drain {
            shared.sum_up_the_last_refusals().await;
            let stop = event::Stop { reason: reason.into() };
            if let Err(error) = session::record(&shared.audit, stop.into()).await {
                tracing::error!("{error}");
            }
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.take() {
            self.accepting.abort();
            self.refreshing.abort();
            self.reloading.abort();
            shared.stopping.send_replace(true);
            shared.links.values().for_each(|link| link.order(Order::Kill));
        }
    }
}

impl Shared {
    fn status(&self) -> Status {
        let links = self.links.values().map(|link| link.board.status()).collect();
        Status { links, audit_healthy: self.audit.healthy(), cluster_answers: self.target.is_felt() }
    }

    fn readiness(&self) -> admin::Readiness {
        let status = self.status();
        let ready = admin::Readiness::ready()
            .and(status.audit_healthy, "the audit log cannot be written")
            .and(status.cluster_answers, "the target cluster does not answer");
        status.links.iter().fold(ready, |ready, link| match link.trouble.iter().next() {
            None => ready,
            Some((lane, why)) => ready.and(false, format!("link {} lane {lane}: {why}", link.link)),
        })
    }
}

fn endpoints(shared: &Arc<Shared>, metrics: &Arc<Metrics>) -> admin::Endpoints {
    let (readiness, status) = (Arc::downgrade(shared), Arc::downgrade(shared));
    admin::Endpoints {
        metrics: metrics.clone(),
        readiness: Arc::new(move || {
            let stopped = || admin::Readiness::missing("the importer is stopping");
            readiness.upgrade().map_or_else(stopped, |shared| shared.readiness())
        }),
        status: Arc::new(move || {
            let status = status.upgrade().map(|shared| shared.status());
            serde_json::to_value(status).unwrap_or_default()
        }),
    }
}

/// Creates and verifies a link's own topics before its exporter comes, so that it need not wait for them. Every
/// take-over verifies them again.
fn prepare(link: &LinkState, admin: &kafka::Admin) {
    match progress_topic::verify(admin, &link.config) {
        Ok(()) => {}
        Err(Obstacle::Passing(why) | Obstacle::Hold(_, why)) => link.board.trouble(Lane(0), &why),
    }
}

async fn accept(shared: Arc<Shared>, listener: Arc<Listener>) {
    while let Some(accepted) = listener.accept().await {
        match accepted {
            Ok(connection) => drop(tokio::spawn(session::serve(shared.clone(), connection))),
            Err(refused) => {
                let refusal = event::Refuse {
                    remote: Some(refused.remote.to_string()),
                    reason: refused.reason,
                    ..event::Refuse::default()
                };
                if let Err(error) = shared.refused(refusal).await {
                    tracing::error!("{error}");
                }
            }
        }
    }
}

/// Every second: gauges, refusals that were only counted, and another try of an audit log that could not be written.
async fn refresh(shared: Arc<Shared>, listener: Arc<Listener>, flow: Flow) {
    let (mut unreported, mut was_healthy) = (0, true);
    let mut every_second = tokio::time::interval(Duration::from_secs(1));
    loop {
        every_second.tick().await;
        shared.links.values().for_each(|link| link.board.refresh());
        let seen = listener.unreported_refusals();
        shared.sum_up_refusals(seen - unreported).await;
        unreported = seen;
        let audit = shared.audit.clone();
        let probed = match audit.healthy() {
            true => Ok(()),
            false => tokio::task::spawn_blocking(move || audit.probe()).await.unwrap_or(Ok(())),
        };
        let healthy = shared.audit.healthy();
        match probed {
            Err(error) if was_healthy => {
                tracing::error!(
                    "{error}; nothing is written to the target until then; it is tried every second"
                );
            }
            Ok(()) if healthy && !was_healthy => {
                tracing::info!("the audit log can be written again: the importer goes on");
            }
            _ => {}
        }
        was_healthy = healthy;
        flow.audit_healthy.set(healthy.into());
    }
}

fn lock(refusals: &Mutex<Refusals>) -> std::sync::MutexGuard<'_, Refusals> {
    // Counts: whole at each step.
    refusals.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A name for this process that no other has: host, process id and start.
fn instance_name() -> Arc<str> {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_else(|_| "host".into());
    let start = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    format!("{}-{}-{}", host.trim(), std::process::id(), start.as_nanos()).into()
}

/// How long sessions may take to say goodbye.
const SESSION_PATIENCE: Duration = Duration::from_secs(2);
