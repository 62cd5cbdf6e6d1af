//! The dashboard's threads, which give way to all others: on a machine whose processors are all busy the work goes first.

use std::thread::JoinHandle;

use crate::error::Error;

/// On the scale of nice(1), where 19 gives way to everybody. Beside a busy thread one of 5 has a quarter of its time. With less a
/// page takes longer, and the work is no faster for it.
const NICE: i32 = 5;

/// Starts the thread of this name.
pub(crate) fn start(name: &'static str, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, Error> {
    let body = move || {
        // On Linux this is of the thread that calls it alone. Where it is not allowed the dashboard is as urgent as the rest.
        if let Err(error) = rustix::process::nice(NICE) {
            tracing::warn!(target: "laneway::web", thread = name, %error, "cannot give way to the broker's threads");
        }
        body();
    };
    let started = std::thread::Builder::new().name(name.into()).spawn(body);
    started.map_err(|source| Error::Start { part: name, source })
}
