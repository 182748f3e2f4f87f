//! The control socket: a command a line, a JSON line as the answer.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use anyhow::{Context as _, Result, bail};
use longhaul_lab::wanlink::{Wan, Which};
use serde_json::{Value, json};

/// Answers on the socket, in threads that do not keep the line alive.
pub(crate) fn serve(path: &Path, wan: &Arc<Wan>, stop: &Arc<AtomicBool>) -> Result<()> {
    // One that a killed run has left.
    let _ = std::fs::remove_file(path);
    let listener =
        UnixListener::bind(path).with_context(|| format!("cannot listen on {}", path.display()))?;
    let (wan, stop) = (Arc::downgrade(wan), stop.clone());
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (wan, stop) = (wan.clone(), stop.clone());
            std::thread::spawn(move || talk(&stream, &wan, &stop));
        }
    });
    Ok(())
}

fn talk(mut stream: &UnixStream, wan: &Weak<Wan>, stop: &AtomicBool) {
    for line in BufReader::new(stream).lines().map_while(Result::ok) {
        let Some(wan) = wan.upgrade() else { return };
        let answer =
            command(&line, &wan, stop).unwrap_or_else(|error| json!({ "error": format!("{error:#}") }));
        if writeln!(stream, "{answer}").is_err() {
            return;
        }
    }
}

/// Carries out one command.
fn command(line: &str, wan: &Wan, stop: &AtomicBool) -> Result<Value> {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words.as_slice() {
        ["stats"] => return Ok(wan.readings().json()),
        ["show"] => {}
        ["reset"] => wan.reset(),
        ["set", direction, pairs @ ..] => {
            let which = which(direction)?;
            // All or nothing.
            let mut trial = wan.params()[0];
            pairs.iter().try_for_each(|pair| trial.set(pair))?;
            wan.change(which, |params| {
                pairs.iter().for_each(|pair| params.set(pair).expect("it was tried before"));
            });
        }
        ["cut" | "restore", rest @ ..] if rest.len() < 2 => {
            let down = words[0] == "cut";
            wan.change(which(rest.first().unwrap_or(&"both"))?, |params| params.down = down);
        }
        ["quit"] => stop.store(true, Ordering::Relaxed),
        _ => bail!("commands: stats, reset, show, set DIRECTION KEY=VALUE..., cut, restore, quit"),
    }
    let [ab, ba] = wan.params();
    Ok(json!({ "ab": ab.json(), "ba": ba.json() }))
}

fn which(word: &str) -> Result<Which> {
    match word {
        "ab" => Ok(Which::Ab),
        "ba" => Ok(Which::Ba),
        "both" => Ok(Which::Both),
        _ => bail!("`{word}` is no direction: ab, ba or both"),
    }
}

/// Sends one command to a running line and prints the answer.
pub(crate) fn send(path: &Path, line: &str) -> Result<()> {
    let mut stream = UnixStream::connect(path)
        .with_context(|| format!("no line answers on {}; start one with `up`", path.display()))?;
    writeln!(stream, "{line}")?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer)?;
    let answer: Value = serde_json::from_str(&answer).context("the line did not answer in JSON")?;
    match answer.get("error").and_then(Value::as_str) {
        Some(error) => bail!("{error}"),
        None => print(&answer),
    }
}

/// A line for programs.
pub(crate) fn print(value: &Value) -> Result<()> {
    writeln!(std::io::stdout(), "{value}").context("cannot write to stdout")
}
