//! Measurements of single properties: recovery, take-over, an idle link, sharing, processor time.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use longhaul_lab::wanlink::{Side, Wan, Which};
use serde_json::json;

use super::measured::{Measured, Wire, round};
use super::site::{Flow, Outcome, Site};
use super::spec::{Moment, Transport};
use super::{ATTEMPTS, Findings, Options, report};
use crate::say;

/// Both directions are cut for 10 s in the middle of a transfer.
pub(crate) fn cut(options: &Options) -> Result<Findings> {
    let transport = options.transports.first().copied().unwrap_or(Transport::Longhaul);
    let mut seconds = Vec::new();
    let mut above = Vec::new();
    for run in 0..options.runs {
        // Another phase of every timer each time.
        let length = CUT + Duration::from_millis(u64::from(run) * 53 % 1000);
        let total = BEFORE.as_secs_f64() + length.as_secs_f64() + AFTER.as_secs_f64();
        let (outcome, restored) = counted(options, run, |site| {
            let mut restored = Moment::now();
            let flow = Flow::new(transport, Some(options.configured_mbit()));
            let outcome = site.measure(&[flow], total, |_, start| {
                let wan = path_of(site)?;
                start.after(BEFORE).sleep();
                wan.change(Which::Both, |params| params.down = true);
                start.after(BEFORE + length).sleep();
                wan.change(Which::Both, |params| params.down = false);
                restored = Moment::now();
                Ok(())
            })?;
            Ok((outcome, restored))
        })?;
        let flow = &outcome.flows[0];
        let flows_again = flow.received.first().and_then(|received| received.first_after(restored));
        let again = flows_again.map_or(f64::INFINITY, |at| at.seconds_since(restored));
        let wire = wire_of(&outcome, options)?;
        say(&format!(
            "run {}: data flowed again {again:.3} s after the cut, over connection {}; at most {} kB above the rate in \
             100 ms, {:.1} Mbit/s in the last second",
            run + 1,
            flow.sent.connections,
            wire.above_bytes / 1000,
            flow.mbit(Moment(outcome.end.0 - 1_000_000_000), outcome.end),
        ));
        for ending in &flow.sent.endings {
            say(&format!("  a connection was given up {ending}"));
        }
        seconds.push(again);
        above.push(wire.above_bytes);
    }
    let most = above.iter().copied().max().unwrap_or_default();
    let mut findings = recovery("data flows again after a cut of 10 s", transport, &seconds);
    findings.table += &format!("bytes above the rate in any 100 ms: {most}\n");
    findings.json["bytes_above_rate_in_100ms"] = most.into();
    Ok(findings)
}

/// The receiver that has the connection is killed; another one has another address.
pub(crate) fn takeover(options: &Options) -> Result<Findings> {
    let mut seconds = Vec::new();
    for run in 0..options.runs {
        let total = BEFORE.as_secs_f64() + AFTER.as_secs_f64();
        let (outcome, killed) = counted(options, run, |site| {
            let mut killed = Moment::now();
            let flow =
                Flow { receivers: 2, ..Flow::new(Transport::Longhaul, Some(options.configured_mbit())) };
            let outcome = site.measure(&[flow], total, |receivers, start| {
                start.after(before(run)).sleep();
                receivers.kill(0, 0);
                killed = Moment::now();
                Ok(())
            })?;
            Ok((outcome, killed))
        })?;
        let flow = &outcome.flows[0];
        let first = flow.received.first().and_then(|received| received.first_after(killed));
        let again = first.map_or(f64::INFINITY, |at| at.seconds_since(killed));
        say(&format!("run {}: the second address had data after {again:.3} s", run + 1));
        seconds.push(again);
    }
    Ok(recovery("a second address takes over from one that was killed", Transport::Longhaul, &seconds))
}

/// The address of the sender's host becomes another one in mid-transfer, as when a line or a tunnel is dialled anew.
pub(crate) fn moved(options: &Options) -> Result<Findings> {
    let mut seconds = Vec::new();
    for run in 0..options.runs {
        let total = BEFORE.as_secs_f64() + AFTER.as_secs_f64();
        let (outcome, moved) = counted(options, run, |site| {
            let mut moved = Moment::now();
            let flow = Flow::new(Transport::Longhaul, Some(options.configured_mbit()));
            let outcome = site.measure(&[flow], total, |_, start| {
                start.after(before(run)).sleep();
                path_of(site)?.replace_address(Side::A, SENDER, MOVED_SENDER)?;
                moved = Moment::now();
                Ok(())
            })?;
            Ok((outcome, moved))
        })?;
        let flow = &outcome.flows[0];
        // What was under way when the address changed still arrives.
        let under_way = moved.after(Duration::from_secs_f64(options.rtt / 2e3 + options.queue / 1e3));
        let again = flow.first_after(under_way).map_or(f64::INFINITY, |at| at.seconds_since(moved));
        say(&format!(
            "run {}: data flowed again after {again:.3} s, over connection {}",
            run + 1,
            flow.sent.connections
        ));
        seconds.push(again);
    }
    Ok(recovery("data flows again after the sender's address changed", Transport::Longhaul, &seconds))
}

