//! A registry that is a few lines of TCP, asked as a lane asks.

use std::{
    io::{BufRead as _, BufReader, Read, Write},
    net::TcpListener,
    path::{Path, PathBuf},
    sync::atomic::AtomicUsize,
    time::{Duration, Instant},
};

use codec::{Batch, EncoderSettings};
use settings::Secret;
use tokio_rustls::rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};

use super::*;
use crate::config::{AvroSchema, SchemaRegistry};

const SCHEMA: &str = r#"{"type":"record","name":"R","fields":[{"name":"id","type":"long"},
    {"name":"name","type":["null","string"]},{"name":"value","type":"double"},{"name":"state","type":"int"}]}"#;

/// Answers on a port of its own; the answer is that to the n-th request for a path.
fn registry(answer: impl Fn(&str, usize) -> (u16, String) + Send + 'static) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/compat", listener.local_addr().unwrap());
    let asked = Arc::<AtomicUsize>::default();
    let count = Arc::clone(&asked);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            reply(&mut stream.unwrap(), |head| answer(head, count.fetch_add(1, Ordering::SeqCst)));
        }
    });
    (url, asked)
}

fn reply(stream: &mut (impl Read + Write), answer: impl Fn(&str) -> (u16, String)) {
    let lines = BufReader::new(&mut *stream).lines();
    let head: Vec<String> = lines.map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
    let (status, body) = answer(&head.join("\n"));
    let length = body.len();
    let _ =
        write!(stream, "HTTP/1.1 {status} X\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}");
}

/// Speaks TLS as `localhost`, knows one schema, and is vouched for by the authority in the file returned.
fn https_registry(dir: &Path) -> (String, PathBuf) {
    let authority = certs::Authority::create(&dir.join("ca"), "test").unwrap();
    let (id, names) = ("spiffe://example.org/registry".parse().unwrap(), ["localhost".to_owned()]);
    let validity = certs::Validity::for_days(1);
    authority.issue(&dir.join("registry"), certs::Kind::Importer, &id, &names, validity).unwrap();
    let chain =
        CertificateDer::pem_file_iter(dir.join("registry/chain.pem")).unwrap().map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(dir.join("registry/key.pem")).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
            let schema = serde_json::json!({ "schema": SCHEMA }).to_string();
            reply(&mut StreamOwned::new(connection, stream.unwrap()), |_| (200, schema.clone()));
        }
    });
    (url, dir.join("registry/roots.pem"))
}

#[tokio::test]
async fn a_registry_over_https_is_believed_if_the_authority_named_vouches_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let (url, ca) = https_registry(dir.path());
    certs::Authority::create(&dir.path().join("other"), "other").unwrap();
    for (ca, answers) in [(ca, (1, 0)), (dir.path().join("other/ca.pem"), (0, 1))] {
        let mut config = settings_of(url.clone());
        config.schema_registry.as_mut().unwrap().ca = Some(ca);
        let meters = Arc::<Meters>::default();
        let (schemas, work) = Schemas::new(&config, Arc::clone(&meters)).unwrap();
        let work = tokio::spawn(work.unwrap().run());
        bytes_once_known(&schemas, 7, || meters.known.get() + meters.failed.get() > 0).await;
        assert_eq!((meters.known.get(), meters.failed.get()), answers);
        drop(schemas);
        work.await.unwrap();
    }
}

fn settings_of(url: String) -> config::Codec {
    let password = Some(Secret::new("secret"));
    let registry = SchemaRegistry { url, ca: None, user: Some("edge".into()), password };
    config::Codec { schema_registry: Some(registry), ..config::Codec::default() }
}

fn record(id: u32, n: u64) -> Vec<u8> {
    let mut record = [&[0][..], &id.to_be_bytes()].concat();
    let (mut put, random) = (
        |number: u64| {
            let mut number = number << 1;
            while number >= 128 {
                record.push(number as u8 | 128);
                number >>= 7;
            }
            record.push(number as u8);
        },
        n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40,
    );
    put(1_000_000 + n);
    put(1);
    put(5);
    record.extend(format!("n-{:03}", random % 300).as_bytes());
    record.extend(((random % 1000) as f64 / 10.0).to_le_bytes());
    record.push((random % 8) as u8 * 2);
    record
}

fn batch(id: u32, from: u64) -> Batch {
    let mut batch = Batch::new();
    let group = batch.group_index(4);
    for n in from..from + 1000 {
        batch.push(group, n as i64, n as i64, None, Some(&record(id, n)), []);
    }
    (batch.groups_mut()[group].prev_next, batch.groups_mut()[group].next) = (from as i64, from as i64 + 1000);
    batch
}

