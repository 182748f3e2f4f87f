//! The proxy in front of a broker that answers everything with throttle time 0 and error code 0.

use std::net::TcpListener;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::*;
use crate::wire::{Writer, read_frame, write_frame};

const SOON: Duration = Duration::from_secs(5);
const MOMENT: Duration = Duration::from_millis(150);

struct Fixture {
    proxy: Proxy,
    /// Requests that reached the broker.
    arrived: Arc<AtomicU64>,
}

fn fixture() -> Fixture {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = listener.local_addr().unwrap().to_string();
    let arrived = Arc::new(AtomicU64::new(0));
    let counted = arrived.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, counted) = (stream.unwrap(), counted.clone());
            std::thread::spawn(move || {
                while let Ok(Some(frame)) = read_frame(&mut stream) {
                    counted.fetch_add(1, Ordering::SeqCst);
                    let header = RequestHeader::parse(&frame).unwrap();
                    let answer = Writer::default().i32(header.correlation_id).i32(0).i16(0).finish();
                    if write_frame(&mut stream, &answer).is_err() {
                        return;
                    }
                }
            });
        }
    });
    let proxy = Proxy::bind(1).unwrap();
    proxy.forward_to(vec![target]);
    Fixture { proxy, arrived }
}

impl Fixture {
    fn client(&self) -> TcpStream {
        let stream = TcpStream::connect(self.proxy.bootstrap()).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream
    }

    fn arrived(&self) -> u64 {
        self.arrived.load(Ordering::SeqCst)
    }
}

fn send(stream: &mut TcpStream, api_key: ApiKey, id: &str) {
    let header =
        RequestHeader { api_key, version: 1, correlation_id: 5, client_id: Some("client".to_owned()) };
    let frame = Writer::request(&header, false).string(Some(id)).finish();
    write_frame(stream, &frame).unwrap();
}

/// True when an answer came, false when the connection ended first.
fn answered(stream: &mut TcpStream) -> bool {
    match read_frame(stream) {
        Ok(answer) => answer.is_some(),
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => false,
        Err(error) => panic!("neither answer nor end: {error}"),
    }
}

fn silent(stream: &mut TcpStream) -> bool {
    stream.set_read_timeout(Some(MOMENT)).unwrap();
    let silent = matches!(read_frame(stream), Err(error) if error.kind() == io::ErrorKind::WouldBlock);
    stream.set_read_timeout(Some(SOON)).unwrap();
    silent
}

#[test]
fn requests_pass_and_are_counted() {
    let it = fixture();
    let mut client = it.client();
    for _ in 0..3 {
        send(&mut client, ApiKey::EndTxn, "lane");
        assert!(answered(&mut client));
    }
    assert_eq!((it.proxy.count(ApiKey::EndTxn), it.proxy.count(ApiKey::Produce)), (3, 0));
    it.proxy.reset_counts();
    assert_eq!(it.proxy.count(ApiKey::EndTxn), 0);
}

#[test]
fn a_held_request_goes_on_where_it_came_from() {
    let it = fixture();
    let mut client = it.client();
    let held = it.proxy.hold_next(ApiKey::EndTxn);
    assert!(!held.wait(MOMENT));
    send(&mut client, ApiKey::EndTxn, "lane");
    assert!(held.wait(SOON));
    assert_eq!(it.arrived(), 0);
    assert_eq!(held.release().unwrap(), Some(0));
    assert!(answered(&mut client));
}

#[test]
fn a_held_request_arrives_although_its_client_was_cut() {
    let it = fixture();
    let mut client = it.client();
    let held = it.proxy.hold_next(Match::from(ApiKey::EndTxn).transactional_id("lane"));
    send(&mut client, ApiKey::EndTxn, "lane");
    assert!(held.wait(SOON));
    held.cut_client();
    assert!(!answered(&mut client));
    let mut again = it.client();
    send(&mut again, ApiKey::EndTxn, "lane");
    assert!(answered(&mut again), "only one request is held");
    assert_eq!(it.arrived(), 1);
    assert_eq!(held.release().unwrap(), Some(0));
    assert_eq!(it.arrived(), 2);
}

