//! The dashboard as a browser meets it: its pages, who is let in, and what is shed; a real broker, a real worker, HTTP over plain sockets.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use std::io::{BufRead, BufReader};
use std::time::{Duration, Instant};

use harness::{Apart, Broker, Http, Place, Said, Table, WorkerProcess, wait_until};
use serde_json::json;

#[test]
fn worker_process() {
    // Not a test of its own: the worker processes of the tests in this file begin here.
    harness::worker_main();
}

const WEB: [&str; 2] = ["--web", "127.0.0.1:0"];

fn start(place: &Place) -> (Broker, Http) {
    let broker = Broker::start_as(place, &WEB);
    let http = Http::of(&broker);
    (broker, http)
}

/// Waits until something holds for the text at this path.
fn wait_for_page(http: &Http, path: &str, holds: impl Fn(&str) -> bool) {
    wait_until(&format!("{path} to say so"), || holds(&http.get(path).body));
}

#[test]
fn every_page_answers_with_what_is_there() {
    // Proves that each page is complete HTML without JavaScript, with the protection that every answer has.
    let place = Place::new();
    let (_broker, http) = start(&place);
    let table = Table::open(&place);
    let _worker = WorkerProcess::start(&place, "slots=2 name=webby");
    let done = table.insert("echo", "{\"word\":\"hello <b>\"}");
    table.wait_for_state(done, "done");
    table.execute("INSERT INTO tasks(kind, max_attempts) VALUES ('fail', 1)", []);
    let dead = table.0.last_insert_rowid();
    table.wait_for_state(dead, "dead");
    for (path, says) in [
        ("/", "Throughput"),
        ("/tasks", "echo"),
        ("/lanes", "normal"),
        ("/workers", "webby"),
        ("/dead", "Requeue"),
        ("/groups", "No group is there"),
        ("/schedules", "No schedule is there"),
        ("/about", "epoch 1"),
    ] {
        wait_for_page(&http, path, |body| body.contains(says));
        let page = http.get(path).is(200);
        assert!(page.body.contains("</html>") && !page.body.contains("style=\""), "{path}");
        let policy = page.header("content-security-policy").unwrap();
        let nonce = policy.split("'nonce-").nth(1).and_then(|rest| rest.split('\'').next()).unwrap();
        assert!(page.body.contains(&format!("nonce=\"{nonce}\"")) && policy.contains("default-src 'none'"), "{policy}");
        assert_eq!(page.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(page.header("referrer-policy"), Some("same-origin"));
        assert_eq!(page.header("cache-control"), Some("no-store"));
    }
    let page = http.get(&format!("/tasks/{done}")).is(200).body;
    assert!(
        page.contains("hello &#60;b&#62;") && page.contains("Run 1: done") && !page.contains("hello <b>"),
        "{page}"
    );
    let style = page
        .split("href=\"")
        .find_map(|rest| rest.split('"').next().filter(|link| link.contains("/assets/app.")))
        .unwrap();
    let asset = http.get(style).is(200);
    assert!(asset.header("cache-control").unwrap().contains("immutable"));
    http.with("if-none-match", asset.header("etag").unwrap()).get(style).is(304);
    http.get("/tasks/999").is(404);
    http.get("/nothing").is(404);
}

#[test]
fn the_dashboard_gives_way_to_the_work() {
    // Proves that its threads are less urgent than all others, where processors are short.
    let place = Place::new();
    let (broker, _http) = start(&place);
    let folder = format!("/proc/{}/task", broker.pid());
    // The 19th field, as proc(5) counts them; the second is the name in brackets.
    let of = |line: String| -> i32 { line.rsplit_once(") ").unwrap().1.split(' ').nth(16).unwrap().parse().unwrap() };
    let nice = |name: &str| -> Vec<i32> {
        let threads = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path().join("stat"));
        let lines = threads.filter_map(|stat| std::fs::read_to_string(stat).ok());
        lines.filter(|line| line.contains(&format!("({name})"))).map(of).collect()
    };
    // The tests themselves may be run by somebody who gives way.
    let own = of(std::fs::read_to_string("/proc/self/stat").unwrap());
    for name in ["web", "live", "rows"] {
        wait_until(&format!("{name} to give way"), || nice(name) == [(own + 5).min(19)]);
    }
    for name in ["router", "scheduler"] {
        // A thread that one of them starts has its name for a moment.
        wait_until(&format!("{name} to be as urgent as it was"), || nice(name) == [own]);
    }
}

