//! Records in Avro and in gzip: fewer bytes on the link, and exactly the same records behind it.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;

use lab::load::load;
use lab::record::Record;
use longhaul_tests::bridge::{Bridge, PATIENCE, Pair, Turns, compressed, say, settings_at, topic};
use observe::event::Event;

static TURNS: Turns<Pair> = Turns::new();

const SCHEMA: &str = r#"{"type":"record","name":"Reading","fields":[{"name":"at","type":"long"},
    {"name":"sensor","type":"string"},{"name":"value","type":["null","double"]},{"name":"state","type":"int"}]}"#;
const RECORDS: u64 = 20_000;

#[test]
fn avro_by_the_registrys_schema_needs_fewer_bytes_and_arrives_exactly() {
    let Some(pair) = TURNS.take("formats") else { return };
    // Two links carry the same records, of which one has a registry to ask.
    let wire = |link: &str, codec: &str| {
        let name = format!("{link}.readings");
        topic(&pair.source.bootstrap(), &name, 3);
        load(&settings_at(&pair.source.bootstrap()), &name, (0..RECORDS).map(reading), &compressed("lz4"))
            .unwrap();
        let mut bridge = Bridge::new(&pair, link, &[&name]);
        bridge.exporter.more = codec.to_owned();
        bridge.start();
        bridge.settle(&[&name], PATIENCE);
        let bytes = |event: &Event| if let Event::Delivered(it) = event { it.wire_bytes } else { 0 };
        bridge.exporter.journal().events().iter().map(bytes).sum::<u64>()
    };
    let without = wire("formatsplain", "[codec]\nlevel = 3\n");
    let with =
        wire("formats", &format!("[codec]\nlevel = 3\nschema_registry = {{ url = {:?} }}\n", registry()));
    say(format_args!("{RECORDS} records: {without} bytes without their schema, {with} with it"));
    assert!(with * 10 < without * 9, "{with} {without}");
}

/// A schema registry that knows one id; its address.
fn registry() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let head: Vec<String> = lines.map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
            let (status, body) = match head.first() {
                Some(line) if line.starts_with("GET /schemas/ids/7 ") => {
                    (200, serde_json::json!({ "schema": SCHEMA }).to_string())
                }
                _ => (404, "{}".to_owned()),
            };
            let length = body.len();
            let _ = write!(
                stream,
                "HTTP/1.1 {status} X\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
            );
        }
    });
    url
}

fn reading(n: u64) -> Record {
    let random = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    let mut value = vec![0, 0, 0, 0, 7];
    let mut number = (1_700_000_000_000 + n * 250 + random % 20) << 1;
    while number >= 0x80 {
        value.push(number as u8 | 0x80);
        number >>= 7;
    }
    value.push(number as u8);
    let sensor = format!("sensor-{:02}", random % 40);
    value.push(sensor.len() as u8 * 2);
    value.extend(sensor.bytes());
    if random.is_multiple_of(9) {
        value.push(0);
    } else {
        value.push(2);
        value.extend(((random % 5000) as f64 / 100.0).to_le_bytes());
    }
    value.push((random % 5) as u8 * 2);
    Record {
        partition: (n % 3) as i32,
        timestamp: 1_700_000_000_000 + n as i64 * 250,
        key: Some(sensor.into_bytes()),
        value: Some(value),
        headers: Vec::new(),
    }
}
