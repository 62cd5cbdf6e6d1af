//! Placeholder.
mod error;
pub mod link;
mod payload;
mod seed;
pub use error::Error;
pub use payload::{decode, encode};
pub use seed::seed_libzmq;
