//! What differs between two configurations.

use std::collections::BTreeSet;

use serde::Serialize;
use toml::Value;

/// The keys whose values differ, with their paths (`kafka.bootstrap`), in order. A list is one value; a table that only
/// one of the two has is one key. Secrets are hidden from everything that is printed, and so from this: for each key that
/// holds some, `secrets` says whether they differ.
///
/// # Errors
/// When one of them cannot be written as TOML.
pub fn changed_keys<T: Serialize>(
    before: &T,
    after: &T,
    secrets: &[(&str, bool)],
) -> Result<Vec<String>, crate::Error> {
    let mut keys = Vec::new();
    compare("", &Value::try_from(before)?, &Value::try_from(after)?, &mut keys);
    for (key, differ) in secrets {
        let is_named = keys.iter().any(|named| named.starts_with(key) || key.starts_with(named.as_str()));
        if *differ && !is_named {
            keys.push((*key).into());
        }
    }
    Ok(keys)
}

fn compare(path: &str, before: &Value, after: &Value, keys: &mut Vec<String>) {
    let (Value::Table(before), Value::Table(after)) = (before, after) else {
        if before != after {
            keys.push(path.into());
        }
        return;
    };
    for key in before.keys().chain(after.keys()).collect::<BTreeSet<_>>() {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        match (before.get(key), after.get(key)) {
            (Some(before), Some(after)) => compare(&path, before, after, keys),
            _ => keys.push(path),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_named_with_its_path() {
        let parse = |text: &str| toml::from_str::<Value>(text).unwrap();
        let before = parse("a = 1\nb = [1, 2]\n[k]\nx = 'one'\ny = 2\n[gone]\nz = 1\n");
        let after = parse("a = 1\nb = [1, 3]\nnew = true\n[k]\nx = 'two'\ny = 2\n");
        assert_eq!(
            changed_keys(&before, &after, &[("k", true), ("new.z", true)]).unwrap(),
            ["b", "gone", "k.x", "new"]
        );
        assert!(changed_keys(&before, &before, &[("k", false)]).unwrap().is_empty());
        assert_eq!(changed_keys(&before, &before, &[("k", true)]).unwrap(), ["k"]);
    }
}
