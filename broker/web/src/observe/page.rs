//! The page behind an observer link itself, for people who were sent one: the element and nothing of the dashboard.

use askama::Template;
use axum::Extension;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Response};

use super::told::said;
use crate::app::{App, Shared};
use crate::failure::Failure;
use crate::guard::Nonce;
use crate::request::Path;

#[derive(Template)]
#[template(path = "observe.html")]
struct ObservePage {
    nonce: String,
    css: String,
    icon: String,
    widget: String,
    /// The link; empty when it opens nothing.
    src: String,
    title: String,
    /// The state in words, or what is wrong: for those without JavaScript, who get the page again while it goes on.
    said: String,
    is_live: bool,
}

/// A failure is a page of the same kind: the dashboard's own would tell more than a link may.
pub(crate) async fn show(
    State(app): State<Shared>,
    Extension(nonce): Extension<Nonce>,
    Path(token): Path<String>,
) -> Response {
    let (status, title, said, is_live) = match look(&app, &token).await {
        Ok((title, said, is_live)) => (StatusCode::OK, title, said, is_live),
        Err(failure) => (failure.status, "Not available".into(), failure.message, failure.status.is_server_error()),
    };
    let base = &app.settings.base_path;
    let page = ObservePage {
        nonce: nonce.0,
        css: format!("{base}{}", app.assets.path("app.css")),
        icon: format!("{base}{}", app.assets.path("icon.svg")),
        widget: format!("{base}/widget.js"),
        src: if status == StatusCode::OK { format!("{base}/observe/{token}") } else { String::new() },
        title,
        said,
        is_live,
    };
    (status, Html(page.render().unwrap_or_default())).into_response()
}

async fn look(app: &App, token: &str) -> Result<(String, String, bool), Failure> {
    let link = app.links.open(token)?;
    let standing = app.looks.look(&app.rows, link.observed()).await?;
    let name = link.observed().to_string();
    // Task 12, group 7: at the beginning of a line.
    let title = format!("{}{}", name[..1].to_uppercase(), &name[1..]);
    Ok((title, said(&standing), !standing.state.is_final()))
}
