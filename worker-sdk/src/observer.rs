//! Links by which anybody may watch one task or one group, and nothing else: signed, for a time, and read-only. Apps and
//! `laneway link` make them without asking a broker; the dashboard opens them.
//!
//! The token of a link is `v1.CLAIMS.MAC`. CLAIMS is a JSON object in base64url without padding: `task` or `group`, `exp`
//! (Unix seconds, as in RFC 7519), and `error` where error texts are shown. MAC is HMAC-SHA256 (RFC 2104) of the bytes
//! `v1.CLAIMS` under a key of [`LinkKeys`], in base64url. The claims are signed, not hidden: whoever has a link can read them.

mod keys;

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use laneway_protocol::TaskId;
use serde::{Deserialize, Serialize};

pub use self::keys::LinkKeys;
use crate::error::Error;

const VERSION: &str = "v1";
/// With the largest claims it has 150 characters; what is longer is none of ours.
const TOKEN_CHARS_MAX: usize = 512;
/// A clock that made a link may be ahead of the one that opens it.
const CLOCK_SLACK: Duration = Duration::from_hours(24);
/// Whatever is wrong with them: a text of the parser would name types of this program.
const CLAIMS_WANTED: &str = "its claims must be a JSON object of task or group, exp, and error if need be: whole numbers from 1, and true or false";
const LIFETIME_MIN: Duration = Duration::from_secs(1);

/// What a link shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Observed {
    /// One task.
    Task(TaskId),
    /// All tasks of one group, as numbers; 1 to 2^53 - 1.
    Group(u64),
}

impl From<TaskId> for Observed {
    fn from(task: TaskId) -> Self {
        Self::Task(task)
    }
}

impl fmt::Display for Observed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Task(task) => write!(f, "task {task}"),
            Self::Group(group) => write!(f, "group {group}"),
        }
    }
}

/// A link to be, or one that was opened.
///
/// ```no_run
/// use std::time::Duration;
/// use laneway::{Client, LinkKeys, ObserverLink, Task};
///
/// # fn main() -> Result<(), laneway::Error> {
/// let client = Client::connect("tcp://127.0.0.1:7733")?;
/// let keys = LinkKeys::read("link.keys")?;
/// let stored = client.submit(Task::new("report"))?;
/// let link = ObserverLink::new(stored.task, Duration::from_hours(24))?;
/// println!("<laneway-task src=\"{}\"></laneway-task>", link.url("https://broker.example", &keys)?);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObserverLink {
    observed: Observed,
    expires_at_s: u64,
    shows_error: bool,
}

impl ObserverLink {
    /// The longest that a link may be good for: 365 days.
    pub const LIFETIME_MAX: Duration = Duration::from_hours(365 * 24);

    /// A link that is good for `lifetime` from now, by this machine's clock, in whole seconds: 1 s to 365 days.
    ///
    /// Fails with [`Error::BadSetting`] when `lifetime` or the number of a group is out of its bounds. Whether the task is
    /// there nobody asks.
    pub fn new(observed: impl Into<Observed>, lifetime: Duration) -> Result<Self, Error> {
        Self::new_at(observed.into(), lifetime, now_s())
    }

    fn new_at(observed: Observed, lifetime: Duration, now_s: u64) -> Result<Self, Error> {
        if !(LIFETIME_MIN..=Self::LIFETIME_MAX).contains(&lifetime) {
            let text = format!("{lifetime:?} must be 1 s to {} days", Self::LIFETIME_MAX.as_secs() / 86_400);
            return Err(Error::setting("lifetime", text));
        }
        if let Observed::Group(group) = observed
            && !is_group(group)
        {
            return Err(Error::setting("group", format!("{group} must be 1 to {}", TaskId::MAX)));
        }
        Ok(Self { observed, expires_at_s: now_s + lifetime.as_secs(), shows_error: false })
    }

    /// Shows the error of a task that is dead or cancelled as well. Such a text may tell of paths, hosts and users.
    #[must_use]
    pub fn with_error(self) -> Self {
        Self { shows_error: true, ..self }
    }

    /// What it shows.
    pub fn observed(&self) -> Observed {
        self.observed
    }

