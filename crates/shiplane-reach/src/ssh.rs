//! The other machine's program, started by the user's own `ssh`.
//!
//! `address` is what a user types, `greeting` what the two programs say before the first packet, `process` the `ssh` of
//! this side. No path is ever part of a command, so that no shell has to quote it.

pub(crate) mod address;
pub(crate) mod greeting;
pub(crate) mod process;
