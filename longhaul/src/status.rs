//! `longhaul status`: what a running exporter or importer says about itself.

use std::{
    fmt::Write as _,
    io::{Read, Write, stdout},
    net::{TcpStream, ToSocketAddrs},
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use serde_json::Value;

use crate::outcome::{Outcome, UsageError};

/// Ask a running exporter or importer how it does
#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: 0 connected, nothing held, 1 no answer, 2 something is not as it should be, 64 bad usage"
)]
pub(crate) struct Command {
    /// Where its `[admin] listen` is: host:port, or a URL
    #[arg(long, value_name = "URL|ADDR", default_value = "127.0.0.1:9600")]
    admin: String,
    /// Its answer as it is, in JSON
    #[arg(long)]
    json: bool,
}

impl Command {
    pub(crate) fn run(self) -> Result<Outcome> {
        let address = address_of(&self.admin)?;
        let answer = get(address, "/api/status")?;
        let status: Value = serde_json::from_str(&answer).with_context(|| {
            format!("{address} did not answer with a status: is it the admin endpoint of Longhaul?")
        })?;
        let report = Report::new(&status)
            .ok_or_else(|| anyhow!("{address} answers, but not as an exporter or an importer of Longhaul"))?;
        let mut out = stdout().lock();
        match self.json {
            true => writeln!(out, "{}", answer.trim_end())?,
            false => write!(out, "{}", report.text)?,
        }
        Ok(if report.well { Outcome::Success } else { Outcome::Different })
    }
}

/// `host:port` of an address or of a URL whose path plays no part.
fn address_of(admin: &str) -> Result<&str> {
    let wrong = |why: &str| UsageError(format!("--admin {admin}: {why}"));
    if admin.starts_with("https://") {
        return Err(wrong("the admin endpoint speaks plain HTTP; write http:// or host:port").into());
    }
    let address = admin.strip_prefix("http://").unwrap_or(admin).split('/').next().unwrap_or_default();
    match address.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => Ok(address),
        _ => Err(wrong("write host:port, as in 127.0.0.1:9600").into()),
    }
}

/// The body of an answer with code 200.
fn get(address: &str, path: &str) -> Result<String> {
    let no_answer = || {
        format!(
            "no answer from http://{address}{path}: is the program running, and does its [admin] listen say this address?"
        )
    };
    let place = address.to_socket_addrs().with_context(no_answer)?.next().with_context(no_answer)?;
    let mut stream = TcpStream::connect_timeout(&place, PATIENCE).with_context(no_answer)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).with_context(no_answer)?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer).with_context(no_answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let Some((head, body)) = answer.split_once("\r\n\r\n") else { bail!("{address} does not speak HTTP") };
    let code = head.split(' ').nth(1).unwrap_or_default();
    if code != "200" {
        bail!("{address} answered {path} with {code}: is it the admin endpoint of Longhaul?");
    }
    Ok(body.to_owned())
}

/// A status for people.
struct Report {
    text: String,
    /// Connected, and nothing held.
    well: bool,
}

impl Report {
    /// Of an exporter, which has one link, or an importer, which has many; `None` for anything else.
    fn new(status: &Value) -> Option<Self> {
        let mut report = Self { text: String::new(), well: true };
        if let Some(links) = status["links"].as_array() {
            report.line(format_args!("importer of {} links", links.len()));
            for link in links {
                report.line(format_args!(""));
                report.importer_link(link);
            }
        } else {
            status["link"].as_str()?;
            report.exporter(status);
        }
        if status["audit_healthy"] == false {
            report.well = false;
            report.line(format_args!("audit log: CANNOT BE WRITTEN; nothing is carried until it can"));
        }
        if status["cluster_answers"] == false {
            report.well = false;
            report
                .line(format_args!("Kafka: DOES NOT ANSWER; what it has or is to have waits until it does"));
        }
        Some(report)
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // A string takes everything.
        let _ = writeln!(self.text, "{line}");
    }

