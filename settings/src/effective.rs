//! Printing a configuration without its secrets.

use serde::Serialize;
use toml::Value;

use crate::{Error, secret::HIDDEN};

/// The configuration as TOML, defaults filled in and secrets hidden: what `--check` prints.
pub fn effective<T: Serialize>(config: &T) -> Result<String, Error> {
    let mut value = Value::try_from(config)?;
    hide_secrets(&mut value);
    Ok(toml::to_string_pretty(&value)?)
}

/// Replaces every value whose dotted name says that it is a secret (it contains
/// password, passphrase, secret, token, credential, `sasl.jaas`, `oauthbearer.config` or `ssl.key`) by `***`, at any depth.
pub fn hide_secrets(value: &mut Value) {
    hide(value, "");
}

/// Whether the dotted `name` of a setting says that its value must not be shown.
pub(crate) fn is_sensitive(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    TELLING.iter().any(|word| name.contains(word))
}

fn hide(value: &mut Value, path: &str) {
    match value {
        Value::Table(table) => {
            for (key, value) in table.iter_mut() {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                if is_sensitive(&path) { *value = Value::String(HIDDEN.into()) } else { hide(value, &path) }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(|value| hide(value, path)),
        Value::String(_) | Value::Integer(_) | Value::Float(_) | Value::Boolean(_) | Value::Datetime(_) => {}
    }
}

/// `ssl.key` covers `ssl.key.pem`, `ssl.key.password` and `ssl.keystore.*` of librdkafka.
const TELLING: [&str; 8] =
    ["password", "passphrase", "secret", "token", "credential", "sasl.jaas", "oauthbearer.config", "ssl.key"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_with_telling_names_are_hidden_at_any_depth() {
        let mut value: Value = toml::from_str(
            "a = 1\n[k]\nssl.key.pem = 'S1'\nsasl.jaas.config = 'S2'\nsasl.oauthbearer.config = 'S5'\nsasl.username = 'bob'\n\
             [[links]]\nPassword = 'S3'\nclient_secret = { file = 'S4' }\nname = 'x'\n",
        )
        .unwrap();
        hide_secrets(&mut value);
        let shown = toml::to_string(&value).unwrap();
        for secret in ["S1", "S2", "S3", "S4", "S5"] {
            assert!(!shown.contains(secret), "{shown}");
        }
        assert!(
            shown.contains("bob") && shown.contains("a = 1") && shown.contains("name = \"x\""),
            "{shown}"
        );
    }

    #[test]
    fn the_effective_config_shows_units_and_hides_secrets() {
        #[derive(Serialize)]
        struct Config {
            rate: crate::Rate,
            key: crate::Secret,
        }
        let shown =
            effective(&Config { rate: "200 Mbit/s".parse().unwrap(), key: crate::Secret::new("hunter2") })
                .unwrap();
        assert_eq!(shown, "key = \"***\"\nrate = \"200 Mbit/s\"\n");
    }
}
