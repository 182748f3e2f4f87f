//! Peers that are not who they say, or say what they must not: refused, on record, and no other link notices.
//!
//! They are made by hand on bare QUIC, for our own `link` refuses to send most of what they send.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use certs::{Authority, Identity, Kind, Validity};
use codec::{Batch, Encoder, EncoderSettings};
use lab::load::LoadOptions;
use longhaul_tests::bridge::{
    Bridge, LinkSettings, PATIENCE, Pair, Stream, Turn, Turns, say, topic, wait_until,
};
use observe::event::{Event, Refuse};
use proto::ids::{Lane, LaneEpoch};
use proto::wire::{Answer, Hello, LanePreface, Open, ParcelHeader, Request, ToExporter, ToImporter};
use tokio::runtime::Runtime;
use tokio::time::timeout;

static TURNS: Turns<Pair> = Turns::new();

/// How long an importer may take to be done with somebody.
const SOON: Duration = Duration::from_secs(15);

/// A good link at work, and beside it the link `evil`, whose exporter is us.
struct Siege<'a> {
    bridge: Bridge<'a>,
    stream: Option<Stream>,
    runtime: Runtime,
    good: String,
    evil: String,
}

impl<'a> Siege<'a> {
    fn begin(pair: &'a Turn<'_>, name: &str) -> Self {
        let source = pair.source.bootstrap();
        let (good, evil) = (name.to_owned(), format!("{name}-evil"));
        let orders = format!("{good}.orders");
        topic(&source, &orders, 2);
        let mut bridge = Bridge::new(pair, &good, &[&orders]);
        bridge.importer.links.push(LinkSettings::new(&evil, &[&format!("{evil}.granted")]));
        let stream = Some(Stream::start(&source, &orders, 300, 1, LoadOptions::default()));
        bridge.start();
        assert!(wait_until(PATIENCE, || bridge.importer.journal().events().len() > 8), "nothing flows");
        let runtime = Runtime::new().unwrap();
        Self { bridge, stream, runtime, good, evil }
    }

    fn address(&self) -> SocketAddr {
        self.bridge.importer.address().parse().unwrap()
    }

    /// The identity that the link `evil` asks for.
    fn evil_identity(&self) -> Identity {
        let id = format!("spiffe://test.example/exporter/{}", self.evil);
        Identity::load(&self.bridge.ground.exporter_identity(&id)).unwrap()
    }

    fn refusals(&self) -> Vec<Refuse> {
        self.bridge.importer.journal().refusals().cloned().collect()
    }

    /// `attack` must put one more refusal on record, with one of `words` in it.
    fn refused(&self, what: &str, words: &[&str], attack: impl AsyncFnOnce(SocketAddr)) {
        let before = self.refusals().len();
        self.runtime.block_on(attack(self.address()));
        assert!(wait_until(SOON, || self.refusals().len() > before), "{what}: nothing on record");
        let refusal = self.refusals().pop().unwrap();
        say(format_args!("{what}: {}", refusal.reason));
        let told = words.iter().any(|word| refusal.reason.to_lowercase().contains(word));
        assert!(told, "{what}: none of {words:?} in {refusal:?}");
        assert!(refusal.remote.is_some(), "{what}: no address in {refusal:?}");
    }

    /// The session that `attack` opened must end with one of `words` on record.
    fn thrown_out(&self, what: &str, words: &[&str], attack: impl AsyncFnOnce(Peer)) {
        let ended = || {
            let journal = self.bridge.importer.journal();
            let mine = journal.events().iter().filter_map(|event| match event {
                Event::Disconnect(it) if it.link == self.evil => Some(it.reason.clone()),
                _ => None,
            });
            mine.collect::<Vec<String>>()
        };
        let before = ended().len();
        let identity = self.evil_identity();
        self.runtime.block_on(async {
            let peer = Peer::admitted(&identity, self.address(), &self.evil).await;
            // The attack lasts until the connection is over: a peer that is dropped would end it itself.
            assert!(timeout(SOON, attack(peer)).await.is_ok(), "{what}: the connection lives on");
        });
        assert!(wait_until(SOON, || ended().len() > before), "{what}: its end is not on record");
        let reason = ended().pop().unwrap();
        say(format_args!("{what}: {reason}"));
        let told = words.iter().any(|word| reason.to_lowercase().contains(word));
        assert!(told, "{what}: none of {words:?} in {reason:?}");
    }

