//! What limits a transfer: each side measures what its chunks wait for and tells the other (SPEC 4.30).

use std::time::Duration;

use shiplane_transport::internals::{StepClock, ThreadClock, Traffic, TrafficCount};
use shiplane_wire::Load;
use tokio::time::Instant;

/// What a side of a transfer waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Awaited {
    /// The provider's list of files.
    List,
    /// What the provider's input brings, such as a pipe.
    Input,
    /// This side's own disk: the provider lists or reads files, the receiver looks at what it has.
    OwnDisk,
    /// The same of the other side.
    PeersDisk,
    /// Chunks on their way.
    Chunks,
}

/// What kept a transfer from being faster in the last second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Limit {
    /// The provider waits for its disk.
    SourceDisk,
    /// The provider waits for its input, such as a pipe.
    Input,
    /// The provider computes digests.
    SourceDigest,
    /// The provider has not enough of a processor.
    SourceProcessor,
    /// The receiver's flow control permits less than the path would carry.
    Window,
    /// The network carries no more.
    Path,
    /// The receiver computes digests.
    ReceiverDigest,
    /// The receiver waits for its disk.
    ReceiverDisk,
    /// The receiver has not enough of a processor.
    ReceiverProcessor,
    /// `--rate`, on either side.
    Rate,
    /// What it needs is used by other transfers of one of the sides.
    OtherTransfers,
}

impl Limit {
    /// For people and for programs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::SourceDisk => "source disk",
            Self::Input => "input",
            Self::SourceDigest => "source hash",
            Self::SourceProcessor => "source CPU",
            Self::Window => "window",
            Self::Path => "path",
            Self::ReceiverDigest => "receiver hash",
            Self::ReceiverDisk => "receiver disk",
            Self::ReceiverProcessor => "receiver CPU",
            Self::Rate => "rate limit",
            Self::OtherTransfers => "other transfers",
        }
    }
}

/// Which side measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Provider,
    Receiver,
}

/// One side's measurements, and what the other has told last.
pub(super) struct LoadMeter {
    role: Role,
    steps: StepClock,
    thread: ThreadClock,
    traffic: Traffic,
    at: Instant,
    spent: [Duration; 4],
    count: TrafficCount,
    theirs: Option<Load>,
}

impl LoadMeter {
    /// To be made before anything moves.
    pub(super) fn new(role: Role, traffic: Traffic) -> Self {
        let (steps, count) = (StepClock::new(), traffic.count());
        let mut thread = ThreadClock::default();
        thread.busy_share();
        let spent = steps.spent();
        Self { role, steps, thread, traffic, at: Instant::now(), spent, count, theirs: None }
    }

    /// For the options of the transfer's chunks.
    pub(super) fn steps(&self) -> StepClock {
        self.steps.clone()
    }

    /// The peer has told its load.
    pub(super) fn heard(&mut self, theirs: Load) {
        self.theirs = Some(theirs);
    }

    /// Once a second, what the last one was spent on, and what limited it, if chunks moved or something else is waited
    /// for. To be asked more often.
    pub(super) fn second(&mut self, awaited: Option<Awaited>) -> Option<(Load, Option<Limit>)> {
        let (now, elapsed) = (Instant::now(), self.at.elapsed());
        if elapsed < INTERVAL {
            return None;
        }
        self.at = now;
        let before = std::mem::replace(&mut self.spent, self.steps.spent());
        let spent: Vec<Duration> =
            self.spent.iter().zip(before).map(|(now, before)| now.saturating_sub(before)).collect();
        let all: Duration = spent.iter().sum();
        let share = |step: usize| match spent.get(step) {
            Some(step) if all >= elapsed / MIN_ACTIVE_PART => percent(step.as_secs_f64() / all.as_secs_f64()),
            _ => 0,
        };
        let before = std::mem::replace(&mut self.count, self.traffic.count());
        let moved = |of: fn(&TrafficCount) -> u64| of(&self.count).saturating_sub(of(&before));
        let part = |part: u64, all: u64| percent(part as f64 / all.max(1) as f64);
        let all_bytes = moved(|count| count.all);
        let load = Load {
            disk: share(0),
            digest: share(1),
            limit: share(2),
            network: share(3),
            processor: percent(self.thread.busy_share()),
            unfilled: part(moved(|count| count.unfilled), moved(|count| count.acknowledged)),
            others: part(all_bytes.saturating_sub(moved(|count| count.own)), all_bytes),
        };
        let limit = match (self.role, &self.theirs) {
            // Before the peer has said anything it is not known for what it waits.
            (_, None) => None,
            (Role::Provider, Some(theirs)) => limit_of(&load, theirs),
            (Role::Receiver, Some(theirs)) => limit_of(theirs, &load),
        };
        Some((load, limit.or_else(|| self.limit_without_chunks(awaited))))
    }