#[test]
fn what_a_page_does_is_done() {
    // Proves pause and resume of a lane, requeue and purge of selected tasks, a question before what cannot be undone, and a batch
    // over a filter, each by the form that the page sends.
    let place = Place::new();
    let (_broker, http) = start(&place);
    let table = Table::open(&place);
    let _worker = WorkerProcess::start(&place, "slots=1");
    for _ in 0..3 {
        table.execute("INSERT INTO tasks(kind, max_attempts) VALUES ('fail', 1)", []);
    }
    (1..=3).for_each(|task| table.wait_for_state(task, "dead"));

    http.post("/lanes/change", "lane=normal&change=pause").is(303);
    wait_for_page(&http, "/lanes", |body| body.contains("paused"));
    http.post("/tasks/change", "change=requeue&task=1&task=2&back=/tasks").is(303);
    assert_eq!((table.state(1), table.state(3)), ("queued".into(), "dead".into()));
    http.post("/lanes/change", "lane=normal&change=resume").is(303);
    (1..=2).for_each(|task| table.wait_for_state(task, "dead"));

    let asks = http.post("/tasks/change", "change=purge&task=1").is(200).body;
    assert!(asks.contains("Nothing brings it back") && table.state(1) == "dead");
    http.post("/tasks/change", "change=purge&task=1&confirmed=1").is(303);
    http.get("/tasks/1").is(404);
    let left_alone = http.post("/tasks/change", "change=requeue&task=1").is(200).body;
    assert!(left_alone.contains("there is no such task"), "{left_alone}");

    let asks = http.get("/tasks/change-all?change=purge&state=dead&q=kind:fail").is(200).body;
    assert!(asks.contains("<b>2</b> tasks"), "{asks}");
    // What stays is not counted: those that live, and one that a live task of its group needs.
    table.execute("INSERT INTO task_groups (name) VALUES ('half')", []);
    table.execute("INSERT INTO tasks (kind, state, group_id) VALUES ('half', 'dead', 1)", []);
    table.execute("INSERT INTO tasks (kind, group_id, run_at) VALUES ('half', 1, 4000000000000)", []);
    table.execute("INSERT INTO tasks (kind, state) VALUES ('half', 'dead')", []);
    let asks = http.get("/tasks/change-all?change=purge&q=kind:half").is(200).body;
    assert!(asks.contains("<b>1</b> tasks"), "{asks}");
    assert!(asks.contains("1 still needed by a group, a child or a unique key; 1 in no state for it"), "{asks}");
    let asks = http.post("/tasks/change", "change=purge&task=4&task=5").is(200).body;
    assert!(asks.contains("Delete up to 2 tasks?"), "{asks}");
    table.execute("DELETE FROM tasks WHERE kind = 'half'", []);
    let batch = http.post("/tasks/change-all", "change=purge&state=dead&q=kind:fail").is(303);
    wait_for_page(&http, batch.header("location").unwrap(), |body| body.contains(">over<"));
    assert_eq!(http.get("/api/v1/tasks").json()["tasks"], json!([]));
    // A form that names another host goes to a page of ours.
    let away = http.post("/tasks/change", "change=run-now&task=9&back=//evil.example/").is(200).body;
    assert!(!away.contains("evil.example"));
}

