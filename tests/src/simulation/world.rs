//! The world: processes that start, are killed and race each other, the faults around them, and the calm afterwards.

use std::collections::BTreeMap;

use super::{
    Anomaly, Kind, LANES, Planted, Summary, checker,
    context::{Context, Event, Knobs},
    exporter::Exporter,
    importer::{Importer, Life},
    network::Side,
};

pub(super) struct World {
    ctx: Context,
    exporters: BTreeMap<usize, Exporter>,
    importers: BTreeMap<usize, Importer>,
    processes: usize,
    weather: Weather,
    summary: Summary,
}

/// What kinds of fault a schedule draws from, and how often.
#[derive(Debug)]
struct Weather {
    faults: Vec<Fault>,
    /// Milliseconds between two faults, about.
    every: u64,
    /// Milliseconds between two changes of the source, about.
    growth: u64,
    /// The source is cut, compacted, re-created too.
    rough_source: bool,
    /// When the last fault happens.
    until: u64,
}

#[derive(Debug, Clone, Copy)]
enum Fault {
    Cut,
    Race,
    KillExporter,
    KillImporter,
    SecondExporter,
    SecondImporter,
    TransactionTimeout,
}

impl World {
    pub(super) fn new(seed: u64, planted: Option<Planted>) -> Self {
        let mut ctx = Context::new(seed, LANES, planted);
        let weather = Weather::draw(&mut ctx);
        let mut world = Self {
            ctx,
            exporters: BTreeMap::new(),
            importers: BTreeMap::new(),
            processes: 0,
            weather,
            summary: Summary::default(),
        };
        for _ in 0..world.ctx.chance.below(20) {
            world.ctx.source.live(&mut world.ctx.chance, false);
        }
        world.start_importer();
        world.start_exporter("edge-1".into());
        world.ctx.after(1, Event::Live);
        world.ctx.after(500, Event::Fault);
        world
    }

    pub(super) fn run(mut self) -> Result<Summary, Anomaly> {
        while self.ctx.now < self.weather.until {
            self.step()?;
        }
        self.calm();
        let deadline = self.weather.until + PATIENCE_MS;
        loop {
            let next_look = self.ctx.now + 250;
            while self.ctx.now < next_look {
                self.step()?;
            }
            let outstanding = checker::outstanding(&self.ctx.source, &self.ctx.target);
            // What is wrong may still come right: that a log was cut back is noticed at the next read.
            if outstanding.is_none() && self.check().is_ok() {
                break;
            }
            if self.ctx.now > deadline {
                self.check()?;
                return Err(Anomaly { kind: Kind::Stuck, what: outstanding.unwrap_or_default() });
            }
        }
        self.summary.recovery_ms = self.ctx.now - self.weather.until;
        // Whatever is still under way may not change anything any more.
        while self.ctx.now < self.weather.until + self.summary.recovery_ms + 4000 {
            self.step()?;
        }
        self.check()?;
        self.summary.delivered = self.ctx.target.logs.values().map(|log| log.len() as u64).sum();
        Ok(self.summary)
    }

    fn check(&self) -> Result<(), Anomaly> {
        checker::check(&self.ctx.source, &self.ctx.target).map_or(Ok(()), Err)
    }

    fn step(&mut self) -> Result<(), Anomaly> {
        let event = self.ctx.next_event().expect("live processes always have a next event");
        self.summary.events += 1;
        self.handle(event);
        self.ctx.found.take().map_or(Ok(()), Err)
    }

    fn handle(&mut self, event: Event) {
        let ctx = &mut self.ctx;
        match event {
            Event::Live => {
                if ctx.now < self.weather.until {
                    ctx.source.live(&mut ctx.chance, self.weather.rough_source);
                    let delay = ctx.pause(self.weather.growth * 2);
                    ctx.after(delay, Event::Live);
                }
            }
            Event::Fault => {
                if ctx.now < self.weather.until {
                    self.strike();
                    let delay = self.ctx.pause(self.weather.every * 2);
                    self.ctx.after(delay, Event::Fault);
                }
            }
            Event::ToExporter(connection, message) => {
                let process = ctx.network.process(connection, Side::Exporter);
                if ctx.network.delivers(connection)
                    && let Some(exporter) = self.exporters.get_mut(&process)
                {
                    exporter.hear(connection, message, ctx);
                }
            }
            Event::ToImporter(connection, what) => {
                let process = ctx.network.process(connection, Side::Importer);
                if ctx.network.delivers(connection)
                    && let Some(importer) = self.importers.get_mut(&process)
                {
                    importer.hear(connection, what, ctx);
                }
            }
            Event::Lost(connection, side) => self.lost(connection, side),
            Event::Exporter(id, step) => {
                if let Some(exporter) = self.exporters.get_mut(&id) {
                    exporter.step(step, ctx);
                }
            }
            Event::Importer(id, step) => {
                let life = self.importers.get_mut(&id).map(|importer| importer.step(step, ctx));
                if life == Some(Life::StandsDown) {
                    self.stop_importer(id);
                }
            }
            Event::StartExporter(instance) => {
                if self.ctx.now < self.weather.until || self.exporters.is_empty() {
                    self.start_exporter(instance);
                }
            }
            Event::StartImporter => self.start_importer(),
            Event::LateEndTxn { lane, epoch } => {
                // Whoever sent it has stopped listening.
                let _ignored = ctx.target.commit(lane, epoch);
            }
        }
    }