    fn exporter(&mut self, status: &Value) {
        let [link, instance] = ["link", "instance"].map(|key| word(&status[key]));
        self.line(format_args!("exporter of link {link}, instance {instance}"));
        match (status["session"].as_u64(), status["importer"].as_str()) {
            (Some(session), Some(importer)) => {
                self.line(format_args!("  session      {session} with {importer}"))
            }
            _ => {
                self.well = false;
                let why = status["last_failure"].as_str().unwrap_or("it is just starting");
                self.line(format_args!("  session      NONE: {why}"));
            }
        }
        self.path(&status["path"]);
        let [records, lag] = ["records", "lag_records"].map(|key| status[key].as_u64().unwrap_or(0));
        let behind = status["lag_seconds"].as_f64().unwrap_or(0.0);
        self.line(format_args!(
            "  records      {records} delivered since the start; {lag} to go, {behind:.1} s behind"
        ));
        self.partitions(&status["partitions"]);
    }

    fn importer_link(&mut self, link: &Value) {
        self.line(format_args!("link {}", word(&link["link"])));
        match &link["session"] {
            Value::Object(session) => {
                let [number, peer, remote] = ["session", "peer", "remote"].map(|key| {
                    let value = session.get(key).unwrap_or(&Value::Null);
                    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
                });
                self.line(format_args!("  session      {number} of {peer} at {remote}"));
            }
            _ => {
                self.well = false;
                self.line(format_args!("  session      NONE: no exporter is connected"));
            }
        }
        self.path(&link["path"]);
        for (lane, trouble) in link["trouble"].as_object().into_iter().flatten() {
            self.well = false;
            self.line(format_args!("  lane {lane:<7} {}", word(trouble)));
        }
        self.partitions(&link["partitions"]);
    }

    /// The connection and the path below it.
    fn path(&mut self, path: &Value) {
        if !path.is_object() {
            return;
        }
        let [now, goodput] = ["rate_bits_per_second", "goodput_bits_per_second"].map(|key| mbit(&path[key]));
        let sides = [
            ("ceiling", "at most"),
            ("floor", "yields to others down to"),
            ("configured", "configured"),
            ("granted", "granted"),
        ];
        let limits: Vec<String> = sides
            .iter()
            .map(|(key, words)| (words, &path[format!("{key}_bits_per_second")]))
            .filter(|(_, value)| value.is_number())
            .map(|(words, value)| format!("{words} {}", mbit(value)))
            .collect();
        let limits = if limits.is_empty() { "no limit known".to_owned() } else { limits.join(", ") };
        self.line(format_args!(
            "  rate         {now} now, {goodput} arrive ({}: {limits})",
            word(&path["congestion"])
        ));
        let [rtt, least, queue] =
            ["rtt_seconds", "min_rtt_seconds", "queue_seconds"].map(|key| millis(&path[key]));
        self.line(format_args!("  round trip   {rtt}, least {least}, standing queue {queue}"));
        let [window, flight] = ["window_bytes", "in_flight_bytes"].map(|key| bytes(&path[key]));
        let mtu = path["mtu_bytes"].as_u64().unwrap_or(0);
        self.line(format_args!(
            "  window       {window}, {flight} of it in flight, datagrams of up to {mtu} bytes"
        ));
        let [lost, sent] = ["lost_packets", "sent_packets"].map(|key| path[key].as_u64().unwrap_or(0));
        let lately = path["loss_ratio"].as_f64().unwrap_or(0.0) * 100.0;
        self.line(format_args!(
            "  loss         {lately:.2} % lately; {lost} of {sent} packets since it connected"
        ));
        let by_cause = &path["sent"];
        if by_cause.is_object() {
            let [first, again, acks, handshake, headers] = ["first", "resent", "ack", "handshake", "header"]
                .map(|key| bytes(&by_cause[format!("{key}_bytes")]));
            self.line(format_args!(
                "  sent         {first} first, {again} again, {acks} of acks, {handshake} of handshake, {headers} of headers"
            ));
        }
        let [send, receive] = ["send", "receive"].map(|key| bytes(&path[format!("udp_{key}_buffer_bytes")]));
        let offload = match path["segmentation_offload"].as_bool() {
            Some(true) => "segmentation offload in use",
            Some(false) => "NO segmentation offload: high rates cost three times the processor time",
            None => "segmentation offload unknown",
        };
        let calls = path["datagrams_per_send"]
            .as_f64()
            .map_or_else(String::new, |count| format!(" ({count:.1} datagrams a system call)"));
        self.line(format_args!(
            "  host         {offload}{calls}; socket buffers {send} to send, {receive} to receive"
        ));
    }

