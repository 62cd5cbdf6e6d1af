//! What each signal does to `laneway broker`, in one table. `run` takes them as values, one after the other.
//!
//! | signal | first | again |
//! |---|---|---|
//! | SIGTERM, SIGINT | stop: hand nothing out, settle what arrives within `stop_timeout_ms`, exit 0 | second: stop now, exit 0; third: end at once, exit 1 |
//! | SIGQUIT | stop now, exit 0 | end at once, exit 1 |
//! | SIGTSTP | hand nothing out, everything else goes on; the process is not stopped | the same |
//! | SIGCONT | hand out again | the same |
//! | SIGHUP | open the log file anew, read the settings, the folder of keys, the access file and the keys of observer links again | the same |
//! | SIGTTIN | write lanes, leases and threads into the log | the same |
//! | SIGPIPE, SIGXFSZ | ignored: a write says it | |
//!
//! A stop before the broker is ready ends it at once, exit 0. What runs in workers goes on in all cases, and is settled with the next broker.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};
use nix::sys::signal::{SigSet, Signal as Number};
use signal_hook::consts::{SIGCONT, SIGHUP, SIGQUIT, SIGTSTP, SIGTTIN};
use signal_hook::iterator;

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    Stop,
    StopNow,
    Quiet,
    Resume,
    Reload,
    Dump,
}

/// Signals of this process while it lives; dropped, it stops listening, and the signals stay without effect.
pub(crate) struct Signals {
    asked: Arc<Mutex<Asked>>,
    rung: Receiver<()>,
    handle: iterator::Handle,
    is_served: Arc<AtomicBool>,
}

/// What nobody has taken yet. However many signals come, it holds two stops and one of each other sort: the last word counts.
#[derive(Debug, Default)]
struct Asked {
    stops: VecDeque<Signal>,
    quiet: Option<bool>,
    reload: bool,
    dump: bool,
}

/// What a broker takes.
pub(crate) const ALL: &[Number] = &[
    Number::SIGTERM,
    Number::SIGINT,
    Number::SIGQUIT,
    Number::SIGHUP,
    Number::SIGTSTP,
    Number::SIGCONT,
    Number::SIGTTIN,
];
/// What ends a program, and SIGHUP, which would: a terminal may stop all but the broker.
pub(crate) const STOPS: &[Number] = &[Number::SIGTERM, Number::SIGINT, Number::SIGQUIT, Number::SIGHUP];

impl Signals {
    /// Takes over these signals of the table. Call it before the first other thread starts, so that none is missed, and none
    /// interrupts what another thread waits for: this one blocks them, and so do those that it starts.
    pub(crate) fn install(taken: &'static [Number]) -> Result<Self, io::Error> {
        // A file at its size limit is a full disk: the write that fails is tried again, while the signal would end us.
        signal_hook::flag::register(libc::SIGXFSZ, Arc::default())?;
        let mut signals = iterator::Signals::new(taken.iter().map(|signal| *signal as i32))?;
        let handle = signals.handle();
        let (bell, rung) = bounded(1);
        let (is_served, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Asked::default())));
        let (served, asking) = (Arc::clone(&is_served), Arc::clone(&asked));
        let mask: SigSet = taken.iter().copied().collect();
        mask.thread_block()?;
        std::thread::Builder::new().name("signals".into()).spawn(move || {
            // Whoever started this process may have had them blocked too.
            mask.thread_unblock().expect("a mask of signals that there are");
            let mut stops = 0;
            for number in signals.forever() {
                let signal = meaning(number, &mut stops).unwrap_or_else(|| std::process::exit(1));
                if matches!(signal, Signal::Stop | Signal::StopNow) && !served.load(Ordering::SeqCst) {
                    // Nothing was handed out or acknowledged yet; the next start takes what lies about for a crash's.
                    std::process::exit(0);
                }
                asking.lock().unwrap_or_else(PoisonError::into_inner).add(signal);
                // Rung already, or nobody there: then the process ends.
                bell.try_send(()).ok();
            }
        })?;
        Ok(Self { asked, rung, handle, is_served })
    }

    /// From here on a stop is for [`next`](Self::next); before, it ends the process at once.
    pub(crate) fn serve(&self) {
        self.is_served.store(true, Ordering::SeqCst);
    }

    /// Rings when there is one to take, for whoever waits for other things too.
    pub(crate) fn bell(&self) -> &Receiver<()> {
        self.serve();
        &self.rung
    }

    /// The next one, the most urgent first, waiting for it this long. Fails when none has come, or none will any more.
    pub(crate) fn next(&self, wait: Duration) -> Result<Signal, RecvTimeoutError> {
        self.serve();
        let until = Instant::now() + wait;
        loop {
            if let Some(signal) = self.asked.lock().unwrap_or_else(PoisonError::into_inner).take() {
                return Ok(signal);
            }
            self.rung.recv_deadline(until)?;
        }
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        self.handle.close();
    }
}

