//! What the controller does on a path, in virtual time: each scenario with its bound.
//!
//! `cargo test -p shiplane-transport --lib congestion::scenarios -- --nocapture` prints the tables. The scenarios
//! marked C4 are those of draft-huitema-ccwg-c4-test, with its bounds.

use super::{
    path_link::Link,
    path_model::{Model, Supply},
};

/// What is measured, on a path with this seed for its chances.
pub(super) struct Scenario {
    pub(super) name: &'static str,
    pub(super) bound: Bound,
    pub(super) measure: fn(seed: u64) -> f64,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Bound {
    AtLeast(f64),
    AtMost(f64),
    Between(f64, f64),
}
use Bound::{AtLeast, AtMost, Between};

impl Bound {
    /// How far within the bound a value is: negative outside.
    fn margin(self, value: f64) -> f64 {
        match self {
            AtLeast(least) => value - least,
            AtMost(most) => most - value,
            Between(least, most) => (value / least).ln().min((most / value).ln()),
        }
    }
}

/// Prints the table, then fails if the worst of the seeds is out of bounds anywhere.
pub(super) fn check(title: &str, scenarios: &[Scenario]) {
    let mut table = format!("\n{title}\n");
    let mut failed = Vec::new();
    for &Scenario { name, bound, measure } in scenarios {
        let values = (1..=SEEDS).map(measure);
        let worst = values.min_by(|a, b| bound.margin(*a).total_cmp(&bound.margin(*b))).unwrap_or(f64::NAN);
        let holds = bound.margin(worst) >= 0.0;
        let mark = if holds { "" } else { "  <-- OUT OF BOUNDS" };
        table += &format!("{name:<64} {worst:>8.3}  {bound:?}{mark}\n");
        if !holds {
            failed.push(name);
        }
    }
    println!("{table}");
    assert!(failed.is_empty(), "out of bounds: {failed:?}\n{table}");
}

/// The share of the link's rate at which so many products arrive, start included.
fn share_of_products(link: Link, products: f64) -> f64 {
    let bytes = link.bdp() * products;
    let rate = link.bytes_per_sec();
    bytes / transfer(&mut Model::new(link), bytes as u64) / rate
}

/// Seconds until so many bytes have been acknowledged.
fn transfer(model: &mut Model, bytes: u64) -> f64 {
    let start = model.now;
    let flow = model.add_flow(Supply::Bytes(bytes));
    finish(model, flow, start.as_secs_f64())
}

pub(super) fn finish(model: &mut Model, flow: usize, start_secs: f64) -> f64 {
    while model.flows[flow].done_at.is_none() {
        model.run(0.1);
        if model.now.as_secs_f64() > 300.0 {
            return f64::INFINITY;
        }
    }
    model.flows[flow].done_at.map_or(f64::INFINITY, |at| at.as_secs_f64() - start_secs)
}

/// The share of packets lost, beyond that of the link, in a transfer of 10 s.
fn lost_beyond(link: Link) -> f64 {
    let loss = link.loss;
    let mut model = Model::with_flow(link);
    model.run(10.0);
    model.flows[0].loss_share() - loss
}

#[test]
fn random_loss_costs_little() {
    fn wide(loss: f64, seed: u64) -> Link {
        Link::new(200.0, 50.0).loss(loss).seed(seed)
    }
    check(
        "64 MiB with random loss: share of the link, and losses beyond the link's own",
        &[
            Scenario { name: "200 Mbit/s, 50 ms, no loss", bound: AtLeast(0.92), measure: |seed| share_of_products(wide(0.0, seed), 53.7) },
            Scenario { name: "1 %", bound: AtLeast(0.92), measure: |seed| share_of_products(wide(0.01, seed), 53.7) },
            Scenario { name: "3 %", bound: AtLeast(0.90), measure: |seed| share_of_products(wide(0.03, seed), 53.7) },
            Scenario { name: "5 %", bound: AtLeast(0.87), measure: |seed| share_of_products(wide(0.05, seed), 53.7) },
            Scenario { name: "5 %: lost beyond that", bound: AtMost(0.02), measure: |seed| lost_beyond(wide(0.05, seed)) },
            Scenario { name: "10 %", bound: AtLeast(0.81), measure: |seed| share_of_products(wide(0.1, seed), 53.7) },
            Scenario { name: "10 %: lost beyond that", bound: AtMost(0.02), measure: |seed| lost_beyond(wide(0.1, seed)) },
            Scenario { name: "20 Mbit/s, 20 ms, 10 %", bound: AtLeast(0.80), measure: |seed| share_of_products(Link::new(20.0, 20.0).loss(0.1).seed(seed), 200.0) },
            Scenario { name: "100 Mbit/s, 200 ms, 10 %", bound: AtLeast(0.75), measure: |seed| share_of_products(Link::new(100.0, 200.0).loss(0.1).seed(seed), 50.0) },
            Scenario { name: "200 Mbit/s, 200 ms, 0.1 %, 128 MiB", bound: AtLeast(0.85), measure: |seed| share_of_products(Link::new(200.0, 200.0).loss(0.001).seed(seed), 26.8) },
            Scenario { name: "500 Mbit/s, 100 ms, 0.5 %, 128 MiB", bound: AtLeast(0.80), measure: |seed| share_of_products(Link::new(500.0, 100.0).loss(0.005).seed(seed), 21.5) },
        ],
    );
}

#[test]
fn a_policer_is_obeyed() {
    fn policed(seed: u64) -> Model {
        let link = Link::new(200.0, 50.0).policed(50.0, 125_000.0).seed(seed);
        let mut model = Model::with_flow(link);
        model.run(3.0);
        model
    }
    check(
        "a policer of 50 Mbit/s on a link of 200, 50 ms, seconds 3 to 23",
        &[
            Scenario { name: "share of its rate", bound: AtLeast(0.85), measure: |seed| policed(seed).utilisation(20.0) * 4.0 },
            Scenario {
                name: "packets lost",
                bound: AtMost(0.04),
                measure: |seed| {
                    let mut model = policed(seed);
                    let (sent, lost) = (model.flows[0].sent_packets, model.flows[0].lost_packets);
                    model.run(20.0);
                    let flow = &model.flows[0];
                    (flow.lost_packets - lost) as f64 / (flow.sent_packets - sent) as f64
                },
            },
            Scenario {
                name: "packets lost, 2 % of them at random",
                bound: AtMost(0.06),
                measure: |seed| {
                    let link = Link::new(200.0, 50.0).policed(50.0, 125_000.0).loss(0.02).seed(seed);
                    lost_beyond(link) + 0.02
                },
            },
        ],
    );
}

#[test]
fn long_paths_are_filled() {
    check(
        "forty products, start included: share of the link",
        &[
            Scenario { name: "50 Mbit/s, 500 ms", bound: AtLeast(0.83), measure: |seed| share_of_products(Link::new(50.0, 500.0).seed(seed), 40.0) },
            Scenario { name: "20 Mbit/s, 1 s", bound: AtLeast(0.83), measure: |seed| share_of_products(Link::new(20.0, 1000.0).seed(seed), 40.0) },
            Scenario { name: "20 Mbit/s, 1 s, 1 %", bound: AtLeast(0.80), measure: |seed| share_of_products(Link::new(20.0, 1000.0).loss(0.01).seed(seed), 40.0) },
            Scenario { name: "100 Mbit/s, 100 ms: share in round trips 8 and 9", bound: AtLeast(0.9), measure: |seed| {
                let mut model = Model::with_flow(Link::new(100.0, 100.0).seed(seed));
                model.run(0.7);
                model.utilisation(0.2)
            } },
        ],
    );
}

#[test]
fn the_start_is_fast_and_spills_little() {
    fn lost_at_start(link: Link, secs: f64) -> f64 {
        let mut model = Model::with_flow(link);
        model.run(secs);
        model.flows[0].lost_packets as f64
    }
    fn round_trips(link: Link) -> f64 {
        let rtt = link.rtt_ms / 1e3;
        transfer(&mut Model::new(link), 1_000_000) / rtt
    }
    check(
        "the start: 1 MB in round trips, and packets lost in the first 20 round trips",
        &[
            Scenario { name: "1 MB, 200 Mbit/s, 200 ms", bound: AtMost(3.5), measure: |seed| round_trips(Link::new(200.0, 200.0).seed(seed)) },
            Scenario { name: "1 MB, 200 Mbit/s, 50 ms", bound: AtMost(3.6), measure: |seed| round_trips(Link::new(200.0, 50.0).seed(seed)) },
            Scenario { name: "1 MB, 50 Mbit/s, 200 ms (0.8 of a product)", bound: AtMost(3.6), measure: |seed| round_trips(Link::new(50.0, 200.0).seed(seed)) },
            Scenario { name: "lost, 100 Mbit/s, 100 ms (861 fit), queue of 1 product", bound: AtMost(20.0), measure: |seed| lost_at_start(Link::new(100.0, 100.0).seed(seed), 2.0) },
            Scenario { name: "lost, the same, queue of 0.25", bound: AtMost(600.0), measure: |seed| lost_at_start(Link::new(100.0, 100.0).queue(0.25).seed(seed), 2.0) },
            Scenario { name: "lost, 1 Gbit/s, 20 ms (1722 fit), queue of 1", bound: AtMost(40.0), measure: |seed| lost_at_start(Link::new(1000.0, 20.0).seed(seed), 0.4) },
            Scenario { name: "lost, 10 Mbit/s, 30 ms, queue of 100 ms", bound: AtMost(20.0), measure: |seed| lost_at_start(Link::new(10.0, 30.0).queue_ms(100.0).seed(seed), 0.6) },
            Scenario { name: "lost, 1 Mbit/s, 50 ms, queue of 300 ms", bound: AtMost(40.0), measure: |seed| lost_at_start(Link::new(1.0, 50.0).queue_ms(300.0).seed(seed), 1.0) },
            Scenario { name: "lost, 128 kbit/s, 50 ms, queue of 1 s", bound: AtMost(60.0), measure: |seed| lost_at_start(Link::new(0.128, 50.0).queue_ms(1000.0).seed(seed), 1.0) },
            Scenario { name: "a half round of the first 20 after start-up, least share", bound: AtLeast(0.9), measure: |seed| {
                let mut model = Model::with_flow(Link::new(200.0, 50.0).seed(seed));
                model.run(0.4);
                (0..16).map(|_| model.utilisation(0.025)).fold(1.0, f64::min)
            } },
        ],
    );
}

#[test]
fn slow_links_are_used() {
    fn share(link: Link) -> f64 {
        let mut model = Model::with_flow(link);
        model.run(20.0);
        model.utilisation(60.0)
    }
    check(
        "slow links, a minute after 20 s: share of the link",
        &[
            Scenario { name: "64 kbit/s, 50 ms, queue of 500 ms", bound: AtLeast(0.85), measure: |seed| share(Link::new(0.064, 50.0).queue_ms(500.0).seed(seed)) },
            Scenario { name: "256 kbit/s, 50 ms, queue of 300 ms", bound: AtLeast(0.9), measure: |seed| share(Link::new(0.256, 50.0).queue_ms(300.0).seed(seed)) },
            Scenario { name: "2400 kbit/s, 10 ms, queue of 50 ms", bound: AtLeast(0.9), measure: |seed| share(Link::new(2.4, 10.0).queue_ms(50.0).seed(seed)) },
        ],
    );
}

#[test]
fn freezes_and_jitter_are_no_queue() {
    fn frozen(every_ms: f64, for_ms: f64, rtt_ms: f64, seed: u64) -> f64 {
        let link = Link::new(200.0, rtt_ms).seed(seed).freezing(every_ms, for_ms);
        let moving = link.moving_share(20.0);
        Model::with_flow(link).utilisation(20.0) / moving
    }
    fn jitter(link: Link) -> f64 {
        let mut model = Model::with_flow(link);
        model.run(2.0);
        model.utilisation(20.0)
    }
    check(
        "20 s, start included: share of what the link carries while it moves",
        &[
            Scenario { name: "200 Mbit/s, 50 ms, frozen 20 ms every 0.5 s", bound: AtLeast(0.94), measure: |seed| frozen(500.0, 20.0, 50.0, seed) },
            Scenario { name: "frozen 60 ms every 2 s", bound: AtLeast(0.94), measure: |seed| frozen(2000.0, 60.0, 50.0, seed) },
            Scenario { name: "frozen 150 ms every 5 s", bound: AtLeast(0.94), measure: |seed| frozen(5000.0, 150.0, 50.0, seed) },
            Scenario { name: "20 ms, frozen 20 ms every 0.5 s", bound: AtLeast(0.94), measure: |seed| frozen(500.0, 20.0, 20.0, seed) },
            Scenario { name: "20 ms, frozen 150 ms every 5 s", bound: AtLeast(0.94), measure: |seed| frozen(5000.0, 150.0, 20.0, seed) },
            Scenario { name: "50 Mbit/s, 50 ms, another delay of 0 to 30 ms every 20 ms", bound: AtLeast(0.9), measure: |seed| jitter(Link::new(50.0, 50.0).wandering(30.0).seed(seed)) },
            Scenario { name: "200 Mbit/s, 50 ms, 0 to 60 ms", bound: AtLeast(0.9), measure: |seed| jitter(Link::new(200.0, 50.0).queue(2.0).wandering(60.0).seed(seed)) },
            Scenario { name: "20 Mbit/s, 20 ms, 0 to 40 ms, 1 %", bound: AtLeast(0.88), measure: |seed| jitter(Link::new(20.0, 20.0).queue(3.0).wandering(40.0).loss(0.01).seed(seed)) },
            Scenario { name: "50 Mbit/s, 50 ms, Wi-Fi jitter of 4 ms", bound: AtLeast(0.3), measure: |seed| jitter(Link::new(50.0, 50.0).queue(2.0).wifi_jitter(4.0).seed(seed)) },
        ],
    );
}

#[test]
fn the_queue_stays_short() {
    fn p99(link: Link) -> f64 {
        let mut model = Model::with_flow(link);
        model.run(1.0);
        model.rtt_quantile(20.0, 0.99)
    }
    check(
        "99 of 100 round trips from the first second on stay below, in base round trips",
        &[
            Scenario { name: "200 Mbit/s, 50 ms", bound: AtMost(1.45), measure: |seed| p99(Link::new(200.0, 50.0).seed(seed)) },
            Scenario { name: "200 Mbit/s, 50 ms, 1 %", bound: AtMost(1.45), measure: |seed| p99(Link::new(200.0, 50.0).loss(0.01).seed(seed)) },
            Scenario { name: "20 Mbit/s, 20 ms, queue of 10 products", bound: AtMost(1.9), measure: |seed| p99(Link::new(20.0, 20.0).queue(10.0).seed(seed)) },
            Scenario { name: "100 Mbit/s, 200 ms", bound: AtMost(1.45), measure: |seed| p99(Link::new(100.0, 200.0).seed(seed)) },
            Scenario { name: "8 Gbit/s, 50 us, queue without end: worst, ms", bound: AtMost(1.0), measure: |seed| {
                let mut model = Model::with_flow(Link::new(8000.0, 0.05).queue(1000.0).seed(seed));
                model.run(0.5);
                model.worst_queue(0.25) * 0.05
            } },
            Scenario { name: "the same: share", bound: AtLeast(0.95), measure: |seed| {
                let mut model = Model::with_flow(Link::new(8000.0, 0.05).queue(1000.0).seed(seed));
                model.run(0.5);
                model.utilisation(0.25)
            } },
        ],
    );
}

#[test]
fn short_queues_are_not_flooded() {
    fn share_and_loss(link: Link, from: f64, secs: f64) -> (f64, f64) {
        let mut model = Model::with_flow(link);
        model.run(from);
        let (sent, lost) = (model.flows[0].sent_packets, model.flows[0].lost_packets);
        let share = model.utilisation(secs);
        let flow = &model.flows[0];
        (share, (flow.lost_packets - lost) as f64 / (flow.sent_packets - sent) as f64)
    }
    fn wide(seed: u64) -> (f64, f64) {
        share_and_loss(Link::new(100.0, 50.0).queue(0.05).seed(seed), 2.0, 10.0)
    }
    /// A gigabit Ethernet switch holds less than two milliseconds' worth.
    fn local(queue: f64, seed: u64) -> (f64, f64) {
        share_and_loss(Link::new(1000.0, 1.0).queue(queue).seed(seed), 0.5, 1.0)
    }
    check(
        "short queues",
        &[
            Scenario { name: "100 Mbit/s, 50 ms, queue of 0.05: share", bound: AtLeast(0.9), measure: |seed| wide(seed).0 },
            Scenario { name: "lost", bound: AtMost(0.05), measure: |seed| wide(seed).1 },
            Scenario { name: "1 Gbit/s, 1 ms, queue of 0.5: share", bound: AtLeast(0.95), measure: |seed| local(0.5, seed).0 },
            Scenario { name: "lost", bound: AtMost(0.04), measure: |seed| local(0.5, seed).1 },
            Scenario { name: "1 Gbit/s, 1 ms, queue of 2: share", bound: AtLeast(0.95), measure: |seed| local(2.0, seed).0 },
            Scenario { name: "lost", bound: AtMost(0.04), measure: |seed| local(2.0, seed).1 },
        ],
    );
}

#[test]
fn a_path_that_changes_is_followed() {
    /// The share of the link in so many seconds, so long after its rate became another.
    fn changed(mut link: Link, to_mbit: f64, after: f64, secs: f64) -> f64 {
        let seed = link.seed;
        link = link.seed(seed);
        let mut model = Model::with_flow(link);
        model.run(5.0);
        model.link.rate_mbit = to_mbit;
        model.run(after);
        model.utilisation(secs)
    }
    check(
        "a path that changes: share of the link afterwards",
        &[
            Scenario { name: "2 to 200 Mbit/s, 50 ms, after 3 s", bound: AtLeast(0.85), measure: |seed| changed(Link::new(2.0, 50.0).queue_ms(100.0).seed(seed), 200.0, 3.0, 5.0) },
            Scenario { name: "200 to 2 Mbit/s, 50 ms, queue of a product of the first, after 15 s", bound: AtLeast(0.9), measure: |seed| changed(Link::new(200.0, 50.0).seed(seed), 2.0, 15.0, 10.0) },
            Scenario { name: "200 to 2 to 200 Mbit/s, 3 s after the second change", bound: AtLeast(0.85), measure: |seed| {
                let mut model = Model::with_flow(Link::new(200.0, 50.0).seed(seed));
                for mbit in [2.0, 200.0] {
                    model.run(8.0);
                    model.link.rate_mbit = mbit;
                }
                model.run(3.0);
                model.utilisation(5.0)
            } },
            Scenario { name: "200 to 2 Mbit/s: worst round trip after 20 s, in base ones", bound: AtMost(2.5), measure: |seed| {
                let mut model = Model::with_flow(Link::new(200.0, 50.0).seed(seed));
                model.run(5.0);
                model.link.rate_mbit = 2.0;
                model.run(20.0);
                model.rtt_quantile(8.0, 0.99)
            } },
            Scenario { name: "50 to 200 Mbit/s, 0.1 %, after 1.5 s", bound: AtLeast(0.85), measure: |seed| changed(Link::new(50.0, 50.0).loss(0.001).queue(4.0).seed(seed), 200.0, 1.5, 3.0) },
            Scenario { name: "200 to 50 Mbit/s, after 3 s", bound: AtLeast(0.9), measure: |seed| changed(Link::new(200.0, 50.0).seed(seed), 50.0, 3.0, 2.0) },
            Scenario { name: "50 to 100 ms, 100 Mbit/s, after 5 s", bound: AtLeast(0.85), measure: |seed| {
                let mut model = Model::with_flow(Link::new(100.0, 50.0).seed(seed));
                model.run(5.0);
                model.link.rtt_ms = 100.0;
                model.run(5.0);
                model.utilisation(20.0)
            } },
            Scenario { name: "100 to 50 ms: worst queue after the next probe", bound: AtMost(0.35), measure: |seed| {
                let mut model = Model::with_flow(Link::new(100.0, 100.0).seed(seed));
                model.run(5.0);
                model.link.rtt_ms = 50.0;
                model.run(15.0);
                model.worst_queue(5.0)
            } },
            Scenario { name: "silent for 20 s, then 150 ms later", bound: AtLeast(0.85), measure: |seed| {
                let mut model = Model::with_flow(Link::new(100.0, 50.0).loss(0.001).seed(seed));
                model.run(5.0);
                model.set_supply(0, Supply::Silent);
                model.run(20.0);
                model.set_supply(0, Supply::Endless);
                model.run(0.15);
                model.utilisation(1.0)
            } },
            Scenario { name: "a tenth used for 10 s: window after ÷ before", bound: Between(0.7, 1.3), measure: |seed| {
                let mut model = Model::with_flow(Link::new(100.0, 50.0).seed(seed));
                model.run(5.0);
                let before = model.flows[0].window_bytes() as f64;
                model.set_supply(0, Supply::Trickle(12_500));
                model.run(10.0);
                model.flows[0].window_bytes() as f64 / before
            } },
        ],
    );
}

#[test]
fn the_scenarios_of_c4_end_in_time() {
    fn changing(mut model: Model, bytes: u64, changes: &[(f64, f64)]) -> f64 {
        let flow = model.add_flow(Supply::Bytes(bytes));
        for &(at, mbit) in changes {
            model.run(at - model.now.as_secs_f64());
            model.link.rate_mbit = mbit;
        }
        finish(&mut model, flow, 0.0)
    }
    check(
        "C4, alone: seconds to the end",
        &[
            Scenario { name: "C4 20 Mbit/s, 80 ms, 10 MB", bound: AtMost(5.0), measure: |seed| transfer(&mut Model::new(Link::new(20.0, 80.0).seed(seed)), 10_000_000) },
            Scenario { name: "C4 200 Mbit/s, 40 ms, 20 MB", bound: AtMost(1.25), measure: |seed| transfer(&mut Model::new(Link::new(200.0, 40.0).queue_ms(80.0).seed(seed)), 20_000_000) },
            Scenario { name: "C4 satellite, 250 Mbit/s, 600 ms, 100 MB (7.4 with a resumed window)", bound: AtMost(9.0), measure: |seed| transfer(&mut Model::new(Link::new(250.0, 600.0).seed(seed)), 100_000_000) },
            Scenario { name: "C4 low and up, 5 to 10 Mbit/s, 7 MB", bound: AtMost(7.9), measure: |seed| changing(Model::new(Link::new(10.0, 100.0).queue_ms(80.0).seed(seed)), 7_000_000, &[(0.0, 5.0), (2.5, 10.0)]) },
            Scenario { name: "C4 drop and back, 10 to 5 to 10 Mbit/s, 7 MB", bound: AtMost(8.15), measure: |seed| changing(Model::new(Link::new(10.0, 100.0).queue_ms(80.0).seed(seed)), 7_000_000, &[(1.5, 5.0), (3.5, 10.0)]) },
            Scenario { name: "C4 black hole of 2 s, 25 Mbit/s, 70 ms, 10 MB", bound: AtMost(6.1), measure: |seed| {
                let link = Link::new(25.0, 70.0).queue_ms(80.0).seed(seed).frozen(2000.0, 4000.0);
                transfer(&mut Model::new(link), 10_000_000)
            } },
            Scenario { name: "C4 short to long, 30 to 200 ms, 10 Mbit/s, 20 MB", bound: AtMost(22.0), measure: |seed| {
                let mut model = Model::new(Link::new(10.0, 30.0).queue_ms(100.0).seed(seed));
                let flow = model.add_flow(Supply::Bytes(20_000_000));
                model.run(1.0);
                model.link = Link::new(10.0, 200.0).seed(seed);
                finish(&mut model, flow, 0.0)
            } },
            Scenario { name: "C4 bad Wi-Fi, 10 Mbit/s, 2 ms, jitter of 7 ms, 4 MB", bound: AtMost(4.3), measure: |seed| {
                let link = Link::new(10.0, 2.0).queue_ms(250.0).wifi_jitter(7.0).seed(seed);
                transfer(&mut Model::new(link), 4_000_000)
            } },
            Scenario { name: "C4 Wi-Fi fade, 20 to 2 to 20 Mbit/s, 80 ms, 10 MB", bound: AtMost(6.2), measure: |seed| {
                let mut model = Model::new(Link::new(20.0, 80.0).wifi_jitter(1.0).seed(seed));
                let flow = model.add_flow(Supply::Bytes(10_000_000));
                for (secs, mbit, jitter) in [(1.0, 2.0, 12.0), (2.0, 20.0, 1.0)] {
                    model.run(secs);
                    model.link = Link::new(20.0, 80.0).wifi_jitter(jitter).seed(seed);
                    model.link.rate_mbit = mbit;
                }
                finish(&mut model, flow, 0.0)
            } },
            Scenario { name: "C4 Wi-Fi suspension, 20 Mbit/s, 10 ms, 200 ms of every 2 s, 10 MB", bound: AtMost(5.4), measure: |seed| {
                let mut link = Link::new(20.0, 10.0).queue_ms(20.0).seed(seed);
                for period in 0..50 {
                    let start = f64::from(period) * 2000.0;
                    link = link.frozen(start + 1800.0, start + 2000.0);
                }
                transfer(&mut Model::new(link), 10_000_000)
            } },
        ],
    );
}

/// Chances differ from seed to seed.
const SEEDS: u64 = 3;
