//! Request and response beside the lane: correlation, deadlines, cancellation, routing.

mod calls;
mod codec;
mod fault;
mod frame;
mod guard;

pub use calls::{CallId, MAX_IN_FLIGHT};
pub use codec::{DecodeError, EncodeError, decode, encode, fuzz_envelopes};
pub use fault::{Fault, FaultCode, MAX_FAULT_MESSAGE_LEN_BYTES};
pub use frame::FrameError;