/// When the fault of a run comes: in another phase of every timer each time.
fn before(run: u32) -> Duration {
    BEFORE + Duration::from_millis(u64::from(run) * 37 % 500)
}

fn recovery(what: &str, transport: Transport, seconds: &[f64]) -> Findings {
    let mut sorted = seconds.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN);
    let worst = sorted.last().copied().unwrap_or(f64::NAN);
    Findings {
        table: format!(
            "{what} ({transport}), {} runs: median {middle:.3} s, worst {worst:.3} s\n",
            seconds.len()
        ),
        json: json!({
            "what": what,
            "transport": transport.to_string(),
            "seconds": seconds.iter().map(|&it| round(it)).collect::<Vec<_>>(),
            "seconds_median": round(middle),
            "seconds_worst": round(worst),
        }),
    }
}

/// Nothing is sent, a thousand partitions are open.
pub(crate) fn idle(options: &Options) -> Result<Findings> {
    let (outcome, ()) = counted(options, 0, |site| {
        let flow = Flow {
            idle_partitions: IDLE_PARTITIONS,
            idle: true,
            ..Flow::new(Transport::Longhaul, Some(options.configured_mbit()))
        };
        let total = SETTLE.as_secs_f64() + options.seconds.max(IDLE_SECONDS);
        let outcome = site.measure(&[flow], total, |_, start| {
            start.after(SETTLE).sleep();
            path_of(site)?.reset();
            Ok(())
        })?;
        Ok((outcome, ()))
    })?;
    let readings = outcome.readings.context("an idle link needs a path")?;
    let each = [&readings.ab, &readings.ba].map(|counts| counts.offered.bytes as f64 / readings.seconds);
    let both = each[0] + each[1];
    Ok(Findings {
        table: format!(
            "idle link, {IDLE_PARTITIONS} open partitions, {:.0} s: {both:.0} bytes/s both ways together ({:.0} forth, \
             {:.0} back, IP and UDP headers included)\n",
            readings.seconds, each[0], each[1]
        ),
        json: json!({
            "what": "idle link",
            "open_partitions": IDLE_PARTITIONS,
            "bytes_per_second": round(both),
            "bytes_per_second_forth": round(each[0]),
            "bytes_per_second_back": round(each[1]),
        }),
    })
}

/// Ours and one flow of TCP Cubic, in the last two thirds of the time.
pub(crate) fn share(options: &Options, ours: Transport) -> Result<Findings> {
    let floor_mbit = (ours == Transport::Longhaul).then(|| options.configured_mbit());
    let delay = (-options.lead).max(0.0);
    let flows = [
        Flow { floor_mbit, delay, ..Flow::new(ours, Some(options.configured_mbit())) },
        Flow { delay: options.lead.max(0.0), ..Flow::new(Transport::TcpCubic { flows: 1 }, None) },
    ];
    let (outcome, ()) = counted(options, 0, |site| {
        Ok((site.measure(&flows, options.seconds.max(MEETING_SECONDS), |_, _| Ok(()))?, ()))
    })?;
    let from = outcome.start.after(share_from(options));
    let rates = [0, 1].map(|flow| outcome.flows[flow].mbit(from, outcome.end));
    let wire = wire_of(&outcome, options)?;
    for ending in &outcome.flows[0].sent.endings {
        say(&format!("{ours}: a connection was given up {ending}"));
    }
    let configured = match ours {
        Transport::Longhaul => format!(", rate and floor {:.1}:", options.configured_mbit()),
        _ => String::new(),
    };
    Ok(Findings {
        table: format!(
            "on one path of {} Mbit/s, from {} s on: {ours}{configured} {:.1} Mbit/s, tcp-cubic-1 {:.1} Mbit/s; queue mean \
             {:.1} ms\n",
            options.rate,
            share_from(options).as_secs(),
            rates[0],
            rates[1],
            wire.queue_ms_mean
        ),
        json: json!({
            "what": "against TCP Cubic",
            "transport": ours.to_string(),
            "configured_mbit_s": options.configured_mbit(),
            "goodput_mbit_s": round(rates[0]),
            "tcp_cubic_mbit_s": round(rates[1]),
            "connections": outcome.flows[0].sent.connections,
            "quic": outcome.flows[0].sent.path,
            "queue_ms_mean": round(wire.queue_ms_mean),
        }),
    })
}

