//! An app that submits by inserting a row, in one transaction with its own data, and waits for the result.
//!
//!     cargo run -p laneway-examples --example app [DATABASE [ENDPOINT]]
//!
//! The defaults are `laneway.db` and `tcp://127.0.0.1:7733`. Start the `worker` example beside it.
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use laneway::{Client, News, TaskId};
use rusqlite::{Connection, params};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let database = args.next().unwrap_or_else(|| "laneway.db".into());
    let endpoint = args.next().unwrap_or_else(|| "tcp://127.0.0.1:7733".into());

    let mut db = Connection::open(database)?;
    db.busy_timeout(std::time::Duration::from_secs(10))?;
    db.execute_batch("CREATE TABLE IF NOT EXISTS example_texts (id INTEGER PRIMARY KEY, path TEXT, task INTEGER)")?;

    // The text and its task are stored together: both or neither, with no broker needed at this point.
    let path = std::env::current_dir()?.join("Cargo.toml").display().to_string();
    let transaction = db.transaction()?;
    let payload = serde_json::json!({ "path": path }).to_string();
    transaction.execute("INSERT INTO tasks(kind, payload) VALUES ('wordcount', ?1)", params![payload])?;
    let task = transaction.last_insert_rowid();
    transaction.execute("INSERT INTO example_texts(path, task) VALUES (?1, ?2)", params![path, task])?;
    transaction.commit()?;
    println!("task {task} is in the table");

    // The result is in the row, for anyone who polls it. Waiting at the broker is faster and shows progress.
    let task = TaskId::try_from(u64::try_from(task)?)?;
    let ended = Client::connect(endpoint)?.wait_with(task, |news| {
        if let News::Progress(event) = news {
            println!("{} of {} bytes", event.done.unwrap_or(0), event.total.unwrap_or(0));
        }
    })?;
    println!("{}", ended.result::<serde_json::Value>()?);
    Ok(())
}
