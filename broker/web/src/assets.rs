//! Style, script and the two libraries, out of the binary. The name of each holds a hash of its bytes, so that a browser may
//! keep it for ever and never has an old one.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

use crate::app::Shared;
use crate::failure::Failure;
use crate::request::Path;

const FILES: [(&str, &str, &[u8]); 6] = [
    ("app.css", "text/css; charset=utf-8", include_bytes!("../assets/app.css")),
    ("app.js", "text/javascript; charset=utf-8", include_bytes!("../assets/app.js")),
    ("htmx.js", "text/javascript; charset=utf-8", include_bytes!("../assets/vendor/htmx.min.js")),
    ("uplot.js", "text/javascript; charset=utf-8", include_bytes!("../assets/vendor/uPlot.iife.min.js")),
    ("uplot.css", "text/css; charset=utf-8", include_bytes!("../assets/vendor/uPlot.min.css")),
    ("icon.svg", "image/svg+xml", include_bytes!("../assets/icon.svg")),
];

struct File {
    name: &'static str,
    /// Such as `app.1f3a5b7c9d0e.css`.
    hashed: String,
    content_type: &'static str,
    bytes: &'static [u8],
}

pub(crate) struct Assets {
    files: Vec<File>,
}

impl Assets {
    pub(crate) fn new() -> Self {
        let file = |(name, content_type, bytes): (&'static str, &'static str, &'static [u8])| {
            let digest = Sha256::digest(bytes);
            let hash = crate::payload::hex(&digest[..6]);
            let (stem, ending) = name.split_once('.').unwrap_or((name, ""));
            File { name, hashed: format!("{stem}.{hash}.{ending}"), content_type, bytes }
        };
        Self { files: FILES.into_iter().map(file).collect() }
    }

    /// The path of a file, under the base.
    pub(crate) fn path(&self, name: &str) -> String {
        let file = self.files.iter().find(|file| file.name == name);
        format!("/assets/{}", file.map_or(name, |file| file.hashed.as_str()))
    }
}

pub(crate) async fn serve(
    State(app): State<Shared>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let file = app.assets.files.iter().find(|file| file.hashed == name);
    let file = file.ok_or_else(|| Failure::not_found("no such file"))?;
    let tag = format!("\"{}\"", file.hashed);
    let head = [
        (header::CONTENT_TYPE, file.content_type.to_owned()),
        (header::CACHE_CONTROL, "public, max-age=31536000, immutable".to_owned()),
        (header::ETAG, tag.clone()),
    ];
    let is_known = headers.get(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes());
    Ok(if is_known { (StatusCode::NOT_MODIFIED, head).into_response() } else { (head, file.bytes).into_response() })
}