/// From when on what both get is their share: a curve takes some turns to meet another.
fn share_from(options: &Options) -> Duration {
    Duration::from_secs_f64(options.seconds.max(MEETING_SECONDS) / 3.0)
}

/// Processor time per byte without a path, by turns.
pub(crate) fn loopback(options: &Options) -> Result<Findings> {
    let contenders = [Transport::Quinn, Transport::LonghaulAdaptive];
    let mut runs: [Vec<Measured>; 2] = [Vec::new(), Vec::new()];
    for _ in 0..options.runs {
        for (which, transport) in contenders.into_iter().enumerate() {
            let site = Site::loopback()?;
            let outcome = site.measure(
                &[Flow::new(transport, None)],
                options.seconds.min(LOOPBACK_SECONDS),
                |_, _| Ok(()),
            )?;
            let measured = Measured::new(transport, &outcome, 0, 0.0);
            say(&report::line(&measured));
            runs[which].push(measured);
        }
    }
    let [bare, ours] = runs.map(|mut runs| {
        runs.sort_by(|a, b| a.cpu_ns_per_byte().total_cmp(&b.cpu_ns_per_byte()));
        let middle = runs.len() / 2;
        runs.swap_remove(middle)
    });
    let ratio = ours.cpu_ns_per_byte() / bare.cpu_ns_per_byte();
    let mut table =
        format!("{:<20} {:>10} {:>14} {:>14}\n", "loopback", "Mbit/s", "CPU s/GB send", "CPU s/GB recv");
    for measured in [&bare, &ours] {
        let per_gb = measured.cpu_seconds.map(|seconds| seconds * 1e9 / measured.goodput_bytes.max(1) as f64);
        // A string takes everything.
        let _ = writeln!(
            table,
            "{:<20} {:>10.0} {:>14.3} {:>14.3}",
            measured.transport.to_string(),
            measured.goodput_mbit,
            per_gb[0],
            per_gb[1]
        );
    }
    table += &format!(
        "processor time per byte against bare QUIC: {ratio:.2}x (medians of {} runs each)\n",
        options.runs
    );
    Ok(Findings {
        table,
        json: json!({
            "what": "loopback",
            "transports": [bare.json(), ours.json()],
            "cpu_per_byte_against_quinn": round(ratio),
        }),
    })
}

/// A measurement that the emulator does not object to.
pub(super) fn counted<T>(
    options: &Options,
    run: u32,
    mut measure: impl FnMut(&Site) -> Result<(Outcome, T)>,
) -> Result<(Outcome, T)> {
    let mut why = String::new();
    for attempt in 0..ATTEMPTS {
        let site = Site::emulated(options.path(), options.seed + u64::from(run * ATTEMPTS + attempt))?;
        let (outcome, more) = measure(&site)?;
        match outcome.readings.as_ref().and_then(|readings| readings.objection()) {
            None => return Ok((outcome, more)),
            Some(objection) => {
                say(&format!("does not count, {objection}"));
                why = objection;
            }
        }
    }
    bail!("{ATTEMPTS} runs and none counts, the last: {why}")
}

fn path_of(site: &Site) -> Result<&Wan> {
    site.wan.as_ref().context("this needs a path")
}

fn wire_of(outcome: &Outcome, options: &Options) -> Result<Wire> {
    let readings = outcome.readings.as_ref().context("this needs a path")?;
    Ok(Wire::new(readings, options.configured_mbit()))
}

const SENDER: &str = "10.77.0.1/24";
const MOVED_SENDER: &str = "10.77.0.99/24";
const BEFORE: Duration = Duration::from_secs(4);
const CUT: Duration = Duration::from_secs(10);
const AFTER: Duration = Duration::from_secs(6);
const SETTLE: Duration = Duration::from_secs(10);
const IDLE_SECONDS: f64 = 60.0;
const IDLE_PARTITIONS: u32 = 1000;
const MEETING_SECONDS: f64 = 30.0;
const LOOPBACK_SECONDS: f64 = 5.0;
