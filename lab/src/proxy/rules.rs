//! Which requests the proxy treats specially, and how.

use std::sync::Arc;
use std::time::Duration;

use super::held::Hold;
use super::inspect;
use crate::wire::{ApiKey, RequestHeader};

/// Which requests a rule is about: an ApiKey, and as far as given whose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Match {
    /// The kind of request.
    pub api_key: ApiKey,
    /// Only requests of this transactional id.
    pub transactional_id: Option<String>,
    /// Only requests of clients that call themselves so.
    pub client_id: Option<String>,
}

impl Match {
    /// Only requests of this transactional id.
    #[must_use]
    pub fn transactional_id(mut self, id: &str) -> Self {
        self.transactional_id = Some(id.to_owned());
        self
    }

    /// Only requests of clients that call themselves so (`client.id`).
    #[must_use]
    pub fn client_id(mut self, id: &str) -> Self {
        self.client_id = Some(id.to_owned());
        self
    }

    fn fits(&self, header: &RequestHeader, frame: &[u8]) -> bool {
        self.api_key == header.api_key
            && (self.client_id.is_none() || self.client_id == header.client_id)
            && (self.transactional_id.is_none() || self.transactional_id == inspect::transactional_id(frame))
    }
}

impl From<ApiKey> for Match {
    fn from(api_key: ApiKey) -> Self {
        Self { api_key, transactional_id: None, client_id: None }
    }
}

/// What happens to a request that fits a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// It is forwarded this much later; what follows on its connection waits behind it.
    Delay(Duration),
    /// It never reaches the broker; the connection lives on and the client waits.
    Drop,
    /// It never reaches the broker, and the client loses its connection.
    CutBefore,
    /// It is forwarded, and the client loses its connection at once.
    CutAfter,
    /// It is forwarded; when the broker has answered, the client loses its connection in place of the answer.
    SwallowAnswer,
}

/// How often a rule is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Times {
    /// To the next so many requests that fit.
    Next(u32),
    /// To all until it is removed.
    Always,
}

/// What a connection has to do with a request.
#[derive(Debug, Clone)]
pub(super) enum Verdict {
    Forward,
    Act(Action),
    Hold(Arc<Hold>),
}

#[derive(Debug)]
struct Entry {
    id: u64,
    matches: Match,
    verdict: Verdict,
    times: Times,
    hits: u64,
}

/// The rules in force, oldest first; the first that fits decides.
#[derive(Debug, Default)]
pub(super) struct Rules {
    next_id: u64,
    entries: Vec<Entry>,
}

impl Rules {
    pub(super) fn add(&mut self, matches: Match, verdict: Verdict, times: Times) -> u64 {
        self.next_id += 1;
        self.entries.push(Entry { id: self.next_id, matches, verdict, times, hits: 0 });
        self.next_id
    }

    pub(super) fn remove(&mut self, id: u64) {
        self.entries.retain(|entry| entry.id != id);
    }

    pub(super) fn clear(&mut self) {
        self.entries.clear();
    }

    /// How often a rule was applied; a rule that was removed has no number any more.
    pub(super) fn hits(&self, id: u64) -> Option<u64> {
        self.entries.iter().find(|entry| entry.id == id).map(|entry| entry.hits)
    }

    pub(super) fn judge(&mut self, header: &RequestHeader, frame: &[u8]) -> Verdict {
        let fitting = |entry: &&mut Entry| entry.times != Times::Next(0) && entry.matches.fits(header, frame);
        let Some(entry) = self.entries.iter_mut().find(fitting) else { return Verdict::Forward };
        entry.hits += 1;
        if let Times::Next(left) = &mut entry.times {
            *left -= 1;
        }
        entry.verdict.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Writer;

    fn end_txn(client: &str, id: &str) -> (RequestHeader, Vec<u8>) {
        let header = RequestHeader {
            api_key: ApiKey::EndTxn,
            version: 1,
            correlation_id: 1,
            client_id: Some(client.to_owned()),
        };
        let frame = Writer::request(&header, false).string(Some(id)).finish();
        (header, frame)
    }

    fn acts(rules: &mut Rules, request: &(RequestHeader, Vec<u8>)) -> Option<Action> {
        match rules.judge(&request.0, &request.1) {
            Verdict::Act(action) => Some(action),
            _ => None,
        }
    }

    #[test]
    fn a_rule_is_applied_as_often_as_it_says_and_only_to_whom_it_names() {
        let mut rules = Rules::default();
        let matches = Match::from(ApiKey::EndTxn).transactional_id("lane-1").client_id("cloud");
        let id = rules.add(matches, Verdict::Act(Action::Drop), Times::Next(2));
        assert_eq!(acts(&mut rules, &end_txn("cloud", "lane-0")), None);
        assert_eq!(acts(&mut rules, &end_txn("edge", "lane-1")), None);
        assert_eq!(acts(&mut rules, &end_txn("cloud", "lane-1")), Some(Action::Drop));
        assert_eq!(acts(&mut rules, &end_txn("cloud", "lane-1")), Some(Action::Drop));
        assert_eq!(acts(&mut rules, &end_txn("cloud", "lane-1")), None);
        assert_eq!(rules.hits(id), Some(2));
    }

    #[test]
    fn a_used_up_rule_makes_way_for_the_next_one() {
        let mut rules = Rules::default();
        rules.add(ApiKey::EndTxn.into(), Verdict::Act(Action::Drop), Times::Next(1));
        let always = rules.add(ApiKey::EndTxn.into(), Verdict::Act(Action::CutBefore), Times::Always);
        let request = end_txn("cloud", "lane-0");
        assert_eq!(acts(&mut rules, &request), Some(Action::Drop));
        assert_eq!(acts(&mut rules, &request), Some(Action::CutBefore));
        assert_eq!(acts(&mut rules, &request), Some(Action::CutBefore));
        rules.remove(always);
        assert_eq!(acts(&mut rules, &request), None);
    }
}
