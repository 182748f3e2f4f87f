//! What a client is told from outside.

use std::collections::BTreeMap;

/// How to reach a cluster, and as whom.
#[derive(Clone)]
pub struct Settings {
    /// `host:port` of some brokers, separated by commas.
    pub bootstrap: String,
    /// Any librdkafka property (`security.protocol`, `sasl.*`, `ssl.*`, tuning), but those the delivery
    /// promise depends on: those are refused by name when a handle is made.
    pub properties: BTreeMap<String, String>,
    /// How the client names itself to the brokers and in our logs.
    pub client_id: String,
}
