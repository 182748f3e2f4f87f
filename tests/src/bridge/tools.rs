//! Kafka's own command line tools, as an operator uses them.

use lab::kafka::Cluster;

/// `kafka-configs.sh --alter --add-config SETTING` on a topic, for example `max.message.bytes=1000000`.
///
/// # Panics
/// When the cluster refuses.
pub fn alter_topic(cluster: &Cluster, topic: &str, setting: &str) {
    let what = ["--alter", "--entity-type", "topics", "--entity-name", topic, "--add-config", setting];
    run(cluster, "kafka.admin.ConfigCommand", &what);
}

/// Allows `user` everything there is, from anywhere.
///
/// # Panics
/// When the cluster refuses.
pub fn allow_all(cluster: &Cluster, user: &str) {
    let principal = format!("User:{user}");
    let who = ["--add", "--allow-principal", &principal, "--operation", "All"];
    let on = ["--topic", "*", "--group", "*", "--transactional-id", "*", "--cluster"];
    run(cluster, ACLS, &[&who[..], &on[..]].concat());
}

/// Denies `user` an operation (`Write`, `Read`) on one topic.
///
/// # Panics
/// When the cluster refuses.
pub fn deny(cluster: &Cluster, user: &str, operation: &str, topic: &str) {
    let principal = format!("User:{user}");
    run(
        cluster,
        ACLS,
        &["--add", "--deny-principal", &principal, "--operation", operation, "--topic", topic],
    );
}

/// Takes back what [`deny`] said.
///
/// # Panics
/// When the cluster refuses.
pub fn deny_no_more(cluster: &Cluster, user: &str, operation: &str, topic: &str) {
    let principal = format!("User:{user}");
    let what =
        ["--remove", "--force", "--deny-principal", &principal, "--operation", operation, "--topic", topic];
    run(cluster, ACLS, &what);
}

const ACLS: &str = "org.apache.kafka.tools.AclCommand";

fn run(cluster: &Cluster, class: &str, args: &[&str]) {
    let bootstrap = cluster.admin_bootstrap();
    let args = [&["--bootstrap-server", &bootstrap], args].concat();
    let output = cluster.run_tool(class, &args, b"").expect("Kafka's tools run");
    assert!(output.status.success(), "{class} {args:?}: {}{}", output.stdout, output.stderr);
}
