//! What the settings of the dashboard do, of a broker's own and of `laneway web`: where it is shown, under which names, to whom and
//! what of it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use harness::{Apart, Broker, Browser, Http, Place, Said, Table, wait_until};
use serde_json::json;

const WEB: [&str; 2] = ["--web", "127.0.0.1:0"];
/// One row's.
const PAYLOAD: &str = r#"{"word":"pomegranate"}"#;

/// A broker with a dashboard that has these settings.
fn start(place: &Place, settings: &[&str]) -> (Broker, Http) {
    let set = settings.iter().flat_map(|setting| ["--set", *setting]);
    let broker = Broker::start_as(place, &WEB.into_iter().chain(set).collect::<Vec<_>>());
    let http = Http::of(&broker);
    (broker, http)
}

/// A file that nobody else may read.
fn write_secret(place: &Place, name: &str, text: &str) -> String {
    let path = place.path(name);
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    path.display().to_string()
}

#[test]
fn who_is_let_in_changes_while_it_runs() {
    // Proves that SIGHUP takes a visitor off and lets another in, that an open stream ends so that its tab is asked anew, and that a
    // file which has become wrong changes nothing and is told.
    let place = Place::new();
    let access = write_secret(&place, "access", "admin ann correct-horse-battery\n");
    let (broker, http) = start(&place, &[&format!("web.access_file={access}")]);
    let [ann, bob] = ["correct-horse-battery", "another-horse-battery"]
        .map(|secret| http.with("authorization", &format!("Bearer {secret}")));
    let says = |one: &Http| one.get("/api/v1/stats").status;
    assert_eq!((says(&ann), says(&bob)), (200, 401));
    let mut lines = BufReader::new(ann.open("/events?page=overview")).lines();
    lines.find(|line| line.as_ref().unwrap().contains("p-totals")).unwrap().unwrap();
    write_secret(&place, "access", "read bob another-horse-battery\n");
    broker.signal("HUP");
    wait_until("another file to hold", || says(&bob) == 200);
    assert_eq!(says(&ann), 401);
    // To its end: the harness waits 30 s for a line, and the stream says something more often.
    assert!(lines.all(|line| line.is_ok()));
    write_secret(&place, "access", "read bob short\n");
    broker.signal("HUP");
    let told = |line: &serde_json::Value| {
        line["level"] == "ERROR"
            && line["error"].as_str().is_some_and(|text| text.contains("the secret of bob is shorter"))
    };
    wait_until("the wrong file to be told", || broker.log().iter().any(told));
    assert_eq!((says(&ann), says(&bob)), (401, 200));
}

#[test]
fn a_tab_is_asked_anew_when_the_access_file_is_read_again() {
    // Proves in a real browser that an open tab comes back by itself while its visitor is still let in, and is cut when not.
    let place = Place::new();
    let ann = "admin ann correct-horse-battery\n";
    let access = write_secret(&place, "access", ann);
    let (broker, http) = start(&place, &[&format!("web.access_file={access}")]);
    let browser = Browser::start(&place);
    browser.go(&format!("http://ann:correct-horse-battery@{}/", http.address()));
    browser.wait_for("html[data-beats]");
    let reread = |text: &str| {
        let n_read = || broker.log().iter().filter(|line| line["message"] == "read again").count();
        let before = n_read();
        write_secret(&place, "access", text);
        broker.signal("HUP");
        wait_until("the file to be read again", || n_read() > before);
    };
    reread(&format!("{ann}read bob another-horse-battery\n"));
    Table::open(&place).insert("nobody", "1");
    browser.wait_for_text("#p-attention", "no worker offers it");
    browser.wait_for("html:not(.cut)");
    reread("read bob another-horse-battery\n");
    browser.wait_for("html.cut");
}

/// The addresses of this server that a page has in its links, forms and scripts.
fn links(page: &str) -> Vec<&str> {
    let attributes = ["href=\"", "src=\"", "action=\"", "hx-get=\"", "hx-post=\"", "data-stream=\""];
    let values =
        attributes.iter().flat_map(|begin| page.split(begin).skip(1).filter_map(|rest| rest.split('"').next()));
    values.filter(|value| value.starts_with('/')).collect()
}

