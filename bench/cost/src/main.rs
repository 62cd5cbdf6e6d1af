//! `laneway-cost`: drains a database through the broker's own core, scheduler and SQLite store on one thread, without sockets,
//! so that callgrind can count what a task costs. `tests/cost.rs` holds the count; this is how to look at one by hand:
//!
//! ```text
//! cargo build --profile measured -p laneway-cost
//! target/measured/laneway-cost prepare cost.db --queued 20000
//! valgrind --tool=callgrind --toggle-collect='*measured*' target/measured/laneway-cost run cost.db --tasks 10000
//! callgrind_annotate callgrind.out.*
//! ```

#![expect(clippy::print_stdout, reason = "the figures are its output")]

mod drain;
mod prepare;
mod settings;

use std::path::PathBuf;
use std::time::Instant;

use clap::{Args, Parser, Subcommand};

use drain::Drain;
use prepare::Rows;

#[derive(Parser)]
#[command(about = "Drains a database through the broker's core, scheduler and store on one thread")]
struct Words {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Makes a database, by SQL alone.
    Prepare {
        db: PathBuf,
        #[command(flatten)]
        rows: Rows,
    },
    /// Connects the workers and drains tasks; prints how many were done and how long each took. What it leaves running
    /// goes back at the start of the next run.
    Run {
        db: PathBuf,
        #[command(flatten)]
        load: Load,
    },
}

#[derive(Args)]
struct Load {
    /// Tasks that are done at the end, at least.
    #[arg(long, default_value_t = 10_000)]
    tasks: u64,
    #[arg(long, default_value_t = 4)]
    workers: usize,
    /// Tasks that a worker takes, and outcomes that it brings, with one READY.
    #[arg(long, default_value_t = 64)]
    batch: u32,
    /// As the database was prepared. A worker runs an equal share of them, at most 256.
    #[arg(long, default_value_t = 1)]
    kinds: usize,
}

fn main() -> Result<(), String> {
    match Words::parse().command {
        Command::Prepare { db, rows } => prepare::prepare(&db, &rows),
        Command::Run { db, load } => {
            let mut drain = Drain::open(&db, &load)?;
            fill_windows(&mut drain)?;
            let (begun, ahead) = (Instant::now(), drain.n_loaded());
            measured(&mut drain, load.tasks)?;
            let took = begun.elapsed();
            println!("tasks {}", drain.n_done());
            println!("rows_read {ahead} before and {} meanwhile", drain.n_loaded() - ahead);
            println!("ns_per_task {}", took.as_nanos() / u128::from(drain.n_done().max(1)));
            drain.close()?;
        }
    }
    Ok(())
}

/// What is counted, by this name: a function of its own, with nothing else in it that has the name too.
#[inline(never)]
fn measured(drain: &mut Drain, tasks: u64) -> Result<(), String> {
    drain.until_done(tasks)
}

/// The same for the first rows that are read ahead.
#[inline(never)]
fn fill_windows(drain: &mut Drain) -> Result<(), String> {
    drain.until_settled()
}
