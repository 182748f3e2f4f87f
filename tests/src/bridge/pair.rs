//! Two real clusters, shared by the tests of a file.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use kafka::{Admin, Settings};
use lab::kafka::{Cluster, ClusterOptions, Installation, require_kafka};

/// What both clusters of a file are like.
pub trait Clusters: Send + Sync + Sized + 'static {
    /// Starts them.
    fn start(installation: &Installation) -> Self;
}

/// Source and target, one plain node each.
#[derive(Debug)]
pub struct Pair {
    /// On premise.
    pub source: Cluster,
    /// In the cloud.
    pub target: Cluster,
}

impl Clusters for Pair {
    fn start(installation: &Installation) -> Self {
        Self::with(installation, ClusterOptions::default(), ClusterOptions::default())
    }
}

impl Pair {
    /// Starts both at once.
    ///
    /// # Panics
    /// When one does not start.
    pub fn with(installation: &Installation, source: ClusterOptions, target: ClusterOptions) -> Self {
        std::thread::scope(|scope| {
            let source = scope.spawn(|| Cluster::start(installation, source));
            let target = Cluster::start(installation, target).expect("the target cluster starts");
            let source = source.join().expect("starting does not panic").expect("the source cluster starts");
            Self { source, target }
        })
    }

    /// An admin client of the source, by its plain listener.
    pub fn source_admin(&self) -> Admin {
        admin(&self.source)
    }

    /// An admin client of the target, by its plain listener.
    pub fn target_admin(&self) -> Admin {
        admin(&self.target)
    }
}

/// An admin client of a cluster, by its plain listener.
fn admin(cluster: &Cluster) -> Admin {
    Admin::new(&settings_at(&cluster.admin_bootstrap())).expect("an admin client can be made")
}

/// A client of the cluster at this address, without any security.
pub fn settings_at(bootstrap: &str) -> Settings {
    let client_id = "longhaul-tests".to_owned();
    Settings { bootstrap: bootstrap.to_owned(), properties: BTreeMap::new(), client_id }
}

/// The clusters of a test file, and whose turn it is. A `static` in each file.
///
/// They are started by the first test and stopped when no test holds or awaits its turn any more. A test that
/// fails leaves clusters in an unknown state behind: the next one gets new ones.
#[derive(Debug)]
pub struct Turns<C = Pair> {
    clusters: Mutex<Weak<Shared<C>>>,
    turn: Mutex<()>,
}

#[derive(Debug)]
struct Shared<C> {
    clusters: C,
    spoiled: AtomicBool,
}

/// A test's turn with the clusters.
#[derive(Debug)]
pub struct Turn<'a, C = Pair> {
    shared: Arc<Shared<C>>,
    _turn: MutexGuard<'a, ()>,
}

impl<C: Clusters> Turns<C> {
    /// Nothing started yet.
    #[expect(clippy::new_without_default, reason = "it is for statics")]
    pub const fn new() -> Self {
        Self { clusters: Mutex::new(Weak::new()), turn: Mutex::new(()) }
    }

    /// Waits for this test's turn. `None`, said loudly, where there is no Kafka; see [`require_kafka`].
    pub fn take(&self, suite: &str) -> Option<Turn<'_, C>> {
        let installation = require_kafka(suite)?;
        // Held while waiting, so that the clusters live on from one test to the next.
        let early = self.shared(&installation);
        let turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        drop(early);
        Some(Turn { shared: self.shared(&installation), _turn: turn })
    }

    fn shared(&self, installation: &Installation) -> Arc<Shared<C>> {
        let mut slot = self.clusters.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(shared) = slot.upgrade()
            && !shared.spoiled.load(Ordering::SeqCst)
        {
            return shared;
        }
        let shared = Arc::new(Shared { clusters: C::start(installation), spoiled: AtomicBool::new(false) });
        *slot = Arc::downgrade(&shared);
        shared
    }
}

impl<C> std::ops::Deref for Turn<'_, C> {
    type Target = C;

    fn deref(&self) -> &C {
        &self.shared.clusters
    }
}

impl<C> Drop for Turn<'_, C> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.shared.spoiled.store(true, Ordering::SeqCst);
        }
    }
}

/// How long an admin call may take.
pub(super) const CALL: Duration = Duration::from_secs(30);
