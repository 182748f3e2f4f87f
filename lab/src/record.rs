//! A record as the lab makes, carries and compares it.

/// A record on its way into a cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    /// The partition it goes to; taken modulo the topic's partitions.
    pub partition: i32,
    /// Milliseconds since 1970; 0 is rewritten to "now" by librdkafka.
    pub timestamp: i64,
    /// Null and empty are two things.
    pub key: Option<Vec<u8>>,
    /// Null (a tombstone) and empty are two things.
    pub value: Option<Vec<u8>>,
    /// In order; names may repeat.
    pub headers: Vec<Header>,
}

/// A header of a [`Record`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Its name; may be empty.
    pub name: String,
    /// Null and empty are two things.
    pub value: Option<Vec<u8>>,
}

impl Record {
    /// Bytes of key, value and headers.
    pub fn payload_bytes(&self) -> u64 {
        let length = |it: &Option<Vec<u8>>| it.as_ref().map_or(0, Vec::len);
        let headers: usize = self.headers.iter().map(|it| it.name.len() + length(&it.value)).sum();
        u64::try_from(length(&self.key) + length(&self.value) + headers).expect("usize has 64 bits or less")
    }
}
