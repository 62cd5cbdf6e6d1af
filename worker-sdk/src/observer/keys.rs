//! The keys that sign observer links: a file of mode 600 with one key a line, which every program that makes links reads.

use std::fmt;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::curve::read_text;
use crate::error::Error;

/// One that signs and those whose links have not all expired; each link is tried with all of them.
const KEYS_MAX: usize = 8;
/// Fewer could be guessed by whoever has a link.
const KEY_CHARS_MIN: usize = 32;
const KEY_CHARS_MAX: usize = 256;
const KEY_BYTES: usize = 32;

/// The keys that sign observer links and open them: the first one signs, all of them open.
///
/// The file has one key a line, 1 to 8 of them; lines that begin with `#` and empty ones are passed over. A key is the
/// characters of its line, 32 to 256 without blanks, as bytes; nothing is decoded. So any program can make one:
/// `openssl rand -hex 32`, or `laneway link --new-key FILE`. To change it, put a new line first, and take the old one away
/// when the links that it signed have expired; taken away at once, it revokes them.
#[derive(Clone, PartialEq, Eq)]
pub struct LinkKeys(Vec<String>);

impl LinkKeys {
    /// Reads a file of keys.
    ///
    /// Fails with [`Error::BadKey`] when it cannot be read, when users other than its owner may read it, and when it holds
    /// no such keys.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let text = read_text(path, true)?;
        Self::parse(&text).map_err(|text| Error::BadKey { path: path.into(), text })
    }

    /// Keys as their file has them, for a program that keeps them elsewhere. The error never holds a key.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut keys: Vec<String> = Vec::new();
        for (n, line) in text.lines().enumerate() {
            let key = line.trim();
            if key.is_empty() || key.starts_with('#') {
                continue;
            }
            let (n, n_chars) = (n + 1, key.chars().count());
            if !(KEY_CHARS_MIN..=KEY_CHARS_MAX).contains(&n_chars) {
                let bounds = format!("{KEY_CHARS_MIN} to {KEY_CHARS_MAX}");
                return Err(format!("line {n}: a key must have {bounds} characters, this one has {n_chars}"));
            }
            if !key.chars().all(|c| c.is_ascii_graphic()) {
                return Err(format!("line {n}: a key must be ASCII without blanks"));
            }
            if keys.iter().any(|other| other == key) {
                return Err(format!("line {n}: this key stands there already"));
            }
            keys.push(key.into());
        }
        if keys.is_empty() || keys.len() > KEYS_MAX {
            let next = "make one with `laneway link --new-key FILE`, or take the last ones away";
            return Err(format!("must have 1 to {KEYS_MAX} keys, has {}: {next}", keys.len()));
        }
        Ok(Self(keys))
    }

    /// A new key, from the system's random bytes: 43 characters for a line of the file.
    pub fn generate() -> Result<String, Error> {
        let mut bytes = [0; KEY_BYTES];
        getrandom::fill(&mut bytes).map_err(|error| Error::System(format!("no random bytes: {error}")))?;
        Ok(URL_SAFE_NO_PAD.encode(bytes))
    }

    /// How many there are, 1 to 8.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    pub(super) fn sign(&self, text: &[u8]) -> [u8; 32] {
        mac(&self.0[0], text).finalize().into_bytes().into()
    }

    /// Whether any of the keys gives this MAC, compared in constant time.
    pub(super) fn has_signed(&self, text: &[u8], claimed: &[u8]) -> bool {
        self.0.iter().any(|key| mac(key, text).verify_slice(claimed).is_ok())
    }
}

fn mac(key: &str, text: &[u8]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).expect("HMAC takes keys of any length");
    mac.update(text);
    mac
}

/// How many, and none of them.
impl fmt::Debug for LinkKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LinkKeys({})", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const KEY: &str = "correct-horse-battery-staple-0123456789";

    #[test]
    fn a_file_of_keys_is_read_and_a_wrong_one_told_without_its_keys() {
        // Proves comments, bounds, and that neither an error nor a debug text holds a key.
        let good = format!("# signs\n{KEY}\n\n# of last year\n  {KEY}-2  \n");
        assert_eq!(LinkKeys::parse(&good).unwrap(), LinkKeys(vec![KEY.into(), format!("{KEY}-2")]));
        assert_eq!(LinkKeys::parse(&good).unwrap().count(), 2);
        let nine = (0..9).map(|n| format!("{KEY}-{n}")).collect::<Vec<_>>().join("\n");
        for (text, says) in [
            (String::new(), "must have 1 to 8 keys, has 0"),
            ("# none".into(), "has 0"),
            (nine, "has 9"),
            (KEY[..31].into(), "line 1: a key must have 32 to 256 characters, this one has 31"),
            ("x".repeat(257), "has 257"),
            (format!("{KEY}\n{KEY} two words"), "line 2: a key must be ASCII without blanks"),
            (format!("{KEY}\n{KEY}"), "line 2: this key stands there already"),
        ] {
            let error = LinkKeys::parse(&text).unwrap_err();
            assert!(error.contains(says) && !error.contains("horse"), "{error}");
        }
        assert_eq!(format!("{:?}", LinkKeys::parse(KEY).unwrap()), "LinkKeys(1)");
    }

    #[test]
    fn a_file_that_others_may_read_is_refused() {
        // Proves that a key which is no secret signs nothing, and that the way out is told.
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("link.keys");
        std::fs::write(&path, LinkKeys::generate().unwrap()).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let error = LinkKeys::read(&path).unwrap_err().to_string();
        assert!(error.contains("link.keys") && error.contains("chmod 600"), "{error}");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(LinkKeys::read(&path).unwrap().count(), 1);
        assert!(LinkKeys::read(dir.path().join("none")).unwrap_err().to_string().contains("none"));
    }

    #[test]
    fn keys_are_new_each_time() {
        // Proves that a key is long enough for its own file, and no constant.
        let (a, b) = (LinkKeys::generate().unwrap(), LinkKeys::generate().unwrap());
        assert!(a != b && LinkKeys::parse(&format!("{a}\n{b}")).is_ok());
    }
}
