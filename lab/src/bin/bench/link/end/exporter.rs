//! Our sender: `link` and the exporter's machines of `proto`, without codec and without Kafka.
//!
//! Each lane has one source partition that never ends, sent in parcels of 64 KiB as fast as credit and the link allow.
//! When a connection stalls, others race for its place, as in the exporter.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use bytes::{Bytes, BytesMut};
use certs::{Identity, SpiffeId};
use codec::Batch;
use link::{
    CloseCode, Congestion, Connection, ControlRecv, ControlSend, Dialer, Greeted, Greeting, Settings,
};
use proto::ids::{Lane as LaneId, LaneEpoch, Offset, ResumeEpoch, Slot, lane_of};
use proto::limits::PROTOCOL_VERSION;
use proto::sender::{Action, Event, Lane, Sender, Stamped};
use proto::wire::{Hello, LanePreface, Open, ToExporter, ToImporter};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until};

use super::super::spec::{PathView, Transport};
use super::importer::{Cover, IMPORTER_ID, LINK};
use super::{BLOCK_BYTES, LANES, Sent, Spec};

/// Sends until the end, over as many connections as it takes.
pub(super) async fn send(spec: &Spec) -> Result<Sent> {
    let identity = Identity::load(&spec.certificates.join("edge"))?;
    let peer: SpiffeId = IMPORTER_ID.parse().context("the importer's id")?;
    let dialer = Arc::new(Dialer::new(&identity, peer, settings(spec))?);
    let addresses: Vec<String> = spec.addresses.iter().map(ToString::to_string).collect();
    sleep(spec.start.left()).await;
    let (end, started) = (spec.end(), Instant::now());
    let over = sleep(end.left());
    tokio::pin!(over);
    let mut sent = Sent::default();
    let mut place = 0;
    let greeting = Arc::new(greeting());
    loop {
        let race = dialer.race(&addresses, place, &greeting, |_, error| tracing::info!("{error}"));
        let Greeted { connection, send, recv, place: won } = tokio::select! {
            greeted = race => greeted,
            () = &mut over => return Ok(sent),
        };
        place = won;
        sent.connections += 1;
        let ended = tokio::select! {
            ended = serve(&connection, (send, recv), spec, started) => Some(ended),
            () = &mut over => None,
        };
        sent.path = Some(view(&connection));
        let Some(Err(error)) = ended else {
            connection.close(CloseCode::Done, "the measurement is over");
            // The close has its chance to leave.
            sleep(CLOSE_PATIENCE).await;
            return Ok(sent);
        };
        connection.close(CloseCode::Stalled, &error.to_string());
        sent.endings.push(format!("after {:.3} s: {error:#}", started.elapsed().as_secs_f64()));
    }
}

/// The defaults, but for what is to be compared.
fn settings(spec: &Spec) -> Settings {
    let (congestion, rate) = match spec.transport {
        Transport::LonghaulCubic => (Congestion::Cubic, None),
        Transport::LonghaulAdaptive => (Congestion::Adaptive, None),
        _ => (Congestion::Auto, spec.rate),
    };
    Settings { rate, floor: spec.floor, congestion, ..Settings::default() }
}

fn view(connection: &Connection) -> PathView {
    let stats = connection.stats();
    PathView {
        rtt_ms: stats.rtt.as_secs_f64() * 1e3,
        window_bytes: stats.congestion_window,
        mtu: stats.mtu,
        sent_packets: stats.sent_packets,
        lost_packets: stats.lost_packets,
        datagrams_per_send: stats.datagrams_per_send(),
        woken_late_seconds: stats.paced_late.as_secs_f64(),
    }
}

/// Hello, of another nonce each time.
fn greeting() -> Greeting {
    let nonce = AtomicU64::new(0);
    Greeting::new(move || {
        let hello = Hello {
            versions: vec![PROTOCOL_VERSION],
            link: LINK.to_owned(),
            source_cluster_id: LINK.to_owned(),
            instance: LINK.to_owned(),
            nonce: nonce.fetch_add(1, Ordering::Relaxed) + 1,
        };
        ToImporter::from(hello).encode_frame()
    })
}