/// Each page, each link on it, what a form answers and a stream, under this path.
fn is_under(http: &Http, base: &str, task: i64) {
    for path in
        ["/", "/tasks", "/lanes", "/workers", "/dead", "/groups", "/schedules", "/about", &format!("/tasks/{task}")]
    {
        let page = http.get(&format!("{base}{path}")).is(200).body;
        let links = links(&page);
        assert!(links.len() > 5, "{path} has no links: {page}");
        for link in links {
            assert!(link == base || link.starts_with(&format!("{base}/")), "{path} leads to {link}");
        }
    }
    let page = http.get(&format!("{base}/")).body;
    let assets: Vec<&str> = links(&page).into_iter().filter(|link| link.contains("/assets/")).collect();
    assert!(!assets.is_empty());
    for asset in assets {
        http.get(asset).is(200);
    }
    let mut lines = BufReader::new(http.open(&format!("{base}/events?page=overview"))).lines();
    lines.find(|line| line.as_ref().unwrap().contains("p-totals")).unwrap().unwrap();
}

#[test]
fn a_dashboard_is_shown_under_the_path_of_a_proxy() {
    // Proves that no page behind web.base_path leads out of it, whether the proxy takes the path away or not, and that what a form
    // does leads back under it.
    let place = Place::new();
    let (_broker, http) = start(&place, &["web.base_path=/tools/laneway/"]);
    let task = Table::open(&place).insert("nobody", PAYLOAD);
    wait_until("the task to be counted", || http.get("/status.txt").body.contains("lane normal queued 1"));
    is_under(&http, "/tools/laneway", task);
    for base in ["", "/tools/laneway"] {
        let changed = http.post(&format!("{base}/lanes/change"), "lane=low&change=pause").is(303);
        assert_eq!(changed.header("location"), Some("/tools/laneway/lanes"));
        let page = http.get(&format!("{base}/tasks/{task}")).is(200).body;
        assert!(links(&page).iter().all(|link| link.starts_with("/tools/laneway")));
        let api = http.get(&format!("{base}/api/v1/tasks/{task}")).is(200).json();
        assert_eq!(api["kind"], "nobody");
    }
}

#[test]
fn a_dashboard_answers_to_its_names_alone() {
    // Proves that web.hosts lets a proxy pass its name on, that others are refused on loopback, and which of them once other machines
    // may come.
    let place = Place::new();
    let (broker, http) = start(&place, &["web.hosts=tasks.example,queue.example"]);
    let status = |http: &Http, host: &str| http.with("host", host).get("/api/v1/stats").status;
    for host in ["tasks.example", "QUEUE.example:8443", "localhost", "127.0.0.1:1", "[::1]"] {
        assert_eq!(status(&http, host), 200, "{host}");
    }
    for host in ["evil.example", "tasks.example.evil.example", "10.0.0.7", ""] {
        assert_eq!(status(&http, host), 421, "{host}");
    }
    let refused = http.with("host", "evil.example").get("/api/v1/stats").json();
    assert!(refused["next"].as_str().unwrap().contains("web.hosts"), "{refused}");
    drop(broker);

    let access = write_secret(&place, "access", "admin ann correct-horse-battery\n");
    let open =
        ["--web", "0.0.0.0:0", "--set", &format!("web.access_file={access}"), "--set", "web.hosts=tasks.example"];
    let broker = Broker::start_as(&place, &open);
    let port = Http::of(&broker).address().rsplit_once(':').unwrap().1.to_owned();
    let http = Http::at(format!("127.0.0.1:{port}")).with("authorization", "Bearer correct-horse-battery");
    for (host, code) in [("tasks.example", 200), ("10.0.0.7", 200), ("other.example", 421), ("localhost", 421)] {
        assert_eq!(status(&http, host), code, "{host}");
    }
}