    fn partitions(&mut self, partitions: &Value) {
        let all: &[Value] = partitions.as_array().map_or(&[], Vec::as_slice);
        let stopped: Vec<&Value> =
            all.iter().filter(|one| matches!(one["state"].as_str(), Some("held" | "refused"))).collect();
        self.line(format_args!("  partitions   {}, of them {} held or refused", all.len(), stopped.len()));
        for one in stopped {
            self.well = false;
            let [topic, state, detail] = ["topic", "state", "detail"].map(|key| word(&one[key]));
            let reason = one["reason"].as_str().map_or_else(String::new, |reason| format!(" ({reason})"));
            self.line(format_args!("    {topic}/{} {state}{reason}: {detail}", one["partition"]));
        }
        for (one, from) in all.iter().filter_map(|one| Some((one, waits_from(one)?))) {
            let (topic, number) = (word(&one["topic"]), &one["partition"]);
            self.line(format_args!(
                "    {topic}/{number} waits for a transaction that is open at the source from offset {from} on, as every \
                 read_committed reader does; if it does not end, find its producer with kafka-transactions.sh find-hanging"
            ));
        }
    }
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap_or("-")
}

fn mbit(value: &Value) -> String {
    value.as_f64().map_or_else(|| "-".to_owned(), |bits| format!("{:.1} Mbit/s", bits / 1e6))
}

fn millis(value: &Value) -> String {
    value.as_f64().map_or_else(|| "-".to_owned(), |seconds| format!("{:.1} ms", seconds * 1e3))
}

fn bytes(value: &Value) -> String {
    let Some(bytes) = value.as_f64() else { return "-".to_owned() };
    match bytes {
        bytes if bytes >= 1e9 => format!("{:.2} GB", bytes / 1e9),
        bytes if bytes >= 1e6 => format!("{:.2} MB", bytes / 1e6),
        bytes if bytes >= 1e3 => format!("{:.1} kB", bytes / 1e3),
        bytes => format!("{bytes} B"),
    }
}

const PATIENCE: Duration = Duration::from_secs(5);
/// 100,000 partitions with all their words.
const MAX_ANSWER: u64 = 256 << 20;

/// Where a transaction begins that is open at the source and all that a partition waits for, if there is one.
fn waits_from(partition: &Value) -> Option<i64> {
    let [stable, end, position] = ["stable", "end", "position"].map(|key| partition[key].as_i64());
    let waits = stable? < end? && position? >= stable? && partition["lag_seconds"].as_f64()? > LONG_OPEN;
    stable.filter(|_| waits)
}

