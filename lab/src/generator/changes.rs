//! Changes of database rows in Debezium's envelope: `before`, `after`, `source`, `op`, and a tombstone after a delete.

use std::collections::VecDeque;

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use super::partition_of;
use crate::record::{Header, Record};

const CITIES: [&str; 6] = ["Frankfurt", "Lyon", "Torino", "Gdańsk", "Malmö", "Porto"];
const STATES: [&str; 4] = ["new", "paid", "shipped", "returned"];
const FIRST_NAMES: [&str; 8] = ["Anna", "Jonas", "Marta", "Luca", "Sofia", "Emil", "Clara", "Hugo"];
const LAST_NAMES: [&str; 8] = ["Keller", "Rossi", "Novak", "Martin", "Silva", "Jensen", "Moreau", "Weber"];
const STREETS: [&str; 6] = ["Hauptstrasse", "Via Roma", "Rue Nationale", "Storgatan", "Rua Nova", "Dluga"];
const BROWSERS: [&str; 2] = [
    "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/126.0",
];
/// A database has more rows, but not more that change.
const MAX_ROWS: usize = 2000;

/// See [`changes`].
#[derive(Debug)]
pub struct Changes {
    rng: ChaCha8Rng,
    now_ms: i64,
    lsn: u64,
    next_id: u64,
    rows: Vec<Value>,
    /// Records that follow the last one: tombstones.
    ready: VecDeque<Record>,
    /// Whether rows have columns of contact and delivery too.
    wide: bool,
}

/// Inserts, updates and deletes of one table's rows from `start_ms` on, some milliseconds apart.
pub fn changes(seed: u64, start_ms: i64) -> Changes {
    Changes {
        rng: ChaCha8Rng::seed_from_u64(seed),
        now_ms: start_ms,
        lsn: 24_000_000,
        next_id: 1000,
        rows: Vec::new(),
        ready: VecDeque::new(),
        wide: false,
    }
}

/// As [`changes`] of a table with more columns: about 1 kB each.
pub fn wide_changes(seed: u64, start_ms: i64) -> Changes {
    Changes { wide: true, ..changes(seed, start_ms) }
}

impl Iterator for Changes {
    type Item = Record;

    fn next(&mut self) -> Option<Record> {
        if let Some(record) = self.ready.pop_front() {
            return Some(record);
        }
        self.now_ms += self.rng.random_range(0..20_i64);
        self.lsn += self.rng.random_range(40..400_u64);
        let choice = self.rng.random_range(0..100_u32);
        if self.rows.is_empty() || (choice < 30 && self.rows.len() < MAX_ROWS) {
            Some(self.insert())
        } else if choice < 93 {
            Some(self.update())
        } else {
            Some(self.delete())
        }
    }
}

impl Changes {
    fn insert(&mut self) -> Record {
        self.next_id += 1;
        let mut row = json!({
            "id": self.next_id,
            "customer": format!("customer-{}", self.rng.random_range(1..5000_u32)),
            "city": CITIES[self.rng.random_range(0..CITIES.len())],
            "state": STATES[0],
            "amount_cents": self.rng.random_range(100..90_000_u32),
            "note": Value::Null,
            "updated_at": self.now_ms,
        });
        if self.wide {
            self.widen(&mut row);
        }
        self.rows.push(row.clone());
        self.change("c", &Value::Null, &row)
    }

    fn widen(&mut self, row: &mut Value) {
        let (first, last) = (self.pick(&FIRST_NAMES), self.pick(&LAST_NAMES));
        let number = self.rng.random_range(1..400_u32);
        row["name"] = json!(format!("{first} {last}"));
        row["email"] = json!(format!("{first}.{last}{number}@mail.example").to_lowercase());
        row["phone"] = json!(format!("+49 69 {:07}", self.rng.random_range(0..10_000_000_u32)));
        row["street"] = json!(format!("{} {number}", self.pick(&STREETS)));
        row["postcode"] = json!(format!("{:05}", self.rng.random_range(10_000..99_999_u32)));
        row["carrier"] = json!(self.pick(&["DHL", "UPS", "GLS"]));
        row["currency"] = json!("EUR");
        row["created_at"] = json!(self.now_ms);
        row["created_by"] = json!("checkout-service");
        row["session"] = json!(format!("{:032x}", self.rng.random::<u128>()));
        row["browser"] = json!(self.pick(&BROWSERS));
        row["tracking"] = json!(format!("{:016x}", self.rng.random::<u64>()));
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.rng.random_range(0..from.len())]
    }

    fn update(&mut self) -> Record {
        let at = self.rng.random_range(0..self.rows.len());
        let before = self.rows[at].clone();
        let mut after = before.clone();
        after["state"] = json!(STATES[self.rng.random_range(0..STATES.len())]);
        after["amount_cents"] = json!(self.rng.random_range(100..90_000_u32));
        after["updated_at"] = json!(self.now_ms);
        if self.rng.random_range(0..10_u32) == 0 {
            after["note"] = json!(format!("called back, ticket \"{}\"", self.rng.random_range(1..9999_u32)));
        }
        self.rows[at] = after.clone();
        self.change("u", &before, &after)
    }

    fn delete(&mut self) -> Record {
        let at = self.rng.random_range(0..self.rows.len());
        let before = self.rows.swap_remove(at);
        let record = self.change("d", &before, &Value::Null);
        self.ready.push_back(Record { value: None, headers: Vec::new(), ..record.clone() });
        record
    }

    fn change(&self, op: &str, before: &Value, after: &Value) -> Record {
        let id = if after.is_null() { &before["id"] } else { &after["id"] };
        let key = json!({ "id": id }).to_string();
        let value = json!({
            "before": before,
            "after": after,
            "source": {
                "version": "2.7.0.Final",
                "connector": "postgresql",
                "name": "shop",
                "ts_ms": self.now_ms,
                "db": "shop",
                "schema": "public",
                "table": "orders",
                "txId": self.lsn / 1000,
                "lsn": self.lsn,
            },
            "op": op,
            "ts_ms": self.now_ms + 12,
        });
        Record {
            partition: partition_of(key.as_bytes()),
            timestamp: self.now_ms,
            key: Some(key.into_bytes()),
            value: Some(value.to_string().into_bytes()),
            headers: vec![Header { name: "__op".to_owned(), value: Some(op.as_bytes().to_vec()) }],
        }
    }
}
