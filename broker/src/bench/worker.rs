//! `laneway bench-worker`: a worker process of the benchmark. The library as any program uses it, with handlers that do
//! next to nothing; or bare REQ sockets, to measure what libzmq alone can do; or plain workers without the library.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use laneway::{Context, Failure, Payload, Worker};

use super::crowd;
use super::limits::RAW_BYTES;
use crate::error::Error;
use crate::process::on_end_of_input;

/// Does nothing.
pub(super) const NOOP: &str = "noop";
/// Its result is its payload.
pub(super) const ECHO: &str = "echo";
/// Sleeps as many milliseconds as its payload says.
pub(super) const SLEEP: &str = "sleep";
/// Its result is when it started, in Unix nanoseconds.
pub(super) const STAMP: &str = "stamp";

/// Run a worker of the benchmark
///
/// Serves the kinds of the benchmark until standard input is closed.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  laneway bench-worker --to tcp://127.0.0.1:7733 --slots 4")]
pub(crate) struct BenchWorkerArgs {
    /// Where the broker listens
    #[arg(long, value_name = "ENDPOINT")]
    to: String,

    /// Tasks at the same time
    #[arg(long, default_value_t = 1)]
    slots: u32,

    /// Tasks that a slot asks for at once
    #[arg(long, default_value_t = 1)]
    batch: u32,

    /// Bare sockets instead of slots: send some bytes, wait for the answer, send that back, again
    #[arg(long)]
    raw: bool,

    /// Plain workers instead of slots, each with a connection of its own: take one task, complete it, stay
    #[arg(long, conflicts_with = "raw")]
    plain: bool,
}

pub(crate) fn run(args: &BenchWorkerArgs) -> Result<(), Error> {
    if args.raw {
        return run_raw(args);
    }
    if args.plain {
        return crowd::run_workers(&args.to, args.slots);
    }
    let worker = Worker::builder(&args.to)
        .name("bench")
        .slots(args.slots)
        .batch(args.batch)
        .handle_raw(NOOP, |_, _: &Context| Ok::<_, Failure>(None))
        .handle_raw(ECHO, |payload, _: &Context| Ok::<_, Failure>(payload))
        .handle(SLEEP, |ms: u64, _: &Context| {
            std::thread::sleep(Duration::from_millis(ms));
            Ok::<_, Failure>(())
        })
        .handle_raw(STAMP, |_, _: &Context| Ok::<_, Failure>(Some(Payload::json(now_ns().to_string()))))
        .build()?;
    let stopper = worker.stopper();
    on_end_of_input(move || stopper.release())?;
    worker.run()?;
    Ok(())
}

/// Unix nanoseconds. The wall clock is the one that processes share; a step of it during a run shows as nonsense.
pub(super) fn now_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

fn run_raw(args: &BenchWorkerArgs) -> Result<(), Error> {
    laneway::seed_libzmq();
    let context = zmq::Context::new();
    for _ in 0..args.slots {
        let (context, to) = (context.clone(), args.to.clone());
        std::thread::spawn(move || ping(&context, &to));
    }
    let (ended, end) = crossbeam_channel::bounded::<()>(1);
    on_end_of_input(move || drop(ended))?;
    // Nothing is ever sent: the other end is dropped.
    end.recv().ok();
    Ok(())
}

/// Ends with the process, or with the first error.
fn ping(context: &zmq::Context, to: &str) -> Result<(), zmq::Error> {
    let socket = context.socket(zmq::REQ)?;
    socket.connect(to)?;
    socket.send(&[0; RAW_BYTES][..], 0)?;
    loop {
        socket.send(socket.recv_msg(0)?, 0)?;
    }
}
