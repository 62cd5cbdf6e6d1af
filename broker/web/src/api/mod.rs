//! The JSON API under `/api/v1`: what the screens show and do, for programs on other machines that want no library.
//!
//! Objects have the words of the wire and the table. Errors are `{code, message, field, next}`.

pub(crate) mod change;
pub(crate) mod look;
pub(crate) mod submit;
pub(crate) mod whole;

use axum::http::header;
use axum::response::{IntoResponse, Response};
use laneway_protocol::message::TaskRow;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::failure::Failure;
use crate::payload;

type Answered = Result<Response, Failure>;

fn answer(value: &impl Serialize) -> Answered {
    let text = serde_json::to_string(value)
        .map_err(|error| Failure::new(axum::http::StatusCode::INTERNAL_SERVER_ERROR, "json", error.to_string()))?;
    Ok(([(header::CONTENT_TYPE, "application/json")], text).into_response())
}

/// A value as an object, or what it is under `value`.
fn object(value: &impl Serialize) -> Map<String, Value> {
    match serde_json::to_value(value) {
        Ok(Value::Object(object)) => object,
        Ok(other) => Map::from_iter([("value".to_owned(), other)]),
        Err(error) => Map::from_iter([("error".to_owned(), json!(error.to_string()))]),
    }
}

/// A task with payload and result readable, or without them.
fn task_json(row: &TaskRow, shows_payloads: bool) -> Value {
    let mut value = object(row);
    payload::put(&mut value, "payload", row.payload.as_ref().filter(|_| shows_payloads));
    payload::put(&mut value, "result", row.result.as_ref().filter(|_| shows_payloads));
    Value::Object(value)
}
