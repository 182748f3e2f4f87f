//! What a client is told from outside, and what it may not be told.

use std::{collections::BTreeMap, fmt, net::Ipv6Addr};

use crate::{
    Error, ProducerOptions, SourceOptions,
    native::{Client, Conf, Kind, Refusal},
    producer, source,
};

/// How to reach a cluster, and as whom.
#[derive(Clone, Default)]
pub struct Settings {
    /// `host:port` of some brokers, separated by commas.
    pub bootstrap: String,
    /// Any librdkafka property (`security.protocol`, `sasl.*`, `ssl.*`, tuning), but those the delivery
    /// promise depends on: those are refused by name when a handle is made.
    pub properties: BTreeMap<String, String>,
    /// How the client names itself to the brokers and in our logs.
    pub client_id: String,
}

impl Settings {
    /// The same cluster and principal under another client name.
    #[must_use]
    pub fn named(&self, client_id: impl Into<String>) -> Self {
        Self { client_id: client_id.into(), ..self.clone() }
    }

    /// Checks how `bootstrap` is written, without asking anybody: `host:port`, several separated by commas, an IPv6 address
    /// in brackets, perhaps a protocol before it as librdkafka takes it (`SASL_SSL://host:port`).
    ///
    /// # Errors
    /// What is wrong with which of them.
    pub fn check_bootstrap(&self) -> Result<(), String> {
        let protocol = self.properties.get("security.protocol").map_or("plaintext", String::as_str);
        self.bootstrap.split(',').try_for_each(|broker| check_broker(broker.trim(), protocol))
    }

    /// Whether a [`SourceConsumer`](crate::SourceConsumer) can be made of the properties: their names and values, that none
    /// is refused, that they fit together, and that the files they name can be used. Nobody is dialled.
    ///
    /// # Errors
    /// The first property that is wrong, by name as far as librdkafka tells it.
    pub fn check_source(&self, options: &SourceOptions) -> Result<(), Error> {
        self.try_out(Kind::Consumer, |offline| source::configuration(offline, "check", options))
    }

    /// The same of a [`TransactionalProducer`](crate::TransactionalProducer).
    ///
    /// # Errors
    /// As [`check_source`](Self::check_source).
    pub fn check_target(&self, options: &ProducerOptions) -> Result<(), Error> {
        self.try_out(Kind::Producer, |offline| producer::configuration(offline, "check", options))
    }

    /// Makes a client that knows no broker, and gives it back at once.
    fn try_out(&self, kind: Kind, conf: impl FnOnce(&Self) -> Result<Conf, Error>) -> Result<(), Error> {
        let offline = Self { bootstrap: String::new(), ..self.clone() };
        let mut conf = conf(&offline)?;
        self.check_mechanism()?;
        // Its words come back as an error; what else it says is about having no broker.
        set(&mut conf, "log_level", "0")?;
        match Client::new(kind, &offline, conf) {
            Ok(_) => Ok(()),
            Err(Error::Create { client_id, reason }) => {
                let named = self.properties.keys().filter(|name| reason.contains(name.as_str()));
                Err(match named.max_by_key(|name| name.len()) {
                    Some(name) => {
                        Error::InvalidProperty { property: name.clone(), reason: format!(": {reason}") }
                    }
                    None => Error::Create { client_id, reason },
                })
            }
            Err(error) => Err(error),
        }
    }

    /// librdkafka takes no mechanism for Kerberos, which is not built in, and says so in other words.
    fn check_mechanism(&self) -> Result<(), Error> {
        let protocol = self.properties.get("security.protocol").map(|protocol| protocol.to_ascii_lowercase());
        if !protocol.is_some_and(|protocol| protocol.starts_with("sasl_")) {
            return Ok(());
        }
        let is_set = |name: &str, value: &str| self.properties.get(name).is_some_and(|set| set == value);
        // A token that nobody signs is all that is built in of this one.
        let unsigned = is_set("enable.sasl.oauthbearer.unsecure.jwt", "true");
        let expected = MECHANISMS.join(", ");
        let mut is_written = false;
        for name in ["sasl.mechanism", "sasl.mechanisms"] {
            let Some(mechanism) = self.properties.get(name) else { continue };
            is_written = true;
            let is_known = MECHANISMS.contains(&mechanism.as_str());
            if !is_known && (mechanism != "OAUTHBEARER" || !unsigned) {
                let reason = format!(": expected one of {expected}, found {mechanism:?}");
                return Err(Error::InvalidProperty { property: name.into(), reason });
            }
        }
        if is_written {
            return Ok(());
        }
        Err(Error::InvalidProperty {
            property: "security.protocol".into(),
            reason: format!(" alone: write \"sasl.mechanism\" too, one of {expected}"),
        })
    }

