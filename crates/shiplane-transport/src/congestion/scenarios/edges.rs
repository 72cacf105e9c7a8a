//! Short and long queues, changing paths, pausing applications.

use std::time::{Duration, Instant};

use testlink::Path;

use super::{Scenario, at_least, at_most, between, check, share_and_loss};
use crate::congestion::{
    controller::Controller,
    path_model::{MTU, Model, Supply},
};

#[test]
fn the_queue_stays_short() {
    check("99 of 100 round trips from the first second on, in base round trips", QUEUE);
}

fn p99(link: Path) -> f64 {
    let mut model = Model::with_flow(link);
    model.run(1.0);
    model.rtt_quantile(20.0, 0.99)
}

/// Whatever else is sent meets that queue, calls above all.
fn microseconds(seed: u64) -> Model {
    let mut model = Model::with_flow(Path::new(8000.0, 0.05).queue(1000.0).seed(seed));
    model.run(0.25);
    model
}

/// A call beside bulk: what is lost is sent again first.
fn call_p99(link: Path) -> f64 {
    let mut model = Model::with_flow(link);
    model.run(1.0);
    model.call_quantile(20.0, 0.99)
}

const QUEUE: &[Scenario] = &[
    at_most(2.0, "200 Mbit/s, 50 ms: calls beside it", |seed| call_p99(Path::new(200.0, 50.0).seed(seed))),
    at_most(3.0, "calls with 1 % loss", |seed| call_p99(Path::new(200.0, 50.0).loss(0.01).seed(seed))),
    at_most(3.0, "20 Mbit/s, 100 ms: calls with 1 % loss", |seed| {
        call_p99(Path::new(20.0, 100.0).loss(0.01).seed(seed))
    }),
    at_most(1.45, "200 Mbit/s, 50 ms", |seed| p99(Path::new(200.0, 50.0).seed(seed))),
    at_most(1.45, "200 Mbit/s, 50 ms, 1 % loss", |seed| p99(Path::new(200.0, 50.0).loss(0.01).seed(seed))),
    at_most(1.9, "20 Mbit/s, 20 ms, queue of 10 products", |seed| {
        p99(Path::new(20.0, 20.0).queue(10.0).seed(seed))
    }),
    at_most(1.45, "100 Mbit/s, 200 ms", |seed| p99(Path::new(100.0, 200.0).seed(seed))),
    at_most(1.0, "8 Gbit/s, 50 us, queue without end: the worst queue, ms", |seed| {
        microseconds(seed).worst_queue(0.25) * 0.05
    }),
    at_least(0.95, "the same: share of the link", |seed| microseconds(seed).utilisation(0.25)),
];

#[test]
fn short_queues_are_not_flooded() {
    check("short queues: share of the link, and packets lost", SHORT);
}

fn hardly_any(seed: u64) -> (f64, f64) {
    share_and_loss(&mut Model::with_flow(Path::new(100.0, 50.0).queue(0.05).seed(seed)), 2.0, 10.0)
}

/// A gigabit Ethernet switch holds less than two milliseconds' worth.
fn local(queue: f64, seed: u64) -> (f64, f64) {
    share_and_loss(&mut Model::with_flow(Path::new(1000.0, 1.0).queue(queue).seed(seed)), 0.5, 1.0)
}

const SHORT: &[Scenario] = &[
    at_least(0.9, "100 Mbit/s, 50 ms, queue of 0.05: share", |seed| hardly_any(seed).0),
    at_most(0.05, "lost", |seed| hardly_any(seed).1),
    at_least(0.95, "1 Gbit/s, 1 ms, queue of 0.5: share", |seed| local(0.5, seed).0),
    at_most(0.04, "lost", |seed| local(0.5, seed).1),
    at_least(0.95, "1 Gbit/s, 1 ms, queue of 2: share", |seed| local(2.0, seed).0),
    at_most(0.04, "lost", |seed| local(2.0, seed).1),
];

#[test]
fn slow_links_are_used() {
    check("slow links, a minute after 20 s: share of the link, and packets lost", SLOW);
}

fn slow(kbit: f64, rtt_ms: f64, queue_ms: f64, seed: u64) -> f64 {
    let link = Path::new(kbit / 1e3, rtt_ms).queue_ms(queue_ms).seed(seed);
    share_and_loss(&mut Model::with_flow(link), 20.0, 60.0).0
}

/// A token bucket of 16 KB, and 50 ms of queue, at a sender's own interface.
fn bucket(kbit: f64, seed: u64) -> (f64, f64) {
    let queue_ms = 50.0 + 16_000.0 * 8.0 / kbit;
    let link = Path::new(kbit / 1e3, 1.0).queue_ms(queue_ms).seed(seed);
    share_and_loss(&mut Model::with_flow(link), 20.0, 60.0)
}

const SLOW: &[Scenario] = &[
    at_least(0.9, "64 kbit/s, 50 ms, queue of 500 ms", |seed| slow(64.0, 50.0, 500.0, seed)),
    at_least(0.9, "256 kbit/s, 50 ms, queue of 300 ms", |seed| slow(256.0, 50.0, 300.0, seed)),
    at_least(0.9, "2400 kbit/s, 10 ms, queue of 50 ms", |seed| slow(2400.0, 10.0, 50.0, seed)),
    at_least(0.9, "64 kbit/s, 1 ms, token bucket of 16 KB: share", |seed| bucket(64.0, seed).0),
    at_most(0.03, "lost", |seed| bucket(64.0, seed).1),
    at_least(0.9, "256 kbit/s, 1 ms, token bucket of 16 KB: share", |seed| bucket(256.0, seed).0),
    at_most(0.03, "lost", |seed| bucket(256.0, seed).1),
];

