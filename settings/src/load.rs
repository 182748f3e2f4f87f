//! Reading a config file, and finding the place of whatever is wrong in it.
//!
//! serde reports a message and, through `toml`, a byte range. The range is looked up in a second, untyped parse of
//! the text, which gives the full path of the key; the message is put into the operator's words.

use std::{
    fs::File,
    io::{self, Read as _},
    ops::Range,
    path::Path,
};

use serde::de::DeserializeOwned;
use toml::{
    Spanned,
    de::{DeArray, DeTable, DeValue},
};

use crate::{Error, effective::is_sensitive};

/// Reads the TOML file at `path` into `T`.
pub fn load<T: DeserializeOwned>(path: &Path) -> Result<T, Error> {
    parse(&path.display().to_string(), &read(path)?)
}

/// The text of the file, of a length that somebody can have written.
fn read(path: &Path) -> Result<String, Error> {
    let unreadable = |source| Error::Unreadable { file: path.to_owned(), source };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(unreadable(io::Error::other(format!("it is longer than {} MiB", MAX_BYTES >> 20))));
    }
    String::from_utf8(bytes).map_err(|error| {
        let before =
            String::from_utf8_lossy(&error.as_bytes()[..error.utf8_error().valid_up_to()]).into_owned();
        syntax(
            &path.display().to_string(),
            &before,
            before.len(),
            "a byte that is not UTF-8; save it as UTF-8",
        )
    })
}

/// Reads TOML `text` into `T`; `file` is the name that errors give it.
pub fn parse<T: DeserializeOwned>(file: &str, text: &str) -> Result<T, Error> {
    let document = DeTable::parse(text).map_err(|error| syntax_error(file, text, &error))?;
    toml::from_str(text).map_err(|error| explain(file, text, &document, &error))
}

/// The error for a value that is well-formed but that the program does not accept, with the line of `key`
/// (`"links[1].lanes"`) looked up in the file. `what` says what was found and what is accepted.
pub fn refuse(path: &Path, key: &str, what: impl Into<String>) -> Error {
    let file = path.display().to_string();
    let place = std::fs::read_to_string(path)
        .ok()
        .and_then(|text| Some(format!("{file}:{}", line_of(&text, find_key(&text, key)?.start))))
        .unwrap_or(file);
    Error::BadValue { place, key: key.into(), what: shown(&what.into()) }
}

fn syntax_error(file: &str, text: &str, error: &toml::de::Error) -> Error {
    let span = error.span().unwrap_or(text.len()..text.len());
    let what = match (error.message(), text.get(span.clone())) {
        ("duplicate key", Some(key)) => format!("`{}` is given a second time", shown(key)),
        (message, _) => message.to_owned(),
    };
    syntax(file, text, span.start, &what)
}

/// What is wrong with the text at byte `at`.
fn syntax(file: &str, text: &str, at: usize, what: &str) -> Error {
    let before = text.get(..at).unwrap_or(text);
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    Error::Syntax { file: file.into(), line: line_of(text, at), column, what: what.into() }
}

/// Somebody's text as a terminal can take it: without control characters, and not longer than a person reads.
fn shown(text: &str) -> String {
    let escape = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    let length = text.chars().count();
    if length <= MAX_SHOWN {
        return text.chars().map(escape).collect();
    }
    let (head, tail) = (text.chars().take(MAX_SHOWN / 2), text.chars().skip(length - MAX_SHOWN / 2));
    format!("{} [...] {}", head.map(escape).collect::<String>(), tail.map(escape).collect::<String>())
}

fn explain(file: &str, text: &str, document: &Spanned<DeTable<'_>>, error: &toml::de::Error) -> Error {
    // The range of the document itself says nothing about a line.
    let span = error.span().filter(|span| *span != document.span());
    let place =
        span.as_ref().map_or_else(|| file.to_owned(), |span| format!("{file}:{}", line_of(text, span.start)));
    let message = error.message();
    let path_by = |by: By| span.as_ref().and_then(|span| find_span(document.get_ref(), span, by));
    if let Some((key, expected)) = between(message, "unknown field `", "`") {
        let path = path_by(By::Key).unwrap_or_default();
        let known = backticked(expected);
        let nearest = nearest(&key, &known);
        let key = shown(&key);
        return Error::UnknownKey { place, table: table_label(parent(&path)), key, nearest, known };
    }
    let path = path_by(By::Value).or_else(|| path_by(By::Key)).unwrap_or_default();
    if let Some((key, _)) = between(message, "missing field `", "`") {
        return Error::MissingKey { place, key, table: table_label(&path) };
    }
    Error::BadValue { place, what: shown(&humane(message, &path)), key: shown(&path) }
}