    /// A configuration: our defaults, over them the operator's properties, over them what must hold.
    pub(crate) fn conf(&self, defaults: &[(&str, &str)], forced: &[(&str, &str)]) -> Result<Conf, Error> {
        let mut conf = Conf::new();
        for (name, value) in COMMON_DEFAULTS.iter().chain(defaults) {
            set(&mut conf, name, value)?;
        }
        for (name, value) in &self.properties {
            if let Some((_, reason)) = REFUSED.iter().find(|(refused, _)| refused == name) {
                return Err(Error::RefusedProperty { property: name.clone(), reason });
            }
            set(&mut conf, name, value)?;
        }
        set(&mut conf, "bootstrap.servers", &self.bootstrap)?;
        set(&mut conf, "client.id", &self.client_id)?;
        for (name, value) in forced {
            set(&mut conf, name, value)?;
        }
        Ok(conf)
    }
}

fn check_broker(broker: &str, protocol: &str) -> Result<(), String> {
    let (scheme, address) = broker.split_once("://").unwrap_or((protocol, broker));
    let expected =
        || Err(format!("expected host:port, several separated by commas, found {broker:?} among them"));
    if !PROTOCOLS.iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
        return expected();
    }
    if !scheme.eq_ignore_ascii_case(protocol) {
        let scheme = scheme.to_ascii_uppercase();
        return Err(format!(
            "{broker:?} does not go with \"security.protocol\", which is {protocol:?}: write \
             \"security.protocol\" = \"{scheme}\" under [kafka.properties]"
        ));
    }
    let Some((host, port)) = address.rsplit_once(':') else { return expected() };
    let is_host = match host.strip_prefix('[').map(|host| host.strip_suffix(']')) {
        // Perhaps with the name of a network interface.
        Some(Some(host)) => host.split('%').next().is_some_and(|ip| ip.parse::<Ipv6Addr>().is_ok()),
        Some(None) => false,
        None if address.parse::<Ipv6Addr>().is_ok() || host.parse::<Ipv6Addr>().is_ok() => {
            return Err(format!("{broker:?}: an IPv6 address stands in brackets, as in [2001:db8::1]:9092"));
        }
        None => {
            host.split('.').all(is_label)
                || host.strip_suffix('.').is_some_and(|host| host.split('.').all(is_label))
        }
    };
    let is_port = !port.starts_with('+') && port.parse::<u16>().is_ok_and(|port| port > 0);
    if is_host && is_port { Ok(()) } else { expected() }
}

/// What `security.protocol` can be.
const PROTOCOLS: [&str; 4] = ["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"];

/// What `sasl.mechanism` can be.
const MECHANISMS: [&str; 3] = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"];

/// A part of a host's name. Underscores are none, but are in use.
fn is_label(label: &str) -> bool {
    !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

/// Shows the names of the properties, never their values: some are secrets.
impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("bootstrap", &self.bootstrap)
            .field("client_id", &self.client_id)
            .field("properties", &self.properties.keys().collect::<Vec<_>>())
            .finish()
    }
}

fn set(conf: &mut Conf, name: &str, value: &str) -> Result<(), Error> {
    conf.set(name, value).map_err(|refusal| match refusal {
        Refusal::Unknown => Error::UnknownProperty { property: name.to_owned() },
        // librdkafka repeats the value in its words.
        Refusal::Invalid(_) if is_secret(name) => {
            Error::InvalidProperty { property: name.to_owned(), reason: String::new() }
        }
        Refusal::Invalid(text) => {
            Error::InvalidProperty { property: name.to_owned(), reason: format!(": {text}") }
        }
    })
}

fn is_secret(name: &str) -> bool {
    ["password", "secret", ".key", ".pem", "token", "jaas", "sasl.oauthbearer"]
        .iter()
        .any(|part| name.contains(part))
}

