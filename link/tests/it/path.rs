//! A path that dies, and that it is noticed at once.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use link::{Connection, Dialer, Greeting, Settings};
use longhaul_link as link;
use tokio::time::{Instant, sleep, timeout};

use crate::{
    relay::Relay,
    world::{PATIENCE, World, accept, frame, id, meet, parcel, preface},
};

/// Both ends of a connection through `relay`, with a moment for handshake and MTU probes to be over.
async fn settled(
    world: &World,
    delay: Duration,
) -> (link::Listener, Relay, link::Dialer, Connection, Connection) {
    let listener = world.listen(Settings::default()).await;
    let relay = Relay::to(listener.local_addr(), delay).await;
    let dialer = world.dialer(Settings::default());
    let (exporter, importer) = meet(&dialer, relay.address, &listener).await;
    sleep(Duration::from_millis(500)).await;
    (listener, relay, dialer, exporter, importer)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_with_data_outstanding_is_a_stall_and_a_fresh_dial_is_up_at_once() {
    let world = World::new();
    let (listener, relay, dialer, exporter, importer) = settled(&world, Duration::ZERO).await;
    let mut lane = exporter.open_lane(preface(0)).await.unwrap();
    let (header, body) = parcel(0, 200_000);
    lane.send(&header, body).await.unwrap();
    let mut received = importer.accept_lane().await.unwrap();
    received.recv().await.unwrap();

    relay.cut();
    let cut = Instant::now();
    let (header, body) = parcel(1, 200_000);
    lane.send(&header, body).await.unwrap();
    let stall = timeout(PATIENCE, exporter.stalled()).await.expect("the stall is noticed");
    let noticed = cut.elapsed();
    // By design about 1.2 s; a busy machine may be late, QUIC itself would take its idle time of 20 s.
    assert!(noticed > Duration::from_millis(900) && noticed < Duration::from_secs(5), "{noticed:?}");
    assert!(stall.silent > Duration::from_secs(1), "{stall}");
    assert!(!exporter.is_closed(), "what to do about it is for the caller to say");

    relay.restore();
    let restored = Instant::now();
    let (fresh, _accepted) = meet(&dialer, relay.address, &listener).await;
    assert!(restored.elapsed() < Duration::from_secs(3), "{:?}", restored.elapsed());
    let (mut control, _answers) = fresh.open_control().await.unwrap();
    control.send(&frame(b"hello again")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_is_a_stall_for_the_importer_too() {
    let world = World::new();
    let (_listener, relay, _dialer, exporter, importer) = settled(&world, Duration::ZERO).await;
    let (mut control, _answers) = exporter.open_control().await.unwrap();
    control.send(&frame(b"hello")).await.unwrap();
    let (mut answers, _requests) = importer.accept_control().await.unwrap();
    relay.cut();
    answers.send(&frame(b"welcome")).await.unwrap();
    timeout(PATIENCE, importer.stalled()).await.expect("the stall is noticed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_path_that_owes_nothing_is_no_stall() {
    let world = World::new();
    let (_listener, relay, _dialer, exporter, importer) = settled(&world, Duration::ZERO).await;
    let mut lane = exporter.open_lane(preface(0)).await.unwrap();
    let (header, body) = parcel(0, 200_000);
    lane.send(&header, body).await.unwrap();
    let mut received = importer.accept_lane().await.unwrap();
    received.recv().await.unwrap();
    // Let the last acknowledgements and a keep-alive, if one is due, pass.
    sleep(Duration::from_millis(300)).await;
    relay.cut();
    let idle = Duration::from_millis(2500);
    let (one, other) = tokio::join!(timeout(idle, exporter.stalled()), timeout(idle, importer.stalled()));
    assert!(one.is_err() && other.is_err(), "{one:?} {other:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_long_path_is_no_stall() {
    let world = World::new();
    let (_listener, _relay, _dialer, exporter, importer) = settled(&world, Duration::from_millis(50)).await;
    assert!(exporter.stats().rtt >= Duration::from_millis(90), "{:?}", exporter.stats());
    let sending = async {
        let mut lane = exporter.open_lane(preface(0)).await.unwrap();
        for sequence in 0..30 {
            let (header, body) = parcel(sequence, 50_000);
            lane.send(&header, body).await.unwrap();
            sleep(Duration::from_millis(80)).await;
        }
        lane.finish().unwrap();
    };
    let receiving = async {
        let mut lane = importer.accept_lane().await.unwrap();
        while lane.recv().await.unwrap().is_some() {}
    };
    tokio::select! {
        done = timeout(PATIENCE, async { tokio::join!(sending, receiving) }) => { done.unwrap(); }
        stall = exporter.stalled() => panic!("{stall}"),
        stall = importer.stalled() => panic!("{stall}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_over_does_not_stall() {
    let world = World::new();
    let (_listener, exporter, importer) = world.joined(Settings::default()).await;
    importer.close(link::CloseCode::Done, "");
    exporter.closed().await;
    assert!(timeout(Duration::from_millis(1500), exporter.stalled()).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_are_bounded_by_what_is_known_of_the_path() {
    let world = World::new();
    let listener = world.listen(Settings::default()).await;
    let relay = Relay::to(listener.local_addr(), Duration::from_millis(200)).await;
    let dialer = world.dialer(Settings::default());
    assert_eq!(dialer.attempt_timeout(), Duration::from_secs(2));
    let address = relay.address.to_string();
    let (dialled, accepted) = tokio::join!(dialer.dial(&address), accept(&listener));
    dialled.unwrap();
    accepted.unwrap();
    // Three round trips of 400 ms and what a busy machine adds.
    assert!(dialer.attempt_timeout() >= Duration::from_millis(1150), "{:?}", dialer.attempt_timeout());
}

/// Says how many said it before.
fn greeting() -> Arc<Greeting> {
    let said = AtomicU8::new(0);
    Arc::new(Greeting::new(move || frame(&[said.fetch_add(1, Ordering::Relaxed)])))
}

/// The path is so long that several attempts overlap before one is through.
#[tokio::test(flavor = "multi_thread")]
async fn of_attempts_that_are_raced_one_says_hello_and_that_one_wins() {
    let world = World::new();
    let listener = Arc::new(world.listen(Settings::default()).await);
    let relay = Relay::to(listener.local_addr(), Duration::from_millis(200)).await;
    let dialer = Arc::new(world.dialer(Settings::default()));
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hearing = tokio::spawn({
        let (listener, heard) = (Arc::clone(&listener), Arc::clone(&heard));
        async move {
            while let Some(Ok(connection)) = listener.accept().await {
                let heard = Arc::clone(&heard);
                tokio::spawn(async move {
                    let (_send, mut recv) = connection.accept_control().await?;
                    while let Some(frame) = recv.recv().await? {
                        heard.lock().unwrap().push(frame[0]);
                    }
                    Ok::<_, link::Error>(())
                });
            }
        }
    });
    let (addresses, greeting) = ([relay.address.to_string()], greeting());
    let race = dialer.race(&addresses, 0, &greeting, |_, _| {});
    let greeted = timeout(PATIENCE, race).await.expect("the path is alive");
    // A hello that was lost comes again, a probe timeout later.
    let said = async {
        while heard.lock().unwrap().is_empty() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, said).await.expect("the winner said hello");
    sleep(Duration::from_millis(900)).await;
    assert_eq!(*heard.lock().unwrap(), [0], "the others are given up before they say anything");
    assert!(!greeted.connection.is_closed());
    hearing.abort();
}

/// R-7 on the exporter's side: a stranger does not even hear the link's name.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_the_importer_expected_is_told_nothing() {
    let world = World::new();
    let listener = world.listen(Settings::default()).await;
    let other = id("spiffe://example.org/importer/other");
    let dialer = Arc::new(Dialer::new(&world.exporter, other, Settings::default()).unwrap());
    let (addresses, greeting) = ([listener.local_addr().to_string()], greeting());
    let mut told = None;
    let race = dialer.race(&addresses, 0, &greeting, |_, error| told = Some(error.to_string()));
    let (raced, connection) = tokio::join!(timeout(Duration::from_millis(500), race), accept(&listener));
    assert!(raced.is_err(), "it is dialled on and on");
    assert!(told.unwrap().contains("is not the importer of this link"));
    assert!(connection.unwrap().accept_control().await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_addresses_the_one_that_lives_is_reached_whichever_comes_first() {
    let world = World::new();
    let listener = world.listen(Settings::default()).await;
    let dead = Relay::to(listener.local_addr(), Duration::ZERO).await;
    dead.cut();
    let dialer = Arc::new(world.dialer(Settings::default()));
    let addresses = [dead.address.to_string(), listener.local_addr().to_string()];
    for first in [0, 1] {
        let began = Instant::now();
        let greeting = greeting();
        let race = dialer.race(&addresses, first, &greeting, |_, _| {});
        let greeted = timeout(PATIENCE, race).await.expect("one lives");
        assert_eq!(greeted.place, 1);
        // By design a quarter of a second: the dead address is not waited for.
        assert!(began.elapsed() < Duration::from_millis(1900), "{:?}", began.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_that_comes_back_is_used_at_once_however_long_it_was_dead() {
    let world = World::new();
    let listener = world.listen(Settings::default()).await;
    let relay = Relay::to(listener.local_addr(), Duration::from_millis(25)).await;
    let dialer = Arc::new(world.dialer(Settings::default()));
    relay.cut();
    let (addresses, greeting) = ([relay.address.to_string()], greeting());
    let race = dialer.race(&addresses, 0, &greeting, |_, _| {});
    let restored = async {
        sleep(Duration::from_millis(2600)).await;
        relay.restore();
        Instant::now()
    };
    let (_won, restored) = tokio::join!(race, restored);
    // By design under half a second; a busy machine may be late, and QUIC itself would take its own time.
    assert!(restored.elapsed() < Duration::from_secs(3), "{:?}", restored.elapsed());
}
