//! What one direction of the path does to packets.

use std::fmt;

use serde_json::{Value, json};

use super::Error;

/// Parameters of one direction. `Default`: a wire that does nothing to packets.
///
/// As text: [`Params::set`] takes `key=value`, with the keys of the table in [`super`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Params {
    /// Rate in Mbit/s of IP bytes; 0 is no limit.
    pub rate_mbit: f64,
    /// Delay of propagation, one way, in nanoseconds.
    pub delay_ns: u64,
    /// Each packet gets the delay plus or minus up to this much, evenly distributed, in nanoseconds.
    pub jitter_ns: u64,
    /// Whether jitter may let a packet overtake another.
    pub reorder: bool,
    /// Share of packets lost at random, each by itself, from 0 to 1.
    pub loss: f64,
    /// Loss in bursts, on top of `loss`.
    pub bursts: Option<Bursts>,
    /// Bound of the queue in front of the rate limit; packets that find more are dropped.
    pub queue: Bound,
    /// Bytes added to each packet when the rate is computed: framing of the line.
    pub overhead_bytes: u64,
    /// Whether the link is cut: nothing arrives, and what was on its way is lost.
    pub down: bool,
}

/// Gilbert and Elliott's model of loss in bursts; probabilities per packet, from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bursts {
    /// That a burst begins.
    pub begin: f64,
    /// That it ends: bursts are 1/`end` packets long in the mean.
    pub end: f64,
    /// Loss inside a burst.
    pub loss_inside: f64,
    /// Loss outside.
    pub loss_outside: f64,
}

/// Bound of a queue.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Bound {
    /// What the rate carries in that many nanoseconds.
    Nanos(u64),
    /// So many bytes.
    Bytes(u64),
}

impl Default for Params {
    fn default() -> Self {
        Self {
            rate_mbit: 0.0,
            delay_ns: 0,
            jitter_ns: 0,
            reorder: false,
            loss: 0.0,
            bursts: None,
            queue: Bound::Nanos(100 * MILLISECOND as u64),
            overhead_bytes: 0,
            down: false,
        }
    }
}

impl Bursts {
    /// Bursts of `length` packets in the mean, in which all is lost, that cost the share `mean` of all packets.
    pub fn new(mean: f64, length: f64) -> Self {
        let end = 1.0 / length;
        Self { begin: end * mean / (1.0 - mean), end, loss_inside: 1.0, loss_outside: 0.0 }
    }
}

impl Params {
    /// Sets one parameter from `key=value`.
    ///
    /// # Errors
    /// When there is no such key, or the value makes no sense; nothing is changed then.
    pub fn set(&mut self, pair: &str) -> Result<(), Error> {
        let wrong = |why: String| Error::Parameter { pair: pair.to_owned(), why };
        let (key, value) = pair.split_once('=').ok_or_else(|| wrong("expected key=value".to_owned()))?;
        let value = value.trim();
        match key.trim() {
            "rate" => self.rate_mbit = number(value).map_err(wrong)?,
            "delay" => self.delay_ns = milliseconds(value).map_err(wrong)?,
            "jitter" => self.jitter_ns = milliseconds(value).map_err(wrong)?,
            "loss" => self.loss = percent(value).map_err(wrong)?,
            "bursts" => self.bursts = bursts(value).map_err(wrong)?,
            "queue" => self.queue = bound(value).map_err(wrong)?,
            "overhead" => self.overhead_bytes = number(value).map_err(wrong)? as u64,
            "reorder" => self.reorder = number(value).map_err(wrong)? != 0.0,
            "down" => self.down = number(value).map_err(wrong)? != 0.0,
            _ => {
                return Err(wrong(
                    "no such parameter: rate, delay, jitter, loss, bursts, queue, overhead, reorder or down"
                        .to_owned(),
                ));
            }
        }
        Ok(())
    }

    /// Nanoseconds that the line is busy with `bytes`.
    pub(super) fn serialise_ns(&self, bytes: u64) -> u64 {
        if self.rate_mbit > 0.0 {
            ((bytes + self.overhead_bytes) as f64 * 8000.0 / self.rate_mbit) as u64
        } else {
            0
        }
    }