/// What every client starts from; an operator may change each.
const COMMON_DEFAULTS: &[(&str, &str)] = &[
    ("socket.nagle.disable", "true"),
    ("socket.keepalive.enable", "true"),
    // A broker that comes back is used within a second.
    ("reconnect.backoff.ms", "50"),
    ("reconnect.backoff.max.ms", "1000"),
    // A leader that moved is found within seconds even when nothing fails.
    ("topic.metadata.refresh.interval.ms", "5000"),
    ("metadata.max.age.ms", "15000"),
    ("topic.metadata.refresh.fast.interval.ms", "100"),
    // How long a topic may be missing before it counts as gone; a broker that just started may not know it yet.
    ("topic.metadata.propagation.max.ms", "10000"),
    // Longer than a slow broker needs, short enough that a dead one is noticed.
    ("socket.timeout.ms", "10000"),
    ("socket.connection.setup.timeout.ms", "10000"),
    // Brokers do not get to collect our metrics.
    ("enable.metrics.push", "false"),
];

/// Properties that the delivery promise or our own bookkeeping depends on.
const REFUSED: &[(&str, &str)] = &[
    ("bootstrap.servers", "write the brokers into `bootstrap`"),
    ("metadata.broker.list", "write the brokers into `bootstrap`"),
    ("client.id", "clients are named after the link and their part in it"),
    ("enable.idempotence", IDEMPOTENCE),
    ("acks", IDEMPOTENCE),
    ("request.required.acks", IDEMPOTENCE),
    ("enable.gapless.guarantee", IDEMPOTENCE),
    ("transactional.id", "it fences the lane's former writer and is named after link and lane"),
    ("transaction.timeout.ms", "it is an option of the importer's lanes"),
    ("message.timeout.ms", "it follows from the transaction's time-out"),
    ("delivery.timeout.ms", "it follows from the transaction's time-out"),
    ("delivery.report.only.error", "offsets at the target come from the delivery reports"),
    ("message.max.bytes", "the target topic says how large a record may be"),
    ("queuing.strategy", "records go out in their order"),
    ("produce.offset.report", "offsets at the target come from the delivery reports"),
    ("enabled_events", "it says which events the program is told of"),
    ("builtin.features", "it says what is built in"),
    ("internal.termination.signal", "the signal would be sent to the program itself"),
    ("group.id", "the exporter's group is named after the link"),
    ("group.instance.id", "partitions are assigned by the link, not by a group"),
    ("group.protocol", "partitions are assigned by the link, not by a group"),
    ("isolation.level", "only committed records are carried"),
    ("enable.auto.commit", "positions are committed only after the target has the records"),
    ("enable.auto.offset.store", "positions are committed only after the target has the records"),
    ("auto.offset.reset", "a position that is gone must be reported, never replaced"),
    ("enable.partition.eof", "progress over markers depends on it"),
    ("log.queue", "librdkafka's log goes into ours"),
    ("check.crcs", "a record that was damaged must not be carried"),
    ("allow.auto.create.topics", "topics are created with the source's partition count or not at all"),
];

