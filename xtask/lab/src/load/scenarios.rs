//! The scenarios of `cargo xtask load`.

use std::time::Duration;

/// One kind of load.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scenario {
    pub(super) name: &'static str,
    pub(super) what: &'static str,
    /// What the peers' program calls it.
    pub(super) kind: &'static str,
    /// What pushers that lie tell, in turn.
    pub(super) lies: &'static [&'static str],
    pub(super) count: u64,
    pub(super) short_count: u64,
    /// Whether an honest peer beside it must keep its speed. What only takes processor time, of which the machine
    /// has two cores for both sides, is measured and not judged.
    pub(super) keeps_speed: bool,
    /// What the server may hold.
    pub(super) cap_bytes: u64,
    /// Within this time the server must have ended it by itself.
    pub(super) ends_within: Option<Duration>,
}

impl Scenario {
    const fn new(name: &'static str, kind: &'static str, counts: [u64; 2], what: &'static str) -> Self {
        let ([count, short_count], lies, keeps_speed, ends_within) = (counts, &[], false, None);
        Self { name, what, kind, lies, count, short_count, keeps_speed, cap_bytes: CAP_BYTES, ends_within }
    }

    const fn judged_by_speed(self) -> Self {
        Self { keeps_speed: true, ..self }
    }

    const fn pushers(name: &'static str, lies: &'static [&'static str], what: &'static str) -> Self {
        Self { lies, ..Self::new(name, "lying-pushers", [64, 8], what) }
    }

    /// As many pushes that lie as a server takes.
    fn hostile(name: &'static str, lies: &'static [&'static str]) -> Self {
        let what = "as many pushes as a server takes, that lie";
        Self { count: 56, short_count: 56, cap_bytes: HOSTILE_CAP_BYTES, ..Self::pushers(name, lies, what) }
    }

    fn ended_by_server(self) -> Self {
        let lists = self.lies.contains(&"long-files");
        Self { ends_within: Some(if lists { PATIENCE_FOR_LISTS } else { PATIENCE }), ..self }
    }
}

/// The lies of pushers: each in turn, and all at once; that alone if there is no time.
pub(super) fn hostile(short: bool) -> Vec<Scenario> {
    let all = if short { &LIES[..LIES.len() - 1] } else { &LIES };
    let mut scenarios = vec![Scenario::hostile("all lies at once", all).ended_by_server()];
    if !short {
        let alone = |lie: &'static &'static str| Scenario::hostile(lie, std::slice::from_ref(lie));
        scenarios.extend(LIES.iter().map(|lie| alone(lie).ended_by_server()));
        scenarios.extend(ENDLESS_LIES.iter().map(alone));
    }
    scenarios
}

/// All others, the harmless ones first.
pub(super) const SCENARIOS: [Scenario; 11] = [
    Scenario::new("idle", "idle", [1000, 100], "connections that do nothing"),
    Scenario::new("calls", "streams", [10_000, 500], "calls one after another, then 64 at a time, 50 times"),
    Scenario::new("chunks", "chunks", [10_000, 500], "chunks one after another, then 64 at a time, 50 times"),
    Scenario::new("readers", "readers", [500, 50], "receivers that want everything and take nothing")
        .judged_by_speed(),
    Scenario {
        count: 200,
        short_count: 20,
        ..Scenario::pushers("pushers", &["stall"], "pushers that stop in the middle of every chunk")
    }
    .judged_by_speed(),
    Scenario::pushers("drip", &["trickle"], "pushers that go on by a byte a second"),
    Scenario::new("gaps, bytes", "gap-bytes", [32, 4], "senders that leave out every second byte"),
    Scenario::new("gaps, packets", "gap-packets", [32, 4], "senders that leave out every second packet"),
    Scenario::new("spoofed", "spoofed", [10_000, 1000], "first packets from addresses that never answer"),
    Scenario::new("half-open", "half-open", [10_000, 500], "handshakes that are begun and left, without end"),
    Scenario::new("garbage", "garbage", [200_000, 20_000], "datagrams that belong to nothing, without end"),
];

/// Those that a server must end by itself.
const LIES: [&str; 16] = [
    "huge-file",
    "vast-file",
    "long-directories",
    "unadmitted-entries",
    "long-links",
    "through-link",
    "alive-for-entries",
    "alive-for-chunks",
    "drip",
    "wrong-digest",
    "long-chunks",
    "unwanted-chunk",
    "late-entry",
    "unwanted-compression",
    "mute",
    // The last: it takes the longest.
    "long-files",
];

/// Those that go on for as long as the peer does.
const ENDLESS_LIES: [&str; 3] = ["endless-files", "endless-skipped", "endless-links"];

/// 64 MiB, what a side may hold; and more with as many pushes as are taken, each of which lists.
pub(super) const CAP_BYTES: u64 = 64 << 20;
const HOSTILE_CAP_BYTES: u64 = 96 << 20;

/// The progress timeout of 30 s, the interval at which it is looked at, and some more.
pub(super) const PATIENCE: Duration = Duration::from_secs(45);

/// Such pushes list more as others end and give memory back, which is progress; then a chunk of many files has two
/// windows of 30 s.
const PATIENCE_FOR_LISTS: Duration = Duration::from_secs(150);
