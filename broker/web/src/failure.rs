//! Why a request was not answered as asked: one shape for the API and the pages, with the next step in it.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use laneway::Code;
use serde_json::{Map, Value};

/// Becomes JSON under `/api/` and a page elsewhere; the guard, which knows the path, decides.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub(crate) status: StatusCode,
    /// For programs; never changed once released.
    pub(crate) code: &'static str,
    pub(crate) message: String,
    /// Which field, or word of a filter.
    pub(crate) field: Option<String>,
    /// What to do now.
    pub(crate) next: Option<String>,
}

impl Failure {
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), field: None, next: None }
    }

    pub(crate) fn bad(field: &str, message: impl Into<String>) -> Self {
        Self { field: Some(field.into()), ..Self::new(StatusCode::BAD_REQUEST, "bad_request", message) }
    }

    pub(crate) fn not_found(what: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", what)
    }

    /// Shed first: the dashboard gives way before anything else does.
    pub(crate) fn busy() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "busy", "too many look at once").next("ask again in a second")
    }

    pub(crate) fn too_many_guesses() -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "too_many_guesses", "too many wrong passwords or tokens at once")
            .next("ask again in a second, with the right one")
    }

    pub(crate) fn stopping() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "stopping", "the dashboard is stopping")
    }

    #[must_use]
    pub(crate) fn next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }

    /// The broker names a field of its own message. Callers of the API know those of their body and path alone: they are told `ours`.
    #[must_use]
    pub(crate) fn in_words(mut self, ours: impl Fn(&str) -> &str) -> Self {
        self.field = self.field.map(|field| ours(&field).to_owned());
        self
    }

    /// Of its page.
    pub(crate) fn title(&self) -> &'static str {
        self.status.canonical_reason().unwrap_or("Not as asked")
    }

    pub(crate) fn json(&self) -> Value {
        let mut object = Map::new();
        object.insert("code".into(), self.code.into());
        object.insert("message".into(), self.message.clone().into());
        for (key, value) in [("field", &self.field), ("next", &self.next)] {
            if let Some(value) = value {
                object.insert(key.into(), value.clone().into());
            }
        }
        Value::Object(object)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let body = self.json().to_string();
        let mut response = (self.status, [(header::CONTENT_TYPE, "application/json")], body).into_response();
        if matches!(self.status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            // A browser asks its reader then.
            let ask = HeaderValue::from_static("Basic realm=\"Laneway\", charset=\"UTF-8\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, ask);
        }
        response.extensions_mut().insert(self);
        response
    }
}

/// What the broker, or the way to it, says.
impl From<laneway::Error> for Failure {
    fn from(error: laneway::Error) -> Self {
        let text = error.to_string();
        match error {
            laneway::Error::Refused(refused) => {
                let (status, code) = match refused.code {
                    Code::NotFound => (StatusCode::NOT_FOUND, "not_found"),
                    Code::Conflict => (StatusCode::CONFLICT, "conflict"),
                    Code::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
                    Code::Denied => (StatusCode::FORBIDDEN, "denied"),
                    Code::Full => (StatusCode::SERVICE_UNAVAILABLE, "full"),
                    Code::Storage => (StatusCode::SERVICE_UNAVAILABLE, "storage"),
                    Code::Stopping => (StatusCode::SERVICE_UNAVAILABLE, "stopping"),
                    code => (StatusCode::BAD_REQUEST, code.as_str()),
                };
                Self { field: refused.field, ..Self::new(status, code, refused.text) }
            }
            laneway::Error::NoBroker { .. } => Self::new(StatusCode::SERVICE_UNAVAILABLE, "no_broker", text)
                .next("start the broker, or wait until it is back"),
            laneway::Error::NotAdmitted { .. } => Self::new(StatusCode::BAD_GATEWAY, "not_admitted", text),
            laneway::Error::NotFound(_) => Self::new(StatusCode::NOT_FOUND, "not_found", text),
            laneway::Error::BadSetting { setting, .. } => Self::bad(setting, text),
            laneway::Error::BadPayload(_) => Self::bad("payload", text),
            _ => Self::new(StatusCode::BAD_GATEWAY, "broker", text),
        }
    }
}
