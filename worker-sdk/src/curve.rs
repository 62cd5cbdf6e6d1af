//! Keys for a broker that speaks CURVE, and the files that `laneway keygen` writes them to.
//!
//! A peer has a key pair of its own and knows the broker's public key; the broker knows the public keys of its peers. Files
//! are lines of `name = "value"` (TOML) with keys in Z85, the text form of ZeroMQ's RFC 32, so that every language reads them.

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::str::FromStr;

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::error::Error;

/// A key as a text.
const Z85_CHARS: usize = 40;
/// A file of keys has a few lines; one that is longer is something else.
const FILE_BYTES_MAX: u64 = 4_096;

/// What a peer needs to speak with a broker's CURVE endpoint: its own key pair, and the broker's public key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Curve {
    pair: KeyPair,
    broker: PublicKey,
}

impl Curve {
    /// From keys that the caller has read.
    pub fn new(pair: KeyPair, broker: PublicKey) -> Self {
        Self { pair, broker }
    }

    /// Reads this peer's secret file and the broker's public file, both written by `laneway keygen`.
    ///
    /// Fails with [`Error::BadKey`] when a file cannot be read or holds no such key, and when users other than its owner
    /// may read the secret one.
    pub fn from_files(secret: impl AsRef<Path>, broker: impl AsRef<Path>) -> Result<Self, Error> {
        Ok(Self::new(KeyPair::read(secret)?, PublicKey::read(broker)?))
    }

    pub(crate) fn apply(&self, socket: &zmq::Socket) -> Result<(), zmq::Error> {
        socket.set_curve_serverkey(&self.broker.0)?;
        socket.set_curve_publickey(&self.pair.public.0)?;
        socket.set_curve_secretkey(&self.pair.secret)
    }
}

/// The half of a key pair that others may know. Its text form is Z85, 40 characters.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// From its 32 bytes, as they travel in a handshake. `None` when they are not 32.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// Reads a public file.
    ///
    /// Fails with [`Error::BadKey`] when it cannot be read or holds no public key.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let file: PublicFile = parse(path, &read_text(path, false)?)?;
        if file.secret_key.is_some() {
            return Err(bad(path, "holds a secret key; the other side needs the .public file".into()));
        }
        file.public_key.parse().map_err(|text: String| bad(path, format!("public_key {text}")))
    }
}

impl FromStr for PublicKey {
    type Err = String;

