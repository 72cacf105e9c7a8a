//! Sharing a path, in virtual time: with others of ours, with TCP's CUBIC and with the first version of BBR.

use super::{
    path_link::Link,
    path_model::{Model, Supply},
    scenarios::{
        Bound::{AtLeast, AtMost, Between},
        Scenario, check, finish,
    },
};

#[derive(Debug, Clone, Copy, PartialEq)]
enum Other {
    Ours,
    Cubic,
    Bbr,
}

fn add(model: &mut Model, other: Other) -> usize {
    match other {
        Other::Ours => model.add_flow(Supply::Endless),
        Other::Cubic => model.add_cubic(),
        Other::Bbr => model.add_bbr(),
    }
}

/// Our rate ÷ the mean of so many others', who started so long before us, in so many seconds from 5 s after
/// our start on.
fn ratio(link: Link, other: Other, count: usize, lead_secs: f64, secs: f64) -> f64 {
    let mut model = Model::new(link);
    if lead_secs < 0.0 {
        model.add_flow(Supply::Endless);
        model.run(-lead_secs);
    }
    for _ in 0..count {
        add(&mut model, other);
        model.run(0.01);
    }
    if lead_secs >= 0.0 {
        model.run(lead_secs);
        model.add_flow(Supply::Endless);
    }
    model.run(5.0);
    let mut rates = model.run(secs);
    let ours = rates.remove(if lead_secs < 0.0 { 0 } else { count });
    ours / (rates.iter().sum::<f64>() / count as f64)
}

/// Seconds until `bytes` of ours have arrived beside a flow that starts `lag_secs` later (earlier if negative).
fn beside(link: Link, other: Other, bytes: u64, lag_secs: f64) -> f64 {
    let mut model = Model::new(link);
    if lag_secs < 0.0 {
        add(&mut model, other);
        model.run(-lag_secs);
    }
    let flow = model.add_flow(Supply::Bytes(bytes));
    if lag_secs >= 0.0 {
        model.run(lag_secs);
        add(&mut model, other);
    }
    finish(&mut model, flow, 0.0)
}

fn lan(seed: u64) -> Link {
    Link::new(100.0, 50.0).seed(seed)
}

fn far(seed: u64) -> Link {
    Link::new(50.0, 100.0).seed(seed)
}

#[test]
fn two_of_ours_share_evenly() {
    check(
        "ours beside ours: the later one ÷ the earlier one",
        &[
            Scenario { name: "100 Mbit/s, 50 ms, together", bound: Between(0.7, 1.43), measure: |seed| ratio(lan(seed), Other::Ours, 1, 0.0, 30.0) },
            Scenario { name: "10 s apart", bound: Between(0.7, 1.43), measure: |seed| ratio(lan(seed), Other::Ours, 1, 10.0, 30.0) },
            Scenario { name: "10 s apart, 1 % loss", bound: Between(0.7, 1.43), measure: |seed| ratio(lan(seed).loss(0.01), Other::Ours, 1, 10.0, 30.0) },
            Scenario { name: "50 Mbit/s, 100 ms, 10 s apart", bound: Between(0.7, 1.43), measure: |seed| ratio(far(seed), Other::Ours, 1, 10.0, 30.0) },
            Scenario { name: "20 Mbit/s, 20 ms, 10 s apart", bound: Between(0.7, 1.43), measure: |seed| ratio(Link::new(20.0, 20.0).seed(seed), Other::Ours, 1, 10.0, 30.0) },
            Scenario { name: "one beside four, 10 s later", bound: Between(0.5, 2.0), measure: |seed| ratio(lan(seed), Other::Ours, 4, 10.0, 30.0) },
            Scenario { name: "the queue of two, 99 of 100 round trips", bound: AtMost(1.6), measure: |seed| {
                let mut model = Model::with_flow(lan(seed));
                model.run(10.0);
                model.add_flow(Supply::Endless);
                model.run(10.0);
                model.rtt_quantile(20.0, 0.99)
            } },
        ],
    );
}

#[test]
fn beside_cubic_the_shares_are_fair() {
    check(
        "ours ÷ TCP CUBIC's (the mean of several)",
        &[
            Scenario { name: "100 Mbit/s, 50 ms, CUBIC 3 s earlier", bound: Between(0.5, 2.0), measure: |seed| ratio(lan(seed), Other::Cubic, 1, 3.0, 30.0) },
            Scenario { name: "CUBIC 10 s earlier", bound: Between(0.5, 2.0), measure: |seed| ratio(lan(seed), Other::Cubic, 1, 10.0, 30.0) },
            Scenario { name: "CUBIC 10 s later", bound: Between(0.5, 2.0), measure: |seed| ratio(lan(seed), Other::Cubic, 1, -10.0, 30.0) },
            Scenario { name: "50 Mbit/s, 100 ms, CUBIC 3 s earlier", bound: Between(0.5, 2.0), measure: |seed| ratio(far(seed), Other::Cubic, 1, 3.0, 30.0) },
            Scenario { name: "CUBIC 10 s later", bound: Between(0.5, 2.0), measure: |seed| ratio(far(seed), Other::Cubic, 1, -10.0, 30.0) },
            Scenario { name: "queue of 3 products, CUBIC 3 s earlier", bound: Between(0.5, 2.0), measure: |seed| ratio(lan(seed).queue(3.0), Other::Cubic, 1, 3.0, 30.0) },
            Scenario { name: "two of CUBIC, 3 s earlier", bound: Between(0.4, 2.5), measure: |seed| ratio(lan(seed), Other::Cubic, 2, 3.0, 30.0) },
            Scenario { name: "six of CUBIC, 3 s earlier", bound: Between(0.3, 2.5), measure: |seed| ratio(lan(seed), Other::Cubic, 6, 3.0, 30.0) },
            Scenario { name: "six of CUBIC, 10 s later", bound: Between(0.3, 2.5), measure: |seed| ratio(lan(seed), Other::Cubic, 6, -10.0, 30.0) },
            Scenario { name: "CUBIC has gone for 10 s: worst queue", bound: AtMost(0.45), measure: |seed| {
                let mut model = Model::with_flow(lan(seed));
                let cubic = model.add_cubic();
                model.run(20.0);
                model.set_supply(cubic, Supply::Silent);
                model.run(10.0);
                model.worst_queue(10.0)
            } },
        ],
    );
}