    /// The good link noticed nothing, and nothing of the other is at the target.
    fn end(mut self) {
        assert!(self.bridge.importer.is_running(), "the importer ended");
        let peak = self.bridge.importer.peak_memory_bytes() >> 20;
        assert!(peak < 300, "the importer took {peak} MiB");
        let events = self.bridge.exporter.journal();
        let cuts = events.events().iter().filter(|it| matches!(it, Event::Disconnect(_))).count();
        assert_eq!(cuts, 0, "the good link was cut");
        let written = self.stream.take().unwrap().stop();
        let orders = format!("{}.orders", self.good);
        let report = self.bridge.settle(&[&orders], PATIENCE);
        assert_eq!(report.records(), written.visible);
        let topics = self.bridge.pair.target_admin().topics(PATIENCE).unwrap();
        let mine: Vec<_> = topics.iter().filter(|it| it.name.starts_with(&self.evil)).collect();
        assert!(mine.is_empty(), "{mine:?} came to be");
    }
}

/// One end of a bare QUIC connection.
struct Peer {
    connection: quinn::Connection,
    send: quinn::SendStream,
    recv: quinn::RecvStream,
    _endpoint: quinn::Endpoint,
}

async fn connect(
    tls: rustls::ClientConfig,
    to: SocketAddr,
) -> Result<(quinn::Endpoint, quinn::Connection), quinn::ConnectionError> {
    let tls = quinn::crypto::rustls::QuicClientConfig::try_from(tls).unwrap();
    let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let config = quinn::ClientConfig::new(Arc::new(tls));
    let connection = endpoint.connect_with(config, to, "localhost").unwrap().await?;
    Ok((endpoint, connection))
}

/// The server's refusal may come after the handshake succeeded here.
async fn must_fail(tls: rustls::ClientConfig, to: SocketAddr) {
    if let Ok((_endpoint, connection)) = connect(tls, to).await {
        timeout(SOON, connection.closed()).await.expect("it was let in");
    }
}

impl Peer {
    async fn connected(identity: &Identity, to: SocketAddr) -> Self {
        let (endpoint, connection) = connect(identity.client_config().unwrap(), to).await.unwrap();
        let (send, recv) = connection.open_bi().await.unwrap();
        Self { connection, send, recv, _endpoint: endpoint }
    }

    /// Lets itself in as the exporter of `link`, in place of any other of its sessions.
    async fn admitted(identity: &Identity, to: SocketAddr, link: &str) -> Self {
        static NONCE: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(100);
        let nonce = NONCE.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let mut peer = Self::connected(identity, to).await;
        peer.say(hello(link, "evil", nonce)).await;
        let answer = timeout(SOON, peer.hear()).await.expect("a welcome in time");
        assert!(matches!(answer, Some(Answer::Welcome(_))), "{answer:?}");
        peer
    }

    async fn say(&mut self, request: Request) {
        self.write(&ToImporter { request: Some(request) }.encode_frame()).await;
    }

    /// On the control stream. A peer that was thrown out already cannot; that shows elsewhere.
    async fn write(&mut self, bytes: &[u8]) {
        let _ = self.send.write_all(bytes).await;
    }

    async fn hear(&mut self) -> Option<Answer> {
        let mut length = [0; 4];
        self.recv.read_exact(&mut length).await.ok()?;
        let mut frame = vec![0; u32::from_le_bytes(length) as usize];
        self.recv.read_exact(&mut frame).await.ok()?;
        ToExporter::decode_frame(&frame).unwrap().answer
    }

    /// A lane stream with these bytes in it; it stays open.
    async fn lane(&self, bytes: &[u8]) {
        let mut lane = self.connection.open_uni().await.unwrap();
        let _ = lane.write_all(bytes).await;
        // Dropped it would end in good order, which says something too.
        std::mem::forget(lane);
    }
}

fn hello(link: &str, instance: &str, nonce: u64) -> Request {
    Request::Hello(Hello {
        versions: vec![proto::limits::PROTOCOL_VERSION],
        link: link.to_owned(),
        source_cluster_id: "evil-cluster".to_owned(),
        instance: instance.to_owned(),
        nonce,
    })
}

fn open(slot: u32, topic: &str) -> Request {
    Request::Open(Open {
        slot,
        topic_id: vec![7; 16],
        topic: topic.to_owned(),
        partition: 0,
        partition_count: 1,
        log_start: 0,
        end: 10,
        start: 0,
    })
}

fn preface() -> Vec<u8> {
    let version = u16::from(codec::VERSION);
    LanePreface { lane: Lane(0), codec_version: version, epoch: LaneEpoch(1) }.encode().to_vec()
}