    fn lost(&mut self, connection: usize, side: Side) {
        let ctx = &mut self.ctx;
        let process = ctx.network.process(connection, side);
        match side {
            Side::Exporter => {
                if let Some(exporter) = self.exporters.get_mut(&process) {
                    exporter.lose(connection, ctx);
                }
            }
            Side::Importer => {
                if let Some(importer) = self.importers.get_mut(&process) {
                    importer.lose(connection);
                }
            }
        }
    }

    fn strike(&mut self) {
        let Some(fault) = self.ctx.chance.pick(&self.weather.faults) else { return };
        self.summary.faults += 1;
        let exporters: Vec<usize> = self.exporters.keys().copied().collect();
        let exporter = self.ctx.chance.pick(&exporters);
        match fault {
            Fault::Cut => {
                let open = self.ctx.network.open(|_, _| true);
                if let Some(connection) = self.ctx.chance.pick(&open) {
                    self.ctx.cut(connection, IDLE_MS);
                }
            }
            Fault::Race => {
                if let Some(exporter) = exporter.and_then(|id| self.exporters.get_mut(&id)) {
                    exporter.race(&mut self.ctx);
                }
            }
            Fault::KillExporter => {
                if let Some((id, killed)) = exporter.and_then(|id| self.exporters.remove_entry(&id)) {
                    self.stop_exporter(id);
                    let renamed = self.ctx.chance.percent(30);
                    let fresh = format!("edge-{}", self.processes);
                    let instance = if renamed { fresh } else { killed.instance().into() };
                    let delay = self.ctx.pause(1500);
                    self.ctx.after(delay, Event::StartExporter(instance));
                }
            }
            Fault::KillImporter => {
                let running: Vec<usize> = self.importers.keys().copied().collect();
                if let Some(id) = self.ctx.chance.pick(&running) {
                    self.stop_importer(id);
                }
            }
            Fault::SecondExporter if self.exporters.len() < 2 => {
                self.start_exporter(format!("edge-{}", self.processes));
            }
            Fault::SecondImporter if self.importers.len() < 2 => self.start_importer(),
            Fault::SecondExporter | Fault::SecondImporter => {}
            Fault::TransactionTimeout => {
                let lane = self.ctx.chance.below(LANES.into()) as usize;
                self.ctx.target.time_out(lane);
            }
        }
    }

    fn start_exporter(&mut self, instance: String) {
        self.processes += 1;
        let exporter = Exporter::start(self.processes, instance, &mut self.ctx);
        self.exporters.insert(self.processes, exporter);
    }

    fn start_importer(&mut self) {
        self.processes += 1;
        self.ctx.importers.push(self.processes);
        let importer = Importer::start(self.processes, &mut self.ctx);
        self.importers.insert(self.processes, importer);
    }

    fn stop_exporter(&mut self, id: usize) {
        self.exporters.remove(&id);
        for connection in self.ctx.network.open(|exporter, _| exporter == id) {
            self.ctx.cut(connection, IDLE_MS);
        }
    }

    /// An importer ends; the last one comes back.
    fn stop_importer(&mut self, id: usize) {
        self.importers.remove(&id);
        self.ctx.importers.retain(|importer| *importer != id);
        for connection in self.ctx.network.open(|_, importer| importer == id) {
            self.ctx.cut(connection, 1000);
        }
        if self.importers.is_empty() {
            let delay = self.ctx.pause(1500);
            self.ctx.after(delay, Event::StartImporter);
        }
    }

    /// The faults are over: one exporter and one importer remain, or are about to come back.
    fn calm(&mut self) {
        let resume_at_accepted = self.ctx.knobs.resume_at_accepted;
        self.ctx.knobs = Knobs { resume_at_accepted, ..Knobs::default() };
        self.ctx.source.grow_everywhere(&mut self.ctx.chance);
        while self.exporters.len() > 1
            && let Some(id) = self.exporters.keys().next().copied()
        {
            self.stop_exporter(id);
        }
        while self.importers.len() > 1
            && let Some(id) = self.importers.keys().next().copied()
        {
            self.stop_importer(id);
        }
    }
}

impl Weather {
    fn draw(ctx: &mut Context) -> Self {
        let chance = &mut ctx.chance;
        let mut some = |most: u64| if chance.percent(50) { chance.between(1, most) } else { 0 };
        ctx.knobs = Knobs {
            unclear_commit: some(40),
            refused_produce: some(10),
            broken_parcel: some(5),
            misplaced_batch: some(5),
            doubled_batch: some(5),
            other_importer: some(30),
            resume_at_accepted: some(1) == 1,
        };
        let all = [
            Fault::Cut,
            Fault::Race,
            Fault::KillExporter,
            Fault::KillImporter,
            Fault::SecondExporter,
            Fault::SecondImporter,
            Fault::TransactionTimeout,
        ];
        let faults = all.into_iter().filter(|_| chance.percent(50)).collect();
        Self {
            faults,
            every: chance.between(150, 1500),
            growth: chance.between(50, 200),
            rough_source: chance.percent(50),
            until: chance.between(4_000, 16_000),
        }
    }
}

/// Within which a connection's end that says nothing is noticed.
const IDLE_MS: u64 = 20_000;
/// Within which everything must be delivered after the last fault: two ends that notice late, another instance's
/// patience, a few attempts.
const PATIENCE_MS: u64 = 60_000;
