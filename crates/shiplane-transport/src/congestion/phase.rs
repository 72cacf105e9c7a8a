//! The phases of the [`Controller`](super::controller::Controller) with their state.

use std::time::{Duration, Instant};

use super::cubic::Cubic;

/// What the window is doing. The [module](super) tells why.
#[derive(Debug, Clone)]
pub(super) enum Phase {
    /// Doubles each round, or more while the path is known to carry much more; half as fast `again`.
    Startup { again: bool, best_rate: f64, flat_rounds: u32, queued: Option<Queued> },
    /// Holds the window that fills the path with a short queue.
    Cruise {
        underutilized_rounds: u32,
        others: CompetingTraffic,
        probe: Option<BandwidthProbe>,
        heavy_loss: Option<HeavyLoss>,
    },
    /// Takes its share of a queue that others fill.
    Compete {
        curve: Cubic,
        rtts: RttRange,
        /// Rounds in a row without any queue.
        free_rounds: u32,
        /// A newcomer grows faster until its first loss.
        seeking: bool,
    },
    /// Drains the queue to see the path's base RTT.
    ProbeRtt { rounds: u32, from: Resume },
}

impl Phase {
    pub(super) fn startup(again: bool) -> Self {
        Self::Startup { again, best_rate: 0.0, flat_rounds: 0, queued: None }
    }

    /// After competing with a window of `competed`, if not 0.
    pub(super) fn cruise(competed: u64) -> Self {
        Self::Cruise {
            underutilized_rounds: 0,
            others: CompetingTraffic { competed, ..CompetingTraffic::default() },
            probe: None,
            heavy_loss: None,
        }
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
pub(super) struct CompetingTraffic {
    /// Rounds in a row in which it was long.
    pub(super) rounds: u32,
    /// Our window when we last had the queue that we want.
    pub(super) window: u64,
    /// Our window when we last competed with it, until a look at the path found no queue.
    pub(super) competed: u64,
}

/// A window raised for two rounds to see whether the rate follows: alone on the path it cannot.
#[derive(Debug, Clone)]
pub(super) struct BandwidthProbe {
    pub(super) rounds: u32,
    /// What they were before.
    pub(super) window: u64,
    pub(super) rate: f64,
}

/// Heavy loss that was answered by sending less.
#[derive(Debug, Clone)]
pub(super) struct HeavyLoss {
    /// Rounds in a row.
    pub(super) rounds: u32,
    /// In the first of them: the share that was lost, and all that was turned over, in bytes a second.
    pub(super) share: f64,
    pub(super) turnover_rate: f64,
}

/// The round trips seen while competing: a path's own delay stays, a queue's varies.
#[derive(Debug, Clone)]
pub(super) struct RttRange {
    pub(super) least: Duration,
    pub(super) most: Duration,
}

/// What a probe of the base RTT interrupts.
#[derive(Debug, Clone)]
pub(super) struct Resume {
    pub(super) window: u64,
    pub(super) competing: Option<(Cubic, RttRange)>,
}
