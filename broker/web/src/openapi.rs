//! The `OpenAPI` document of the API, kept beside the code as JSON and served as it is, with this version and base path in it.

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::app::Shared;
use crate::failure::Failure;
use crate::routes;

const DOCUMENT: &str = include_str!("../assets/openapi.json");

pub(crate) async fn document(State(app): State<Shared>) -> Result<Response, Failure> {
    let wrong = |error: serde_json::Error| {
        Failure::new(axum::http::StatusCode::INTERNAL_SERVER_ERROR, "openapi", error.to_string())
    };
    let mut document: Value = serde_json::from_str(DOCUMENT).map_err(wrong)?;
    document["info"]["version"] = env!("CARGO_PKG_VERSION").into();
    document["servers"][0]["url"] = format!("{}/api/v1", app.settings.base_path).into();
    let base = if app.settings.base_path.is_empty() { "/" } else { app.settings.base_path.as_str() };
    for (_, path, _) in routes::shared() {
        document["paths"][path]["servers"] = json!([{ "url": base }]);
    }
    Ok(([(header::CONTENT_TYPE, "application/json")], document.to_string()).into_response())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Those keys of a path that are no methods.
    fn is_method(key: &str) -> bool {
        key != "parameters" && key != "servers"
    }

    #[test]
    fn the_document_has_every_route_and_no_other() {
        // Proves both ways, path by path and method by method, that what is served is what is written.
        let document: Value = serde_json::from_str(DOCUMENT).unwrap();
        let paths = document["paths"].as_object().unwrap();
        let written = paths.iter().flat_map(|(path, item)| {
            let methods = item.as_object().unwrap().keys().filter(|key| is_method(key));
            methods.map(move |method| format!("{method} {path}"))
        });
        let api = routes::api().into_iter().map(|(methods, path, _, handler)| (methods, path, handler));
        let served: Vec<_> = api.chain(routes::shared()).collect();
        let served =
            served.iter().flat_map(|(methods, path, _)| methods.iter().map(move |method| format!("{method} {path}")));
        assert_eq!(served.collect::<BTreeSet<_>>(), written.collect::<BTreeSet<_>>());
    }

    #[test]
    fn the_document_has_every_parameter_and_no_other() {
        // Proves that what is refused as unknown is what is not written.
        let document: Value = serde_json::from_str(DOCUMENT).unwrap();
        for (_, path, known, _) in routes::api() {
            let item = document["paths"][path].as_object().unwrap();
            let parameters = item.iter().filter(|(key, _)| is_method(key)).map(|(_, of)| &of["parameters"]);
            let parameters = parameters.filter_map(Value::as_array).flatten();
            let written = parameters.filter(|parameter| parameter["in"] == "query").map(|parameter| &parameter["name"]);
            let written: BTreeSet<&str> = written.filter_map(Value::as_str).collect();
            assert_eq!(written, known.iter().copied().collect(), "{path}");
        }
    }

    #[test]
    fn every_reference_of_the_document_leads_somewhere() {
        // Proves that generators of clients find each schema, and that each operation tells its answers.
        let document: Value = serde_json::from_str(DOCUMENT).unwrap();
        assert_eq!(document["openapi"], "3.1.0");
        let text = document.to_string();
        for name in text.split("\"#").skip(1).filter_map(|rest| rest.split('"').next()) {
            assert!(document.pointer(name).is_some(), "{name}");
        }
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap().iter().filter(|(key, _)| is_method(key)) {
                assert!(operation["summary"].is_string(), "{method} {path}");
                assert!(operation["responses"]["200"].is_object(), "{method} {path}");
            }
        }
    }
}
