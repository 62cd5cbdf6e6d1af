//! `laneway broker --supervise`: a small parent process that keeps one broker running. What ends a broker although it should
//! not, an abort inside libzmq, too much memory, kill -9, costs less than two seconds: the next one is started at once.
//!
//! It opens neither database nor sockets and holds nothing that could grow. Where systemd runs the broker
//! (`config/laneway.service`) this is not needed.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crossbeam_channel::RecvTimeoutError;

use crate::error::{Error, Exit};
use crate::process::Process;
use crate::signals::{Signal, Signals};

/// A first broker that ends by itself sooner than this could not start: its settings, its database or its address are wrong,
/// and would be the next time.
const START: Duration = Duration::from_secs(1);
/// One that ran for so long is started again at once when it ends.
const GOOD_RUN: Duration = Duration::from_secs(10);
/// The pause before the second short run, doubled for each further one. The longest leaves a start its part of 2 seconds.
const PAUSE: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// How often the broker is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// Starts brokers, one after the other, until a signal ends the last one. `command` gives the command line of a broker that
/// stops when its standard input ends, `reload` lets this process' own log be read anew.
pub(crate) fn run(command: impl Fn() -> Command, reload: &dyn Fn(), signals: &Signals) -> Result<(), Error> {
    let (mut n_runs, mut n_short) = (0_u64, 0);
    loop {
        let started = Instant::now();
        // A group of its own: Ctrl-C in a terminal comes here alone, and is passed on once.
        let mut broker = Process::start_as_is(command().stdin(Stdio::piped()).process_group(0), "the broker")?;
        n_runs += 1;
        tracing::info!(target: "laneway::supervisor", pid = broker.pid(), runs = n_runs, "the broker is started");
        let (status, stopping) = watch(&mut broker, reload, signals)?;
        let is_bad_start = n_runs == 1 && status.code().is_some() && started.elapsed() < START;
        if stopping || status.success() || is_bad_start {
            return match Exit::of_status(status) {
                Exit::Success => Ok(()),
                exit => Err(Error::BrokerEnded { status: status.to_string(), exit }),
            };
        }
        n_short = if started.elapsed() < GOOD_RUN { n_short + 1 } else { 0 };
        let pause = pause_after(n_short);
        tracing::error!(
            target: "laneway::supervisor",
            %status,
            again_in_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
            "the broker ended by itself; nothing acknowledged is lost"
        );
        if is_stopped_within(pause, reload, signals) {
            return Ok(());
        }
    }
}

/// Waits for the end of the broker and passes signals on. Gives also whether it was told to stop.
fn watch(broker: &mut Process, reload: &dyn Fn(), signals: &Signals) -> Result<(ExitStatus, bool), Error> {
    let mut stopping = false;
    loop {
        if let Some(status) = broker.ended() {
            return Ok((status, stopping));
        }
        let name = match signals.next(LOOK) {
            Ok(Signal::Stop | Signal::StopNow) => {
                stopping = true;
                "TERM"
            }
            Ok(Signal::Quiet) => "TSTP",
            Ok(Signal::Resume) => "CONT",
            Ok(Signal::Dump) => "TTIN",
            Ok(Signal::Reload) => {
                reload();
                "HUP"
            }
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => return Err(Error::other("go on", "the signals thread has ended")),
        };
        // It may have ended meanwhile, which the next look tells.
        broker.signal(name).ok();
    }
}

/// Whether a signal to stop comes while no broker runs.
fn is_stopped_within(pause: Duration, reload: &dyn Fn(), signals: &Signals) -> bool {
    let until = Instant::now() + pause;
    loop {
        match signals.next(until.saturating_duration_since(Instant::now())) {
            Ok(Signal::Reload) => reload(),
            // The next broker begins anew in any case.
            Ok(Signal::Quiet | Signal::Resume | Signal::Dump) => {}
            Ok(Signal::Stop | Signal::StopNow) | Err(RecvTimeoutError::Disconnected) => return true,
            Err(RecvTimeoutError::Timeout) => return false,
        }
    }
}

/// The pause after so many short runs in a row.
fn pause_after(n_short: u32) -> Duration {
    match n_short {
        0 | 1 => Duration::ZERO,
        n => PAUSE.saturating_mul(1 << (n - 2).min(8)).min(PAUSE_MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_grows_to_its_bound() {
        // Proves that a broker which ends once is started at once, and that one which ends again and again leaves the machine
        // some rest without missing its two seconds.
        let pauses: Vec<u128> = (0..8).map(|n| pause_after(n).as_millis()).collect();
        assert_eq!(pauses, [0, 0, 100, 200, 400, 800, 1_000, 1_000]);
        assert_eq!(pause_after(u32::MAX), PAUSE_MAX);
    }
}
