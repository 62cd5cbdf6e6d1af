//! Submit tasks and wait for them over HTTP, for apps that have no library of ours.
//!
//! A wait holds a connection and no thread: the task is asked about at short intervals, which grow with the time it has been
//! waited. So a hundred that wait cost the broker no more than a few questions a second each.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::http::{HeaderMap, StatusCode};
use laneway::{Payload, TaskId};
use laneway_protocol::limits::{BATCH_MAX, WAIT_MS_MAX};
use laneway_protocol::message::{Final, NewTask, Submit, Submitted, WaitFor};
use laneway_protocol::{Answer, Request, RequestId, TraceContext};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use tokio::sync::SemaphorePermit;
use tokio::time::Instant;

use super::{Answered, answer, object};
use crate::access::Visitor;
use crate::app::stopped;
use crate::failure::Failure;
use crate::json::{strict, take};
use crate::pages::Visit;
use crate::pages::change::task_id;
use crate::payload;
use crate::request::{Json, Path, Query};

/// Between two questions of a wait: at the beginning, and at most. In between it is an eighth of the time waited so far, so that
/// an answer is late by that much at most.
const ASK_FIRST: Duration = Duration::from_millis(20);
const ASK_EVERY: Duration = Duration::from_millis(400);

const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// Of a key by which a submit that is said again is known.
const KEY_BYTES_MAX: usize = 255;

/// Several tasks. Whatever has no list of them is one task.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Many {
    tasks: Vec<Map<String, Value>>,
}

/// Beside one task or several `wait_ms`. With the header `Idempotency-Key`, one that is said again within ten minutes stores nothing more and gets the same ids. With
/// `traceparent`, tasks that have no trace of their own belong to that one.
pub(crate) async fn submit(visit: Visit, headers: HeaderMap, Json(mut body): Json<Map<String, Value>>) -> Answered {
    let wait = limit(take(&mut body, "wait_ms")?.unwrap_or(0))?;
    let is_one = !body.contains_key("tasks");
    let tasks =
        if is_one { vec![body] } else { strict::<Many>(Value::Object(body).to_string().as_bytes(), "body")?.tasks };
    if tasks.is_empty() || tasks.len() > BATCH_MAX {
        return Err(Failure::bad("tasks", format!("must be 1 to {BATCH_MAX} tasks, not {}", tasks.len())));
    }
    let named = |(n, task)| new_task(task).map_err(|failure| if is_one { failure } else { in_list(failure, n) });
    let mut tasks = tasks.into_iter().enumerate().map(named).collect::<Result<Vec<_>, _>>()?;
    if let Some(trace) = trace(&headers) {
        for task in &mut tasks {
            task.trace.get_or_insert_with(|| trace.clone());
        }
    }
    let request = request_id(&headers, &visit.visitor)?;
    // Before anything is stored: one that is refused afterwards would be said again, and stored twice.
    let place = if wait.is_zero() { None } else { Some(place_to_wait(&visit)?) };
    let was_sent = Arc::new(AtomicBool::new(false));
    let sent = Arc::clone(&was_sent);
    let submit = Submit { request, tasks, wait_ms: 0, abandon: false, group: None };
    let submitted: Submitted = visit
        .app
        .live
        .ask(move |client| {
            sent.store(true, Ordering::SeqCst);
            match client.ask(&Request::Submit(submit), Duration::ZERO)? {
                Answer::Submit(submitted) => Ok(submitted),
                other => Err(laneway::Error::BadAnswer(format!("{other:?}"))),
            }
        })
        .await
        .map_err(|failure| if was_sent.load(Ordering::SeqCst) { perhaps_stored(failure, &headers) } else { failure })
        // One task is the body itself.
        .map_err(|failure| {
            failure.in_words(|field| field.strip_prefix("tasks[0].").filter(|_| is_one).unwrap_or(field))
        })?;
    let ids: Vec<TaskId> = submitted.tasks.iter().map(|stored| stored.task).collect();
    let (ends, pending) = match place {
        // They are stored, and that is told whatever becomes of the wait.
        Some(place) => wait_for(&visit, ids.clone(), wait, place).await.unwrap_or((Vec::new(), ids)),
        None => (Vec::new(), ids),
    };
    let ends: Vec<Value> = ends.iter().map(|end| end_json(end, visit.sees_payloads())).collect();
    if is_one {
        let mut value = submitted.tasks.first().map(object).unwrap_or_default();
        value.extend(ends.into_iter().next().and_then(|end| end.as_object().cloned()).unwrap_or_default());
        return answer(&value);
    }
    answer(&json!({ "tasks": submitted.tasks, "finals": ends, "pending": pending }))
}

