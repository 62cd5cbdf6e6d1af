//! Laneway's web side: the dashboard, the JSON API, live updates, metrics and health.
//!
//! It is a crate of its own so that the compiler keeps a promise: whatever the dashboard does, it does not slow the work. It has
//! no access to the broker's memory and no lock of it; it knows the wire, as any client does (`live`), and a connection that can
//! only read, with a bound on each look (`rows`). Three threads: `web` serves HTTP, `live` asks the broker, `rows` reads the
//! table. They give way to all others where processors are short; each inbox is bounded, and what finds one full is shed with a
//! word of when to come back.
//!
//! A request walks through `server` (connections and time), `guard` (host, visitor, origin, headers) and `routes` to a
//! page (`pages`) or the API (`api`). Pages are complete without JavaScript; `sse` keeps the parts of them fresh that change.
//! `observe` is for those who have a link to one task or group, and for pages of other sites that show it.

mod access;
mod api;
mod app;
mod assets;
mod error;
mod failure;
mod filter;
mod guard;
mod json;
mod kept;
mod limits;
mod live;
mod metrics;
mod observe;
mod openapi;
mod pages;
mod payload;
mod request;
mod reread;
mod routes;
mod rows;
mod server;
mod settings;
mod snapshot;
mod sse;
mod threads;
mod time;
mod trace_url;

pub use error::Error;
pub use observe::origins::check_list as check_origins;
pub use rows::{Ages, Oldest};
pub use server::{Web, start};
pub use settings::{Settings, ShownSettings, check, check_base_path, check_bind, check_hosts};
pub use trace_url::TraceUrl;
