//! Library.
pub(crate) mod store;
mod config;
mod error;
mod signals;
mod telemetry;
