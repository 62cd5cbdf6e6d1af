//! What main does while the broker runs: takes signals and passes on what they ask for, tells the service manager that the router's
//! loop turns, and notices when a thread has ended by itself. Called once by `run`, and returns when the broker is to end.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use laneway_core::Dump;

use crate::reload::Reload;
use crate::router::Stop;
use crate::service::Service;
use crate::signals::{Signal, Signals};

/// How often a thread that ended by itself is noticed, and one that was told to.
const WATCH: Duration = Duration::from_millis(500);
const WATCH_STOP: Duration = Duration::from_millis(100);
/// How long the router's part of a dump is waited for: many turns of its loop.
const DUMP_WAIT: Duration = Duration::from_secs(1);

/// Waits until the broker is to end: a second signal, the stop timeout, or a thread that ended by itself.
pub(crate) fn watch(
    signals: &Signals,
    (stop, dumps): (&Stop, &Receiver<Dump>),
    reload: &mut Reload<'_>,
    mut service: Service,
    (ring, reopen): (impl Fn(), impl Fn()),
    has_ended: impl Fn() -> bool,
) {
    let mut deadline: Option<Instant> = None;
    loop {
        let wait = deadline.map_or(WATCH, |at| at.saturating_duration_since(Instant::now()).min(WATCH_STOP));
        match signals.next(wait) {
            Ok(Signal::Stop) => {
                let timeout_ms = reload.config().stop_timeout_ms;
                tracing::info!(target: "laneway", timeout_ms, "stopping; a second signal stops now");
                deadline = Some(Instant::now() + Duration::from_millis(timeout_ms));
                stop.gently.store(true, Ordering::SeqCst);
                Service::stopping();
                ring();
            }
            Ok(Signal::StopNow) | Err(RecvTimeoutError::Disconnected) => return,
            Ok(Signal::Quiet) => {
                tracing::warn!(
                    target: "laneway",
                    pid = std::process::id(),
                    "quiet: nothing is handed out, everything else goes on; SIGCONT hands out again (Ctrl-Z stops no broker, Ctrl-C does)"
                );
                stop.quiet.store(true, Ordering::SeqCst);
                ring();
            }
            Ok(Signal::Resume) => {
                if stop.quiet.swap(false, Ordering::SeqCst) {
                    tracing::info!(target: "laneway", "tasks are handed out again");
                    ring();
                }
            }
            Ok(Signal::Reload) => {
                reopen();
                reload.run();
            }
            Ok(Signal::Dump) => {
                // One that came too late for the last dump is of another moment.
                dumps.try_iter().for_each(drop);
                stop.dump.store(true, Ordering::SeqCst);
                ring();
                crate::dump::write(dumps.recv_timeout(DUMP_WAIT).ok().as_ref());
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
        service.turned(stop.turns.load(Ordering::Relaxed));
        let over = deadline.is_some_and(|at| at <= Instant::now() || stop.idle.load(Ordering::SeqCst));
        if over || has_ended() {
            return;
        }
    }
}
