//! The scenarios of `cargo xtask load`.

use std::time::Duration;

use super::clients::{CASES, Ends};
use crate::peers::hostile::Lie;

/// One kind of load.
#[derive(Clone, Debug)]
pub(super) struct Scenario {
    pub(super) name: String,
    pub(super) what: &'static str,
    /// What the peers' program calls it.
    pub(super) kind: &'static str,
    /// What pushers that lie tell, in turn.
    pub(super) lies: Vec<Lie>,
    /// How many peers, and how many if there is no time.
    pub(super) counts: [u64; 2],
    /// Whether an honest peer beside it must keep its speed. What only takes processor time, of which the machine
    /// has two cores for both sides, is measured and not judged.
    pub(super) keeps_speed: bool,
    /// What the server may hold.
    pub(super) cap_bytes: u64,
    /// Within this time the server must have ended it by itself.
    pub(super) ends_within: Option<Duration>,
}

impl Scenario {
    fn new(name: &str, kind: &'static str, counts: [u64; 2], what: &'static str) -> Self {
        let (name, lies, cap_bytes) = (name.to_owned(), Vec::new(), CAP_BYTES);
        Self { name, what, kind, lies, counts, keeps_speed: false, cap_bytes, ends_within: None }
    }

    fn pushers(name: &str, lie: Lie, counts: [u64; 2], what: &'static str) -> Self {
        Self { lies: vec![lie], ..Self::new(name, "lying-pushers", counts, what) }
    }

    /// As many pushes that lie as a server takes.
    fn hostile(name: &str, lies: Vec<Lie>) -> Self {
        let patience = if lies.contains(&Lie::LongFiles) { PATIENCE_FOR_LISTS } else { PATIENCE };
        let is_endless = CASES.iter().any(|case| lies == [case.lie] && case.ends == Ends::WhenInterrupted);
        let what = "as many pushes as a server takes, that lie";
        Self {
            lies,
            cap_bytes: HOSTILE_CAP_BYTES,
            ends_within: (!is_endless).then_some(patience),
            ..Self::new(name, "lying-pushers", [56, 56], what)
        }
    }

    fn judged_by_speed(self) -> Self {
        Self { keeps_speed: true, ..self }
    }
}

/// The lies of pushers: all that end at once, and each alone; if there is no time only the former, without the one that
/// takes the longest.
pub(super) fn hostile(is_short: bool) -> Vec<Scenario> {
    let pushed = CASES.iter().filter(|case| case.is_pushed);
    let is_together = |lie: &Lie| !is_short || *lie != Lie::LongFiles;
    let ends = pushed.clone().filter(|case| case.ends != Ends::WhenInterrupted).map(|case| case.lie);
    let mut scenarios = vec![Scenario::hostile("all lies at once", ends.filter(is_together).collect())];
    if !is_short {
        scenarios.extend(pushed.map(|case| Scenario::hostile(&case.lie.name(), vec![case.lie])));
    }
    scenarios
}

/// All others, the harmless ones first.
pub(super) fn others() -> Vec<Scenario> {
    let (new, pushers) = (Scenario::new, Scenario::pushers);
    vec![
        new("idle", "idle", [1000, 100], "connections that do nothing"),
        new("calls", "streams", [10_000, 500], "calls one after another, then 64 at a time, 50 times"),
        new("chunks", "chunks", [10_000, 500], "chunks one after another, then 64 at a time, 50 times"),
        new("readers", "readers", [500, 50], "receivers that want everything and take nothing")
            .judged_by_speed(),
        pushers("pushers", Lie::Stall, [200, 20], "pushers that stop in the middle of every chunk")
            .judged_by_speed(),
        pushers("drip", Lie::Trickle, [64, 8], "pushers that go on by a byte a second"),
        new("gaps, bytes", "gap-bytes", [32, 4], "senders that leave out every second byte"),
        new("gaps, packets", "gap-packets", [32, 4], "senders that leave out every second packet"),
        new("spoofed", "spoofed", [10_000, 1000], "first packets from addresses that never answer"),
        new("half-open", "half-open", [10_000, 500], "handshakes that are begun and left, without end"),
        new("garbage", "garbage", [200_000, 20_000], "datagrams that belong to nothing, without end"),
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
