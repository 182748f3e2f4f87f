//! Lines of a web server's log in the combined format; the key is the client's address.

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::partition_of;
use crate::record::Record;

const PATHS: [&str; 8] = [
    "/",
    "/cart",
    "/api/v1/items",
    "/api/v1/orders",
    "/static/app.js",
    "/static/site.css",
    "/search",
    "/login",
];
const AGENTS: [&str; 4] = [
    "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36",
    "Googlebot/2.1 (+http://www.google.com/bot.html)",
];
const STATUSES: [u16; 8] = [200, 200, 200, 200, 304, 404, 301, 500];
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// See [`access_log`].
#[derive(Debug)]
pub struct AccessLog {
    rng: ChaCha8Rng,
    now_ms: i64,
}

/// Log lines from `start_ms` on, some tens of milliseconds apart.
pub fn access_log(seed: u64, start_ms: i64) -> AccessLog {
    AccessLog { rng: ChaCha8Rng::seed_from_u64(seed), now_ms: start_ms }
}

impl Iterator for AccessLog {
    type Item = Record;

    fn next(&mut self) -> Option<Record> {
        self.now_ms += self.rng.random_range(0..40_i64);
        let rng = &mut self.rng;
        let client = rng.random_range(0..3000_u32);
        let address = format!("198.51.{}.{}", client / 256, client % 256);
        let path = PATHS[rng.random_range(0..PATHS.len())];
        let agent = AGENTS[usize::try_from(client).expect("below 3000") % AGENTS.len()];
        let status = STATUSES[rng.random_range(0..STATUSES.len())];
        let size = rng.random_range(120..60_000_u32);
        let item = rng.random_range(1..5000_u32);
        let line = format!(
            "{address} - - [{}] \"GET {path}?id={item} HTTP/1.1\" {status} {size} \"https://shop.example{path}\" \"{agent}\"",
            time(self.now_ms)
        );
        Some(Record {
            partition: partition_of(address.as_bytes()),
            timestamp: self.now_ms,
            key: Some(address.into_bytes()),
            value: Some(line.into_bytes()),
            headers: Vec::new(),
        })
    }
}

/// `10/Oct/2000:13:55:36 +0000`
fn time(ms: i64) -> String {
    let (days, seconds) = (ms.div_euclid(86_400_000), ms.div_euclid(1000).rem_euclid(86_400));
    let (year, month, day) = civil(days);
    let month = MONTHS[usize::try_from(month - 1).expect("months are 1 to 12")];
    format!(
        "{day:02}/{month}/{year}:{:02}:{:02}:{:02} +0000",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60
    )
}

/// Year, month and day of a number of days since 1970 (the well-known algorithm of Howard Hinnant).
fn civil(days: i64) -> (i64, i64, i64) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let of_era = z.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        assert_eq!(time(0), "01/Jan/1970:00:00:00 +0000");
        assert_eq!(time(1_709_210_096_123), "29/Feb/2024:12:34:56 +0000");
    }
}
