//! What a person sees while it runs: bars on a terminal, plain lines elsewhere. All of it on stderr.

use std::cell::{Cell, OnceCell};
use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::topics::Topic;

/// Between two lines of progress where there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// The terminal, or what is in its place.
pub(crate) struct Display {
    terminal: bool,
    /// Names of the topics and their numbers of records.
    topics: Vec<(String, u64)>,
    /// Drawn when there is something to show, on a terminal.
    bars: OnceCell<Bars>,
    paint: Paint,
    started: Instant,
    last_line: Cell<Option<Instant>>,
}

struct Bars {
    all: MultiProgress,
    topics: Vec<ProgressBar>,
    link: ProgressBar,
}

/// What there is to show.
pub(crate) struct Progress {
    /// Records at the target, by topic.
    pub(crate) arrived: Vec<u64>,
    /// Records produced at the source, over all topics.
    pub(crate) produced: u64,
    /// Records to come, over all topics.
    pub(crate) total: u64,
    /// Bytes that the link carried so far.
    pub(crate) wire_bytes: u64,
}

/// Colours, or none.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Paint {
    on: bool,
}

impl Display {
    /// Bars where stderr is a terminal; colours there unless `NO_COLOR` is set.
    pub(crate) fn new(topics: &[Topic]) -> Self {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        let terminal = std::io::stderr().is_terminal() && !dumb;
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let paint = Paint { on: terminal && !plain };
        let topics = topics.iter().map(|topic| (topic.name.clone(), topic.records)).collect();
        let (bars, last_line) = (OnceCell::new(), Cell::new(None));
        Self { terminal, topics, bars, paint, started: Instant::now(), last_line }
    }

    /// What will be done.
    pub(crate) fn introduce(&self, topics: &[Topic], faults: bool) {
        let total: u64 = topics.iter().map(|topic| topic.records).sum();
        let title = format!("Longhaul carries {} records from one Kafka cluster to another", grouped(total));
        self.say(&self.paint.bold(&title));
        let width = topics.iter().map(|topic| topic.name.len()).max().unwrap_or(0);
        for topic in topics {
            self.say(&format!("  {:width$}  {}", topic.name, self.paint.dim(&topic.what)));
        }
        if faults {
            self.say("On the way the link is cut once, and the importer is killed and started again.");
        }
        self.say("");
    }

    /// A line that stays.
    pub(crate) fn say(&self, line: &str) {
        let print = || {
            // Nobody is left to tell when stderr is closed.
            let _ = writeln!(std::io::stderr(), "{line}");
        };
        match self.bars.get() {
            Some(bars) => bars.all.suspend(print),
            None => print(),
        }
    }

    /// A line that stays, with the time since the start.
    pub(crate) fn event(&self, what: &str) {
        self.say(&format!("  {:>5.1} s  {what}", self.started.elapsed().as_secs_f64()));
    }

    /// How far it is.
    pub(crate) fn update(&self, progress: &Progress) {
        let arrived: u64 = progress.arrived.iter().sum();
        let behind = progress.produced.saturating_sub(arrived);
        if self.terminal {
            let bars = self.bars.get_or_init(|| Bars::new(&self.topics, self.paint));
            for (bar, arrived) in bars.topics.iter().zip(&progress.arrived) {
                bar.set_position(*arrived);
            }
            bars.link.set_message(format!(
                "{} behind   {:.1} MB over the link",
                grouped(behind),
                progress.wire_bytes as f64 / 1e6
            ));
            bars.link.tick();
            return;
        }
        let now = Instant::now();
        let last = self.last_line.get().unwrap_or(self.started);
        if now.duration_since(last) >= LINE_INTERVAL {
            self.last_line.set(Some(now));
            self.event(&format!(
                "{} of {} records arrived, {} behind",
                grouped(arrived),
                grouped(progress.total),
                grouped(behind)
            ));
        }
    }

    /// Takes the bars away.
    pub(crate) fn clear(&self) {
        if let Some(bars) = self.bars.get() {
            for bar in bars.topics.iter().chain([&bars.link]) {
                bar.finish_and_clear();
            }
            // What cannot be cleared stays on the screen.
            let _ = bars.all.clear();
        }
    }

    pub(crate) fn paint(&self) -> Paint {
        self.paint
    }
}

impl Bars {
    fn new(topics: &[(String, u64)], paint: Paint) -> Self {
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
        let width = topics.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        let colour = if paint.on { ".cyan/dim" } else { "" };
        let template = format!("  {{prefix}}  {{bar:30{colour}}} {{human_pos:>9}} of {{human_len}}");
        let style = style(&template).progress_chars("█▌░");
        let bar = |(name, records): &(String, u64)| {
            let bar = all.add(ProgressBar::new(*records).with_style(style.clone()));
            bar.set_prefix(format!("{name:width$}"));
            bar
        };
        let bars = topics.iter().map(bar).collect();
        let link = all.add(ProgressBar::new_spinner().with_style(self::style("  {msg}")));
        Self { all, topics: bars, link }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the templates above are well-formed")
}

impl Paint {
    pub(crate) fn bold(self, text: &str) -> String {
        self.wrap("1", text)
    }

    pub(crate) fn dim(self, text: &str) -> String {
        self.wrap("2", text)
    }

    pub(crate) fn green(self, text: &str) -> String {
        self.wrap("1;32", text)
    }

    pub(crate) fn red(self, text: &str) -> String {
        self.wrap("1;31", text)
    }

    fn wrap(self, code: &str, text: &str) -> String {
        if self.on { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

/// With a comma between thousands.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_set_apart() {
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }
}