#[test]
fn http_1_0_needs_no_host() {
    // Proves that what has no Host is for the address that it reached in HTTP/1.0, wherever the dashboard listens, and refused with
    // its cause in HTTP/1.1; that a name which is said is looked at in HTTP/1.0 too; and that nobody passes for one of our pages by it.
    let answer = |http: &Http, request: &str| {
        let mut stream = TcpStream::connect(http.address()).unwrap();
        stream.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
        write!(stream, "{request}\r\nconnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        (text.split(' ').nth(1).unwrap().parse::<u16>().unwrap(), text)
    };
    let place = Place::new();
    let (broker, http) = start(&place, &["web.hosts=tasks.example"]);
    let status = |request: &str| answer(&http, request).0;
    for path in ["/livez", "/", "/api/v1/stats"] {
        assert_eq!(status(&format!("GET {path} HTTP/1.0")), 200, "{path}");
    }
    assert_eq!(status("GET / HTTP/1.0\r\nhost: tasks.example"), 200);
    for host in ["evil.example", "\u{e9}", ""] {
        assert_eq!(status(&format!("GET / HTTP/1.0\r\nhost: {host}")), 421, "{host}");
    }
    let drain = "POST /api/v1/workers/drain HTTP/1.0\r\ncontent-length: 0";
    assert_eq!(status(&format!("{drain}\r\norigin: http://evil.example")), 403);
    let (code, text) = answer(&http, "GET /api/v1/stats HTTP/1.1");
    assert!(code == 400 && text.contains("no_host") && text.contains("HTTP/1.1 needs the header Host"), "{text}");
    drop(broker);

    let access = write_secret(&place, "access", "admin ann correct-horse-battery\n");
    let open =
        ["--web", "0.0.0.0:0", "--set", &format!("web.access_file={access}"), "--set", "web.hosts=tasks.example"];
    let broker = Broker::start_as(&place, &open);
    let http = Http::at(Http::of(&broker).address().replace("0.0.0.0", "127.0.0.1"));
    let secret = "authorization: Bearer correct-horse-battery";
    assert_eq!(answer(&http, "GET / HTTP/1.0").0, 401);
    assert_eq!(answer(&http, &format!("GET / HTTP/1.0\r\n{secret}")).0, 200);
    assert_eq!(answer(&http, &format!("GET / HTTP/1.0\r\nhost: other.example\r\n{secret}")).0, 421);
}

#[test]
fn payloads_are_hidden_from_everybody() {
    // Proves that web.hide_payloads hides payload and result from an admin too, on the page and in the API, and nothing else.
    let place = Place::new();
    let (broker, http) = start(&place, &[]);
    let table = Table::open(&place);
    let task = table.insert("nobody", PAYLOAD);
    table.execute("UPDATE tasks SET state = 'done', result = '\"persimmon\"' WHERE id = ?1", [task]);
    let (page, api) = (format!("/tasks/{task}"), format!("/api/v1/tasks/{task}"));
    let has = |http: &Http, path: &str| {
        let body = http.get(path).is(200).body;
        ["pomegranate", "persimmon"].map(|word| body.contains(word))
    };
    assert_eq!((has(&http, &page), has(&http, &api)), ([true; 2], [true; 2]));
    drop(broker);
    let (_broker, http) = start(&place, &["web.hide_payloads=true"]);
    assert_eq!((has(&http, &page), has(&http, &api)), ([false; 2], [false; 2]));
    let shown = http.get(&api).is(200).json();
    assert_eq!((&shown["kind"], &shown["state"]), (&json!("nobody"), &json!("done")));
    assert!(shown.get("payload").is_none() && shown.get("result").is_none(), "{shown}");
}

#[test]
fn the_page_about_the_broker_has_every_setting_and_no_secret() {
    // Proves that the sections of kinds, lanes and fair keys are there with what set them, defaults with that word, and of a file of
    // secrets its name alone.
    let place = Place::new();
    let access = write_secret(&place, "access", "admin ann correct-horse-battery\nread bob another-horse-battery\n");
    let file = format!("web.access_file={access}");
    let set = [&file, "kinds.resize.cap=3", "lane_limits.low.share=5", "fair_keys.acme.weight=2", "stall_ms=700"];
    let (_broker, http) = start(&place, &set);
    let page = http.with("authorization", "Bearer correct-horse-battery").get("/about").is(200).body;
    let row = |name: &str| {
        let cell = format!("<code>{name}</code>");
        page.split("<tr>").find(|row| row.contains(&cell)).unwrap_or_else(|| panic!("no {name}: {page}"))
    };
    for (name, value, from) in [
        ("kinds.resize.cap", ">3<", "flag --set"),
        ("lane_limits.low.share", ">5<", "flag --set"),
        ("fair_keys.acme.weight", ">2<", "flag --set"),
        ("stall_ms", ">700<", "flag --set"),
        ("web.access_file", "access", "flag --set"),
        ("poll_us", "<code>", "default"),
    ] {
        let row = row(name);
        assert!(row.contains(value) && row.contains(from), "{row}");
    }
    assert!(!page.contains("horse"), "a secret is shown");
    let reader = http.with("authorization", "Bearer another-horse-battery").get("/about").is(200).body;
    assert!(!reader.contains("stall_ms"), "settings are for admins");
}

#[test]
fn each_flag_of_a_dashboard_apart_does_what_the_setting_does() {
    // Proves that no flag of `laneway web` is parsed and forgotten: each shows in what it answers, and SIGHUP reads its files anew.
    let place = Place::new();
    let broker = Broker::start(&place);
    let table = Table::open(&place);
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    table.execute("INSERT INTO tasks (kind, payload, trace) VALUES ('nobody', ?1, ?2)", [PAYLOAD, trace]);
    let task = table.0.last_insert_rowid();
    let access = write_secret(&place, "access", "admin ann correct-horse-battery\n");
    let keys = write_secret(&place, "link.keys", "correct-horse-battery-staple-0123456789\n");
    let words = [
        ["--access-file", &access],
        ["--base-path", "/lw"],
        ["--host", "tasks.example"],
        ["--link-key-file", &keys],
        ["--cors-origin", "https://www.example.com"],
        ["--trace-url", "https://jaeger.example/trace/{trace_id}"],
    ];
    let flags = ["--read-only", "--hide-payloads"];
    let apart = Apart::start(&place, broker.endpoint(), &[words.as_flattened(), &flags].concat());
    assert!(apart.address().ends_with("/lw"), "{}", apart.address());
    let http = apart.http();

    http.get("/lw/").is(401);
    let ann = http.with("authorization", "Bearer correct-horse-battery");
    ann.with("host", "tasks.example").get("/lw/").is(200);
    ann.with("host", "other.example").get("/lw/").is(421);
    is_under(&ann, "/lw", task);
    let page = ann.get(&format!("/lw/tasks/{task}")).is(200).body;
    assert!(page.contains("https://jaeger.example/trace/4bf92f3577b34da6a3ce929d0e0e4736"), "{page}");
    assert!(!page.contains("pomegranate"), "{page}");
    let refused = ann.post_json(&format!("/lw/api/v1/tasks/{task}/cancel"), &json!({})).is(403).json();
    assert_eq!(refused["code"], "read_only");

    let link = |key_file: &str| {
        let made =
            Said::by(&place, &[], &["link", &task.to_string(), "--key-file", key_file, "--url", "http://x.example"]);
        format!("{}/state", made.out.trim().trim_start_matches("http://x.example"))
    };
    let first = link(&keys);
    let shown = http.with("origin", "https://www.example.com").get(&first).is(200);
    assert_eq!(shown.header("access-control-allow-origin"), Some("https://www.example.com"));
    http.with("origin", "https://evil.example").get(&first).is(403);

    write_secret(&place, "access", "read bob another-horse-battery\n");
    write_secret(&place, "link.keys", "another-horse-battery-staple-0123456789\n");
    apart.signal("HUP");
    let bob = http.with("authorization", "Bearer another-horse-battery");
    wait_until("another file to hold", || bob.get("/lw/").status == 200);
    ann.get("/lw/").is(401);
    wait_until("another key to hold", || http.get(&link(&keys)).status == 200);
    http.get(&first).is(403);
    assert_eq!(apart.stop(), 0);

    // Without them: the defaults.
    let apart = Apart::start(&place, broker.endpoint(), &[]);
    let http = apart.http();
    assert!(http.get(&format!("/tasks/{task}")).is(200).body.contains("pomegranate"));
    http.get(&first).is(404);
    http.post_json(&format!("/api/v1/tasks/{task}/cancel"), &json!({})).is(200);
}
