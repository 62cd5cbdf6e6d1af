//! What requests carry: fields of a query or a form, several of one name among them, and JSON. Bounded in bytes and in time.

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use crate::failure::Failure;
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
        strict(&bytes, "body").map(Self)
    }
}

/// Reads JSON. A field that nobody knows is refused at every depth: a condition or a delay that was misspelt would be none. A
/// fault in the whole is said of `whole`.
pub(crate) fn strict<T: DeserializeOwned>(json: &[u8], whole: &str) -> Result<T, Failure> {
    let (mut json, mut track) = (serde_json::Deserializer::from_slice(json), serde_path_to_error::Track::new());
    let mut unknown = None;
    let read = serde_ignored::deserialize(serde_path_to_error::Deserializer::new(&mut json, &mut track), |path| {
        unknown.get_or_insert_with(|| path.to_string().replace("?.", ""));
    });
    let found = read.and_then(|found| json.end().map(|()| found)).map_err(|error: serde_json::Error| {
        let path = track.path().to_string();
        Failure::bad(if path == "." { whole } else { &path }, error.to_string())
    })?;
    match unknown {
        Some(field) => Err(Failure::bad(&field, format!("there is no field '{field}'"))),
        None => Ok(found),
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
    fn a_field_that_nobody_knows_is_refused_at_every_depth() {
        // Proves that no misspelt condition widens what a batch changes, and where the fault is said to be.
        #[derive(Debug, serde::Deserialize)]
        struct Outer {
            filter: Option<Inner>,
        }
        #[derive(Debug, serde::Deserialize)]
        struct Inner {
            older_ms: Option<u64>,
        }
        let field = |json: &str| strict::<Outer>(json.as_bytes(), "body").map_err(|wrong| wrong.field.unwrap());
        let read = field(r#"{"filter": {"older_ms": 5}}"#).unwrap();
        assert_eq!(read.filter.and_then(|filter| filter.older_ms), Some(5));
        for (json, says) in [
            (r#"{"filter": {"older_then_ms": 5}}"#, "filter.older_then_ms"),
            (r#"{"filter": {"older_ms": "x"}}"#, "filter.older_ms"),
            (r#"{"fliter": {}}"#, "fliter"),
            ("{} {}", "body"),
            ("[", "body"),
        ] {
            assert_eq!(field(json).unwrap_err(), says, "{json}");
        }
    }

    #[test]
    fn fields_may_come_several_times() {
        // Proves what a list of checked boxes needs, and that an empty field counts as none.
        let fields = Fields::parse(b"task=1&task=2&lane=&lane=low&q=a%20b+c");
        assert_eq!(fields.numbers("task").unwrap(), [1, 2]);
        assert_eq!((fields.text("lane"), fields.text("q"), fields.text("x")), (Some("low"), Some("a b c"), None));
        assert_eq!(Fields::parse(b"before=x").number("before").unwrap_err().field.as_deref(), Some("before"));
    }
}
