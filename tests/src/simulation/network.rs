//! The modelled link: connections that delay, keep order per stream only, and break at any moment.

use codec::Batch;
use proto::wire::{ParcelHeader, ToImporter};

/// Names a connection for ever.
pub(super) type Connection = usize;

#[derive(Debug, Default)]
pub(super) struct Network {
    connections: Vec<State>,
}

#[derive(Debug)]
struct State {
    exporter: usize,
    importer: usize,
    /// Milliseconds one way, at least.
    delay: u64,
    /// What is sent now gets through.
    open: bool,
    /// What was sent before gets through.
    delivers: bool,
    /// When the last message of each stream arrives: streams keep their own order, not that among them.
    arrivals: Vec<u64>,
}

/// What an exporter sends.
#[derive(Debug)]
pub(super) enum Up {
    /// On the control stream.
    Message(ToImporter),
    /// On a lane's stream.
    Parcel(u16, ParcelHeader, Batch),
}

/// One end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Exporter,
    Importer,
}

impl Network {
    pub(super) fn connect(&mut self, exporter: usize, importer: usize, delay: u64, lanes: u16) -> Connection {
        self.connections.push(State {
            exporter,
            importer,
            delay,
            open: true,
            delivers: true,
            arrivals: vec![0; usize::from(lanes) + 2],
        });
        self.connections.len() - 1
    }

    /// When something sent now on `stream` arrives, if it does.
    pub(super) fn arrival(
        &mut self,
        connection: Connection,
        stream: usize,
        now: u64,
        jitter: u64,
    ) -> Option<u64> {
        let state = &mut self.connections[connection];
        let last = state.arrivals[stream];
        let arrival = last.max(now + state.delay + jitter);
        state.arrivals[stream] = arrival;
        state.open.then_some(arrival)
    }

    /// Nothing that is sent from now on arrives; what is under way does or does not.
    pub(super) fn cut(&mut self, connection: Connection, under_way_arrives: bool) {
        let state = &mut self.connections[connection];
        state.open = false;
        state.delivers &= under_way_arrives;
    }

    pub(super) fn delivers(&self, connection: Connection) -> bool {
        self.connections[connection].delivers
    }

    pub(super) fn process(&self, connection: Connection, side: Side) -> usize {
        let state = &self.connections[connection];
        match side {
            Side::Exporter => state.exporter,
            Side::Importer => state.importer,
        }
    }

    /// Every connection that is not cut and that `which` chooses by exporter and importer.
    pub(super) fn open(&self, which: impl Fn(usize, usize) -> bool) -> Vec<Connection> {
        let states = self.connections.iter().enumerate();
        states
            .filter(|(_, state)| state.open && which(state.exporter, state.importer))
            .map(|(connection, _)| connection)
            .collect()
    }
}

/// The stream of control messages to the importer; lanes follow behind the two.
pub(super) const CONTROL_UP: usize = 0;
/// The stream of control messages to the exporter.
pub(super) const CONTROL_DOWN: usize = 1;
