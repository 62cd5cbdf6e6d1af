//! What `tests/simulation` and `bench/cost` need of the broker besides the core, behind the feature `internals`: the scheduler
//! without its thread ([`Desk`]) on a table that can fail and lose power ([`Table`]). The broker itself never calls anything
//! in here, and nothing in here decides anything for it.

mod desk;
mod faulty;
mod table;

pub use desk::{Desk, DeskSettings, Orders, Report};
pub use faulty::Faults;
pub use rusqlite::types::Value;
pub use table::{Durable, Edges, Table};
