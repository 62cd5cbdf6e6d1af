//! SIGTERM and SIGINT as something the control loop can look at. Catches them while a worker runs, and gives them back
//! their usual meaning afterwards.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use signal_hook::SigId;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag::{register, register_conditional_default};
use signal_hook::low_level::unregister;

use crate::error::Error;
use crate::lock;

/// While it lives, the signals do not end the process but are kept here.
pub(crate) struct Signals {
    caught: Arc<AtomicBool>,
    ids: Vec<SigId>,
}

/// How many workers catch signals, and the flag that makes the signals end the process when none does. The library that
/// owns the handlers cannot take them off again, so this is set up once.
struct Usual {
    n_catching: Mutex<usize>,
    restored: Arc<AtomicBool>,
}

impl Signals {
    pub(crate) fn catch() -> Result<Self, Error> {
        let usual = usual()?;
        {
            let mut n_catching = lock(&usual.n_catching);
            *n_catching += 1;
            usual.restored.store(false, Ordering::SeqCst);
        }
        // From here on dropping it undoes what was done.
        let mut signals = Self { caught: Arc::default(), ids: Vec::new() };
        for signal in [SIGTERM, SIGINT] {
            signals.ids.push(register(signal, signals.caught.clone()).map_err(not_caught)?);
        }
        Ok(signals)
    }

    /// Whether one came since the last `take`.
    pub(crate) fn waiting(&self) -> bool {
        self.caught.load(Ordering::SeqCst)
    }

    pub(crate) fn take(&mut self) -> bool {
        self.caught.swap(false, Ordering::SeqCst)
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        for id in self.ids.drain(..) {
            unregister(id);
        }
        if let Ok(usual) = usual() {
            let mut n_catching = lock(&usual.n_catching);
            *n_catching = n_catching.saturating_sub(1);
            usual.restored.store(*n_catching == 0, Ordering::SeqCst);
        }
    }
}

fn usual() -> Result<&'static Usual, Error> {
    static USUAL: OnceLock<Result<Usual, Error>> = OnceLock::new();
    let set_up = || {
        let restored = Arc::new(AtomicBool::new(false));
        for signal in [SIGTERM, SIGINT] {
            register_conditional_default(signal, restored.clone()).map_err(not_caught)?;
        }
        Ok(Usual { n_catching: Mutex::new(0), restored })
    };
    USUAL.get_or_init(set_up).as_ref().map_err(Clone::clone)
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn not_caught(error: std::io::Error) -> Error {
    Error::System(format!("SIGTERM and SIGINT cannot be caught: {error}"))
}
