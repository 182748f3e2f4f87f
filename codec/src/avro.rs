//! Avro schemas, for an encoder to find its way in binary values. A decoder needs none: it puts together what was cut.

use std::collections::HashMap;

use serde_json::Value;

/// A schema in Avro's JSON form (Avro specification 1.12, "Schema Declaration"), ready to be followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schema {
    types: Vec<Type>,
    root: usize,
}

/// What a type looks like in binary. Types that contain others name them by their place in the schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Type {
    Null,
    /// `int`, `long`, `enum`.
    Number,
    /// `boolean`, `float`, `double`, `fixed`: so many bytes.
    Bytes(u32),
    /// `bytes`, `string`: behind their length.
    Prefixed,
    /// Name and type of each field.
    Record(Vec<(String, usize)>),
    Union(Vec<usize>),
    Array(usize),
    Map(usize),
}

/// Why a schema cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SchemaError {
    /// It is not JSON.
    #[error("schema is not JSON: {0}")]
    Json(serde_json::Error),
    /// A type is neither built in nor defined before its use.
    #[error("schema uses {name} at {at}, which is no type of Avro and not defined before")]
    Unknown {
        /// What is used as a type.
        name: String,
        /// Where, from the outermost type: `Flight.Origin`.
        at: String,
    },
    /// A definition lacks what its type needs.
    #[error("schema's {of} at {at} has no {missing}")]
    Missing {
        /// The type.
        of: &'static str,
        /// The attribute.
        missing: &'static str,
        /// Where, from the outermost type: `Flight.Origin`.
        at: String,
    },
    /// Types are nested too deeply or are too many.
    #[error("schema has more than {0} types or is nested too deeply")]
    TooLarge(usize),
}

impl Schema {
    /// Reads a schema file.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(json: &str) -> Result<Self, SchemaError> {
        let value: Value = serde_json::from_str(json).map_err(SchemaError::Json)?;
        let mut parser = Parser { types: Vec::new(), names: HashMap::new(), path: Vec::new() };
        let root = parser.read(&value, "", 0)?;
        Ok(Self { types: parser.types, root })
    }

    pub(crate) fn root(&self) -> usize {
        self.root
    }

    pub(crate) fn of(&self, place: usize) -> &Type {
        &self.types[place]
    }
}

struct Parser {
    types: Vec<Type>,
    /// Full names of records, enumerations and fixed types.
    names: HashMap<String, usize>,
    /// Names of records and fields around what is being read.
    path: Vec<String>,
}

impl Parser {
    fn read(&mut self, value: &Value, namespace: &str, depth: usize) -> Result<usize, SchemaError> {
        if depth > MAX_DEPTH || self.types.len() >= MAX_TYPES {
            return Err(SchemaError::TooLarge(MAX_TYPES));
        }
        match value {
            Value::String(name) => self.named(name, namespace),
            Value::Array(branches) => {
                let place = self.add(Type::Null);
                let branches: Result<_, _> =
                    branches.iter().map(|branch| self.read(branch, namespace, depth + 1)).collect();
                self.types[place] = Type::Union(branches?);
                Ok(place)
            }
            Value::Object(_) => self.complex(value, namespace, depth),
            other => Err(self.unknown(other.to_string())),
        }
    }

    fn named(&mut self, name: &str, namespace: &str) -> Result<usize, SchemaError> {
        let simple = match name {
            "null" => Type::Null,
            "int" | "long" => Type::Number,
            "boolean" => Type::Bytes(1),
            "float" => Type::Bytes(4),
            "double" => Type::Bytes(8),
            "bytes" | "string" => Type::Prefixed,
            _ => {
                let known = self.names.get(&full_name(name, namespace)).or_else(|| self.names.get(name));
                return known.copied().ok_or_else(|| self.unknown(name.to_owned()));
            }
        };
        Ok(self.add(simple))
    }