impl Asked {
    fn add(&mut self, signal: Signal) {
        match signal {
            Signal::Stop | Signal::StopNow => self.stops.push_back(signal),
            Signal::Quiet => self.quiet = Some(true),
            Signal::Resume => self.quiet = Some(false),
            Signal::Reload => self.reload = true,
            Signal::Dump => self.dump = true,
        }
    }

    fn take(&mut self) -> Option<Signal> {
        if let Some(stop) = self.stops.pop_front() {
            return Some(stop);
        }
        if let Some(quiet) = self.quiet.take() {
            return Some(if quiet { Signal::Quiet } else { Signal::Resume });
        }
        if std::mem::take(&mut self.reload) {
            return Some(Signal::Reload);
        }
        std::mem::take(&mut self.dump).then_some(Signal::Dump)
    }
}

/// Sends this process a signal, whichever of its threads takes it.
pub(crate) fn raise(signal: Number) {
    nix::sys::signal::kill(nix::unistd::getpid(), signal).expect("a process may signal itself");
}

/// `None`: the process was asked often enough and ends at once.
fn meaning(number: i32, stops: &mut u32) -> Option<Signal> {
    match number {
        SIGTSTP => return Some(Signal::Quiet),
        SIGCONT => return Some(Signal::Resume),
        SIGHUP => return Some(Signal::Reload),
        SIGTTIN => return Some(Signal::Dump),
        _ => {}
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
    use signal_hook::consts::{SIGINT, SIGTERM};

    use super::*;

    #[test]
    fn each_stop_is_more_urgent() {
        // Proves the table: stop, stop now, end; and that what comes between changes nothing.
        let mut stops = 0;
        let table = [
            (SIGTERM, Some(Signal::Stop)),
            (SIGHUP, Some(Signal::Reload)),
            (SIGTSTP, Some(Signal::Quiet)),
            (SIGCONT, Some(Signal::Resume)),
            (SIGTTIN, Some(Signal::Dump)),
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
    fn a_flood_of_signals_loses_no_stop_and_the_last_word_counts() {
        // Proves that what waits to be taken is bounded, that a stop comes first, and that the broker ends up as quiet as it was
        // last told to be.
        let mut asked = Asked::default();
        for _ in 0..1_000 {
            for signal in [Signal::Quiet, Signal::Dump, Signal::Reload, Signal::Resume, Signal::Quiet] {
                asked.add(signal);
            }
        }
        asked.add(Signal::Stop);
        let taken: Vec<Signal> = std::iter::from_fn(|| asked.take()).collect();
        assert_eq!(taken, [Signal::Stop, Signal::Quiet, Signal::Reload, Signal::Dump]);
    }

    #[test]
    fn a_signal_of_the_process_arrives_as_a_value() {
        // Proves that a real signal comes out, and that the one which a shell sends for Ctrl-Z stops nothing.
        let signals = Signals::install(ALL).unwrap();
        let wait = Duration::from_secs(10);
        raise(Number::SIGHUP);
        assert_eq!(signals.next(wait), Ok(Signal::Reload));
        raise(Number::SIGTSTP);
        assert_eq!(signals.next(wait), Ok(Signal::Quiet));
        raise(Number::SIGCONT);
        assert_eq!(signals.next(wait), Ok(Signal::Resume));
        assert_eq!(signals.next(Duration::ZERO), Err(RecvTimeoutError::Timeout));
    }
}
