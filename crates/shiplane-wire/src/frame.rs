//! The chunk frame and its status byte (SPEC 3).

mod error;
mod offer;
mod recv;
mod send;
mod status;

pub use error::{FrameError, RecvError, SendError};
pub use offer::{Offer, SizeReader};
pub use recv::fuzz_recv;
pub use recv::{ChunkReceiver, Durability, RecvStep, Reply, Stored, Verified};
pub use send::fuzz_send;
pub use send::{ChunkSender, SendStep};
pub use status::fuzz_status;
pub use status::{Refusal, Status, StatusError, StatusReader};