fn header(coded: u32, plain: u32) -> Vec<u8> {
    ParcelHeader { epoch: LaneEpoch(1), sequence: 0, coded, plain }.encode().to_vec()
}

///
#[test]
fn strangers_are_refused_with_the_reason_on_record() {
    let Some(pair) = TURNS.take("hostile: strangers") else { return };
    let siege = Siege::begin(&pair, "strangers");
    let ground = &siege.bridge.ground;
    let trusted = siege.evil_identity();

    let other = Authority::create(&ground.folder("other-ca"), "other").unwrap();
    let folder = ground.folder("other");
    let id = trusted.spiffe_id().clone();
    other.issue(&folder, Kind::Exporter, &id, &[], Validity::for_days(1)).unwrap();
    // It trusts the importer, so that it is the importer who refuses.
    std::fs::write(folder.join(certs::ROOTS_FILE), ground.authority().certificate_pem()).unwrap();
    let stranger = Identity::load(&folder).unwrap().client_config().unwrap();
    siege.refused("another authority", &["authority", "issuer", "trust"], async |to| {
        must_fail(stranger, to).await
    });

    let short = ground.short_lived_exporter_identity(&format!("{id}/short"), Duration::from_secs(2));
    let expired = Identity::load(&short).unwrap().client_config().unwrap();
    std::thread::sleep(Duration::from_secs(3));
    siege.refused("expired", &["expired"], async |to| must_fail(expired, to).await);

    let mut other_protocol = trusted.client_config().unwrap();
    other_protocol.alpn_protocols = vec![b"h3".to_vec()];
    siege.refused("another protocol", &["longhaul/1"], async |to| must_fail(other_protocol, to).await);

    let mut anonymous = trusted.client_config().unwrap();
    anonymous.client_auth_cert_resolver = Arc::new(NoCertificate);
    siege.refused("no certificate", &["no certificate"], async |to| must_fail(anonymous, to).await);
    siege.end();
}

#[derive(Debug)]
struct NoCertificate;

