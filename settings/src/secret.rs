//! A text that is used but never shown.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// What stands in the place of a secret wherever one would be shown.
pub const HIDDEN: &str = "***";

/// A password, key or token. In a config file it is given inline, or better by reference:
/// `{ file = "path" }` (one trailing line break is dropped; a relative path is relative to the working directory)
/// or `{ env = "NAME" }`. References are resolved while the file is loaded, so a missing one is a config error.
///
/// `Debug`, `Display` and `Serialize` give [`HIDDEN`]; only [`Secret::expose`] gives the text.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes a text into hiding.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the one place that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Resolves a reference by its kind; the error says what is wrong without showing any text.
    pub(crate) fn resolve(reference: &Reference) -> Result<Self, String> {
        let text = match reference {
            Reference::File(path) => std::fs::read_to_string(path)
                .map_err(|error| format!("the secret file {path:?} cannot be read: {error}"))?,
            Reference::Env(name) => std::env::var(name)
                .map_err(|error| format!("the environment variable {name:?} cannot be used: {error}"))?,
        };
        let text =
            text.strip_suffix('\n').map_or(text.as_str(), |line| line.strip_suffix('\r').unwrap_or(line));
        if text.is_empty() {
            return Err(format!("{reference} is empty"));
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(HIDDEN)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InlineOrReference;
        impl<'de> de::Visitor<'de> for InlineOrReference {
            type Value = Secret;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(EXPECTED)
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Secret, E> {
                if text.is_empty() { Err(E::custom("the secret is empty")) } else { Ok(Secret::new(text)) }
            }

            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Secret, A::Error> {
                let reference = match map.next_key::<String>()?.as_deref() {
                    Some("file") => Reference::File(map.next_value()?),
                    Some("env") => Reference::Env(map.next_value()?),
                    _ => return Err(de::Error::custom(format_args!("expected {EXPECTED}"))),
                };
                if map.next_key::<de::IgnoredAny>()?.is_some() {
                    return Err(de::Error::custom("the secret has two references; keep one"));
                }
                Secret::resolve(&reference).map_err(de::Error::custom)
            }
        }
        deserializer.deserialize_any(InlineOrReference)
    }
}

/// Where a secret is kept.
pub(crate) enum Reference {
    File(String),
    Env(String),
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "the secret file {path:?}"),
            Self::Env(name) => write!(f, "the environment variable {name:?}"),
        }
    }
}

const EXPECTED: &str = "a secret: { file = \"path\" }, { env = \"NAME\" } or a text";

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize, Serialize)]
    #[serde(deny_unknown_fields)]
    struct Config {
        password: Secret,
    }

    fn read(text: &str) -> Result<Config, String> {
        crate::parse("c.toml", text).map_err(|error| error.to_string())
    }

    #[test]
    fn a_secret_is_given_inline_by_file_or_by_environment() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("password");
        std::fs::write(&file, "from file\r\n").unwrap();
        assert_eq!(read("password = 'inline'").unwrap().password.expose(), "inline");
        assert_eq!(
            read(&format!("password = {{ file = {file:?} }}")).unwrap().password.expose(),
            "from file"
        );
        // PATH is there in every process; setting a variable would race with the other tests.
        let path = read("password = { env = 'PATH' }").unwrap();
        assert_eq!(path.password.expose(), std::env::var("PATH").unwrap());
    }

    #[test]
    fn a_secret_never_shows_its_text() {
        let config = read("password = 'hunter2'").unwrap();
        let shown = format!("{config:?} {} {}", config.password, toml::to_string(&config).unwrap());
        assert!(!shown.contains("hunter2"), "{shown}");
        assert_eq!(shown.matches(HIDDEN).count(), 3);
    }

    #[test]
    fn a_reference_that_leads_nowhere_is_a_config_error_with_its_line() {
        let missing = read("password = { file = '/nowhere/at/all' }").unwrap_err();
        assert!(
            missing.starts_with("c.toml:1: `password`: the secret file \"/nowhere/at/all\""),
            "{missing}"
        );
        let unset = read("password = { env = 'LONGHAUL_SURELY_UNSET' }").unwrap_err();
        assert!(unset.contains("LONGHAUL_SURELY_UNSET"), "{unset}");
        assert!(read("password = ''").unwrap_err().contains("secret is empty"));
        assert!(read("password = { path = 'x' }").unwrap_err().contains("expected a secret"));
        assert!(read("password = { file = 'x', env = 'y' }").unwrap_err().contains("two references"));
        assert!(read("password = 12345").unwrap_err().contains("a secret"));
    }

    #[test]
    fn an_empty_secret_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("password");
        std::fs::write(&file, "\n").unwrap();
        let error = read(&format!("password = {{ file = {file:?} }}")).unwrap_err();
        assert!(error.contains("is empty"), "{error}");
    }
}
