//! About: versions, where everything lies, and the settings, secrets masked.

use askama::Template;

use super::overview::trouble;
use super::{Frame, Shown, Visit, page};
use crate::access::Role;
use crate::rows::schema;
use crate::time::{At, bytes, micros};

#[derive(Template)]
#[template(path = "about.html")]
struct AboutPage {
    frame: Frame,
    trouble: String,
    why: String,
    facts: Vec<(&'static str, String)>,
    settings: Vec<(String, String, String)>,
}

pub(crate) async fn show(visit: Visit) -> Shown {
    let app = &visit.app;
    let snapshot = app.live.glance().await;
    let schema = app.rows.ask(schema).await;
    let frame = visit.frame("about", "About");
    let mut facts: Vec<(&'static str, String)> = Vec::new();
    if let Some(found) = &snapshot.facts {
        let stats = &found.stats;
        let started = snapshot.at - i64::try_from(stats.uptime_ms).unwrap_or(0);
        facts.push(("Broker", format!("Laneway {}, epoch {}", stats.version, stats.epoch)));
        facts.push(("Running since", At(started).exact()));
        facts.push(("Commits", format!("{} median, {} p99", micros(stats.commit_p50_us), micros(stats.commit_p99_us))));
        facts.push(("Write-ahead log", bytes(stats.wal_bytes)));
        facts.push(("Storage", stats.storage_error.clone().unwrap_or_else(|| "takes work".into())));
    }
    let settings = &app.settings;
    facts.push(("Endpoint", settings.endpoint.clone()));
    facts.push(("Database", format!("{} ({})", settings.db.display(), bytes(snapshot.database_bytes))));
    match schema {
        Ok(found) => facts.push(("Schema", told(found, settings.schema_known))),
        Err(failure) => facts.push(("Schema", failure.message)),
    }
    facts.push(("Dashboard", format!("{}, listening on {}", env!("CARGO_PKG_VERSION"), settings.bind)));
    facts.push(("Dashboard since", At(app.started_at).exact()));
    facts.push(("Live tabs", app.streams_open().to_string()));
    facts.push(("You are", format!("{}, role {}", visit.visitor.name, role(visit.visitor.role))));
    page(&AboutPage {
        trouble: trouble(&snapshot, &frame.base),
        why: snapshot.trouble.clone().unwrap_or_default(),
        facts,
        settings: if visit.visitor.role >= Role::Admin { settings.shown.list() } else { Vec::new() },
        frame,
    })
}

fn told(found: u32, known: Option<u32>) -> String {
    match known {
        Some(known) if known != found => format!("version {found}; this program knows {known}"),
        _ => format!("version {found}"),
    }
}

pub(crate) fn role(role: Role) -> &'static str {
    match role {
        Role::Read => "read",
        Role::Admin => "admin",
    }
}
