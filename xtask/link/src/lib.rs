//! A modelled network [`Link`], a [`Relay`] that carries the datagrams of real sockets over it, and random numbers from a
//! seed ([`Rng`]), for tests of every crate and for the lab.
//!
//! A link has no clock and no IO. Its caller passes the time since some beginning:
//!
//! ```
//! use std::time::Duration;
//! use testlink::{Link, Path};
//!
//! // 8 Mbit/s and a round trip of 100 ms: 1,000 bytes take 1 ms and half a round trip.
//! let mut link = Link::new(Path::new(8.0, 100.0));
//! let arrives_at = link.send(Duration::ZERO, 1000, "a packet").unwrap();
//! assert_eq!(arrives_at, Duration::from_millis(51));
//! assert_eq!(link.receive(Duration::from_millis(50)), None);
//! assert_eq!(link.receive(arrives_at), Some("a packet"));
//! ```

mod link;
mod path;
mod relay;
mod rng;

pub use link::Link;
pub use path::{Path, Policer};
pub use relay::Relay;
pub use rng::Rng;