/// Until the task has ended, or `wait_ms` are over: then it says so with 202 and the task goes on.
pub(crate) async fn wait(visit: Visit, Path(id): Path<i64>, Query(fields): Query) -> Answered {
    let task = task_id(id)?;
    let ms = fields.number("wait_ms")?.map_or(Ok(30_000), u64::try_from);
    let ms = ms.map_err(|_| Failure::bad("wait_ms", "is negative"))?;
    let (ends, _) = wait_for(&visit, vec![task], limit(ms)?, place_to_wait(&visit)?).await?;
    if let Some(end) = ends.first() {
        return answer(&end_json(end, visit.sees_payloads()));
    }
    let mut response = answer(&json!({ "task": id, "pending": true }))?;
    *response.status_mut() = StatusCode::ACCEPTED;
    Ok(response)
}

/// The key of each visitor is their own: nobody gets the ids of another's tasks by guessing one.
fn request_id(headers: &HeaderMap, visitor: &Visitor) -> Result<RequestId, Failure> {
    let mut bytes = [0; 16];
    if let Some(key) = headers.get(IDEMPOTENCY_KEY) {
        if key.is_empty() || key.len() > KEY_BYTES_MAX {
            return Err(Failure::bad("Idempotency-Key", format!("must have 1 to {KEY_BYTES_MAX} bytes")));
        }
        let digest =
            Sha256::new().chain_update(&visitor.name).chain_update([0]).chain_update(key.as_bytes()).finalize();
        bytes.copy_from_slice(&digest[..16]);
        return Ok(RequestId(bytes));
    }
    getrandom::fill(&mut bytes)
        .map_err(|error| Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "random", error.to_string()))?;
    Ok(RequestId(bytes))
}

/// As the column has it. Headers that are no trace context are ignored, as W3C wants it: a caller's tracing is no reason to
/// refuse its tasks. `tracestate` may come in several headers, which count as one.
fn trace(headers: &HeaderMap) -> Option<String> {
    let mut parents = headers.get_all("traceparent").iter();
    let (Some(parent), None) = (parents.next(), parents.next()) else { return None };
    let states = headers.get_all("tracestate").iter().map(|state| state.to_str());
    let state = states.collect::<Result<Vec<_>, _>>().unwrap_or_default().join(",");
    TraceContext::from_headers(parent.to_str().ok()?, &state).map(|context| context.to_string())
}

fn limit(ms: u64) -> Result<Duration, Failure> {
    if ms > WAIT_MS_MAX {
        return Err(Failure::bad("wait_ms", format!("{ms} is over {WAIT_MS_MAX}: wait again instead")));
    }
    Ok(Duration::from_millis(ms))
}

/// Of a submit that was on its way when the broker was given up on.
fn perhaps_stored(failure: Failure, headers: &HeaderMap) -> Failure {
    if failure.code != "no_broker" {
        return failure;
    }
    let text = "the broker did not answer the submit in time: whether its tasks are stored is not known";
    let next = if headers.contains_key(IDEMPOTENCY_KEY) {
        "say it again with the same Idempotency-Key: what is stored already is not stored twice"
    } else {
        "look for the tasks before you say it again, which may store them twice; with an Idempotency-Key repeating is safe"
    };
    Failure::new(StatusCode::GATEWAY_TIMEOUT, "no_answer", text).next(next)
}

fn place_to_wait(visit: &Visit) -> Result<SemaphorePermit<'_>, Failure> {
    visit.app.waiters.try_acquire().map_err(|_| Failure::busy())
}

