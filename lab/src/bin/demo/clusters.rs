//! The two clusters between which is carried.

use anyhow::{Context as _, Result};
use kafka::Settings;
use longhaul_lab::embedded::EmbeddedCluster;
use longhaul_lab::kafka::{Cluster, ClusterOptions, Installation};

use crate::Kind;

/// On premise and in the cloud; gone when dropped.
pub(crate) struct Clusters {
    pub(crate) kind: Kind,
    pub(crate) source: Settings,
    pub(crate) target: Settings,
    /// What keeps them up.
    _running: Box<dyn std::any::Any>,
}

impl Clusters {
    /// Starts both and waits until they answer.
    pub(crate) fn start(kind: Kind) -> Result<Self> {
        let (source, target, running): (_, _, Box<dyn std::any::Any>) = match kind {
            Kind::Embedded => {
                let source = EmbeddedCluster::start("on-premise")?;
                let target = EmbeddedCluster::start("cloud")?;
                (source.bootstrap(), target.bootstrap(), Box::new([source, target]))
            }
            Kind::Real => {
                let installation = Installation::find()?;
                let start = || Cluster::start(&installation, ClusterOptions::default());
                let (source, target) = std::thread::scope(|scope| {
                    let source = scope.spawn(start);
                    let target = start();
                    (source.join().expect("starting a cluster does not panic"), target)
                });
                let source = source.context("the cluster on premise")?;
                let target = target.context("the cluster in the cloud")?;
                (source.bootstrap(), target.bootstrap(), Box::new([source, target]))
            }
        };
        Ok(Self { kind, source: settings(source), target: settings(target), _running: running })
    }
}

impl Kind {
    /// As `--kafka` takes it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::Real => "real",
        }
    }
}

fn settings(bootstrap: String) -> Settings {
    Settings { bootstrap, properties: std::collections::BTreeMap::new(), client_id: "demo".to_owned() }
}