/// Encodes until the schema is in use, at most for some seconds; the bytes of the last parcel.
async fn bytes_once_known(schemas: &Schemas, id: u32, done: impl Fn() -> bool) -> usize {
    let mut encoder = Encoder::new(EncoderSettings::default()).unwrap();
    let (mut waiting, begin) = (Waiting::default(), Instant::now());
    schemas.begin(&mut encoder);
    let (mut from, mut out, mut more) = (0, Vec::new(), 0);
    while more < 8 && begin.elapsed() < Duration::from_secs(20) {
        out.clear();
        encoder.encode(&batch(id, from), &mut out).unwrap();
        schemas.follow(&mut waiting, &mut encoder);
        from += 1000;
        more += usize::from(done());
        tokio::time::sleep(Duration::from_millis(if done() { 1 } else { 50 })).await;
    }
    out.len()
}

#[tokio::test]
async fn what_the_registry_knows_makes_records_smaller_and_a_registry_that_is_down_only_comes_later() {
    let (url, asked) = registry(|head, n| {
        assert!(head.starts_with("GET /compat/schemas/ids/7 HTTP/1.1"), "{head}");
        assert!(head.to_lowercase().contains("authorization: basic zwrnztpzzwnyzxq="), "{head}");
        // Not there at first.
        if n == 0 { (503, String::new()) } else { (200, serde_json::json!({ "schema": SCHEMA }).to_string()) }
    });
    let meters = Arc::<Meters>::default();
    let (schemas, work) = Schemas::new(&settings_of(url), Arc::clone(&meters)).unwrap();
    let work = tokio::spawn(work.unwrap().run());
    let known = bytes_once_known(&schemas, 7, || meters.known.get() == 1).await;
    assert_eq!((asked.load(Ordering::SeqCst), meters.known.get(), meters.failed.get()), (2, 1, 1));
    let (url, _) = registry(|_, _| (404, String::from("{}")));
    let none = Arc::<Meters>::default();
    let (without, refused) = Schemas::new(&settings_of(url), Arc::clone(&none)).unwrap();
    let refused = tokio::spawn(refused.unwrap().run());
    let unknown = bytes_once_known(&without, 7, || none.failed.get() == 1).await;
    assert_eq!((none.known.get(), none.failed.get()), (0, 1), "a no is not asked for again at once");
    assert!(known * 10 < unknown * 9, "{known} {unknown}");
    drop((schemas, without));
    work.await.unwrap();
    refused.await.unwrap();
}

#[test]
fn the_encoder_is_told_which_partitions_are_of_one_topic() {
    let (schemas, _) = Schemas::new(&config::Codec::default(), Arc::default()).unwrap();
    let columns = |topics: [&str; 2]| {
        let mut encoder = Encoder::new(EncoderSettings::default()).unwrap();
        for (slot, (topic, first)) in
            (0..).zip(topics.into_iter().zip(["one two", "1 2 3 4 5 6 7 8 9 10 11 12"]))
        {
            schemas.of_topic(topic, slot, &mut encoder);
            let mut batch = Batch::new();
            let group = batch.group_index(slot);
            batch.push(group, 0, 0, None, Some(first.as_bytes()), []);
            batch.groups_mut()[group].next = 1;
            encoder.encode(&batch, &mut Vec::new()).unwrap();
        }
        encoder.shapes().columns
    };
    let (same, unlike) = (columns(["lines", "lines"]), columns(["lines", "numbers"]));
    assert!(same < unlike, "{same} {unlike}");
}

#[test]
fn a_schema_file_is_for_the_topics_that_it_names() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("r.avsc");
    std::fs::write(&path, SCHEMA).unwrap();
    let avro = AvroSchema { topics: vec!["flights.*".into()], schema: path, id: None };
    let config = config::Codec { avro: vec![avro], ..config::Codec::default() };
    let (schemas, work) = Schemas::new(&config, Arc::default()).unwrap();
    assert!(work.is_none());
    let bytes = |topic: &str| {
        let mut encoder = Encoder::new(EncoderSettings::default()).unwrap();
        schemas.of_topic(topic, 4, &mut encoder);
        let mut out = Vec::new();
        (0..10).for_each(|n| {
            out.clear();
            encoder.encode(&batch(7, n * 1000), &mut out).unwrap();
        });
        out.len()
    };
    let (with, without) = (bytes("flights.eu"), bytes("orders"));
    assert!(with * 10 < without * 9, "{with} {without}");
}