#[test]
fn a_path_that_changes_is_followed() {
    check("a path that changes: share of the link afterwards, unless it says queue", CHANGES);
}

/// A path whose rate became another after 5 s, so long after that.
fn changed(link: Path, to_mbit: f64, after: f64) -> Model {
    let mut model = Model::with_flow(link);
    model.run(5.0);
    model.change(|path| path.rate_mbit = to_mbit);
    model.run(after);
    model
}

fn longer(from_ms: f64, to_ms: f64, after: f64, seed: u64) -> Model {
    let mut model = Model::with_flow(Path::new(100.0, from_ms).seed(seed));
    model.run(5.0);
    model.change(|path| path.rtt_ms = to_ms);
    model.run(after);
    model
}

/// Two megabits, with a queue that is short for two hundred.
fn slow_at_first(seed: u64) -> Path {
    Path::new(2.0, 50.0).queue_ms(1200.0).seed(seed)
}

fn fast_at_first(seed: u64) -> Path {
    Path::new(200.0, 50.0).seed(seed)
}

const CHANGES: &[Scenario] = &[
    at_least(0.9, "2 to 200 Mbit/s, 50 ms, after 3 s", |seed| {
        changed(slow_at_first(seed), 200.0, 3.0).utilisation(5.0)
    }),
    at_least(0.9, "200 to 2 Mbit/s, 50 ms, queue of the first's product, after 15 s", |seed| {
        changed(fast_at_first(seed), 2.0, 15.0).utilisation(10.0)
    }),
    at_most(2.5, "200 to 2 Mbit/s: 99 of 100 round trips after 20 s, in base ones", |seed| {
        changed(fast_at_first(seed), 2.0, 20.0).rtt_quantile(8.0, 0.99)
    }),
    at_least(0.9, "200 to 2 to 200 Mbit/s, 3 s after the second change", |seed| {
        let mut model = changed(fast_at_first(seed), 2.0, 8.0);
        model.change(|path| path.rate_mbit = 200.0);
        model.run(3.0);
        model.utilisation(5.0)
    }),
    at_least(0.9, "50 to 200 Mbit/s, 0.1 % loss, after 1.5 s", |seed| {
        changed(Path::new(50.0, 50.0).queue(4.0).loss(0.001).seed(seed), 200.0, 1.5).utilisation(3.0)
    }),
    at_least(0.9, "200 to 50 Mbit/s, after 3 s", |seed| {
        changed(fast_at_first(seed), 50.0, 3.0).utilisation(2.0)
    }),
    at_least(0.85, "50 to 100 ms, after 5 s", |seed| longer(50.0, 100.0, 5.0, seed).utilisation(20.0)),
    at_most(0.35, "100 to 50 ms: worst queue after the next probe, in base RTTs", |seed| {
        longer(100.0, 50.0, 15.0, seed).worst_queue(5.0)
    }),
];

#[test]
fn an_application_may_pause() {
    check("an application that sends little for a while", PAUSES);
}

const PAUSES: &[Scenario] = &[
    at_least(0.85, "nothing for 20 s, then 150 ms later: share of the link", |seed| {
        let mut model = Model::with_flow(Path::new(100.0, 50.0).loss(0.001).seed(seed));
        model.run(5.0);
        model.set_supply(0, Supply::Silent);
        model.run(20.0);
        model.set_supply(0, Supply::Endless);
        model.run(0.15);
        model.utilisation(1.0)
    }),
    between(0.7, 1.3, "a tenth of the path for 10 s: window after ÷ before", |seed| {
        let mut model = Model::with_flow(Path::new(100.0, 50.0).seed(seed));
        model.run(5.0);
        let before = model.flows[0].window_bytes() as f64;
        model.set_supply(0, Supply::Trickle(12_500));
        model.run(10.0);
        model.flows[0].window_bytes() as f64 / before
    }),
];

#[test]
fn memory_may_cap_the_window() {
    check("10 Gbit/s, 100 ms, 24 MiB in flight at most, 0.01 % loss: seconds 1 to 3", CAPPED);
}

fn capped(seed: u64) -> Model {
    let mut model = Model::new(Path::new(10_000.0, 100.0).loss(0.0001).seed(seed));
    model.add_capped(Supply::Endless, CAP_BYTES);
    model.run(1.0);
    model
}

const CAP_BYTES: u64 = 24 * 1024 * 1024;

const CAPPED: &[Scenario] = &[
    at_least(0.97, "share of what that carries", |seed| capped(seed).run(2.0)[0] * 0.1 / CAP_BYTES as f64),
    at_most(1.0, "largest window ÷ the most", |seed| {
        capped(seed).flows[0].max_window as f64 / CAP_BYTES as f64
    }),
];

#[test]
fn a_dead_path_starts_over_small() {
    let now = Instant::now();
    let mut control = Controller::new(now, MTU as u16, u64::MAX);
    let start = control.window_bytes();
    let later = now + Duration::from_millis(10);
    for _ in 0..500 {
        control.acked(now, MTU, false);
    }
    control.acks_end(later, 0);
    assert!(control.window_bytes() > start);
    control.path_died(later + Duration::from_secs(3));
    assert_eq!(control.window_bytes(), start);
}

#[test]
fn an_mtu_probe_leaves_room_for_packets() {
    let now = Instant::now();
    let mut control = Controller::new(now, MTU as u16, u64::MAX);
    for second in 1..100 {
        let at = now + Duration::from_secs(second);
        control.sent(at);
        control.marked(at, at);
    }
    assert!(control.window_bytes() > 8952 + 8 * MTU, "{}", control.window_bytes());
}
