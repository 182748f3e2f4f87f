//! The lanes' threads: as many as the importer says the link has.

use std::thread::JoinHandle;

use crossbeam_channel::Sender;
use proto::ids::Lane as LaneId;

use crate::lane::{Command, Lane, Shared};

/// See the [module](self).
pub(crate) struct Lanes {
    shared: Shared,
    running: Vec<(Sender<Command>, JoinHandle<()>)>,
    /// Threads of lanes that the link does not have any more; they end by themselves.
    leaving: Vec<JoinHandle<()>>,
}

impl Lanes {
    pub(crate) fn new(shared: Shared) -> Self {
        Self { shared, running: Vec::new(), leaving: Vec::new() }
    }

    /// Makes sure that there are exactly `count` lanes.
    pub(crate) fn ensure(&mut self, count: u16) -> Result<(), String> {
        while self.running.len() > usize::from(count) {
            if let Some((_, thread)) = self.running.pop() {
                self.leaving.push(thread);
            }
        }
        for number in self.running.len()..usize::from(count) {
            let id = LaneId(u16::try_from(number).expect("below a u16"));
            let (commands, told) = crossbeam_channel::bounded(MAX_COMMANDS);
            let lane = Lane::new(id, self.shared.clone(), told).map_err(|error| error.to_string())?;
            let thread = std::thread::Builder::new()
                .name(format!("lane-{id}"))
                .spawn(move || lane.run())
                .map_err(|error| format!("a thread for lane {id} cannot be started: {error}"))?;
            self.running.push((commands, thread));
        }
        Ok(())
    }

    pub(crate) fn count(&self) -> usize {
        self.running.len()
    }

    /// Where a lane takes commands.
    pub(crate) fn of(&self, lane: LaneId) -> Option<&Sender<Command>> {
        self.running.get(usize::from(lane.0)).map(|(commands, _)| commands)
    }

    /// All of them, in order.
    pub(crate) fn all(&self) -> impl Iterator<Item = (LaneId, &Sender<Command>)> {
        (0..).map(LaneId).zip(self.running.iter().map(|(commands, _)| commands))
    }

    /// Tells all lanes to end and gives their threads.
    pub(crate) fn end(self) -> Vec<JoinHandle<()>> {
        let running = self.running.into_iter().map(|(_, thread)| thread);
        running.chain(self.leaving).collect()
    }
}

const MAX_COMMANDS: usize = 4096;
