//! Tests the controller in virtual time: scenarios with bounds.
//!
//! `cargo test -p shiplane-transport --lib congestion::scenarios -- --nocapture` runs them all and prints the tables;
//! with `--release` each runs with three seeds, and the worst counts. The scenarios marked C4 are those of
//! draft-huitema-ccwg-c4-test, with its bounds unless the name says otherwise.

mod alone;
mod c4;
mod edges;
mod sharing;

use testlink::Path;

use super::path_model::{Model, Supply};

/// What is measured, on a path with this seed for its chances, and what it must be.
struct Scenario {
    name: &'static str,
    bound: Bound,
    measure: fn(seed: u64) -> f64,
}

#[derive(Debug, Clone, Copy)]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
    Between(f64, f64),
}

const fn at_least(least: f64, name: &'static str, measure: fn(u64) -> f64) -> Scenario {
    Scenario { name, bound: Bound::AtLeast(least), measure }
}

const fn at_most(most: f64, name: &'static str, measure: fn(u64) -> f64) -> Scenario {
    Scenario { name, bound: Bound::AtMost(most), measure }
}

const fn between(least: f64, most: f64, name: &'static str, measure: fn(u64) -> f64) -> Scenario {
    Scenario { name, bound: Bound::Between(least, most), measure }
}

impl Bound {
    /// How far within the bound a value is: negative outside.
    fn margin(self, value: f64) -> f64 {
        match self {
            Self::AtLeast(least) => value - least,
            Self::AtMost(most) => most - value,
            Self::Between(least, most) => (value / least).ln().min((most / value).ln()),
        }
    }
}

impl std::fmt::Display for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::AtLeast(least) => write!(f, "≥ {least}"),
            Self::AtMost(most) => write!(f, "≤ {most}"),
            Self::Between(least, most) => write!(f, "{least} to {most}"),
        }
    }
}

/// Prints the table, then fails if the worst of the seeds is out of bounds anywhere.
fn check(title: &str, scenarios: &[Scenario]) {
    let mut table = format!("\n{title}\n");
    let mut failed = Vec::new();
    for &Scenario { name, bound, measure } in scenarios {
        let values = (1..=SEEDS).map(measure);
        let worst = values.min_by(|a, b| bound.margin(*a).total_cmp(&bound.margin(*b)));
        let worst = worst.expect("there are seeds");
        let holds = bound.margin(worst) >= 0.0;
        let mark = if holds { "" } else { "  OUT OF BOUNDS" };
        table += &format!("{name:<68} {worst:>8.3}  {bound}{mark}\n");
        if !holds {
            failed.push(name);
        }
    }
    println!("{table}");
    assert!(failed.is_empty(), "out of bounds: {failed:?}\n{table}");
}

/// Seconds until this many bytes have been acknowledged.
fn transfer(link: Path, bytes: u64) -> f64 {
    let mut model = Model::new(link);
    let flow = model.add_flow(Supply::Bytes(bytes));
    finish(&mut model, flow)
}

/// Seconds from the beginning of time until a flow has sent all that it has.
fn finish(model: &mut Model, flow: usize) -> f64 {
    while model.flows[flow].done_at.is_none() && model.now.as_secs_f64() < LONGEST_SECS {
        model.run(0.1);
    }
    model.flows[flow].done_at.map_or(f64::INFINITY, |at| at.as_secs_f64())
}

/// The first flow's share of the link and share of lost packets over this time.
fn share_and_loss(model: &mut Model, from: f64, secs: f64) -> (f64, f64) {
    model.run(from);
    let (sent, lost) = (model.flows[0].sent_packets, model.flows[0].lost_packets);
    let share = model.utilisation(secs);
    let flow = &model.flows[0];
    (share, (flow.lost_packets - lost) as f64 / (flow.sent_packets - sent) as f64)
}

/// Chances differ from seed to seed. Without optimisation one alone takes a minute.
const SEEDS: u64 = if cfg!(debug_assertions) { 1 } else { 3 };

const LONGEST_SECS: f64 = 300.0;
