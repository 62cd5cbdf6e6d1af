//! The pages. Each is complete HTML without JavaScript; the parts of it that change are templates of their own, which the page
//! holds when it is loaded and [`crate::sse`] sends again when they change.

pub(crate) mod about;
pub(crate) mod batch;
pub(crate) mod change;
pub(crate) mod change_all;
mod confirm;
pub(crate) mod dead;
pub(crate) mod groups;
pub(crate) mod lanes;
pub(crate) mod overview;
pub(crate) mod schedules;
pub(crate) mod task;
pub(crate) mod tasks;
pub(crate) mod workers;

use askama::Template;
use axum::Extension;
use axum::extract::State;
use axum::http::{Method, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};

use crate::access::{Role, Visitor};
use crate::app::{App, Shared};
use crate::failure::Failure;
use crate::guard::Nonce;
use crate::request::Fields;
use crate::snapshot::{Facts, Snapshot};
use crate::time::{At, grouped, now_ms, span};

/// A piece of a page that changes while it is looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    /// Of the element that holds it.
    pub(crate) id: &'static str,
    pub(crate) html: String,
    /// The same without the words of its times, which the browser keeps going: what has to differ for it to be sent again.
    pub(crate) sense: String,
}

impl Part {
    fn new(id: &'static str, template: &impl Template) -> Self {
        Self::of(id, html(template))
    }

    fn of(id: &'static str, html: String) -> Self {
        let before_words = |piece: &str| piece.rfind('>').map_or_else(String::new, |at| piece[..at].to_owned());
        let mut pieces: Vec<&str> = html.split("</time>").collect();
        let rest = pieces.pop().unwrap_or_default();
        let sense = pieces.into_iter().map(before_words).collect::<String>() + rest;
        Self { id, html, sense }
    }
}

/// Pages whose parts can be asked for: a word, with a number where there are many such pages, and with what stands behind the `?` of
/// the address where that says what is shown.
pub(crate) fn is_live(page: &str) -> bool {
    let (name, query) = page.split_once('?').unwrap_or((page, ""));
    let numbered = |prefix: &str| name.strip_prefix(prefix).is_some_and(|n| n.parse::<u64>().is_ok());
    let is_page = matches!(name, "none" | "overview" | "lanes" | "workers" | "dead" | "groups" | "schedules")
        || ["task:", "batch:", "group:"].into_iter().any(numbered);
    is_page || (name == "tasks" && tasks::filter(&Fields::parse(query.as_bytes())).is_ok())
}

pub(crate) async fn parts(app: &App, snapshot: &Snapshot, page: &str, may_change: bool) -> Vec<Part> {
    let base = &app.settings.base_path;
    let (name, query) = page.split_once('?').unwrap_or((page, ""));
    let (name, number) = name.split_once(':').unwrap_or((name, ""));
    let fields = Fields::parse(query.as_bytes());
    // It is one where the page has one, or nobody would listen to it.
    let number: u64 = number.parse().unwrap_or(0);
    let found = match name {
        "overview" => Ok(overview::parts(snapshot, base)),
        "lanes" => Ok(lanes::parts(snapshot, base, &fields, may_change)),
        "workers" => Ok(workers::parts(app, snapshot, &fields, may_change).await),
        "tasks" => tasks::parts(app, snapshot, &fields, may_change).await,
        "dead" => dead::parts(app, may_change).await,
        "groups" => groups::parts(app, &fields).await,
        "schedules" => schedules::parts(app, &fields, may_change).await,
        "task" => task::parts(app, i64::try_from(number).unwrap_or(0), may_change).await,
        "batch" => batch::parts(app, number, may_change).await,
        "group" => groups::one_parts(app, number, may_change).await,
        _ => Ok(Vec::new()),
    };
    let mut parts = found.unwrap_or_default();
    parts.push(Part::new("p-state", &StatePart::of(snapshot)));
    parts.push(Part::of("p-dead", dead_count(snapshot)));
    parts
}

fn dead_count(snapshot: &Snapshot) -> String {
    let dead = snapshot.facts.as_ref().map_or(0, |facts| facts.stats.dead);
    if dead == 0 { String::new() } else { grouped(dead) }
}

/// Whether the broker answers, in the corner of every page.
#[derive(Template)]
#[template(path = "part_state.html")]
struct StatePart {
    is_there: bool,
    is_draining: bool,
    is_quiet: bool,
}

impl StatePart {
    fn of(snapshot: &Snapshot) -> Self {
        let facts = snapshot.facts.as_ref();
        Self {
            is_there: facts.is_some(),
            is_draining: facts.is_some_and(|facts| facts.stats.draining),
            is_quiet: facts.is_some_and(|facts| facts.stats.quiet),
        }
    }
}

