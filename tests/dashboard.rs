//! The dashboard in a real browser: what a person sees, presses and types, with JavaScript and without.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use harness::{Broker, Browser, Http, Place, Table, WorkerProcess, wait_until};

#[test]
fn worker_process() {
    // Not a test of its own: the worker processes of the tests in this file begin here.
    harness::worker_main();
}

fn start(place: &Place) -> (Broker, String) {
    let broker = Broker::start_as(place, &["--web", "127.0.0.1:0"]);
    let url = format!("http://{}", Http::of(&broker).address());
    (broker, url)
}

fn dead_tasks(table: &Table, n: i64) {
    for _ in 0..n {
        table.execute("INSERT INTO tasks(kind, max_attempts) VALUES ('fail', 1)", []);
    }
    table.wait_for_count("state = 'dead'", n);
}

#[test]
fn live_updates_arrive_on_every_page_without_a_violation() {
    // Proves that what happens appears on pages that stand open, across a restart of the broker, and that no page breaks its own
    // policy or leaves a word in the console.
    let place = Place::new();
    let (broker, url) = start(&place);
    let table = Table::open(&place);
    let browser = Browser::start(&place);
    for path in ["/tasks", "/dead", "/lanes", "/groups", "/schedules", "/about", "/workers", "/"] {
        browser.go(&format!("{url}{path}"));
        browser.wait_for("html[data-beats]");
        assert_eq!(browser.complaints(), [""; 0], "{path}");
    }
    browser.wait_for("#chart canvas");
    table.insert("nobody", "1");
    browser.wait_for_text("#p-attention", "no worker offers it");
    browser.wait_for_text("#p-lanes", "normal");
    let task = table.insert("progress", "{\"steps\":3}");
    browser.go(&format!("{url}/tasks/{task}"));
    browser.wait_for_text("#p-task", "queued");
    let _worker = WorkerProcess::start(&place, "slots=1");
    browser.wait_for_text("#p-task", "Run 1: done");
    assert_eq!(browser.complaints(), [""; 0]);
    // The same address, so that the tab finds it again by itself.
    let address = url.trim_start_matches("http://").to_owned();
    assert_eq!(broker.stop(), 0);
    browser.wait_for("html.cut");
    let _broker = Broker::start_as(&place, &["--web", &address]);
    browser.wait_for("html:not(.cut)");
}

#[test]
fn every_list_is_kept_fresh_by_the_one_stream() {
    // Proves that tasks, dead ones, groups, one group and schedules change on pages that stand open, that a list of tasks which was
    // swapped for another is the one that is kept fresh, and that rows stay still while one is selected.
    let place = Place::new();
    let (_broker, url) = start(&place);
    let table = Table::open(&place);
    let browser = Browser::start(&place);
    let open = |path: &str| {
        browser.go(&format!("{url}{path}"));
        browser.wait_for("html[data-beats]");
    };
    open("/dead");
    table.execute("INSERT INTO tasks (kind, state, error, finished_at) VALUES ('k', 'dead', 'no route', 1)", []);
    browser.wait_for_text("#p-dead-groups", "no route");
    open("/groups");
    table.execute("INSERT INTO task_groups (name) VALUES ('monthly')", []);
    browser.wait_for_text("#p-groups", "monthly");
    table.execute("INSERT INTO tasks (kind, group_id) VALUES ('nobody', 1)", []);
    browser.wait_for_text("#p-groups", "0 of 1 ended");
    open("/groups/1");
    table.execute("UPDATE tasks SET cancel_requested = 1 WHERE group_id = 1", []);
    browser.wait_for_text("#p-group a[href*='state=cancelled']", "1");
    open("/schedules");
    table.execute("INSERT INTO schedules (name, cron, kind) VALUES ('nightly', '0 3 * * *', 'report')", []);
    browser.wait_for_text("#p-schedules", "nightly");

    open("/tasks?state=queued");
    let task = table.insert("first", "1");
    browser.wait_for_text("#list tbody", "first");
    browser.click(&format!("#selection input[value='{task}']"));
    let beats = || browser.script("return Number(document.documentElement.dataset.beats)").as_f64().unwrap();
    let begun = beats();
    table.insert("second", "1");
    wait_until("a message about it", || beats() > begun);
    assert!(!browser.text("#list tbody").contains("second"), "rows moved under a selected one");
    browser.click(&format!("#selection input[value='{task}']"));
    browser.wait_for_text("#list tbody", "second");
    // Another list in its place.
    browser.click("#list nav a[href*='state=dead']");
    browser.wait_for_text("#list tbody", "dead");
    table.execute("INSERT INTO tasks (kind, state, error, finished_at) VALUES ('third', 'dead', 'no route', 1)", []);
    browser.wait_for_text("#list tbody", "third");
    assert!(!browser.text("#list tbody").contains("first"));
    assert_eq!(browser.complaints(), [""; 0]);
}