/// serde's message in the operator's words.
fn humane(message: &str, path: &str) -> String {
    if let Some((found, rest)) = between(message, "unknown variant `", "`") {
        let known = backticked(rest);
        let hint =
            nearest(&found, &known).map(|name| format!("; did you mean \"{name}\"?")).unwrap_or_default();
        let known = known.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ");
        return format!("expected one of {known}, found \"{found}\"{hint}");
    }
    match message {
        // What std says of an address that it cannot read.
        "invalid socket address syntax" => return SOCKET_ADDRESS.to_owned(),
        // What toml says of a choice among names.
        "wanted string or table" => return "expected a text in quotes".to_owned(),
        _ => {}
    }
    let Some((found, expected)) =
        ["invalid type: ", "invalid value: "].iter().find_map(|start| between(message, start, ", expected "))
    else {
        return message.to_owned();
    };
    // The value of a telling key may be the secret itself, misplaced.
    let found =
        if is_sensitive(path) { found.split(' ').next().unwrap_or_default().to_owned() } else { found };
    let found = match found.as_str() {
        "sequence" => "a list",
        "map" => "a table or a date",
        found => found,
    };
    let key = path.rsplit('.').next().unwrap_or(path);
    let example = |value: &str| match key.ends_with(']') {
        true => format!("for example {value}"),
        false => format!("for example {key} = {value}"),
    };
    let (wanted, value) = match expected {
        "a string" => ("a text in quotes", "\"text\""),
        "a boolean" => ("true or false", "true"),
        "u8" => ("a whole number from 0 to 255", "10"),
        "u16" => ("a whole number from 0 to 65535", "10"),
        "u32" | "u64" | "usize" => ("a whole number, not negative", "10"),
        "i8" | "i16" | "i32" | "i64" | "isize" => ("a whole number", "10"),
        "f32" | "f64" => ("a number", "0.5"),
        "path string" => ("a path in quotes", "\"/etc/longhaul\""),
        "a sequence" if found.starts_with("a table") => {
            return format!("expected a list, found {found}; a list of tables is written [[{path}]]");
        }
        "a sequence" => ("a list", "[\"a\", \"b\"]"),
        "socket address" => return format!("{SOCKET_ADDRESS}, found {found}"),
        table if table == "a map" || table.starts_with("struct ") => {
            let example = if path.ends_with(']') { String::new() } else { format!("; for example [{path}]") };
            return format!("expected a table, found {found}{example}");
        }
        other => return format!("expected {other}, found {found}"),
    };
    format!("expected {wanted}, found {found}; {}", example(value))
}

/// The part of `text` between `start`, with which it must begin, and the next `end`; and what follows.
fn between<'a>(text: &'a str, start: &str, end: &str) -> Option<(String, &'a str)> {
    let (inner, rest) = text.strip_prefix(start)?.split_once(end)?;
    Some((inner.to_owned(), rest))
}

fn backticked(text: &str) -> Vec<String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

fn nearest(key: &str, known: &[String]) -> Option<String> {
    let distance = |candidate: &String| strsim::damerau_levenshtein(key, candidate);
    let best = known.iter().min_by_key(|candidate| distance(candidate))?;
    (distance(best) <= (key.len().max(best.len()) / 3).max(1)).then(|| best.clone())
}

fn table_label(path: &str) -> String {
    if path.is_empty() { "at the top level".into() } else { format!("in [{path}]") }
}

/// The path of the table that holds the key at `path`.
fn parent(path: &str) -> &str {
    path.rsplit_once('.').map_or("", |(table, _)| table)
}

fn line_of(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
}

#[derive(Clone, Copy, PartialEq)]
enum By {
    Key,
    Value,
}

/// The path of the key or value that has exactly this range.
fn find_span(table: &DeTable<'_>, span: &Range<usize>, by: By) -> Option<String> {
    visit_table(table, "", &mut |path, key, value| {
        let at = if by == By::Key { key? } else { value };
        (at == span).then(|| path.to_owned())
    })
}

/// The range of the key at `wanted`, or of the nearest table above it.
fn find_key(text: &str, wanted: &str) -> Option<Range<usize>> {
    let document = DeTable::parse(text).ok()?;
    let mut best: Option<(usize, Range<usize>)> = None;
    visit_table(document.get_ref(), "", &mut |path, key, value| -> Option<()> {
        let below = wanted.strip_prefix(path)?;
        let covers = below.is_empty() || below.starts_with(['.', '[']);
        if covers && best.as_ref().is_none_or(|(length, _)| *length < path.len()) {
            best = Some((path.len(), key.unwrap_or(value).clone()));
        }
        None
    });
    best.map(|(_, range)| range)
}

