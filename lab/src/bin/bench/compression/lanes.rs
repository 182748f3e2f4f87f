//! Records through the lanes of the product: packed, encoded, decoded, compared.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use codec::avro::Schema;
use codec::{Batch, DecodeLimits, Decoder, Encoder, EncoderSettings, ShapeCounts};
use nix::time::{ClockId, clock_gettime};
use proto::limits::parcel_target;
use proto::wire::{LanePreface, ParcelHeader};

use super::topic::{Records, View};

/// How records are sent.
pub(super) struct Setting<'a> {
    pub(super) level: i32,
    /// Bytes of keys and values at which a parcel is closed; none: as the exporter closes them.
    pub(super) flush: Option<u64>,
    pub(super) lanes: u16,
    /// The lane of a slot.
    pub(super) lane_of: &'a dyn Fn(u32) -> u32,
    /// The schema that records follow.
    pub(super) avro: Option<Arc<Schema>>,
}

/// What came of it.
pub(super) struct Figures {
    /// Bytes on the lanes' streams.
    pub(super) wire: u64,
    pub(super) parcels: u64,
    /// Processor time, median of all rounds.
    pub(super) encode: Duration,
    /// Processor time, median of all rounds.
    pub(super) decode: Duration,
    /// Most bytes that the encoders of all lanes held.
    pub(super) encoder_memory: usize,
    /// Most bytes that the decoders of all lanes held.
    pub(super) decoder_memory: usize,
    /// Keys and values that followed a known shape, without being parsed, as a share of all.
    pub(super) hit_rate: f64,
}

/// Sends all records in each round; in the first they are compared with what arrives.
pub(super) fn measure(records: &Records<'_>, setting: &Setting<'_>, rounds: u32) -> Result<Figures> {
    let (mut encode, mut decode) = (Vec::new(), Vec::new());
    let mut first: Option<(Sent, usize)> = None;
    for round in 0..rounds {
        let sent = send(records, setting)?;
        encode.push(sent.time);
        let (time, memory) = receive(records, setting, &sent.parcels, round == 0)?;
        decode.push(time);
        let (first, _) = first.get_or_insert_with(|| (sent.without_bodies(), memory));
        ensure!(first.wire == sent.wire, "the same records were encoded to other bytes in another round");
    }
    let (sent, decoder_memory) = first.context("there is at least one round")?;
    Ok(Figures {
        wire: sent.wire,
        parcels: sent.count,
        encode: median(encode),
        decode: median(decode),
        encoder_memory: sent.memory,
        decoder_memory,
        hit_rate: sent.hit_rate,
    })
}

struct Sent {
    parcels: Vec<Parcel>,
    count: u64,
    /// Everything that lies on the lanes' streams.
    wire: u64,
    time: Duration,
    memory: usize,
    hit_rate: f64,
}

struct Parcel {
    lane: usize,
    body: Vec<u8>,
    plain: u32,
}

impl Sent {
    fn without_bodies(&self) -> Self {
        Self { parcels: Vec::new(), ..*self }
    }
}

fn send(records: &Records<'_>, setting: &Setting<'_>) -> Result<Sent> {
    let settings = EncoderSettings { level: setting.level, ..EncoderSettings::default() };
    let mut encoders: Vec<Encoder> =
        (0..setting.lanes).map(|_| Encoder::new(settings.clone())).collect::<Result<_, _>>()?;
    for (encoder, schema) in encoders.iter_mut().zip(std::iter::repeat(&setting.avro)) {
        if let Some(schema) = schema {
            encoder.use_avro(None, None, Arc::clone(schema));
        }
    }
    for slot in 0..records.slots() {
        let lane = (setting.lane_of)(slot) as usize;
        encoders[lane].set_topic(slot, &records.topic_of(slot).to_string());
    }
    let (mut parcels, mut time) = (Vec::new(), Duration::ZERO);
    pack(records, setting, |lane, batch| {
        let mut body = Vec::new();
        let before = thread_time()?;
        let sizes = encoders[lane].encode(batch, &mut body);
        time += thread_time()? - before;
        let sizes =
            sizes.with_context(|| format!("{}: a batch cannot be encoded", places(records, batch)))?;
        body.shrink_to_fit();
        parcels.push(Parcel { lane, body, plain: sizes.plain });
        Ok(())
    })?;
    let bodies: usize = parcels.iter().map(|parcel: &Parcel| ParcelHeader::LENGTH + parcel.body.len()).sum();
    let prefaces = usize::from(setting.lanes) * LanePreface::LENGTH;
    let shapes: Vec<ShapeCounts> = encoders.iter().map(Encoder::shapes).collect();
    let followed: u64 = shapes.iter().map(|counts| counts.followed).sum();
    let all: u64 = shapes.iter().map(|counts| counts.followed + counts.parsed + counts.whole).sum();
    Ok(Sent {
        count: parcels.len() as u64,
        wire: (prefaces + bodies) as u64,
        parcels,
        time,
        memory: encoders.iter().map(Encoder::memory).sum(),
        hit_rate: followed as f64 / all.max(1) as f64,
    })
}

