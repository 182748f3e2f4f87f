//! Whether the target cluster answers, whatever the lanes do.

use std::{
    io,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

/// Asks the target cluster every few seconds, for as long as this lives.
#[derive(Debug)]
pub(crate) struct Pulse(Arc<AtomicBool>);

impl Pulse {
    /// Begins to ask, on a thread of its own: a question to a cluster that is gone takes as long as it may. `admin` is for
    /// nothing else: see [`kafka::Admin::ping`].
    pub(crate) fn start(admin: kafka::Admin) -> io::Result<Self> {
        let answers = Arc::<AtomicBool>::default();
        let told = Arc::downgrade(&answers);
        thread::Builder::new().name("pulse".into()).spawn(move || feel(&admin, &told))?;
        Ok(Self(answers))
    }

    /// Whether the last question was answered; not before the first was.
    pub(crate) fn is_felt(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

fn feel(admin: &kafka::Admin, told: &Weak<AtomicBool>) {
    let mut before = true;
    loop {
        let outcome = admin.ping(PATIENCE);
        let Some(answers) = told.upgrade() else { return };
        answers.store(outcome.is_ok(), Ordering::Relaxed);
        drop(answers);
        match &outcome {
            Err(error) if before => tracing::warn!(
                %error,
                "the target cluster does not answer: what comes waits and nothing is lost; check [kafka] bootstrap and \
                 that the brokers are up"
            ),
            Ok(()) if !before => tracing::info!("the target cluster answers"),
            _ => {}
        }
        before = outcome.is_ok();
        thread::sleep(PAUSE);
    }
}

const PATIENCE: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_secs(2);