    /// No chunk is under way: the disk or the input that is waited for.
    fn limit_without_chunks(&self, awaited: Option<Awaited>) -> Option<Limit> {
        let (own, peers) = match self.role {
            Role::Provider => (Limit::SourceDisk, Limit::ReceiverDisk),
            Role::Receiver => (Limit::ReceiverDisk, Limit::SourceDisk),
        };
        match awaited? {
            Awaited::OwnDisk => Some(own),
            Awaited::PeersDisk => Some(peers),
            Awaited::List => Some(Limit::SourceDisk),
            Awaited::Input => Some(Limit::Input),
            Awaited::Chunks => None,
        }
    }
}

/// What limits a transfer, by the loads of its two sides. `None`: no chunk was under way.
fn limit_of(provider: &Load, receiver: &Load) -> Option<Limit> {
    let is_saturated = |load: &Load| load.processor >= SATURATED;
    let busy = |load: &Load| u16::from(load.disk) + u16::from(load.digest) + u16::from(load.limit);
    if busy(provider) + u16::from(provider.network) + busy(receiver) + u16::from(receiver.network) == 0 {
        return None;
    }
    // A receiver that mostly has something to do is what the provider waits for.
    let (side, limit) = if busy(receiver) > receiver.network.into() {
        let largest = largest(&[
            (receiver.disk, Limit::ReceiverDisk),
            (receiver.digest, Limit::ReceiverDigest),
            (receiver.limit, Limit::Rate),
        ]);
        let starved = largest == Limit::ReceiverDisk && is_saturated(receiver);
        (receiver, if starved { Limit::ReceiverProcessor } else { largest })
    } else {
        let largest = largest(&[
            (provider.network, Limit::Path),
            (provider.disk, Limit::SourceDisk),
            (provider.digest, Limit::SourceDigest),
            (provider.limit, Limit::Rate),
        ]);
        match largest {
            Limit::Path | Limit::SourceDisk if is_saturated(provider) => (provider, Limit::SourceProcessor),
            Limit::Path if is_saturated(receiver) => (receiver, Limit::ReceiverProcessor),
            Limit::Path if provider.unfilled > HALF => (provider, Limit::Window),
            Limit::Path if receiver.others > provider.others => (receiver, Limit::Path),
            limit => (provider, limit),
        }
    };
    let is_shared = side.others > HALF && limit != Limit::Window;
    Some(if is_shared { Limit::OtherTransfers } else { limit })
}

/// The one with the largest share; of several, the first.
fn largest(shares: &[(u8, Limit)]) -> Limit {
    let largest = shares.iter().map(|(share, _)| *share).max();
    let found = shares.iter().find(|(share, _)| Some(*share) == largest);
    found.map_or(Limit::Path, |(_, limit)| *limit)
}

/// Of a part of 1.
fn percent(part: f64) -> u8 {
    (part.clamp(0.0, 1.0) * 100.0).round() as u8
}

/// How often each side looks.
const INTERVAL: Duration = Duration::from_secs(1);

/// With chunks under way for less than a tenth of the time, the transfer waits for something else.
const MIN_ACTIVE_PART: u32 = 10;

/// Percent: a thread that is busy, or waits for a processor, for this part of the time limits the transfer.
const SATURATED: u8 = 90;

/// Percent.
const HALF: u8 = 50;

#[cfg(test)]
mod tests {
    use super::*;

    const PATH: Load =
        Load { disk: 2, digest: 1, limit: 0, network: 97, processor: 20, unfilled: 0, others: 0 };
    const STARVED: Load = PATH;

    #[test]
    fn the_largest_wait_of_the_side_that_is_waited_for_is_the_limit() {
        let disk = Load { disk: 90, network: 10, ..Load::default() };
        let digest = Load { digest: 80, disk: 15, network: 5, ..Load::default() };
        let limit = Load { limit: 99, ..Load::default() };
        let saturated = |load| Load { processor: 95, ..load };
        let shared = |load| Load { others: 70, ..load };
        for (provider, receiver, expected) in [
            (PATH, STARVED, Limit::Path),
            (disk, STARVED, Limit::SourceDisk),
            (digest, STARVED, Limit::SourceDigest),
            (limit, STARVED, Limit::Rate),
            (saturated(PATH), STARVED, Limit::SourceProcessor),
            (saturated(disk), STARVED, Limit::SourceProcessor),
            (saturated(digest), STARVED, Limit::SourceDigest),
            (PATH, saturated(STARVED), Limit::ReceiverProcessor),
            (Load { unfilled: 80, ..PATH }, STARVED, Limit::Window),
            (PATH, disk, Limit::ReceiverDisk),
            (PATH, digest, Limit::ReceiverDigest),
            (PATH, limit, Limit::Rate),
            (PATH, saturated(disk), Limit::ReceiverProcessor),
            (shared(PATH), STARVED, Limit::OtherTransfers),
            (PATH, shared(STARVED), Limit::OtherTransfers),
            (shared(limit), STARVED, Limit::OtherTransfers),
            (PATH, shared(disk), Limit::OtherTransfers),
            (shared(PATH), disk, Limit::ReceiverDisk),
        ] {
            assert_eq!(limit_of(&provider, &receiver), Some(expected), "{provider:?} {receiver:?}");
        }
        assert_eq!(limit_of(&Load::default(), &Load { processor: 100, ..Load::default() }), None);
    }
}
