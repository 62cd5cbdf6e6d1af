//! A payload: bytes, and how they are to be read.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// How the bytes of a payload are to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// UTF-8 text that is JSON; TEXT in the table.
    Json,
    /// `MessagePack` or anything else; BLOB in the table.
    Bin,
}

/// Bytes that the broker carries and never parses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload {
    pub format: Format,
    pub bytes: Vec<u8>,
}

impl Payload {
    pub fn json(text: impl Into<String>) -> Self {
        Self { format: Format::Json, bytes: text.into().into_bytes() }
    }

    pub fn bin(bytes: impl Into<Vec<u8>>) -> Self {
        Self { format: Format::Bin, bytes: bytes.into() }
    }
}

// In the body a payload is its format; the codec moves the bytes to and from the frames behind it.
impl Serialize for Payload {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.format.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Payload {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self { format: Format::deserialize(deserializer)?, bytes: Vec::new() })
    }
}
