//! Free-form properties for a Kafka client, with their secrets kept apart.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, MapAccess, Visitor},
    ser::SerializeMap,
};

use crate::{
    effective::is_sensitive,
    secret::{HIDDEN, Reference, Secret},
};

/// Properties by their dotted name (`security.protocol`, `sasl.password`).
///
/// In TOML a value is a text, number, `true`/`false`, or a [`Secret`] reference. Names may be written quoted or
/// plain: `sasl.password = ...` is a nested table to TOML and is joined again here.
/// `Debug` and `Serialize` hide every [`Secret`] and every value whose name says that it is one.
#[derive(Clone, Default, PartialEq)]
pub struct Properties(BTreeMap<String, Property>);

/// One value of [`Properties`].
#[derive(Clone, Debug, PartialEq)]
pub enum Property {
    /// A text.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// A number with a fraction.
    Float(f64),
    /// `true` or `false`.
    Flag(bool),
    /// A value given by reference.
    Secret(Secret),
}

impl Properties {
    /// The value of `name`.
    pub fn get(&self, name: &str) -> Option<&Property> {
        self.0.get(name)
    }

    /// All names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Sets `name`, replacing what it was.
    pub fn insert(&mut self, name: impl Into<String>, value: Property) {
        self.0.insert(name.into(), value);
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Everything as text, secrets exposed: what the client library takes.
    pub fn resolve(&self) -> BTreeMap<String, String> {
        self.0.iter().map(|(name, value)| (name.clone(), value.text())).collect()
    }
}

impl Property {
    fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Integer(number) => number.to_string(),
            Self::Float(number) => number.to_string(),
            Self::Flag(flag) => flag.to_string(),
            Self::Secret(secret) => secret.expose().into(),
        }
    }
}

impl fmt::Debug for Properties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.0.iter().map(|(name, value)| match value {
            _ if is_sensitive(name) => (name, HIDDEN.to_owned()),
            Property::Secret(_) => (name, HIDDEN.to_owned()),
            value => (name, value.text()),
        });
        f.debug_map().entries(shown).finish()
    }
}

impl Serialize for Properties {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            match value {
                _ if is_sensitive(name) => map.serialize_entry(name, HIDDEN)?,
                Property::Text(text) => map.serialize_entry(name, text)?,
                Property::Integer(number) => map.serialize_entry(name, number)?,
                Property::Float(number) => map.serialize_entry(name, number)?,
                Property::Flag(flag) => map.serialize_entry(name, flag)?,
                Property::Secret(secret) => map.serialize_entry(name, secret)?,
            }
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Properties {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Table;
        impl<'de> Visitor<'de> for Table {
            type Value = Properties;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table of properties, such as \"security.protocol\" = \"SASL_SSL\"")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Properties, A::Error> {
                let mut all = BTreeMap::new();
                while let Some(name) = map.next_key::<String>()? {
                    let node = map.next_value::<Node>()?;
                    node.flatten(name, &mut all).map_err(de::Error::custom)?;
                }
                Ok(Properties(all))
            }
        }
        deserializer.deserialize_map(Table)
    }
}

/// A value, a reference, or a table whose names go on with a dot.
enum Node {
    Leaf(Property),
    Table(Vec<(String, Self)>),
}

impl Node {
    fn flatten(self, name: String, all: &mut BTreeMap<String, Property>) -> Result<(), String> {
        match self {
            Self::Leaf(value) => match all.insert(name.clone(), value) {
                Some(_) => Err(format!("the property {name:?} is given twice, quoted and plain; keep one")),
                None => Ok(()),
            },
            Self::Table(nodes) if nodes.is_empty() => Err(format!(
                "the property {name:?} has no value; expected a text, a number, true or false, {{ file = \"path\" }} or {{ env = \"NAME\" }}"
            )),
            Self::Table(nodes) => {
                nodes.into_iter().try_for_each(|(rest, node)| node.flatten(format!("{name}.{rest}"), all))
            }
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnyNode;
        impl<'de> Visitor<'de> for AnyNode {
            type Value = Node;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text, a number, true or false, { file = \"path\" } or { env = \"NAME\" }")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Node, E> {
                Ok(Node::Leaf(Property::Text(text.into())))
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Node, E> {
                Ok(Node::Leaf(Property::Integer(number)))
            }

            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Node, E> {
                Ok(Node::Leaf(Property::Float(number)))
            }

            fn visit_bool<E: de::Error>(self, flag: bool) -> Result<Node, E> {
                Ok(Node::Leaf(Property::Flag(flag)))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
                let mut nodes = Vec::new();
                while let Some(entry) = map.next_entry::<String, Node>()? {
                    nodes.push(entry);
                }
                // No librdkafka property ends in `.file` or `.env`, so a lone one is a reference.
                let reference = match nodes.as_slice() {
                    [(name, Node::Leaf(Property::Text(at)))] if name == "file" => Reference::File(at.clone()),
                    [(name, Node::Leaf(Property::Text(at)))] if name == "env" => Reference::Env(at.clone()),
                    _ => return Ok(Node::Table(nodes)),
                };
                let secret = Secret::resolve(&reference).map_err(de::Error::custom)?;
                Ok(Node::Leaf(Property::Secret(secret)))
            }
        }
        deserializer.deserialize_any(AnyNode)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize, Serialize)]
    struct Config {
        properties: Properties,
    }

    fn read(text: &str) -> Result<Config, String> {
        crate::parse("c.toml", text).map_err(|error| error.to_string())
    }

    #[test]
    fn quoted_and_plain_names_give_the_same_properties() {
        let quoted = read("[properties]\n\"security.protocol\" = 'SSL'\n\"linger.ms\" = 5\n").unwrap();
        let plain = read("[properties]\nsecurity.protocol = 'SSL'\nlinger.ms = 5\n").unwrap();
        assert_eq!(quoted.properties, plain.properties);
        let resolved = plain.properties.resolve();
        assert_eq!(resolved["security.protocol"], "SSL");
        assert_eq!(resolved["linger.ms"], "5");
    }

    #[test]
    fn a_reference_is_resolved_and_hidden() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pw");
        std::fs::write(&file, "hunter2\n").unwrap();
        let text = format!(
            "[properties]\nsasl.password = {{ file = {file:?} }}\nsome.name = {{ file = {file:?} }}\n"
        );
        let config = read(&text).unwrap();
        assert_eq!(config.properties.resolve()["sasl.password"], "hunter2");
        assert_eq!(config.properties.resolve()["some.name"], "hunter2");
        let shown = format!("{config:?} {}", toml::to_string(&config).unwrap());
        assert!(!shown.contains("hunter2"), "{shown}");
        assert_eq!(shown.matches(HIDDEN).count(), 4, "{shown}");
    }

    #[test]
    fn an_inline_value_with_a_telling_name_is_hidden_too() {
        let config =
            read("[properties]\nssl.key.pem = 'PRIVATE'\nsasl.password = 'pw1'\nacks = 'all'\n").unwrap();
        let shown = format!("{config:?} {}", toml::to_string(&config).unwrap());
        assert!(!shown.contains("PRIVATE") && !shown.contains("pw1") && shown.contains("all"), "{shown}");
    }

    #[test]
    fn a_property_given_twice_or_with_a_list_is_refused_with_its_place() {
        let twice = read("[properties]\n\"a.b\" = 1\na.b = 2\n").unwrap_err();
        assert!(twice.contains("\"a.b\" is given twice"), "{twice}");
        let list = read("[properties]\nx = 1\na.b = [1]\n").unwrap_err();
        assert!(list.starts_with("c.toml:3:"), "{list}");
    }
}
