//! The Laneway broker: the daemon and the command line, one binary `laneway`.
//!
//! `main.rs` calls [`main`]; everything else is private to this crate. `ARCHITECTURE.md` walks a task through these modules.

mod access;
mod bench;
mod bounds;
mod cli;
mod clock;
mod config;
mod crowd;
mod demo;
mod doorbell;
mod drill;
mod dump;
mod error;
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod fuzz;
mod incoming;
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod internals;
mod monitor;
mod peers;
mod process;
mod reload;
mod router;
mod run;
mod schedule;
mod scheduler;
mod service;
mod signals;
mod store;
mod supervise;
mod telemetry;
mod wake;
mod watch;
mod work;

pub use cli::main;