#[test]
fn a_held_request_arrives_although_every_connection_was_cut() {
    let it = fixture();
    let mut client = it.client();
    let held = it.proxy.hold_next(ApiKey::EndTxn);
    send(&mut client, ApiKey::EndTxn, "lane");
    assert!(held.wait(SOON));
    it.proxy.cut_all();
    assert!(!answered(&mut client));
    assert_eq!(held.release().unwrap(), Some(0));
    assert_eq!(it.arrived(), 1);
}

#[test]
fn a_hold_that_is_given_up_throws_its_request_away() {
    let it = fixture();
    let mut client = it.client();
    let held = it.proxy.hold_next(ApiKey::EndTxn);
    send(&mut client, ApiKey::EndTxn, "lane");
    assert!(held.wait(SOON));
    drop(held);
    assert!(!answered(&mut client));
    drop(it.proxy.hold_next(ApiKey::EndTxn));
    let mut again = it.client();
    send(&mut again, ApiKey::EndTxn, "lane");
    assert!(answered(&mut again));
    assert_eq!(it.arrived(), 1);
}

#[test]
fn dropped_cut_and_swallowed_requests_differ_in_what_the_broker_sees() {
    let cases = [(Action::CutBefore, 0), (Action::CutAfter, 1), (Action::SwallowAnswer, 1)];
    for (action, expected) in cases {
        let it = fixture();
        let rule = it.proxy.on(ApiKey::EndTxn, action, Times::Next(1));
        let mut client = it.client();
        send(&mut client, ApiKey::EndTxn, "lane");
        assert!(!answered(&mut client), "{action:?}");
        assert_eq!(rule.hits(), 1);
        let mut again = it.client();
        send(&mut again, ApiKey::EndTxn, "lane");
        assert!(answered(&mut again));
        // A connection that was cut is read by a thread of its own, perhaps later.
        let deadline = Instant::now() + SOON;
        while it.arrived() < expected + 1 && Instant::now() < deadline {
            std::thread::yield_now();
        }
        assert_eq!(it.arrived(), expected + 1, "{action:?}");
    }
    let it = fixture();
    it.proxy.on(ApiKey::EndTxn, Action::Drop, Times::Next(1));
    let mut client = it.client();
    send(&mut client, ApiKey::EndTxn, "lane");
    assert!(silent(&mut client));
    send(&mut client, ApiKey::EndTxn, "lane");
    assert!(answered(&mut client));
    assert_eq!(it.arrived(), 1);
}

#[test]
fn a_blocked_proxy_is_silent_and_then_delivers() {
    let it = fixture();
    let mut client = it.client();
    it.proxy.block();
    send(&mut client, ApiKey::EndTxn, "lane");
    let mut newcomer = it.client();
    send(&mut newcomer, ApiKey::EndTxn, "lane");
    assert!(silent(&mut client) && silent(&mut newcomer));
    assert_eq!(it.arrived(), 0);
    it.proxy.unblock();
    assert!(answered(&mut client) && answered(&mut newcomer));
}

#[test]
fn cut_connections_end_even_when_blocked() {
    let it = fixture();
    let mut client = it.client();
    send(&mut client, ApiKey::EndTxn, "lane");
    assert!(answered(&mut client));
    it.proxy.block();
    send(&mut client, ApiKey::EndTxn, "lane");
    std::thread::sleep(MOMENT);
    it.proxy.cut_all();
    assert!(!answered(&mut client));
    it.proxy.unblock();
    assert_eq!(it.proxy.connections(), 0);
    let mut again = it.client();
    send(&mut again, ApiKey::EndTxn, "lane");
    assert!(answered(&mut again));
}

/// A process that is being started holds copies of all sockets until it has become another program.
#[test]
fn processes_that_start_meanwhile_keep_no_proxy_from_listening() {
    let done = AtomicBool::new(false);
    let refused = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                Command::new("true").status().unwrap();
            }
        });
        let refused: Vec<io::Error> = (0..1000).filter_map(|_| Proxy::bind(1).err()).collect();
        done.store(true, Ordering::Relaxed);
        refused
    });
    assert!(refused.is_empty(), "{} of 1000: {}", refused.len(), refused[0]);
}
