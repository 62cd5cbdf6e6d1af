//! `laneway drill-worker`: a worker process of the drill, on the library or plain. Both run the same handlers and write the
//! same journal; both may be killed or stopped at any instant.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use laneway::{Context, Failure, Payload, Worker};

use super::job::{self, End, KINDS};
use super::journal::Journal;
use super::plain;
use crate::error::Error;
use crate::process::on_end_of_input;

/// After its input ended; nothing runs any more then.
const STOP_TIMEOUT: Duration = Duration::from_secs(3);

/// A worker of the drill, which starts it itself
///
/// Serves the kinds of the drill until standard input is closed.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  laneway drill-worker --to tcp://127.0.0.1:7733 --journal worker.journal")]
pub(crate) struct DrillWorkerArgs {
    /// Where the broker listens
    #[arg(long, value_name = "ENDPOINT")]
    to: String,

    /// The file to append each start and end of a handler to
    #[arg(long, value_name = "PATH")]
    journal: PathBuf,

    /// What people see in lists and logs
    #[arg(long, default_value = "drill-worker")]
    name: String,

    /// Tasks at the same time
    #[arg(long, default_value_t = 1)]
    slots: u32,

    /// Tasks that a slot asks for at once
    #[arg(long, default_value_t = 1)]
    batch: u32,

    /// Without the library: one socket, one task at a time, no HELLO
    #[arg(long)]
    plain: bool,

    /// With --plain: take tasks only once their hand-out is recorded
    #[arg(long, requires = "plain")]
    committed: bool,
}

/// Runs until standard input is closed.
pub(crate) fn work(args: &DrillWorkerArgs) -> Result<(), Error> {
    let journal = Journal::append(&args.journal)
        .map_err(|error| Error::other(format!("open {}", args.journal.display()), error))?;
    if args.plain {
        return plain::work(&args.to, &args.name, args.committed, &journal);
    }
    let journal = Arc::new(journal);
    let mut builder = Worker::builder(&args.to)
        .name(&args.name)
        .slots(args.slots)
        .batch(args.batch)
        .signals(false)
        .stop_timeout(STOP_TIMEOUT);
    for kind in KINDS {
        let journal = Arc::clone(&journal);
        builder = builder.handle_raw(kind, move |payload, ctx: &Context| run(payload, ctx, &journal));
    }
    let worker = builder.build()?;
    let stopper = worker.stopper();
    on_end_of_input(move || stopper.stop())?;
    worker.run()?;
    Ok(())
}

fn run(payload: Option<Payload>, ctx: &Context, journal: &Journal) -> Result<Option<Payload>, Failure> {
    let (task, lease) = (ctx.id().value(), ctx.lease().value());
    journal.started(task, ctx.run(), lease).unwrap_or_else(|error| cannot_go_on(&error));
    let payload = payload.map(|payload| payload.bytes).unwrap_or_default();
    let ended = job::run(ctx.kind().as_str(), &payload, ctx.run(), ctx.attempt(), || ctx.cancelled());
    journal.ended(task, lease, ended.word()).unwrap_or_else(|error| cannot_go_on(&error));
    match ended {
        End::Done(result) => Ok(Some(Payload::json(result))),
        End::Fail { after_ms } => Err(Failure::retry_after(Duration::from_millis(after_ms), "fails by design")),
        End::Dead => Err(Failure::dead("is dead by design")),
        End::Snooze { after_ms } => Err(Failure::snooze(Duration::from_millis(after_ms))),
        End::Cancelled => Err(Failure::cancelled()),
    }
}

/// A run that is not in the journal must not happen: the audit would blame the broker for what it does not see.
pub(super) fn cannot_go_on(error: &io::Error) -> ! {
    crate::cli::output::note(&format!("cannot write the journal: {error}"));
    std::process::exit(1)
}
