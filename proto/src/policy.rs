//! Who may write what. Default deny.
//!
//! A [`Permit`] is a value that must be held to write a topic at the target, a [`Grant`] the value that must be held
//! to get one; only this module makes either, out of the operator's [`Policy`].

use std::{collections::BTreeMap, fmt, str::FromStr, sync::Arc};

use crate::limits;

/// The importer's policy: one entry per link.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    links: BTreeMap<String, LinkPolicy>,
}

/// What one link may do.
#[derive(Debug, Clone)]
pub struct LinkPolicy {
    /// The SPIFFE id of the only exporter that may speak for the link.
    pub identity: String,
    /// The only source cluster it may speak for, when the operator named one.
    pub cluster: Option<String>,
    /// Topics it may write, by their source names.
    pub topics: Vec<Pattern>,
    /// Target names.
    pub mapping: Mapping,
    /// Bits a second on the wire; `None` when not limited.
    pub rate: Option<u64>,
}

impl Policy {
    /// A policy that grants nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds or replaces a link.
    pub fn insert(&mut self, link: impl Into<String>, policy: LinkPolicy) {
        self.links.insert(link.into(), policy);
    }

    /// What the authenticated `identity` may do on `link` with records of `cluster`.
    pub fn admit(&self, link: &str, identity: &str, cluster: &str) -> Result<Grant, Refusal> {
        let Some(policy) = self.links.get(link) else {
            return Err(Refusal::UnknownLink { link: shorten(link) });
        };
        if policy.identity != identity {
            return Err(Refusal::WrongIdentity { link: link.into(), identity: identity.into() });
        }
        if policy.cluster.as_ref().is_some_and(|expected| expected != cluster) {
            return Err(Refusal::WrongCluster { link: link.into(), cluster: shorten(cluster) });
        }
        Ok(Grant {
            link: link.into(),
            topics: policy.topics.clone(),
            mapping: policy.mapping.clone(),
            rate: policy.rate,
        })
    }
}

/// What an admitted identity may do on its link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    link: Arc<str>,
    topics: Vec<Pattern>,
    mapping: Mapping,
    rate: Option<u64>,
}

impl Grant {
    /// The link.
    pub fn link(&self) -> &str {
        &self.link
    }

    /// The granted patterns, as the operator wrote them.
    pub fn topics(&self) -> &[Pattern] {
        &self.topics
    }

    /// Bits a second on the wire; `None` when not limited.
    pub fn rate(&self) -> Option<u64> {
        self.rate
    }

    /// Whether everything that `before` granted is granted still, under the same names: a session may go on then.
    pub fn keeps(&self, before: &Self) -> bool {
        let covered = |old: &Pattern| self.topics.iter().any(|pattern| pattern.covers(old));
        self.link == before.link && self.mapping == before.mapping && before.topics.iter().all(covered)
    }

    /// The right to write `topic`, with the name that it has at the target.
    pub fn permit(&self, topic: &str) -> Result<Permit, Refusal> {
        if !is_legal_topic(topic) {
            return Err(Refusal::IllegalTopic { topic: shorten(topic) });
        }
        if is_internal(topic) {
            return Err(Refusal::InternalTopic { topic: topic.into() });
        }
        if !self.topics.iter().any(|pattern| pattern.matches(topic)) {
            return Err(Refusal::NotGranted { topic: topic.into(), link: self.link.to_string() });
        }
        let target = self.mapping.target(topic);
        if !is_legal_topic(&target) || is_internal(&target) {
            return Err(Refusal::IllegalTarget { topic: topic.into(), target: shorten(&target) });
        }
        Ok(Permit { topic: topic.into(), target: target.into() })
    }
}

/// The right to write one source topic's records into one target topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permit {
    topic: Arc<str>,
    target: Arc<str>,
}

impl Permit {
    /// The topic's name at the source.
    pub fn topic(&self) -> &Arc<str> {
        &self.topic
    }

    /// The topic's name at the target.
    pub fn target(&self) -> &Arc<str> {
        &self.target
    }
}

/// A topic's exact name, or a prefix of names: `payments.*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pattern {
    /// This topic.
    Exact(String),
    /// Every topic whose name begins so.
    Prefix(String),
}

