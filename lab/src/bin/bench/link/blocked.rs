//! One lane whose target takes nothing: what it does to the others.

use std::time::Duration;

use anyhow::Result;
use serde_json::json;

use super::measured::round;
use super::site::Flow;
use super::spec::{Moment, Transport};
use super::{Findings, Options, trials::counted};
use crate::say;

/// Before, while and after the first lane is blocked; the others are what is measured.
pub(crate) fn blocked(options: &Options) -> Result<Findings> {
    let (from, to) = (BEFORE, BEFORE + BLOCKED);
    let flow = Flow {
        blocked: Some((from.as_secs_f64(), to.as_secs_f64())),
        ..Flow::new(Transport::Longhaul, Some(options.configured_mbit()))
    };
    let total = to + AFTER;
    let (outcome, ()) = counted(options, 0, |site| {
        Ok((site.measure(std::slice::from_ref(&flow), total.as_secs_f64(), |_, _| Ok(()))?, ()))
    })?;
    let (start, flow) = (outcome.start, &outcome.flows[0]);
    let spans =
        [(WARM_UP, from), (from, to), (to, total)].map(|(from, to)| (start.after(from), start.after(to)));
    let rates = spans.map(|(from, to)| flow.mbit(from, to));
    let memory = |span: (Moment, Moment)| {
        let received = flow.received.first().map_or(0, |received| received.memory.most(span.0, span.1));
        [flow.sent.memory.most(span.0, span.1), received].map(|bytes| bytes as f64 / f64::from(1 << 20))
    };
    // The lane's credit fills at first; from then on nothing may grow.
    let full = (start.after(from + CREDIT_FILLS), start.after(from + BLOCKED / 2));
    let late = (start.after(from + BLOCKED / 2), start.after(to));
    let memory = [memory(spans[0]), memory(full), memory(late)];
    for ending in &flow.sent.endings {
        say(&format!("a connection was given up {ending}"));
    }
    let kept = rates[1] / rates[0] * 100.0;
    let mib = |pair: [f64; 2]| format!("{:.0} and {:.0}", pair[0], pair[1]);
    Ok(Findings {
        table: format!(
            "one lane of 4 blocked for {} s: the others carried {:.1} Mbit/s before, {:.1} meanwhile ({kept:.0} %), {:.1} after \
             it, over {} connection(s); MiB of sender and receiver at most: {} before, {} in the first half, {} in the second\n",
            BLOCKED.as_secs(),
            rates[0],
            rates[1],
            rates[2],
            flow.sent.connections,
            mib(memory[0]),
            mib(memory[1]),
            mib(memory[2]),
        ),
        json: json!({
            "what": "one lane of 4 blocked",
            "seconds": BLOCKED.as_secs(),
            "others_mbit_s": rates.map(round),
            "others_kept_pct": round(kept),
            "connections": flow.sent.connections,
            "memory_mib_sender": memory.map(|pair| round(pair[0])),
            "memory_mib_receiver": memory.map(|pair| round(pair[1])),
        }),
    })
}

const WARM_UP: Duration = Duration::from_secs(3);
const BEFORE: Duration = Duration::from_secs(15);
const BLOCKED: Duration = Duration::from_secs(60);
const CREDIT_FILLS: Duration = Duration::from_secs(12);
const AFTER: Duration = Duration::from_secs(5);
