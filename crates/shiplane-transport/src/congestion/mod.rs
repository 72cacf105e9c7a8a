//! How much may be in flight: shiplane's own congestion control behind quinn's `Controller`.
//!
//! A lossy or long path starves controllers that take every loss for congestion, and those that flood
//! the queue spend the path on retransmissions. [`Controller`] instead looks for the window that just fills
//! the path, and tells by the delay whose queue it sees:
//!
//! - *Start-up* doubles the window each round (as RFC 9002 section 7.3.1) and ends at the first sign of a
//!   queue (the idea of RFC 9406), at a plateau of the rate, or at heavy loss.
//! - *Steer* sets, each round, window = rate × (base RTT + slack) + a share that grows with the window's
//!   square root. The rate is the best of the last four rounds. This is FAST TCP's fixed point (Wei,
//!   Jin, Low, Hegde 2006): the queue is bounded whatever the loss, and since the share is concave, equal
//!   flows converge to equal windows. Where no queue shows for some rounds the path has become faster, and
//!   it starts up again, half as fast. Where a router drops what it would keep in the queue, it keeps less.
//! - *Compete*: a queue that stands although we have drained ours is somebody else's, and a flow that
//!   yields to it starves. Then we grow and back off as RFC 9438 (CUBIC) does, except for the losses that
//!   the path had without a queue (Copa's switch of modes, Arun and Balakrishnan 2018), until three rounds
//!   in a row show no queue.
//! - A *newcomer* never saw the path without the others' queue and takes it for the path's own delay. So in
//!   its first rounds of controller it *lifts* its window by a quarter for two rounds now and then, as BBR
//!   probes for bandwidth (draft-ietf-ccwg-bbr section 5.3.3): alone on a full path the rate cannot follow;
//!   where it does, there are others, and we compete, growing fast until the second loss.
//! - *Probe* drains for two rounds now and then, to see the path's base RTT anew (BBR's ProbeRTT,
//!   draft-ietf-ccwg-bbr section 5.3.4) and to leave *compete* once the others have gone.
//!
//! quinn paces at 1.25 windows a round trip and takes no pacing rate, so all controller is by the window.
//!
//! Reading order: `controller` (what moves the window), `phase`, `round` (what is measured), `base_rtt`,
//! `cubic`; `quic` is the seam to quinn, `fixed` the reference for measurements, `path_model` and
//! `stories` the tests in virtual time.

mod base_rtt;
mod cubic;
#[cfg(feature = "test-support")]
mod driven;
mod fixed;
#[cfg(test)]
mod path_model;
mod phase;
mod quic;
mod round;
mod controller;
#[cfg(test)]
mod stories;

#[cfg(feature = "test-support")]
pub use driven::DrivenController;
pub(crate) use quic::factory;
