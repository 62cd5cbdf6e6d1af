//! Who may do what, where peers come with keys. At a handshake libzmq asks the ZAP thread ([`zap`]) whether the key is on the
//! list ([`keys`]); at every message the router asks [`Guard`] whether the key's roles allow it ([`role`]).
//!
//! A peer of a plain endpoint is on this machine, unless the settings say in plain words that it need not be, and may do
//! everything. `docs/security.md` is the threat model.

mod keys;
mod role;
mod zap;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, bounded};
use laneway::curve::KeyPair;
use laneway_protocol::{Code, Request, WireError};

use crate::config::Curve;
use crate::error::Error;
use crate::telemetry::Seldom;
use zap::Zap;

pub(crate) use keys::{KeyList, Listed};
pub(crate) use role::{Role, words};

/// Lines in the log for one reading of the folder.
const WRONG_FILES_TOLD_MAX: usize = 10;

/// The half that `run` holds: reads the list of keys, and hands it to those who ask it.
pub(crate) struct Access {
    folder: PathBuf,
    zap: Zap,
    to_router: Sender<Arc<KeyList>>,
}

impl Access {
    /// Reads keys and starts the ZAP thread; call it before the ROUTER is bound, for libzmq lets every key in while nobody
    /// answers. Gives `None` where no endpoint takes keys.
    ///
    /// Fails when a file of keys is not right: a broker that starts with half of them would turn peers away.
    pub(crate) fn start(context: &zmq::Context, curve: &Curve) -> Result<Option<(Self, Guard, KeyPair)>, Error> {
        let Some((pair, keys, folder)) = read(curve)? else { return Ok(None) };
        let keys = Arc::new(keys);
        tracing::info!(target: "laneway::access", keys = keys.len(), public_key = %pair.public(), "peers with keys are let in");
        warn_of_secrets(&keys, &folder);
        let (to_router, news) = bounded(1);
        let mut mark = [0; 16];
        getrandom::fill(&mut mark).map_err(|error| Error::other("get random bytes", error))?;
        let mark = format!("{:032x}:", u128::from_ne_bytes(mark));
        let zap = Zap::start(context, Arc::clone(&keys), mark.clone())?;
        let guard = Guard { keys, mark, news, told: Seldom::default() };
        Ok(Some((Self { folder, zap, to_router }, guard, pair)))
    }

    /// Reads the folder again. A file that is not right lets nobody in and keeps nobody else out; the log names it. Only when
    /// the folder itself cannot be read the list stays as it was.
    pub(crate) fn reload(&self) {
        match KeyList::read(&self.folder) {
            Ok((keys, wrong)) => {
                for reason in wrong.iter().take(WRONG_FILES_TOLD_MAX) {
                    tracing::error!(target: "laneway::access", %reason, "a key is not let in");
                }
                tracing::info!(target: "laneway::access", keys = keys.len(), wrong = wrong.len(), "the keys are read again");
                warn_of_secrets(&keys, &self.folder);
                let keys = Arc::new(keys);
                // The handshakes first: a key that is off the list must not come back when its connections are shut. Both fail
                // only when their thread has ended, and the broker with it.
                self.zap.replace(Arc::clone(&keys));
                self.to_router.send(keys).ok();
            }
            Err(reason) => {
                tracing::error!(target: "laneway::access", %reason, "the keys stay as they were before");
            }
        }
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.zap.has_ended()
    }

    /// Call it once the ROUTER is closed. Fails when the thread had ended before.
    pub(crate) fn stop(self) -> Result<(), Error> {
        let ended = self.has_ended();
        self.zap.stop();
        if ended { Err(Error::other("go on", "the access thread has ended")) } else { Ok(()) }
    }
}

fn warn_of_secrets(keys: &KeyList, folder: &Path) {
    if keys.holds_secrets() {
        let folder = folder.display();
        tracing::warn!(target: "laneway::access", %folder, "secret files lie in the folder of keys: they belong to the peers");
    }
}

/// Whether a broker with these settings would find its keys.
pub(crate) fn check(curve: &Curve) -> Result<(), Error> {
    read(curve).map(drop)
}

/// The broker's own pair, the list, and where that lies; `None` where no endpoint takes keys.
fn read(curve: &Curve) -> Result<Option<(KeyPair, KeyList, PathBuf)>, Error> {
    let (Some(key_file), Some(folder)) = (&curve.key_file, &curve.keys_folder) else { return Ok(None) };
    let pair = KeyPair::read(key_file).map_err(|error| Error::Keys(format!("curve.key_file {error}")))?;
    let (keys, wrong) = KeyList::read(folder).map_err(Error::Keys)?;
    match wrong.into_iter().next() {
        Some(reason) => Err(Error::Keys(reason)),
        None => Ok(Some((pair, keys, folder.clone()))),
    }
}

/// The half that the router holds: asked about every message.
pub(crate) struct Guard {
    keys: Arc<KeyList>,
    /// With what the ZAP thread begins a user id: nobody else knows it.
    mark: String,
    news: Receiver<Arc<KeyList>>,
    told: Seldom,
}

/// Who a message comes from, as libzmq vouches for it.
#[derive(Debug, Clone)]
pub(crate) enum Peer {
    /// Of a plain endpoint.
    Plain,
    Known(Arc<Listed>),
    /// Of a key that was taken off the list, or of nobody that the ZAP thread was asked about.
    Unknown,
}

impl Guard {
    /// Takes a list that was read again. True when there was one.
    pub(crate) fn take_news(&mut self) -> bool {
        let last = self.news.try_iter().last();
        last.map(|keys| self.keys = keys).is_some()
    }

    pub(crate) fn peer(&self, user_id: Option<&str>) -> Peer {
        match user_id.and_then(|id| id.strip_prefix(self.mark.as_str())) {
            Some(zap::PLAIN) => Peer::Plain,
            Some(key) => self.keys.find(key).map_or(Peer::Unknown, |listed| Peer::Known(Arc::clone(listed))),
            None => Peer::Unknown,
        }
    }

    /// The key as it is on the list now; `None` when it is off it, or may do less than before.
    pub(crate) fn still(&self, before: &Listed) -> Option<Arc<Listed>> {
        let now = self.keys.find(&before.key)?;
        let may_still = |role| now.roles.contains(role) || now.roles.contains(&Role::Admin);
        before.roles.iter().all(may_still).then(|| Arc::clone(now))
    }

    /// Whether the peer may ask this; else what it is answered.
    pub(crate) fn check(&mut self, peer: &Peer, request: &Request) -> Result<(), WireError> {
        let denied = role::check(peer, request);
        if let Err(text) = &denied
            && let Some(left_out) = self.told.now()
        {
            tracing::warn!(target: "laneway::access", reason = %text, left_out, "denied");
        }
        denied.map_err(|text| WireError::new(Code::Denied, text))
    }
}
