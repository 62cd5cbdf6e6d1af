//! Every path, in one list. What stands under `/api/v1`, and what is for other sites, stands in the `OpenAPI` document too, which
//! a test compares.

use axum::Router;
use axum::extract::Request;
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::routing::{MethodRouter, get, post};

use crate::app::Shared;
use crate::failure::Failure;
use crate::guard::guard;
use crate::request::known;
use crate::{api, assets, metrics, observe, openapi, pages, sse};

pub(crate) fn router(app: &Shared) -> Router {
    let mut router = Router::new();
    for (path, handler) in pages().into_iter().chain(machine()) {
        router = router.route(path, handler);
    }
    for (_, path, query, handler) in api() {
        let handler = handler.layer(from_fn(move |request: Request, next: Next| async move {
            known(query, request.uri())?;
            Ok::<_, Failure>(next.run(request).await)
        }));
        router = router.route(&format!("/api/v1{path}"), handler);
    }
    for (_, path, handler) in shared() {
        router = router.route(path, handler);
    }
    let router = router.fallback(pages::no_such_page).method_not_allowed_fallback(pages::no_such_method);
    router.layer(from_fn_with_state(app.clone(), guard)).with_state(app.clone())
}

type Route = MethodRouter<Shared>;

fn pages() -> Vec<(&'static str, Route)> {
    vec![
        ("/", get(pages::overview::show)),
        ("/lanes", get(pages::lanes::show)),
        ("/lanes/change", post(pages::lanes::change)),
        ("/kinds/change", post(pages::lanes::change_kind)),
        ("/tasks", get(pages::tasks::show)),
        ("/tasks/change", post(pages::change::some)),
        ("/tasks/change-all", get(pages::change_all::ask).post(pages::change_all::all)),
        ("/tasks/{id}", get(pages::task::show)),
        ("/batches/{n}", get(pages::batch::show).post(pages::batch::stop)),
        ("/workers", get(pages::workers::show)),
        ("/workers/drain", post(pages::workers::drain)),
        ("/dead", get(pages::dead::show)),
        ("/groups", get(pages::groups::show)),
        ("/groups/{id}", get(pages::groups::one).post(pages::groups::cancel)),
        ("/schedules", get(pages::schedules::show)),
        ("/schedules/change", post(pages::schedules::change)),
        ("/about", get(pages::about::show)),
    ]
}

/// For programs that watch.
fn machine() -> Vec<(&'static str, Route)> {
    vec![
        ("/events", get(sse::stream)),
        ("/assets/{name}", get(assets::serve)),
        ("/livez", get(metrics::livez)),
        ("/readyz", get(metrics::readyz)),
        ("/metrics", get(metrics::metrics)),
        ("/status.txt", get(metrics::status)),
    ]
}

type Words = &'static [&'static str];

/// Methods, path, parameters that stand behind its `?`, and handler.
pub(crate) fn api() -> Vec<(Words, &'static str, Words, Route)> {
    vec![
        (&["get"], "/stats", &[], get(api::whole::stats)),
        (&["get"], "/notices", &[], get(api::whole::notices)),
        (&["get"], "/history", &[], get(api::whole::history)),
        (&["get"], "/about", &[], get(api::whole::about)),
        (&["get"], "/lanes", &[], get(api::look::lanes)),
        (&["post"], "/lanes/{name}", &[], post(api::change::lane)),
        (&["get"], "/kinds", &["after", "limit"], get(api::look::kinds)),
        (&["post"], "/kinds/{name}", &[], post(api::change::kind)),
        (&["get"], "/workers", &["after", "limit"], get(api::look::workers)),
        (&["post"], "/workers/drain", &[], post(api::change::drain_all)),
        (&["post"], "/workers/{session}/drain", &[], post(api::change::drain)),
        (
            &["get", "post"],
            "/tasks",
            &["q", "state", "before", "limit"],
            get(api::look::tasks).post(api::submit::submit),
        ),
        (&["get"], "/tasks/{id}", &[], get(api::look::task)),
        (&["get"], "/tasks/{id}/log", &[], get(api::look::log)),
        (&["get"], "/tasks/{id}/wait", &["wait_ms"], get(api::submit::wait)),
        (&["post"], "/tasks/{id}/{change}", &[], post(api::change::task)),
        (&["post"], "/bulk", &[], post(api::change::bulk)),
        (&["get", "post"], "/batches/{n}", &[], get(api::look::batch).post(api::change::stop_batch)),
        (&["get"], "/dead", &[], get(api::look::dead)),
        (&["get"], "/groups", &["before"], get(api::look::groups)),
        (&["get"], "/groups/{id}", &[], get(api::look::group)),
        (&["post"], "/groups/{id}/cancel", &[], post(api::change::cancel_group)),
        (&["get"], "/schedules", &["after", "limit"], get(api::look::schedules)),
        (&["post"], "/schedules/{name}/{change}", &[], post(api::change::schedule)),
        (&["get"], "/openapi.json", &[], get(openapi::document)),
    ]
}

/// For pages of other sites and those who were sent a link; methods, path and handler.
pub(crate) fn shared() -> Vec<(Words, &'static str, Route)> {
    vec![
        (&["get"], "/observe/{token}", get(observe::show)),
        (&["get"], "/observe/{token}/state", get(observe::state)),
        (&["get"], "/observe/{token}/events", get(observe::events)),
        (&["get"], "/widget.js", get(observe::widget)),
    ]
}
