//! Two real clusters, shared by the tests of a file.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError, Weak};
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

/// The clusters of a test file, and whose turn it is with them. A `static` in each file.
///
/// With two places, two tests run beside each other, each with clusters of its own: those that measure no time.
/// Clusters are started by the first test that needs them and stopped when no test holds or awaits a turn any more. A
/// test that fails leaves clusters in an unknown state behind: the next one gets new ones.
#[derive(Debug)]
pub struct Turns<C = Pair, const PLACES: usize = 1> {
    started: Mutex<Weak<Started<C, PLACES>>>,
    turns: [Mutex<()>; PLACES],
    next: AtomicUsize,
}

/// The clusters of each place, once a test was there.
type Started<C, const PLACES: usize> = [Mutex<Option<Arc<Shared<C>>>>; PLACES];

#[derive(Debug)]
struct Shared<C> {
    clusters: C,
    spoiled: AtomicBool,
}

/// A test's turn with the clusters.
#[derive(Debug)]
pub struct Turn<'a, C = Pair, const PLACES: usize = 1> {
    shared: Arc<Shared<C>>,
    _turn: MutexGuard<'a, ()>,
    _started: Arc<Started<C, PLACES>>,
}

impl<C: Clusters, const PLACES: usize> Turns<C, PLACES> {
    /// Nothing started yet.
    #[expect(clippy::new_without_default, reason = "it is for statics")]
    pub const fn new() -> Self {
        Self {
            started: Mutex::new(Weak::new()),
            turns: [const { Mutex::new(()) }; PLACES],
            next: AtomicUsize::new(0),
        }
    }

    /// Waits for this test's turn. `None`, said loudly, where there is no Kafka; see [`require_kafka`].
    pub fn take(&self, suite: &str) -> Option<Turn<'_, C, PLACES>> {
        let installation = require_kafka(suite)?;
        // Held while waiting, so that the clusters live on from one test to the next.
        let started = self.started();
        let (place, turn) = self.turn();
        let mut clusters = started[place].lock().unwrap_or_else(PoisonError::into_inner);
        let usable = clusters.take().filter(|shared| !shared.spoiled.load(Ordering::SeqCst));
        let shared = usable.unwrap_or_else(|| {
            Arc::new(Shared { clusters: C::start(&installation), spoiled: AtomicBool::new(false) })
        });
        *clusters = Some(Arc::clone(&shared));
        drop(clusters);
        Some(Turn { shared, _turn: turn, _started: started })
    }

    fn started(&self) -> Arc<Started<C, PLACES>> {
        let mut slot = self.started.lock().unwrap_or_else(PoisonError::into_inner);
        slot.upgrade().unwrap_or_else(|| {
            let started = Arc::new([const { Mutex::new(None) }; PLACES]);
            *slot = Arc::downgrade(&started);
            started
        })
    }

    /// A place that is free, or one that will be.
    fn turn(&self) -> (usize, MutexGuard<'_, ()>) {
        for (place, turn) in self.turns.iter().enumerate() {
            match turn.try_lock() {
                Ok(turn) => return (place, turn),
                Err(TryLockError::Poisoned(turn)) => return (place, turn.into_inner()),
                Err(TryLockError::WouldBlock) => {}
            }
        }
        let place = self.next.fetch_add(1, Ordering::SeqCst) % PLACES;
        (place, self.turns[place].lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<C, const PLACES: usize> std::ops::Deref for Turn<'_, C, PLACES> {
    type Target = C;

    fn deref(&self) -> &C {
        &self.shared.clusters
    }
}

impl<C, const PLACES: usize> Drop for Turn<'_, C, PLACES> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.shared.spoiled.store(true, Ordering::SeqCst);
        }
    }
}

/// How long an admin call may take.
pub(super) const CALL: Duration = Duration::from_secs(30);