/// What stands around every page.
pub(crate) struct Frame {
    pub(crate) title: String,
    /// Of the navigation.
    active: &'static str,
    /// Whose parts are sent again.
    live: String,
    pub(crate) base: String,
    nonce: String,
    visitor: Visitor,
    is_open: bool,
    pub(crate) may_change: bool,
    version: &'static str,
    state: String,
    dead: String,
    css: String,
    js: String,
    htmx: String,
    uplot_js: String,
    uplot_css: String,
    icon: String,
}

impl Frame {
    fn new(app: &App, visitor: &Visitor, nonce: &Nonce, active: &'static str, title: &str) -> Self {
        let base = app.settings.base_path.clone();
        let asset = |name: &str| format!("{base}{}", app.assets.path(name));
        let snapshot = app.live.last();
        Self {
            title: title.into(),
            active,
            live: "none".into(),
            nonce: nonce.0.clone(),
            visitor: visitor.clone(),
            is_open: app.access.is_open(),
            may_change: visitor.role >= Role::Admin && !app.settings.read_only,
            version: env!("CARGO_PKG_VERSION"),
            state: html(&StatePart::of(&snapshot)),
            dead: dead_count(&snapshot),
            css: asset("app.css"),
            js: asset("app.js"),
            htmx: asset("htmx.js"),
            uplot_js: asset("uplot.js"),
            uplot_css: asset("uplot.css"),
            icon: asset("icon.svg"),
            base,
        }
    }

    fn live(mut self, page: impl Into<String>) -> Self {
        self.live = page.into();
        self
    }

    fn is(&self, page: &str) -> bool {
        self.active == page
    }
}

/// What every page's handler is given.
pub(crate) struct Visit {
    pub(crate) app: Shared,
    pub(crate) visitor: Visitor,
    pub(crate) nonce: Nonce,
}

impl Visit {
    fn frame(&self, active: &'static str, title: &str) -> Frame {
        Frame::new(&self.app, &self.visitor, &self.nonce, active, title)
    }

    /// Whether payloads and results are shown to this visitor.
    pub(crate) fn sees_payloads(&self) -> bool {
        self.app.settings.show_payloads && self.visitor.role >= Role::Admin
    }

    fn to(&self, path: &str) -> Response {
        let place = format!("{}{path}", self.app.settings.base_path);
        (StatusCode::SEE_OTHER, [(header::LOCATION, place)]).into_response()
    }
}

impl axum::extract::FromRequestParts<Shared> for Visit {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut axum::http::request::Parts, app: &Shared) -> Result<Self, Failure> {
        let missing = || Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "guard", "nobody was let in");
        let visitor = parts.extensions.get::<Visitor>().cloned().ok_or_else(missing)?;
        let nonce = parts.extensions.get::<Nonce>().cloned().ok_or_else(missing)?;
        Ok(Self { app: app.clone(), visitor, nonce })
    }
}

type Shown = Result<Response, Failure>;

fn page(template: &impl Template) -> Shown {
    match template.render() {
        Ok(text) => Ok(Html(text).into_response()),
        Err(error) => Err(Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "template", error.to_string())),
    }
}

/// A part that cannot be rendered is left out of its page.
fn html(template: &impl Template) -> String {
    template.render().unwrap_or_default()
}

#[derive(Template)]
#[template(path = "failure.html")]
struct FailurePage<'a> {
    frame: Frame,
    failure: &'a Failure,
}

/// A failure as a page of its own, with the way on.
pub(crate) fn failure(app: &App, visitor: &Visitor, nonce: &Nonce, failure: &Failure) -> Response {
    let frame = Frame::new(app, visitor, nonce, "", failure.title());
    as_page(failure, html(&FailurePage { frame, failure }))
}

#[derive(Template)]
#[template(path = "outside.html")]
struct OutsidePage<'a> {
    title: &'a str,
    css: String,
    icon: String,
    failure: &'a Failure,
    /// The same address may be answered the next time.
    may_try_again: bool,
}

/// The same for somebody who was not let in, and so sees nothing of the rest.
pub(crate) fn outside(app: &App, failure: &Failure) -> Response {
    let asset = |name: &str| format!("{}{}", app.settings.base_path, app.assets.path(name));
    let (css, icon) = (asset("app.css"), asset("icon.svg"));
    let may_try_again = failure.status != StatusCode::MISDIRECTED_REQUEST;
    as_page(failure, html(&OutsidePage { title: failure.title(), css, icon, failure, may_try_again }))
}

/// With the status and the headers that the failure has as JSON.
fn as_page(failure: &Failure, text: String) -> Response {
    let (mut head, _) = failure.clone().into_response().into_parts();
    head.headers.remove(header::CONTENT_TYPE);
    head.headers.remove(header::CONTENT_LENGTH);
    let (page, body) = Html(text).into_response().into_parts();
    head.headers.extend(page.headers);
    Response::from_parts(head, body)
}

pub(crate) async fn no_such_page(State(_): State<Shared>, Extension(_): Extension<Visitor>) -> Failure {
    Failure::not_found("there is nothing at this address")
}

