//! The `OpenAPI` document against what a real broker's dashboard answers.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use harness::{Broker, Http, Place, Said, Table, WorkerProcess, wait_until};
use serde_json::{Map, Value, json};

#[test]
fn worker_process() {
    // Not a test of its own: the worker processes of the tests in this file begin here.
    harness::worker_main();
}

/// Waits until something holds for the text at this path.
fn wait_for_page(http: &Http, path: &str, holds: impl Fn(&str) -> bool) {
    wait_until(&format!("{path} to say so"), || holds(&http.get(path).body));
}

/// The places in an answer that its schema does not have, or has with another type.
fn unwritten(document: &Value, schema: &Value, value: &Value, at: &str) -> Vec<String> {
    if let Some(reference) = schema["$ref"].as_str() {
        return unwritten(document, document.pointer(&reference[1..]).unwrap(), value, at);
    }
    if let Some(forms) = schema["oneOf"].as_array() {
        let of_each = forms.iter().map(|form| unwritten(document, form, value, at));
        return of_each.min_by_key(Vec::len).unwrap();
    }
    let (is, wanted) = (type_of(value), &schema["type"]);
    let has = |wanted: &Value| wanted == is || (wanted == "number" && is == "integer");
    if !(wanted.is_null() || has(wanted) || wanted.as_array().is_some_and(|wanted| wanted.iter().any(has))) {
        return vec![format!("{at} is {is}, not {wanted}")];
    }
    match value {
        Value::Array(items) if schema["items"].is_object() => {
            let of = |item| unwritten(document, &schema["items"], item, &format!("{at}[]"));
            items.iter().flat_map(of).collect()
        }
        Value::Object(fields) if wanted == "object" && schema.as_object().unwrap().len() > 1 => {
            let of = |(name, value): (&String, &Value)| {
                let at = format!("{at}.{name}");
                let known = schema["properties"].get(name).or_else(|| schema.get("additionalProperties"));
                known.map_or_else(|| vec![at.clone()], |known| unwritten(document, known, value, &at))
            };
            fields.iter().flat_map(of).collect()
        }
        _ => Vec::new(),
    }
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// What there can be of everything, the number of a batch, and tokens that show a task and a group.
fn fill(place: &Place, http: &Http, table: &Table) -> (String, [String; 2]) {
    let ages = ["done", "cancelled", "dead"].map(|end| [format!("{end}_age_ms"), format!("{end}_count_max")]);
    let ages = ages.into_iter().flatten().map(|name| (name, json!(3_600_000)));
    let times = ["timeout_ms", "backoff_base_ms", "backoff_max_ms", "max_attempts", "cap", "rate_burst"];
    let mut values: Map<String, Value> = times.into_iter().map(|name| (name.into(), json!(7))).chain(ages).collect();
    values.extend([("rate".into(), json!("10/s")), ("lane".into(), json!("low"))]);
    http.post_json("/api/v1/kinds/full", &Value::Object(values)).is(200);
    let values = json!({"cap": 5, "rate": "1/s", "rate_burst": 2, "share": 10});
    http.post_json("/api/v1/lanes/low", &values).is(200);
    table.execute(
        "INSERT INTO schedules (name, cron, kind, lane, unique_key, max_attempts, timeout_ms, catch_up, catch_up_max)
         VALUES ('nightly', '0 3 * * *', 'report', 'low', 'k', 2, 9, 'all', 3), ('wrong', 'x', 'report', NULL, NULL, NULL, NULL, 'one', NULL)",
        [],
    );
    http.post_json("/api/v1/schedules/nightly/run-now", &json!({})).is(200);
    table.execute("INSERT INTO task_groups (name) VALUES ('g'), (NULL)", []);
    let all = json!({"kind": "fail", "group": 1, "lane": "high", "payload": 1, "unique_key": "u", "fair_key": "f", "max_attempts": 2,
                     "timeout_ms": 60_000, "expires_at": 4_000_000_000_000_u64, "trace": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"});
    let dead = http.post_json("/api/v1/tasks", &all).is(200).json()["task"].as_i64().unwrap();
    let done = http.post_json("/api/v1/tasks", &json!({"kind": "echo", "payload": "\u{1}", "wait_ms": 30_000})).is(200);
    assert_eq!(done.json()["task"].as_i64(), Some(dead + 1));
    let after = json!({"kind": "nobody", "after": [{"task": dead + 1}, {"task": dead, "anyway": true}]});
    http.post_json("/api/v1/tasks", &after).is(200);
    table.wait_for_state(dead, "dead");
    let batch =
        http.post_json("/api/v1/bulk", &json!({"change": "purge", "q": "kind:x", "dry_run": true})).is(200).json();
    let tokens = [&["--show-error", &dead.to_string()][..], &["--group", "1"]].map(|of| {
        let link = Said::by(place, &[], &[&["link", "--key-file", "link.keys", "--url", "http://h"][..], of].concat());
        link.is(0, "");
        link.out.trim().strip_prefix("http://h/observe/").unwrap().to_owned()
    });
    (batch["number"].to_string(), tokens)
}

#[test]
fn no_answer_has_a_field_that_the_document_lacks() {
    // Proves it of every path that is looked at, with answers as full as they can be made; that a new path is looked at as well, the
    // document's own list says.
    let place = Place::new();
    std::fs::write(place.path("link.keys"), "correct-horse-battery-staple-0123456789").unwrap();
    std::fs::set_permissions(place.path("link.keys"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let keys = format!("web.link_key_file={}", place.path("link.keys").display());
    let settings = ["kinds.configured.max_attempts=9", "defaults.backoff_base_ms=1", &keys];
    let words = settings.iter().flat_map(|setting| ["--set", *setting]);
    let broker = Broker::start_as(&place, &["--web", "127.0.0.1:0"].into_iter().chain(words).collect::<Vec<_>>());
    let http = Http::of(&broker);
    let table = Table::open(&place);
    let _worker = WorkerProcess::start(&place, "slots=2 name=webby");
    let (batch, tokens) = fill(&place, &http, &table);
    let lost = WorkerProcess::start(&place, "slots=1 name=lost");
    wait_for_page(&http, "/api/v1/workers", |text| text.contains("\"lost\""));
    lost.kill();
    wait_for_page(&http, "/api/v1/stats", |text| text.contains("lost_workers"));
    wait_for_page(&http, "/api/v1/schedules", |text| text.contains("\"error\""));
    wait_for_page(&http, "/api/v1/history", |text| text.contains("done"));
    let document = http.get("/api/v1/openapi.json").is(200).json();
    let ids = table.one::<i64>("SELECT max(id) FROM tasks", []);
    let mut wrong = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        let content = &item["get"]["responses"]["200"]["content"]["application/json"];
        if content.is_null() {
            continue;
        }
        let prefix = if path.starts_with("/observe") { "" } else { "/api/v1" };
        let every = if path.starts_with("/tasks/{id}") { (1..=ids).collect() } else { vec![1] };
        let every = every.iter().flat_map(|id| tokens.iter().map(move |token| (id.to_string(), token)));
        for (id, token) in every {
            let path = path.replace("{id}", &id).replace("{n}", &batch).replace("{token}", token);
            let asked = if path.ends_with("/wait") { format!("{path}?wait_ms=0") } else { path };
            let answer = http.get(&format!("{prefix}{asked}"));
            let schema = &item["get"]["responses"][answer.status.to_string()]["content"]["application/json"]["schema"];
            assert!(schema.is_object(), "{asked}: {answer:?}");
            wrong.extend(unwritten(&document, schema, &answer.json(), &asked));
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
    // The walk itself finds what is not there.
    let schema = json!({"type": "object", "properties": {"a": {"type": "array", "items": {"type": "integer"}}}});
    let found = unwritten(&document, &schema, &json!({"a": [1, "x"], "b": 1}), "it");
    assert_eq!(found, ["it.a[] is string, not \"integer\"", "it.b"]);
}