/// Processor time of decoding, and bytes of memory that it held; with `compare` also every record is looked at.
fn receive(
    records: &Records<'_>,
    setting: &Setting<'_>,
    parcels: &[Parcel],
    compare: bool,
) -> Result<(Duration, usize)> {
    let mut decoders: Vec<Decoder> =
        (0..setting.lanes).map(|_| Decoder::new(DecodeLimits::default())).collect::<Result<_, _>>()?;
    let (mut received, mut time) = (Batch::new(), Duration::ZERO);
    let mut decode = |number: usize, received: &mut Batch| -> Result<()> {
        let parcel = &parcels[number];
        let before = thread_time()?;
        let decoded = decoders[parcel.lane].decode_into(&parcel.body, parcel.plain, received);
        time += thread_time()? - before;
        decoded.with_context(|| format!("{}: parcel {number} does not decode", records.name()))
    };
    if compare {
        let mut number = 0;
        pack(records, setting, |_, sent| {
            decode(number, &mut received)?;
            number += 1;
            same(records, sent, &received)
        })?;
    } else {
        for number in 0..parcels.len() {
            decode(number, &mut received)?;
        }
    }
    let memory = decoders.iter().map(Decoder::memory).sum();
    Ok((time, memory))
}

/// Names the first record that is not what was sent.
fn same(records: &Records<'_>, sent: &Batch, received: &Batch) -> Result<()> {
    if sent == received {
        return Ok(());
    }
    for (index, group) in sent.groups().iter().enumerate() {
        let place = records.place(group.slot);
        let arrived = received.groups().get(index).is_some_and(|other| other.slot == group.slot);
        ensure!(arrived, "{place}: its group did not come back");
        let mut others = received.records(index);
        for record in sent.records(index) {
            let same = others.next().is_some_and(|other| other == record);
            ensure!(same, "{place}, offset {}: the record did not come back as it was", record.offset);
        }
    }
    anyhow::bail!("{}: a batch did not come back as it was", places(records, sent))
}

fn places(records: &Records<'_>, batch: &Batch) -> String {
    let first = batch.groups().first();
    first.map_or_else(
        || records.name(),
        |group| format!("{}, offset {}", records.place(group.slot), group.prev_next),
    )
}

/// Packs as the exporter does: a batch for each lane, closed when it is full.
fn pack(
    records: &Records<'_>,
    setting: &Setting<'_>,
    mut full: impl FnMut(usize, &Batch) -> Result<()>,
) -> Result<()> {
    let mut open: Vec<Open> = (0..setting.lanes).map(|_| Open::default()).collect();
    let mut positions = vec![Position::default(); records.slots() as usize];
    for record in records.views() {
        let lane = (setting.lane_of)(record.slot) as usize;
        if open[lane].is_full_with(&record, setting.flush) {
            open[lane].close(&mut positions, |batch| full(lane, batch))?;
        }
        let position = &mut positions[record.slot as usize];
        open[lane].push(records.topic_of(record.slot), &record, position.next);
        position.next += 1;
        if open[lane].is_full(setting.flush) {
            open[lane].close(&mut positions, |batch| full(lane, batch))?;
        }
    }
    for (lane, open) in open.iter_mut().enumerate() {
        open.close(&mut positions, |batch| full(lane, batch))?;
    }
    Ok(())
}

/// Offsets of a slot: the next record's, and the first that was not sent yet.
#[derive(Debug, Clone, Copy, Default)]
struct Position {
    next: i64,
    sent: i64,
}