impl rustls::client::ResolvesClientCert for NoCertificate {
    fn resolve(
        &self,
        _hints: &[&[u8]],
        _schemes: &[rustls::SignatureScheme],
    ) -> Option<Arc<rustls::sign::CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

/// who is trusted is still let into its own link only, and once.
#[test]
fn the_known_are_refused_what_is_not_theirs() {
    let Some(pair) = TURNS.take("hostile: known peers") else { return };
    let siege = Siege::begin(&pair, "known");
    let identity = siege.evil_identity();
    let hello_is_refused = async |to: SocketAddr, request: Request| {
        let mut peer = Peer::connected(&identity, to).await;
        peer.say(request).await;
        timeout(SOON, peer.connection.closed()).await.expect("it was let in");
    };
    siege.refused("the link of another", &["spiffe", "identity"], async |to| {
        hello_is_refused(to, hello(&siege.good, "evil", 1)).await;
    });
    siege.refused("a link that does not exist", &["nowhere"], async |to| {
        hello_is_refused(to, hello("nowhere", "evil", 1)).await;
    });
    siege.refused("an open before hello", &["hello", "handshake"], async |to| {
        hello_is_refused(to, open(1, "x")).await;
    });
    for (topic, words) in
        [(format!("{}.forbidden", siege.evil), "grant"), ("__consumer_offsets".into(), "internal")]
    {
        siege.refused("a topic outside the grant", &[words], async |to| {
            let mut peer = Peer::admitted(&identity, to, &siege.evil).await;
            peer.say(open(3, &topic)).await;
            let answer = timeout(SOON, peer.hear()).await.unwrap();
            assert!(matches!(answer, Some(Answer::Refuse(_))), "{answer:?}");
            peer.connection.close(0_u8.into(), b"");
        });
    }
    siege.refused("an older connection of the same exporter", &["newer"], async |to| {
        let first = Peer::admitted(&identity, to, &siege.evil).await;
        hello_is_refused(to, hello(&siege.evil, "evil", 1)).await;
        assert!(first.connection.close_reason().is_none(), "the newer connection was cut for an older one");
    });
    siege.refused("a second exporter of the link", &["in use"], async |to| {
        let first = Peer::admitted(&identity, to, &siege.evil).await;
        hello_is_refused(to, hello(&siege.evil, "another", 999)).await;
        assert!(first.connection.close_reason().is_none(), "the first exporter was cut for another");
    });
    siege.end();
}

/// whatever a trusted exporter's host sends when it is taken over.
#[test]
fn garbage_and_lies_end_their_own_session_only() {
    let Some(pair) = TURNS.take("hostile: garbage") else { return };
    let siege = Siege::begin(&pair, "garbage");
    siege.thrown_out("a control message of garbage", &["message", "decode", "misbehav"], async |mut peer| {
        peer.write(&[&40_u32.to_le_bytes()[..], &[0xff; 40]].concat()).await;
        peer.connection.closed().await;
    });
    siege.thrown_out(
        "a control message of 2^31 bytes",
        &["2147483648", "limit", "bytes"],
        async |mut peer| {
            let _ = peer.send.write_all(&(1_u32 << 31).to_le_bytes()).await;
            let _ = peer.send.write_all(&[0; 1000]).await;
            // Open until it is thrown out.
            timeout(SOON, peer.connection.closed()).await.ok();
        },
    );
    siege.thrown_out("a second hello", &["hello"], async |mut peer| {
        peer.say(hello("whatever", "evil", 12_345)).await;
        timeout(SOON, peer.connection.closed()).await.ok();
    });
    siege.thrown_out("a stream that is no lane", &["lane"], async |peer| {
        peer.lane(b"GET / HTTP/1.1\r\n").await;
        peer.connection.closed().await;
    });
    for (what, coded, plain) in [("coded", 1_u32 << 31, 100), ("plain", 100, 1_u32 << 31)] {
        siege.thrown_out(&format!("a {what} size of 2^31"), &["size", "2147483648"], async |peer| {
            peer.lane(&[preface(), header(coded, plain), vec![0; 100]].concat()).await;
            peer.connection.closed().await;
        });
    }
    siege.thrown_out("a partition that was never opened", &["slot", "open", "partition"], async |peer| {
        let mut batch = Batch::new();
        let group = batch.group_index(7);
        batch.push(group, 0, 1_700_000_000_000, None, Some(b"smuggled"), std::iter::empty());
        batch.groups_mut()[group].next = 1;
        let mut body = Vec::new();
        let sizes = Encoder::new(EncoderSettings::default()).unwrap().encode(&batch, &mut body).unwrap();
        peer.lane(&[preface(), header(sizes.coded, sizes.plain), body].concat()).await;
        peer.connection.closed().await;
    });
    siege.end();
}

/// a parcel that does not decode ends the lane's epoch, and nothing of it is ever written.
#[test]
fn parcels_of_noise_reset_their_lane_and_write_nothing() {
    let Some(pair) = TURNS.take("hostile: noise") else { return };
    let siege = Siege::begin(&pair, "noise");
    let identity = siege.evil_identity();
    siege.runtime.block_on(async {
        let mut peer = Peer::admitted(&identity, siege.address(), &siege.evil).await;
        peer.lane(&[preface(), header(1000, 5000), vec![0x5a; 1000]].concat()).await;
        let answer = timeout(SOON, async {
            loop {
                match peer.hear().await {
                    Some(Answer::LaneReset(reset)) => break Some(reset),
                    Some(_) => {}
                    None => break None,
                }
            }
        });
        let reset = answer.await.expect("an answer in time").expect("a reset of the lane before the end");
        say(format_args!("noise was answered by {reset:?}"));
    });
    let on_record = || siege.refusals().iter().any(|it| it.reason.contains("does not decode"));
    assert!(wait_until(SOON, on_record), "nothing on record: {:?}", siege.refusals());
    siege.end();
}

/// a flood does not fill the audit log. The first of its kind are there one by one, and nobody is missing in the sum.
#[test]
fn a_flood_of_strangers_is_counted_and_not_listed() {
    let Some(pair) = TURNS.take("hostile: flood") else { return };
    let siege = Siege::begin(&pair, "flood");
    let mut anonymous = siege.evil_identity().client_config().unwrap();
    anonymous.client_auth_cert_resolver = Arc::new(NoCertificate);
    let before = siege.refusals().len();
    let attempts = 300;
    siege.runtime.block_on(async {
        for _ in 0..attempts {
            must_fail(anonymous.clone(), siege.address()).await;
        }
    });
    assert!(wait_until(SOON, || siege.refusals().len() >= before + 3), "the first are not on record");
    assert!(siege.refusals().len() <= before + 20, "{} lines", siege.refusals().len() - before);
    let counted = || {
        let refusals = siege.refusals();
        let mut counts = refusals[before..].iter().map(|it| {
            let times = it.reason.split_once(" more times within ");
            times.map_or(1, |(count, _)| count.parse::<usize>().unwrap())
        });
        counts.by_ref().sum::<usize>() >= attempts
    };
    assert!(wait_until(Duration::from_secs(90), counted), "{:?}", &siege.refusals()[before..]);
    siege.end();
}
