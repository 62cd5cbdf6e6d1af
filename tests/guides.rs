//! Every command and every program in README.md and docs/ is run, in the order of its page, and what the page shows comes
//! out. What is not run says why in a comment above it, `<!-- not run: REASON -->`, and there are few of those.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

#[path = "guides/block.rs"]
mod block;
#[path = "guides/guide.rs"]
mod guide;
#[path = "guides/rust.rs"]
mod rust;
#[path = "guides/session.rs"]
mod session;

use block::{Block, LANGUAGES, alike, pages};
use guide::{Guide, readme};
use harness::{tools, wait_until};
use laneway_protocol::limits;

/// More blocks than this that nobody runs, and the list is a habit.
const NOT_RUN_MAX: usize = 12;

#[test]
fn worker_process() {
    // Not a test of its own: the worker processes of the tests in this file begin here.
    harness::worker_main();
}

#[test]
fn every_block_is_run_or_says_why_not() {
    // Proves that no page has a block in a language that nobody runs, that each page with others has a test here, and that
    // the exceptions are few.
    let tests = include_str!("guides.rs");
    let (mut not_run, mut offenders) = (Vec::new(), Vec::new());
    for page in pages() {
        for block in Block::all(&page) {
            match &block.not_run {
                Some(reason) => not_run.push(format!("{}: {reason}", block.place)),
                None if block.language == "text" || block.language == "rust" => {}
                None if !LANGUAGES.contains(&block.language.as_str()) => {
                    offenders.push(format!("{}: in which language is it? '{}'", block.place, block.language));
                }
                None if !tests.contains(&format!("(\"{page}\"")) => {
                    offenders.push(format!("{}: no test reads this page", block.place));
                }
                None => {}
            }
        }
    }
    assert!(offenders.is_empty(), "{offenders:#?}");
    assert!(not_run.len() <= NOT_RUN_MAX, "{} blocks are not run: {not_run:#?}", not_run.len());
}

#[test]
fn the_readme() {
    let mut guide = Guide::open("README.md").with_cargo();
    guide.save("README.md", &readme());
    let insert = guide.take("sql");
    guide.run("console");
    let table = guide.table();
    table.wait_for_count("kind = 'wordcount' AND state = 'done' AND result LIKE '%words%'", 1);
    assert_eq!(table.count("kind = 'echo' AND lane = 'high' AND json(result) = json(payload)"), 1);
    guide.run_block(&insert);
    table.wait_for_count("kind = 'thumbnail' AND state = 'queued'", 1);
    guide.end();
}

#[test]
fn start_in_five_minutes() {
    let mut guide = Guide::open("docs/start.md").with_cargo();
    tools::sqlite3();
    for _ in 0..8 {
        guide.run("console");
    }
    guide.end();
}

#[test]
fn tasks_from_apps_in_six_languages() {
    let mut guide = Guide::with_broker("docs/apps.md", "resize");
    let shown = guide.take("text").text;
    let trap = guide.take("python");
    let printed = guide.run_block(&trap);
    assert_eq!(printed, guide.take("text").text);
    for language in ["sh", "python", "js", "ruby", "php", "go"] {
        guide.run_and_compare(language, &shown);
    }
    let table = guide.table();
    assert_eq!(table.one::<i64>("SELECT count(*) FROM photos JOIN tasks ON id = task WHERE state = 'done'", []), 6);
    guide.end();
}

