//! One flow: start-up, loss, freezes, jitter, long paths.

use testlink::Path;

use super::{Scenario, at_least, at_most, check, share_and_loss, transfer};
use crate::congestion::path_model::Model;

/// The share of the link's rate for this many bandwidth-delay products, start-up included.
fn share_of_products(products: f64, link: Path) -> f64 {
    let (bytes, rate) = (link.bdp() * products, link.bytes_per_sec());
    bytes / transfer(link, bytes as u64) / rate
}

fn wide(loss: f64, seed: u64) -> Path {
    Path::new(200.0, 50.0).loss(loss).seed(seed)
}

/// What is lost in 10 s on top of what the link loses.
fn lost_on_top(loss: f64, seed: u64) -> f64 {
    share_and_loss(&mut Model::with_flow(wide(loss, seed)), 0.0, 10.0).1 - loss
}

#[test]
fn random_loss_costs_little() {
    check("64 MiB with random loss: share of the link, start included", RANDOM_LOSS);
}

const RANDOM_LOSS: &[Scenario] = &[
    at_least(0.92, "200 Mbit/s, 50 ms, no loss", |seed| share_of_products(53.7, wide(0.0, seed))),
    at_least(0.88, "1 %", |seed| share_of_products(53.7, wide(0.01, seed))),
    at_least(0.88, "3 %", |seed| share_of_products(53.7, wide(0.03, seed))),
    at_least(0.85, "5 %", |seed| share_of_products(53.7, wide(0.05, seed))),
    at_most(0.02, "5 %: lost on top", |seed| lost_on_top(0.05, seed)),
    at_least(0.81, "10 %", |seed| share_of_products(53.7, wide(0.1, seed))),
    at_most(0.02, "10 %: lost on top", |seed| lost_on_top(0.1, seed)),
    at_least(0.80, "20 Mbit/s, 20 ms, 10 %", |seed| {
        share_of_products(200.0, Path::new(20.0, 20.0).loss(0.1).seed(seed))
    }),
    at_least(0.80, "100 Mbit/s, 200 ms, 10 %", |seed| {
        share_of_products(50.0, Path::new(100.0, 200.0).loss(0.1).seed(seed))
    }),
    at_least(0.84, "200 Mbit/s, 200 ms, 0.1 %, 128 MiB", |seed| {
        share_of_products(26.8, Path::new(200.0, 200.0).loss(0.001).seed(seed))
    }),
    // 1.03 times the time of a perfect window, and three round trips.
    at_least(0.818, "500 Mbit/s, 100 ms, 0.5 %, 128 MiB", |seed| {
        share_of_products(21.5, Path::new(500.0, 100.0).loss(0.005).seed(seed))
    }),
];

#[test]
fn a_policer_is_obeyed() {
    check("a policer of 50 Mbit/s on a link of 200, 50 ms: seconds 3 to 23", POLICER);
}

fn policed(loss: f64, seed: u64) -> (f64, f64) {
    let link = wide(loss, seed).policed(50.0, 125_000.0);
    share_and_loss(&mut Model::with_flow(link), 3.0, 20.0)
}

const POLICER: &[Scenario] = &[
    at_least(0.9, "share of its rate", |seed| policed(0.0, seed).0 * 4.0),
    at_most(0.04, "packets lost", |seed| policed(0.0, seed).1),
    at_most(0.06, "packets lost, 2 % of them at random", |seed| policed(0.02, seed).1),
];

#[test]
fn long_paths_are_filled() {
    check("forty products, start included: share of the link", LONG);
}

const LONG: &[Scenario] = &[
    at_least(0.85, "50 Mbit/s, 500 ms", |seed| share_of_products(40.0, Path::new(50.0, 500.0).seed(seed))),
    at_least(0.85, "20 Mbit/s, 1 s", |seed| share_of_products(40.0, Path::new(20.0, 1000.0).seed(seed))),
    at_least(0.82, "20 Mbit/s, 1 s, 1 %", |seed| {
        share_of_products(40.0, Path::new(20.0, 1000.0).loss(0.01).seed(seed))
    }),
    at_least(0.95, "100 Mbit/s, 100 ms: in round trips 8 and 9", |seed| {
        share_and_loss(&mut Model::with_flow(Path::new(100.0, 100.0).seed(seed)), 0.7, 0.2).0
    }),
];

#[test]
fn the_start_is_fast() {
    check("the start: 1 MB in round trips, until all is acknowledged", START);
}

fn round_trips(link: Path) -> f64 {
    let rtt_secs = link.rtt_ms / 1e3;
    transfer(link, 1_000_000) / rtt_secs
}

const START: &[Scenario] = &[
    at_most(3.5, "200 Mbit/s, 200 ms", |seed| round_trips(Path::new(200.0, 200.0).seed(seed))),
    at_most(3.6, "200 Mbit/s, 50 ms", |seed| round_trips(wide(0.0, seed))),
    at_most(3.6, "50 Mbit/s, 200 ms: 0.8 of a product", |seed| {
        round_trips(Path::new(50.0, 200.0).seed(seed))
    }),
    at_least(0.95, "200 Mbit/s, 50 ms: least share of 16 half rounds from the ninth on", |seed| {
        let mut model = Model::with_flow(wide(0.0, seed));
        model.run(0.4);
        (0..16).map(|_| model.utilisation(0.025)).fold(1.0, f64::min)
    }),
];

