//! Shiplane's congestion control, behind quinn's `Controller`.
//!
//! A lossy or long path starves controllers that take every loss for congestion, and those that flood the queue
//! spend the path on retransmissions. [`Controller`](controller::Controller) instead looks for the window that just
//! fills the path, and tells by delay and rate whose queue it sees:
//!
//! - *Startup* grows each round: eight times while the bottleneck is known to carry much more, then twice (RFC 9002
//!   section 7.3.1), and by a quarter once the window is about to fill it. It ends at the first sign of a queue (the
//!   idea of HyStart++, RFC 9406), at a plateau of the rate, or at heavy loss.
//! - *Cruise* sets, each round, window = rate × (base RTT + slack) + a share that grows with the window's square root.
//!   The rate is the best of the last four rounds; the slack covers timers, batches and jitter. This is FAST TCP's
//!   fixed point (Wei, Jin, Low, Hegde 2006): the queue is bounded whatever the loss, and since the share is concave,
//!   equal flows converge to equal windows. Where no queue shows for some rounds the path has become faster, and it
//!   starts up again. Where a router drops what it would keep in the queue, it keeps less.
//! - *Compete*: a queue that stands although we have drained ours is somebody else's, and a flow that yields to it
//!   starves. Then we grow and back off as RFC 9438 (CUBIC) does, except for the losses that the path has anyhow
//!   (Copa's switch of modes, Arun and Balakrishnan 2018), and hold a least share: 0.15 of path and queue,
//!   or three eighths where others let the queue overflow all the time and so yield to nothing. With less than a third of
//!   the path, a loss to which no other flow yields is taken back.
//! - *ProbeRtt* drains for two rounds now and then, to see the path's base RTT anew (draft-ietf-ccwg-bbr section 5.3.4)
//!   and to leave *compete* once the others have gone. Two flows of ours that compete with each other see an empty queue
//!   only if both drain; so a flow that sees the queue fall without having yielded drains too, and the first waits a round
//!   for it. A TCP that has just halved its queue looks as if it had gone; so cruising remembers the window that we
//!   competed with until we have the path alone, and goes back to competing with it early: when our share falls below
//!   two fifths, or the queue does not fall while we yield. A base RTT that was never seen without the others' queue
//!   makes that queue look empty, too.
//!
//! What the bottleneck carries is measured by *dispersion*: quinn's pacer sends bursts, and a burst comes out of the
//! bottleneck at its rate, whatever else uses it. Our own rate ÷ that tells whether we are alone.
//!
//! *Heavy loss without a queue* is answered by sending no more than arrives. A policer then drops nothing more; where as
//! much is lost as before, the path loses it at random, and from then on only what is lost on top counts.
//!
//! A *newcomer* never saw the path without the others' queue and takes it for the path's own delay. So in its first
//! rounds of cruising it raises its window by a quarter now and then, as BBR probes for bandwidth, and keeps it where
//! the rate follows: again and again until it has two fifths of the path, or the queue overflows. Then it competes, and
//! grows faster than CUBIC until the next loss.
//!
//! quinn paces at 1.25 windows a round trip and takes no pacing rate, so all control is by the window.
//!
//! Reading order: `controller` (what it is told, startup, probes), `cruise`, `compete`, `phase`; `path` (what is
//! known of the path) with `round`, `dispersion`, `losses`, `base_rtt`; `cubic`. `quic` is the seam to quinn, `fixed` the
//! reference for measurements, `stream` what packets in a byte stream have; `path_model`, `competitors` and `scenarios` are the tests in virtual time.

mod base_rtt;
mod compete;
#[cfg(test)]
mod competitors;
mod controller;
mod cruise;
mod cubic;
mod dispersion;
#[cfg(feature = "test-support")]
mod driven;
mod fixed;
mod losses;
mod path;
#[cfg(test)]
mod path_model;
mod phase;
mod quic;
mod round;
#[cfg(test)]
mod scenarios;
mod stream;

#[cfg(feature = "test-support")]
pub use driven::DrivenController;
pub(crate) use quic::{factory, over_stream};
