//! What the settings of the dashboard do, of a broker's own and of `laneway web`: where it is shown, under which names, to whom and
//! what of it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use std::io::{BufRead, BufReader};

use harness::{Broker, Http, Place, wait_until};

const WEB: [&str; 2] = ["--web", "127.0.0.1:0"];

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
