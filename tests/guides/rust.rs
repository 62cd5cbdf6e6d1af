//! The Rust in the guides: one program of all blocks, each in a frame that gives it what its page takes for granted, compiled
//! against the library as the examples are, and run.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::block::{Block, pages};
use crate::guide::Guide;
use crate::harness::{Built, Program, output_of};

/// Where each block belongs, by a word that only it has, and what comes before and behind it.
const FRAMES: [(&str, &str, &str); 8] = [
    ("Worker::builder", "pub mod readme { ", "}"),
    ("let task = Task::new(\"thumbnail\")", "fn keyed(client: &Client, path: &str) -> Done {", "told(&ended) }"),
    (".abandon(true)", "fn abandoned(endpoint: &str, task: Task) -> Done {", "told(&ended) }"),
    (
        "submit_together",
        "fn together(client: &Client, url: &str, other: Stored) -> Done {",
        "told(&client.wait(stored[2].task)?) }",
    ),
    ("fn sum(", "", ""),
    (
        "Batch::new()",
        "fn nightly(client: &Client, parts: Vec<Task>) -> Done {",
        "told(&client.wait(stored.last.unwrap().task)?) }",
    ),
    ("fn split(", "", ""),
    ("fn refund(", "", ""),
];

const AROUND: &str = r#"
#![allow(unused)]
use laneway::*;
use serde::Deserialize;
use serde_json::Value;

type Done = Result<(), Box<dyn std::error::Error>>;

#[derive(Deserialize)]
pub struct Job {
    n: u32,
}

impl Job {
    fn pieces(&self) -> Vec<u32> {
        (0..self.n).collect()
    }
}

fn told(ended: &Ended) -> Done {
    println!("{} {}", ended.state, ended.result::<Value>().unwrap_or_default());
    Ok(())
}

fn worker(endpoint: &str) -> Done {
    let mut builder = Worker::builder(endpoint).slots(2).committed(true);
    builder = builder.handle("sum", sum).handle("split", split).handle("refund", refund);
    for kind in ["thumbnail", "search", "fetch", "resize", "notify", "part", "report", "count"] {
        builder = builder.handle(kind, |payload: Value, _: &Context| Ok::<_, Failure>(payload));
    }
    builder.build()?.run()?;
    Ok(())
}

fn main() -> Done {
    let words: Vec<String> = std::env::args().collect();
    let endpoint = words[2].as_str();
    match words[1].as_str() {
        "worker" => return worker(endpoint),
        "readme" => return readme::main(),
        _ => {}
    }
    let client = Client::connect(endpoint)?;
    keyed(&client, "cat.jpg")?;
    abandoned(endpoint, Task::new("search").payload("cats"))?;
    together(&client, "http://", client.submit(Task::new("fetch").payload("other"))?)?;
    let part = |n: &u64| Task::new("part").payload(n);
    nightly(&client, [1, 2].iter().map(part).collect())?;

    let numbers = client.submit_many([1, 2].iter().map(part))?;
    let sum = Task::new("sum").payload(&0).after(numbers[0].task).after(numbers[1].task);
    told(&client.submit_and_wait(sum)?)?;

    let job = Task::new("split").payload(&serde_json::json!({ "n": 3 }));
    let batch = client.submit_batch(Batch::new().task(job).last(Task::new("report").payload("counted")))?;
    told(&client.wait(batch.last.unwrap().task)?)?;
    told(&client.submit_and_wait(Task::new("refund").payload(&250))?)
}
"#;

/// What the program prints: an end and a result for each block that is no handler, and one for each handler.
const PRINTS: &str = r#"done "cat.jpg"
done "cats"
done null
2 of 3
done null
done 3
done "counted"
done null
"#;

pub(crate) fn compile_and_run() {
    let guide = Guide::with_broker("README.md", "");
    let program = guide.place.path("snippets");
    let endpoint = guide.endpoint();
    let table = guide.table();
    table.execute("CREATE TABLE payments(task INTEGER, cents INTEGER)", []);
    guide.save("snippets.rs", &source(&endpoint, &guide.place.path("app.db")));
    compile(&guide.place.path("snippets.rs"), &program);

    let _worker = Program::start(Command::new(&program).args(["worker", &endpoint]));
    let said = output_of(Command::new(&program).args(["apps", &endpoint]));
    // How far the batch is told may come in several steps; its last one is sure.
    let last_of_each =
        |text: &str| text.lines().filter(|line| !line.contains(" of ")).map(String::from).collect::<Vec<_>>();
    assert_eq!(last_of_each(&said), last_of_each(PRINTS), "{said}");
    assert_eq!(table.count("kind = 'count' AND state = 'done'"), 3);
    assert_eq!(
        table.one::<i64>("SELECT sum(cents) FROM payments JOIN tasks ON id = task AND state = 'done'", []),
        -250
    );

    let _readme = Program::start(Command::new(&program).args(["readme", &endpoint]));
    let task = table.insert("greet", r#"{"name": "ann"}"#);
    table.wait_for_state(task, "done");
    assert_eq!(table.column::<String>(task, "result"), r#""hello \"ann\"""#);
}

/// One program of all blocks.
fn source(endpoint: &str, db: &Path) -> String {
    let mut source = AROUND.to_owned();
    let mut left: Vec<_> = FRAMES.iter().collect();
    for block in pages().iter().flat_map(|page| Block::all(page)).filter(|block| block.language == "rust") {
        let found = left.iter().position(|(word, _, _)| block.text.contains(word));
        let (_, before, behind) = left.remove(found.unwrap_or_else(|| panic!("{}: it has no frame", block.place)));
        let text = block.text.replace("app.db", &db.display().to_string());
        let text = text.replace("tcp://127.0.0.1:7733", endpoint).replace("fn main()", "pub fn main()");
        source.extend(["\n// ", &block.place, "\n", before, "\n", &text, behind, "\n"]);
    }
    assert!(left.is_empty(), "these frames have no block: {left:?}");
    source
}

/// By the compiler beside cargo, against what cargo has built for the examples.
fn compile(source: &Path, program: &Path) {
    let built = Built::examples();
    let mut rustc = Command::new(Path::new(env!("CARGO")).with_file_name("rustc"));
    rustc.args(["--edition", "2024", "--crate-name", "snippets"]).arg(source).arg("-o").arg(program);
    for name in ["laneway", "rusqlite", "serde", "serde_json"] {
        let library = &built.libraries[name];
        rustc.arg("--extern").arg(format!("{name}={}", library.display()));
        rustc.arg("-L").arg(format!("dependency={}", library.parent().unwrap().join("deps").display()));
        rustc.arg("-L").arg(format!("dependency={}", library.parent().unwrap().display()));
    }
    for folder in &built.folders {
        rustc.arg("-L").arg(folder);
    }
    let output = rustc.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
