//! Who may do what, where peers come with keys. At a handshake libzmq asks the ZAP thread ([`zap`]) whether the key is on the
//! list ([`keys`]); at every message the router asks [`Guard`] whether the key's roles allow it ([`role`]).
//!
//! A peer of a plain endpoint is on this machine, unless the settings say in plain words that it need not be, and may do
//! everything. `docs/security.md` is the threat model.

mod keys;
mod role;
mod zap;

use std::path::PathBuf;
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
        let (to_router, news) = bounded(1);
        let zap = Zap::start(context, Arc::clone(&keys))?;
        let guard = Guard { keys, news, told: Seldom::default() };
        Ok(Some((Self { folder, zap, to_router }, guard, pair)))
    }

    /// Reads the folder again. What is wrong there is logged, and the list stays as it was: one bad file must not turn
    /// everybody away.
    pub(crate) fn reload(&self) {
        match KeyList::read(&self.folder) {
            Ok(keys) => {
                tracing::info!(target: "laneway::access", keys = keys.len(), "the keys are read again");
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

    /// Call it once the ROUTER is closed.
    pub(crate) fn stop(self) {
        self.zap.stop();
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
    let keys = KeyList::read(folder).map_err(Error::Keys)?;
    Ok(Some((pair, keys, folder.clone())))
}

/// The half that the router holds: asked about every message.
pub(crate) struct Guard {
    keys: Arc<KeyList>,
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
        match user_id {
            Some(zap::PLAIN) => Peer::Plain,
            Some(key) => self.keys.find(key).map_or(Peer::Unknown, |listed| Peer::Known(Arc::clone(listed))),
            None => Peer::Unknown,
        }
    }

    /// Whether the key is on the list now.
    pub(crate) fn knows(&self, listed: &Listed) -> bool {
        self.keys.find(&listed.key).is_some()
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