/// The router adds the header `Allow`.
pub(crate) async fn no_such_method(_: Visit, method: Method) -> Failure {
    let text = format!("{method} is not for this address");
    Failure::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", text).next("the header Allow has those that are")
}

/// A row of points as a line of a hundred by twenty-four, which scales with its place. The highest is at the top.
fn spark(points: &[u64]) -> String {
    use std::fmt::Write as _;
    let top = points.iter().copied().max().unwrap_or(0).max(1);
    let Some(n) = points.len().checked_sub(1).filter(|n| *n > 0) else { return String::new() };
    let mut line = String::new();
    for (i, point) in points.iter().enumerate() {
        let (x, y) = (i * 1_000 / n, 22 - u64::min(20, point.saturating_mul(20) / top));
        write!(line, "{}.{},{y} ", x / 10, x % 10).expect("writing to a string cannot fail");
    }
    format!(
        "<svg class=\"spark\" viewBox=\"0 0 100 24\" preserveAspectRatio=\"none\" aria-hidden=\"true\">\
         <polyline points=\"{}\"/></svg>",
        line.trim_end()
    )
}

/// A bar that is filled as far as `part` of `whole`.
fn bar(part: u64, whole: u64, class: &str) -> String {
    let filled = (part.min(whole) * 1_000).checked_div(whole).unwrap_or(0);
    format!(
        "<svg class=\"bar {class}\" viewBox=\"0 0 100 6\" preserveAspectRatio=\"none\" aria-hidden=\"true\">\
         <rect class=\"track\" width=\"100\" height=\"6\"/><rect class=\"fill\" width=\"{}.{}\" height=\"6\"/></svg>",
        filled / 10,
        filled % 10
    )
}

/// How long the oldest due task of a lane has waited, as HTML, and whether that is all that is known.
fn oldest(facts: &Facts, lane: &str) -> String {
    let age = facts.oldest.since(lane).map(|since| span(now_ms() - since));
    if !facts.oldest.is_partial(lane) {
        return age.unwrap_or_else(|| "<span class=\"dim\">–</span>".into());
    }
    let text = age.map_or_else(|| "?".into(), |age| format!("at least {age}"));
    let why = "Not every kind and fair key of this lane was looked at: an older task may wait";
    format!("<abbr title=\"{why}\">{text}</abbr>")
}

/// The beginning of a session, which tells it from others and fits a table.
fn short(session: &str) -> String {
    let mut text: String = session.chars().take(12).collect();
    if text.len() < session.len() {
        text.push('…');
    }
    text
}

/// `12.3`, `1,234`: a rate for eyes.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "rates are small and not negative")]
fn rate(rate: f64) -> String {
    if rate < 0.05 {
        "0".into()
    } else if rate < 10.0 {
        format!("{rate:.1}")
    } else {
        grouped(rate.round() as u64)
    }
}

impl At {
    /// An element that the browser keeps going.
    pub(crate) fn html(self) -> String {
        format!(
            "<time datetime=\"{}\" title=\"{}\" data-at=\"{}\">{}</time>",
            self.iso(),
            self.exact(),
            self.0,
            self.ago()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_that_passes_is_no_change() {
        // Proves that words of times do not count, and everything else does, the times themselves too.
        let part = |at: &str, words: &str, rest: &str| {
            Part::of("p", format!("<b>a</b> <time data-at=\"{at}\">{words}</time>, <time>{words}</time>{rest}")).sense
        };
        assert_eq!(part("1", "1 s ago", "x"), part("1", "2 s ago", "x"));
        assert_ne!(part("1", "1 s ago", "x"), part("2", "1 s ago", "x"));
        assert_ne!(part("1", "1 s ago", "x"), part("1", "1 s ago", "y"));
    }

    #[test]
    fn an_age_of_a_part_says_so() {
        // Proves the three words: all of it, a part of it, and nothing found in the part.
        let mut facts = Facts::default();
        facts.oldest.since.insert("low".into(), now_ms() - 3_660_500);
        assert_eq!(oldest(&facts, "low"), "1 h 1 min");
        facts.oldest.partial.extend(["low".into(), "high".into()]);
        assert!(
            oldest(&facts, "low").contains(">at least 1 h 1 min<")
                && oldest(&facts, "low").contains("title=\"Not every")
        );
        assert!(oldest(&facts, "high").contains(">?<") && oldest(&facts, "normal").contains('–'));
    }

    #[test]
    fn a_sparkline_fills_its_place() {
        // Proves both ends and the height of the line, and that one point makes none.
        assert!(spark(&[0, 5, 10]).contains("points=\"0.0,22 50.0,12 100.0,2\""));
        assert_eq!(spark(&[3]), "");
    }

    #[test]
    fn rates_are_as_exact_as_eyes_need_them() {
        // Proves the three forms.
        assert_eq!([rate(0.0), rate(0.04), rate(3.25), rate(1234.4)], ["0", "0", "3.2", "1,234"]);
    }
}
