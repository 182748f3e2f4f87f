//! On the record first, in effect afterwards.
//!
//! The session hands over what is to be recorded together with the commands that may take effect only then. One
//! thread writes and passes on, in order. While the audit log cannot be written everything behind waits, the lanes
//! send nothing, and it is tried again until it can.

use std::time::Duration;

use crossbeam_channel::Sender;
use observe::{Audit, event::Event};
use tokio::sync::mpsc;

use crate::{lane::Command, stop::Stop};

/// What is recorded, and what is passed on when it is.
#[derive(Debug, Default)]
pub(crate) struct Item {
    pub(crate) events: Vec<Event>,
    pub(crate) commands: Vec<(Sender<Command>, Command)>,
}

impl Item {
    pub(crate) fn is_empty(&self) -> bool {
        self.events.is_empty() && self.commands.is_empty()
    }
}

/// Runs until the session is gone and everything is passed on, or the exporter is killed.
pub(crate) fn run(audit: &Audit, mut items: mpsc::Receiver<Item>, stop: &Stop) {
    while let Some(item) = items.blocking_recv() {
        let Item { mut events, mut commands } = item;
        while events.len() < MAX_EVENTS
            && let Ok(more) = items.try_recv()
        {
            events.extend(more.events);
            commands.extend(more.commands);
        }
        if !record(audit, &events, stop) {
            return;
        }
        for (lane, command) in commands {
            // A lane that is gone has nothing to be told.
            let _ = lane.send(command);
        }
    }
}

fn record(audit: &Audit, events: &[Event], stop: &Stop) -> bool {
    while !events.is_empty() {
        // The failure shows as a log that is not healthy; who watches its health says so.
        if audit.record_many(events.iter().cloned()).is_ok() {
            return true;
        }
        std::thread::sleep(RETRY);
        if stop.is_killed() {
            return false;
        }
    }
    true
}

/// Events recorded with one flush to disk.
const MAX_EVENTS: usize = 1000;
const RETRY: Duration = Duration::from_secs(1);
