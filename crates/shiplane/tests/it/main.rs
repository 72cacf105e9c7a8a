//! The public API: a server and clients in one process, over loopback.
#![expect(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod codes;
mod examples;
mod failures;
mod harness;
mod jobs;
mod methods;
mod serving;
#[cfg(unix)]
mod ssh;
