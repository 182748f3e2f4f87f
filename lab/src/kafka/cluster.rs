//! A running cluster: its nodes, its ports, its folder.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rand::RngExt as _;
use tempfile::TempDir;

use super::installation::{Installation, ToolOutput};
use super::options::{ClusterOptions, Jvm, Security};
use super::process::Process;
use super::security::{self, Certificates};
use super::{Error, Result, probe};
use crate::ports::Port;

/// Generous: the machine may be busy with other suites.
const START_PATIENCE: Duration = Duration::from_secs(90);
const STOP_PATIENCE: Duration = Duration::from_secs(20);
const LOG_TAIL_LINES: usize = 25;

/// One or more KRaft nodes on loopback. Dropped: all killed, and the folder removed unless the thread panics.
#[derive(Debug)]
pub struct Cluster {
    installation: Installation,
    options: ClusterOptions,
    nodes: Vec<Node>,
    certificates: Option<Certificates>,
    /// `None` only while it is dropped.
    directory: Option<TempDir>,
}

#[derive(Debug)]
struct Node {
    /// Kafka's `node.id`, from 1.
    id: i32,
    internal: Port,
    controller: Port,
    client: Option<Port>,
    proxied: Option<Port>,
    properties: PathBuf,
    log: PathBuf,
    process: Mutex<Option<Process>>,
}

