//! What is well-formed and still wrong.

use settings::Rate;

use super::{Config, Congestion, topics::Rules};

/// A value that is not accepted.
pub(super) struct Wrong {
    /// Full path of the key: `skip[1].to`.
    pub(super) key: String,
    /// What was found and what is accepted.
    pub(super) what: String,
}

pub(super) fn check(config: &Config) -> Result<(), Wrong> {
    check_link(&config.link)?;
    if let Some(instance) = &config.instance
        && (instance.trim().is_empty()
            || instance.len() > MAX_INSTANCE
            || instance.contains(|c: char| c.is_control()))
    {
        let what =
            format!("expected 1 to {MAX_INSTANCE} bytes without control characters, found {instance:?}");
        return wrong("instance", what);
    }
    check_kafka(config)?;
    Rules::new(&config.topics).map_err(|(key, what)| Wrong { key: format!("topics.{key}"), what })?;
    check_importer(config)?;
    if let Some(what) = observe::audit::wrong_name(&config.audit.file) {
        return wrong("audit.file", what);
    }
    config.codec.check().map_err(|(key, what)| Wrong { key: format!("codec.{key}"), what })?;
    if config.batch.linger.duration() > MAX_LINGER {
        return wrong("batch.linger", format!("expected at most 10 s, found {}", config.batch.linger));
    }
    if !READ_AHEAD.contains(&config.batch.read_ahead.bytes()) {
        let found = config.batch.read_ahead;
        return wrong("batch.read_ahead", format!("expected 1 MiB to 64 MiB, found {found}"));
    }
    for (index, skip) in config.skip.iter().enumerate() {
        skip.check().map_err(|(key, what)| Wrong { key: format!("skip[{index}].{key}"), what })?;
    }
    Ok(())
}

fn check_link(link: &str) -> Result<(), Wrong> {
    if link.len() > proto::limits::MAX_LINK_NAME || !proto::policy::is_legal_topic(link) {
        let most = proto::limits::MAX_LINK_NAME;
        return wrong(
            "link",
            format!("expected 1 to {most} letters, digits, `.`, `_` or `-`, found {link:?}"),
        );
    }
    Ok(())
}

/// Properties first: a protocol that does not exist would be blamed on the brokers.
fn check_kafka(config: &Config) -> Result<(), Wrong> {
    let settings = config.kafka_settings();
    settings
        .check_source(&config.source_options())
        .map_err(|error| Wrong { key: format!("kafka.{}", error.key()), what: error.to_string() })?;
    settings.check_bootstrap().map_err(|what| Wrong { key: "kafka.bootstrap".into(), what })
}

fn check_importer(config: &Config) -> Result<(), Wrong> {
    if config.importer.address.is_empty() {
        return wrong("importer.address", "expected at least one \"host:port\", found none");
    }
    for (index, address) in config.importer.address.iter().enumerate() {
        if let Err(error) = link::check_address(address) {
            return wrong(&format!("importer.address[{index}]"), error.to_string());
        }
    }
    if let Err(error) = config.importer.identity.parse::<certs::SpiffeId>() {
        return wrong("importer.identity", error.to_string());
    }
    let least = Rate::from_bits_per_second(link::LEAST_RATE);
    if let Some(rate) = config.importer.rate.filter(|rate| *rate < least) {
        let what =
            format!("expected at least {least}, found {rate}; leave the key out when the rate is not known");
        return wrong("importer.rate", what);
    }
    if let Some(floor) = config.importer.floor {
        match config.importer.rate {
            Some(rate) if floor <= rate => {}
            Some(rate) => {
                return wrong("importer.floor", format!("expected at most the rate, {rate}, found {floor}"));
            }
            None => {
                return wrong("importer.floor", "a floor without `rate` has no meaning; write the rate too");
            }
        }
    }
    if config.importer.congestion == Some(Congestion::Governed) && config.importer.rate.is_none() {
        return wrong(
            "importer.congestion",
            "\"governed\" keeps to a rate: write `rate` too, or \"adaptive\"",
        );
    }
    Ok(())
}