    /// For scripts, in the units of the text form.
    pub fn json(&self) -> Value {
        json!({
            "rate_mbit": self.rate_mbit,
            "delay_ms": self.delay_ns as f64 / MILLISECOND,
            "jitter_ms": self.jitter_ns as f64 / MILLISECOND,
            "reorder": self.reorder,
            "loss_pct": self.loss * 100.0,
            "bursts_pct": self.bursts.map(|it| [it.begin, it.end, it.loss_inside, it.loss_outside].map(|it| it * 100.0)),
            "queue": self.queue.to_string(),
            "overhead_bytes": self.overhead_bytes,
            "down": self.down,
        })
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nanos(nanos) => write!(f, "{}ms", *nanos as f64 / MILLISECOND),
            Self::Bytes(bytes) => write!(f, "{bytes}b"),
        }
    }
}

fn number(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() && number >= 0.0 => Ok(number),
        _ => Err(format!("`{text}` is not a number of 0 or more")),
    }
}

fn milliseconds(text: &str) -> Result<u64, String> {
    Ok((number(text)? * MILLISECOND) as u64)
}

fn percent(text: &str) -> Result<f64, String> {
    match number(text)? {
        percent if percent <= 100.0 => Ok(percent / 100.0),
        _ => Err("above 100 %".to_owned()),
    }
}

fn bursts(text: &str) -> Result<Option<Bursts>, String> {
    if text == "off" {
        return Ok(None);
    }
    let percents: Vec<f64> = text.split(',').map(|it| percent(it.trim())).collect::<Result<_, _>>()?;
    let (begin, end, rest) = match percents.as_slice() {
        [begin, end, rest @ ..] if rest.len() <= 2 => (*begin, *end, rest),
        _ => return Err("BEGIN,END[,LOSS INSIDE[,LOSS OUTSIDE]] in percent, or `off`".to_owned()),
    };
    let [loss_inside, loss_outside] =
        [(0, 1.0), (1, 0.0)].map(|(index, otherwise)| rest.get(index).copied().unwrap_or(otherwise));
    Ok(Some(Bursts { begin, end, loss_inside, loss_outside }))
}

fn bound(text: &str) -> Result<Bound, String> {
    let text = text.to_ascii_lowercase();
    if let Some(text) = text.strip_suffix("ms") {
        return Ok(Bound::Nanos(milliseconds(text)?));
    }
    if let Some(text) = text.strip_suffix("kb") {
        return Ok(Bound::Bytes((number(text)? * 1024.0) as u64));
    }
    match text.strip_suffix('b') {
        Some(text) => Ok(Bound::Bytes(number(text)? as u64)),
        None => Err("give a unit, as in 100ms, 256kb or 300000b".to_owned()),
    }
}

/// In nanoseconds.
const MILLISECOND: f64 = 1e6;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_read_in_their_units() {
        let mut params = Params::default();
        for pair in [
            "rate=100",
            "delay=50",
            "jitter=2.5",
            "loss=1",
            "bursts=0.1,10",
            "queue=256kb",
            "reorder=1",
            "down=1",
        ] {
            params.set(pair).unwrap();
        }
        assert_eq!((params.delay_ns, params.jitter_ns), (50_000_000, 2_500_000));
        assert!((params.loss - 0.01).abs() < 1e-12);
        let bursts = params.bursts.unwrap();
        assert!((bursts.end - 0.1).abs() < 1e-12 && (bursts.loss_inside - 1.0).abs() < 1e-12);
        assert_eq!(params.queue, Bound::Bytes(256 * 1024));
        assert_eq!(params.serialise_ns(1250), 100_000);
        assert!(params.down && params.reorder);
        params.set("bursts=off").unwrap();
        assert_eq!(params.bursts, None);
    }

    #[test]
    fn a_value_that_makes_no_sense_is_refused_and_changes_nothing() {
        let before = Params::default();
        for pair in
            ["loss=101", "delay=-1", "queue=5", "bursts=1", "bursts=1,2,3,4,5", "speed=1", "rate", "rate=x"]
        {
            let mut params = before;
            assert!(params.set(pair).unwrap_err().to_string().contains(pair), "{pair}");
            assert_eq!(params, before, "{pair}");
        }
    }
}