    /// Fails with a text that follows the name of what was read.
    fn from_str(text: &str) -> Result<Self, String> {
        z85(text).map(Self)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&text_of(&self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A public key with its secret half, which is never printed unless it is asked for.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyPair {
    public: PublicKey,
    secret: [u8; 32],
}

impl KeyPair {
    /// A new one, from the system's random bytes.
    pub fn generate() -> Result<Self, Error> {
        let pair = zmq::CurveKeyPair::new().map_err(|error| Error::System(format!("no keys: {error}")))?;
        Ok(Self { public: PublicKey(pair.public_key), secret: pair.secret_key })
    }

    /// Reads a secret file.
    ///
    /// Fails with [`Error::BadKey`] when it cannot be read, when it holds no key pair, and when users other than its owner
    /// may read it.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let file: SecretFile = parse(path, &read_text(path, true)?)?;
        let public = z85(&file.public_key).map_err(|text| bad(path, format!("public_key {text}")))?;
        // Not with the value: it is the secret.
        let secret = z85(&file.secret_key).map_err(|_| bad(path, "secret_key is no key of 40 characters".into()))?;
        Ok(Self { public: PublicKey(public), secret })
    }

    /// The half for others.
    pub fn public(&self) -> PublicKey {
        self.public
    }

    /// The secret half in Z85, to be written where only its owner reads.
    pub fn secret_text(&self) -> String {
        text_of(&self.secret)
    }

    /// Makes a socket speak as the server that has this pair; for what is bound afterwards.
    #[doc(hidden)]
    pub fn apply_as_server(&self, socket: &zmq::Socket) -> Result<(), zmq::Error> {
        socket.set_curve_secretkey(&self.secret)
    }
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyPair").field("public", &self.public).finish_non_exhaustive()
    }
}

/// Other fields are the broker's: which roles the key has.
#[derive(Deserialize)]
struct PublicFile {
    public_key: String,
    secret_key: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct SecretFile {
    public_key: String,
    secret_key: String,
}

/// A file of keys as a text, and never a wait for one: a pipe at its place is refused.
#[doc(hidden)]
pub fn read_text(path: &Path, private: bool) -> Result<String, Error> {
    let fail = |error: std::io::Error| bad(path, format!("cannot be read: {error}"));
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(fail)?;
    let metadata = file.metadata().map_err(fail)?;
    let mode = metadata.permissions().mode();
    if !metadata.is_file() {
        return Err(bad(path, "is no regular file".into()));
    }
    if !private && mode & 0o002 != 0 {
        let text =
            format!("may be written by anybody (mode {:03o}): chmod o-w it, and look at what is in it", mode & 0o777);
        return Err(bad(path, text));
    }
    if private && mode & 0o077 != 0 {
        let text = format!(
            "is open to other users (mode {:03o}): chmod 600 it, and make new keys if others read it",
            mode & 0o777
        );
        return Err(bad(path, text));
    }
    let mut text = String::new();
    file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(fail)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(bad(path, format!("is over {FILE_BYTES_MAX} bytes, so it is no file of keys")));
    }
    Ok(text)
}

fn parse<T: for<'de> Deserialize<'de>>(path: &Path, text: &str) -> Result<T, Error> {
    // `message` leaves out the lines of the file, one of which may be the secret.
    toml::from_str(text).map_err(|error: toml::de::Error| bad(path, format!("is no file of keys: {}", error.message())))
}

fn bad(path: &Path, text: String) -> Error {
    Error::BadKey { path: path.into(), text }
}

/// 32 bytes from their text, or what is wrong with it.
fn z85(text: &str) -> Result<[u8; 32], String> {
    let is_key = |key: &[u8; 32]| text_of(key) == text;
    // libzmq decodes what is no Z85 to anything; what it encodes again tells.
    let decoded = if text.len() == Z85_CHARS && text.is_ascii() { zmq::z85_decode(text).ok() } else { None };
    let key = decoded.and_then(|bytes| <[u8; 32]>::try_from(bytes).ok()).filter(is_key);
    // Not with the value: who mixes keys up may have written the secret here.
    key.ok_or_else(|| {
        let n = text.chars().count();
        format!("is no key: it must be {Z85_CHARS} characters of Z85, as `laneway keygen` writes it, and has {n}")
    })
}

fn text_of(key: &[u8; 32]) -> String {
    zmq::z85_encode(key).expect("32 bytes have a text in Z85")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_the_same_after_its_text() {
        // Proves the round trip, and that a slip of one character is seen where it makes no Z85.
        let pair = KeyPair::generate().unwrap();
        let text = pair.public().to_string();
        assert_eq!(text.parse(), Ok(pair.public()));
        for wrong in
            ["", "short", &text[..35], &format!("{text}12345"), &text.replace(&text[..1], "~"), &"ä".repeat(20)]
        {
            assert!(wrong.parse::<PublicKey>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_secret_file_is_refused_in_words_that_do_not_tell_it() {
        // Proves that a key which others may read, or which is none, is named by its path and never by its value.
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("w.secret");
        let pair = KeyPair::generate().unwrap();
        let (public, secret) = (pair.public(), pair.secret_text());
        std::fs::write(&path, format!("public_key = \"{public}\"\nsecret_key = \"{secret}\"\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let open = KeyPair::read(&path).unwrap_err().to_string();
        assert!(open.contains("w.secret") && open.contains("mode 640") && open.contains("chmod 600"), "{open}");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(KeyPair::read(&path).unwrap(), pair);
        let mixed_up = PublicKey::read(&path).unwrap_err().to_string();
        assert!(mixed_up.contains(".public file"), "{mixed_up}");
        let pipe = dir.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        assert!(PublicKey::read(&pipe).unwrap_err().to_string().contains("no regular file"));
        for broken in
            [format!("secret_key = \"{secret}"), format!("public_key = \"{public}\"\nsecret_key = \"{secret}~\"")]
        {
            std::fs::write(&path, broken).unwrap();
            let error = KeyPair::read(&path).unwrap_err().to_string();
            assert!(error.contains("w.secret") && !error.contains(&secret[..8]), "{error}");
        }
        assert!(!format!("{pair:?}").contains(&secret[..8]));
    }
}
