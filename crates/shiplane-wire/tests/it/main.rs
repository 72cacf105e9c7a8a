//! Properties of the wire format, for every input and every split of it.
#![expect(clippy::unwrap_used, reason = "a test fails by a panic")]

mod corpus;
mod opening;
mod records;
mod recv;
mod send;
mod split;
mod text;
mod transfer_digest;