/// Calls `f(path, range of the key, range of the value)` for everything below `table` until it gives something.
/// Elements of a list have no key.
fn visit_table<R>(
    table: &DeTable<'_>,
    path: &str,
    f: &mut impl FnMut(&str, Option<&Range<usize>>, &Range<usize>) -> Option<R>,
) -> Option<R> {
    table.iter().find_map(|(key, value)| {
        let path =
            if path.is_empty() { key.get_ref().to_string() } else { format!("{path}.{}", key.get_ref()) };
        f(&path, Some(&key.span()), &value.span()).or_else(|| visit_value(value.get_ref(), &path, f))
    })
}

fn visit_value<R>(
    value: &DeValue<'_>,
    path: &str,
    f: &mut impl FnMut(&str, Option<&Range<usize>>, &Range<usize>) -> Option<R>,
) -> Option<R> {
    match value {
        DeValue::Table(table) => visit_table(table, path, f),
        DeValue::Array(array) => visit_array(array, path, f),
        _ => None,
    }
}

fn visit_array<R>(
    array: &DeArray<'_>,
    path: &str,
    f: &mut impl FnMut(&str, Option<&Range<usize>>, &Range<usize>) -> Option<R>,
) -> Option<R> {
    array.iter().enumerate().find_map(|(index, value)| {
        let path = format!("{path}[{index}]");
        f(&path, None, &value.span()).or_else(|| visit_value(value.get_ref(), &path, f))
    })
}

