//! What anybody may see who has an observer link: where one task or one group stands, and nothing else. For pages of other
//! sites, which show it by the element of `widget.js`, and for people who open the link itself.
//!
//! No login is asked for: the token is the right. Nothing here asks the broker; the table is looked at through `rows`, at most
//! about once a second for all who watch the same ([`looks`]), and with few places for streams, so that a page with many
//! visitors costs the work nothing. The guard sends requests here and lets [`origins`] say which pages may read the answers.

mod links;
pub(crate) mod looks;
pub(crate) mod origins;
mod page;
mod stream;
mod told;

use std::sync::LazyLock;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

pub(crate) use self::links::Links;
pub(crate) use self::page::show;
pub(crate) use self::stream::events;
use self::told::told;
use crate::app::Shared;
use crate::failure::Failure;
use crate::request::Path;

const WIDGET: &str = include_str!("../../assets/widget.js");
/// Its address has no hash in it, as it stands in pages of others: they have a new one within the hour.
const WIDGET_KEPT: &str = "public, max-age=3600";
static WIDGET_TAG: LazyLock<String> =
    LazyLock::new(|| format!("\"{}\"", crate::payload::hex(&Sha256::digest(WIDGET)[..8])));

/// Whether a path is for pages of other sites and their visitors.
pub(crate) fn is_shared(path: &str) -> bool {
    path == "/widget.js" || path.starts_with("/observe/")
}

/// Where it stands now.
pub(crate) async fn state(State(app): State<Shared>, Path(token): Path<String>) -> Result<Response, Failure> {
    let link = app.links.open(&token)?;
    let standing = app.looks.look(&app.rows, link.observed()).await?;
    // Who asks again and again holds no connection meanwhile.
    let head = [(header::CONTENT_TYPE, "application/json"), (header::CONNECTION, "close")];
    Ok((head, told(&link, &standing)).into_response())
}

/// The script of the element. The same for all, and no secret.
pub(crate) async fn widget(headers: HeaderMap) -> Response {
    let tag = WIDGET_TAG.as_str();
    let head = [
        (header::CONTENT_TYPE, "text/javascript; charset=utf-8"),
        (header::CACHE_CONTROL, WIDGET_KEPT),
        (header::ETAG, tag),
    ];
    let is_known = headers.get(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes());
    if is_known { (StatusCode::NOT_MODIFIED, head).into_response() } else { (head, WIDGET).into_response() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_widget_is_small_and_works_under_a_strict_policy() {
        // Proves the bound of what every visitor of a page loads, and that nothing in it needs `unsafe-inline`, `unsafe-eval` or a
        // policy of trusted types.
        assert!(WIDGET.len() < 6 * 1024, "{} bytes", WIDGET.len());
        for word in ["innerHTML", "eval(", "Function(", "setAttribute(\"style\"", "<style", "document.write"] {
            assert!(!WIDGET.contains(word), "{word}");
        }
    }
}
