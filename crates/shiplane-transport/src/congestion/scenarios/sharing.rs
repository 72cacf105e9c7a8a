//! Sharing a path with our own flows, with CUBIC and with BBR version 1.

use testlink::Path;

use super::{Scenario, at_least, at_most, between, check};
use crate::congestion::path_model::{Model, Supply};

#[derive(Debug, Clone, Copy)]
enum Other {
    Ours,
    Cubic,
    Bbr,
}
use Other::{Bbr, Cubic, Ours};

impl Other {
    fn add(self, model: &mut Model) -> usize {
        match self {
            Ours => model.add_flow(Supply::Endless),
            Cubic => model.add_cubic(),
            Bbr => model.add_bbr(),
        }
    }
}

/// Our rate ÷ the mean of `count` others that started `lead_secs` before us (after us, if negative). Measured for
/// 30 s from 5 s after the last start.
fn ratio(link: Path, other: Other, count: usize, lead_secs: f64) -> f64 {
    let mut model = Model::new(link);
    if lead_secs < 0.0 {
        model.add_flow(Supply::Endless);
        model.run(-lead_secs);
    }
    for _ in 0..count {
        other.add(&mut model);
        model.run(0.01);
    }
    if lead_secs >= 0.0 {
        model.run(lead_secs);
        model.add_flow(Supply::Endless);
    }
    model.run(5.0);
    let mut rates = model.run(30.0);
    let ours = rates.remove(if lead_secs < 0.0 { 0 } else { count });
    ours / (rates.iter().sum::<f64>() / count as f64)
}

/// The mean of four starts over 100 ms, 3 to 3.3 s later, since the moment of the start decides much.
fn mean_of_starts(rate_mbit: f64, seed: u64, measure: fn(Path, f64) -> f64) -> f64 {
    let leads_secs = [3.0, 3.1, 3.2, 3.3];
    let measured = leads_secs.map(|lead_secs| measure(Path::new(rate_mbit, 100.0).seed(seed), lead_secs));
    measured.iter().sum::<f64>() / leads_secs.len() as f64
}

fn beside_one_cubic(link: Path, lead_secs: f64) -> f64 {
    ratio(link, Cubic, 1, lead_secs)
}

/// As `cargo xtask wan` measures it: our rate ÷ the mean of the others' in 25 s from our start on.
fn from_the_start(link: Path, other: Other, count: usize, lead_secs: f64) -> f64 {
    let mut model = Model::new(link);
    for _ in 0..count {
        other.add(&mut model);
    }
    model.run(lead_secs);
    model.add_flow(Supply::Endless);
    let mut rates = model.run(25.0);
    let ours = rates.remove(count);
    ours / (rates.iter().sum::<f64>() / count as f64)
}

fn beside_bbr_from_the_start(link: Path, lead_secs: f64) -> f64 {
    from_the_start(link, Bbr, 1, lead_secs)
}

fn beside_cubic_from_the_start(link: Path, lead_secs: f64) -> f64 {
    from_the_start(link, Cubic, 1, lead_secs)
}

fn beside_cubic_near(link: Path, lead_secs: f64) -> f64 {
    let mut near = link;
    near.rtt_ms = 50.0;
    beside_cubic_from_the_start(near, lead_secs)
}

fn beside_six_from_the_start(link: Path, lead_secs: f64) -> f64 {
    from_the_start(link, Cubic, 6, lead_secs)
}

/// Our rate ÷ CUBIC's over 25 s, from this moment after our start on.
fn later_beside_cubic(link: Path, lead_secs: f64, from_secs: f64) -> f64 {
    let mut model = Model::new(link);
    model.add_cubic();
    model.run(lead_secs);
    model.add_flow(Supply::Endless);
    model.run(from_secs);
    let rates = model.run(25.0);
    rates[1] / rates[0]
}

/// Our rate ÷ that of a CUBIC that came later, 30 to 60 s after it, in the worst of three starts.
fn worst_beside_a_later_cubic(link: Path) -> f64 {
    let ratios = [10.39, 10.65, 11.0].map(|lead_secs| {
        let mut model = Model::with_flow(link.clone());
        model.run(lead_secs);
        model.add_cubic();
        model.run(30.0);
        let rates = model.run(30.0);
        rates[0] / rates[1]
    });
    ratios.into_iter().fold(f64::INFINITY, f64::min)
}

/// Where all of CUBIC's slow start fits into the queue.
fn behind_a_long_queue(link: Path, lead_secs: f64) -> f64 {
    let mut near = link;
    near.rtt_ms = 50.0;
    ratio(near.queue(3.0), Cubic, 1, lead_secs)
}