/// Until all have ended, or the time is over: the ends, and those that go on. The place is held as long.
async fn wait_for(
    visit: &Visit,
    tasks: Vec<TaskId>,
    limit: Duration,
    _place: SemaphorePermit<'_>,
) -> Result<(Vec<Final>, Vec<TaskId>), Failure> {
    let begun = Instant::now();
    let until = begun + limit;
    let (mut ends, mut pending) = (Vec::new(), tasks);
    let mut stop = visit.app.stop.clone();
    loop {
        let question = WaitFor {
            tasks: pending.clone(),
            kind: None,
            unique_key: None,
            cursor: None,
            wait_ms: 0,
            abandon: false,
            group: None,
        };
        let waited = visit
            .app
            .live
            .ask(move |client| match client.ask(&Request::WaitFor(question), Duration::ZERO)? {
                Answer::WaitFor(waited) => Ok(waited),
                other => Err(laneway::Error::BadAnswer(format!("{other:?}"))),
            })
            .await?;
        if let Some(task) = waited.not_found.first().or(waited.pruned.first()) {
            return Err(Failure::not_found(format!("there is no task {task} (any more)")));
        }
        ends.extend(waited.finals);
        pending.retain(|task| !ends.iter().any(|end: &Final| end.task == *task));
        if pending.is_empty() || Instant::now() >= until {
            return Ok((ends, pending));
        }
        let pause = (begun.elapsed() / 8).clamp(ASK_FIRST, ASK_EVERY);
        let next = (Instant::now() + pause).min(until);
        tokio::select! {
            () = tokio::time::sleep_until(next) => {}
            () = stopped(&mut stop) => return Err(Failure::stopping()),
        }
    }
}

fn end_json(end: &Final, shows_payloads: bool) -> Value {
    let mut value = object(end);
    payload::put(&mut value, "result", end.result.as_ref().filter(|_| shows_payloads));
    Value::Object(value)
}

/// The wire's task with its payload as JSON: any value, which is stored as its text.
fn new_task(mut task: Map<String, Value>) -> Result<NewTask, Failure> {
    let payload = task.remove("payload").map(|value| Payload::json(value.to_string()));
    let mut task: NewTask = strict(Value::Object(task).to_string().as_bytes(), "kind")?;
    task.payload = payload;
    Ok(task)
}

fn in_list(failure: Failure, n: usize) -> Failure {
    let field = failure.field.clone().unwrap_or_default();
    Failure { field: Some(format!("tasks[{n}].{field}")), ..failure }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_comes_from_valid_headers_alone() {
        // Proves that several states are one, and that a wrong or doubled traceparent counts as none.
        let trace = |pairs: &[(&'static str, &str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.append(*name, value.parse().unwrap());
            }
            trace(&headers)
        };
        let parent = ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
        assert_eq!(trace(&[parent]).as_deref(), Some(parent.1));
        let with_states = trace(&[parent, ("tracestate", "a=1"), ("tracestate", "b=2")]).unwrap();
        assert_eq!(with_states, format!("{} a=1,b=2", parent.1));
        for wrong in [&[][..], &[("tracestate", "a=1")], &[("traceparent", "00-4bf9")], &[parent, parent]] {
            assert_eq!(trace(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_task_of_the_api_is_a_task_of_the_wire() {
        // Proves that any JSON value is a payload and that a wrong field is named.
        let task = |value: Value| new_task(value.as_object().unwrap().clone());
        let found =
            task(json!({"kind": "mail", "payload": [1, {"a": null}], "lane": "high", "unique_key": "k"})).unwrap();
        assert_eq!(found.payload, Some(Payload::json(r#"[1,{"a":null}]"#)));
        assert_eq!(found.lane.unwrap().as_str(), "high");
        assert_eq!(task(json!({"kind": "mail"})).unwrap().payload, None);
        assert_eq!(task(json!({"kind": "mail", "run_at": "x"})).unwrap_err().field.as_deref(), Some("run_at"));
        assert_eq!(task(json!({"lane": "low"})).unwrap_err().field.as_deref(), Some("kind"));
    }
}