#[test]
fn moving_from_another_queue() {
    let mut guide = Guide::with_broker("docs/moving.md", "resize");
    guide.run("python");
    let table = guide.table();
    table.wait_for_count("kind = 'resize' AND lane = 'high' AND unique_key = 'cat.jpg' AND state = 'done'", 1);

    guide.run("ruby");
    guide.run("ruby");
    guide.run("console");
    table.wait_for_count("kind = 'welcome' AND state = 'queued' AND run_at > created_at + 200000", 1);
    table.execute("UPDATE tasks SET run_at = NULL WHERE kind = 'welcome'", []);
    table.wait_for_count(r#"kind = 'welcome' AND state = 'done' AND result = '{"mailed":1}'"#, 1);

    guide.run("python");
    table.wait_for_count("kind = 'mail' AND run_at > created_at + 50000 AND timeout_ms = 30000", 1);
    assert!(guide.run("sql").contains("mail|queued|1"));
    guide.end();
}

#[test]
fn sql_recipes() {
    let mut guide = Guide::with_broker("docs/sql.md", "resize,mail");
    let table = guide.table();
    guide.next_task_is(42);
    guide.run("sql");
    table.wait_for_state(42, "done");
    table.wait_for_count("kind = 'mail' AND lane = 'high' AND state = 'done'", 1);
    table.wait_for_count("kind = 'sync' AND unique_key = 'user-7' AND state = 'queued'", 1);
    assert!(guide.run("sql").contains("42|resize|"));
    guide.run("sql");
    assert_eq!(table.count("id = 42"), 0);

    // A task that a worker runs, ended by that worker's own transaction.
    guide.worker("gate");
    table.execute("CREATE TABLE thumbnails(path TEXT, bytes INTEGER)", []);
    let task = table.insert("gate", &format!(r#"{{"path": "{}"}}"#, guide.place.path("gate").display()));
    table.wait_for_state(task, "running");
    guide.run_sql(&[
        (":path", "'cat.jpg'".into()),
        (":bytes", "3".into()),
        (":result", "'7'".into()),
        (":now", table.one::<i64>("SELECT unixepoch() * 1000", []).to_string()),
        (":id", task.to_string()),
        (":lease", table.column::<i64>(task, "lease").to_string()),
    ]);
    assert_eq!(table.column::<String>(task, "state || ' ' || attempts || ' ' || result"), "done 1 7");
    assert_eq!(table.one::<i64>("SELECT count(*) FROM thumbnails", []), 1);
    guide.end();
}

#[test]
fn one_task_for_many_callers() {
    let mut guide = Guide::with_broker("docs/coalescing.md", "thumbnail,search");
    guide.run("console");
    let table = guide.table();
    table.wait_for_count("kind = 'thumbnail' AND unique_key = 'cat.jpg' AND json(result) = json(payload)", 1);
    guide.run("sql");
    table.wait_for_count("kind = 'thumbnail' AND state = 'done'", 2);
    guide.next_task_is(41);
    assert_eq!(guide.run("console").matches("cats").count(), 2);
    guide.end();
}

#[test]
fn fair_keys() {
    let mut guide = Guide::with_broker("docs/fairness.md", "resize");
    guide.run("sql");
    guide.table().wait_for_count("fair_key = 'acme' AND state = 'done'", 1);
    guide.run("toml");
    guide.end();
}

#[test]
fn caps_rates_and_shares() {
    let mut guide = Guide::with_broker("docs/limits.md", "");
    guide.run("toml");
    guide.run("console");
    guide.end();
}

#[test]
fn traces() {
    let mut guide = Guide::with_broker("docs/tracing.md", "resize");
    let parent = "'00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01'";
    guide.run_sql(&[(":traceparent", format!("\"{parent}\"")), (":tracestate", "\"'rojo=1'\"".into())]);
    guide.run("console");
    guide.table().wait_for_count("state = 'done' AND trace LIKE '00-%-01 rojo=1'", 1);
    guide.table().wait_for_count("state = 'done'", 3);
    guide.run("toml");
    guide.end();
}

#[test]
fn schedules() {
    let mut guide = Guide::with_broker("docs/schedules.md", "");
    let table = guide.table();
    guide.run("sql");
    let planned = "SELECT count(*) FROM schedules WHERE next_at > unixepoch() * 1000 AND error IS NULL";
    wait_until("both to be planned", || table.one::<i64>(planned, []) == 2);
    assert!(guide.run("sql").contains("report|"));
    table.wait_for_count("kind = 'cleanup' AND state = 'queued'", 1);
    guide.run("sql");
    let said = guide.run("sh");
    assert!(said.contains("report") && said.contains("Europe/Berlin"), "{said}");
    assert_eq!(table.one::<i64>("SELECT paused FROM schedules WHERE name = 'report'", []), 1);
    guide.end();
}

#[test]
fn workflows() {
    let mut guide = Guide::with_broker("docs/workflows.md", "");
    let table = guide.table();
    table.execute("INSERT INTO tasks(id, kind, payload) VALUES (41, 'page', '1'), (42, 'page', '2')", []);
    guide.run("sql");
    assert_eq!(table.state(43), "waiting");
    assert_eq!(guide.run("sql").lines().next(), Some("41"));
    guide.worker("page,publish,part");
    table.wait_for_state(43, "done");

    guide.run("console");
    table.wait_for_count("kind = 'report' AND state IN ('queued', 'waiting', 'done')", 1);
    let commands = guide.take("sh");
    table.execute("DELETE FROM sqlite_sequence WHERE name = 'task_groups'", []);
    table.execute("INSERT INTO sqlite_sequence(name, seq) VALUES ('task_groups', 6)", []);
    assert!(guide.run("sql").contains('2'));
    table.wait_for_count("group_id = 7 AND state NOT IN ('done', 'cancelled')", 0);
    // The page has cancelled them; the commands are for a group that lives.
    table.execute("DELETE FROM tasks WHERE group_id = 7", []);
    table.execute("INSERT INTO tasks(kind, payload, group_id) VALUES ('part', '1', 7), ('part', '2', 7)", []);
    guide.run_block(&commands);
    assert_eq!(table.count("group_id = 7 AND state = 'done'"), 2);
    guide.end();
}

#[test]
fn workers_in_other_languages() {
    tools::jq();
    let mut guide = Guide::with_broker("docs/workers.md", "");
    guide.run("sh");
    guide.run("console");
    guide.save("cat.jpg", "a cat");
    let table = guide.table();
    let good = table.insert("thumbnail", r#"{"path": "cat.jpg"}"#);
    table.execute(r#"INSERT INTO tasks(kind, payload, max_attempts) VALUES ('thumbnail', '{"path": "no"}', 1)"#, []);
    table.wait_for_state(good, "done");
    let said = table.column::<String>(good, "result || ' ' || progress_note");
    assert!(said.contains("bytes") && said.contains('5') && said.contains("reading cat.jpg"), "{said}");
    table.wait_for_state(good + 1, "dead");
    assert!(table.column::<String>(good + 1, "error").contains("no"), "the shell's own words are the error");

    std::os::unix::fs::symlink(block::root().join("examples"), guide.place.path("examples")).unwrap();
    // A link to the program would not find its packages.
    guide.save("bin/python3", &format!("#!/bin/sh\nexec {} \"$@\"\n", tools::python_with_zmq().display()));
    let mut fenced = guide.take("console");
    fenced.text = fenced.text.replace("app.db &", &format!("app.db {} &", guide.endpoint()));
    guide.run_block(&fenced);
    assert_eq!(table.count("kind = 'pay' AND state = 'done' AND id IN (SELECT task FROM payments)"), 1);
    guide.end();
}

#[test]
fn running_it() {
    tools::jq();
    let mut guide = Guide::with_broker("docs/operations.md", "mail,fail,stuck");
    let table = guide.table();
    let done = table.insert("mail", "1");
    table.execute("INSERT INTO tasks(kind, payload, max_attempts) VALUES ('fail', '{}', 1)", []);
    table.wait_for_state(done, "done");
    table.wait_for_state(done + 1, "dead");
    guide.wait_for_log(r#""event":"done""#);
    guide.wait_for_log(r#""event":"dead""#);
    let said = guide.run("console");
    assert!(said.contains("it always fails") && said.contains(r#""kind": "mail""#), "{said}");
    let said = guide.run("console");
    assert!(said.contains(" laneway::task dead ") && said.contains(r#"{"task":1,"event":"done"}"#), "{said}");

    let stuck = table.insert("stuck", r#"{"ms": 600000}"#);
    table.wait_for_state(stuck, "running");
    guide.kill_workers();
    table.wait_for_count(&format!("id = {stuck} AND losses = 1"), 1);
    guide.wait_for_log(r#""running":1"#);
    let lost = guide.run("console");
    assert!(lost.contains(r#""running":1"#), "{lost}");

    // Dead ones, of which three have a twin that lives; the commands say how many of each.
    let dead = "INSERT INTO tasks(kind, state, finished_at, error, unique_key) \
                WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 12) \
                SELECT 'resize', 'dead', 1, 'connect: no route to host', 'k' || i FROM n";
    table.execute(dead, []);
    let live = "INSERT INTO tasks(kind, unique_key) SELECT kind, unique_key FROM tasks WHERE kind = 'resize' LIMIT 3";
    table.execute(live, []);
    let said = guide.run("console");
    assert_eq!(said.matches("3 left alone whose key is live again").count(), 2, "{said}");
    assert_eq!(table.count("kind = 'resize' AND state = 'queued'"), 12);
    // Those three were dead for long enough.
    assert!(said.trim_end().ends_with('3'), "{said}");

    // The page's picture has another pane, and the same headings.
    let picture = guide.take("text").text;
    let said = guide.run("console");
    let heading = |text: &str| text.lines().find(|line| line.starts_with("LANE ")).map(alike);
    assert!(heading(&said).is_some() && heading(&said) == heading(&picture), "{said}");
    assert!(said.contains("it always fails") && said.contains("[4 Dead "), "{said}");

    let said = guide.run("console");
    assert!(
        said.starts_with("LANEWAY CRITICAL - 0 of 1 workers are connected | ") && said.contains("exit code 2"),
        "{said}"
    );
    let said = guide.run("console");
    assert!(said.contains("nobody works for resize") && said.contains(r#""wal_pinned_bytes":0"#), "{said}");
    guide.end();
}

#[test]
fn the_dashboard() {
    let mut guide = Guide::open("docs/dashboard.md");
    // The port of the page may be taken here, so the broker chooses one and tells it in its log.
    let mut start = guide.take("console");
    let words = "--web 127.0.0.1:0 --log-file broker.log --log-format json &";
    start.text = start.text.replace("--web 127.0.0.1:9730", words);
    guide.run_block(&start);
    guide.wait_for_broker();
    guide.worker("resize");
    // The form of the access file, which tests/web.rs reads.
    guide.take("text");
    let mut api = guide.take("console");
    api.text = api.text.replace("localhost:9730", &guide.dashboard());
    let said = guide.run_block(&api);
    assert!(said.contains("a.png") && said.contains("normal 0"), "{said}");
    guide.end();
}

#[test]
fn the_widget() {
    let mut guide = Guide::open("docs/widget.md");
    let mut start = guide.take("console");
    start.text =
        start.text.replace("--web 127.0.0.1:9730", "--web 127.0.0.1:0 --log-file broker.log --log-format json");
    let made = guide.run_block(&start);
    assert!(made.contains("http://127.0.0.1:9730/observe/v1."), "{made}");
    // The page, which tests/widget.rs shows to a browser, and the example, which it shows too.
    guide.take("text");
    std::os::unix::fs::symlink(block::root().join("examples"), guide.place.path("examples")).unwrap();
    let mut example = guide.take("console");
    example.text = example.text.replace("8000", "0");
    guide.run_block(&example);
    guide.next_task_is(12);
    guide.table().insert("report", "1");
    let dashboard = guide.dashboard();
    let told = |text: &str| serde_json::from_str::<serde_json::Value>(text.trim()).unwrap();
    let link = guide.run("python");
    let path = link.trim().strip_prefix("http://127.0.0.1:9730").unwrap();
    let state = harness::Http::at(&dashboard).get(&format!("{path}/state")).is(200).body;
    assert!(told(&state)["task"] == 12 && told(&state)["state"] == "queued", "{state}");
    let mut ask = guide.take("console");
    ask.text = ask.text.replace("127.0.0.1:9730", &dashboard);
    assert_eq!(told(&guide.run_block(&ask)), told(&state));
    guide.end();
}

#[test]
fn tuning() {
    let mut guide = Guide::with_broker("docs/tuning.md", "echo");
    guide.run("console");
    guide.run("toml");
    guide.run("toml");
    guide.end();
}

#[test]
fn check_back_up_restore() {
    let mut guide = Guide::with_broker("docs/faults.md", "echo");
    let table = guide.table();
    let task = table.insert("echo", "1");
    table.wait_for_state(task, "done");
    drop(table);
    for (command, shown) in guide.take("console").commands() {
        if command.starts_with("laneway db restore") {
            guide.table().execute("DELETE FROM tasks", []);
            guide.stop_broker();
        }
        guide.type_in(&command, &shown);
    }
    assert_eq!(guide.table().state(task), "done");
    guide.end();
}

#[test]
fn keys_and_roles() {
    let mut guide = Guide::open("docs/security.md");
    guide.run("console");
    guide.table().wait_for_count("kind = 'resize' AND state = 'queued'", 1);
    guide.end();
}

#[test]
fn rust_in_the_guides() {
    rust::compile_and_run();
}

#[test]
fn the_table_of_bounds_has_those_of_the_code() {
    // Proves that each fixed bound of a task, a group, a message and a worker is in the table with the number of the code.
    let page = std::fs::read_to_string(block::root().join("docs/bounds.md")).unwrap();
    let kib = |bytes: usize| format!("{} KiB", bytes / 1024);
    let mib = |bytes: usize| format!("{} MiB", bytes / 1024 / 1024);
    let bounds = [
        ("kind; lane", format!("1 to {} bytes; 1 to {} bytes", limits::KIND_BYTES_MAX, limits::LANE_BYTES_MAX)),
        ("payload", mib(limits::PAYLOAD_BYTES_MAX)),
        (
            "unique key",
            format!(
                "{}; {}; {} bytes",
                limits::UNIQUE_KEY_BYTES_MAX,
                limits::FAIR_KEY_BYTES_MAX,
                limits::TRACE_BYTES_MAX
            ),
        ),
        ("error", kib(limits::TEXT_BYTES_MAX)),
        ("attempts", grouped(limits::ATTEMPTS_MAX.into())),
        ("one run", format!("{} years", limits::TIMEOUT_MS_MAX / 365 / 24 / 3_600_000)),
        ("pause before", format!("{} days", limits::BACKOFF_MS_MAX / 24 / 3_600_000)),
        ("**a group**", grouped(limits::GROUP_COUNT_MAX)),
        (
            "name of a group",
            format!("{} bytes; {} characters", limits::GROUP_NAME_BYTES_MAX, limits::SCHEDULE_NAME_CHARS_MAX),
        ),
        ("**a message**", format!("{} and {} tasks", kib(limits::BODY_BYTES_MAX), limits::BATCH_MAX)),
        ("**a message**", format!("{} frames", grouped(limits::PAYLOAD_FRAMES_MAX as u64 + 4))),
        ("**a message**", mib(limits::MESSAGE_BYTES_MAX)),
        ("depth", limits::BODY_DEPTH_MAX.to_string()),
        ("a parked", format!("{} s", limits::WAIT_MS_MAX / 1000)),
        ("**a worker**", format!("{} kinds", limits::KINDS_PER_WORKER_MAX)),
        (
            "cap;",
            format!(
                "{}; {}; {}; {} %",
                grouped(limits::CAP_MAX.into()),
                grouped(limits::RATE_STARTS_MAX.into()),
                grouped(limits::WEIGHT_MAX.into()),
                limits::SHARE_MAX
            ),
        ),
    ];
    let missing: Vec<_> = bounds
        .iter()
        .filter(|(of, bound)| !page.lines().any(|row| row.starts_with(&format!("| {of}")) && row.contains(bound)))
        .collect();
    assert!(missing.is_empty(), "docs/bounds.md lacks {missing:#?}");
}

/// With commas, as the table has numbers.
fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let groups: Vec<&str> = digits.as_bytes().rchunks(3).rev().map(|group| str::from_utf8(group).unwrap()).collect();
    groups.join(",")
}
