//! What requests carry: parts of the path, fields of a query or a form, several of one name among them, and JSON. Bounded in bytes
//! and in time.

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::path::ErrorKind;
use axum::extract::rejection::{PathRejection, RawPathParamsRejection};
use axum::extract::{FromRequest, FromRequestParts, RawPathParams, Request};
use axum::http::request::Parts;
use axum::http::{StatusCode, Uri};
use serde::de::DeserializeOwned;

use crate::failure::Failure;
use crate::json::{strict, without_twins};
use crate::limits::{BODY_BYTES_MAX, BODY_TIME};

/// Names and values in the order in which they came.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fields(Vec<(String, String)>);

impl Fields {
    pub(crate) fn parse(bytes: &[u8]) -> Self {
        Self(form_urlencoded::parse(bytes).into_owned().collect())
    }

    /// The first value of this name that says something.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        let mut values = self.0.iter().filter(|(key, _)| key == name).map(|(_, value)| value.trim());
        values.find(|value| !value.is_empty())
    }

    /// Each name with its value.
    pub(crate) fn all(&self) -> &[(String, String)] {
        &self.0
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.text(name).is_some()
    }

    pub(crate) fn number(&self, name: &str) -> Result<Option<i64>, Failure> {
        self.text(name).map(|text| number(name, text)).transpose()
    }

    /// Every value of this name.
    pub(crate) fn numbers(&self, name: &str) -> Result<Vec<i64>, Failure> {
        let values = self.0.iter().filter(|(key, _)| key == name);
        values.map(|(_, text)| number(name, text.trim())).collect()
    }
}

fn number(name: &str, text: &str) -> Result<i64, Failure> {
    text.parse().map_err(|_| Failure::bad(name, format!("'{text}' is not a whole number")))
}

/// What the path of a route leaves open: names and numbers.
pub(crate) struct Path<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let found = axum::extract::Path::from_request_parts(parts, state).await;
        match found {
            Ok(axum::extract::Path(found)) => Ok(Self(found)),
            Err(wrong) => Err(wrong_path(&wrong, RawPathParams::from_request_parts(parts, state).await)),
        }
    }
}

/// Of what a path can hold, only a number can be wrong, and bytes that are no text.
fn wrong_path(wrong: &PathRejection, parts: Result<RawPathParams, RawPathParamsRejection>) -> Failure {
    let PathRejection::FailedToDeserializePathParams(wrong) = wrong else {
        return Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "path", wrong.to_string());
    };
    match wrong.kind() {
        ErrorKind::ParseErrorAtKey { value, .. }
        | ErrorKind::ParseErrorAtIndex { value, .. }
        | ErrorKind::ParseError { value, .. } => {
            let parts = parts.ok();
            let name = parts.iter().flatten().find(|(_, part)| part == value).map_or("path", |(name, _)| name);
            Failure::bad(name, format!("'{value}' in the path must be a whole number from 0 to {}", i64::MAX))
        }
        ErrorKind::InvalidUtf8InPathParam { key } => Failure::bad(key, "in the path must be UTF-8"),
        other => Failure::bad("path", other.to_string()),
    }
}

/// Refuses a field of the address that the path does not know: a condition that was misspelt would be none.
pub(crate) fn known(known: &[&str], uri: &Uri) -> Result<(), Failure> {
    let fields = Fields::parse(uri.query().unwrap_or_default().as_bytes());
    let Some((name, _)) = fields.all().iter().find(|(name, _)| !known.contains(&name.as_str())) else { return Ok(()) };
    let next = match known {
        [] => "say none here".to_owned(),
        known => format!("there are {}", known.join(", ")),
    };
    Err(Failure::bad(name, format!("there is no parameter '{name}'")).next(next))
}

/// Of the address.
pub(crate) struct Query(pub(crate) Fields);

impl<S: Sync> FromRequestParts<S> for Query {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        Ok(Self(Fields::parse(parts.uri.query().unwrap_or_default().as_bytes())))
    }
}

/// Of a form that was sent.
pub(crate) struct Form(pub(crate) Fields);

impl<S: Sync> FromRequest<S> for Form {
    type Rejection = Failure;

    async fn from_request(request: Request, _: &S) -> Result<Self, Failure> {
        Ok(Self(Fields::parse(&read(request.into_body()).await?)))
    }
}

/// A JSON body; none at all is `{}`.
pub(crate) struct Json<T>(pub(crate) T);

impl<S: Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, _: &S) -> Result<Self, Failure> {
        let bytes = read(request.into_body()).await?;
        let bytes = if bytes.is_empty() { Bytes::from_static(b"{}") } else { bytes };
        without_twins(&bytes)?;
        strict(&bytes, "body").map(Self)
    }
}

async fn read(body: Body) -> Result<Bytes, Failure> {
    let read = tokio::time::timeout(BODY_TIME, to_bytes(body, BODY_BYTES_MAX)).await;
    let slow = |_| Failure::new(StatusCode::REQUEST_TIMEOUT, "slow", "the body took too long");
    read.map_err(slow)?.map_err(|error| {
        let text = format!("the body cannot be read, or has more than {BODY_BYTES_MAX} bytes: {error}");
        Failure::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", text)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_may_come_several_times() {
        // Proves what a list of checked boxes needs, and that an empty field counts as none.
        let fields = Fields::parse(b"task=1&task=2&lane=&lane=low&q=a%20b+c");
        assert_eq!(fields.numbers("task").unwrap(), [1, 2]);
        assert_eq!((fields.text("lane"), fields.text("q"), fields.text("x")), (Some("low"), Some("a b c"), None));
        assert_eq!(Fields::parse(b"before=x").number("before").unwrap_err().field.as_deref(), Some("before"));
    }
}
