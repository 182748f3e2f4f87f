//! Starts one KRaft node of Apache Kafka 4 on loopback, once; it ends with the test process.

use std::{
    fs,
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Mutex, OnceLock},
    thread,
    time::{Duration, Instant},
};

use crate::proxy::Proxy;

/// The node that the tests share.
pub(crate) struct Broker {
    /// `host:port` of the node itself.
    pub(crate) bootstrap: String,
    /// A way to the node that can break; one test at a time.
    pub(crate) proxy: Mutex<Proxy>,
}

/// The node, or `None` after saying loudly which suite is left out.
///
/// # Panics
/// When Kafka is not there and `LONGHAUL_REQUIRE_KAFKA=1`, or when it does not start.
pub(crate) fn broker() -> Option<&'static Broker> {
    static BROKER: OnceLock<Option<Broker>> = OnceLock::new();
    let broker = BROKER.get_or_init(|| match jars() {
        Ok(jars) => Some(start(&jars)),
        Err(why) if std::env::var("LONGHAUL_REQUIRE_KAFKA").is_ok_and(|v| v == "1") => {
            panic!("LONGHAUL_REQUIRE_KAFKA=1, but {why}")
        }
        Err(why) => {
            eprintln!("\n*** LEFT OUT: the kafka crate's tests against a real Kafka: {why} ***\n");
            None
        }
    });
    broker.as_ref()
}

/// The folder of Kafka's jars: `KAFKA_HOME/libs`, or what Maven copies to `lab/kafka/libs`.
fn jars() -> Result<PathBuf, String> {
    if let Some(home) = std::env::var_os("KAFKA_HOME") {
        let libs = Path::new(&home).join("libs");
        return if libs.is_dir() { Ok(libs) } else { Err(format!("{} is no folder", libs.display())) };
    }
    let lab = Path::new(env!("CARGO_MANIFEST_DIR")).join("../lab/kafka");
    let libs = lab.join("libs");
    let has_jars = || {
        fs::read_dir(&libs).is_ok_and(|mut files| {
            files.any(|f| f.is_ok_and(|f| f.file_name().to_string_lossy().starts_with("kafka_2.13")))
        })
    };
    if has_jars() {
        return Ok(libs);
    }
    let copied = Command::new("mvn")
        .args(["-q", "-B", "dependency:copy-dependencies", "-DoutputDirectory=libs", "-f"])
        .arg(lab.join("pom.xml"))
        .stdin(Stdio::null())
        .status();
    match copied {
        Ok(status) if status.success() && has_jars() => Ok(libs),
        Ok(status) => Err(format!("Maven could not copy the jars to {} ({status})", libs.display())),
        Err(error) => Err(format!("there is neither KAFKA_HOME nor Maven ({error})")),
    }
}

fn start(jars: &Path) -> Broker {
    let dir = tempfile::Builder::new().prefix("kafka-tests-").tempdir().unwrap().keep();
    let [port, controller, behind] = free_ports();
    let proxy = Proxy::start(format!("127.0.0.1:{behind}"));
    let proxied = &proxy.address;
    let properties = dir.join("server.properties");
    fs::write(
        &properties,
        format!(
            "process.roles=broker,controller\n\
             node.id=1\n\
             controller.quorum.voters=1@127.0.0.1:{controller}\n\
             controller.listener.names=CONTROLLER\n\
             listeners=PLAINTEXT://127.0.0.1:{port},PROXIED://127.0.0.1:{behind},CONTROLLER://127.0.0.1:{controller}\n\
             advertised.listeners=PLAINTEXT://127.0.0.1:{port},PROXIED://{proxied}\n\
             listener.security.protocol.map=PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT,CONTROLLER:PLAINTEXT\n\
             inter.broker.listener.name=PLAINTEXT\n\
             log.dirs={}\n\
             offsets.topic.replication.factor=1\n\
             offsets.topic.num.partitions=4\n\
             transaction.state.log.replication.factor=1\n\
             transaction.state.log.min.isr=1\n\
             transaction.state.log.num.partitions=4\n\
             group.initial.rebalance.delay.ms=0\n\
             auto.create.topics.enable=true\n",
            dir.join("data").display(),
        ),
    )
    .unwrap();
    let class_path = format!("{}/*", jars.display());
    let has_old_tool = !class_exists(jars, "kafka-tools", "org/apache/kafka/tools/StorageTool");
    let tool = if has_old_tool { "kafka.tools.StorageTool" } else { "org.apache.kafka.tools.StorageTool" };
    let formatted = Command::new("java")
        .args(["-cp", &class_path, tool, "format", "-t", "AAAAAAAAAAAAAAAAAAAAAA", "-c"])
        .arg(&properties)
        .output()
        .expect("java can be run");
    assert!(formatted.status.success(), "{}", String::from_utf8_lossy(&formatted.stderr));
    let log = fs::File::create(dir.join("kafka.log")).unwrap();
    // The shell outlives the tests by a moment, whatever ends them: its input closes, it kills the node and
    // removes what that wrote.
    let node = Command::new("sh")
        .args(["-c", r#""$@" < /dev/null & pid=$!; read _; kill -9 $pid; wait $pid; rm -rf "$0""#])
        .arg(&dir)
        .arg("java")
        .args(["-Xmx512m", "-XX:+UseSerialGC", "-cp", &class_path, "kafka.Kafka"])
        .arg(&properties)
        .stdin(Stdio::piped())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap();
    // The pipe to the shell stays open as long as this process lives.
    std::mem::forget(node);
    let bootstrap = format!("127.0.0.1:{port}");
    let deadline = Instant::now() + Duration::from_secs(60);
    while !(TcpStream::connect(&bootstrap).is_ok() && answers(&bootstrap)) {
        assert!(
            Instant::now() < deadline,
            "the node does not answer:\n{}",
            fs::read_to_string(dir.join("kafka.log")).unwrap_or_default()
        );
        thread::sleep(Duration::from_millis(100));
    }
    Broker { bootstrap, proxy: Mutex::new(proxy) }
}

fn answers(bootstrap: &str) -> bool {
    let admin = longhaul_kafka::Admin::new(&crate::settings(bootstrap)).unwrap();
    admin.brokers(Duration::from_secs(2)).is_ok_and(|count| count == 1)
}

/// Whether one of the jars named `jar*` holds a class.
fn class_exists(jars: &Path, jar: &str, class: &str) -> bool {
    let names = |path: &Path| {
        fs::read(path).is_ok_and(|bytes| {
            // A jar's directory holds the names as they are.
            bytes.windows(class.len()).any(|window| window == class.as_bytes())
        })
    };
    fs::read_dir(jars)
        .unwrap()
        .flatten()
        .any(|file| file.file_name().to_string_lossy().starts_with(jar) && names(&file.path()))
}

/// Below the ephemeral range, so that no outgoing connection takes one before the broker does.
fn free_ports<const N: usize>() -> [u16; N] {
    const RANGE: std::ops::Range<u16> = 31_000..32_768;
    let first = std::process::id() as usize % RANGE.len();
    let mut free = RANGE.cycle().skip(first).filter(|&port| TcpListener::bind(("127.0.0.1", port)).is_ok());
    std::array::from_fn(|_| free.next().unwrap())
}