    fn complex(&mut self, value: &Value, namespace: &str, depth: usize) -> Result<usize, SchemaError> {
        let kind = match &value["type"] {
            Value::String(kind) => kind.as_str(),
            Value::Null => return Err(self.missing("type", "type")),
            nested => return self.read(nested, namespace, depth + 1),
        };
        let namespace = value["namespace"].as_str().unwrap_or(namespace);
        let place = match kind {
            "record" | "error" | "enum" | "fixed" => {
                let place = self.add(Type::Number);
                let name = value["name"].as_str().ok_or_else(|| self.missing("named type", "name"))?;
                self.names.insert(full_name(name, namespace), place);
                place
            }
            "array" | "map" => self.add(Type::Number),
            // A built-in type with attributes, as logical types have them.
            simple => return self.named(simple, namespace),
        };
        self.types[place] = match kind {
            "enum" => Type::Number,
            "fixed" => {
                let size = value["size"].as_u64().and_then(|size| u32::try_from(size).ok());
                Type::Bytes(size.ok_or_else(|| self.missing("fixed", "size"))?)
            }
            "array" => Type::Array(self.read(&value["items"], namespace, depth + 1)?),
            "map" => Type::Map(self.read(&value["values"], namespace, depth + 1)?),
            _ => Type::Record(self.fields(value, namespace, depth)?),
        };
        Ok(place)
    }

    fn fields(
        &mut self,
        record: &Value,
        namespace: &str,
        depth: usize,
    ) -> Result<Vec<(String, usize)>, SchemaError> {
        self.path.push(record["name"].as_str().unwrap_or("record").to_owned());
        let fields = record["fields"].as_array().ok_or_else(|| self.missing("record", "fields"))?;
        let mut read = Vec::with_capacity(fields.len());
        for field in fields {
            let name = field["name"].as_str().ok_or_else(|| self.missing("field", "name"))?;
            self.path.push(name.to_owned());
            read.push((name.to_owned(), self.read(&field["type"], namespace, depth + 1)?));
            self.path.pop();
        }
        self.path.pop();
        Ok(read)
    }

    fn unknown(&self, name: String) -> SchemaError {
        SchemaError::Unknown { name, at: self.place() }
    }

    fn missing(&self, of: &'static str, missing: &'static str) -> SchemaError {
        SchemaError::Missing { of, missing, at: self.place() }
    }

    fn place(&self) -> String {
        if self.path.is_empty() { "the outermost type".to_owned() } else { self.path.join(".") }
    }

    fn add(&mut self, new: Type) -> usize {
        self.types.push(new);
        self.types.len() - 1
    }
}

fn full_name(name: &str, namespace: &str) -> String {
    if namespace.is_empty() || name.contains('.') { name.to_owned() } else { format!("{namespace}.{name}") }
}

const MAX_TYPES: usize = 4096;
const MAX_DEPTH: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemas_are_read_with_names_and_logical_types() {
        let schema = Schema::parse(
            r#"{"type":"record","name":"Node","namespace":"org.example","fields":[
                {"name":"id","type":{"type":"long","logicalType":"timestamp-millis"}},
                {"name":"kind","type":{"type":"enum","name":"Kind","symbols":["A","B"]}},
                {"name":"other","type":["null","Kind"]},
                {"name":"hash","type":{"type":"fixed","name":"Hash","size":16}},
                {"name":"next","type":["null","org.example.Node"]},
                {"name":"tags","type":{"type":"map","values":{"type":"array","items":"string"}}}]}"#,
        )
        .expect("a sound schema");
        let Type::Record(fields) = schema.of(schema.root()) else { panic!("a record") };
        let of = |field: usize| schema.of(fields[field].1);
        assert_eq!((of(0), of(1), of(3)), (&Type::Number, &Type::Number, &Type::Bytes(16)));
        let Type::Union(branches) = of(4) else { panic!("a union") };
        assert_eq!(branches[1], schema.root());
        let Type::Map(values) = of(5) else { panic!("a map") };
        assert!(matches!(schema.of(*values), Type::Array(_)));
    }

    #[test]
    fn what_is_wrong_with_a_schema_is_named() {
        let error = |json: &str| Schema::parse(json).expect_err("is refused").to_string();
        assert!(error("{").starts_with("schema is not JSON"));
        assert!(error("\"money\"").contains("money"));
        assert!(error(r#"{"type":"record","name":"x"}"#).contains("fields"));
        assert!(error(r#"{"type":"fixed","name":"x"}"#).contains("size"));
        assert!(error(r#"{"name":"x"}"#).contains("type"));
        let deep = r#"{"type":"record","name":"R","fields":[{"name":"a","type":["null","decimal"]}]}"#;
        assert_eq!(
            error(deep),
            "schema uses decimal at R.a, which is no type of Avro and not defined before"
        );
        let deep = format!("{}\"int\"{}", "{\"type\":\"array\",\"items\":".repeat(100), "}".repeat(100));
        assert!(error(&deep).contains("deeply"));
    }
}
