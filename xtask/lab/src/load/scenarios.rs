//! The scenarios of `cargo xtask load`.

use std::time::Duration;

use super::clients::{CASES, Ends};
use crate::peers::{Kind, hostile::Lie, name_of};

/// One kind of load.
#[derive(Clone, Debug)]
pub(super) struct Scenario {
    pub(super) kind: Kind,
    /// What pushers that lie tell, in turn.
    pub(super) lies: Vec<Lie>,
    /// How many peers, and how many if there is no time.
    pub(super) counts: [u64; 2],
    /// Whether an honest peer beside it must keep its speed. What only takes processor time, as lists without end do, of
    /// which the machine has two cores for both sides, is measured and not judged.
    pub(super) keeps_speed: bool,
    /// What the server may hold.
    pub(super) cap_bytes: u64,
    /// Within this time the server must have ended it by itself.
    pub(super) ends_within: Option<Duration>,
}

impl Scenario {
    fn new(kind: Kind, counts: [u64; 2]) -> Self {
        let (lies, cap_bytes) = (Vec::new(), CAP_BYTES);
        Self { kind, lies, counts, keeps_speed: false, cap_bytes, ends_within: None }
    }

    /// As many pushes that lie as a server takes.
    fn hostile(lies: Vec<Lie>) -> Self {
        let patience = if lies.contains(&Lie::LongFiles) { PATIENCE_FOR_LISTS } else { PATIENCE };
        let case = CASES.iter().find(|case| lies == [case.lie]);
        let ends_within = case.is_none_or(|case| case.ends != Ends::WhenInterrupted).then_some(patience);
        // Lists keep the server busy for as long as it takes them.
        let is_list =
            |ends| patience == PATIENCE_FOR_LISTS || matches!(ends, Ends::With(0) | Ends::WhenInterrupted);
        let keeps_speed = case.is_some_and(|case| !is_list(case.ends));
        let new = Self::new(Kind::LyingPushers, [56, 56]);
        Self { lies, keeps_speed, cap_bytes: HOSTILE_CAP_BYTES, ends_within, ..new }
    }

    pub(super) fn name(&self) -> String {
        match self.lies[..] {
            [] => name_of(self.kind),
            [lie] => name_of(lie),
            _ => "all lies at once".to_owned(),
        }
    }
}

/// The lies of pushers: all that end at once, and each alone; if there is no time only the former, without the one that
/// takes the longest.
pub(super) fn hostile(is_short: bool) -> Vec<Scenario> {
    let pushed = CASES.iter().filter(|case| case.is_pushed);
    let is_together = |lie: &Lie| !is_short || *lie != Lie::LongFiles;
    let ends = pushed.clone().filter(|case| case.ends != Ends::WhenInterrupted).map(|case| case.lie);
    let mut scenarios = vec![Scenario::hostile(ends.filter(is_together).collect())];
    if !is_short {
        scenarios.extend(pushed.map(|case| Scenario::hostile(vec![case.lie])));
    }
    scenarios
}

/// All others, the harmless ones first.
pub(super) fn others() -> Vec<Scenario> {
    let new = Scenario::new;
    let pushers = |lie, counts| Scenario { lies: vec![lie], ..new(Kind::LyingPushers, counts) };
    vec![
        new(Kind::Idle, [1000, 100]),
        new(Kind::Calls, [10_000, 500]),
        new(Kind::Chunks, [10_000, 500]),
        Scenario { keeps_speed: true, ..new(Kind::Readers, [500, 50]) },
        Scenario { keeps_speed: true, ..pushers(Lie::Stall, [200, 20]) },
        Scenario { keeps_speed: true, ..pushers(Lie::Trickle, [64, 8]) },
        new(Kind::GapBytes, [32, 4]),
        new(Kind::GapPackets, [32, 4]),
        new(Kind::Spoofed, [10_000, 1000]),
        new(Kind::HalfOpen, [10_000, 500]),
        new(Kind::Garbage, [200_000, 20_000]),
    ]
}

/// 64 MiB, what a side may hold; and more with as many pushes as are taken, each of which lists.
pub(crate) const CAP_BYTES: u64 = 64 << 20;
const HOSTILE_CAP_BYTES: u64 = 96 << 20;

/// The progress timeout of 30 s, the interval at which it is looked at, and some more.
pub(super) const PATIENCE: Duration = Duration::from_secs(45);

/// Such pushes list more as others end and give memory back, which is progress; then a chunk of many files has two
/// windows of 30 s.
const PATIENCE_FOR_LISTS: Duration = Duration::from_secs(150);
