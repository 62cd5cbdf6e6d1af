//! The element `laneway-task` in a real browser, on pages of another origin than the broker's.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use harness::{Broker, Browser, Http, Place, Program, Said, Table, WorkerProcess, tools, wait_until};
use serde_json::{Value, json};

#[test]
fn worker_process() {
    // Not a test of its own: the worker processes of the tests in this file begin here.
    harness::worker_main();
}

/// A web server of somebody else's pages; ended when dropped.
struct Site {
    server: Child,
    origin: String,
}

impl Site {
    fn serve(folder: &Path) -> Self {
        let mut python = Command::new(tools::python3());
        python.args(["-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory"]).arg(folder);
        let mut server = python.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut lines = BufReader::new(server.stdout.take().unwrap()).lines().map_while(Result::ok);
        let port = lines.find_map(|line| Some(line.split(" port ").nth(1)?.split(' ').next()?.to_owned()));
        // Another name than the broker's: not the same site either.
        Self { server, origin: format!("http://localhost:{}", port.expect("the server tells its port")) }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.server.kill().ok();
        self.server.wait().ok();
    }
}

/// A broker whose links pages of the site may show.
fn start(place: &Place, web: &str, site: &Site) -> (Broker, String) {
    let keys = place.path("link.keys");
    if !keys.exists() {
        std::fs::write(&keys, "correct-horse-battery-staple-0123456789").unwrap();
        std::fs::set_permissions(&keys, std::fs::Permissions::from_mode(0o600)).unwrap();
    }
    let keys = format!("web.link_key_file={}", keys.display());
    let origins = format!("web.cors_origins={}", site.origin);
    let broker = Broker::start_as(place, &["--web", web, "--set", &keys, "--set", &origins]);
    let url = format!("http://{}", Http::of(&broker).address());
    (broker, url)
}

fn link(place: &Place, url: &str, task: i64) -> String {
    let task = task.to_string();
    let said = Said::by(place, &[], &["link", &task, "--key-file", "link.keys", "--url", url]);
    said.is(0, "");
    said.out.trim().to_owned()
}

/// The page of the guide, with so many links in it, under a policy that forbids all that it does not need.
fn page(url: &str, links: &[String]) -> String {
    let guide = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("docs/widget.md");
    let guide = std::fs::read_to_string(guide).unwrap();
    let html = guide.split("```text\n").nth(1).unwrap().split("```").next().unwrap();
    let (script, element) = html.trim().split_once('\n').unwrap();
    let script = script.replace("http://127.0.0.1:9730", url);
    assert!(script.contains(&format!("{url}/widget.js")) && element.contains("src=\"LINK\""), "{html}");
    let elements: String = links.iter().map(|link| element.replace("LINK", link)).collect();
    format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta http-equiv=\"Content-Security-Policy\" content=\"default-src \
         'none'; script-src {url}; connect-src {url}; img-src data:; require-trusted-types-for 'script'\">\
         <link rel=\"icon\" href=\"data:,\"><title>Shop</title>{script}{elements}</html>"
    )
}

/// What a part of the nth element says.
fn part(browser: &Browser, n: usize, part: &str) -> String {
    let script = format!(
        "return document.querySelectorAll('laneway-task')[{n}]?.shadowRoot?.querySelector('[part={part}]')?.textContent ?? ''"
    );
    browser.script(&script).as_str().unwrap_or_default().to_owned()
}

#[track_caller]
fn wait_for_part(browser: &Browser, n: usize, name: &str, says: &str) {
    wait_until(&format!("{name} of element {n} to say {says}"), || part(browser, n, name) == says);
}

/// Says how far it is until a file lies there, again and again, so that none of it is lost while the broker is away.
const RENDER: &str =
    "until [ -e two ]; do if [ -e one ]; then echo '2 3 second'; else echo '1 3 first'; fi >&3; sleep 0.1; done";

