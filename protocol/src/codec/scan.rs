//! The shape of a body, before any of it is believed: one whole `MessagePack` map, string keys, bounded depth and lists.
//!
//! One pass without an allocation, called by the codec in front of the typed parse. It knows no message, so its bounds hold
//! for unknown keys too: nothing behind it meets a deep, endless or cut-off value. It refuses what serde alone would let
//! pass, such as field numbers for keys and bytes behind the map.

use crate::error::{Code, WireError};
use crate::limits::BODY_DEPTH_MAX;

/// Checks that `body` is one map and nothing else, and that none of its lists has over `list_max` entries.
///
/// # Errors
/// `bad_body`, or `too_many` for a list, with the path of the value in `field`.
pub(super) fn check(body: &[u8], list_max: usize) -> Result<(), WireError> {
    if !matches!(body.first(), Some(0x80..=0x8f | 0xde | 0xdf)) {
        return Err(WireError::new(Code::BadBody, "the body is not a MessagePack map; send one with string keys"));
    }
    let mut scan = Scan { rest: body, list_max };
    scan.value(0).map_err(Fault::into_wire)?;
    match scan.rest.len() {
        0 => Ok(()),
        n => Err(WireError::new(Code::BadBody, format!("{n} bytes stand behind the body's map; nothing may"))),
    }
}

struct Scan<'a> {
    rest: &'a [u8],
    list_max: usize,
}

impl<'a> Scan<'a> {
    fn value(&mut self, depth: usize) -> Result<(), Fault> {
        let marker = self.uint(1)?;
        let bytes = match marker {
            0x00..=0x7f | 0xc0 | 0xc2 | 0xc3 | 0xe0..=0xff => 0,
            0x80..=0x8f => return self.map(marker & 0x0f, depth),
            0xde => return self.uint(2).and_then(|n| self.map(n, depth)),
            0xdf => return self.uint(4).and_then(|n| self.map(n, depth)),
            0x90..=0x9f => return self.list(marker & 0x0f, depth),
            0xdc => return self.uint(2).and_then(|n| self.list(n, depth)),
            0xdd => return self.uint(4).and_then(|n| self.list(n, depth)),
            0xa0..=0xbf => marker & 0x1f,
            0xc4 | 0xd9 => self.uint(1)?,
            0xc5 | 0xda => self.uint(2)?,
            0xc6 | 0xdb => self.uint(4)?,
            // Extensions have a type byte behind their length.
            0xc7 => self.uint(1)? + 1,
            0xc8 => self.uint(2)? + 1,
            0xc9 => self.uint(4)? + 1,
            0xcc | 0xd0 => 1,
            0xcd | 0xd1 | 0xd4 => 2,
            0xd5 => 3,
            0xca | 0xce | 0xd2 => 4,
            0xd6 => 5,
            0xcb | 0xcf | 0xd3 => 8,
            0xd7 => 9,
            0xd8 => 17,
            _ => return Err(Fault::new(Code::BadBody, format!("byte {marker:#04x} is not MessagePack"))),
        };
        self.take(bytes).map(|_| ())
    }

    fn map(&mut self, n_entries: usize, depth: usize) -> Result<(), Fault> {
        check_depth(depth)?;
        for _ in 0..n_entries {
            let key = self.key()?;
            self.value(depth + 1).map_err(|fault| fault.under(&String::from_utf8_lossy(key)))?;
        }
        Ok(())
    }

    fn list(&mut self, n_entries: usize, depth: usize) -> Result<(), Fault> {
        check_depth(depth)?;
        if n_entries > self.list_max {
            let text = format!("a list has {n_entries} entries, at most {} are allowed; send pages", self.list_max);
            return Err(Fault::new(Code::TooMany, text));
        }
        for index in 0..n_entries {
            self.value(depth + 1).map_err(|fault| fault.under(&format!("[{index}]")))?;
        }
        Ok(())
    }

    fn key(&mut self) -> Result<&'a [u8], Fault> {
        let bytes = match self.uint(1)? {
            marker @ 0xa0..=0xbf => marker & 0x1f,
            0xd9 => self.uint(1)?,
            0xda => self.uint(2)?,
            0xdb => self.uint(4)?,
            _ => return Err(Fault::new(Code::BadBody, "a map has a key that is not a string".into())),
        };
        self.take(bytes)
    }

    /// The next `bytes` bytes, at most 4, as a big-endian number.
    fn uint(&mut self, bytes: usize) -> Result<usize, Fault> {
        Ok(self.take(bytes)?.iter().fold(0, |number, byte| number << 8 | usize::from(*byte)))
    }

    fn take(&mut self, bytes: usize) -> Result<&'a [u8], Fault> {
        let Some((taken, rest)) = self.rest.split_at_checked(bytes) else {
            return Err(Fault::new(Code::BadBody, "the body ends in the middle of a value".into()));
        };
        self.rest = rest;
        Ok(taken)
    }
}

fn check_depth(depth: usize) -> Result<(), Fault> {
    if depth < BODY_DEPTH_MAX {
        return Ok(());
    }
    Err(Fault::new(Code::BadBody, format!("lists and maps are nested over {BODY_DEPTH_MAX} deep")))
}

/// What is wrong, and where: the path grows at its front on the way out.
struct Fault {
    code: Code,
    text: String,
    path: String,
}

impl Fault {
    fn new(code: Code, text: String) -> Self {
        Self { code, text, path: String::new() }
    }

    fn under(self, segment: &str) -> Self {
        let dot = if self.path.is_empty() || self.path.starts_with('[') { "" } else { "." };
        Self { path: format!("{segment}{dot}{}", self.path), ..self }
    }

    fn into_wire(self) -> WireError {
        let error = WireError::new(self.code, self.text);
        if self.path.is_empty() { error } else { error.field(self.path) }
    }
}
