//! The transport's API: two transports on loopback, or one against a peer played by hand.
//!
//! Stories that wait for a deadline run on tokio's paused clock where they can. A chunk in flight holds
//! a blocking thread, and that stops the paused clock: such stories run in real time, on short deadlines.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a failed step is a failed test")]

#[cfg(target_os = "linux")]
mod allocations;
mod chunks;
mod frame_received;
mod frame_sent;
mod harness;
mod hostile;
#[cfg(target_os = "linux")]
mod memory;
mod messages;
mod openings;
mod packet_size;
mod pool;
mod shutdown;
mod trust;
mod wire;
mod write_order;
