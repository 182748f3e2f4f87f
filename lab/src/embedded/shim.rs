//! The TCP front of the embedded broker.

use std::collections::HashSet;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use krafka::testing::FakeBroker;

use super::{TopicConfigs, answers};
use crate::net::Acceptor;
use crate::wire::{ApiKey, Reader, RequestHeader, read_frame, write_frame};

const DELETE_TOPICS: ApiKey = ApiKey(20);
const DESCRIBE_CONFIGS: ApiKey = ApiKey(32);
const CREATE_PARTITIONS: ApiKey = ApiKey(37);

/// Listens for clients and passes them on to the broker.
#[derive(Debug)]
pub(super) struct Shim {
    acceptor: Acceptor,
}

#[derive(Debug, Clone)]
struct Back {
    broker: Weak<FakeBroker>,
    address: SocketAddr,
    configs: TopicConfigs,
}

/// What becomes of a request.
enum Way {
    Forward(Vec<u8>),
    /// Forwarded as version 3, so the answer has to be turned back.
    ForwardEndTxn(Vec<u8>),
    Answer(Vec<u8>),
}

impl Shim {
    pub(super) fn start(broker: Arc<FakeBroker>, configs: TopicConfigs) -> io::Result<Self> {
        let address = broker.broker_addr(0).ok_or(io::ErrorKind::NotConnected)?;
        let back = Back { broker: Arc::downgrade(&broker), address, configs };
        // An error ends one connection; the client comes again.
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let acceptor = Acceptor::spawn(listener, move |client| drop(serve(&back, &client)))?;
        Ok(Self { acceptor })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.acceptor.address()
    }
}

fn serve(back: &Back, client: &TcpStream) -> io::Result<()> {
    let broker = TcpStream::connect(back.address)?;
    client.set_nodelay(true)?;
    broker.set_nodelay(true)?;
    let to_client = Mutex::new(client.try_clone()?);
    let old_end_txns = Mutex::new(HashSet::new());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            drop(pump_answers(&broker, &to_client, &old_end_txns));
            close(client, &broker);
        });
        let ended = pump_requests(back, client, &broker, &to_client, &old_end_txns);
        close(client, &broker);
        ended
    })
}

fn pump_requests(
    back: &Back,
    mut client: &TcpStream,
    mut broker: &TcpStream,
    to_client: &Mutex<TcpStream>,
    old_end_txns: &Mutex<HashSet<i32>>,
) -> io::Result<()> {
    while let Some(frame) = read_frame(&mut client)? {
        let header = RequestHeader::parse(&frame).ok_or(io::ErrorKind::InvalidData)?;
        match back.way(&header, frame).ok_or(io::ErrorKind::InvalidData)? {
            Way::Forward(frame) => write_frame(&mut broker, &frame)?,
            Way::ForwardEndTxn(frame) => {
                lock(old_end_txns).insert(header.correlation_id);
                write_frame(&mut broker, &frame)?;
            }
            Way::Answer(answer) => write_frame(&mut *lock(to_client), &answer)?,
        }
    }
    Ok(())
}

fn pump_answers(
    mut broker: &TcpStream,
    to_client: &Mutex<TcpStream>,
    old_end_txns: &Mutex<HashSet<i32>>,
) -> io::Result<()> {
    while let Some(mut frame) = read_frame(&mut broker)? {
        let correlation = Reader::new(&frame).i32().ok_or(io::ErrorKind::InvalidData)?;
        if lock(old_end_txns).remove(&correlation) {
            frame = answers::end_txn_answer_as_v1(&frame).ok_or(io::ErrorKind::InvalidData)?;
        }
        write_frame(&mut *lock(to_client), &frame)?;
    }
    Ok(())
}

impl Back {
    /// `None` for a request that is not well formed.
    fn way(&self, header: &RequestHeader, frame: Vec<u8>) -> Option<Way> {
        Some(match (header.api_key, header.version) {
            (ApiKey::EndTxn, 0 | 1) => Way::ForwardEndTxn(answers::end_txn_as_v3(&frame)?),
            (DELETE_TOPICS, 1 | 2) => Way::Forward(answers::with_version(&frame, 3)?),
            (ApiKey::CreateTopics, _) => {
                self.remember(answers::created_topics(&frame)?);
                Way::Forward(frame)
            }
            (DESCRIBE_CONFIGS, _) => {
                Way::Answer(answers::describe_configs(&frame, |topic| self.configs_of(topic))?)
            }
            (CREATE_PARTITIONS, _) => {
                let grow = |topic: &str, total| {
                    self.broker.upgrade().is_some_and(|broker| broker.add_partitions(topic, total) > 0)
                };
                Way::Answer(answers::create_partitions(&frame, grow)?)
            }
            _ => Way::Forward(frame),
        })
    }

    /// Configurations of topics that are about to be created; those that exist keep theirs.
    fn remember(&self, topics: Vec<(String, std::collections::BTreeMap<String, String>)>) {
        let Some(broker) = self.broker.upgrade() else { return };
        for (name, configs) in topics {
            if broker.topic_id(&name).is_none() {
                lock(&self.configs).insert(name, configs);
            }
        }
    }

    fn configs_of(&self, topic: &str) -> Option<std::collections::BTreeMap<String, String>> {
        self.broker.upgrade()?.topic_id(topic)?;
        Some(lock(&self.configs).get(topic).cloned().unwrap_or_default())
    }
}

/// A socket that is closed already is what was wanted.
fn close(client: &TcpStream, broker: &TcpStream) {
    drop(client.shutdown(Shutdown::Both));
    drop(broker.shutdown(Shutdown::Both));
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
