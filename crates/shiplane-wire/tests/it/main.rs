//! The properties of the wire: what holds for every input, however it is cut into pieces.
#![expect(clippy::unwrap_used, reason = "a test fails by a panic")]

mod corpus;
mod opening;
mod records;
mod recv;
mod root;
mod send;
mod split;
mod text;