impl Pattern {
    /// Whether the pattern covers `topic`. No pattern covers an internal topic (`__*`).
    pub fn matches(&self, topic: &str) -> bool {
        !is_internal(topic)
            && match self {
                Self::Exact(name) => name == topic,
                Self::Prefix(prefix) => topic.starts_with(prefix.as_str()),
            }
    }

    /// Whether the pattern covers every topic that `other` covers.
    fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Exact(one), Self::Exact(other)) => one == other,
            (Self::Exact(_), Self::Prefix(_)) => false,
            (Self::Prefix(prefix), Self::Exact(other) | Self::Prefix(other)) => {
                other.starts_with(prefix.as_str())
            }
        }
    }
}

impl FromStr for Pattern {
    type Err = InvalidPattern;

    fn from_str(text: &str) -> Result<Self, InvalidPattern> {
        let invalid = |why| InvalidPattern { pattern: shorten(text), why };
        let (name, is_prefix) = text.strip_suffix('*').map_or((text, false), |prefix| (prefix, true));
        if name.contains('*') {
            return Err(invalid("`*` may stand at the end only"));
        }
        if is_internal(name) {
            return Err(invalid("internal topics (`__...`) are never carried"));
        }
        if is_prefix {
            if !name.bytes().all(is_topic_byte) || name.len() > limits::MAX_TOPIC_NAME {
                return Err(invalid("not the beginning of a topic's name"));
            }
            return Ok(Self::Prefix(name.into()));
        }
        if !is_legal_topic(name) {
            return Err(invalid("not a topic's name: letters, digits, `.`, `_` and `-`, at most 249"));
        }
        Ok(Self::Exact(name.into()))
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Prefix(prefix) => write!(f, "{prefix}*"),
        }
    }
}

/// Names at the target: renamed one by one, else with a prefix.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mapping {
    /// Put before the source's name. May be empty.
    pub prefix: String,
    /// Explicit names, by the source's name; they take no prefix.
    pub rename: BTreeMap<String, String>,
}

impl Mapping {
    /// The target's name of a source topic.
    pub fn target(&self, topic: &str) -> String {
        self.rename.get(topic).cloned().unwrap_or_else(|| format!("{}{topic}", self.prefix))
    }
}

/// Why something is not granted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No such link.
    #[error("no link named `{link}` is configured here")]
    UnknownLink {
        /// As the peer named it.
        link: String,
    },
    /// The link belongs to another identity.
    #[error("link `{link}` is not granted to {identity}")]
    WrongIdentity {
        /// The link.
        link: String,
        /// Who asked.
        identity: String,
    },
    /// The link belongs to another source cluster.
    #[error("link `{link}` does not carry source cluster `{cluster}`")]
    WrongCluster {
        /// The link.
        link: String,
        /// The cluster that was named.
        cluster: String,
    },
    /// Not a name that Kafka allows.
    #[error("`{topic}` is not a legal topic name")]
    IllegalTopic {
        /// As the peer named it.
        topic: String,
    },
    /// A topic that is never carried.
    #[error("`{topic}` is an internal topic, which is never carried")]
    InternalTopic {
        /// The topic.
        topic: String,
    },
    /// Outside the grant.
    #[error("topic `{topic}` is not granted on link `{link}`: add it to the link's `topics` at the importer")]
    NotGranted {
        /// The topic.
        topic: String,
        /// The link.
        link: String,
    },
    /// The mapping makes a name that the target does not allow.
    #[error("topic `{topic}` would be named `{target}` at the target, which is not a legal name there")]
    IllegalTarget {
        /// The topic.
        topic: String,
        /// Its name by the mapping.
        target: String,
    },
}

/// A pattern that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("topic pattern `{pattern}`: {why}")]
pub struct InvalidPattern {
    pattern: String,
    why: &'static str,
}

/// Whether `name` is a legal topic name by Kafka's own rule.
pub fn is_legal_topic(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= limits::MAX_TOPIC_NAME
        && name != "."
        && name != ".."
        && name.bytes().all(is_topic_byte)
}

/// Whether `name` is Kafka's or a bridge's own business, which is never carried.
pub fn is_internal(name: &str) -> bool {
    name.starts_with("__")
}

fn is_topic_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')
}