#[test]
fn beside_bbr_there_is_a_share() {
    check(
        "ours ÷ that of BBR's first version",
        &[
            Scenario { name: "100 Mbit/s, 50 ms, BBR 3 s earlier", bound: AtLeast(0.3), measure: |seed| ratio(lan(seed), Other::Bbr, 1, 3.0, 30.0) },
            Scenario { name: "BBR 10 s later", bound: AtLeast(0.3), measure: |seed| ratio(lan(seed), Other::Bbr, 1, -10.0, 30.0) },
            Scenario { name: "50 Mbit/s, 100 ms, BBR 3 s earlier", bound: AtLeast(0.3), measure: |seed| ratio(far(seed), Other::Bbr, 1, 3.0, 30.0) },
            Scenario { name: "queue of 3 products, BBR 3 s earlier", bound: AtLeast(0.3), measure: |seed| ratio(lan(seed).queue(3.0), Other::Bbr, 1, 3.0, 30.0) },
            Scenario { name: "CUBIC ÷ BBR, for comparison", bound: AtLeast(0.0), measure: |seed| {
                let mut model = Model::new(lan(seed));
                model.add_bbr();
                model.run(3.0);
                model.add_cubic();
                model.run(5.0);
                let rates = model.run(30.0);
                rates[1] / rates[0]
            } },
        ],
    );
}

#[test]
fn the_scenarios_of_c4_with_company_end_in_time() {
    fn home(seed: u64) -> Link {
        Link::new(20.0, 80.0).seed(seed)
    }
    fn slow(seed: u64) -> Link {
        Link::new(10.0, 70.0).queue_ms(80.0).seed(seed)
    }
    fn bad_wifi(seed: u64) -> Link {
        Link::new(10.0, 2.0).queue_ms(250.0).wifi_jitter(7.0).seed(seed)
    }
    check(
        "C4, with company: seconds to the end",
        &[
            Scenario { name: "C4 20 Mbit/s, 80 ms, 5 MB beside ours", bound: AtMost(6.7), measure: |seed| beside(home(seed), Other::Ours, 5_000_000, 0.0) },
            Scenario { name: "C4 ours 0.5 s earlier", bound: AtMost(8.15), measure: |seed| beside(home(seed), Other::Ours, 5_000_000, -0.5) },
            Scenario { name: "C4 50 Mbit/s, 30 ms, 10 MB, ours 0.5 s later", bound: AtMost(4.1), measure: |seed| beside(Link::new(50.0, 30.0).queue_ms(80.0).seed(seed), Other::Ours, 10_000_000, 0.5) },
            Scenario { name: "C4 20 MB beside ours", bound: AtMost(22.8), measure: |seed| beside(home(seed), Other::Ours, 20_000_000, 0.0) },
            Scenario { name: "C4 10 Mbit/s, 70 ms, 10 MB, ours 1 s later", bound: AtMost(22.2), measure: |seed| beside(slow(seed), Other::Ours, 10_000_000, 1.0) },
            Scenario { name: "C4 bad Wi-Fi, 4 MB, ours 1 s earlier", bound: AtMost(13.0), measure: |seed| beside(bad_wifi(seed), Other::Ours, 4_000_000, -1.0) },
            Scenario { name: "C4 20 Mbit/s, 80 ms, 5 MB beside CUBIC", bound: AtMost(6.7), measure: |seed| beside(home(seed), Other::Cubic, 5_000_000, 0.0) },
            Scenario { name: "C4 20 MB beside CUBIC", bound: AtMost(22.2), measure: |seed| beside(home(seed), Other::Cubic, 20_000_000, 0.0) },
            Scenario { name: "C4 10 Mbit/s, 70 ms, 10 MB, CUBIC 1 s later", bound: AtMost(22.0), measure: |seed| beside(slow(seed), Other::Cubic, 10_000_000, 1.0) },
            Scenario { name: "C4 bad Wi-Fi, 4 MB, CUBIC 1 s earlier", bound: AtMost(13.0), measure: |seed| beside(bad_wifi(seed), Other::Cubic, 4_000_000, -1.0) },
            Scenario { name: "C4 20 Mbit/s, 80 ms, 5 MB beside BBR", bound: AtMost(6.7), measure: |seed| beside(home(seed), Other::Bbr, 5_000_000, 0.0) },
            Scenario { name: "C4 20 MB beside BBR", bound: AtMost(23.0), measure: |seed| beside(home(seed), Other::Bbr, 20_000_000, 0.0) },
            Scenario { name: "C4 10 Mbit/s, 70 ms, 10 MB, BBR 1 s later", bound: AtMost(23.0), measure: |seed| beside(slow(seed), Other::Bbr, 10_000_000, 1.0) },
            Scenario { name: "C4 bad Wi-Fi, 4 MB, BBR 1 s earlier", bound: AtMost(13.5), measure: |seed| beside(bad_wifi(seed), Other::Bbr, 4_000_000, -1.0) },
        ],
    );
}
