//! What a cluster shall be like.

use std::collections::BTreeMap;
use std::net::SocketAddr;

/// A name and password that the brokers know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub name: String,
    pub password: String,
}

/// How clients prove who they are by SASL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mechanism {
    Plain,
    ScramSha256,
    ScramSha512,
}

impl Mechanism {
    /// The name in `sasl.mechanism`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

/// What the client listener asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Security {
    /// Nothing: clients use the plain listener.
    #[default]
    Plaintext,
    /// A password; over TLS when `tls`.
    Sasl { mechanism: Mechanism, tls: bool },
    /// TLS; with `mutual`, a client certificate, whose principal is `User:CN=client`.
    Tls { mutual: bool },
}

impl Security {
    /// The name in `security.protocol`.
    pub fn protocol(self) -> &'static str {
        match self {
            Self::Plaintext => "PLAINTEXT",
            Self::Sasl { tls: false, .. } => "SASL_PLAINTEXT",
            Self::Sasl { tls: true, .. } => "SASL_SSL",
            Self::Tls { .. } => "SSL",
        }
    }

    pub(super) fn uses_tls(self) -> bool {
        matches!(self, Self::Sasl { tls: true, .. } | Self::Tls { .. })
    }
}

/// What the Java of a node is tuned for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Jvm {
    /// A quick start and little memory: 512 MiB, serial collector, first compiler only.
    #[default]
    Quick,
    /// Throughput over minutes: 1 GiB, both compilers.
    Steady,
}

impl Jvm {
    pub(super) fn flags(self) -> Vec<String> {
        let flags: &[&str] = match self {
            Self::Quick => &["-Xms128m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"],
            Self::Steady => &["-Xms512m", "-Xmx1g", "-XX:+UseParallelGC"],
        };
        flags.iter().map(|&flag| flag.to_owned()).collect()
    }
}

/// How many nodes, and what they are told. `Default`: one plain node.
#[derive(Debug, Clone)]
pub struct ClusterOptions {
    /// Nodes, each broker and controller; an odd number.
    pub nodes: usize,
    /// Broker properties that win over the lab's own.
    pub properties: BTreeMap<String, String>,
    /// What the client listener asks for.
    pub security: Security,
    /// Who may come in by SASL.
    pub users: Vec<User>,
    /// With `StandardAuthorizer`: only what an ACL grants is allowed. The user `admin` and whoever comes in by a plain
    /// listener (`User:ANONYMOUS`) may do everything.
    pub acls: bool,
    /// Addresses of a proxy, one per node: each node gets one more plain listener that it advertises so.
    pub behind: Vec<SocketAddr>,
    /// What Java is tuned for.
    pub jvm: Jvm,
}

impl Default for ClusterOptions {
    fn default() -> Self {
        Self {
            nodes: 1,
            properties: BTreeMap::new(),
            security: Security::default(),
            users: Vec::new(),
            acls: false,
            behind: Vec::new(),
            jvm: Jvm::default(),
        }
    }
}

impl ClusterOptions {
    /// That many nodes, else as by default.
    pub fn nodes(nodes: usize) -> Self {
        Self { nodes, ..Self::default() }
    }

    /// With a broker property; wins over the lab's own.
    #[must_use]
    pub fn property(mut self, name: &str, value: &str) -> Self {
        self.properties.insert(name.to_owned(), value.to_owned());
        self
    }

    /// With a listener for clients that asks for this.
    #[must_use]
    pub fn security(mut self, security: Security) -> Self {
        self.security = security;
        self
    }

    /// With one more user.
    #[must_use]
    pub fn user(mut self, name: &str, password: &str) -> Self {
        self.users.push(User { name: name.to_owned(), password: password.to_owned() });
        self
    }

    /// With an authorizer that denies what no ACL grants.
    #[must_use]
    pub fn acls(mut self) -> Self {
        self.acls = true;
        self
    }

    /// With a listener that each node advertises at these addresses (see [`crate::proxy::Proxy::addresses`]).
    #[must_use]
    pub fn behind(mut self, proxy: Vec<SocketAddr>) -> Self {
        self.behind = proxy;
        self
    }

    /// With a Java tuned for this.
    #[must_use]
    pub fn jvm(mut self, jvm: Jvm) -> Self {
        self.jvm = jvm;
        self
    }
}