/// Nine of ten round trips of two flows of ours, 10 s after the second came.
fn two_of_ours(link: Path, lead_secs: f64) -> f64 {
    let mut model = Model::with_flow(link);
    model.run(7.0 + lead_secs);
    model.add_flow(Supply::Endless);
    model.run(10.0);
    model.rtt_quantile(20.0, 0.9)
}

/// Ours ÷ the mean of six CUBICs that join, 45 s later; the mean of three starts.
fn six_join(link: Path) -> f64 {
    let ratios = [10.0, 10.2, 10.4].map(|lead_secs| {
        let mut model = Model::with_flow(link.clone());
        model.run(lead_secs);
        for _ in 0..6 {
            model.add_cubic();
            model.run(0.01);
        }
        model.run(45.0);
        let rates = model.run(30.0);
        rates[0] / (rates[1..].iter().sum::<f64>() / 6.0)
    });
    ratios.iter().sum::<f64>() / ratios.len() as f64
}

fn near(seed: u64) -> Path {
    Path::new(100.0, 50.0).seed(seed)
}

fn far(seed: u64) -> Path {
    Path::new(50.0, 100.0).seed(seed)
}

#[test]
fn flows_of_ours_share_evenly() {
    check("ours beside ours: the last to come ÷ the mean of the others", OURS);
}

const OURS: &[Scenario] = &[
    between(0.7, 1.4, "100 Mbit/s, 50 ms, together", |seed| ratio(near(seed), Ours, 1, 0.0)),
    between(0.7, 1.4, "10 s apart", |seed| ratio(near(seed), Ours, 1, 10.0)),
    between(0.7, 1.4, "10 s apart, 1 % loss", |seed| ratio(near(seed).loss(0.01), Ours, 1, 10.0)),
    between(0.7, 1.4, "50 Mbit/s, 100 ms, 10 s apart", |seed| ratio(far(seed), Ours, 1, 10.0)),
    between(0.7, 1.4, "20 Mbit/s, 20 ms, 10 s apart", |seed| {
        ratio(Path::new(20.0, 20.0).seed(seed), Ours, 1, 10.0)
    }),
    between(0.5, 2.0, "100 Mbit/s, 50 ms, one beside four, 10 s later", |seed| {
        ratio(near(seed), Ours, 4, 10.0)
    }),
    at_most(1.6, "two, 99 of 100 round trips, in base ones", |seed| {
        let mut model = Model::with_flow(near(seed));
        model.run(10.0);
        model.add_flow(Supply::Endless);
        model.run(10.0);
        model.rtt_quantile(20.0, 0.99)
    }),
    at_most(1.7, "100 Mbit/s, 100 ms, 90 of 100, the mean of four starts", |seed| {
        mean_of_starts(100.0, seed, two_of_ours)
    }),
    at_most(1.7, "the same at 50 Mbit/s", |seed| mean_of_starts(50.0, seed, two_of_ours)),
];

#[test]
fn beside_cubic_the_shares_are_fair() {
    check("ours ÷ TCP CUBIC's, or the mean of several", CUBIC);
}

