//! What `tests/simulation` needs of the broker besides the core, behind the feature `internals`: the scheduler without its
//! thread ([`Desk`]) on a table that can fail and lose power ([`Table`]). Only that crate turns the feature on; the broker
//! itself never calls anything in here, and nothing in here decides anything for it.

mod desk;
mod faulty;
mod table;

pub use desk::{Desk, DeskSettings, Orders, Report};
pub use faulty::Faults;
pub use rusqlite::types::Value;
pub use table::{Durable, Edges, Table};
