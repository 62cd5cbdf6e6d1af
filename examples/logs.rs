//! Map and reduce over a log file: a task splits it, one task counts each piece, and a last one adds them up.
//!
//!     cargo run -p laneway-examples --example logs -- worker [ENDPOINT]
//!     cargo run -p laneway-examples --example logs -- FILE [PIECES [ENDPOINT]]
//!
//! The payloads hold a path and a range of bytes, no lines; what one task spawns must fit a message, here about 300 pieces. Whoever
//! splits has long ended while the pieces run, so one worker with one slot is enough. Lines are those of a web server; compare the
//! totals with one pass of awk (`%d` would end at 2,147,483,647 in some):
//!
//!     awk '{ n++; b += $10; if ($9 >= 400) e++ } END { printf "%d %.0f %d\n", n, b, e }' FILE
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;
use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom};

use laneway::{Batch, Client, Context, Failure, Task, Worker};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Job {
    path: String,
    pieces: u64,
}

/// The lines that begin at `from` or later, and before `to`.
#[derive(Serialize, Deserialize)]
struct Piece {
    path: String,
    from: u64,
    to: u64,
}

#[derive(Default, Serialize, Deserialize)]
struct Total {
    lines: u64,
    bytes: u64,
    errors: u64,
}

/// Launches the counting tasks in the commit of its own end. They join its group, so the group's last task waits for them.
fn split(Job { path, pieces }: Job, ctx: &Context) -> Result<(), Failure> {
    let size = std::fs::metadata(&path).map_err(|error| Failure::dead(format!("{path}: {error}")))?.len();
    for n in 0..pieces {
        let piece = Piece { path: path.clone(), from: size * n / pieces, to: size * (n + 1) / pieces };
        ctx.spawn(Task::new("log.count").payload(&piece).join())?;
    }
    Ok(())
}

fn count(Piece { path, from, to }: Piece, _: &Context) -> Result<Total, Failure> {
    let mut file = BufReader::new(File::open(path)?);
    let (mut at, mut line, mut total) = (from, Vec::new(), Total::default());
    if from > 0 {
        // A line that begins before the range is the other piece's.
        file.seek(SeekFrom::Start(from - 1))?;
        at = from - 1 + file.read_until(b'\n', &mut line)? as u64;
    }
    while at < to
        && file.read_until(b'\n', {
            line.clear();
            &mut line
        })? > 0
    {
        at += line.len() as u64;
        let text = String::from_utf8_lossy(&line);
        let mut words = text.split_ascii_whitespace().skip(8).map(|word| word.parse::<u64>().unwrap_or(0));
        total.lines += 1;
        total.errors += u64::from(words.next().unwrap_or(0) >= 400);
        total.bytes += words.next().unwrap_or(0);
    }
    Ok(total)
}

/// What it waited for is read from the broker, and only here.
fn sum(_: serde_json::Value, ctx: &Context) -> Result<Total, Failure> {
    let mut all = Total::default();
    for parent in ctx.parents()? {
        // The one that split has nothing to add.
        let Some(total) = parent.result::<Option<Total>>()? else { continue };
        (all.lines, all.bytes, all.errors) =
            (all.lines + total.lines, all.bytes + total.bytes, all.errors + total.errors);
    }
    Ok(all)
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let here = "tcp://127.0.0.1:7733";
    if let ["worker", endpoint @ ..] = &words[..] {
        let worker = Worker::builder(*endpoint.first().unwrap_or(&here));
        worker.handle("log.split", split).handle("log.count", count).handle("log.sum", sum).build()?.run()?;
        return Ok(());
    }
    let file = std::fs::canonicalize(words.first().ok_or("which file?")?)?;
    let pieces = words.get(1).unwrap_or(&"16").parse()?;
    let client = Client::connect(words.get(2).unwrap_or(&here))?;
    let job = Job { path: file.display().to_string(), pieces };
    let batch = Batch::new().name("log").task(Task::new("log.split").payload(&job)).last(Task::new("log.sum"));
    let last = client.submit_batch(batch)?.last.ok_or("no last task")?;
    let Total { lines, bytes, errors } = client.wait(last.task)?.result()?;
    println!("{lines} {bytes} {errors}");
    Ok(())
}