impl Cluster {
    /// Formats and starts the nodes, and waits until each answers a metadata request that names all of them.
    pub fn start(installation: &Installation, options: ClusterOptions) -> Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix("longhaul-kafka-")
            .tempdir()
            .map_err(|source| Error::Write { path: std::env::temp_dir(), source })?;
        let certificates =
            options.security.uses_tls().then(|| Certificates::create(directory.path())).transpose()?;
        let nodes = (1..).take(options.nodes).map(|id| Node::new(id, &options, directory.path()));
        let nodes = nodes.collect::<Result<Vec<_>>>()?;
        let installation = installation.clone();
        let cluster = Self { installation, options, nodes, certificates, directory: Some(directory) };
        cluster.write_properties()?;
        cluster.format()?;
        for node in &cluster.nodes {
            cluster.launch(node)?;
        }
        for node in &cluster.nodes {
            cluster.await_answer(node)?;
        }
        Ok(cluster)
    }

    /// `bootstrap.servers` of the client listener: plain, or with what [`ClusterOptions::security`] asks for.
    pub fn bootstrap(&self) -> String {
        self.addresses(|node| node.client.as_ref().unwrap_or(&node.internal))
    }

    /// `bootstrap.servers` of the plain listener that every cluster has; there everything is allowed.
    pub fn admin_bootstrap(&self) -> String {
        self.addresses(|node| &node.internal)
    }

    /// Where the listeners behind a proxy really listen, in the order of [`ClusterOptions::behind`].
    pub fn proxied_addresses(&self) -> Vec<String> {
        self.nodes
            .iter()
            .filter_map(|node| node.proxied.as_ref())
            .map(|port| port.address().to_string())
            .collect()
    }

    /// librdkafka properties with which `user` comes in at [`Cluster::bootstrap`].
    ///
    /// # Panics
    /// When the cluster has no such user.
    pub fn client_properties(&self, user: Option<&str>) -> BTreeMap<String, String> {
        let user = user.map(|name| {
            let found = self.options.users.iter().find(|user| user.name == name);
            found.unwrap_or_else(|| panic!("the cluster was started without a user {name}"))
        });
        security::client_properties(self.options.security, self.certificates.as_ref(), user)
    }

    /// SIGKILL to a node (ids from 1). Does nothing when it is down.
    pub fn kill(&self, node: i32) {
        // Dropped is killed and waited for.
        drop(self.node(node).process().take());
    }

    /// SIGTERM to a node, which then hands over its leaderships; SIGKILL when that takes more than 20 s.
    pub fn stop(&self, node: i32) {
        if let Some(mut process) = self.node(node).process().take() {
            process.stop(STOP_PATIENCE);
        }
    }

    /// Starts a node that is down again, on the same ports and data, and waits until it answers.
    pub fn start_node(&self, node: i32) -> Result<()> {
        let node = self.node(node);
        self.launch(node)?;
        self.await_answer(node)
    }

    /// SIGSTOP: the node stands still and its connections stay open.
    pub fn pause(&self, node: i32) {
        if let Some(process) = self.node(node).process().as_mut() {
            process.pause();
        }
    }

    /// SIGCONT after [`Cluster::pause`].
    pub fn resume(&self, node: i32) {
        if let Some(process) = self.node(node).process().as_mut() {
            process.resume();
        }
    }

    /// The process id of a node that is up.
    pub fn process_id(&self, node: i32) -> Option<i32> {
        self.node(node).process().as_ref().map(Process::id)
    }

    /// Runs one of Kafka's own tools, for example `org.apache.kafka.tools.TopicCommand` with
    /// `["--bootstrap-server", &cluster.admin_bootstrap(), "--list"]`.
    pub fn run_tool(&self, class: &str, args: &[&str], stdin: &[u8]) -> Result<ToolOutput> {
        self.installation.run(class, args, stdin)
    }

    /// What the cluster was started with.
    pub fn installation(&self) -> &Installation {
        &self.installation
    }

    /// The folder of the nodes' properties, data and logs.
    pub fn directory(&self) -> &Path {
        self.directory.as_ref().expect("taken only by drop").path()
    }

    /// The log of a node so far.
    pub fn log(&self, node: i32) -> String {
        fs::read(&self.node(node).log).map(|it| String::from_utf8_lossy(&it).into_owned()).unwrap_or_default()
    }

    fn addresses(&self, port: impl Fn(&Node) -> &Port) -> String {
        self.nodes.iter().map(|node| port(node).address().to_string()).collect::<Vec<_>>().join(",")
    }

    fn node(&self, id: i32) -> &Node {
        let node = self.nodes.iter().find(|node| node.id == id);
        node.unwrap_or_else(|| panic!("no node {id}: nodes are 1 to {}", self.nodes.len()))
    }

    fn write_properties(&self) -> Result<()> {
        let write = |path: &Path, text: &str| {
            fs::write(path, text).map_err(|source| Error::Write { path: path.to_owned(), source })
        };
        write(&self.log_settings(), LOG_SETTINGS)?;
        for node in &self.nodes {
            let mut text = String::new();
            for (name, value) in self.node_properties(node) {
                writeln!(text, "{name}={value}").expect("a string takes everything");
            }
            write(&node.properties, &text)?;
        }
        Ok(())
    }

    fn node_properties(&self, node: &Node) -> BTreeMap<String, String> {
        let voters = self.nodes.iter().map(|node| format!("{}@{}", node.id, node.controller.address()));
        let mut properties = small_cluster_properties(self.options.nodes);
        let mut set = |name: &str, value: String| properties.insert(name.to_owned(), value);
        set("node.id", node.id.to_string());
        set("controller.quorum.voters", voters.collect::<Vec<_>>().join(","));
        set("log.dirs", self.directory().join(format!("data-{}", node.id)).display().to_string());
        let mut listeners = vec![format!("INTERNAL://{}", node.internal.address())];
        let mut advertised = listeners.clone();
        if let Some(port) = &node.client {
            // A name and not an address: TLS clients check it.
            listeners.push(format!("CLIENT://127.0.0.1:{}", port.number()));
            advertised.push(format!("CLIENT://localhost:{}", port.number()));
        }
        if let Some(port) = &node.proxied {
            let index = usize::try_from(node.id - 1).expect("ids begin at 1");
            listeners.push(format!("PROXIED://{}", port.address()));
            advertised.push(format!("PROXIED://{}", self.options.behind[index]));
        }
        listeners.push(format!("CONTROLLER://{}", node.controller.address()));
        set("listeners", listeners.join(","));
        set("advertised.listeners", advertised.join(","));
        let protocol = self.options.security.protocol();
        let map = format!("INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT,PROXIED:PLAINTEXT,CLIENT:{protocol}");
        set("listener.security.protocol.map", map);
        properties.extend(security::broker_properties(&self.options, self.certificates.as_ref()));
        properties.extend(self.options.properties.clone());
        properties
    }

    /// All nodes at once: most of the time goes into the start of Java.
    fn format(&self) -> Result<()> {
        let id = cluster_id();
        let format = |node: &Node| {
            let properties = node.properties.display().to_string();
            let mut args = vec!["format", "-t", &id, "-c", &properties];
            let users = security::format_arguments(&self.options);
            args.extend(users.iter().map(String::as_str));
            let output =
                self.installation.run_with(&self.jvm(Jvm::Quick), "kafka.tools.StorageTool", &args, b"")?;
            if output.status.success() {
                return Ok(());
            }
            Err(Error::Format { node: node.id, output: output.stderr + &output.stdout })
        };
        std::thread::scope(|scope| {
            let format = &format;
            let running: Vec<_> = self.nodes.iter().map(|node| scope.spawn(move || format(node))).collect();
            running.into_iter().try_for_each(|it| it.join().expect("formatting does not panic"))
        })
    }

    fn launch(&self, node: &Node) -> Result<()> {
        let properties = node.properties.display().to_string();
        let jvm = self.jvm(self.options.jvm);
        let process = self.installation.spawn(&jvm, "kafka.Kafka", &[&properties], &node.log)?;
        *node.process() = Some(process);
        Ok(())
    }

    /// Waits until the node lists itself and, as far as they are up, all others.
    fn await_answer(&self, node: &Node) -> Result<()> {
        let deadline = Instant::now() + START_PATIENCE;
        loop {
            if !node.process().as_mut().is_some_and(Process::is_running) {
                return Err(Error::Ended { node: node.id, log: node.log_tail() });
            }
            let why = match probe::brokers(&node.internal.address().to_string()) {
                Ok(ids) if self.up().all(|up| ids.contains(&up)) => return Ok(()),
                Ok(ids) => format!("it sees only the brokers {ids:?}"),
                Err(error) => error.to_string(),
            };
            if Instant::now() > deadline {
                let seconds = START_PATIENCE.as_secs();
                return Err(Error::Silent { node: node.id, seconds, why, log: node.log_tail() });
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn up(&self) -> impl Iterator<Item = i32> {
        self.nodes.iter().filter(|node| node.process().is_some()).map(|node| node.id)
    }

    fn jvm(&self, jvm: Jvm) -> Vec<String> {
        let mut flags = jvm.flags();
        flags.push(format!("-Dlog4j2.configurationFile={}", self.log_settings().display()));
        flags
    }

    fn log_settings(&self) -> PathBuf {
        self.directory().join("log4j2.xml")
    }
}

impl Drop for Cluster {
    #[allow(clippy::print_stderr, reason = "whoever reads the failure wants to know where the logs are")]
    fn drop(&mut self) {
        for node in &self.nodes {
            drop(node.process().take());
        }
        if let Some(directory) = self.directory.take()
            && std::thread::panicking()
        {
            eprintln!("logs and data of the Kafka cluster are kept in {}", directory.keep().display());
        }
    }
}

impl Node {
    fn new(id: i32, options: &ClusterOptions, directory: &Path) -> Result<Self> {
        let reserve = || Port::reserve().map_err(Error::Ports);
        let client = (options.security != Security::Plaintext).then(reserve).transpose()?;
        let proxied = (!options.behind.is_empty()).then(reserve).transpose()?;
        Ok(Self {
            id,
            internal: reserve()?,
            controller: reserve()?,
            client,
            proxied,
            properties: directory.join(format!("node-{id}.properties")),
            log: directory.join(format!("node-{id}.log")),
            process: Mutex::new(None),
        })
    }

    fn process(&self) -> MutexGuard<'_, Option<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn log_tail(&self) -> String {
        let text =
            fs::read(&self.log).map(|it| String::from_utf8_lossy(&it).into_owned()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
    }
}

/// What makes a small cluster start fast, notice a dead node soon and keep its internal topics small.
fn small_cluster_properties(nodes: usize) -> BTreeMap<String, String> {
    let replicas = nodes.min(3).to_string();
    let in_sync = if nodes >= 3 { "2" } else { "1" };
    [
        ("process.roles", "broker,controller"),
        ("controller.listener.names", "CONTROLLER"),
        ("inter.broker.listener.name", "INTERNAL"),
        ("auto.create.topics.enable", "false"),
        ("num.partitions", "1"),
        ("default.replication.factor", &replicas),
        ("min.insync.replicas", in_sync),
        ("offsets.topic.replication.factor", &replicas),
        ("offsets.topic.num.partitions", "4"),
        ("transaction.state.log.replication.factor", &replicas),
        ("transaction.state.log.min.isr", in_sync),
        ("transaction.state.log.num.partitions", "4"),
        ("group.initial.rebalance.delay.ms", "0"),
        ("broker.heartbeat.interval.ms", "500"),
        ("broker.session.timeout.ms", "5000"),
        ("log.cleaner.dedupe.buffer.size", "16777216"),
        // Records of made-up histories are years old: nothing may expire that a test did not ask for.
        ("log.retention.ms", "-1"),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .collect()
}

/// 16 random bytes as Kafka writes an id: base64url without padding, 22 characters, the last with four zero bits.
fn cluster_id() -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut rng = rand::rng();
    let mut id: String = (0..21).map(|_| char::from(ALPHABET[rng.random_range(0..64)])).collect();
    // Kafka refuses ids that begin with a dash: tools would take them for options.
    if id.starts_with('-') {
        id.replace_range(..1, "A");
    }
    id.push('A');
    id
}

const LOG_SETTINGS: &str = r#"<Configuration>
  <Appenders>
    <Console name="stdout"><PatternLayout pattern="%d{ISO8601} %-5p [%c{1}] %m%n"/></Console>
  </Appenders>
  <Loggers>
    <Root level="INFO"><AppenderRef ref="stdout"/></Root>
    <Logger name="org.apache.kafka.common.config" level="WARN"/>
  </Loggers>
</Configuration>
"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_id_is_of_kafkas_form() {
        for _ in 0..100 {
            let id = cluster_id();
            assert_eq!(id.len(), 22);
            assert!(!id.starts_with('-') && id.ends_with('A'), "{id}");
        }
    }
}
