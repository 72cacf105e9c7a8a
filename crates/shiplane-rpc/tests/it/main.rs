//! Calls between two peers on loopback, in virtual time.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod calls;
mod endings;
mod hostile_callee;
mod hostile_caller;
mod notices;
mod pair;
mod serving;
