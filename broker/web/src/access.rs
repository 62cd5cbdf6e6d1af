//! Who is let in and what each may do: a file of names, roles and secrets, asked by bearer token or basic auth.
//!
//! A secret is the token of `Authorization: Bearer` and the password of basic auth alike. Only its hash is kept, and hashes
//! are compared, so that the time of an answer tells nothing of a secret.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

use crate::error::Error;
use crate::reread::{Readable, Reread};

/// Shorter ones can be guessed over the network.
pub(crate) const SECRET_CHARS_MIN: usize = 16;
/// Each request compares with all.
pub(crate) const VISITORS_MAX: usize = 256;

/// What somebody may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    /// Look, but for payloads and results.
    Read,
    /// Look and change.
    Admin,
}

/// Somebody who is let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Visitor {
    pub(crate) name: String,
    pub(crate) role: Role,
}

#[derive(Debug)]
struct Known {
    visitor: Visitor,
    /// SHA-256 of the secret.
    hash: [u8; 32],
}

/// Who is let in: those of the file, or everybody where there is none.
#[derive(Debug)]
pub(crate) struct Access(Reread<Visitors>);

impl Access {
    pub(crate) fn read(path: Option<PathBuf>) -> Result<Self, Error> {
        Reread::read(path).map(Self)
    }

    pub(crate) fn reload(&self) {
        self.0.reload();
    }

    /// Another number after each reading: whoever was let in before must be asked anew.
    pub(crate) fn readings(&self) -> u64 {
        self.0.readings()
    }

    /// Whether nobody is asked who they are.
    pub(crate) fn is_open(&self) -> bool {
        self.0.last().is_none()
    }

    /// Who sends this `Authorization`; `None` when nobody who is let in does.
    pub(crate) fn visitor(&self, authorization: Option<&str>) -> Option<Visitor> {
        match self.0.last() {
            Some(visitors) => visitors.find(authorization?),
            None => Some(Visitor { name: "local".into(), role: Role::Admin }),
        }
    }
}

/// Everybody whom the file lets in.
#[derive(Debug)]
struct Visitors(Vec<Known>);

impl Readable for Visitors {
    const WHAT: &'static str = "visitors of the access file";

    /// One line for each: `ROLE NAME SECRET`, the secret as it is or as `sha256:` and 64 hex digits. `#` begins a comment.
    fn read(path: &Path) -> Result<Self, Error> {
        use std::os::unix::fs::PermissionsExt as _;
        let refuse = |text: String| Error::AccessFile { path: path.into(), text };
        let mode = std::fs::metadata(path).map_err(|error| refuse(error.to_string()))?.permissions().mode();
        if mode & 0o007 != 0 {
            return Err(refuse(format!(
                "other users of this machine may read it (mode {:o}): chmod 600",
                mode & 0o777
            )));
        }
        let text = std::fs::read_to_string(path).map_err(|error| refuse(error.to_string()))?;
        Self::parse(&text).map_err(refuse)
    }

    fn count(&self) -> usize {
        self.0.len()
    }
}

impl Visitors {
    fn parse(text: &str) -> Result<Self, String> {
        let (mut known, mut wrong): (Vec<Known>, Vec<String>) = (Vec::new(), Vec::new());
        for (n, line) in text.lines().enumerate() {
            let words: Vec<&str> = line.split_whitespace().collect();
            if words.first().is_none_or(|word| word.starts_with('#')) {
                continue;
            }
            match entry(&words) {
                Err(why) => wrong.push(format!("line {}: {why}", n + 1)),
                Ok(one) if known.iter().any(|other| other.visitor.name == one.visitor.name) => {
                    wrong.push(format!("line {}: {} stands there already", n + 1, one.visitor.name));
                }
                Ok(one) => known.push(one),
            }
        }
        if !wrong.is_empty() {
            return Err(wrong.join("; "));
        }
        if known.is_empty() || known.len() > VISITORS_MAX {
            return Err(format!("must let in 1 to {VISITORS_MAX}, has {}", known.len()));
        }
        Ok(Self(known))
    }