const CUBIC: &[Scenario] = &[
    between(0.7, 1.5, "200 Mbit/s, 50 ms, CUBIC 3 s earlier", |seed| {
        ratio(Path::new(200.0, 50.0).seed(seed), Cubic, 1, 3.0)
    }),
    between(0.7, 1.5, "100 Mbit/s, 100 ms, CUBIC 3 s earlier", |seed| {
        ratio(Path::new(100.0, 100.0).seed(seed), Cubic, 1, 3.0)
    }),
    between(0.6, 1.5, "the mean of four starts, 3 to 3.3 s later", |seed| {
        mean_of_starts(100.0, seed, beside_one_cubic)
    }),
    between(0.6, 1.5, "the same at 50 Mbit/s", |seed| mean_of_starts(50.0, seed, beside_one_cubic)),
    between(0.5, 2.0, "the same at 100 Mbit/s, 25 s from the start on", |seed| {
        mean_of_starts(100.0, seed, beside_cubic_from_the_start)
    }),
    between(0.5, 2.0, "the same at 50 Mbit/s, 25 s from the start on", |seed| {
        mean_of_starts(50.0, seed, beside_cubic_from_the_start)
    }),
    between(0.5, 2.0, "200 Mbit/s, 50 ms, 25 s from the start on, the mean of four", |seed| {
        mean_of_starts(200.0, seed, beside_cubic_near)
    }),
    between(0.5, 2.0, "300 Mbit/s, 50 ms, CUBIC 9.75 s earlier, 25 s from second 15 on", |seed| {
        later_beside_cubic(Path::new(300.0, 50.0).seed(seed), 9.75, 15.0)
    }),
    between(0.5, 2.0, "100 Mbit/s, 50 ms, CUBIC 14.4 s earlier, 25 s from the start on", |seed| {
        later_beside_cubic(near(seed), 14.4, 0.0)
    }),
    between(0.5, 2.0, "200 Mbit/s, 50 ms, CUBIC 10 to 11 s later, 30 s later, the worst of three", |seed| {
        worst_beside_a_later_cubic(Path::new(200.0, 50.0).seed(seed))
    }),
    between(0.5, 2.0, "the same at 100 Mbit/s", |seed| worst_beside_a_later_cubic(near(seed))),
    at_most(2.5, "six of CUBIC there, 100 Mbit/s, 25 s from the start on", |seed| {
        mean_of_starts(100.0, seed, beside_six_from_the_start)
    }),
    between(0.5, 2.0, "100 Mbit/s, 50 ms, CUBIC 3 s earlier", |seed| ratio(near(seed), Cubic, 1, 3.0)),
    between(0.5, 2.0, "CUBIC 10 s earlier", |seed| ratio(near(seed), Cubic, 1, 10.0)),
    between(0.5, 2.0, "CUBIC 10 s later", |seed| ratio(near(seed), Cubic, 1, -10.0)),
    between(0.5, 2.0, "50 Mbit/s, 100 ms, CUBIC 3 s earlier", |seed| ratio(far(seed), Cubic, 1, 3.0)),
    between(0.5, 2.0, "CUBIC 10 s later", |seed| ratio(far(seed), Cubic, 1, -10.0)),
    between(0.5, 2.0, "100 Mbit/s, 50 ms, queue of 3 products, the mean of four starts", |seed| {
        mean_of_starts(100.0, seed, behind_a_long_queue)
    }),
    between(0.4, 2.5, "two of CUBIC, 3 s earlier", |seed| ratio(near(seed), Cubic, 2, 3.0)),
    between(0.4, 2.5, "six of CUBIC, 3 s earlier", |seed| ratio(near(seed), Cubic, 6, 3.0)),
    between(0.4, 2.5, "six of CUBIC, 10 s later", |seed| ratio(near(seed), Cubic, 6, -10.0)),
    at_most(2.5, "six join, 50 Mbit/s and 100 ms: 45 s later, the mean of three", |seed| six_join(far(seed))),
    at_most(2.5, "the same at 100 Mbit/s", |seed| six_join(Path::new(100.0, 100.0).seed(seed))),
    at_most(0.45, "CUBIC has gone for 10 s: worst queue, in base RTTs", |seed| {
        let mut model = Model::with_flow(near(seed));
        let cubic = model.add_cubic();
        model.run(20.0);
        model.set_supply(cubic, Supply::Silent);
        model.run(10.0);
        model.worst_queue(10.0)
    }),
];

#[test]
fn beside_bbr_there_is_a_share() {
    check("ours ÷ that of BBR's first version", BBR);
}

const BBR: &[Scenario] = &[
    at_least(0.3, "100 Mbit/s, 50 ms, BBR 3 s earlier", |seed| ratio(near(seed), Bbr, 1, 3.0)),
    at_least(0.3, "BBR 10 s later", |seed| ratio(near(seed), Bbr, 1, -10.0)),
    at_least(0.3, "50 Mbit/s, 100 ms, BBR 3 s earlier", |seed| ratio(far(seed), Bbr, 1, 3.0)),
    at_least(0.3, "200 Mbit/s, 50 ms, BBR 3 s earlier", |seed| {
        ratio(Path::new(200.0, 50.0).seed(seed), Bbr, 1, 3.0)
    }),
    at_least(0.3, "100 Mbit/s, 100 ms, BBR 3 s earlier", |seed| {
        ratio(Path::new(100.0, 100.0).seed(seed), Bbr, 1, 3.0)
    }),
    at_least(0.3, "the mean of four starts, 25 s from the start on", |seed| {
        mean_of_starts(100.0, seed, beside_bbr_from_the_start)
    }),
    at_least(0.3, "100 Mbit/s, 50 ms, queue of 3 products, BBR 3 s earlier", |seed| {
        ratio(near(seed).queue(3.0), Bbr, 1, 3.0)
    }),
    at_most(0.3, "(CUBIC ÷ BBR there, with a queue of one)", |seed| {
        let mut model = Model::new(near(seed));
        model.add_bbr();
        model.run(3.0);
        model.add_cubic();
        model.run(5.0);
        let rates = model.run(30.0);
        rates[1] / rates[0]
    }),
];
