//! The scenarios of `cargo xtask load`.

/// One kind of load.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scenario {
    pub(super) name: &'static str,
    pub(super) what: &'static str,
    /// What `shiplane-load` calls it.
    pub(super) kind: &'static str,
    pub(super) count: u64,
    pub(super) short_count: u64,
    /// Whether an honest peer beside it must keep its speed. What only takes processor time, of which the machine
    /// has two cores for both sides, is measured and not judged.
    pub(super) keeps_speed: bool,
}

const fn scenario(name: &'static str, kind: &'static str, counts: [u64; 2], what: &'static str) -> Scenario {
    let [count, short_count] = counts;
    Scenario { name, what, kind, count, short_count, keeps_speed: false }
}

/// All of them, the harmless ones first.
pub(super) const SCENARIOS: [Scenario; 11] = [
    scenario("idle", "idle", [1000, 100], "connections that do nothing"),
    scenario("calls", "streams", [10_000, 500], "calls one after another, then 64 at a time, 50 times"),
    scenario("chunks", "chunks", [10_000, 500], "chunks one after another, then 64 at a time, 50 times"),
    Scenario {
        keeps_speed: true,
        ..scenario("readers", "readers", [500, 50], "receivers that want everything and take nothing")
    },
    Scenario {
        keeps_speed: true,
        ..scenario("pushers", "pushers", [200, 20], "pushers that stop in the middle of every chunk")
    },
    scenario("drip", "drip", [64, 8], "pushers that go on by a byte a second"),
    scenario("gaps, bytes", "gap-bytes", [32, 4], "senders that leave out every second byte"),
    scenario("gaps, packets", "gap-packets", [32, 4], "senders that leave out every second packet"),
    scenario(
        "spoofed",
        "spoofed",
        [10_000, 1000],
        "first packets from addresses that never answer, without end",
    ),
    scenario("half-open", "half-open", [10_000, 500], "handshakes that are begun and left, without end"),
    scenario("garbage", "garbage", [200_000, 20_000], "datagrams that belong to nothing, without end"),
];