#[test]
fn nothing_scrolls_sideways_on_a_phone() {
    // Proves that each page with content fits 390 pixels; wide tables scroll within themselves.
    let place = Place::new();
    let (_broker, url) = start(&place);
    let table = Table::open(&place);
    let _worker = WorkerProcess::start(&place, "slots=2 name=a-worker-with-a-rather-long-name kinds=sleep");
    let long = "x".repeat(120);
    for state in ["dead", "done"] {
        table.execute(
            "INSERT INTO tasks (kind, state, error, finished_at, group_id, payload) VALUES (?1, ?2, ?1, 1, 1, '\"' || ?1 || '\"')",
            (&long, state),
        );
    }
    table.execute("INSERT INTO task_groups (id, name) VALUES (1, ?1)", [&long]);
    table.execute("INSERT INTO schedules (name, cron, kind) VALUES (?1, '0 3 * * *', ?1)", [&long]);
    table.insert("sleep", r#"{"ms":3600000}"#);
    table.insert(&long, "1");
    table.wait_for_count("state = 'running'", 1);
    let browser = Browser::start(&place);
    browser.resize(390, 844);
    let confirm = format!("/tasks/change-all?change=purge&state=dead&q=kind:{long}");
    let pages = [
        "/",
        "/tasks",
        "/tasks/1",
        "/tasks/3",
        "/dead",
        "/lanes",
        "/workers",
        "/groups",
        "/groups/1",
        "/schedules",
        "/about",
        &confirm,
        "/nothing",
    ];
    for path in pages {
        browser.go(&format!("{url}{path}"));
        browser.wait_for("html[data-beats]");
        // Of those that are too wide, the innermost, unless one around it scrolls.
        let wide = browser.script(
            "const scrolls = (e) => e && (/auto|scroll|hidden/.test(getComputedStyle(e).overflowX) || scrolls(e.parentElement));
             const all = [...document.body.querySelectorAll('*')].filter((e) => e.getBoundingClientRect().right > 391);
             return document.documentElement.scrollWidth > 390 ? ['wide', ...all.filter((e) => !scrolls(e)).map((e) => e.outerHTML.slice(0, 120))] : []",
        );
        assert_eq!(wide, serde_json::json!([]), "{path} scrolls sideways");
    }
}

#[test]
fn a_long_name_of_a_kind_leaves_room_for_the_rest() {
    // Proves on a large screen that no table of kinds scrolls within its panel for a name, which is cut and whole in its title, and
    // that an error beside it can be read.
    let place = Place::new();
    let (_broker, url) = start(&place);
    let table = Table::open(&place);
    let long = "x".repeat(120);
    table.insert(&long, "1");
    let dead = "INSERT INTO tasks (kind, state, error, finished_at) VALUES (?1, 'dead', 'no route to host', 1)";
    table.execute(dead, [&long]);
    let browser = Browser::start(&place);
    browser.resize(1440, 900);
    for path in ["/", "/lanes", "/dead"] {
        browser.go(&format!("{url}{path}"));
        browser.wait_for(&format!("main [title='{long}']"));
        let wide = browser.script(
            "return [...document.querySelectorAll('main .scroll, .panel > [id^=p-]')]
               .filter((e) => e.scrollWidth > e.clientWidth).map((e) => e.outerHTML.slice(0, 120))",
        );
        assert_eq!(wide, serde_json::json!([]), "{path} scrolls within a panel");
    }
    let height = browser.script("return document.querySelector('.sig').getBoundingClientRect().height");
    assert!(height.as_f64().unwrap() < 30.0, "the error is broken into lines: {height}");
}

#[test]
fn what_a_worker_logs_is_read_while_it_runs_and_for_a_while_after() {
    // Proves that lines and progress of a run arrive on a page that stands open, that its end does not take them away, and that the
    // result is there then.
    let place = Place::new();
    let (_broker, url) = start(&place);
    let table = Table::open(&place);
    let browser = Browser::start(&place);
    let task = table.insert("log", &serde_json::json!({"lines": 3, "path": place.path("go on")}).to_string());
    browser.go(&format!("{url}/tasks/{task}"));
    browser.wait_for_text("#p-task", "queued");
    let _worker = WorkerProcess::start(&place, "slots=1");
    browser.wait_for_text("#p-task pre.log", "line 3");
    browser.wait_for_text("#p-task", "running");
    std::fs::write(place.path("go on"), "").unwrap();
    browser.wait_for_text("#p-task", "Run 1: done");
    browser.wait_for_text("#p-task pre.log", "line 3");
    // What stands outside of the live part comes along.
    browser.wait_for_text("#task-rest", "laneway task purge");
    browser.wait_for_text("#task-rest section:nth-child(2) pre.data", "3");
    assert_eq!(browser.complaints(), [""; 0]);
}

#[test]
fn a_hidden_tab_asks_for_nothing() {
    // Proves that a tab that nobody sees shuts its stream, and opens it again when it is seen.
    let place = Place::new();
    let (broker, url) = start(&place);
    let http = Http::of(&broker);
    let streams = |n: usize| http.get("/metrics").body.contains(&format!("laneway_web_streams {n}"));
    let browser = Browser::start(&place);
    browser.go(&format!("{url}/lanes"));
    wait_until("the tab to listen", || streams(1));
    for (hidden, n) in [(true, 0), (false, 1)] {
        browser.script(&format!(
            "Object.defineProperty(document, 'hidden', {{ value: {hidden}, configurable: true }});
             document.dispatchEvent(new Event('visibilitychange'))"
        ));
        wait_until("the stream to follow", || streams(n));
    }
}

#[test]
fn an_action_does_what_it_says_and_survives_a_reload() {
    // Proves pause of a lane behind a question, requeue of selected tasks, and a batch over a group of dead ones.
    let place = Place::new();
    let (_broker, url) = start(&place);
    let table = Table::open(&place);
    let worker = WorkerProcess::start(&place, "slots=1");
    dead_tasks(&table, 3);
    worker.kill();
    let browser = Browser::start(&place);
    browser.go(&format!("{url}/lanes"));
    browser.click("tr:has(input[value=normal]) button[value=pause]");
    browser.wait_for_text("#confirm-text", "Pause lane normal?");
    browser.click("#confirm-yes");
    browser.wait_for("tr:has(input[value=normal]) button[value=resume]");
    browser.reload();
    browser.wait_for_text("#p-lane-table", "paused");

    browser.go(&format!("{url}/tasks?state=dead"));
    browser.click("#selection tbody input[value='2']");
    browser.wait_for_text("#selected", "1");
    browser.click("button[value=requeue]");
    wait_until("task 2 to be queued", || table.state(2) == "queued");
    browser.wait_for("#selection tbody tr");
    browser.reload();
    // A reload beside the form's own way back may show what was there before, until the next word of the stream.
    wait_until("task 2 to have left the list", || !browser.source().contains("value=\"2\" aria"));

    browser.go(&format!("{url}/dead"));
    browser.click("a[href*='change=purge']");
    browser.wait_for_text("form.ask", "2 tasks that match");
    browser.click("form.ask button.danger");
    browser.wait_for_text("#p-batch", "over");
    assert_eq!(table.count("state = 'dead'"), 0);
    assert_eq!(browser.complaints(), [""; 0]);
}

#[test]
fn filters_pages_and_keys_work() {
    // Proves the list in place: tabs, filter, a slip's words, older pages, and the keys that the help lists.
    let place = Place::new();
    let (_broker, url) = start(&place);
    let table = Table::open(&place);
    for n in 0..70 {
        table.insert(if n == 0 { "rare" } else { "often" }, "1");
    }
    let browser = Browser::start(&place);
    browser.go(&format!("{url}/tasks"));
    browser.click("#older");
    browser.wait_for("tr[data-row] input[value='20']");
    assert!(browser.address().contains("before=21"), "{}", browser.address());
    browser.write("#filter", "kind:rare\u{e007}");
    browser.wait_for_text("#list tbody", "rare");
    wait_until("one row", || browser.script("return document.querySelectorAll('tr[data-row]').length") == 1);
    browser.reload();
    browser.wait_for_text("#list tbody", "rare");
    browser.write("#filter", " knd:x\u{e007}");
    browser.wait_for_text("#wrong", "the field knd");
    assert_eq!(browser.complaints(), [""; 0]);

    browser.go(&format!("{url}/tasks"));
    browser.wait_for("html[data-beats]");
    browser.press("jjx");
    browser.wait_for_text("#selected", "1");
    browser.press("?");
    browser.wait_for("#help[open]");
    browser.press("\u{e00c}");
    browser.press("gw");
    browser.wait_for_text("h1", "Workers");
    browser.go(&format!("{url}/tasks"));
    browser.press("j\u{e007}");
    browser.wait_for_text("h1", "Task 70");
    browser.press("/");
    browser.press("rare");
    assert_eq!(browser.script("return document.getElementById('jump').value"), "rare");
    browser.script("document.getElementById('theme').click()");
    let theme = browser.script("return document.documentElement.dataset.theme");
    browser.reload();
    assert_eq!(browser.script("return document.documentElement.dataset.theme"), theme);
    assert_eq!(browser.complaints(), [""; 0]);
}

#[test]
fn nothing_is_lost_without_javascript() {
    // Proves that reading, filtering, paging and changing, with a question before what cannot be undone, need no script.
    let place = Place::new();
    let (_broker, url) = start(&place);
    let table = Table::open(&place);
    let worker = WorkerProcess::start(&place, "slots=1");
    dead_tasks(&table, 2);
    worker.kill();
    for _ in 0..55 {
        table.insert("often", "1");
    }
    let browser = Browser::without_javascript(&place);
    browser.go(&format!("{url}/"));
    browser.wait_for_text("noscript, .strip", "stands still");
    browser.wait_for_text("#p-lanes", "normal");
    browser.go(&format!("{url}/tasks?state=queued"));
    browser.click("#older");
    browser.wait_for_text("#list", "Newest");
    browser.write("#filter", "kind:fail state:dead\u{e007}");
    browser.wait_for("#selection input[value='1']");
    browser.click("#selection input[value='1']");
    browser.click("button[value=purge]");
    browser.wait_for_text("form.ask", "Nothing brings it back");
    browser.click("form.ask button.danger");
    wait_until("task 1 to be gone", || table.count("id = 1") == 0);
    browser.go(&format!("{url}/lanes"));
    browser.click("tr:has(input[value=low]) button[value=pause]");
    browser.wait_for("tr:has(input[value=low]) button[value=resume]");
    // What is dangerous asks on a page of its own.
    table.execute("INSERT INTO task_groups (id, name) VALUES (7, 'monthly')", []);
    table.execute("INSERT INTO tasks (kind, group_id) VALUES ('nobody', 7)", []);
    browser.go(&format!("{url}/groups/7"));
    browser.click("#p-group button.danger");
    browser.wait_for_text("form.ask", "Cancel what of group 7 has not ended?");
    browser.click("form.ask button.danger");
    table.wait_for_count("group_id = 7 AND state = 'cancelled'", 1);
}

#[test]
fn a_form_is_known_by_its_origin_where_the_browser_trusts_no_connection() {
    // Proves that whoever reaches the dashboard by a plain name, where browsers send no Sec-Fetch-Site, can change things without
    // JavaScript: a page that forbids its own address as referrer would send its forms from nowhere.
    let place = Place::new();
    let broker = Broker::start_as(&place, &["--web", "127.0.0.1:0", "--set", "web.hosts=tasks.example"]);
    let http = Http::of(&broker);
    let port = http.address().rsplit(':').next().unwrap();
    let browser = Browser::without_javascript(&place);
    browser.go(&format!("http://tasks.example:{port}/lanes"));
    browser.click("tr:has(input[value=low]) button[value=pause]");
    browser.wait_for("tr:has(input[value=low]) button[value=resume]");
}
