//! Which topics are carried, and from where.

use std::time::SystemTime;

use globset::{Glob, GlobSet, GlobSetBuilder};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// `[topics]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Topics {
    /// Topics to carry: exact names, or globs (`payments.*`, `?`, `[ab]`, `{a,b}`). No default. Topics that begin
    /// with `__` are never carried.
    pub include: Vec<String>,
    /// Topics not to carry although `include` names them. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
    /// Topics that are carried on although another link writes them here: names or globs. Default: none. Without it
    /// they are held, as they could come back in a circle.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub relay: Vec<String>,
    /// Where a source partition begins of which the importer knows nothing: `earliest`, `latest`, or a time such as
    /// `2026-01-01T00:00:00Z`. Default `earliest`. Topics and partitions that appear while the exporter runs always
    /// begin at the start of their log.
    #[serde(default)]
    pub start: Start,
    /// Topics that get more than others of a link that is full: see [`Precedence`]. Default: none, all lanes get the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub priority: Vec<Precedence>,
}

/// `[[topics.priority]]`: of lanes that have something to send, each gets a share of the link by its weight. Nobody
/// starves. A lane has the greatest weight of the topics that it carries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Precedence {
    /// Exact names, or globs as in `include`. No default. The first table that names a topic counts.
    pub topics: Vec<String>,
    /// 1 to 100: with 10, ten times what a lane of weight 1 gets. No default; topics that are not named have 1.
    #[serde(deserialize_with = "settings::whole::<_, _, 1, 100>")]
    pub weight: u16,
}

impl Topics {
    /// The weight of a topic.
    pub(crate) fn weight_of(&self, topic: &str) -> u16 {
        let names = |table: &&Precedence| compile(&table.topics).is_ok_and(|globs| globs.is_match(topic));
        self.priority.iter().find(names).map_or(1, |table| table.weight)
    }
}

/// `start`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Start {
    /// At the first record that the source still has.
    #[default]
    Earliest,
    /// At the end: only what comes from now on.
    Latest,
    /// At the first record of this time or later, in ms since 1970.
    Timestamp(i64),
}

impl<'de> Deserialize<'de> for Start {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match String::deserialize(deserializer)?.as_str() {
            "earliest" => Ok(Self::Earliest),
            "latest" => Ok(Self::Latest),
            text => timestamp(text).map(Self::Timestamp).ok_or_else(|| {
                de::Error::custom(format!(
                    "expected \"earliest\", \"latest\" or a time such as \"2026-01-01T00:00:00Z\", found {text:?}"
                ))
            }),
        }
    }
}

impl Serialize for Start {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Earliest => serializer.serialize_str("earliest"),
            Self::Latest => serializer.serialize_str("latest"),
            Self::Timestamp(ms) => {
                let since = std::time::Duration::from_millis(u64::try_from(*ms).unwrap_or(0));
                serializer.collect_str(&humantime::format_rfc3339_millis(SystemTime::UNIX_EPOCH + since))
            }
        }
    }
}

fn timestamp(text: &str) -> Option<i64> {
    let time = humantime::parse_rfc3339_weak(text).ok()?;
    i64::try_from(time.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_millis()).ok()
}

/// The rules of `include` and `exclude`, compiled.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    include: GlobSet,
    exclude: GlobSet,
    relay: GlobSet,
}

impl Rules {
    /// Compiles the rules; an error names the key and what is wrong with it.
    pub(crate) fn new(topics: &Topics) -> Result<Self, (String, String)> {
        let at = |key: &'static str| move |(index, what): (usize, String)| (format!("{key}[{index}]"), what);
        if topics.include.is_empty() {
            return Err(("include".into(), "expected at least one topic or pattern, found none".into()));
        }
        let is_internal = |pattern: &String| proto::policy::is_internal(pattern);
        if let Some(index) = topics.include.iter().position(is_internal) {
            let internal = &topics.include[index];
            let what = format!(
                "{internal:?} is never carried: topics that begin with `__` belong to a cluster itself"
            );
            return Err(at("include")((index, what)));
        }
        for (index, table) in topics.priority.iter().enumerate() {
            let key = format!("priority[{index}].topics");
            if table.topics.is_empty() {
                return Err((key, "expected at least one topic or pattern, found none".into()));
            }
            compile(&table.topics).map_err(|(index, what)| (format!("{key}[{index}]"), what))?;
        }
        Ok(Self {
            include: compile(&topics.include).map_err(at("include"))?,
            exclude: compile(&topics.exclude).map_err(at("exclude"))?,
            relay: compile(&topics.relay).map_err(at("relay"))?,
        })
    }

    /// Whether `topic` is carried.
    pub(crate) fn carries(&self, topic: &str) -> bool {
        !proto::policy::is_internal(topic) && self.include.is_match(topic) && !self.exclude.is_match(topic)
    }

    /// Whether `topic` is carried although a link writes it here.
    pub(crate) fn relays(&self, topic: &str) -> bool {
        self.relay.is_match(topic)
    }
}

