//! What goes through a connection, and what a hostile exporter cannot get through it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use link::{CloseCode, Error, PathMeter, Settings};
use longhaul_link as link;
use proto::{
    limits,
    wire::{ParcelHeader, WireError},
};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::world::{AWS, FRA, PATIENCE, World, frame, id, meet, parcel, preface};

#[tokio::test(flavor = "multi_thread")]
async fn parcels_and_control_frames_arrive_as_they_were_sent() {
    let world = World::new();
    let (_listener, exporter, importer) = world.joined(Settings::default()).await;
    assert_eq!((exporter.peer(), importer.peer()), (&id(AWS), &id(FRA)));

    let (mut to_importer, mut from_importer) = exporter.open_control().await.unwrap();
    to_importer.send(&frame(b"hello")).await.unwrap();
    let (mut to_exporter, mut from_exporter) = importer.accept_control().await.unwrap();
    assert_eq!(from_exporter.recv().await.unwrap().unwrap(), b"hello");
    let long = vec![9; limits::MAX_CONTROL_MESSAGE];
    to_exporter.send(&frame(b"")).await.unwrap();
    to_exporter.send(&frame(&long)).await.unwrap();
    assert_eq!(from_importer.recv().await.unwrap().unwrap(), b"");
    assert_eq!(from_importer.recv().await.unwrap().unwrap(), long);

    const LENGTHS: [usize; 6] = [0, 1, 1200, 300_000, 256 << 10, 3 << 20];
    let sending = async {
        let mut lane = exporter.open_lane(preface(3)).await.unwrap();
        for (sequence, length) in LENGTHS.into_iter().enumerate() {
            let (header, body) = parcel(sequence as u64, length);
            lane.send(&header, body).await.unwrap();
        }
        lane.finish().unwrap();
        lane.stopped().await; // all was received
    };
    let receiving = async {
        let mut lane = importer.accept_lane().await.unwrap();
        assert_eq!(lane.preface(), preface(3));
        for (sequence, length) in LENGTHS.into_iter().enumerate() {
            let got = lane.recv().await.unwrap().unwrap();
            assert!(got == parcel(sequence as u64, length), "parcel {sequence}");
        }
        assert!(lane.recv().await.unwrap().is_none());
    };
    timeout(PATIENCE, async { tokio::join!(sending, receiving) }).await.unwrap();

    let stats = exporter.stats();
    assert!(stats.sent_bytes > 3_600_000 && stats.rtt > Duration::ZERO, "{stats:?}");
    assert!(importer.stats().received_bytes > 3_600_000);
    assert!(stats.datagrams_per_send() >= 1.0);
    to_importer.finish().unwrap();
    assert!(from_exporter.recv().await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_other_end_learns_why_a_connection_was_closed() {
    let world = World::new();
    let (_listener, exporter, importer) = world.joined(Settings::default()).await;
    importer.close(CloseCode::NotGranted, "no link named `fra`");
    assert_eq!(exporter.closed().await, "closed by the peer: not granted: no link named `fra`");
    assert_eq!(importer.closed().await, "closed on this side");
    let error = exporter.open_lane(preface(0)).await.unwrap_err();
    assert!(error.ends_connection() && error.to_string().contains("no link named"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_reason_is_cut_and_not_lost() {
    let world = World::new();
    let (_listener, exporter, importer) = world.joined(Settings::default()).await;
    exporter.close(CloseCode::Failed, &"\u{e4}".repeat(4000));
    assert!(importer.closed().await.contains("failure on the closing side: \u{e4}\u{e4}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unread_lane_stops_its_sender_and_nothing_else() {
    let world = World::new();
    let settings = Settings { stream_window: 128 << 10, ..Settings::default() };
    let (_listener, exporter, importer) = world.joined(settings).await;
    let (mut control, _answers) = exporter.open_control().await.unwrap();
    let mut unread = exporter.open_lane(preface(0)).await.unwrap();
    let mut read = exporter.open_lane(preface(1)).await.unwrap();
    let blocked = tokio::spawn(async move {
        for sequence in 0.. {
            let (header, body) = parcel(sequence, 3 << 20);
            if let Err(error) = unread.send(&header, body).await {
                return error;
            }
        }
        unreachable!()
    });
    let mut lanes = Vec::new();
    for _ in 0..2 {
        lanes.push(importer.accept_lane().await.unwrap());
    }
    lanes.sort_by_key(|lane| lane.preface().lane);
    sleep(Duration::from_millis(200)).await;
    assert!(!blocked.is_finished());
    let received = importer.stats().received_bytes;
    assert!(received < 1 << 20, "{received} bytes were taken for a window of 128 KiB");

    let (header, body) = parcel(5, 100_000);
    let second = timeout(PATIENCE, async {
        let (sent, got) = tokio::join!(read.send(&header, body.clone()), lanes[1].recv());
        sent.unwrap();
        got.unwrap().unwrap()
    });
    assert!(second.await.unwrap() == (header, body));
    control.send(&frame(b"still here")).await.unwrap();
    let (_send, mut frames) = importer.accept_control().await.unwrap();
    assert_eq!(frames.recv().await.unwrap().unwrap(), b"still here");

    lanes[0].stop();
    let error = timeout(PATIENCE, blocked).await.unwrap().unwrap();
    assert!(matches!(error, Error::Stopped { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_send_given_up_half_way_is_a_reset_and_no_end() {
    let world = World::new();
    let settings = Settings { stream_window: 128 << 10, send_window: 1 << 20, ..Settings::default() };
    let (_listener, exporter, importer) = world.joined(settings).await;
    let mut lane = exporter.open_lane(preface(0)).await.unwrap();
    let (header, body) = parcel(0, 8 << 20);
    assert!(timeout(Duration::from_millis(100), lane.send(&header, body)).await.is_err());
    let (header, body) = parcel(1, 10);
    assert!(matches!(lane.send(&header, body).await, Err(Error::Finished)));
    let mut received = importer.accept_lane().await.unwrap();
    drop(lane);
    let error = timeout(PATIENCE, received.recv()).await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Reset { code: 1 }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_importer_would_refuse_is_not_sent() {
    let world = World::new();
    let (_listener, exporter, _importer) = world.joined(Settings::default()).await;
    let mut lane = exporter.open_lane(preface(0)).await.unwrap();
    let (header, body) = parcel(0, 10);
    let lying = ParcelHeader { coded: 11, ..header };
    assert!(matches!(lane.send(&lying, body.clone()).await, Err(Error::Unsendable { .. })));
    let huge = ParcelHeader { plain: limits::MAX_PARCEL_PLAIN + 1, ..header };
    assert!(matches!(lane.send(&huge, body.clone()).await, Err(Error::Unsendable { .. })));
    lane.send(&header, body).await.unwrap();
    let (mut control, _answers) = exporter.open_control().await.unwrap();
    for wrong in [&b""[..], b"abc", b"\x02\0\0\0a", b"\0\0\0\0a"] {
        assert!(matches!(control.send(wrong).await, Err(Error::Unsendable { .. })), "{wrong:?}");
    }
    let long = frame(&vec![0; limits::MAX_CONTROL_MESSAGE + 1]);
    assert!(matches!(control.send(&long).await, Err(Error::Unsendable { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_no_lane_is_refused_and_the_next_one_is_taken() {
    let world = World::new();
    let listener = world.listen(Settings::default()).await;
    let (hostile, importer) = world.hostile(&listener).await;
    for (bytes, finish) in [(&b"GET / HTTP/1"[..], false), (b"LHL1", true), (b"", true)] {
        let mut stream = hostile.open_uni().await.unwrap();
        stream.write_all(bytes).await.unwrap();
        if finish {
            stream.finish().unwrap();
        }
        let error = timeout(PATIENCE, importer.accept_lane()).await.unwrap().unwrap_err();
        let right = match bytes {
            b"GET / HTTP/1" => matches!(error, Error::Malformed { source: WireError::NotALane, .. }),
            _ => matches!(error, Error::Truncated { .. }),
        };
        assert!(right && !error.ends_connection(), "{error}");
    }
    let mut stream = hostile.open_uni().await.unwrap();
    stream.write_all(&preface(2).encode()).await.unwrap();
    assert_eq!(importer.accept_lane().await.unwrap().preface(), preface(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_declared_size_above_its_bound_is_refused_before_memory_is_taken() {
    let world = World::new();
    let listener = world.listen(Settings::default()).await;
    let (hostile, importer) = world.hostile(&listener).await;
    let sound = parcel(0, 10).0.encode();
    // Offsets of the header's fields: length 0, coded size 16, plain size 20.
    for fields in [&[16][..], &[20], &[0, 16], &[0]] {
        let mut header = sound;
        for field in fields {
            header[*field..field + 4].copy_from_slice(&(1_u32 << 31).to_le_bytes());
        }
        let mut stream = hostile.open_uni().await.unwrap();
        stream.write_all(&preface(0).encode()).await.unwrap();
        stream.write_all(&header).await.unwrap();
        let mut lane = importer.accept_lane().await.unwrap();
        let error = timeout(PATIENCE, lane.recv()).await.unwrap().unwrap_err();
        assert!(matches!(error, Error::Malformed { .. }), "{fields:?}: {error}");
    }
    let mut stream = hostile.open_uni().await.unwrap();
    stream.write_all(&preface(0).encode()).await.unwrap();
    stream.write_all(&[0xff; 24]).await.unwrap();
    let error = importer.accept_lane().await.unwrap().recv().await.unwrap_err();
    assert!(matches!(error, Error::Malformed { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_ends_inside_a_parcel_is_truncated_and_not_ended() {
    let world = World::new();
    let listener = world.listen(Settings::default()).await;
    let (hostile, importer) = world.hostile(&listener).await;
    let (header, body) = parcel(0, 1000);
    let whole: Vec<u8> = header.encode().into_iter().chain(body).collect();
    for length in [1, 23, 24, 1023] {
        let mut stream = hostile.open_uni().await.unwrap();
        stream.write_all(&preface(0).encode()).await.unwrap();
        stream.write_all(&whole[..length]).await.unwrap();
        stream.finish().unwrap();
        let mut lane = importer.accept_lane().await.unwrap();
        let error = timeout(PATIENCE, lane.recv()).await.unwrap().unwrap_err();
        assert!(matches!(error, Error::Truncated { .. }), "{length}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receive_that_is_dropped_half_way_loses_nothing() {
    let world = World::new();
    let listener = world.listen(Settings::default()).await;
    let (hostile, importer) = world.hostile(&listener).await;
    let (header, body) = parcel(4, 5000);
    let whole: Vec<u8> = header.encode().into_iter().chain(body.clone()).collect();
    let mut stream = hostile.open_uni().await.unwrap();
    stream.write_all(&preface(0).encode()).await.unwrap();
    let mut lane = importer.accept_lane().await.unwrap();
    let (mut control, _answers) = hostile.open_bi().await.unwrap();
    let message = frame(b"hello");
    control.write_all(&message[..3]).await.unwrap();
    let (_send, mut frames) = importer.accept_control().await.unwrap();
    for piece in [&whole[..10], &whole[10..30], &whole[30..4000]] {
        stream.write_all(piece).await.unwrap();
        assert!(timeout(Duration::from_millis(30), lane.recv()).await.is_err());
    }
    assert!(timeout(Duration::from_millis(30), frames.recv()).await.is_err());
    stream.write_all(&whole[4000..]).await.unwrap();
    control.write_all(&message[3..]).await.unwrap();
    assert!(timeout(PATIENCE, lane.recv()).await.unwrap().unwrap().unwrap() == (header, body));
    assert_eq!(timeout(PATIENCE, frames.recv()).await.unwrap().unwrap().unwrap(), b"hello");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_control_frame_above_its_bound_or_cut_short_is_refused() {
    let world = World::new();
    let listener = world.listen(Settings::default()).await;
    for (bytes, finish) in [
        ((limits::MAX_CONTROL_MESSAGE as u32 + 1).to_le_bytes().to_vec(), false),
        (u32::MAX.to_le_bytes().to_vec(), false),
        (vec![5, 0], true),
        (vec![5, 0, 0, 0, 1], true),
    ] {
        let (hostile, importer) = world.hostile(&listener).await;
        let (mut control, _answers) = hostile.open_bi().await.unwrap();
        control.write_all(&bytes).await.unwrap();
        if finish {
            control.finish().unwrap();
        }
        let (_send, mut frames) = importer.accept_control().await.unwrap();
        let error = timeout(PATIENCE, frames.recv()).await.unwrap().unwrap_err();
        let right = match finish {
            false => matches!(error, Error::Malformed { .. }),
            true => matches!(error, Error::Truncated { .. }),
        };
        assert!(right, "{bytes:?}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exporter_cannot_open_more_streams_than_its_lanes_need() {
    let world = World::new();
    let listener = world.listen(Settings { lanes: 2, ..Settings::default() }).await;
    let (hostile, _importer) = world.hostile(&listener).await;
    let mut open = Vec::new();
    while let Ok(stream) = timeout(Duration::from_millis(200), hostile.open_uni()).await {
        open.push(stream.unwrap());
    }
    assert_eq!(open.len(), 2 + 4);
    let _control = hostile.open_bi().await.unwrap();
    assert!(timeout(Duration::from_millis(200), hostile.open_bi()).await.is_err(), "a second control stream");
    assert!(hostile.max_datagram_size().is_none(), "datagrams are not used");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_says_what_it_is_and_counts_every_byte_by_cause() {
    let world = World::new();
    let settings = Settings { rate: Some(400_000_000), ..Settings::default() };
    let (_listener, exporter, importer) = world.joined(settings).await;
    let mut meter = PathMeter::default();
    meter.read(&exporter);
    let mut lane = exporter.open_lane(preface(0)).await.unwrap();
    let (header, body) = parcel(0, 500_000);
    lane.send(&header, body).await.unwrap();
    let mut received = importer.accept_lane().await.unwrap();
    received.recv().await.unwrap();
    let (path, added) = meter.read(&exporter);
    assert_eq!((path.congestion, path.ceiling_bits_per_second), ("governed", Some(400_000_000)));
    assert_eq!(path.floor_bits_per_second, Some(200_000_000));
    assert!(path.goodput_bits_per_second > 0 && path.udp_send_buffer_bytes > 0);
    let (stats, sum) = (exporter.stats(), path.sent.causes().iter().map(|(_, bytes)| bytes).sum::<u64>());
    assert!(sum <= stats.sent.total() && sum > 500_000 && path.sent.handshake_bytes > 1000, "{path:?}");
    assert!(added.first_bytes > 500_000 && added.handshake_bytes == 0, "{added:?}");
    let (other, _) = PathMeter::default().read(&importer);
    assert_eq!((other.congestion, other.rate_bits_per_second), ("fixed", None));
    assert_eq!(importer.stats().parcel_bytes_received, stats.parcel_bytes_sent);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rate_holds_on_the_wire_and_follows_a_change() {
    let world = World::new();
    let listener = world.listen(Settings::default()).await;
    let dialer = world.dialer(Settings { rate: Some(8_000_000), ..Settings::default() });
    let (exporter, importer) = meet(&dialer, listener.local_addr(), &listener).await;
    let mut lane = exporter.open_lane(preface(0)).await.unwrap();
    let sending = tokio::spawn(async move {
        for sequence in 0.. {
            let (header, body) = parcel(sequence, 20_000);
            if lane.send(&header, body).await.is_err() {
                return;
            }
        }
    });
    let mut received = importer.accept_lane().await.unwrap();
    let reading = tokio::spawn(async move { while let Ok(Some(_)) = received.recv().await {} });
    let bits_in = async |milliseconds: u64| {
        let (began, before) = (Instant::now(), exporter.stats().sent.total());
        sleep(Duration::from_millis(milliseconds)).await;
        (exporter.stats().sent.total() - before) as f64 * 8.0 / began.elapsed().as_secs_f64()
    };
    sleep(Duration::from_millis(300)).await;
    let first = bits_in(1000).await;
    // One batch may be under way at each end of the measurement.
    assert!(first < 8.6e6, "{first} bits a second at 8 Mbit/s");
    dialer.rate().grant(Some(2_000_000));
    sleep(Duration::from_millis(100)).await;
    let second = bits_in(1000).await;
    assert!(second < 2.4e6, "{second} bits a second at 2 Mbit/s");
    dialer.rate().grant(None);
    sleep(Duration::from_millis(100)).await;
    assert!(bits_in(1000).await > 2.4e6, "a rate that is raised again is used");
    sending.abort();
    reading.abort();
}

/// Bytes that lanes of these weights carry side by side over a narrow link, each with always something to send.
async fn carried_by(weights: &[u16]) -> Vec<u64> {
    let world = World::new();
    let settings = Settings { lanes: 8, rate: Some(16_000_000), ..Settings::default() };
    let listener = world.listen(settings.clone()).await;
    let dialer = world.dialer(settings);
    let (exporter, importer) = meet(&dialer, listener.local_addr(), &listener).await;
    let mut tasks = JoinSet::new();
    for (number, weight) in (0..).zip(weights) {
        let mut lane = exporter.open_lane(preface(number)).await.unwrap();
        lane.set_weight(*weight);
        tasks.spawn(async move {
            for sequence in 0.. {
                let (header, body) = parcel(sequence, 20_000);
                if lane.send(&header, body).await.is_err() {
                    return;
                }
            }
        });
    }
    let carried: Arc<Vec<AtomicU64>> = Arc::new(weights.iter().map(|_| 0.into()).collect());
    for _ in weights {
        let mut lane = importer.accept_lane().await.unwrap();
        let carried = Arc::clone(&carried);
        tasks.spawn(async move {
            let number = usize::from(lane.preface().lane.0);
            while let Ok(Some((_, body))) = lane.recv().await {
                carried[number].fetch_add(body.len() as u64, Ordering::Relaxed);
            }
        });
    }
    // What was taken before all had something to send says nothing.
    sleep(Duration::from_millis(1000)).await;
    let read = || carried.iter().map(|bytes| bytes.load(Ordering::Relaxed)).collect::<Vec<_>>();
    let before = read();
    sleep(Duration::from_millis(3000)).await;
    read().iter().zip(before).map(|(after, before)| after - before).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn lanes_share_a_full_link_by_their_weights_and_none_starves() {
    for weights in [vec![1, 1, 1], vec![1, 3, 8], vec![20, 4]] {
        let carried = carried_by(&weights).await;
        let (all, sum) =
            (carried.iter().sum::<u64>() as f64, weights.iter().map(|it| f64::from(*it)).sum::<f64>());
        for (weight, bytes) in weights.iter().zip(&carried) {
            let share = *bytes as f64 / all / (f64::from(*weight) / sum);
            assert!((0.85..1.15).contains(&share), "weights {weights:?} carried {carried:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn control_frames_pass_while_lanes_fill_the_link() {
    let world = World::new();
    let listener = world.listen(Settings::default()).await;
    let dialer = world.dialer(Settings { rate: Some(4_000_000), ..Settings::default() });
    let (exporter, importer) = meet(&dialer, listener.local_addr(), &listener).await;
    let (mut control, _answers) = exporter.open_control().await.unwrap();
    let mut lane = exporter.open_lane(preface(0)).await.unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        for sequence in 0.. {
            let (header, body) = parcel(sequence, 1 << 20);
            if lane.send(&header, body).await.is_err() {
                return;
            }
        }
    });
    let mut received = importer.accept_lane().await.unwrap();
    tasks.spawn(async move { while let Ok(Some(_)) = received.recv().await {} });
    sleep(Duration::from_millis(1000)).await;
    let first = frame(b"first");
    let (said, accepted) = tokio::join!(control.send(&first), importer.accept_control());
    said.unwrap();
    let (_send, mut frames) = accepted.unwrap();
    frames.recv().await.unwrap().unwrap();
    let mut slowest = Duration::ZERO;
    for number in 0..20_u8 {
        let began = Instant::now();
        control.send(&frame(&[number; 5000])).await.unwrap();
        frames.recv().await.unwrap().unwrap();
        slowest = slowest.max(began.elapsed());
        sleep(Duration::from_millis(30)).await;
    }
    // One parcel alone takes two seconds, and four windows of them wait.
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn at_the_least_rate_an_importer_is_reached_again_and_again() {
    let world = World::new();
    let listener = world.listen(Settings::default()).await;
    let dialer = world.dialer(Settings { rate: Some(link::LEAST_RATE), ..Settings::default() });
    for attempt in 0..4 {
        // From the second on it has a second, as the round trip is known then, and what was sent before is still owed.
        if let Err(error) = dialer.dial(&listener.local_addr().to_string()).await {
            panic!("attempt {attempt}: {error}");
        }
    }
}
