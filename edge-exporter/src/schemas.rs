//! Avro schemas for the lanes' encoders: from files, and from a schema registry.
//!
//! A schema only makes records smaller. So nothing waits for one: records of an id that is not known travel as they are,
//! until the registry has answered and the lane's encoder has the schema. An answer holds for as long as the exporter
//! runs, as registries never change what an id stands for.

mod registry;

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use codec::{Encoder, avro::Schema};
use globset::GlobSet;
use observe::metrics::{Counter, Metrics};
use tokio::sync::mpsc;

use crate::config;

pub(crate) use registry::Registry;

/// What all lanes know of schemas.
#[derive(Debug, Clone)]
pub(crate) struct Schemas {
    files: Arc<[File]>,
    registry: Option<Known>,
}

/// A schema from a file, and whose records it is for.
#[derive(Debug)]
struct File {
    topics: GlobSet,
    id: Option<u32>,
    schema: Arc<Schema>,
}

/// What the registry has said so far.
#[derive(Debug, Clone)]
struct Known {
    asks: mpsc::Sender<u32>,
    answers: Arc<Answers>,
}

#[derive(Debug, Default)]
struct Answers {
    schemas: Mutex<HashMap<u32, Arc<Schema>>>,
    /// How many there are.
    count: AtomicU64,
}

/// A lane's part: which ids its encoder waits for.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    ids: HashSet<u32>,
    seen: u64,
}

/// What the registry's work comes to.
#[derive(Debug, Default)]
pub(crate) struct Meters {
    known: Counter,
    failed: Counter,
}

impl Meters {
    pub(crate) fn new(metrics: &mut Metrics) -> Self {
        let known = metrics.counter("schema_registry_schemas", "Avro schemas that the schema registry gave");
        let failed = metrics.counter(
            "schema_registry_failures",
            "Questions that the schema registry did not answer with a usable Avro schema",
        );
        Self { known, failed }
    }
}

impl Schemas {
    /// Reads the files again, which the configuration was checked with, and prepares the registry's work, if there is one.
    pub(crate) fn new(
        config: &config::Codec,
        meters: Arc<Meters>,
    ) -> Result<(Self, Option<Registry>), (String, String)> {
        let mut files = Vec::new();
        for (index, avro) in config.avro.iter().enumerate() {
            let key = |key: &str| format!("codec.avro[{index}].{key}");
            let topics = avro.topics().map_err(|(at, what)| (key(&at), what))?;
            let schema = avro.load().map_err(|(at, what)| (key(at), what))?;
            files.push(File { topics, id: avro.id, schema: Arc::new(schema) });
        }
        let mut work = None;
        let mut registry = None;
        if let Some(settings) = &config.schema_registry {
            let (asks, asked) = mpsc::channel(MAX_ASKS);
            let answers = Arc::<Answers>::default();
            let failed = |(key, what)| (format!("codec.schema_registry.{key}"), what);
            let tls = settings.tls().map_err(failed)?;
            work = Some(Registry::new((settings.clone(), tls), asked, Arc::clone(&answers), meters));
            registry = Some(Known { asks, answers });
        }
        Ok((Self { files: files.into(), registry }, work))
    }

    /// Gives an encoder what is known of the records of a source partition: their topic, and schemas.
    pub(crate) fn of_topic(&self, topic: &str, slot: u32, encoder: &mut Encoder) {
        encoder.set_topic(slot, topic);
        for file in self.files.iter().filter(|file| file.topics.is_match(topic)) {
            encoder.use_avro(Some(slot), file.id, Arc::clone(&file.schema));
        }
    }

    /// Before an encoder's first parcel.
    pub(crate) fn begin(&self, encoder: &mut Encoder) {
        if self.registry.is_some() {
            encoder.note_schema_ids();
        }
    }

    /// After a parcel: asks for the ids that the encoder met, and gives it what was answered meanwhile.
    pub(crate) fn follow(&self, waiting: &mut Waiting, encoder: &mut Encoder) {
        let Some(known) = &self.registry else { return };
        for id in encoder.unknown_schema_ids() {
            if waiting.ids.len() < MAX_WAITING && waiting.ids.insert(id) {
                // Perhaps it is known already.
                waiting.seen = u64::MAX;
                // When there are too many questions the next encoder asks again.
                let _ = known.asks.try_send(id);
            }
        }
        let count = known.answers.count.load(Ordering::Acquire);
        if waiting.ids.is_empty() || count == waiting.seen {
            return;
        }
        waiting.seen = count;
        let schemas = known.answers.schemas.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.ids.retain(|id| match schemas.get(id) {
            Some(schema) => {
                encoder.use_avro(None, Some(*id), Arc::clone(schema));
                false
            }
            None => true,
        });
    }
}

impl Answers {
    fn add(&self, id: u32, schema: Schema) {
        let mut schemas = self.schemas.lock().unwrap_or_else(PoisonError::into_inner);
        schemas.insert(id, Arc::new(schema));
        self.count.store(schemas.len() as u64, Ordering::Release);
    }

    fn has(&self, id: u32) -> bool {
        self.schemas.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&id)
    }
}

/// Questions that wait for the registry.
const MAX_ASKS: usize = 256;
/// Ids that one lane waits for: what is no Avro may begin like it.
const MAX_WAITING: usize = 256;

#[cfg(test)]
mod tests;
