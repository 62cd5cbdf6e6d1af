//! The wire of Laneway: what clients, workers and the broker say to each other.
//!
//! A message is a 4-byte header, one `MessagePack` map and a raw frame per payload. [`Request`] is everything a peer can
//! ask and [`Answer`] everything the broker can say; [`codec`] turns either into frames and back, and is the only place
//! that knows `MessagePack`. `PROTOCOL.md` beside this file is the same contract in prose, complete enough to write a peer
//! in another language.
//!
//! Broker and SDK share this crate. It does no I/O and holds no state.

pub mod codec;
mod error;
mod ids;
pub mod limits;
pub mod message;
mod rate;
mod trace;

pub use error::{Code, WireError};
pub use ids::{Epoch, FairKey, InvalidName, Kind, LaneName, Lease, RequestId, SessionName, TaskId};
pub use message::{Answer, Format, Payload, Request, TaskState};
pub use rate::Rate;
pub use trace::TraceContext;

/// Major version of the protocol, the third byte of every header. A peer of another major version is answered with
/// [`Code::BadVersion`]; within one version fields are only ever added.
pub const VERSION: u8 = 1;