    /// The Unix second from which on it is no good any more.
    pub fn expires_at_s(&self) -> u64 {
        self.expires_at_s
    }

    /// Whether it shows error texts.
    pub fn shows_error(&self) -> bool {
        self.shows_error
    }

    /// The signed text, which is the whole right to look. Letters, digits, `-`, `_` and two dots: it needs no escaping.
    pub fn token(&self, keys: &LinkKeys) -> String {
        let signed = format!("{VERSION}.{}", URL_SAFE_NO_PAD.encode(self.claims()));
        let mac = URL_SAFE_NO_PAD.encode(keys.sign(signed.as_bytes()));
        format!("{signed}.{mac}")
    }

    /// The link itself: the address `base` of a dashboard as its visitors know it, with the path of a reverse proxy if there
    /// is one, and the token behind it.
    ///
    /// Fails with [`Error::BadSetting`] when `base` is no such address.
    pub fn url(&self, base: &str, keys: &LinkKeys) -> Result<String, Error> {
        let rest = base.strip_prefix("https://").or_else(|| base.strip_prefix("http://")).unwrap_or_default();
        let is_plain = rest.chars().all(|c| c.is_ascii_graphic() && !"?#\"'<>\\".contains(c));
        if rest.is_empty() || rest.starts_with('/') || !is_plain {
            let text = format!("'{base}' must be http:// or https://, a host, and no more than a path behind it");
            return Err(Error::setting("base", text));
        }
        Ok(format!("{}/observe/{}", base.trim_end_matches('/'), self.token(keys)))
    }

    fn claims(&self) -> Vec<u8> {
        let (task, group) = match self.observed {
            Observed::Task(task) => (Some(task), None),
            Observed::Group(group) => (None, Some(group)),
        };
        let claims = Claims { task, group, exp: self.expires_at_s, error: self.shows_error };
        serde_json::to_vec(&claims).expect("numbers and a truth have a JSON text")
    }
}

/// Why a token opens nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum LinkRefused {
    /// None of the keys has signed it, or it was changed.
    NotSigned,
    /// It was good until this Unix second.
    Expired {
        /// Unix seconds.
        at_s: u64,
    },
    /// A key has signed it, and it says nothing that this version takes.
    NotUnderstood(String),
}

impl fmt::Display for LinkRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotSigned => f.write_str("the link is not signed by a key of this broker, or was changed on its way"),
            Self::Expired { .. } => f.write_str("the link has expired"),
            Self::NotUnderstood(why) => write!(f, "the link is signed and makes no sense: {why}"),
        }
    }
}

impl std::error::Error for LinkRefused {}

impl LinkKeys {
    /// Opens a token: any of the keys may have signed it, and this machine's clock tells whether it is still good.
    pub fn open(&self, token: &str) -> Result<ObserverLink, LinkRefused> {
        self.open_at(token, now_s())
    }

    fn open_at(&self, token: &str, now_s: u64) -> Result<ObserverLink, LinkRefused> {
        // Before anything in it is believed, and even looked at.
        let (signed, mac) = token.rsplit_once('.').ok_or(LinkRefused::NotSigned)?;
        let mac = URL_SAFE_NO_PAD.decode(mac).map_err(|_| LinkRefused::NotSigned)?;
        if token.len() > TOKEN_CHARS_MAX || !self.has_signed(signed.as_bytes(), &mac) {
            return Err(LinkRefused::NotSigned);
        }
        let not_understood = |why: &str| LinkRefused::NotUnderstood(why.into());
        let claims = signed.strip_prefix(VERSION).and_then(|rest| rest.strip_prefix('.'));
        let claims = claims.ok_or_else(|| not_understood("it does not begin with v1."))?;
        let json = URL_SAFE_NO_PAD.decode(claims).map_err(|_| not_understood("its claims are no base64url"))?;
        let claims: Claims = serde_json::from_slice(&json).map_err(|_| not_understood(CLAIMS_WANTED))?;
        let observed = match (claims.task, claims.group) {
            (Some(task), None) => Observed::Task(task),
            (None, Some(group)) if is_group(group) => Observed::Group(group),
            _ => return Err(not_understood("it must name a task or a group, 1 to 2^53 - 1")),
        };
        if claims.exp <= now_s {
            return Err(LinkRefused::Expired { at_s: claims.exp });
        }
        // Milliseconds in the place of seconds would be good for thousands of years.
        if claims.exp - now_s > (ObserverLink::LIFETIME_MAX + CLOCK_SLACK).as_secs() {
            return Err(not_understood("its exp is over a year ahead; it must be in Unix seconds"));
        }
        Ok(ObserverLink { observed, expires_at_s: claims.exp, shows_error: claims.error })
    }
}

