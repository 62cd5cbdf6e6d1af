//! Observer links over HTTP: what they open and to whom, which pages may read it, how a stream resumes and ends, and how a key is
//! changed. The element that shows all this is in tests/widget.rs.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;

use harness::{Broker, Http, Place, Said, Table, WorkerProcess, wait_until};
use serde_json::{Value, json};

#[test]
fn worker_process() {
    // Not a test of its own: the worker processes of the tests in this file begin here.
    harness::worker_main();
}

const OLD: &str = "correct-horse-battery-staple-0123456789";
const NEW: &str = "another-horse-battery-staple-0123456789";

/// A file that nobody else may read.
fn write(place: &Place, name: &str, text: &str) {
    std::fs::write(place.path(name), text).unwrap();
    std::fs::set_permissions(place.path(name), std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// A broker that has the keys of `link.keys`, with more settings, each `name=value`.
fn start(place: &Place, web: &str, settings: &[&str]) -> (Broker, Http) {
    let keys = format!("web.link_key_file={}", place.path("link.keys").display());
    let settings = settings.iter().flat_map(|setting| ["--set", *setting]);
    let words: Vec<&str> = ["--web", web, "--set", &keys].into_iter().chain(settings).collect();
    let broker = Broker::start_as(place, &words);
    let http = Http::of(&broker);
    (broker, http)
}

const ANY: &str = "127.0.0.1:0";

/// The path of a link that the command line makes.
fn link(place: &Place, words: &[&str]) -> String {
    let said = Said::by(place, &[], &[&["link", "--key-file", "link.keys", "--url", "http://h"], words].concat());
    said.is(0, "");
    said.out.trim().strip_prefix("http://h").unwrap().to_owned()
}

/// What a stream tells, message by message.
struct Messages(BufReader<TcpStream>);

#[derive(Debug, PartialEq)]
struct Message {
    /// Empty for one without a name.
    event: String,
    id: String,
    data: Value,
}

impl Messages {
    fn open(http: &Http, path: &str) -> Self {
        Self(BufReader::new(http.open(&format!("{path}/events"))))
    }

    /// `None` at the end of the stream, a cut among them.
    fn next(&mut self) -> Option<Message> {
        let (mut event, mut id, mut line) = (String::new(), String::new(), String::new());
        loop {
            line.clear();
            if self.0.read_line(&mut line).unwrap_or(0) == 0 {
                return None;
            }
            match line.trim_end().split_once(": ") {
                Some(("event", text)) => text.clone_into(&mut event),
                Some(("id", text)) => text.clone_into(&mut id),
                Some(("data", text)) => return Some(Message { event, id, data: serde_json::from_str(text).unwrap() }),
                _ => {}
            }
        }
    }

    fn wait_for(&mut self, state: &str) -> Message {
        loop {
            let message = self.next().unwrap_or_else(|| panic!("the stream ended before {state}"));
            if message.data["state"] == state {
                return message;
            }
        }
    }
}

#[test]
fn a_link_opens_its_own_task_and_nothing_else() {
    // Proves that nobody is asked for a login though there is an access file, what is told and what is not, and that each way in
    // which a link is no good has its status and its words, as JSON and as a page that shows nothing of the dashboard.
    let place = Place::new();
    write(&place, "link.keys", OLD);
    write(&place, "access", "admin ann correct-horse-battery\n");
    let access = format!("web.access_file={}", place.path("access").display());
    let (_broker, http) = start(&place, ANY, &[&access]);
    let _worker = WorkerProcess::start(&place, "slots=1");
    let table = Table::open(&place);
    let done = table.insert("echo", "\"secret\"");
    table.execute("INSERT INTO tasks(kind, max_attempts) VALUES ('fail', 1)", []);
    let dead = table.0.last_insert_rowid();
    table.execute("INSERT INTO task_groups(id, name) VALUES (7, 'nightly')", []);
    table.execute("INSERT INTO tasks(kind, payload, group_id) VALUES ('echo', '1', 7), ('nobody', '1', 7)", []);
    table.wait_for_state(done, "done");
    table.wait_for_state(dead, "dead");
    table.wait_for_count("group_id = 7 AND state = 'done'", 1);

    http.get("/").is(401);
    let path = link(&place, &[&done.to_string()]);
    let told = http.get(&format!("{path}/state")).is(200);
    assert_eq!((told.header("cache-control"), told.header("access-control-allow-origin")), (Some("no-store"), None));
    let told = told.json();
    let mut keys: Vec<&str> = told.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    assert_eq!(keys, ["created_at", "ended", "finished_at", "percent", "started_at", "state", "task"]);
    assert_eq!((&told["task"], &told["state"], &told["percent"]), (&json!(done), &json!("done"), &json!(100)));
    let page = http.get(&path).is(200);
    assert!(page.header("content-type").unwrap().starts_with("text/html"));
    assert!(page.body.contains(&format!("<laneway-task src=\"{path}\">Task {done}<")), "{}", page.body);
    assert!(page.body.contains("<noscript><p>Done</p>") && !page.body.contains("Overview"), "{}", page.body);

    let dead = dead.to_string();
    let told = http.get(&format!("{}/state", link(&place, &[&dead]))).is(200).json();
    assert_eq!((&told["state"], told.get("error")), (&json!("dead"), None));
    let told = http.get(&format!("{}/state", link(&place, &[&dead, "--show-error"]))).is(200).json();
    assert!(told["error"].as_str().unwrap().contains("it always fails"), "{told}");
    let told = http.get(&format!("{}/state", link(&place, &["--group", "7"]))).is(200).json();
    let group =
        json!({"state": told["state"], "done": told["done"], "total": told["total"], "percent": told["percent"]});
    assert_eq!(group, json!({"state": "running", "done": 1, "total": 2, "percent": 50}));

    // It is a right to look, and no other.
    for (method, status) in [("POST", 401), ("DELETE", 401)] {
        assert_eq!(http.ask(method, &format!("{path}/state"), "").status, status, "{method}");
    }
    let short = link(&place, &[&done.to_string(), "--expires", "1s"]);
    wait_until("the link to expire", || http.get(&format!("{short}/state")).status == 410);
    let other = format!("{}A", &path[..path.len() - 1]);
    let other = if other == path { format!("{}B", &path[..path.len() - 1]) } else { other };
    let (gone, none) = (link(&place, &["999"]), link(&place, &["--group", "9"]));
    for (path, status, code) in
        [(&other, 403, "not_signed"), (&short, 410, "expired"), (&gone, 404, "not_found"), (&none, 404, "not_found")]
    {
        for end in ["state", "events"] {
            let refused = http.get(&format!("{path}/{end}")).is(status).json();
            assert!(refused["code"] == code && refused["message"].is_string(), "{refused}");
        }
        let page = http.get(path).is(status).body;
        assert!(page.contains("<h1>Not available</h1>") && !page.contains("Overview"), "{page}");
    }
}

#[test]
fn without_a_key_there_are_no_links() {
    // Proves that a dashboard which was not told of a key opens nothing, and says what to do.
    let place = Place::new();
    write(&place, "link.keys", OLD);
    let broker = Broker::start_as(&place, &["--web", ANY]);
    let refused = Http::of(&broker).get(&format!("{}/state", link(&place, &["1"]))).is(404).json();
    assert!(
        refused["code"] == "no_links" && refused["next"].as_str().unwrap().contains("web.link_key_file"),
        "{refused}"
    );
    drop(broker);
    std::fs::set_permissions(place.path("link.keys"), std::fs::Permissions::from_mode(0o640)).unwrap();
    let words =
        ["broker", "--db", "x.db", "--bind", "ipc://x.sock", "--web", ANY, "--set", "web.link_key_file=link.keys"];
    let says = "web.link_key_file link.keys: is open to other users (mode 640): chmod 600";
    Said::by(&place, &[], &words).is(7, says);
    Said::by(&place, &[], &[&words[..], &["--check-config"]].concat()).is(7, says);
}

#[test]
fn pages_of_other_sites_are_let_in_by_name() {
    // Proves which origins get an answer that their browser shows them, that errors can be read too, the question before a
    // request, and that the script is for all and is kept.
    let place = Place::new();
    write(&place, "link.keys", OLD);
    let (broker, http) = start(&place, ANY, &["web.cors_origins=https://www.example.com,http://localhost:8000"]);
    let task = Table::open(&place).insert("nobody", "1");
    let path = format!("{}/state", link(&place, &[&task.to_string()]));
    let by = |origin: &str| http.with("origin", origin).with("sec-fetch-site", "cross-site");
    for origin in ["https://www.example.com", "http://localhost:8000"] {
        let told = by(origin).get(&path).is(200);
        assert_eq!((told.header("access-control-allow-origin"), told.header("vary")), (Some(origin), Some("Origin")));
        assert_eq!(told.header("cross-origin-resource-policy"), Some("cross-origin"));
        let refused = by(origin).get("/observe/v1.x.y/state").is(403);
        assert_eq!(refused.header("access-control-allow-origin"), Some(origin));
        let asked = by(origin).with("access-control-request-method", "GET").ask("OPTIONS", &path, "").is(204);
        assert_eq!(asked.header("access-control-allow-origin"), Some(origin));
        assert!(asked.header("access-control-allow-methods").unwrap().contains("GET"));
    }
    for origin in ["https://evil.example", "https://www.example.com:8443", "http://www.example.com", "null"] {
        let refused = by(origin).get(&path).is(403);
        assert_eq!((refused.header("access-control-allow-origin"), &refused.json()["code"]), (None, &json!("origin")));
        assert!(refused.json()["next"].as_str().unwrap().contains("web.cors_origins"));
        by(origin).ask("OPTIONS", &path, "").is(403);
    }
    // What is behind the login is for no other page, whatever the list says.
    assert_eq!(by("https://www.example.com").get("/api/v1/stats").header("access-control-allow-origin"), None);
    let script = by("https://evil.example").get("/widget.js").is(200);
    assert_eq!(script.header("access-control-allow-origin"), Some("*"));
    assert!(
        script.header("content-type").unwrap().starts_with("text/javascript") && script.body.contains("laneway-task")
    );
    assert!(script.header("cache-control").unwrap().contains("max-age"));
    http.with("if-none-match", script.header("etag").unwrap()).get("/widget.js").is(304);
    drop(broker);
    let (_broker, http) = start(&place, ANY, &["web.cors_origins=*"]);
    let told = http.with("origin", "null").get(&path).is(200);
    assert_eq!(told.header("access-control-allow-origin"), Some("*"));
}

#[test]
fn a_stream_resumes_across_a_restart_and_ends_with_the_task() {
    // Proves that each change is told once, that a reader who comes back to another life of the broker is told only what it has not
    // seen, and that the end closes the stream and is said again to those who missed it.
    let place = Place::new();
    write(&place, "link.keys", OLD);
    let (broker, http) = start(&place, ANY, &[]);
    let table = Table::open(&place);
    let task = table.insert("gate", &json!({ "path": place.path("gate") }).to_string());
    let path = link(&place, &[&task.to_string()]);
    let mut messages = Messages::open(&http, &path);
    assert_eq!(messages.next().unwrap().data["state"], "queued");
    let _worker = WorkerProcess::start(&place, "slots=1");
    let running = messages.wait_for("running");
    assert!(running.event.is_empty() && !running.id.is_empty(), "{running:?}");

    let address = http.address().to_owned();
    broker.kill();
    while messages.next().is_some() {}
    let (_broker, http) = start(&place, &address, &[]);
    let mut messages = Messages::open(&http.with("last-event-id", &running.id), &path);
    let mut fresh = Messages::open(&http, &path);
    assert_eq!(fresh.next().unwrap(), running);
    std::fs::write(place.path("gate"), "").unwrap();
    let end = messages.next().unwrap();
    assert_eq!((end.event.as_str(), &end.data["state"], &end.data["ended"]), ("end", &json!("done"), &json!(true)));
    assert_eq!(messages.next(), None);
    let again = Messages::open(&http.with("last-event-id", &end.id), &path).next().unwrap();
    assert_eq!(again, end);
}

#[test]
fn a_key_is_changed_and_taken_away_while_the_broker_runs() {
    // Proves that links of the old key go on beside those of the new one, and that taking it away cuts streams that are open.
    let place = Place::new();
    write(&place, "link.keys", OLD);
    let (broker, http) = start(&place, ANY, &[]);
    let task = Table::open(&place).insert("nobody", "1").to_string();
    let old = link(&place, &[&task]);
    let mut messages = Messages::open(&http, &old);
    assert_eq!(messages.next().unwrap().data["state"], "queued");
    write(&place, "link.keys", &format!("{NEW}\n{OLD}\n"));
    let new = link(&place, &[&task]);
    http.get(&format!("{new}/state")).is(403);
    broker.signal("HUP");
    wait_until("the new key to be known", || http.get(&format!("{new}/state")).status == 200);
    http.get(&format!("{old}/state")).is(200);
    write(&place, "link.keys", NEW);
    broker.signal("HUP");
    let gone = messages.next().unwrap();
    assert_eq!((gone.event.as_str(), &gone.data["code"]), ("gone", &json!("not_signed")));
    assert_eq!(messages.next(), None);
    http.get(&format!("{new}/state")).is(200);
    let log = std::fs::read_to_string(place.path("broker.log")).unwrap();
    assert!(!log.contains("horse"), "a key stands in the log");
}

#[test]
fn too_many_who_watch_are_shed_before_the_dashboard() {
    // Proves the bound on streams, that a plain question does instead, and that tabs of the dashboard have places of their own.
    let place = Place::new();
    write(&place, "link.keys", OLD);
    let (_broker, http) = start(&place, ANY, &[]);
    let task = Table::open(&place).insert("nobody", "1").to_string();
    let path = link(&place, &[&task]);
    let streams: Vec<_> = (0..64).map(|_| http.open(&format!("{path}/events"))).collect();
    wait_until("every place to be taken", || http.get("/metrics").body.contains("laneway_web_observers 64"));
    let shed = http.get(&format!("{path}/events")).is(503);
    assert_eq!((shed.header("retry-after"), &shed.json()["code"]), (Some("1"), &json!("busy")));
    http.get(&format!("{path}/state")).is(200);
    let mut tab = BufReader::new(http.open("/events?page=overview")).lines().map_while(Result::ok);
    assert!(tab.any(|line| line.contains("p-totals")));
    drop(streams);
    wait_until("places to be free again", || http.get("/metrics").body.contains("laneway_web_observers 0"));
}

#[test]
fn the_command_line_makes_keys_and_links() {
    // Proves that a key file is made for its owner alone and never lost, what a link costs and tells, and that each slip names its
    // bound and the way out.
    let place = Place::new();
    let laneway = |words: &[&str]| Said::by(&place, &[], &[&["link"], words].concat());
    laneway(&["12"]).is(2, "say --key-file FILE or set LANEWAY_WEB_LINK_KEY_FILE");
    laneway(&["12", "--key-file", "link.keys"]).is(2, "link.keys: cannot be read");
    assert!(laneway(&["--new-key", "link.keys"]).out.starts_with("link.keys  signs observer links"));
    let metadata = || std::fs::metadata(place.path("link.keys")).unwrap();
    assert_eq!(metadata().permissions().mode() & 0o777, 0o600);
    let first = std::fs::read_to_string(place.path("link.keys")).unwrap();
    assert_eq!(
        laneway(&["--new-key", "link.keys", "-o", "json"]).json(),
        [json!({"key_file": "link.keys", "keys": 2})]
    );
    let both = std::fs::read_to_string(place.path("link.keys")).unwrap();
    assert!(both.ends_with(&first) && both.len() > first.len() && metadata().permissions().mode() & 0o777 == 0o600);
    for keys in 3..=8 {
        assert!(laneway(&["--new-key", "link.keys"]).out.contains(&format!("{keys} keys open links")));
    }
    laneway(&["--new-key", "link.keys"]).is(2, "must have 1 to 8 keys, has 9");

    let variable = [("LANEWAY_WEB_LINK_KEY_FILE", "link.keys")];
    let said = Said::by(&place, &variable, &["link", "12", "--expires", "1h", "-o", "json"]);
    let made = &said.json()[0];
    let url = made["url"].as_str().unwrap();
    assert!(url.starts_with("http://127.0.0.1:9730/observe/v1.") && made["task"] == 12, "{made}");
    let now_ms = i64::try_from(harness::now_us() / 1_000).unwrap();
    let left_ms = made["expires_at"].as_i64().unwrap() - now_ms;
    assert!((0..=3_600_000).contains(&left_ms), "{left_ms}");
    let with = |words: &[&str]| Said::by(&place, &variable, &[&["link"], words].concat());
    with(&["12", "--expires", "366d"]).is(2, "--expires 31622400s must be 1 s to 365 days");
    with(&["12", "--expires", "0"]).is(2, "must be 1 s to 365 days");
    with(&["12", "--url", "tasks.example.com"]).is(2, "--url 'tasks.example.com' must be http:// or https://");
    with(&["--group", "0"]).is(2, "--group 0 must be 1 to");
    with(&["0"]).is(2, "task id 0 is not 1 to");
    std::fs::set_permissions(place.path("link.keys"), std::fs::Permissions::from_mode(0o644)).unwrap();
    with(&["12"]).is(2, "is open to other users (mode 644): chmod 600");
}
