//! Payloads and results as people and programs read them: JSON laid out, MessagePack turned into JSON, bytes in hex.

use std::fmt::Write as _;

use laneway::{Format, Payload};
use serde_json::{Map, Value};

use crate::limits::SHOWN_BYTES_MAX;
use crate::time::bytes;

/// For a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shown {
    pub(crate) text: String,
    /// What it is, and how large.
    pub(crate) about: String,
    /// Only the beginning is here.
    pub(crate) is_cut: bool,
}

pub(crate) fn shown(payload: &Payload) -> Shown {
    let size = bytes(payload.bytes.len() as u64);
    let (format, text) = match decoded(payload) {
        (format, Decoded::Json(value)) => {
            let text = serde_json::to_string_pretty(&value).unwrap_or_default();
            (format, text)
        }
        (format, Decoded::Text(text)) => (format, text),
        (format, Decoded::Bytes) => (format, hex(&payload.bytes[..payload.bytes.len().min(SHOWN_BYTES_MAX / 2)])),
    };
    let is_cut = text.len() > SHOWN_BYTES_MAX || (format == "bytes" && text.len() < payload.bytes.len() * 2);
    let mut end = text.len().min(SHOWN_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    Shown { text: text[..end].to_owned(), about: format!("{format}, {size}"), is_cut }
}

/// Puts a payload into the API's object: as `key` when it is JSON or MessagePack, `key_text` when it is other text, `key_hex`
/// when it is anything else.
pub(crate) fn put(object: &mut Map<String, Value>, key: &str, payload: Option<&Payload>) {
    object.remove(key);
    let Some(payload) = payload else { return };
    let (key, value) = match decoded(payload).1 {
        Decoded::Json(value) => (key.to_owned(), value),
        Decoded::Text(text) => (format!("{key}_text"), Value::String(text)),
        Decoded::Bytes => (format!("{key}_hex"), Value::String(hex(&payload.bytes))),
    };
    object.insert(key, value);
}

enum Decoded {
    Json(Value),
    Text(String),
    Bytes,
}

fn decoded(payload: &Payload) -> (&'static str, Decoded) {
    match payload.format {
        Format::Json => match serde_json::from_slice(&payload.bytes) {
            Ok(value) => ("JSON", Decoded::Json(value)),
            Err(_) => ("text", Decoded::Text(String::from_utf8_lossy(&payload.bytes).into_owned())),
        },
        // One value and nothing behind it: most bytes are MessagePack of some small number.
        Format::Bin => match message_pack(&payload.bytes) {
            Some(value) => ("MessagePack", Decoded::Json(value)),
            None => ("bytes", Decoded::Bytes),
        },
    }
}

fn message_pack(bytes: &[u8]) -> Option<Value> {
    let mut rest = bytes;
    let value = rmp_serde::from_read(&mut rest).ok()?;
    rest.is_empty().then_some(value)
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string cannot fail");
        text
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn payloads_are_readable_whatever_they_are() {
        // Proves the three keys of the API and what a page says of each.
        for (payload, object, about) in [
            (Payload::json(r#"{"a":1}"#), json!({"payload": {"a": 1}}), "JSON, 7 B"),
            (Payload::json("not json"), json!({"payload_text": "not json"}), "text, 8 B"),
            (Payload::bin([0x81, 0xa1, b'a', 0x01]), json!({"payload": {"a": 1}}), "MessagePack, 4 B"),
            (Payload::bin([0x01, 0xff]), json!({"payload_hex": "01ff"}), "bytes, 2 B"),
        ] {
            let mut found = Map::new();
            put(&mut found, "payload", Some(&payload));
            assert_eq!((Value::Object(found), shown(&payload).about.as_str()), (object, about));
        }
    }

    #[test]
    fn a_large_payload_is_cut_on_a_page() {
        // Proves the bound of what a page carries, at a character's end.
        let shown = shown(&Payload::json("ä".repeat(SHOWN_BYTES_MAX)));
        assert!(shown.is_cut && shown.text.len() <= SHOWN_BYTES_MAX);
    }
}