#[test]
fn filters_lead_to_pages_and_slips_to_words() {
    // Proves the filter language over HTTP, keyset pages that follow each other, and errors that name the word.
    let place = Place::new();
    let (_broker, http) = start(&place);
    let table = Table::open(&place);
    for n in 0..60 {
        table.insert(if n % 3 == 0 { "other" } else { "none" }, "1");
    }
    let ids = |path: &str| {
        let page = http.get(path).is(200).json();
        let ids: Vec<i64> = page["tasks"].as_array().unwrap().iter().map(|task| task["id"].as_i64().unwrap()).collect();
        (ids, page["next"].as_i64())
    };
    let (first, next) = ids("/api/v1/tasks?q=kind:none&limit=30");
    let (second, end) = ids(&format!("/api/v1/tasks?q=kind:none&limit=30&before={}", next.unwrap()));
    assert_eq!((first.len(), second.len(), end), (30, 10, None));
    assert!(first.iter().chain(&second).is_sorted_by(|a, b| a > b));
    let page = http.get("/tasks?state=queued&q=kind:none").is(200).body;
    assert!(page.matches("data-row").count() == 40 && page.contains("aria-current=\"page\">queued"));
    // A task that has not run says nothing of a run, and is not moved to where it is.
    let page = http.get(&format!("/tasks/{}", first[0])).is(200).body;
    assert!(!page.contains(", ran") && page.contains("<option>high") && !page.contains("<option>normal"), "{page}");
    let page = http.get("/tasks").is(200).body;
    assert!(page.matches("data-row").count() == 50 && page.contains("id=\"older\""));

    let wrong = http.get("/api/v1/tasks?q=knd:x").is(400).json();
    assert_eq!((&wrong["code"], &wrong["field"]), (&json!("bad_filter"), &json!("q")));
    assert!(wrong["message"].as_str().unwrap().contains("the field knd") && wrong["next"].is_string());
    assert!(http.get("/tasks?q=attempt%3Ex").is(200).body.contains("needs a whole number"));
    assert_eq!(http.get("/api/v1/tasks?limit=0").is(400).json()["field"], "limit");
    assert_eq!(http.get("/api/v1/nothing").is(404).json()["code"], "not_found");
}

