//! An audit log read back while it is being written.

use std::path::Path;

use observe::event::{Event, Hold, Refuse};

/// The events of a log, oldest first.
#[derive(Debug, Clone, Default)]
pub struct Journal(Vec<Event>);

impl Journal {
    /// Reads a log; one that does not exist is empty, and a last line without an end is left out.
    ///
    /// # Panics
    /// At a line that is no event.
    pub fn read(path: &Path) -> Self {
        Self(events(path))
    }

    /// All of it.
    pub fn events(&self) -> &[Event] {
        &self.0
    }

    /// What was held.
    pub fn holds(&self) -> impl Iterator<Item = &Hold> {
        self.0.iter().filter_map(|event| if let Event::Hold(hold) = event { Some(hold) } else { None })
    }

    /// What was refused.
    pub fn refusals(&self) -> impl Iterator<Item = &Refuse> {
        self.0.iter().filter_map(|event| if let Event::Refuse(it) = event { Some(it) } else { None })
    }

    /// The last hold of a partition, if it was ever held.
    pub fn hold_of(&self, topic: &str, partition: i32) -> Option<&Hold> {
        self.holds().filter(|hold| hold.at.topic == topic && hold.at.partition == partition).last()
    }

    /// Partitions that are held now: the last word on each is a hold.
    pub fn held(&self) -> Vec<(String, i32, String)> {
        let mut last = std::collections::BTreeMap::new();
        for event in &self.0 {
            let (at, reason) = match event {
                Event::Hold(hold) => (&hold.at, Some(hold.reason.clone())),
                Event::Release(release) => (&release.at, None),
                Event::Resume(resume) => (&resume.at, None),
                Event::New(new) => (&new.at, None),
                _ => continue,
            };
            last.insert((at.topic.clone(), at.partition), reason);
        }
        last.into_iter()
            .filter_map(|((topic, partition), reason)| Some((topic, partition, reason?)))
            .collect()
    }
}

/// The events of an audit log.
///
/// # Panics
/// At a line that is no event.
pub fn events(path: &Path) -> Vec<Event> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines = text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
    let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    lines.map(parse).collect()
}