#[test]
fn the_widget_on_another_origin_shows_progress_to_done_across_a_restart_of_the_broker() {
    // Proves the whole way under a strict policy: progress, a broker that is killed and comes back, the end, the events that a page
    // hears, and what a screen reader is told.
    let place = Place::new();
    let folder = place.path("site");
    std::fs::create_dir(&folder).unwrap();
    let site = Site::serve(&folder);
    let (broker, url) = start(&place, "127.0.0.1:0", &site);
    let task = Table::open(&place).insert("render", "1");
    std::fs::write(folder.join("index.html"), page(&url, &[link(&place, &url, task)])).unwrap();
    let browser = Browser::start(&place);
    browser.go(&format!("{}/", site.origin));
    wait_for_part(&browser, 0, "state", "Queued");
    browser.script(
        "window.heard = [];
         for (const name of ['laneway-change', 'laneway-end'])
           document.addEventListener(name, ({ detail }) => heard.push([name, detail.state, detail.percent]));",
    );
    let mut work = Command::new(env!("CARGO_BIN_EXE_laneway"));
    work.args(["work", "render", "--endpoint", &place.endpoint(), "--", "sh", "-c", RENDER]).current_dir(place.dir());
    let _worker = Program::start(&mut work);
    wait_for_part(&browser, 0, "percent", "33 %");
    wait_for_part(&browser, 0, "note", "first");
    assert_eq!(part(&browser, 0, "state"), "Running");
    let bar = "const bar = document.querySelector('laneway-task').shadowRoot.querySelector('[role=progressbar]'); \
               return [bar.ariaValueNow, bar.firstChild.style.width]";
    assert_eq!(browser.script(bar), json!(["33", "33%"]));
    assert_eq!(browser.complaints(), [""; 0]);

    broker.kill();
    wait_for_part(&browser, 0, "state", "Reconnecting");
    assert_eq!(part(&browser, 0, "percent"), "33 %");
    let (broker, _) = start(&place, url.trim_start_matches("http://"), &site);
    wait_for_part(&browser, 0, "state", "Running");
    std::fs::write(place.path("one"), "").unwrap();
    wait_for_part(&browser, 0, "percent", "66 %");
    std::fs::write(place.path("two"), "").unwrap();
    wait_for_part(&browser, 0, "state", "Done");
    let heard = browser.script("return heard");
    let heard: Vec<Value> = heard.as_array().unwrap().clone();
    assert_eq!(heard.last(), Some(&json!(["laneway-end", "done", 100])), "{heard:?}");
    assert_eq!(heard.iter().filter(|event| event[0] == "laneway-end").count(), 1, "{heard:?}");
    assert!(heard.contains(&json!(["laneway-change", "running", 66])), "{heard:?}");
    let http = Http::of(&broker);
    wait_until("the stream to be shut", || http.get("/metrics").body.contains("laneway_web_observers 0"));
}

#[test]
fn many_elements_the_example_and_a_link_by_itself_show_the_same() {
    // Proves that a page with more elements than a browser has connections shows all of them, that the example works as its head says,
    // that a link is a page by itself, and what is shown for one that opens nothing.
    let place = Place::new();
    let folder = place.path("site");
    std::fs::create_dir(&folder).unwrap();
    let site = Site::serve(&folder);
    let (_broker, url) = start(&place, "127.0.0.1:0", &site);
    let table = Table::open(&place);
    let tasks: Vec<i64> = (0..8).map(|_| table.insert("echo", "1")).collect();
    let mut links: Vec<String> = tasks.iter().map(|task| link(&place, &url, *task)).collect();
    links.push(format!("{url}/observe/v1.changed.on-its-way"));
    std::fs::write(folder.join("index.html"), page(&url, &links)).unwrap();
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("examples/widget/index.html");
    std::fs::copy(example, folder.join("example.html")).unwrap();

    let browser = Browser::start(&place);
    browser.go(&format!("{}/", site.origin));
    (0..tasks.len()).for_each(|n| wait_for_part(&browser, n, "state", "Queued"));
    wait_for_part(&browser, tasks.len(), "state", "Not available");
    assert!(part(&browser, tasks.len(), "note").contains("not signed"));
    let _worker = WorkerProcess::start(&place, "slots=2");
    (0..tasks.len()).for_each(|n| wait_for_part(&browser, n, "state", "Done"));

    browser.complaints();
    browser.go(&format!("{}/example.html?link={}", site.origin, links[0]));
    wait_for_part(&browser, 0, "state", "Done");
    browser.wait_for("#next:not([hidden])");
    browser.go(&links[0]);
    wait_for_part(&browser, 0, "state", "Done");
    browser.wait_for_text("laneway-task", &format!("Task {}", tasks[0]));
    assert_eq!(browser.complaints(), [""; 0]);
}