const SOCKET_ADDRESS: &str = "expected an IP address and a port, such as \"127.0.0.1:9600\" or \"[::]:9600\"";
/// No file of settings is longer.
const MAX_BYTES: u64 = 4 << 20;
/// Characters.
const MAX_SHOWN: usize = 600;

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::{ByteSize, Rate};

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Config {
        #[serde(rename = "link")]
        _link: String,
        #[serde(rename = "kafka")]
        _kafka: Kafka,
        #[serde(default, rename = "links")]
        _links: Vec<Link>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Kafka {
        #[serde(rename = "bootstrap")]
        _bootstrap: String,
        #[serde(default, rename = "port")]
        _port: u16,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Link {
        #[serde(rename = "name")]
        _name: String,
        #[serde(default, rename = "rate")]
        _rate: Rate,
        #[serde(default, rename = "start")]
        _start: Start,
        #[serde(default, rename = "limits")]
        _limits: Limits,
    }

    #[derive(Debug, Default, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Start {
        #[default]
        Earliest,
        Latest,
    }

    #[derive(Debug, Default, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Limits {
        #[serde(rename = "record")]
        _record: ByteSize,
    }

    const GOOD: &str =
        "link = 'a'\n[kafka]\nbootstrap = 'k:9092'\n[[links]]\nname = 'one'\n[[links]]\nname = 'two'\n";

    fn complaint(text: &str) -> String {
        parse::<Config>("edge.toml", text).unwrap_err().to_string()
    }

    #[test]
    fn a_good_file_is_read() {
        parse::<Config>("edge.toml", GOOD).unwrap();
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_line_and_the_nearest_known_key() {
        let text = "link = 'a'\n\n[kafka]\nbootstap = 'k:9092'\n";
        assert_eq!(
            complaint(text),
            "edge.toml:4: unknown key `bootstap` in [kafka]; did you mean `bootstrap`?"
        );
        assert_eq!(
            complaint(&format!("kafak = 1\n{GOOD}")),
            "edge.toml:1: unknown key `kafak` at the top level; did you mean `kafka`?"
        );
        assert_eq!(
            complaint(&format!("{GOOD}zzz = 1\n")),
            "edge.toml:8: unknown key `zzz` in [links[1]]; known keys: name, rate, start, limits"
        );
        assert_eq!(
            complaint(&format!("{GOOD}limits = {{ reccord = '1 B' }}\n")),
            "edge.toml:8: unknown key `reccord` in [links[1].limits]; did you mean `record`?"
        );
    }

    #[test]
    fn a_missing_key_names_its_table() {
        assert_eq!(
            complaint("link = 'a'\n[kafka]\nport = 1\n"),
            "edge.toml:2: missing key `bootstrap` in [kafka]"
        );
        assert_eq!(complaint("link = 'a'\n"), "edge.toml: missing key `kafka` at the top level");
        assert_eq!(
            complaint(&format!("{GOOD}[[links]]\nrate = '1 Mbit/s'\n")),
            "edge.toml:8: missing key `name` in [links[2]]"
        );
    }

    #[test]
    fn a_wrong_type_says_what_is_expected_with_an_example() {
        assert_eq!(
            complaint("link = 7\n"),
            "edge.toml:1: `link`: expected a text in quotes, found integer `7`; for example link = \"text\""
        );
        assert_eq!(
            complaint("link = 'a'\n[kafka]\nbootstrap = 'k'\nport = 70000\n"),
            "edge.toml:4: `kafka.port`: expected a whole number from 0 to 65535, found integer `70000`; \
             for example port = 10"
        );
        assert_eq!(
            complaint("link = 'a'\nkafka = 'k'\n"),
            "edge.toml:2: `kafka`: expected a table, found string \"k\"; for example [kafka]"
        );
        assert_eq!(
            complaint("link = 'a'\nkafka = { bootstrap = 'k' }\nlinks = { name = 'a' }\n"),
            "edge.toml:3: `links`: expected a list, found a table or a date; a list of tables is written [[links]]"
        );
        assert_eq!(
            complaint(&format!("{GOOD}start = 5\n")),
            "edge.toml:8: `links[1].start`: expected a text in quotes"
        );
    }

    #[test]
    fn a_bad_value_names_its_full_path_and_the_way_out() {
        assert_eq!(
            complaint(&format!("{GOOD}rate = 200\n")),
            "edge.toml:8: `links[1].rate`: expected a rate with its unit, such as \"200 Mbit/s\" or \"25 MB/s\", \
             found integer `200`"
        );
        let message = complaint(&format!("{GOOD}rate = '200 mbit/s'\n"));
        assert!(message.starts_with("edge.toml:8: `links[1].rate`: expected a rate"), "{message}");
        assert!(message.ends_with("did you mean `Mbit/s`?"), "{message}");
        assert_eq!(
            complaint(&format!("{GOOD}start = 'erliest'\n")),
            "edge.toml:8: `links[1].start`: expected one of \"earliest\", \"latest\", found \"erliest\"; \
             did you mean \"earliest\"?"
        );
    }

    #[test]
    fn text_that_is_not_toml_names_line_and_column() {
        let message = complaint("link = 'a'\n[kafka\n");
        assert!(message.starts_with("edge.toml:2: not valid TOML at column 7"), "{message}");
        let twice = complaint("link = 'a'\nlink = 'b'\n");
        assert_eq!(twice, "edge.toml:2: not valid TOML at column 1: `link` is given a second time");
    }

    #[test]
    fn a_file_that_nobody_can_have_written_is_refused_with_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("edge.toml");
        let complaint = |content: &[u8]| {
            std::fs::write(&file, content).unwrap();
            load::<Config>(&file).unwrap_err().to_string()
        };
        let at = file.display();
        let message = complaint(b"link = 'a'\n[kafka]\nbootstrap = 'k\xff'\n");
        assert_eq!(
            message,
            format!("{at}:3: not valid TOML at column 15: a byte that is not UTF-8; save it as UTF-8")
        );
        assert!(complaint(&vec![b'#'; (MAX_BYTES + 1) as usize]).contains("longer than 4 MiB"));
        assert!(load::<Config>(Path::new("/dev/zero")).unwrap_err().to_string().contains("longer than"));
    }

    #[test]
    fn what_is_shown_of_a_text_is_fit_for_a_terminal() {
        let message = complaint(&format!("\"a\\u001b[31mb\" = 1\n{GOOD}"));
        assert!(message.contains("unknown key `a\\u{1b}[31mb`"), "{message}");
        let message = complaint(&format!("link = ['{}']\n", "x".repeat(100_000)));
        assert!(message.len() < 1000, "{} characters", message.len());
        let message = complaint(&format!("{GOOD}start = '{}'\n", "x".repeat(100_000)));
        assert!(message.len() < 1000 && message.contains(" [...] "), "{message}");
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named() {
        let message = load::<Config>(Path::new("/nowhere/edge.toml")).unwrap_err().to_string();
        assert!(message.starts_with("/nowhere/edge.toml: cannot read the configuration: "), "{message}");
    }

    #[test]
    fn a_refused_value_names_the_line_of_its_key_or_of_the_table_above() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cloud.toml");
        std::fs::write(&path, GOOD).unwrap();
        let at = |key: &str| refuse(&path, key, "no").to_string();
        let file = path.display();
        assert_eq!(at("links[1].name"), format!("{file}:7: `links[1].name`: no"));
        assert_eq!(at("links[1].lanes"), format!("{file}:6: `links[1].lanes`: no"));
        assert_eq!(at("kafka.bootstrap"), format!("{file}:3: `kafka.bootstrap`: no"));
        assert_eq!(at("audit.file"), format!("{file}: `audit.file`: no"));
    }
}
