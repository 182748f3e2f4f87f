//! A TCP proxy with faults: once, it lets an EndTxn request through, swallows its answer and cuts the connection; or it
//! takes the brokers out of the cluster's metadata.

use std::{
    collections::HashSet,
    io::{self, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    thread,
};

pub(crate) struct Proxy {
    /// Where it listens.
    pub(crate) address: String,
    faults: Faults,
}

/// What the connections of a proxy share.
#[derive(Clone, Default)]
struct Faults {
    swallow: Arc<AtomicBool>,
    brokerless: Arc<AtomicBool>,
}

impl Proxy {
    /// Listens on loopback and forwards to `target`, as long as the process lives.
    pub(crate) fn start(target: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let faults = Faults::default();
        let shared = faults.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(&target) else { continue };
                connect(client, server, shared.clone());
            }
        });
        Self { address, faults }
    }

    /// While set, the cluster's metadata name no broker.
    pub(crate) fn take_brokers_away(&self, set: bool) {
        self.faults.brokerless.store(set, Ordering::SeqCst);
    }

    /// Swallows the answer to the next EndTxn.
    pub(crate) fn swallow_next_end_txn(&self) {
        self.faults.swallow.store(true, Ordering::SeqCst);
    }

    pub(crate) fn has_swallowed(&self) -> bool {
        !self.faults.swallow.load(Ordering::SeqCst)
    }
}

fn connect(client: TcpStream, server: TcpStream, faults: Faults) {
    let Faults { swallow, brokerless } = faults;
    // Questions for metadata without an answer yet.
    let questions: Arc<Mutex<HashSet<i32>>> = Arc::default();
    let answered = Arc::clone(&questions);
    // The correlation id whose answer is swallowed on this connection.
    let wanted = Arc::new(AtomicI64::new(-1));
    let (from, mut to, mark) =
        (client.try_clone().unwrap(), server.try_clone().unwrap(), Arc::clone(&wanted));
    thread::spawn(move || {
        let result = frames(from, |frame| {
            let api_key = i16::from_be_bytes([frame[4], frame[5]]);
            let correlation = i32::from_be_bytes([frame[8], frame[9], frame[10], frame[11]]);
            if api_key == 26 && swallow.swap(false, Ordering::SeqCst) {
                mark.store(i64::from(correlation), Ordering::SeqCst);
            }
            if api_key == METADATA {
                questions.lock().unwrap().insert(correlation);
            }
            to.write_all(frame)
        });
        let _ = (result, to.shutdown(Shutdown::Both));
    });
    let (mut to, from) = (client, server);
    thread::spawn(move || {
        let result = frames(from, |frame| {
            let correlation = i32::from_be_bytes([frame[4], frame[5], frame[6], frame[7]]);
            if i64::from(correlation) == wanted.load(Ordering::SeqCst) {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            let is_metadata = answered.lock().unwrap().remove(&correlation);
            if is_metadata && brokerless.load(Ordering::SeqCst) {
                return to.write_all(&without_broker(frame));
            }
            to.write_all(frame)
        });
        let _ = (result, to.shutdown(Shutdown::Both));
    });
}

const METADATA: i16 = 3;

/// Metadata (version 9 and later) of a cluster of one broker, without it: size, correlation id, tags, throttle time, brokers as
/// a compact array of id, host, port, rack and tags.
fn without_broker(frame: &[u8]) -> Vec<u8> {
    let brokers = 4 + 4 + 1 + 4;
    assert_eq!(frame[brokers], 2, "one broker is expected");
    let host = usize::from(frame[brokers + 5]) - 1;
    let rack = brokers + 6 + host + 4;
    assert_eq!(frame[rack..rack + 2], [0, 0], "no rack and no tags are expected");
    let mut without = [&frame[..brokers], &[1], &frame[rack + 2..]].concat();
    let size = u32::try_from(without.len() - 4).unwrap();
    without[..4].copy_from_slice(&size.to_be_bytes());
    without
}

/// Calls `f` with each frame, its length field included, until the stream ends or `f` fails.
fn frames(mut stream: TcpStream, mut f: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    loop {
        let mut frame = vec![0; 4];
        stream.read_exact(&mut frame)?;
        let len = u32::from_be_bytes([frame[0], frame[1], frame[2], frame[3]]) as usize;
        frame.resize(4 + len, 0);
        stream.read_exact(&mut frame[4..])?;
        f(&frame)?;
    }
}
