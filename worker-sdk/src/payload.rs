//! Payload bytes to Rust values and back. Everything else carries payloads without looking into them.

use laneway_protocol::{Format, Payload};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::Error;

/// Reads a payload: JSON text with `serde_json`, binary as MessagePack. No payload reads like JSON `null`, so it fits
/// `()` and `Option`.
///
/// Fails with [`Error::BadPayload`] when the bytes are not a `T`.
pub fn decode<T: DeserializeOwned>(payload: Option<&Payload>) -> Result<T, Error> {
    match payload {
        None => {
            serde_json::from_slice(b"null").map_err(|error| Error::BadPayload(format!("there is no payload: {error}")))
        }
        Some(payload) => match payload.format {
            Format::Json => serde_json::from_slice(&payload.bytes)
                .map_err(|error| Error::BadPayload(format!("the JSON payload is not as expected: {error}"))),
            Format::Bin => rmp_serde::from_slice(&payload.bytes)
                .map_err(|error| Error::BadPayload(format!("the MessagePack payload is not as expected: {error}"))),
        },
    }
}

/// Writes a payload in the given format; structs become maps in both.
///
/// Fails with [`Error::BadPayload`] when `T` cannot be written in it, a map with keys that are not strings for example.
pub fn encode<T: Serialize + ?Sized>(value: &T, format: Format) -> Result<Payload, Error> {
    let bytes = match format {
        Format::Json => serde_json::to_vec(value)
            .map_err(|error| Error::BadPayload(format!("the value cannot be written as JSON: {error}")))?,
        Format::Bin => rmp_serde::to_vec_named(value)
            .map_err(|error| Error::BadPayload(format!("the value cannot be written as MessagePack: {error}")))?,
    };
    Ok(Payload { format, bytes })
}

/// Like [`encode`], but nothing (`()`, `None`) is no payload instead of a written-out null.
pub(crate) fn encode_result<T: Serialize + ?Sized>(value: &T, format: Format) -> Result<Option<Payload>, Error> {
    const NIL: &[u8] = &[0xc0];
    let payload = encode(value, format)?;
    let null = match format {
        Format::Json => payload.bytes == b"null",
        Format::Bin => payload.bytes == NIL,
    };
    Ok((!null).then_some(payload))
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Resize {
        path: String,
        width: u32,
    }

    #[test]
    fn a_value_survives_both_formats() {
        // JSON and MessagePack are told apart by the format and read into the same value.
        let value = Resize { path: "a.png".into(), width: 40 };
        for format in [Format::Json, Format::Bin] {
            let payload = encode(&value, format).unwrap();
            assert_eq!(payload.format, format);
            assert_eq!(decode::<Resize>(Some(&payload)).unwrap(), value);
        }
    }

    #[test]
    fn nothing_is_no_payload() {
        // Unit and None leave the result column NULL, and an absent payload reads as either.
        for format in [Format::Json, Format::Bin] {
            assert_eq!(encode_result(&(), format).unwrap(), None);
            assert_eq!(encode_result(&None::<u8>, format).unwrap(), None);
            assert!(encode_result(&0, format).unwrap().is_some());
        }
        assert_eq!(decode::<Option<u8>>(None).unwrap(), None);
        decode::<()>(None).unwrap();
        assert!(decode::<Resize>(None).unwrap_err().to_string().contains("no payload"));
    }

    #[test]
    fn a_wrong_payload_names_the_field() {
        // The error that ends up in the dead row tells what to fix.
        let error = decode::<Resize>(Some(&Payload::json(r#"{"path":"a"}"#))).unwrap_err();
        assert!(error.to_string().contains("missing field `width`"), "{error}");
    }
}
