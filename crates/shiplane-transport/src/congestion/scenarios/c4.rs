//! The scenarios of draft-huitema-ccwg-c4-test without media.

use testlink::Path;

use super::{Scenario, at_most, check, finish, transfer};
use crate::congestion::path_model::{Model, Supply};

#[test]
fn those_alone_end_in_time() {
    check("C4, alone: seconds to the end", ALONE);
}

/// This number of bytes over a path whose rate changes at these seconds.
fn changing(link: Path, bytes: u64, changes: &[(f64, f64)]) -> f64 {
    let mut model = Model::new(link);
    let flow = model.add_flow(Supply::Bytes(bytes));
    for &(at, mbit) in changes {
        model.run(at - model.now.as_secs_f64());
        model.change(|path| path.rate_mbit = mbit);
    }
    finish(&mut model, flow)
}

fn ten_megabits(seed: u64) -> Path {
    Path::new(10.0, 100.0).queue_ms(80.0).seed(seed)
}

fn bad_wifi(seed: u64) -> Path {
    Path::new(10.0, 2.0).queue_ms(250.0).wifi_jitter(7.0).seed(seed)
}

const ALONE: &[Scenario] = &[
    at_most(5.0, "20 Mbit/s, 80 ms, 10 MB", |seed| transfer(home(seed), 10_000_000)),
    at_most(1.25, "200 Mbit/s, 40 ms, 20 MB", |seed| {
        transfer(Path::new(200.0, 40.0).queue_ms(80.0).seed(seed), 20_000_000)
    }),
    at_most(7.4, "satellite, 250 Mbit/s, 600 ms, 100 MB (without its resumed window)", |seed| {
        transfer(Path::new(250.0, 600.0).seed(seed), 100_000_000)
    }),
    at_most(7.9, "low and up: 5 to 10 Mbit/s after 2.5 s, 7 MB", |seed| {
        changing(ten_megabits(seed), 7_000_000, &[(0.0, 5.0), (2.5, 10.0)])
    }),
    at_most(8.15, "drop and back: 10 to 5 Mbit/s for 2 s, 7 MB", |seed| {
        changing(ten_megabits(seed), 7_000_000, &[(1.5, 5.0), (3.5, 10.0)])
    }),
    at_most(6.1, "black hole of 2 s, 25 Mbit/s, 70 ms, 10 MB", |seed| {
        transfer(Path::new(25.0, 70.0).queue_ms(80.0).seed(seed).frozen(2000.0, 4000.0), 10_000_000)
    }),
    at_most(22.0, "short to long: 30 to 200 ms, 10 Mbit/s, 20 MB", |seed| {
        let mut model = Model::new(Path::new(10.0, 30.0).queue_ms(100.0).seed(seed));
        let flow = model.add_flow(Supply::Bytes(20_000_000));
        model.run(1.0);
        model.change(|path| *path = Path::new(10.0, 200.0).seed(seed));
        finish(&mut model, flow)
    }),
    at_most(4.3, "bad Wi-Fi: 10 Mbit/s, 2 ms, jitter of 7 ms, 4 MB", |seed| {
        transfer(bad_wifi(seed), 4_000_000)
    }),
    at_most(6.2, "Wi-Fi fade: 20 to 2 Mbit/s for 2 s, 80 ms, 10 MB", wifi_fade),
    at_most(5.4, "Wi-Fi suspension: 20 Mbit/s, 10 ms, 200 ms of every 2 s, 10 MB", wifi_suspension),
];

fn wifi_fade(seed: u64) -> f64 {
    let mut model = Model::new(home(seed).wifi_jitter(1.0));
    let flow = model.add_flow(Supply::Bytes(10_000_000));
    for (secs, mbit, jitter_ms) in [(1.0, 2.0, 12.0), (2.0, 20.0, 1.0)] {
        model.run(secs);
        model.change(|path| {
            *path = home(seed).wifi_jitter(jitter_ms);
            path.rate_mbit = mbit;
        });
    }
    finish(&mut model, flow)
}

