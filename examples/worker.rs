//! A worker for two kinds, with one slot kept free for urgent tasks.
//!
//!     cargo run -p laneway-examples --example worker [ENDPOINT]      default: tcp://127.0.0.1:7733
//!
//! Ctrl-C or SIGTERM lets running tasks finish first; a second one does not.

use std::fs::File;
use std::io::{BufRead, BufReader};

use laneway::{Context, Error, Failure, Worker};
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
struct Count {
    path: String,
}

#[derive(Serialize)]
struct Counted {
    words: usize,
}

/// Any error turns into a failed attempt by `?`, to be tried again with backoff.
fn wordcount(Count { path }: Count, ctx: &Context) -> Result<Counted, Failure> {
    // A path that does not exist will not exist in a minute either.
    let file = File::open(&path).map_err(|error| Failure::dead(format!("{path}: {error}")))?;
    let bytes = file.metadata()?.len();
    let (mut words, mut done) = (0, 0);
    for line in BufReader::new(file).split(b'\n') {
        if ctx.cancelled() {
            return Err(Failure::cancelled());
        }
        let line = line?;
        words += line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).count();
        done += line.len() as u64 + 1;
        ctx.progress(done.min(bytes), bytes, "counting");
    }
    Ok(Counted { words })
}

fn main() -> Result<(), Error> {
    let endpoint = std::env::args().nth(1).unwrap_or_else(|| "tcp://127.0.0.1:7733".into());
    Worker::builder(endpoint)
        .slots(4)
        .reserve("high", 1)
        .handle("wordcount", wordcount)
        .handle("echo", |payload: serde_json::Value, _: &Context| Ok::<_, Failure>(payload))
        .build()?
        .run()?;
    Ok(())
}