#[derive(Default)]
struct Open {
    batch: Batch,
    raw: u64,
    /// The topics in it.
    topics: Vec<usize>,
}

impl Open {
    fn push(&mut self, topic: usize, record: &View<'_>, offset: i64) {
        if !self.topics.contains(&topic) {
            self.topics.push(topic);
        }
        let group = self.batch.group_index(record.slot);
        self.batch.push(group, offset, record.timestamp, record.key, record.value, []);
        self.raw += record.raw();
    }

    fn is_full(&self, flush: Option<u64>) -> bool {
        match flush {
            Some(flush) => self.raw >= flush,
            None => self.batch.plain_size() >= parcel_target(self.topics.len()),
        }
    }

    fn is_full_with(&self, record: &View<'_>, flush: Option<u64>) -> bool {
        match flush {
            Some(flush) => self.raw + record.raw() > flush,
            None => {
                let plain = codec::record_plain_size(record.key, record.value, []);
                self.batch.plain_size() + plain > parcel_target(self.topics.len())
            }
        }
    }

    fn close(&mut self, positions: &mut [Position], full: impl FnOnce(&Batch) -> Result<()>) -> Result<()> {
        if self.batch.is_empty() {
            return Ok(());
        }
        self.batch.order_groups();
        for group in self.batch.groups_mut() {
            let position = &mut positions[group.slot as usize];
            (group.resume_epoch, group.leader_epoch) = (1, 0);
            (group.prev_next, group.next) = (position.sent, position.next);
            position.sent = position.next;
        }
        full(&self.batch)?;
        self.batch.clear();
        self.topics.clear();
        self.raw = 0;
        Ok(())
    }
}

/// Processor time of this thread.
fn thread_time() -> Result<Duration> {
    let now =
        clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).context("this system has no clock of a thread")?;
    Ok(now.into())
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::super::topic::Topic;
    use super::*;

    fn topic() -> Topic {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("orders.log");
        let lines: String = (0..4000).map(|n| format!("order {n} of customer {}\n", n % 17)).collect();
        std::fs::write(&path, lines).unwrap();
        Topic::load(&path, 3).unwrap()
    }

    fn setting(flush: Option<u64>, lanes: u16, lane_of: &dyn Fn(u32) -> u32) -> Setting<'_> {
        Setting { level: 3, flush, lanes, lane_of, avro: None }
    }

    #[test]
    fn every_record_is_in_one_parcel_of_its_lane_in_order() {
        let topic = topic();
        for (flush, lanes) in [(None, 1), (Some(1000), 1), (Some(1000), 2)] {
            let records = Records::of(&topic);
            let lane_of = |slot: u32| slot % u32::from(lanes);
            let mut next = [0; 3];
            pack(&records, &setting(flush, lanes, &lane_of), |lane, batch| {
                for (index, group) in batch.groups().iter().enumerate() {
                    assert_eq!(lane_of(group.slot) as usize, lane);
                    for record in batch.records(index) {
                        assert_eq!(record.offset, next[group.slot as usize]);
                        next[group.slot as usize] += 1;
                    }
                }
                Ok(())
            })
            .unwrap();
            assert_eq!(next.iter().sum::<i64>(), 4000);
        }
    }

    #[test]
    fn smaller_parcels_cost_more_bytes_and_every_header_is_counted() {
        let topic = topic();
        let records = Records::of(&topic);
        let measured = |flush| measure(&records, &setting(flush, 1, &|_| 0), 1).unwrap();
        let (whole, small) = (measured(None), measured(Some(1000)));
        assert!(whole.parcels == 1 && small.parcels > 90, "{} and {}", whole.parcels, small.parcels);
        assert!(small.wire > whole.wire + (small.parcels - 1) * 24);
    }

    #[test]
    fn a_record_that_comes_back_changed_is_named() {
        let topic = topic();
        let records = Records::of(&topic);
        let batch = |value: &[u8]| {
            let mut batch = Batch::new();
            let group = batch.group_index(2);
            batch.push(group, 7, 0, None, Some(b"same"), []);
            batch.push(group, 8, 0, None, Some(value), []);
            batch
        };
        same(&records, &batch(b"one"), &batch(b"one")).unwrap();
        let error = same(&records, &batch(b"one"), &batch(b"two")).unwrap_err().to_string();
        assert!(error.starts_with("orders.log, partition 2, offset 8: "), "{error}");
    }
}