fn wifi_suspension(seed: u64) -> f64 {
    let link = Path::new(20.0, 10.0).queue_ms(20.0).seed(seed);
    let ends_ms = (1..50).map(|period| f64::from(period) * 2000.0);
    transfer(ends_ms.fold(link, |link, end_ms| link.frozen(end_ms - 200.0, end_ms)), 10_000_000)
}

#[test]
fn those_with_company_end_in_time() {
    check("C4, with company: seconds to the end", WITH_COMPANY);
}

/// Seconds until `bytes` of ours have arrived beside a flow that starts `lag_secs` later (earlier if negative).
fn beside(add: fn(&mut Model) -> usize, link: Path, bytes: u64, lag_secs: f64) -> f64 {
    let mut model = Model::new(link);
    if lag_secs < 0.0 {
        add(&mut model);
        model.run(-lag_secs);
    }
    let flow = model.add_flow(Supply::Bytes(bytes));
    if lag_secs >= 0.0 {
        model.run(lag_secs);
        add(&mut model);
    }
    finish(&mut model, flow)
}

fn beside_ours(link: Path, bytes: u64, lag_secs: f64) -> f64 {
    beside(|model| model.add_flow(Supply::Endless), link, bytes, lag_secs)
}

fn beside_cubic(link: Path, bytes: u64, lag_secs: f64) -> f64 {
    beside(Model::add_cubic, link, bytes, lag_secs)
}

fn beside_bbr(link: Path, bytes: u64, lag_secs: f64) -> f64 {
    beside(Model::add_bbr, link, bytes, lag_secs)
}

fn home(seed: u64) -> Path {
    Path::new(20.0, 80.0).seed(seed)
}

fn slow(seed: u64) -> Path {
    Path::new(10.0, 70.0).queue_ms(80.0).seed(seed)
}

const WITH_COMPANY: &[Scenario] = &[
    at_most(6.7, "20 Mbit/s, 80 ms, 5 MB beside ours", |seed| beside_ours(home(seed), 5_000_000, 0.0)),
    at_most(8.15, "ours 0.5 s earlier", |seed| beside_ours(home(seed), 5_000_000, -0.5)),
    at_most(4.1, "50 Mbit/s, 30 ms, 10 MB, ours 0.5 s later", |seed| {
        beside_ours(Path::new(50.0, 30.0).queue_ms(80.0).seed(seed), 10_000_000, 0.5)
    }),
    at_most(22.8, "20 MB beside ours", |seed| beside_ours(home(seed), 20_000_000, 0.0)),
    at_most(22.2, "10 Mbit/s, 70 ms, 10 MB, ours 1 s later", |seed| beside_ours(slow(seed), 10_000_000, 1.0)),
    at_most(13.0, "bad Wi-Fi, 4 MB, ours 1 s earlier", |seed| beside_ours(bad_wifi(seed), 4_000_000, -1.0)),
    at_most(6.7, "20 Mbit/s, 80 ms, 5 MB beside CUBIC", |seed| beside_cubic(home(seed), 5_000_000, 0.0)),
    at_most(22.2, "20 MB beside CUBIC", |seed| beside_cubic(home(seed), 20_000_000, 0.0)),
    at_most(22.0, "10 Mbit/s, 70 ms, 10 MB, CUBIC 1 s later", |seed| {
        beside_cubic(slow(seed), 10_000_000, 1.0)
    }),
    at_most(13.0, "bad Wi-Fi, 4 MB, CUBIC 1 s earlier", |seed| beside_cubic(bad_wifi(seed), 4_000_000, -1.0)),
    at_most(9.0, "20 Mbit/s, 80 ms, 5 MB beside BBR (C4: 6.7)", |seed| {
        beside_bbr(home(seed), 5_000_000, 0.0)
    }),
    at_most(30.0, "20 MB beside BBR (C4: 23)", |seed| beside_bbr(home(seed), 20_000_000, 0.0)),
    at_most(26.0, "10 Mbit/s, 70 ms, 10 MB, BBR 1 s later (C4: 23)", |seed| {
        beside_bbr(slow(seed), 10_000_000, 1.0)
    }),
    at_most(13.5, "bad Wi-Fi, 4 MB, BBR 1 s earlier", |seed| beside_bbr(bad_wifi(seed), 4_000_000, -1.0)),
];
