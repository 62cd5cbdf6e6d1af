//! How results look: tables for people, JSON for programs. The only place that writes to standard output and error.

use std::fmt::Write as _;
use std::io::{self, Write as _};

use indicatif::HumanCount;
use laneway_protocol::message::{LostWorker, TaskRow};
use laneway_protocol::{Format, Payload};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{Output, when};
use crate::error::Error;

/// Said of a write-ahead log, behind its size.
pub(super) const PINNED: &str = ", cannot shrink: a reader holds a transaction open; end it";

/// Of a worker that died: `web-1 on alder, 2m03s ago, with 3 tasks`.
pub(super) fn lost(worker: &LostWorker) -> String {
    let tasks = if worker.running == 1 { "1 task".into() } else { format!("{} tasks", worker.running) };
    let host = if worker.host.is_empty() { String::new() } else { format!(" on {}", worker.host) };
    format!("{}{host}, {} ago, with {tasks}", worker.name, when::span(worker.ago_ms))
}

/// Writes to standard output as it is.
pub(crate) fn bytes(bytes: &[u8]) -> Result<(), Error> {
    let mut out = io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(|error| Error::other("write to standard output", error))
}

pub(crate) fn line(text: &str) -> Result<(), Error> {
    bytes(format!("{text}\n").as_bytes())
}

/// A word to the person, on standard error. Nothing can be done when that is closed.
pub(crate) fn note(text: &str) {
    writeln!(io::stderr().lock(), "{text}").ok();
}

/// What is told beside the answer, on standard error: `text` to a person, `value` to a program, one object a line like the answer.
/// Errors are for people whatever the output is.
pub(super) fn aside(output: Output, text: &str, value: &impl Serialize) {
    match output {
        Output::Table => note(text),
        Output::Json => note(&serde_json::to_string(value).unwrap_or_default()),
    }
}

/// A remark on how the answer came about.
pub(super) fn remark(output: Output, text: &str) {
    aside(output, text, &json!({ "note": text }));
}

/// `1 run`, `2 runs`.
pub(crate) fn count(n: u64, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

/// `1,234,567`.
pub(crate) fn grouped(n: u64) -> String {
    HumanCount(n).to_string()
}

/// One JSON object on one line.
pub(crate) fn json(value: &impl Serialize) -> Result<(), Error> {
    let text = serde_json::to_string(value).map_err(|error| Error::other("write JSON", error))?;
    line(&text)
}

/// A table with aligned columns and no lines, so that `awk` and `cut` can read it too.
pub(crate) struct Table(comfy_table::Table);

impl Table {
    pub(crate) fn new(header: &[&str]) -> Self {
        let mut table = comfy_table::Table::new();
        table.load_style(comfy_table::presets::NOTHING).set_header(header.to_vec());
        Self(table)
    }

    /// Without a header: names with values, or the rest of a list.
    pub(crate) fn pairs() -> Self {
        let mut table = comfy_table::Table::new();
        table.load_style(comfy_table::presets::NOTHING);
        Self(table)
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.0.add_row(cells.into_iter().map(|cell| clean(&cell)).collect::<Vec<_>>());
    }

    pub(crate) fn pair(&mut self, name: &str, value: &dyn std::fmt::Display) {
        self.row([name.into(), value.to_string()]);
    }

    pub(crate) fn print(mut self) -> Result<(), Error> {
        if self.0.is_empty() && self.0.header().is_none() {
            return Ok(());
        }
        for column in self.0.column_iter_mut() {
            column.set_padding((0, 2));
        }
        let text: Vec<String> = self.0.lines().map(|line| line.trim_end().to_owned()).collect();
        line(&text.join("\n"))
    }
}

/// Text of tasks may hold anything; a terminal must not act on it.
pub(crate) fn clean(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\t' => out.push(' '),
            c if c.is_control() => out.extend(c.escape_default()),
            c => out.push(c),
        }
    }
    out
}

/// The first `chars_max` characters, marked when there were more.
pub(crate) fn cut(text: &str, chars_max: usize) -> String {
    if text.chars().count() <= chars_max {
        return text.into();
    }
    text.chars().take(chars_max.saturating_sub(1)).chain(['…']).collect()
}

/// A value that may be missing, as `-` in a table.
pub(crate) fn or_dash<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".into(), |value| value.to_string())
}

/// The wire's row as a JSON object, payload and result readable: decoded as `payload` when it is JSON, `payload_text` when
/// it claims to be and is not, `payload_hex` otherwise; likewise `result`.
pub(crate) fn task_json(row: &TaskRow) -> Value {
    let mut value = to_object(row);
    put_payload(&mut value, "payload", row.payload.as_ref());
    put_payload(&mut value, "result", row.result.as_ref());
    Value::Object(value)
}

pub(crate) fn to_object(value: &impl Serialize) -> Map<String, Value> {
    match serde_json::to_value(value) {
        Ok(Value::Object(object)) => object,
        Ok(other) => Map::from_iter([("value".to_owned(), other)]),
        Err(error) => Map::from_iter([("error".to_owned(), json!(error.to_string()))]),
    }
}

/// Puts the bytes where the wire's own form has only the format.
pub(crate) fn put_payload(object: &mut Map<String, Value>, key: &str, payload: Option<&Payload>) {
    object.remove(key);
    let Some(payload) = payload else { return };
    let (key, value) = match payload.format {
        Format::Bin => (format!("{key}_hex"), Value::String(hex(&payload.bytes))),
        Format::Json => match serde_json::from_slice(&payload.bytes) {
            Ok(value) => (key.to_owned(), value),
            Err(_) => (format!("{key}_text"), Value::String(String::from_utf8_lossy(&payload.bytes).into_owned())),
        },
    };
    object.insert(key, value);
}

/// A payload on one line, for people.
pub(crate) fn payload_text(payload: &Payload) -> String {
    match payload.format {
        Format::Json => String::from_utf8_lossy(&payload.bytes).into_owned(),
        Format::Bin => format!("{} bytes {}", payload.bytes.len(), hex(&payload.bytes)),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string cannot fail");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_are_readable_in_json() {
        // Proves the three keys under which a payload can stand, and that none stands for a missing one.
        for (payload, key, value) in [
            (Payload::json(r#"{"a":1}"#), "payload", json!({"a": 1})),
            (Payload::json("not json"), "payload_text", json!("not json")),
            (Payload::bin([0x81, 0xff]), "payload_hex", json!("81ff")),
        ] {
            let mut object = Map::from_iter([("payload".to_owned(), json!("json"))]);
            put_payload(&mut object, "payload", Some(&payload));
            assert_eq!(Value::Object(object), json!({ key: value }));
        }
        let mut object = Map::new();
        put_payload(&mut object, "payload", None);
        assert!(object.is_empty());
    }

    #[test]
    fn a_terminal_does_not_act_on_a_tasks_text() {
        // Proves that escapes in an error or a kind are shown, and that a cell stays on its line.
        assert_eq!(clean("a\u{1b}[2Jb\nc"), "a\\u{1b}[2Jb c");
        assert_eq!(cut("äöüß", 3), "äö…");
        assert_eq!(cut("äöü", 3), "äöü");
        assert_eq!([grouped(0), grouped(999), grouped(1_000), grouped(1_234_567)], ["0", "999", "1,000", "1,234,567"]);
    }
}
