//! What programs read and do over HTTP: the JSON API, health and metrics, against a real broker and a real worker.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use harness::{Apart, Broker, Http, Place, Table, WorkerProcess, wait_until};
use serde_json::json;

#[test]
fn worker_process() {
    // Not a test of its own: the worker processes of the tests in this file begin here.
    harness::worker_main();
}

fn start(place: &Place) -> (Broker, Http) {
    let broker = Broker::start_as(place, &["--web", "127.0.0.1:0"]);
    let http = Http::of(&broker);
    (broker, http)
}

/// Waits until something holds for the text at this path.
fn wait_for_page(http: &Http, path: &str, holds: impl Fn(&str) -> bool) {
    wait_until(&format!("{path} to say so"), || holds(&http.get(path).body));
}

#[test]
fn a_program_submits_waits_and_changes_over_http() {
    // Proves the API alone as a client: submit with the result, many at once, wait by id, changes, and a dry run.
    let place = Place::new();
    let (_broker, http) = start(&place);
    let _worker = WorkerProcess::start(&place, "slots=2");
    let done =
        http.post_json("/api/v1/tasks", &json!({"kind": "echo", "payload": {"a": [1]}, "wait_ms": 30_000})).is(200);
    let done = done.json();
    assert_eq!((&done["state"], &done["result"], &done["new"]), (&json!("done"), &json!({"a": [1]}), &json!(true)));
    let many =
        json!({"tasks": [{"kind": "sleep", "payload": {"ms": 50}}, {"kind": "gate", "payload": {"path": "/nothing"}}]});
    let many = http.post_json("/api/v1/tasks", &many).is(200).json();
    let (short, long) = (many["tasks"][0]["task"].as_i64().unwrap(), many["tasks"][1]["task"].as_i64().unwrap());
    assert_eq!(http.get(&format!("/api/v1/tasks/{short}/wait?wait_ms=30000")).is(200).json()["state"], "done");
    assert_eq!(http.get(&format!("/api/v1/tasks/{long}/wait?wait_ms=50")).is(202).json()["pending"], true);
    let shown = http.get(&format!("/api/v1/tasks/{long}")).is(200).json();
    assert_eq!((&shown["state"], &shown["payload"]["path"]), (&json!("running"), &json!("/nothing")));
    let verdict = http.post_json(&format!("/api/v1/tasks/{long}/cancel"), &json!({})).is(200).json();
    assert_eq!(verdict, json!({"task": long, "verdict": "requested"}));

    let keyed = http.with("idempotency-key", "order-17");
    let [first, again] = [0, 1].map(|_| keyed.post_json("/api/v1/tasks", &json!({"kind": "nobody"})).is(200).json());
    assert_eq!(first["task"], again["task"]);

    let bad = http.post_json("/api/v1/tasks", &json!({"kind": "echo", "lane": "fast"})).is(400).json();
    assert!(bad["code"] == "unknown_lane" && bad["message"].as_str().unwrap().contains("high, normal, low"), "{bad}");
    let bad = http.post_json("/api/v1/tasks", &json!({"tasks": [{"kind": "a"}, {"kind": ""}]})).is(400).json();
    assert_eq!(bad["field"], "tasks[1].kind");
    // What is misspelt is not taken for what was not said.
    let bad = http.post_json("/api/v1/tasks", &json!({"kind": "echo", "run_att": 1})).is(400).json();
    assert_eq!(bad["field"], "run_att");
    let misspelt = json!({"change": "purge", "filter": {"state": "done", "older_then_ms": 1}});
    assert_eq!(http.post_json("/api/v1/bulk", &misspelt).is(400).json()["field"], "filter.older_then_ms");
    let many = json!({"tasks": [{"kind": "a"}], "wait_mss": 5});
    assert_eq!(http.post_json("/api/v1/tasks", &many).is(400).json()["field"], "wait_mss");
    http.post_json("/api/v1/tasks/999/cancel", &json!({})).is(404);
    http.post_json(&format!("/api/v1/tasks/{short}/explode"), &json!({})).is(400);

    let lane = http.post_json("/api/v1/lanes/low", &json!({"share": 10, "paused": true})).is(200).json();
    assert_eq!((&lane["share"], &lane["paused"]), (&json!(10), &json!(true)));
    // A kind that nothing is left of once its values are taken back, and then is as any other.
    for (change, field, value) in [
        (json!({"cap": 3}), "cap", json!(3)),
        (json!({"reset": true}), "cap", json!(null)),
        (json!({"paused": true}), "paused", json!(true)),
        (json!({"paused": false}), "paused", json!(false)),
    ] {
        let kind = http.post_json("/api/v1/kinds/settings-alone", &change).is(200).json();
        assert_eq!((&kind["kind"], &kind[field]), (&json!("settings-alone"), &value), "{change}: {kind}");
    }
    let dry =
        http.post_json("/api/v1/bulk", &json!({"change": "purge", "q": "state:done", "dry_run": true})).is(200).json();
    let number = dry["number"].as_u64().unwrap();
    wait_until("the batch to be over", || http.get(&format!("/api/v1/batches/{number}")).json()["over"] == true);
    assert_eq!(http.get(&format!("/api/v1/batches/{number}")).json()["changed"], 2);
    http.post_json("/api/v1/bulk", &json!({"change": "purge", "q": ""})).is(400);
    assert_eq!(http.get("/api/v1/openapi.json").is(200).json()["openapi"], "3.1.0");
}

