//! A TCP proxy with faults: once, it lets an EndTxn request through, swallows its answer and cuts the connection; or it
//! swallows the answers to Fetch of the connections that there are.

use std::{
    collections::HashSet,
    io::{self, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering},
    },
    thread,
};

pub(crate) struct Proxy {
    /// Where it listens.
    pub(crate) address: String,
    swallow: Arc<AtomicBool>,
    /// Connections begun before this one get no more answers to Fetch.
    starving: Arc<AtomicUsize>,
    connections: Arc<AtomicUsize>,
}

impl Proxy {
    /// Listens on loopback and forwards to `target`, as long as the process lives.
    pub(crate) fn start(target: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let swallow = Arc::new(AtomicBool::new(false));
        let (starving, connections) = (Arc::default(), Arc::<AtomicUsize>::default());
        let (flag, starved, count) = (Arc::clone(&swallow), Arc::clone(&starving), Arc::clone(&connections));
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(&target) else { continue };
                let number = count.fetch_add(1, Ordering::SeqCst);
                connect(client, server, Arc::clone(&flag), (number, Arc::clone(&starved)));
            }
        });
        Self { address, swallow, starving, connections }
    }

    /// Swallows all answers to Fetch on the connections that there are; new ones work.
    pub(crate) fn starve(&self) {
        self.starving.store(self.connections.load(Ordering::SeqCst), Ordering::SeqCst);
    }

    /// Swallows the answer to the next EndTxn.
    pub(crate) fn swallow_next_end_txn(&self) {
        self.swallow.store(true, Ordering::SeqCst);
    }

    pub(crate) fn has_swallowed(&self) -> bool {
        !self.swallow.load(Ordering::SeqCst)
    }
}

fn connect(
    client: TcpStream,
    server: TcpStream,
    swallow: Arc<AtomicBool>,
    (number, starving): (usize, Arc<AtomicUsize>),
) {
    let fetches: Arc<Mutex<HashSet<i32>>> = Arc::default();
    let fetched = Arc::clone(&fetches);
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
            if api_key == 1 {
                fetches.lock().unwrap().insert(correlation);
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
            if fetched.lock().unwrap().remove(&correlation) && number < starving.load(Ordering::SeqCst) {
                return Ok(());
            }
            to.write_all(frame)
        });
        let _ = (result, to.shutdown(Shutdown::Both));
    });
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