/// What a peer wrote, cut so that it cannot flood a log.
fn shorten(text: &str) -> String {
    text.chars().take(limits::MAX_TOPIC_NAME).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> Policy {
        let mut policy = Policy::new();
        policy.insert(
            "fra-to-aws",
            LinkPolicy {
                identity: "spiffe://example.org/exporter/fra".into(),
                cluster: Some("fra".into()),
                topics: vec!["orders".parse().unwrap(), "payments.*".parse().unwrap()],
                mapping: Mapping {
                    prefix: "eu.".into(),
                    rename: BTreeMap::from([("orders".into(), "all-orders".into())]),
                },
                rate: None,
            },
        );
        policy
    }

    fn grant() -> Grant {
        policy().admit("fra-to-aws", "spiffe://example.org/exporter/fra", "fra").unwrap()
    }

    #[test]
    fn only_the_links_own_identity_and_cluster_are_admitted() {
        let policy = policy();
        let id = "spiffe://example.org/exporter/fra";
        assert!(matches!(policy.admit("other", id, "fra"), Err(Refusal::UnknownLink { .. })));
        assert!(matches!(
            policy.admit("fra-to-aws", "spiffe://x/y", "fra"),
            Err(Refusal::WrongIdentity { .. })
        ));
        assert!(matches!(policy.admit("fra-to-aws", id, "muc"), Err(Refusal::WrongCluster { .. })));
        assert!(Policy::new().admit("fra-to-aws", id, "fra").is_err(), "an empty policy grants nothing");
    }

    #[test]
    fn only_granted_topics_get_a_permit() {
        let grant = grant();
        assert_eq!(&**grant.permit("orders").unwrap().target(), "all-orders");
        assert_eq!(&**grant.permit("payments.card").unwrap().target(), "eu.payments.card");
        for topic in ["order", "orders2", "payments", "Payments.card", "clicks"] {
            assert!(matches!(grant.permit(topic), Err(Refusal::NotGranted { .. })), "{topic}");
        }
        assert!(matches!(grant.permit("__consumer_offsets"), Err(Refusal::InternalTopic { .. })));
        for topic in ["", ".", "..", "payments.\u{430}", "payments./x", "payments. "] {
            assert!(matches!(grant.permit(topic), Err(Refusal::IllegalTopic { .. })), "{topic:?}");
        }
        let long = format!("payments.{}", "x".repeat(limits::MAX_TOPIC_NAME - 10));
        assert!(matches!(grant.permit(&long), Err(Refusal::IllegalTarget { .. })));
    }

    #[test]
    fn a_grant_keeps_another_that_covers_less_under_the_same_names() {
        let with = |topics: &[&str], change: fn(&mut LinkPolicy)| {
            let mut policy = policy();
            let mut entry = policy.links.remove("fra-to-aws").unwrap();
            entry.topics = topics.iter().map(|topic| topic.parse().unwrap()).collect();
            change(&mut entry);
            policy.insert("fra-to-aws", entry);
            policy.admit("fra-to-aws", "spiffe://example.org/exporter/fra", "fra").unwrap()
        };
        let same = |topics: &[&str]| with(topics, |_| {});
        let before = grant();
        assert!(before.keeps(&before));
        for topics in [["orders", "payments.*"], ["*", "x"], ["ord*", "pay*"], ["payments.*", "orders"]] {
            assert!(same(&topics).keeps(&before), "{topics:?}");
        }
        for topics in [["orders", "payments.eu.*"], ["orders", "payments.eu"], ["order", "payments.*"]] {
            assert!(!same(&topics).keeps(&before), "{topics:?}");
        }
        let topics = ["orders", "payments.*"];
        assert!(with(&topics, |entry| entry.rate = Some(1)).keeps(&before), "a rate takes no right back");
        assert!(!with(&topics, |entry| entry.mapping.prefix = "us.".into()).keeps(&before));
        assert!(!with(&topics, |entry| entry.mapping.rename.clear()).keeps(&before));
    }

    #[test]
    fn a_pattern_is_exact_or_an_explicit_prefix() {
        assert_eq!("*".parse(), Ok(Pattern::Prefix(String::new())));
        assert!(!Pattern::Prefix(String::new()).matches("__longhaul.x.progress"));
        for wrong in ["*.internal", "a*b", "__x*", "__consumer_offsets", "", "a b", "a b*"] {
            assert!(wrong.parse::<Pattern>().is_err(), "{wrong:?}");
        }
    }
}