fn wrong<T>(key: &str, what: impl Into<String>) -> Result<T, Wrong> {
    Err(Wrong { key: key.into(), what: what.into() })
}

const MAX_INSTANCE: usize = 200;
const MAX_LINGER: std::time::Duration = std::time::Duration::from_secs(10);
const READ_AHEAD: std::ops::RangeInclusive<u64> = 1 << 20..=64 << 20;

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn example() -> Config {
        Config::parse("edge.toml", GOOD).unwrap()
    }

    const GOOD: &str = r#"
link = "fra-to-aws"
[kafka]
bootstrap = "kafka-1:9092,kafka-2:9092"
[topics]
include = ["orders", "payments.*"]
exclude = ["*.internal"]
start = "earliest"
[importer]
address = ["importer.cloud.example:7443"]
identity = "spiffe://example.org/importer/aws"
rate = "200 Mbit/s"
[tls]
dir = "certs/edge"
[audit]
file = "audit/edge.jsonl"
[admin]
listen = "127.0.0.1:9600"
"#;

    fn error(from: &str, to: &str) -> String {
        let text = GOOD.replace(from, to);
        assert_ne!(text, GOOD, "nothing to replace");
        Config::parse("edge.toml", &text).unwrap_err().to_string()
    }

    #[test]
    fn the_example_is_accepted_with_its_defaults() {
        let config = Config::parse("edge.toml", GOOD).unwrap();
        assert_eq!(config.batch, crate::config::Batch::default());
        assert_eq!(config.group(), "longhaul.fra-to-aws");
        assert!(config.skip.is_empty() && config.instance.is_none());
    }

    #[test]
    fn what_check_prints_is_a_config_again() {
        let config = Config::parse("edge.toml", GOOD).unwrap();
        let printed = settings::effective(&config).unwrap();
        let again = Config::parse("printed.toml", &printed).unwrap();
        assert_eq!(settings::effective(&again).unwrap(), printed);
    }

    #[test]
    fn a_schema_that_is_wrong_is_named_with_its_file_and_the_place_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let (path, config) = (dir.path().join("r.avsc"), dir.path().join("edge.toml"));
        let table = format!("[[codec.avro]]\ntopics = [\"flights.*\"]\nschema = {path:?}\n[tls]");
        std::fs::write(&config, GOOD.replace("[tls]", &table)).unwrap();
        let field =
            |of: &str| format!(r#"{{"type":"record","name":"R","fields":[{{"name":"f","type":"{of}"}}]}}"#);
        std::fs::write(&path, field("long")).unwrap();
        let sound = Config::load(&config).unwrap();
        assert_eq!(sound.codec.avro[0].topics, ["flights.*"]);
        for (schema, words) in
            [(field("lang"), "uses lang at R.f"), ("{\n\"type\"".into(), "line 2 column 6")]
        {
            std::fs::write(&path, schema).unwrap();
            let error = Config::load(&config).unwrap_err().to_string();
            let file = path.display().to_string();
            for word in ["edge.toml:15: `codec.avro[0].schema`", &file, words] {
                assert!(error.contains(word), "{word:?} in: {error}");
            }
        }
    }

    #[test]
    fn every_mistake_names_its_key_and_what_would_be_right() {
        for (from, to, words) in [
            ("bootstrap =", "bootstap =", &["bootstap", "did you mean `bootstrap`"][..]),
            ("\"fra-to-aws\"", "\"fra/aws\"", &["link", "letters"]),
            ("kafka-1:9092,", "kafka-1,", &["kafka.bootstrap", "host:port"]),
            ("kafka-1:9092,", "::1:9092,", &["kafka.bootstrap", "in brackets"]),
            ("start = \"earliest\"", "start = \"erliest\"", &["topics.start", "earliest"]),
            ("\"payments.*\"", "\"payments.[\"", &["topics.include", "payments.["]),
            ("\"payments.*\"", "\"__consumer_offsets\"", &["topics.include", "never carried"]),
            ("include = [\"orders\", \"payments.*\"]", "include = []", &["topics.include", "at least one"]),
            ("[\"importer.cloud.example:7443\"]", "[]", &["importer.address", "at least one"]),
            (":7443", "", &["importer.address", "host:port"]),
            ("importer.cloud.example:7443", "::1:7443", &["importer.address", "in brackets"]),
            ("spiffe://", "https://", &["importer.identity"]),
            ("200 Mbit/s", "0 Mbit/s", &["importer.rate", "at least 64 kbit/s"]),
            ("200 Mbit/s", "1 bit/s", &["importer.rate", "found 1 bit/s"]),
            ("[tls]", "floor = \"201 Mbit/s\"\n[tls]", &["importer.floor", "at most the rate"]),
            ("rate = \"200 Mbit/s\"", "congestion = \"governed\"", &["importer.congestion", "rate"]),
            ("rate = \"200 Mbit/s\"", "congestion = \"bbr\"", &["importer.congestion", "adaptive"]),
            ("[tls]", "[codec]\nlevel = 13\n[tls]", &["codec.level", "1 to 12"]),
            ("\"importer.cloud", "\"importer cloud", &["importer.address", "DNS name"]),
            (
                "[importer]",
                "[[topics.priority]]\ntopics = [\"a\"]\nweight = -1\n[importer]",
                &["edge.toml:11: `topics.priority[0].weight`", "from 1 to 100, found -1"],
            ),
            (
                "[importer]",
                "[[topics.priority]]\ntopics = [\"a[\"]\nweight = 1\n[importer]",
                &["`topics.priority[0].topics[0]`", "a["],
            ),
            (
                "[tls]",
                "[[codec.avro]]\ntopics = []\nschema = \"s\"\n[tls]",
                &["codec.avro[0].topics", "one topic"],
            ),
            (
                "[tls]",
                "[[codec.avro]]\ntopics = [\"a\"]\nschema = \"/nowhere.avsc\"\n[tls]",
                &["codec.avro[0].schema", "/nowhere.avsc cannot be read"],
            ),
            (
                "[tls]",
                "[codec]\nschema_registry = { url = \"https://r:8081\", ca = \"/nowhere.pem\" }\n[tls]",
                &["codec.schema_registry.ca", "/nowhere.pem does not exist"],
            ),
            (
                "[tls]",
                "[codec]\nschema_registry = { url = \"http://r:8081\", ca = \"ca.pem\" }\n[tls]",
                &["codec.schema_registry.ca", "https://"],
            ),
            (
                "[tls]",
                "[codec]\nschema_registry = { url = \"r:8081\" }\n[tls]",
                &["codec.schema_registry.url", "http://host:port"],
            ),
            (
                "[tls]",
                "[codec]\nschema_registry = { url = \"http://r\", user = \"u\" }\n[tls]",
                &["codec.schema_registry.user", "password"],
            ),
            ("[tls]", "[codec]\npriority = \"speed\"\n[tls]", &["priority", "latency"]),
            ("audit/edge.jsonl", "", &["audit.file", "found nothing"]),
            ("audit/edge.jsonl", "/", &["audit.file", "a folder"]),
            ("\"fra-to-aws\"", "\"..\"", &["link", "letters"]),
            ("[tls]", "[batch]\nlinger = \"1 min\"\n[tls]", &["batch.linger", "10 s"]),
            ("[tls]", "[batch]\nread_ahead = \"1 GiB\"\n[tls]", &["batch.read_ahead", "64 MiB"]),
            (
                "[topics]",
                "[kafka.properties]\ngroup.id = \"g\"\n[topics]",
                &["group.id", "named after the link"],
            ),
            (
                "[tls]",
                "[[skip]]\ntopic = \"orders\"\npartition = 0\nfrom = 9\nto = 9\nreason = \"r\"\n[tls]",
                &["skip[0].to", "above `from`"],
            ),
        ] {
            let error = error(from, to);
            for word in words {
                assert!(error.contains(word), "{word:?} in: {error}");
            }
        }
    }
}