/// What is signed. A claim that is not known may restrict the link, so it is refused.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Claims {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    task: Option<TaskId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    group: Option<u64>,
    exp: u64,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    error: bool,
}

fn is_group(number: u64) -> bool {
    (1..=TaskId::MAX).contains(&number)
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "correct-horse-battery-staple-0123456789";
    const OTHER: &str = "another-horse-battery-staple-0123456789";
    /// From Python's `hmac` and `base64`, with the key above.
    const TASK_12: &str = "v1.eyJ0YXNrIjoxMiwiZXhwIjoxOTAwMDAwMDAwfQ.VFS8CFObSBvKUWMvMDgBq10enavH7UaaafD3k2PgoMk";
    const GROUP_7: &str =
        "v1.eyJncm91cCI6NywiZXhwIjoxOTAwMDAwMDAwLCJlcnJvciI6dHJ1ZX0.vONGGWH-f7RgERf0Cuglg88Ip5o8LbRXm507eCvNLlw";
    const EXP: u64 = 1_900_000_000;
    const DAY: Duration = Duration::from_hours(24);

    fn keys(text: &str) -> LinkKeys {
        LinkKeys::parse(text).unwrap()
    }

    fn task(id: u64) -> Observed {
        Observed::Task(TaskId::new(id).unwrap())
    }

    /// A token that is signed well, whatever it says.
    fn signed(version: &str, claims: &str) -> String {
        let signed = format!("{version}.{}", URL_SAFE_NO_PAD.encode(claims));
        let mac = URL_SAFE_NO_PAD.encode(keys(KEY).sign(signed.as_bytes()));
        format!("{signed}.{mac}")
    }

    #[test]
    fn a_token_is_the_same_in_every_language() {
        // Proves the format against tokens of another implementation, in both directions.
        let made = |observed| ObserverLink::new_at(observed, DAY, EXP - DAY.as_secs()).unwrap();
        assert_eq!(made(task(12)).token(&keys(KEY)), TASK_12);
        assert_eq!(made(Observed::Group(7)).with_error().token(&keys(KEY)), GROUP_7);
        assert_eq!(keys(KEY).open_at(TASK_12, EXP - 1), Ok(made(task(12))));
        assert_eq!(keys(KEY).open_at(GROUP_7, EXP - 1), Ok(made(Observed::Group(7)).with_error()));
    }

    #[test]
    fn a_token_that_was_changed_opens_nothing() {
        // Proves that no character can be another, left out or added, and that the key decides.
        for (n, was) in TASK_12.char_indices() {
            for other in ['A', 'B', '.', '1'].into_iter().filter(|other| *other != was) {
                let changed = format!("{}{other}{}", &TASK_12[..n], &TASK_12[n + 1..]);
                assert_eq!(keys(KEY).open_at(&changed, EXP - 1), Err(LinkRefused::NotSigned), "{changed}");
            }
            assert_eq!(keys(KEY).open_at(&TASK_12[..n], EXP - 1), Err(LinkRefused::NotSigned));
        }
        let long = format!("{TASK_12}{}", "A".repeat(TOKEN_CHARS_MAX));
        for wrong in ["", ".", "..", "v1..", &format!("{TASK_12}="), &format!("{TASK_12}.x"), &long] {
            assert_eq!(keys(KEY).open_at(wrong, EXP - 1), Err(LinkRefused::NotSigned), "{wrong}");
        }
        assert_eq!(keys(OTHER).open_at(TASK_12, EXP - 1), Err(LinkRefused::NotSigned));
    }

    #[test]
    fn a_key_is_changed_without_breaking_links() {
        // Proves that the first key signs and that all of them open, until a line is taken away.
        let both = keys(&format!("{OTHER}\n{KEY}\n"));
        assert!(both.open_at(TASK_12, EXP - 1).is_ok());
        let link = ObserverLink::new_at(task(12), DAY, EXP - DAY.as_secs()).unwrap();
        assert_eq!(keys(OTHER).open_at(&link.token(&both), EXP - 1), Ok(link));
        assert_eq!(keys(KEY).open_at(&link.token(&both), EXP - 1), Err(LinkRefused::NotSigned));
    }

    #[test]
    fn a_link_ends_at_its_second() {
        // Proves both sides of the edge, and that the end is told only to those who have a signed link.
        assert!(keys(KEY).open_at(TASK_12, EXP - 1).is_ok());
        assert_eq!(keys(KEY).open_at(TASK_12, EXP), Err(LinkRefused::Expired { at_s: EXP }));
        assert_eq!(keys(OTHER).open_at(TASK_12, EXP), Err(LinkRefused::NotSigned));
    }

    #[test]
    fn what_is_signed_and_wrong_says_why() {
        // Proves that a slip in another language's program is told to who made it, and that a claim of the future is not passed over.
        let exp = format!("\"exp\":{EXP}");
        for (token, says) in [
            (signed("v2", &format!("{{\"task\":12,{exp}}}")), "v1."),
            (signed("v1", "no json"), CLAIMS_WANTED),
            (signed("v1", "[12]"), CLAIMS_WANTED),
            (signed("v1", "7"), CLAIMS_WANTED),
            (signed("v1", &format!("{{{exp}}}")), "a task or a group"),
            (signed("v1", &format!("{{\"task\":12,\"group\":7,{exp}}}")), "a task or a group"),
            (signed("v1", &format!("{{\"group\":0,{exp}}}")), "a task or a group"),
            (signed("v1", &format!("{{\"task\":0,{exp}}}")), CLAIMS_WANTED),
            (signed("v1", "{\"task\":12}"), CLAIMS_WANTED),
            (signed("v1", &format!("{{\"task\":12,{exp},\"host\":\"a\"}}")), CLAIMS_WANTED),
            (signed("v1", &format!("{{\"task\":12,\"exp\":{EXP}000}}")), "Unix seconds"),
        ] {
            let refused = keys(KEY).open_at(&token, EXP - 1).unwrap_err();
            assert!(matches!(refused, LinkRefused::NotUnderstood(_)), "{refused:?}");
            assert!(refused.to_string().contains(says), "{says}: {refused}");
        }
    }

    #[test]
    fn bounds_are_told_with_their_values() {
        // Proves the bounds of a lifetime, of a group and of an address, and that a path of a proxy is kept.
        let lasting = |lifetime| ObserverLink::new_at(task(12), lifetime, EXP);
        assert_eq!(lasting(Duration::from_secs(1)).unwrap().expires_at_s(), EXP + 1);
        assert!(lasting(ObserverLink::LIFETIME_MAX).is_ok());
        for wrong in [Duration::ZERO, Duration::from_millis(999), ObserverLink::LIFETIME_MAX + LIFETIME_MIN] {
            assert!(lasting(wrong).unwrap_err().to_string().contains("1 s to 365 days"), "{wrong:?}");
        }
        assert!(ObserverLink::new(Observed::Group(0), DAY).unwrap_err().to_string().contains("group: 0"));
        let link = ObserverLink::new(TaskId::new(12).unwrap(), DAY).unwrap();
        let token = link.token(&keys(KEY));
        for (base, at) in [
            ("https://a.example", "https://a.example/observe/"),
            ("http://127.0.0.1:9730/", "http://127.0.0.1:9730/observe/"),
            ("https://a.example/laneway/", "https://a.example/laneway/observe/"),
        ] {
            assert_eq!(link.url(base, &keys(KEY)).unwrap(), format!("{at}{token}"));
        }
        for base in ["", "a.example", "ftp://a.example", "https://", "https:///x", "https://a.example/?x", "http://a b"]
        {
            assert!(link.url(base, &keys(KEY)).unwrap_err().to_string().contains("http:// or https://"), "{base}");
        }
    }
}