/// What a lane's task is told.
enum Order {
    Resume(Slot, ResumeEpoch, Offset),
    Credit(LaneEpoch, u64),
    Committed(Slot, Offset),
}

/// One session; returns why it ended.
async fn serve(
    connection: &Connection,
    (mut control, mut frames): (ControlSend, ControlRecv),
    spec: &Spec,
    started: Instant,
) -> Result<std::convert::Infallible> {
    let mut sender = Sender::greeted(started.elapsed());
    let mut lanes: Vec<mpsc::Sender<Order>> = Vec::new();
    let mut tasks = JoinSet::new();
    let (closed, stalled) = (connection.closed(), connection.stalled());
    tokio::pin!(closed, stalled);
    loop {
        while let Some(message) = sender.poll_transmit() {
            let frame = message.encode_frame();
            tokio::select! {
                sent = control.send(&frame) => sent?,
                stall = &mut stalled => anyhow::bail!("{stall}"),
            }
        }
        tokio::select! {
            biased;
            why = &mut closed => anyhow::bail!("{why}"),
            stall = &mut stalled => anyhow::bail!("{stall}"),
            Some(ended) = tasks.join_next() => ended??,
            frame = frames.recv() => {
                let frame = frame?.context("the importer ended the conversation")?;
                sender.handle(Event::Message(ToExporter::decode_frame(&frame)?), started.elapsed())?;
            }
            () = sleep_until((started + sender.poll_timeout()).into()) => {
                sender.handle(Event::Tick, started.elapsed())?;
            }
        }
        while let Some(action) = sender.poll_action() {
            match action {
                Action::Established { credit, .. } => {
                    for number in 0..LANES {
                        let (orders, queue) = mpsc::channel(ORDERS);
                        lanes.push(orders);
                        if !spec.idle {
                            tasks.spawn(lane(connection.clone(), LaneId(number), credit, queue));
                        }
                    }
                    for open in partitions(spec) {
                        sender.handle(Event::Open(open), started.elapsed())?;
                    }
                }
                Action::Resume { lane, slot, resume_epoch, next, .. } if slot.0 < u32::from(LANES) => {
                    order(&lanes, lane, Order::Resume(slot, resume_epoch, next), spec).await;
                }
                Action::Credit { lane, epoch, total } => {
                    order(&lanes, lane, Order::Credit(epoch, total), spec).await;
                }
                Action::Committed { lane, slot, next } => {
                    order(&lanes, lane, Order::Committed(slot, next), spec).await;
                }
                Action::Unanswered { silent } => anyhow::bail!("no heartbeat for {silent:?}"),
                Action::Drain(reason) => anyhow::bail!("the importer leaves: {reason}"),
                Action::Resume { .. } | Action::Granted { .. } => {}
                other => anyhow::bail!("unexpected: {other:?}"),
            }
        }
    }
}

async fn order(lanes: &[mpsc::Sender<Order>], lane: LaneId, order: Order, spec: &Spec) {
    if !spec.idle {
        // A lane that has ended says why when its task is joined.
        let _ = lanes[usize::from(lane.0)].send(order).await;
    }
}

/// One partition for each lane, in slots 0, 1, ..., and the idle ones.
fn partitions(spec: &Spec) -> Vec<Open> {
    let topic_of = |lane: u16| {
        (0..)
            .map(|number| format!("topic-{number}"))
            .find(|topic| lane_of(topic, LANES).0 == lane)
            .expect("every lane has topics")
    };
    let open = |slot: u32, topic: String, partition: u32| Open {
        slot,
        topic_id: vec![1; 16],
        topic,
        partition: partition as i32,
        partition_count: 10_000,
        log_start: 0,
        end: i64::MAX,
        start: 0,
    };
    let sent = (0..LANES).map(|lane| open(u32::from(lane), topic_of(lane), 0));
    let idle = (0..spec.idle_partitions).map(|n| open(u32::from(LANES) + n, "idle".to_owned(), n));
    sent.chain(idle).collect()
}

