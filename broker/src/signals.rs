//! What each signal does to `laneway broker`, in one table. `run` takes them as values from a channel.
//!
//! | signal | first | again |
//! |---|---|---|
//! | SIGTERM, SIGINT | stop: hand nothing out, settle what arrives within `stop_timeout_ms`, exit 0 | second: stop now, exit 0; third: end at once, exit 1 |
//! | SIGQUIT | stop now, exit 0 | end at once, exit 1 |
//! | SIGHUP | open the log file anew, read the folder of keys again | the same |
//! | SIGPIPE, SIGXFSZ | ignored: a write says it | |
//!
//! A stop before the broker is ready ends it at once, exit 0. What runs in workers goes on in all cases, and is settled with the next broker.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::{Receiver, bounded};
use nix::sys::signal::SigSet;
use signal_hook::consts::{SIGHUP, SIGQUIT};
use signal_hook::iterator;

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    Stop,
    StopNow,
    Reload,
}

/// Signals of this process while it lives; dropped, it stops listening, and the signals stay without effect.
pub(crate) struct Signals {
    received: Receiver<Signal>,
    handle: iterator::Handle,
    is_served: Arc<AtomicBool>,
}

/// Signals that nobody has taken yet: one reload, a stop and one that is more urgent.
const WAITING_MAX: usize = 3;

const TAKEN: [nix::sys::signal::Signal; 4] =
    [nix::sys::signal::SIGTERM, nix::sys::signal::SIGINT, nix::sys::signal::SIGQUIT, nix::sys::signal::SIGHUP];

impl Signals {
    /// Takes over the signals of the table. Call it before the first other thread starts, so that none is missed, and none
    /// interrupts what another thread waits for: this one blocks them, and so do those that it starts.
    pub(crate) fn install() -> Result<Self, io::Error> {
        // A file at its size limit is a full disk: the write that fails is tried again, while the signal would end us.
        signal_hook::flag::register(libc::SIGXFSZ, Arc::default())?;
        let mut signals = iterator::Signals::new(TAKEN.map(|signal| signal as i32))?;
        let handle = signals.handle();
        let (sender, received) = bounded(WAITING_MAX);
        let is_served = Arc::new(AtomicBool::new(false));
        let served = Arc::clone(&is_served);
        SigSet::from_iter(TAKEN).thread_block()?;
        std::thread::Builder::new().name("signals".into()).spawn(move || {
            // Whoever started this process may have had them blocked too.
            SigSet::from_iter(TAKEN).thread_unblock().expect("a mask of signals that there are");
            let mut stops = 0;
            for number in signals.forever() {
                let signal = meaning(number, &mut stops).unwrap_or_else(|| std::process::exit(1));
                if signal != Signal::Reload && !served.load(Ordering::SeqCst) {
                    // Nothing was handed out or acknowledged yet; the next start takes what lies about for a crash's.
                    std::process::exit(0);
                }
                // One that waits to be taken says it for those behind it, or is a stop.
                if signal == Signal::Reload && !sender.is_empty() {
                    continue;
                }
                // Nobody there: the process ends already.
                sender.try_send(signal).ok();
            }
        })?;
        Ok(Self { received, handle, is_served })
    }

    /// To be selected on together with whatever else may end the broker. Before the first call a stop ends the process at once.
    pub(crate) fn receiver(&self) -> &Receiver<Signal> {
        self.is_served.store(true, Ordering::SeqCst);
        &self.received
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        self.handle.close();
    }
}

/// Sends this process a signal, whichever of its threads takes it.
pub(crate) fn raise(signal: nix::sys::signal::Signal) {
    nix::sys::signal::kill(nix::unistd::getpid(), signal).expect("a process may signal itself");
}

/// `None`: the process was asked often enough and ends at once.
fn meaning(number: i32, stops: &mut u32) -> Option<Signal> {
    if number == SIGHUP {
        return Some(Signal::Reload);
    }
    *stops = (*stops + 1).max(if number == SIGQUIT { 2 } else { 1 });
    match *stops {
        1 => Some(Signal::Stop),
        2 => Some(Signal::StopNow),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use signal_hook::consts::{SIGINT, SIGTERM};

    use super::*;

    #[test]
    fn each_stop_is_more_urgent() {
        // Proves the table: stop, stop now, end; and that a SIGHUP between changes nothing.
        let mut stops = 0;
        let table = [
            (SIGTERM, Some(Signal::Stop)),
            (SIGHUP, Some(Signal::Reload)),
            (SIGINT, Some(Signal::StopNow)),
            (SIGTERM, None),
        ];
        for (number, means) in table {
            assert_eq!(meaning(number, &mut stops), means);
        }
        for before in [0, 1] {
            let mut stops = before;
            assert_eq!(meaning(SIGQUIT, &mut stops), Some(Signal::StopNow));
            assert_eq!(meaning(SIGQUIT, &mut stops), None);
        }
    }

    #[test]
    fn a_signal_of_the_process_arrives_as_a_value() {
        // Proves that a real signal comes out of the channel.
        let signals = Signals::install().unwrap();
        raise(nix::sys::signal::SIGHUP);
        assert_eq!(signals.receiver().recv_timeout(Duration::from_secs(10)), Ok(Signal::Reload));
    }
}