/// Seconds that an open transaction is no news.
const LONG_OPEN: f64 = 10.0;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_admin_address_is_taken_from_a_url_or_as_it_is() -> Result<()> {
        for admin in ["127.0.0.1:9600", "http://127.0.0.1:9600", "http://127.0.0.1:9600/api/status"] {
            assert_eq!(address_of(admin)?, "127.0.0.1:9600");
        }
        for admin in ["127.0.0.1", "https://127.0.0.1:9600", ":9600", "host:http"] {
            assert!(address_of(admin).is_err_and(|error| error.is::<UsageError>()), "{admin}");
        }
        Ok(())
    }

    fn exporter() -> Value {
        json!({
            "link": "fra", "instance": "one", "session": 7, "importer": "203.0.113.7:7443", "audit_healthy": true,
            "records": 10, "lag_records": 2, "lag_seconds": 0.25, "last_failure": null,
            "path": {
                "congestion": "governed", "configured_bits_per_second": 98_000_000, "granted_bits_per_second": null,
                "ceiling_bits_per_second": 98_000_000, "rate_bits_per_second": 97_000_000,
                "goodput_bits_per_second": 91_700_000, "rtt_seconds": 0.101, "min_rtt_seconds": 0.1,
                "queue_seconds": 0.001, "window_bytes": 1_500_000, "in_flight_bytes": 900, "mtu_bytes": 1452,
                "sent_packets": 200, "lost_packets": 2, "loss_ratio": 0.01, "segmentation_offload": false,
                "datagrams_per_send": 1.04,
                "sent": { "first_bytes": 1000, "resent_bytes": 20, "ack_bytes": 3, "handshake_bytes": 4 },
            },
            "partitions": [{ "topic": "orders", "partition": 0, "state": "flowing" }],
        })
    }

    #[test]
    fn an_exporter_that_is_well_is_told_with_its_path() {
        let report = Report::new(&exporter()).expect("an exporter");
        assert!(report.well, "{}", report.text);
        for part in [
            "link fra",
            "7 with 203.0.113.7:7443",
            "97.0 Mbit/s now, 91.7 Mbit/s arrive (governed: at most 98.0 Mbit/s, configured 98.0 Mbit/s)",
            "101.0 ms, least 100.0 ms",
            "1.00 % lately; 2 of 200",
            "1.0 kB first, 20 B again",
            "NO segmentation offload",
            "(1.0 datagrams a system call)",
            "0.2 s behind",
        ] {
            assert!(report.text.contains(part), "{part} in:\n{}", report.text);
        }
    }

    #[test]
    fn a_transaction_that_stays_open_at_the_source_is_named_and_is_no_fault_of_the_link() {
        let waiting = |stable: i64, position: i64, seconds: f64| {
            let mut status = exporter();
            status["partitions"][0] = json!({
                "topic": "orders", "partition": 3, "state": "flowing", "stable": stable, "end": 90, "position": position,
                "lag_seconds": seconds,
            });
            let report = Report::new(&status).expect("an exporter");
            assert!(report.well, "{}", report.text);
            report
                .text
                .contains("orders/3 waits for a transaction that is open at the source from offset 40 on")
        };
        assert!(waiting(40, 40, 12.0));
        assert!(!waiting(40, 40, 2.0), "for a moment it is usual");
        assert!(!waiting(40, 30, 12.0), "it has not come so far");
        assert!(!waiting(90, 90, 12.0), "nothing is open");
    }

    #[test]
    fn what_is_not_as_it_should_be_is_said_and_changes_the_outcome() {
        let mut away = exporter();
        away["session"] = Value::Null;
        away["last_failure"] = "no answer from importer".into();
        let mut held = exporter();
        held["partitions"][0] = json!({
            "topic": "orders", "partition": 3, "state": "held", "reason": "truncated", "detail": "records are gone",
        });
        let mut mute = exporter();
        mute["audit_healthy"] = false.into();
        let mut deaf = exporter();
        deaf["cluster_answers"] = false.into();
        for (status, words) in [
            (deaf, "DOES NOT ANSWER"),
            (away, "NONE: no answer from importer"),
            (held, "orders/3 held (truncated): records are gone"),
            (mute, "CANNOT BE WRITTEN"),
        ] {
            let report = Report::new(&status).expect("an exporter");
            assert!(!report.well && report.text.contains(words), "{words} in:\n{}", report.text);
        }
    }

    #[test]
    fn an_importer_is_told_link_by_link() {
        let status = json!({ "audit_healthy": true, "links": [
            { "link": "fra", "session": { "session": 3, "peer": "spiffe://x/e", "remote": "198.51.100.1:9" },
              "trouble": {}, "partitions": [] },
            { "link": "ber", "session": null, "trouble": { "2": "no broker answers" }, "partitions": [] },
        ]});
        let report = Report::new(&status).expect("an importer");
        assert!(!report.well);
        for part in ["3 of spiffe://x/e at 198.51.100.1:9", "no exporter is connected", "no broker answers"] {
            assert!(report.text.contains(part), "{part} in:\n{}", report.text);
        }
        assert!(Report::new(&json!({ "other": 1 })).is_none());
    }
}