const IDEMPOTENCE: &str = "delivery exactly once depends on it";

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: &str, value: &str) -> Settings {
        Settings {
            bootstrap: "localhost:1".into(),
            properties: BTreeMap::from([(name.into(), value.into())]),
            client_id: "test".into(),
        }
    }

    #[test]
    fn an_unknown_property_is_named() {
        let error = with("sasl.usrname", "x").check_source(&SourceOptions::default()).unwrap_err();
        assert!(
            matches!(&error, Error::UnknownProperty { property } if property == "sasl.usrname"),
            "{error}"
        );
        assert!(error.to_string().contains("sasl.usrname"));
    }

    #[test]
    fn every_property_that_delivery_depends_on_is_refused_by_name() {
        for (name, _) in REFUSED {
            let error = with(name, "1").check_source(&SourceOptions::default()).unwrap_err();
            assert!(matches!(&error, Error::RefusedProperty { property, .. } if property == name), "{error}");
        }
    }

    #[test]
    fn every_refused_property_is_one_that_librdkafka_knows() {
        for (name, _) in REFUSED {
            assert!(!matches!(Conf::new().set(name, ""), Err(Refusal::Unknown)), "{name}");
        }
    }

    #[test]
    fn a_wrong_value_is_explained_unless_it_could_be_a_secret() {
        let error = with("security.protocol", "SASLSSL")
            .check_source(&SourceOptions::default())
            .unwrap_err()
            .to_string();
        assert!(error.contains("security.protocol") && error.contains("SASLSSL"), "{error}");
        assert!(!format!("{:?}", with("sasl.password", "hunter2")).contains("hunter2"));
        let error = with("sasl.password", "hun\0ter2")
            .check_source(&SourceOptions::default())
            .unwrap_err()
            .to_string();
        assert!(error.contains("sasl.password") && !error.contains("hun"), "{error}");
    }

    #[test]
    fn brokers_are_host_and_port_and_ipv6_stands_in_brackets() {
        let check = |bootstrap: &str, protocol: &str| {
            Settings { bootstrap: bootstrap.into(), ..with("security.protocol", protocol) }.check_bootstrap()
        };
        let plain = |bootstrap: &str| check(bootstrap, "plaintext");
        for good in
            ["a:9092", "a_1.example.:1, b-2:2", "[::1]:9092", "[fe80::1%eth0]:1", "PLAINTEXT://10.0.0.1:9092"]
        {
            assert_eq!(plain(good), Ok(()), "{good}");
        }
        assert_eq!(check("SASL_SSL://[2001:db8::1]:9092,b:1", "sasl_ssl"), Ok(()));
        let bad = [
            "",
            " ",
            "a",
            "a:",
            "a:0",
            "a:70000",
            ":9092",
            "a:1,",
            "a:1,,b:2",
            "[a:b]:1",
            "[::1:9092",
            "[::1]",
            "a:1;b:2",
        ];
        for bad in bad.into_iter().chain(["a b:1", "*:1", "user@a:1", "a..b:1", "a:1:2"]) {
            assert!(plain(bad).unwrap_err().contains("expected host:port"), "{bad}");
        }
        for bad in ["::1:9092", "2001:db8::1", "a:1,::1:9092"] {
            assert!(plain(bad).unwrap_err().contains("in brackets"), "{bad}");
        }
        assert!(plain("http://a:9092").unwrap_err().contains("expected host:port"));
        for bad in ["SASL_SSL://a:9092", "SSL://a:9092"] {
            assert!(plain(bad).unwrap_err().contains("security.protocol"), "{bad}");
        }
    }

    #[test]
    fn an_operator_may_tune() {
        with("queued.min.messages", "20000").check_source(&SourceOptions::default()).unwrap();
        with("linger.ms", "20").check_target(&ProducerOptions::default()).unwrap();
    }

    #[test]
    fn what_no_client_can_be_made_of_is_found_without_a_broker() {
        let settings = |properties: &[(&str, &str)]| Settings {
            bootstrap: "localhost:1".into(),
            properties: properties.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
            client_id: "test".into(),
        };
        let sasl = |mechanism: &str| {
            settings(&[
                ("security.protocol", "SASL_PLAINTEXT"),
                ("sasl.mechanism", mechanism),
                ("sasl.username", "u"),
                ("sasl.password", "p"),
            ])
        };
        for good in [sasl("PLAIN"), sasl("SCRAM-SHA-512"), settings(&[("security.protocol", "ssl")])] {
            good.check_source(&SourceOptions::default()).unwrap();
            good.check_target(&ProducerOptions::default()).unwrap();
        }
        let bad: &[(Settings, &str, &str)] = &[
            (sasl("FOO"), "sasl.mechanism", "one of PLAIN, SCRAM-SHA-256"),
            (sasl("OAUTHBEARER"), "sasl.mechanism", "one of PLAIN"),
            (sasl("scram-sha-512"), "sasl.mechanism", "found \"scram-sha-512\""),
            (settings(&[("security.protocol", "sasl_ssl")]), "security.protocol", "sasl.mechanism"),
            (
                settings(&[("security.protocol", "ssl"), ("ssl.ca.location", "/nowhere.pem")]),
                "ssl.ca.location",
                "failed",
            ),
        ];
        for (bad, property, words) in bad {
            for error in [
                bad.check_source(&SourceOptions::default()).unwrap_err(),
                bad.check_target(&ProducerOptions::default()).unwrap_err(),
            ] {
                assert_eq!(error.property(), Some(*property), "{error}");
                assert!(error.to_string().contains(words), "{error}");
            }
        }
        let error = settings(&[("receive.message.max.bytes", "1000")])
            .check_source(&SourceOptions::default())
            .unwrap_err();
        assert_eq!(error.property(), Some("receive.message.max.bytes"), "{error}");
        let error =
            settings(&[("max.in.flight", "6")]).check_target(&ProducerOptions::default()).unwrap_err();
        assert_eq!(error.property(), Some("max.in.flight"), "{error}");
    }
}