/// Prints bytes sent and the window at the end of each round trip.
#[test]
fn a_megabyte_over_200_ms_is_three_flights() {
    let mut model = Model::new(Path::new(200.0, 200.0));
    let flow = model.add_flow(crate::congestion::path_model::Supply::Bytes(1_000_000));
    let sent_bytes: Vec<u64> = (1..=3)
        .map(|round_trip| {
            model.run(0.2);
            let flow = &model.flows[flow];
            let bytes = flow.sent_packets * crate::congestion::path_model::MTU;
            println!("round trip {round_trip}: {bytes} bytes sent, window {}", flow.window_bytes());
            bytes
        })
        .collect();
    assert!(sent_bytes[0] <= 96 * 1024 && sent_bytes[2] >= 1_000_000, "{sent_bytes:?}");
}

#[test]
fn the_start_spills_little() {
    check("packets lost in the first twenty round trips", SPILLED);
}

fn spilled(link: Path) -> f64 {
    let secs = link.rtt_ms / 50.0;
    let mut model = Model::with_flow(link);
    model.run(secs);
    model.flows[0].lost_packets as f64
}

const SPILLED: &[Scenario] = &[
    at_most(20.0, "100 Mbit/s, 100 ms (861 fit), queue of 1 product", |seed| {
        spilled(Path::new(100.0, 100.0).seed(seed))
    }),
    at_most(400.0, "the same, queue of a quarter", |seed| {
        spilled(Path::new(100.0, 100.0).queue(0.25).seed(seed))
    }),
    at_most(40.0, "1 Gbit/s, 20 ms (1722 fit), queue of 1", |seed| {
        spilled(Path::new(1000.0, 20.0).seed(seed))
    }),
    at_most(20.0, "10 Mbit/s, 30 ms, queue of 100 ms", |seed| {
        spilled(Path::new(10.0, 30.0).queue_ms(100.0).seed(seed))
    }),
    at_most(50.0, "1 Mbit/s, 50 ms, queue of 300 ms", |seed| {
        spilled(Path::new(1.0, 50.0).queue_ms(300.0).seed(seed))
    }),
    at_most(60.0, "128 kbit/s, 50 ms, queue of 1 s", |seed| {
        spilled(Path::new(0.128, 50.0).queue_ms(1000.0).seed(seed))
    }),
];

#[test]
fn freezes_and_jitter_are_no_queue() {
    check("share of what the link carries while it moves, 20 s, start included", FREEZES);
    check("share of the link, seconds 2 to 22", JITTER);
}

fn frozen(every_ms: f64, for_ms: f64, rtt_ms: f64, seed: u64) -> f64 {
    let link = Path::new(200.0, rtt_ms).seed(seed).freezing(every_ms, for_ms);
    let moving = link.moving_share(20.0);
    Model::with_flow(link).utilisation(20.0) / moving
}

const FREEZES: &[Scenario] = &[
    at_least(0.94, "200 Mbit/s, 50 ms, 20 ms every 0.5 s", |seed| frozen(500.0, 20.0, 50.0, seed)),
    at_least(0.94, "60 ms every 2 s", |seed| frozen(2000.0, 60.0, 50.0, seed)),
    at_least(0.94, "150 ms every 5 s", |seed| frozen(5000.0, 150.0, 50.0, seed)),
    at_least(0.94, "200 Mbit/s, 20 ms, 20 ms every 0.5 s", |seed| frozen(500.0, 20.0, 20.0, seed)),
    at_least(0.94, "200 Mbit/s, 20 ms, 150 ms every 5 s", |seed| frozen(5000.0, 150.0, 20.0, seed)),
];

fn trembling(link: Path) -> f64 {
    share_and_loss(&mut Model::with_flow(link), 2.0, 20.0).0
}

fn trembling_bbr(link: Path) -> f64 {
    let mut model = Model::new(link);
    model.add_bbr();
    share_and_loss(&mut model, 2.0, 20.0).0
}

fn much_jitter(seed: u64) -> Path {
    Path::new(200.0, 50.0).queue(2.0).wandering(60.0).seed(seed)
}

const JITTER: &[Scenario] = &[
    at_least(0.9, "50 Mbit/s, 50 ms, another delay of 0 to 30 ms every 20 ms", |seed| {
        trembling(Path::new(50.0, 50.0).wandering(30.0).seed(seed))
    }),
    at_least(0.88, "20 Mbit/s, 20 ms, 0 to 40 ms, 1 % loss", |seed| {
        trembling(Path::new(20.0, 20.0).queue(3.0).wandering(40.0).loss(0.01).seed(seed))
    }),
    at_least(0.8, "200 Mbit/s, 50 ms, 0 to 60 ms", |seed| trembling(much_jitter(seed))),
    at_least(0.9, "(BBR's first version there)", |seed| trembling_bbr(much_jitter(seed))),
    at_least(0.6, "50 Mbit/s, 50 ms, C4's Wi-Fi jitter of 4 ms: stalls of 90 ms", |seed| {
        trembling(Path::new(50.0, 50.0).queue(2.0).wifi_jitter(4.0).seed(seed))
    }),
];