#[test]
fn who_is_not_let_in_stays_outside() {
    // Proves 401 without or with a wrong token, 403 for a reader who changes, for another site's form and for a read-only
    // dashboard, 421 for another host's name; that probes are for everybody by each method that looks; and that the network is refused
    // without an access file.
    let place = Place::new();
    let access = place.path("access");
    std::fs::write(&access, "admin ann correct-horse-battery\nread bob another-horse-battery\n").unwrap();
    let open = Said::by(&place, &[], &["broker", "--db", place.db().to_str().unwrap(), "--web", "0.0.0.0:0"]);
    open.is(7, "(flag --web)");
    open.is(7, "web.access_file");
    let set = format!("web.access_file={}", access.display());
    let words = [&WEB[..], &["--set", &set]].concat();
    let readable =
        Said::by(&place, &[], &[&["broker", "--db", "x.db", "--bind", &place.endpoint()], &words[..]].concat());
    assert!(readable.err.contains("chmod 600"), "{}", readable.err);
    std::fs::set_permissions(&access, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let broker = Broker::start_as(&place, &words);
    let http = Http::of(&broker);

    let refused = http.get("/").is(401);
    assert!(refused.header("www-authenticate").unwrap().starts_with("Basic"));
    http.with("authorization", "Bearer correct-horse-batterz").get("/api/v1/stats").is(401);
    wait_until("the broker to be ready", || http.get("/readyz").status == 200);
    for probe in ["/livez", "/readyz"] {
        assert!(http.ask("HEAD", probe, "").is(200).body.is_empty());
    }
    http.ask("HEAD", "/api/v1/stats", "").is(401);
    let ann = http.with("authorization", "Bearer correct-horse-battery");
    let bob = http.with("authorization", "Basic Ym9iOmFub3RoZXItaG9yc2UtYmF0dGVyeQ==");
    let stored = ann.post_json("/api/v1/tasks", &json!({"kind": "echo", "payload": "secret"})).is(200).json();
    let path = format!("/api/v1/tasks/{}", stored["task"]);
    assert_eq!(ann.get(&path).is(200).json()["payload"], "secret");
    assert!(bob.get(&path).is(200).json().get("payload").is_none());
    assert!(!bob.get(&format!("/tasks/{}", stored["task"])).is(200).body.contains("secret"));
    assert_eq!(bob.post_json("/api/v1/lanes/low", &json!({"paused": true})).is(403).json()["code"], "denied");
    for (name, value) in
        [("sec-fetch-site", "cross-site"), ("sec-fetch-site", "same-site"), ("origin", "http://evil.example")]
    {
        let foreign = ann.with(name, value).post("/lanes/change", "lane=low&change=pause").is(403);
        assert!(foreign.body.contains("not from another page"), "{}", foreign.body);
    }
    ann.with("sec-fetch-site", "same-origin").post("/lanes/change", "lane=low&change=pause").is(303);
    ann.with("host", "evil.example").get("/").is(421);
    who_is_refused_in_a_browser_sees_a_page(&http, &ann, &bob);
    drop(broker);

    let words = [&words[..], &["--set", "web.read_only=true"]].concat();
    let broker = Broker::start_as(&place, &words);
    let ann = Http::of(&broker).with("authorization", "Bearer correct-horse-battery");
    assert_eq!(ann.post_json("/api/v1/lanes/low", &json!({"paused": false})).is(403).json()["code"], "read_only");
    let log = std::fs::read_to_string(place.path("broker.log")).unwrap();
    assert!(!log.contains("horse") && !log.contains("secret"), "a secret or a payload stands in the log");
}

/// Proves that 401, 403 and 421 are pages for whoever takes HTML, with the headers of the JSON, and that those who are outside see
/// nothing of what is inside.
fn who_is_refused_in_a_browser_sees_a_page(http: &Http, ann: &Http, bob: &Http) {
    const HTML: &str = "text/html,application/xhtml+xml,*/*;q=0.8";
    let page = |http: &Http| http.with("accept", HTML);
    let outside = page(http).get("/").is(401);
    assert!(outside.header("www-authenticate").unwrap().starts_with("Basic"));
    assert!(outside.header("content-type").unwrap().starts_with("text/html"), "{}", outside.head);
    assert!(outside.body.contains("a token or a password is needed") && !outside.body.contains("p-state"));
    // Its style is served to it.
    let style = outside.body.split("stylesheet\" href=\"").nth(1).unwrap().split('"').next().unwrap();
    http.get(style).is(200);
    let wrong = page(ann).with("host", "evil.example");
    let elsewhere = wrong.get("/").is(421);
    assert!(elsewhere.body.contains("web.hosts") && elsewhere.body.contains("</html>"), "{}", elsewhere.body);
    wrong.get(style).is(200);
    let denied = page(bob).post("/lanes/change", "lane=low&change=pause").is(403);
    assert!(denied.body.contains("bob may only read") && denied.body.contains("p-state"), "{}", denied.body);
    // So is the word that too many guess at once.
    let guess = page(http).with("authorization", "Bearer correct-horse-batterz");
    let guesses: Vec<_> = std::thread::scope(|scope| {
        let asked: Vec<_> = (0..64).map(|_| scope.spawn(|| guess.get("/"))).collect();
        asked.into_iter().map(|asked| asked.join().unwrap()).collect()
    });
    let shed = guesses.iter().find(|answer| answer.status == 429).unwrap();
    assert!(shed.body.contains("too many wrong passwords") && shed.body.contains("</html>"), "{}", shed.body);
    assert_eq!(shed.header("retry-after"), Some("1"));
    // The API's own stay JSON whoever asks.
    assert_eq!(page(http).get("/api/v1/stats").is(401).json()["code"], "unauthorized");
    assert_eq!(http.get("/").is(401).json()["code"], "unauthorized");
}

#[test]
fn a_worker_is_stopped_from_its_page() {
    // Proves that Stop hands back what runs with a release and no blame, and that the worker leaves, while another stays.
    let place = Place::new();
    let (broker, http) = start(&place);
    let table = Table::open(&place);
    let mut worker = WorkerProcess::start(&place, "name=leaver kinds=sleep");
    let _stays = WorkerProcess::start(&place, "name=stayer kinds=echo");
    let task = table.insert("sleep", r#"{"ms":3600000}"#);
    place.journal().wait_for_begin(task, 1);
    wait_for_page(&http, "/workers", |body| body.contains("leaver") && body.contains("stayer"));
    assert!(http.get("/workers").body.contains("name=\"release\""));
    // It is through only when its task is, so a drain can be taken back meanwhile.
    for (word, drains) in [("", true), ("&off=1", false)] {
        http.post("/workers/drain", &format!("worker=leaver{word}")).is(303);
        wait_for_page(&http, "/workers", |body| body.contains("name=\"off\"") == drains);
    }
    let asks = http.post("/workers/drain", "worker=leaver&release=1").is(200).body;
    assert!(asks.contains("Stop leaver? It hands back what it runs"), "{asks}");
    http.post("/workers/drain", "worker=leaver&release=1&confirmed=1").is(303);
    assert_eq!(worker.wait(), 0);
    assert_eq!(table.column::<String>(task, "state || ' ' || runs || attempts || losses || releases"), "queued 1001");
    let names: Vec<String> = broker.client().workers().unwrap().into_iter().map(|worker| worker.name).collect();
    assert_eq!(names, ["stayer"]);
}

#[test]
fn what_is_dangerous_asks_without_javascript_too() {
    // Proves that cancel of a group and remove of a schedule do nothing before the question is answered, that the page which asks
    // sends the same form again, and what both pages show.
    let place = Place::new();
    let (_broker, http) = start(&place);
    let table = Table::open(&place);
    table.execute("INSERT INTO task_groups (name) VALUES ('monthly')", []);
    table.execute("INSERT INTO tasks (kind, group_id) VALUES ('nobody', 1), ('nobody', 1)", []);
    table.execute("INSERT INTO schedules (name, cron, kind) VALUES ('at night', '0 3 * * *', 'report')", []);
    wait_for_page(&http, "/schedules", |page| page.contains("at night") && page.contains("data-at="));
    assert!(http.get("/groups/1").body.contains("Cancel the rest") && http.get("/groups").body.contains("monthly"));

    let asks = http.post("/groups/1", "").is(200).body;
    assert!(asks.contains("Cancel what of group 1 has not ended?") && asks.contains("action=\"/groups/1\""), "{asks}");
    assert_eq!(table.count("state = 'queued'"), 2);
    http.post("/groups/1", "confirmed=1").is(303);
    table.wait_for_count("state = 'cancelled'", 2);

    let asks = http.post("/schedules/change", "name=at+night&change=remove").is(200).body;
    for says in ["Remove schedule at night?", "name=\"change\" value=\"remove\"", "name=\"name\" value=\"at night\""] {
        assert!(asks.contains(says), "{says} is not in {asks}");
    }
    http.post("/schedules/change", "name=at+night&change=pause").is(303);
    // It has no next time any more, whatever the row says.
    wait_for_page(&http, "/schedules", |page| page.contains("<td><span class=\"dim\">paused</span></td>"));
    http.post("/schedules/change", "name=at+night&change=remove&confirmed=1").is(303);
    wait_for_page(&http, "/schedules", |page| page.contains("No schedule is there"));
}

#[test]
fn a_group_of_dead_tasks_is_changed_and_no_other() {
    // Proves that requeue and purge of a group mean exactly the tasks that it counts: not those of the kind whose error has the line
    // in it, and whatever the line holds; none at all is a group as well.
    let place = Place::new();
    let (_broker, http) = start(&place);
    let table = Table::open(&place);
    let errors = [
        Some("no route"),
        Some("no route\nat x"),
        Some("no route to host"),
        Some("again: no route"),
        Some("it's \"b\""),
        None,
        Some(""),
    ];
    for (kind, error) in errors.map(|error| ("k", error)).into_iter().chain([("other", Some("no route"))]) {
        table.execute("INSERT INTO tasks (kind, state, error, finished_at) VALUES (?1, 'dead', ?2, 1)", (kind, error));
    }
    wait_for_page(&http, "/dead", |page| page.contains("all 8 dead tasks"));
    let groups = http.get("/api/v1/dead").is(200).json()["groups"].take();
    let found: Vec<(String, String, u64)> = groups
        .as_array()
        .unwrap()
        .iter()
        .map(|group| {
            let text = |name: &str| group[name].as_str().unwrap().to_owned();
            (text("kind"), text("error"), group["n"].as_u64().unwrap())
        })
        .collect();
    let page = http.get("/dead").is(200).body.replace("&#38;", "&");
    let links: Vec<&str> = page.split("href=\"").filter_map(|rest| rest.split('"').next()).collect();
    let purges: Vec<&&str> = links.iter().filter(|link| link.contains("change=purge")).collect();
    assert_eq!((found.len(), purges.len()), (6, 6), "{found:?}");
    for ((kind, error, n), link) in found.iter().zip(purges) {
        let asks = http.get(link).is(200).body;
        assert!(asks.contains(&format!("<b>{n}</b> tasks")), "{kind} {error}: {asks}");
        // The same filter leads to as many tasks.
        let list = http.get(&link.replace("/tasks/change-all?change=purge&", "/api/v1/tasks?")).is(200).json();
        assert_eq!(list["tasks"].as_array().unwrap().len() as u64, *n, "{kind} {error}");
        let batch = http.post("/tasks/change-all", link.split_once('?').unwrap().1).is(303);
        wait_for_page(&http, batch.header("location").unwrap(), |page| page.contains(">over<"));
        let left = "kind = ?1 AND trim(substr(coalesce(error, ''), 1, instr(coalesce(error, '') || char(10), char(10)) - 1)) = ?2";
        let left: i64 = table.one(&format!("SELECT count(*) FROM tasks WHERE {left}"), [kind, error]);
        assert_eq!(left, 0, "{kind} {error}");
    }
    assert_eq!(table.count("1"), 0);
}

#[test]
fn a_batch_is_stopped_from_its_page() {
    // Proves that Stop ends a batch where it stands: the rest of the table stays as it is.
    let place = Place::new();
    let (_broker, http) = start(&place);
    let table = Table::open(&place);
    table.insert_many(60_000, "low", "nobody", "1");
    let batch = http.post("/tasks/change-all", "change=cancel&q=kind:nobody").is(303);
    let path = batch.header("location").unwrap();
    http.post(path, "").is(303);
    wait_for_page(&http, path, |page| page.contains(">stopped<"));
    assert!(!http.get(path).body.contains("Stop here"));
    assert!(table.count("state = 'queued'") > 0, "it was through before it could be stopped");
}

#[test]
fn a_worker_that_died_is_told_of_for_a_while() {
    // Proves that its death stands on the overview, in the API, in plain columns and on the command line long after the broker has
    // forgotten it, that one which left in peace is no news, and that the metric is a number alone.
    let place = Place::new();
    let (broker, http) = start(&place);
    let table = Table::open(&place);
    let worker = WorkerProcess::start(&place, "name=mortal slots=1 kinds=sleep");
    let task = table.insert("sleep", r#"{"ms":3600000}"#);
    place.journal().wait_for_begin(task, 1);
    let mut leaver = WorkerProcess::start(&place, "name=leaver slots=1 kinds=echo");
    wait_for_page(&http, "/workers", |body| body.contains("leaver"));
    http.post("/workers/drain", "worker=leaver").is(303);
    assert_eq!(leaver.wait(), 0);
    worker.kill();
    wait_until("it to be forgotten", || broker.client().workers().unwrap().is_empty());
    wait_for_page(&http, "/", |page| page.contains("Worker mortal on ") && page.contains("1 task went back"));
    assert!(!http.get("/").body.contains("Worker leaver"));
    wait_for_page(&http, "/metrics", |text| text.contains("laneway_workers_lost_total 1\n"));
    assert!(http.get("/status.txt").body.contains("notice bad Worker mortal"));
    let said = Said::by(&place, &[], &["stats", "--endpoint", broker.endpoint()]);
    assert!(said.out.contains("LOST WORKER") && said.out.contains("with 1 task"), "{}", said.out);
}

#[test]
fn live_updates_arrive_and_end_with_the_broker() {
    // Proves that a stream tells what has changed within moments, and that a stop of the broker does not wait for it.
    let place = Place::new();
    let (broker, http) = start(&place);
    let mut lines = BufReader::new(http.open("/events?page=overview")).lines().map_while(Result::ok);
    let mut wait = |says: &str| lines.by_ref().find(|line| line.contains(says)).unwrap_or_else(|| panic!("no {says}"));
    wait("p-totals");
    Table::open(&place).insert("nobody", "1");
    let message = wait("no worker offers it");
    let message: serde_json::Value = serde_json::from_str(message.trim_start_matches("data: ")).unwrap();
    assert!(message["parts"]["p-attention"].as_str().unwrap().contains("1 task of kind nobody"), "{message}");
    http.get("/events?page=nothing").is(400);
    let begun = Instant::now();
    assert_eq!(broker.stop(), 0);
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
}

#[test]
fn a_dashboard_apart_says_what_is_not_there_yet() {
    // Proves that one which has nothing to show says so at its start, that one which has is silent, and that a folder is no database.
    let place = Place::new();
    let apart = Apart::start(&place, &place.endpoint(), &[]);
    let said = apart.said().join("\n");
    assert!(said.contains("there is no such database") && said.contains("no broker answers yet"), "{said}");
    let broker = Broker::start(&place);
    let apart = Apart::start(&place, broker.endpoint(), &[]);
    assert_eq!(apart.said().len(), 1, "{:?}", apart.said());
    let folder = place.dir().display().to_string();
    Said::by(&place, &[], &["web", "--db", &folder]).is(2, "is a folder: name the database file in it");
}

#[test]
fn a_dashboard_apart_stays_when_the_broker_goes() {
    // Proves that without a broker the pages show what the database says and that they say so, that what needs the broker is
    // refused with a word of when to come back, and that all is well again with the next broker.
    let place = Place::new();
    let broker = Broker::start(&place);
    let table = Table::open(&place);
    let task = table.insert("mail", "{\"to\": \"ann\"}");
    let apart = Apart::start(&place, broker.endpoint(), &[]);
    let http = apart.http();
    wait_for_page(&http, "/lanes", |body| body.contains("<td class=\"n\">1</td>"));
    broker.kill();
    wait_for_page(&http, "/tasks", |body| body.contains("showing what the database says"));
    assert!(http.get("/tasks?q=kind:mail").is(200).body.contains("data-row"));
    let page = http.get(&format!("/tasks/{task}")).is(200).body;
    assert!(page.contains("as the table has it") && page.contains("ann"), "{page}");
    assert!(http.get("/").is(200).body.contains("Broker away"));
    let refused = http.post_json(&format!("/api/v1/tasks/{task}/cancel"), &json!({})).is(503);
    assert_eq!((refused.header("retry-after"), &refused.json()["code"]), (Some("1"), &json!("no_broker")));
    http.get("/readyz").is(503);
    wait_until("life to be over", || http.get("/livez").status == 503);
    let _broker = Broker::start(&place);
    wait_until("the broker to be back", || http.get("/readyz").status == 200);
    http.post_json(&format!("/api/v1/tasks/{task}/cancel"), &json!({})).is(200);
    assert_eq!(apart.stop(), 0);
}

#[test]
fn what_is_too_much_is_shed_and_the_rest_goes_on() {
    // Proves the bounds: one tab too many and one connection too many are told to come back, a body that is too large is refused,
    // and meanwhile pages answer and the work goes on.
    let place = Place::new();
    let (_broker, http) = start(&place);
    let streams: Vec<_> = (0..128).map(|_| http.open("/events?page=overview")).collect();
    wait_until("every place for a stream to be taken", || http.get("/events?page=none").status == 503);
    let shed = http.get("/events?page=none").is(503);
    assert_eq!(shed.header("retry-after"), Some("1"));
    http.get("/").is(200);
    let idle: Vec<_> = (0..128).map(|_| std::net::TcpStream::connect(http.address()).unwrap()).collect();
    wait_until("every connection to be taken", || http.get("/").status == 503);
    let _worker = WorkerProcess::start(&place, "slots=1");
    let table = Table::open(&place);
    let task = table.insert("echo", "1");
    table.wait_for_state(task, "done");
    drop((streams, idle));
    wait_until("places to be free again", || http.get("/events?page=wrong").status == 400);
    // Refused by its length, before it is read: the answer may cut the sending short.
    let large = "x".repeat(9 * 1024 * 1024);
    assert_eq!(
        http.post_json("/api/v1/tasks", &json!({"kind": "echo", "payload": large})).is(413).json()["code"],
        "too_large"
    );
    http.get("/livez").is(200);
}