#[test]
fn every_error_of_the_api_has_one_shape() {
    // Proves code, message and field for paths, methods, parameters and bodies that make no sense, that no type of the program is
    // named, and that a browser gets a page for the same.
    let place = Place::new();
    let (_broker, http) = start(&place);
    let mut wrong = Vec::new();
    for (path, status, field) in [
        ("/tasks/abc", 400, Some("id")),
        ("/tasks/99999999999999999999/log", 400, Some("id")),
        ("/groups/abc", 400, Some("id")),
        ("/groups/18446744073709551615", 404, None),
        ("/batches/x", 400, Some("n")),
        ("/batches/7", 404, Some("n")),
        ("/tasks?knd=x", 400, Some("knd")),
        ("/tasks/1/wait?ms=5", 400, Some("ms")),
        ("/lanes?q=x", 400, Some("q")),
        ("/lanes/low", 405, None),
    ] {
        wrong.push((path, field, http.get(&format!("/api/v1{path}")).is(status)));
    }
    for (path, body, status, field) in [
        ("/lanes/nosuch", json!({"paused": true}), 404, Some("name")),
        ("/lanes/low", json!({"share": -1}), 400, Some("share")),
        ("/lanes/low", json!({"shares": 1}), 400, Some("shares")),
        ("/kinds/mail", json!({"capp": 5, "paused": true}), 400, Some("capp")),
        ("/kinds/mail", json!({"cap": "x"}), 400, Some("cap")),
        ("/kinds/mail", json!({"reset": 1}), 400, Some("reset")),
        // What the broker refuses it names in its own message; here the field is the one of the body or the path.
        ("/lanes/low", json!({"share": 101}), 400, Some("share")),
        ("/lanes/low", json!({"paused": false, "cap": u32::MAX}), 400, Some("cap")),
        ("/kinds/mail", json!({"backoff_base_ms": 9, "backoff_max_ms": 5}), 400, Some("backoff_base_ms")),
        ("/kinds/mail", json!({"lane": "nosuch"}), 400, Some("lane")),
        ("/tasks", json!({"kind": "a", "lane": "nosuch"}), 400, Some("lane")),
        ("/tasks", json!({"tasks": [{"kind": "a", "lane": "nosuch"}]}), 400, Some("tasks[0].lane")),
        ("/bulk", json!({"change": "purge", "q": format!("kind:{}", "x".repeat(5_000))}), 400, Some("q")),
        ("/bulk", json!({"change": "purge", "filter": {"kind": "x".repeat(5_000)}}), 400, Some("filter.kind")),
        ("/batches/7", json!({"stop": true}), 404, Some("n")),
        ("/workers/nosuch/drain", json!({}), 404, Some("session")),
        ("/tasks", json!([1]), 400, Some("body")),
        ("/tasks", json!({"tasks": 5}), 400, Some("tasks")),
        ("/tasks", json!({"kind": 5}), 400, Some("kind")),
        ("/tasks", json!({"kind": "a", "wait_ms": "x"}), 400, Some("wait_ms")),
        ("/tasks/x/cancel", json!({}), 400, Some("id")),
        ("/bulk", json!({}), 400, Some("change")),
        ("/bulk", json!({"change": "purge", "filter": {"state": "over"}}), 400, Some("filter.state")),
        ("/schedules/nosuch/pause", json!({}), 404, None),
        ("/schedules/nosuch/resume", json!({}), 404, None),
        ("/schedules/nosuch/remove", json!({}), 404, None),
        ("/schedules/nosuch/run-now", json!({}), 404, None),
        ("/stats", json!({}), 405, None),
    ] {
        wrong.push((path, field, http.post_json(&format!("/api/v1{path}"), &body).is(status)));
    }
    // A field that stands twice has no meaning, in objects within the body too; a payload is its app's own.
    for (path, body, field) in [
        ("/tasks", r#"{"kind": "a", "kind": "b"}"#, "kind"),
        ("/tasks", r#"{"tasks": [{"kind": "a"}, {"kind": "a", "lane": "low", "lane": "high"}]}"#, "tasks[1].lane"),
        ("/kinds/mail", r#"{"cap": 1, "cap": 2}"#, "cap"),
        ("/lanes/low", r#"{"paused": true, "paused": false}"#, "paused"),
        ("/bulk", r#"{"change": "purge", "filter": {"state": "done", "state": "dead"}}"#, "filter.state"),
    ] {
        wrong.push((path, Some(field), http.ask("POST", &format!("/api/v1{path}"), body).is(400)));
    }
    http.ask("POST", "/api/v1/tasks", r#"{"kind": "nobody", "payload": {"a": 1, "a": 2}}"#).is(200);
    // The sum of all shares is refused in the one that was asked for.
    http.post_json("/api/v1/lanes/low", &json!({"share": 60})).is(200);
    wrong.push(("/lanes/normal", Some("share"), http.post_json("/api/v1/lanes/normal", &json!({"share": 60})).is(400)));
    for (path, field, answer) in wrong {
        let said = answer.json();
        assert!(said["code"].is_string() && said["message"].is_string(), "{path}: {said}");
        assert_eq!(said["field"].as_str(), field, "{path}: {said}");
        for type_name in ["u32", "u64", "i64", "struct", "enum", "LaneChange", "variant", " at line "] {
            assert!(!answer.body.contains(type_name), "{path}: {said}");
        }
        assert_eq!(answer.header("allow").is_some(), answer.status == 405, "{path}: {}", answer.head);
    }
    let known = http.get("/api/v1/tasks?knd=x").json();
    assert_eq!(known["next"], "there are q, state, before, limit");
    for (path, status) in [("/tasks/abc", 400), ("/groups/x", 400), ("/batches/x", 400), ("/lanes/change", 405)] {
        let page = http.get(path).is(status);
        assert!(page.body.contains("</html>") && page.body.contains("Overview"), "{path}: {}", page.body);
        assert_eq!(page.header("allow"), (status == 405).then_some("POST"), "{path}: {}", page.head);
    }
}

#[test]
fn what_is_no_request_of_the_api_is_refused_without_a_body() {
    // Proves what the guide says of errors that have no JSON: what is no HTTP, and a head over its bound.
    let place = Place::new();
    let (_broker, http) = start(&place);
    for (path, status) in [("/api/v1/tasks?q=attempt>1", 400), (&format!("/{}", "a".repeat(100_000)), 431)] {
        assert!(http.get(path).is(status).body.is_empty());
    }
    // To the byte, in however many pieces it comes.
    let answer = |bytes: usize, piece: usize| {
        let mut head = format!("GET /livez HTTP/1.1\r\nhost: {}\r\nconnection: close\r\nx-fill: ", http.address());
        head.push_str(&"a".repeat(bytes - head.len() - 4));
        head.push_str("\r\n\r\n");
        let mut stream = TcpStream::connect(http.address()).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
        for piece in head.as_bytes().chunks(piece) {
            stream.write_all(piece).unwrap();
        }
        let mut status = [0; 12];
        stream.read_exact(&mut status).unwrap();
        String::from_utf8_lossy(&status[9..]).into_owned()
    };
    for piece in [1_000, 100_000] {
        assert_eq!([answer(32 * 1024, piece), answer(32 * 1024 + 1, piece)], ["200", "431"], "{piece}");
    }
}

#[test]
fn all_that_match_may_be_said_with_every_word_of_the_filter() {
    // Proves that a batch goes by key, fair key, group, worker and attempts too, and by nothing that was not said.
    let place = Place::new();
    let (_broker, http) = start(&place);
    let table = Table::open(&place);
    let _worker = WorkerProcess::start(&place, "name=webby kinds=fail");
    table.execute("INSERT INTO tasks (kind, unique_key, fair_key, group_id) VALUES ('nobody', 'one', 'acme', 7)", []);
    let keyed = table.0.last_insert_rowid();
    table.execute("INSERT INTO tasks (kind, max_attempts) VALUES ('fail', 1)", []);
    let dead = table.0.last_insert_rowid();
    table.wait_for_state(dead, "dead");
    table.insert("nobody", "1");
    wait_for_page(&http, "/workers", |body| body.contains("webby"));
    for (words, meets) in [
        ("key:one", 1),
        ("key:two", 0),
        ("fair:acme", 1),
        ("group:7 kind:nobody", 1),
        ("attempt>=1", 1),
        ("attempt<1", 2),
        ("worker:webby", 1),
        ("kind:nobody", 2),
    ] {
        let asked = json!({"change": "cancel", "q": words, "dry_run": true});
        let number = http.post_json("/api/v1/bulk", &asked).is(200).json()["number"].as_u64().unwrap();
        let stand = || http.get(&format!("/api/v1/batches/{number}")).json();
        wait_until("the batch to be over", || stand()["over"] == true);
        assert_eq!(stand()["seen"], meets, "{words}");
    }
    http.post("/tasks/change-all", "change=cancel&q=key:one").is(303);
    table.wait_for_state(keyed, "cancelled");
    table.wait_for_count("state = 'queued'", 1);
}

#[test]
fn the_api_has_what_the_screens_show() {
    // Proves notices, history, About, kinds, a task's log and a drain of all over HTTP, and kinds by their form.
    let place = Place::new();
    let (broker, http) = start(&place);
    let _worker = WorkerProcess::start(&place, "slots=1 name=webby");
    let table = Table::open(&place);
    let go_on = place.path("go on");
    std::fs::write(&go_on, "").unwrap();
    let task = table.insert("log", &json!({"lines": 3, "path": go_on}).to_string());
    table.wait_for_state(task, "done");
    let log = http.get(&format!("/api/v1/tasks/{task}/log")).is(200).json();
    assert_eq!(log["task"], task);
    let lines = log["lines"].as_array().unwrap();
    assert!(lines.len() == 3 && lines[2].as_str().unwrap().contains("line 3"), "{log}");
    http.get("/api/v1/tasks/999/log").is(404);

    table.insert("nobody", "1");
    let notices = || http.get("/api/v1/notices").is(200).json()["notices"].take();
    wait_until("a notice", || notices()[0]["text"].as_str().is_some_and(|text| text.contains("kind nobody")));
    let notice = &notices()[0];
    assert!(notice["level"] == "warn" && notice["link"] == "/tasks?state=queued&q=kind:nobody", "{notice}");
    wait_until("some history", || {
        let history = http.get("/api/v1/history").is(200).json();
        history["rates"].as_array().is_some_and(|rates| rates.len() > 1) && history["lanes"]["normal"].is_array()
    });
    let about = http.get("/api/v1/about").is(200).json();
    assert_eq!((&about["broker"]["epoch"], &about["endpoint"]), (&json!(1), &json!(broker.endpoint())));
    assert!(about["schema"].as_u64() > Some(1) && about["visitor"]["role"] == "admin", "{about}");
    assert!(about["settings"].as_array().unwrap().iter().any(|setting| setting["name"] == "web.bind"), "{about}");

    for (change, cap, paused) in
        [("pause", json!(null), true), ("set&cap=2&rate=10/s", json!(2), true), ("resume", json!(2), false)]
    {
        http.post("/kinds/change", &format!("kind=nobody&change={change}")).is(303);
        let kinds = || http.get("/api/v1/kinds").is(200).json()["kinds"].take();
        let is_so =
            |kind: &serde_json::Value| kind["kind"] == "nobody" && kind["paused"] == paused && kind["cap"] == cap;
        wait_until(change, || kinds().as_array().unwrap().iter().any(is_so));
    }
    assert!(http.get("/lanes").body.contains("value=\"10/s\""));
    assert_eq!(http.post("/kinds/change", "kind=nobody&change=set&cap=x").status, 400);
    // The page stays with the kinds that were looked for.
    let place = http.post("/kinds/change", "kind=nobody&change=resume&find=body").is(303);
    assert_eq!(place.header("location"), Some("/lanes?find=body"));
    let found = http.get("/lanes?find=body").is(200).body;
    assert!(found.contains("data-key=\"nobody\"") && !found.contains("data-key=\"log\""), "{found}");
    let first = http.get("/api/v1/kinds?limit=1").is(200).json();
    let rest = http.get(&format!("/api/v1/kinds?after={}", first["next"].as_str().unwrap())).is(200).json();
    assert!(first["kinds"].as_array().unwrap().len() == 1 && rest["next"].is_null(), "{rest}");
    assert!(first["kinds"][0]["kind"].as_str() < rest["kinds"][0]["kind"].as_str(), "{first} {rest}");

    assert_eq!(http.post_json("/api/v1/workers/drain", &json!({})).is(200).json()["draining"], true);
    wait_until("the drain", || http.get("/readyz").status == 503);
    http.post_json("/api/v1/workers/drain", &json!({"off": true})).is(200);
    wait_until("its end", || http.get("/readyz").status == 200);
}

#[test]
fn groups_are_counted_without_the_broker() {
    // Proves the counts of list, page and API, that a count which was cut off says so, and that all come while the broker's own
    // transactions wait for an app's: nothing of it is asked of the scheduler.
    let place = Place::new();
    let (_broker, http) = start(&place);
    let table = Table::open(&place);
    table.execute("INSERT INTO task_groups (name) VALUES ('small'), ('large')", []);
    table.execute("INSERT INTO tasks (kind, state, group_id) VALUES ('k', 'done', 1), ('k', 'dead', 1)", []);
    table.execute(
        "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 12000)
         INSERT INTO tasks (kind, group_id, run_at) SELECT 'k', 2, 4000000000000 FROM n",
        [],
    );
    table.execute("BEGIN IMMEDIATE", []);
    let list = http.get("/groups").is(200).body;
    assert!(list.contains("2 of 2 ended, 1 dead") && list.contains("0 ended, at least 10,000 to go"), "{list}");
    let one = http.get("/groups/2").is(200).body;
    assert!(one.contains("12,000") && one.contains("large") && !one.contains("at least"), "{one}");
    let groups = http.get("/api/v1/groups").is(200).json()["groups"].take();
    assert_eq!(
        (&groups[1]["name"], &groups[1]["done"], &groups[1]["at_least"]),
        (&json!("small"), &json!(1), &json!([]))
    );
    assert_eq!((&groups[0]["queued"], &groups[0]["at_least"]), (&json!(10_000), &json!(["queued"])));
    let one = http.get("/api/v1/groups/2").is(200).json();
    assert_eq!((&one["group"], &one["queued"], &one["dead"]), (&json!(2), &json!(12_000), &json!(0)));
    http.get("/api/v1/groups/3").is(404);
    http.get("/groups/3").is(404);
    table.execute("COMMIT", []);
}

#[test]
fn programs_that_watch_get_what_they_read() {
    // Proves health, metrics and plain columns, and what each says when the broker is gone, quiet or drains.
    let place = Place::new();
    let (broker, http) = start(&place);
    Table::open(&place).insert("mail", "1");
    wait_until("the task to be counted", || http.get("/status.txt").body.contains("lane normal queued 1"));
    http.get("/livez").is(200);
    http.get("/readyz").is(200);
    // Of one picture: the next one may have missed the broker's answer on a machine that does much else.
    let says = [
        "laneway_tasks_queued{lane=\"normal\"} 1",
        "laneway_tasks_submitted_total 1",
        "laneway_database_bytes ",
        "laneway_up 1",
        "# EOF",
    ];
    wait_for_page(&http, "/metrics", |text| says.iter().all(|line| text.contains(line)));
    // Whoever submits is served by a quiet broker, and everybody sees that it is quiet.
    broker.signal("TSTP");
    wait_until("the broker to be quiet", || http.get("/metrics").body.contains("laneway_quiet 1"));
    wait_until("a quiet broker to be ready", || http.get("/readyz").status == 200);
    wait_for_page(&http, "/status.txt", |text| text.contains("notice warn The broker is quiet"));
    wait_for_page(&http, "/", |page| page.contains(", quiet"));
    broker.signal("CONT");
    wait_until("it to go on", || http.get("/metrics").body.contains("laneway_quiet 0"));
    assert!(http.post("/workers/drain", "release=").is(200).body.contains("Drain all?"));
    http.get("/readyz").is(200);
    http.post("/workers/drain", "release=&confirmed=1").is(303);
    wait_until("the drain", || http.get("/readyz").status == 503);
    http.get("/livez").is(200);
}

#[test]
fn a_broker_that_finishes_its_last_tasks_is_not_ready() {
    // Proves that a balancer is told of a stop while there is still time: alive, and draining.
    let place = Place::new();
    let (broker, http) = start(&place);
    let table = Table::open(&place);
    let _worker = WorkerProcess::start(&place, "slots=1 kinds=sleep");
    let task = table.insert("sleep", r#"{"ms":60000}"#);
    table.wait_for_state(task, "running");
    wait_until("the broker to be ready", || http.get("/readyz").status == 200);
    broker.signal("TERM");
    wait_until("the stop to be told", || http.get("/readyz").body.contains("drains"));
    http.get("/livez").is(200);
}

#[test]
fn a_store_that_does_not_answer_is_told_from_a_broker_that_does_not() {
    // Proves health and metrics while an app holds the write lock for long: alive, not ready, and the reason in both.
    let place = Place::new();
    let (_broker, http) = start(&place);
    wait_until("the broker to be ready", || http.get("/readyz").status == 200);
    let table = Table::open(&place);
    table.execute("BEGIN IMMEDIATE", []);
    wait_until("the store to be missed", || http.get("/readyz").body.contains("the store refuses work"));
    http.get("/livez").is(200);
    wait_for_page(&http, "/metrics", |text| text.contains("laneway_storage_error 1") && text.contains("laneway_up 1"));
    wait_for_page(&http, "/", |page| page.contains("The store refuses work"));
    table.execute("COMMIT", []);
    wait_until("the broker to be ready again", || http.get("/readyz").status == 200);
}

#[test]
fn a_table_of_another_program_is_not_ready() {
    // Proves that a schema which this program does not know, newer or older, is told with both numbers, in health and about.
    let place = Place::new();
    let (_broker, http) = start(&place);
    wait_until("the broker to be ready", || http.get("/readyz").status == 200);
    let table = Table::open(&place);
    let newest = || table.one::<u32>("SELECT max(version) FROM laneway_schema_history", []);
    let known = newest();
    for (sql, than) in [
        ("UPDATE laneway_schema_history SET version = ?1 + 1 WHERE version = ?1", "newer"),
        ("DELETE FROM laneway_schema_history WHERE version = ?1 + 1", "older"),
    ] {
        table.execute(sql, [known]);
        let found = newest();
        let says = format!("the database has schema {found}, {than} than {known}, which this program knows");
        wait_until(&says, || http.get("/readyz").body.trim_end() == says);
        http.get("/readyz").is(503);
        http.get("/livez").is(200);
        assert!(http.get("/about").body.contains(&format!("version {found}; this program knows {known}")));
    }
}

#[test]
fn a_submit_that_is_not_answered_is_safe_to_repeat_with_its_key() {
    // Proves that nobody is told "not stored" of what is on its way, what to do then, and that the key makes it one task.
    let place = Place::new();
    let broker = Broker::start(&place);
    let apart = Apart::start(&place, broker.endpoint(), &[]);
    let http = apart.http();
    let keyed = http.with("idempotency-key", "order-17");
    for (asks, body, says) in [
        (&http, json!({"kind": "nobody"}), "with an Idempotency-Key repeating is safe"),
        (&keyed, json!({"kind": "keyed", "wait_ms": 100}), "the same Idempotency-Key"),
    ] {
        // The dashboard's own look may be the one that finds the broker away; then nothing was sent.
        wait_until("a submit on its way", || {
            wait_until("the dashboard to be connected", || http.get("/api/v1/batches/1").status == 404);
            broker.signal("STOP");
            let answer = asks.post_json("/api/v1/tasks", &body);
            broker.signal("CONT");
            let said = answer.json();
            if answer.status == 503 {
                assert_eq!(said["code"], "no_broker", "{said}");
                return false;
            }
            assert!(
                said["code"] == "no_answer" && said["message"].as_str().unwrap().contains("is not known"),
                "{said}"
            );
            assert!(said["next"].as_str().unwrap().contains(says), "{said}");
            answer.status == 504
        });
    }
    let again = || keyed.post_json("/api/v1/tasks", &json!({"kind": "keyed"}));
    wait_until("the broker to answer", || again().status == 200);
    assert_eq!(Table::open(&place).count("kind = 'keyed'"), 1);
}

#[test]
fn a_submit_whose_wait_fails_tells_what_is_stored() {
    // Proves that a broker which goes in the middle of a wait does not make a stored task an error.
    let place = Place::new();
    let broker = Broker::start(&place);
    let apart = Apart::start(&place, broker.endpoint(), &[]);
    let http = apart.http();
    let table = Table::open(&place);
    let stored = std::thread::scope(|scope| {
        let waits = scope.spawn(|| http.post_json("/api/v1/tasks", &json!({"kind": "nobody", "wait_ms": 60_000})));
        table.wait_for_count("kind = 'nobody'", 1);
        // The broker is asked one thing after the other: with this answer the one before is in.
        http.get("/api/v1/batches/1").is(404);
        drop(broker);
        waits.join().unwrap()
    });
    let stored = stored.is(200).json();
    assert!(stored["task"].is_u64() && stored.get("state").is_none(), "{stored}");
}

#[test]
fn workers_come_in_pages_by_session() {
    // Proves that pages of any size have each worker once, in order, and that the page of people finds one by its name.
    let place = Place::new();
    let (_broker, http) = start(&place);
    let names = ["one", "two", "three"];
    let _workers = names.map(|name| WorkerProcess::start(&place, &format!("slots=1 name={name}")));
    let page = |words: &str| http.get(&format!("/api/v1/workers?{words}")).is(200).json();
    wait_until("all workers", || page("")["workers"].as_array().unwrap().len() == names.len());
    let all = page("");
    assert!(all["next"].is_null(), "{all}");
    for limit in [1, 2, 3, 500] {
        let (mut found, mut after) = (Vec::new(), String::new());
        loop {
            let page = page(&format!("limit={limit}&after={after}"));
            let rows = page["workers"].as_array().unwrap();
            assert!(rows.len() <= limit, "{page}");
            found.extend(rows.iter().map(|row| row["session"].clone()));
            match page["next"].as_str() {
                Some(next) => after = next.to_owned(),
                None => break,
            }
        }
        assert_eq!(
            found,
            all["workers"].as_array().unwrap().iter().map(|row| row["session"].clone()).collect::<Vec<_>>()
        );
    }
    assert_eq!(http.get("/api/v1/workers?limit=501").is(400).json()["field"], "limit");
    let body = http.get("/workers?find=thre").is(200).body;
    assert!(body.contains("three") && !body.contains("\"row\">two"), "{body}");
    assert!(http.get("/workers?find=four").is(200).body.contains("No worker has four in its name"));
}

#[test]
fn schedules_come_in_pages_by_name() {
    // Proves the bound of a page, where the next one begins, and that all of them together are all schedules, each once.
    let place = Place::new();
    let (_broker, http) = start(&place);
    Table::open(&place).execute(
        "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 1201)
         INSERT INTO schedules (name, cron, kind) SELECT printf('s%04d', x), '0 3 * * *', 'report' FROM n",
        [],
    );
    let page = |words: &str| {
        let page = http.get(&format!("/api/v1/schedules?{words}")).is(200).json();
        let names = page["schedules"].as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap().to_owned());
        (names.collect::<Vec<_>>(), page["next"].as_str().map(str::to_owned))
    };
    let (mut all, mut next) = page("");
    while let Some(after) = next {
        assert_eq!((all.len() % 500, all.last()), (0, Some(&after)));
        let (more, behind) = page(&format!("after={after}"));
        all.extend(more);
        next = behind;
    }
    assert_eq!(all, (1..=1201).map(|n| format!("s{n:04}")).collect::<Vec<_>>());
    assert_eq!(page("limit=2&after=s0002"), (vec!["s0003".into(), "s0004".into()], Some("s0004".into())));
    assert_eq!(page("after=s1200"), (vec!["s1201".into()], None));
    assert_eq!(http.get("/api/v1/schedules?limit=501").is(400).json()["field"], "limit");
}
