//! The phases of [`Steering`](super::steering::Steering), each with what it must remember.

use std::time::{Duration, Instant};

use super::cubic::Cubic;

/// What the window is doing. The [module](super) tells why.
#[derive(Debug, Clone)]
pub(super) enum Phase {
    /// Grows by so many times the acknowledged bytes.
    Startup {
        growth: f64,
        best_rate: f64,
        flat_rounds: u32,
        queued: Option<Queued>,
    },
    Steer {
        roomy_rounds: u32,
        crowd: Crowd,
        lift: Option<Lift>,
    },
    /// While `seeking` its share, until so many more cuts, it grows faster than the curve.
    Compete {
        curve: Cubic,
        seeking: u32,
        rtts: RttRange,
        /// Rounds in a row without any queue.
        free_rounds: u32,
    },
    Probe {
        rounds: u32,
        from: Resume,
    },
}

impl Phase {
    pub(super) fn startup(growth: f64) -> Self {
        Self::Startup { growth, best_rate: 0.0, flat_rounds: 0, queued: None }
    }

    pub(super) fn steer() -> Self {
        Self::Steer { roomy_rounds: 0, crowd: Crowd::default(), lift: None }
    }
}

/// A queue seen at start-up: since when, in how many acknowledgements, and what they acknowledged.
#[derive(Debug, Clone)]
pub(super) struct Queued {
    pub(super) since: Instant,
    pub(super) acks: u32,
    pub(super) bytes: u64,
}

/// Signs that the queue is not ours.
#[derive(Debug, Clone, Default)]
pub(super) struct Crowd {
    /// Rounds in a row in which it was long.
    pub(super) rounds: u32,
    /// Our window when we last had the queue that we want.
    pub(super) window: u64,
}

/// A window raised for two rounds to see whether the rate follows: alone on the path it cannot.
#[derive(Debug, Clone)]
pub(super) struct Lift {
    pub(super) rounds: u32,
    /// What they were before.
    pub(super) window: u64,
    pub(super) rate: f64,
}

/// The round trips seen while competing: a path's own delay stays, a queue's varies.
#[derive(Debug, Clone)]
pub(super) struct RttRange {
    pub(super) least: Duration,
    pub(super) most: Duration,
}

/// What a probe interrupts.
#[derive(Debug, Clone)]
pub(super) struct Resume {
    pub(super) window: u64,
    pub(super) competing: Option<(Cubic, RttRange)>,
}