/// Sends one lane's partition for ever.
async fn lane(
    connection: Connection,
    number: LaneId,
    credit: u64,
    mut orders: mpsc::Receiver<Order>,
) -> Result<()> {
    let epoch = LaneEpoch(1);
    let mut stream = connection
        .open_lane(LanePreface { lane: number, codec_version: codec::VERSION.into(), epoch })
        .await?;
    let mut lane = Lane::new(epoch, credit);
    let mut reading: Option<(Slot, ResumeEpoch, Offset)> = None;
    let mut bodies = Bodies::default();
    loop {
        let can_send = reading.is_some() && lane.credit_left() >= BLOCK_BYTES as u64;
        let next = if can_send { orders.try_recv().ok() } else { Some(orders.recv().await.context("over")?) };
        match next {
            Some(Order::Resume(slot, resume_epoch, next)) => {
                lane.resume(slot, resume_epoch, next);
                reading = Some((slot, resume_epoch, next));
            }
            Some(Order::Credit(epoch, total)) => lane.grant(epoch, total),
            Some(Order::Committed(slot, next)) => drop(lane.committed(slot, next)?),
            None => {
                let Some((slot, resume_epoch, next)) = &mut reading else { continue };
                *next = Offset(next.0 + OFFSETS_A_PARCEL);
                let Some(cover) = stamp(&mut lane, *slot, *resume_epoch, *next) else { continue };
                let header = lane.header(BLOCK_BYTES as u32, BLOCK_BYTES as u32);
                stream.send(&header, bodies.next(cover)).await?;
            }
        }
    }
}

/// Lets the machine chain what the next parcel covers.
fn stamp(lane: &mut Lane, slot: Slot, resume_epoch: ResumeEpoch, next: Offset) -> Option<Cover> {
    let mut batch = Batch::new();
    let index = batch.group_index(slot.0);
    let group = &mut batch.groups_mut()[index];
    (group.resume_epoch, group.next) = (resume_epoch.0, next.0);
    (lane.stamp(&mut batch) == Stamped::Send).then(|| {
        let group = &batch.groups()[0];
        Cover { slot: slot.0, resume_epoch: resume_epoch.0, prev_next: group.prev_next, next: group.next }
    })
}

/// Bodies of parcels. Memory that was acknowledged is used again, so that what is measured is the link and not an
/// allocator: only the numbers at the beginning are written anew.
#[derive(Default)]
struct Bodies {
    sent: VecDeque<Bytes>,
}

impl Bodies {
    fn next(&mut self, cover: Cover) -> Bytes {
        let oldest = self.sent.pop_front().map(Bytes::try_into_mut);
        let mut body = match oldest {
            Some(Ok(free)) => free,
            Some(Err(in_use)) => {
                self.sent.push_front(in_use);
                BytesMut::from(BLOCK)
            }
            None => BytesMut::from(BLOCK),
        };
        cover.write(&mut body);
        let body = body.freeze();
        self.sent.push_back(body.clone());
        body
    }
}

const BLOCK: &[u8] = &[0x5a; BLOCK_BYTES];
/// Offsets that a parcel covers; any number would do.
const OFFSETS_A_PARCEL: i64 = 100;
/// Orders that wait for a lane.
const ORDERS: usize = 1024;
const CLOSE_PATIENCE: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_of_a_body_is_used_again_when_nobody_else_holds_it() {
        let cover = Cover { slot: 0, resume_epoch: 1, prev_next: 0, next: 100 };
        let mut bodies = Bodies::default();
        let first = bodies.next(cover);
        let address = first.as_ptr();
        let second = bodies.next(cover);
        assert_ne!(second.as_ptr(), address, "the first is still under way");
        drop(first);
        assert_eq!(bodies.next(cover).as_ptr(), address);
    }
}