    fn find(&self, authorization: &str) -> Option<Visitor> {
        let (scheme, rest) = authorization.split_once(' ')?;
        let (name, secret) = match scheme.to_ascii_lowercase().as_str() {
            "bearer" => (None, rest.trim().to_owned()),
            "basic" => {
                let decoded = String::from_utf8(STANDARD.decode(rest.trim()).ok()?).ok()?;
                let (name, secret) = decoded.split_once(':')?;
                (Some(name.to_owned()), secret.to_owned())
            }
            _ => return None,
        };
        let hash = hash(&secret);
        let mut found = None;
        for one in &self.0 {
            let is_same = one.hash.iter().zip(&hash).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0;
            if is_same && name.as_ref().is_none_or(|name| *name == one.visitor.name) {
                found = Some(&one.visitor);
            }
        }
        found.cloned()
    }
}

fn entry(words: &[&str]) -> Result<Known, String> {
    let [role, name, secret] = words else {
        return Err("must be ROLE NAME SECRET, as in `read grafana 8c1f6f0a2b3d4e5f`".into());
    };
    let role = match *role {
        "read" => Role::Read,
        "admin" => Role::Admin,
        other => return Err(format!("role '{other}' must be read or admin")),
    };
    let hash = match secret.strip_prefix("sha256:") {
        Some(digits) => unhex(digits).ok_or("sha256: must be followed by 64 hex digits")?,
        None if secret.chars().count() < SECRET_CHARS_MIN => {
            return Err(format!("the secret of {name} is shorter than {SECRET_CHARS_MIN} characters"));
        }
        None => hash(secret),
    };
    Ok(Known { visitor: Visitor { name: (*name).into(), role }, hash })
}

fn hash(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

fn unhex(digits: &str) -> Option<[u8; 32]> {
    if digits.len() != 64 || !digits.is_ascii() {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "# who\nadmin ann correct-horse-battery\n\nread grafana sha256:\
                        a4e1dd0e0d2a2e5ac5b4a5e3f0f8ddf0bd5f1a2f4cf0a1bd4f4bb9a8f7bb7bd5\n";

    #[test]
    fn a_secret_is_a_token_and_a_password() {
        // Proves both ways in, that a name must go with its own secret, and that nothing else is let in.
        let visitors = Visitors::parse(FILE).unwrap();
        let basic = |text: &str| format!("Basic {}", STANDARD.encode(text));
        let ann = Some(Visitor { name: "ann".into(), role: Role::Admin });
        assert_eq!(visitors.find("Bearer correct-horse-battery"), ann);
        assert_eq!(visitors.find(&basic("ann:correct-horse-battery")), ann);
        for wrong in ["", "Bearer", "Bearer correct-horse-batterz", "Digest x", "Basic !!!"] {
            assert_eq!(visitors.find(wrong), None, "{wrong}");
        }
        assert_eq!(visitors.find(&basic("grafana:correct-horse-battery")), None);
    }

    #[test]
    fn a_wrong_file_is_told_by_its_line_and_never_by_its_secret() {
        // Proves that a start fails with what to mend, and that no secret reaches a log.
        for (text, says) in [
            ("", "must let in 1 to"),
            ("admin ann short", "line 1: the secret of ann is shorter than 16"),
            ("boss ann correct-horse-battery", "role 'boss'"),
            ("read a sha256:12", "64 hex digits"),
            ("read a\n", "ROLE NAME SECRET"),
            ("read a correct-horse-battery\nread a correct-horse-batterz", "line 2: a stands there already"),
        ] {
            let error = Visitors::parse(text).unwrap_err();
            assert!(error.contains(says) && !error.contains("horse"), "{text}: {error}");
        }
        // All of them at once.
        let error = Visitors::parse("boss ann correct-horse-battery\nread b short\nread c\n").unwrap_err();
        assert!(["line 1: ", "; line 2: ", "; line 3: "].iter().all(|line| error.contains(line)), "{error}");
    }

    #[test]
    fn without_a_file_everybody_may_do_everything() {
        // Proves the default on loopback.
        assert_eq!(Access::read(None).unwrap().visitor(None).map(|visitor| visitor.role), Some(Role::Admin));
    }
}
