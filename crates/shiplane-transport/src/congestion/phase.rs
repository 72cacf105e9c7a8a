//! The phases of the [`Controller`](super::controller::Controller) with their state.

use std::time::{Duration, Instant};

use super::{cubic::Cubic, path::SLACK};

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
        history: QueueHistory,
        /// What rounds in a row with little queue or none count.
        free: u32,
        /// Rounds in a row with all of what the bottleneck carries.
        alone_rounds: u32,
        /// By how much a newcomer grows each round until the next loss; 0 for others.
        seeking: f64,
        /// Our last answer to a loss, until it shows whether the others yielded too.
        yielded: Option<Yielded>,
    },
    /// Drains the queue to see the path's base RTT.
    ProbeRtt { rounds: u32, from: Resume },
}

impl Phase {
    pub(super) fn startup(again: bool) -> Self {
        Self::Startup { again, best_rate: 0.0, flat_rounds: 0, queued: None }
    }

    pub(super) fn compete(curve: Cubic, history: QueueHistory, seeking: f64) -> Self {
        Self::Compete { curve, history, free: 0, alone_rounds: 0, seeking, yielded: None }
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
    /// The longest queue since.
    pub(super) most_queue: Duration,
    /// Our window when we last competed with it, until a look at the path found no queue, or no other flow on the path.
    pub(super) competed: u64,
    /// Rounds in a row in which others have the path that we had then.
    pub(super) starved_rounds: u32,
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

/// The least round trips of the rounds of competing: a path's own delay stays, a queue's varies.
#[derive(Debug, Clone)]
pub(super) struct QueueHistory {
    pub(super) least: Duration,
    pub(super) most: Duration,
    /// That of the last round.
    pub(super) last: Duration,
    /// How often the full queue has overflowed lately, weighted.
    pub(super) overflows: u32,
}

impl QueueHistory {
    pub(super) fn new(rtt: Duration) -> Self {
        Self { least: rtt, most: rtt, last: rtt, overflows: 0 }
    }

    /// Whether this was no path's own delay.
    pub(super) fn has_moved(&self) -> bool {
        self.most > self.least + self.least / PATH_RTT_SHARE + SLACK
    }
}

/// An answer to a loss: our window and the round trip before it, and the rounds since.
#[derive(Debug, Clone)]
pub(super) struct Yielded {
    pub(super) window: u64,
    pub(super) rtt: Duration,
    pub(super) rounds: u32,
}

/// What a probe of the base RTT interrupts.
#[derive(Debug, Clone)]
pub(super) struct Resume {
    pub(super) window: u64,
    pub(super) competing: Option<(Cubic, QueueHistory)>,
}

/// While we compete, a path's own delay stays within a sixteenth.
const PATH_RTT_SHARE: u32 = 16;
