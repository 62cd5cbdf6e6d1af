//! What the overview and the page About show of the whole: numbers, their last five minutes, what wants attention, where everything
//! lies.

use serde_json::{Value, json};

use super::look::facts;
use super::{Answered, answer, object};
use crate::access::Role;
use crate::pages::{Visit, about};
use crate::rows::schema;

pub(crate) async fn stats(visit: Visit) -> Answered {
    let rates = visit.app.live.look().await.rate_now();
    let stats = facts(&visit, |facts| {
        let mut stats = object(&facts.stats);
        stats.insert("slots".into(), facts.slots().into());
        stats.insert("busy".into(), facts.busy().into());
        stats.insert("database_bytes".into(), facts.database_bytes.into());
        stats
    });
    let mut stats = stats.await?;
    for (name, rate) in [("submitted", rates.submitted), ("done", rates.done), ("failed", rates.failed)] {
        stats.insert(format!("{name}_per_second"), json!(rate));
    }
    answer(&stats)
}

/// That the broker does not answer is one of them.
pub(crate) async fn notices(visit: Visit) -> Answered {
    answer(&json!({ "notices": visit.app.live.look().await.notices }))
}

/// What is known while the broker is away, too.
pub(crate) async fn history(visit: Visit) -> Answered {
    let snapshot = visit.app.live.look().await;
    answer(&json!({ "rates": snapshot.rates, "lanes": snapshot.paces }))
}

pub(crate) async fn about(visit: Visit) -> Answered {
    let app = &visit.app;
    let snapshot = app.live.look().await;
    let broker = snapshot.facts.as_ref().map(|facts| {
        let started = snapshot.at - i64::try_from(facts.stats.uptime_ms).unwrap_or(0);
        json!({ "version": facts.stats.version, "epoch": facts.stats.epoch, "started_at": started })
    });
    let setting = |(name, value, from): (String, String, String)| json!({ "name": name, "value": value, "from": from });
    let settings = if visit.visitor.role >= Role::Admin { app.settings.shown.list() } else { Vec::new() };
    answer(&json!({
        "broker": broker,
        "trouble": snapshot.trouble,
        "endpoint": app.settings.endpoint,
        "database": app.settings.db,
        "database_bytes": snapshot.database_bytes,
        "schema": app.rows.ask(schema).await.ok(),
        "dashboard": {
            "version": env!("CARGO_PKG_VERSION"),
            "bind": app.settings.bind,
            "started_at": app.started_at,
            "streams": app.streams_open(),
        },
        "visitor": { "name": visit.visitor.name, "role": about::role(visit.visitor.role) },
        "settings": settings.into_iter().map(setting).collect::<Vec<Value>>(),
    }))
}
