//! Submits over the socket, without the database: many at once, then one that is waited for.
//!
//!     cargo run -p laneway-examples --example submit [FILE [ENDPOINT]]
//!
//! The defaults are `Cargo.toml` and `tcp://127.0.0.1:7733`. Start the `worker` example beside it.
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::time::Duration;

use laneway::{Client, News, Task};
use serde_json::{Value, json};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let file = std::fs::canonicalize(args.next().unwrap_or_else(|| "Cargo.toml".into()))?;
    let client = Client::connect(args.next().unwrap_or_else(|| "tcp://127.0.0.1:7733".into()))?;

    // On disk when this returns, each exactly once, even if the broker was restarted on the way.
    let numbers = (1..=100).map(|n| Task::new("echo").payload(&n).lane("low"));
    let stored = client.submit_many(numbers)?;
    println!("{} tasks are stored", stored.len());

    // Urgent: it overtakes whatever of the hundred has not started.
    let count = Task::new("wordcount")
        .payload(&json!({ "path": file }))
        .lane("high")
        .unique_key(file.display().to_string())
        .timeout(Duration::from_mins(1));
    let ended = client.submit_and_wait_with(count, |news| {
        if let News::Progress(event) = news {
            println!("{} bytes done", event.done.unwrap_or(0));
        }
    })?;
    println!("task {}: {}", ended.task, ended.result::<Value>()?);
    Ok(())
}