/// The patterns as one set; of one that is wrong, its place in the list and why.
pub(super) fn compile(patterns: &[String]) -> Result<GlobSet, (usize, String)> {
    let mut set = GlobSetBuilder::new();
    for (index, pattern) in patterns.iter().enumerate() {
        check_pattern(pattern).map_err(|what| (index, what))?;
        let glob = Glob::new(pattern)
            .map_err(|error| (index, format!("{pattern:?} is not a topic pattern: {}", error.kind())))?;
        set.add(glob);
    }
    set.build().map_err(|error| (0, format!("the patterns cannot be used together: {error}")))
}

/// What no topic's name can match is a mistake, which would leave out, or let through, what the operator meant: a blank too
/// much, a regular expression.
fn check_pattern(pattern: &str) -> Result<(), String> {
    const GLOB: &str = "a glob with *, ?, [ab] or {a,b}";
    if !pattern.contains(['*', '?', '[', '{']) {
        return match proto::policy::is_legal_topic(pattern) {
            true => Ok(()),
            false => Err(format!(
                "{pattern:?} is not a topic's name (1 to {} letters, digits, `.`, `_` or `-`) nor {GLOB}",
                proto::limits::MAX_TOPIC_NAME
            )),
        };
    }
    let (mut in_class, mut braces) = (false, 0_u32);
    for c in pattern.chars() {
        match c {
            '[' => in_class = true,
            ']' => in_class = false,
            '{' => braces += 1,
            '}' => braces = braces.saturating_sub(1),
            '*' | '?' | '.' | '_' | '-' => {}
            '!' | '^' if in_class => {}
            ',' if braces > 0 => {}
            c if c.is_ascii_alphanumeric() => {}
            c => return Err(format!("{pattern:?} matches no topic, as no name has {c:?}; write {GLOB}")),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(include: &[&str], exclude: &[&str]) -> Rules {
        let list = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        let (include, exclude) = (list(include), list(exclude));
        Rules::new(&Topics {
            include,
            exclude,
            relay: Vec::new(),
            start: Start::Earliest,
            priority: Vec::new(),
        })
        .unwrap()
    }

    #[test]
    fn exact_names_globs_and_exclusions_decide_what_is_carried() {
        let rules = rules(&["orders", "payments.*"], &["*.internal"]);
        for (topic, carried) in [
            ("orders", true),
            ("orders2", false),
            ("payments.eu", true),
            ("payments.eu.internal", false),
            ("payments", false),
            ("clicks", false),
        ] {
            assert_eq!(rules.carries(topic), carried, "{topic}");
        }
    }

    #[test]
    fn the_first_table_that_names_a_topic_gives_its_weight() {
        let table = |topic: &str, weight| Precedence { topics: vec![topic.into()], weight };
        let mut topics = Topics {
            include: vec!["*".into()],
            exclude: Vec::new(),
            relay: Vec::new(),
            start: Start::Earliest,
            priority: vec![table("payments.audit", 2), table("payments.*", 9)],
        };
        for (topic, weight) in [("payments.eu", 9), ("payments.audit", 2), ("clickstream", 1)] {
            assert_eq!(topics.weight_of(topic), weight, "{topic}");
        }
        assert!(Rules::new(&topics).is_ok());
        topics.priority.push(table("[", 1));
        assert_eq!(Rules::new(&topics).unwrap_err().0, "priority[2].topics[0]");
    }

    #[test]
    fn what_can_match_no_topic_is_a_mistake() {
        for good in
            ["orders", "a-b_c.D", "*", "payments.*", "{orders,payments.?}", "[a-c]*", "[!_]*", "[^_]*"]
        {
            assert!(compile(&[good.to_owned()]).is_ok(), "{good}");
        }
        for bad in [
            "",
            " ",
            "orders2 ",
            "a b",
            ".",
            "..",
            "a/b",
            "caf\u{e9}",
            "orders\n",
            "^orders$",
            "(a|b)",
            "payments.+",
            "a,b",
            "!a",
            "payments\\\\..*",
            "^payments.*",
            "a *",
            "a,b*",
            "{a",
        ] {
            assert_eq!(compile(&["x".into(), bad.to_owned()]).unwrap_err().0, 1, "{bad:?}");
        }
        assert!(compile(&["x".repeat(250)]).is_err());
    }

    #[test]
    fn internal_topics_are_never_carried_whatever_the_patterns_say() {
        let rules = rules(&["*"], &[]);
        assert!(rules.carries("orders") && rules.carries("_schemas"));
        assert!(!rules.carries("__consumer_offsets") && !rules.carries("__longhaul.fra.progress"));
    }

    #[test]
    fn a_start_time_is_read_and_printed_as_it_was() {
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        struct Topics {
            start: Start,
        }
        let topics: Topics = settings::parse("t.toml", "start = \"2026-01-01T00:00:00Z\"").unwrap();
        assert_eq!(topics.start, Start::Timestamp(1_767_225_600_000));
        let printed = settings::effective(&topics).unwrap();
        assert_eq!(settings::parse::<Topics>("t.toml", &printed).unwrap(), topics);
    }
}
