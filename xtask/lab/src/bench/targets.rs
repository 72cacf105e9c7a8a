//! Performance targets, as ratios within one run, because absolute figures depend on the machine.

use super::contenders::{DURABLE, FIRST, SECOND, SYNC, VERIFIED};
use super::sample::{Measured, median};
use super::workload::Scenario;
use crate::machine::Kind;
use crate::programs::Program;

/// A mark to be reached, and one to be aimed at.
#[derive(Debug)]
pub(super) struct Target {
    what: String,
    /// Of each round; empty if a program that it takes is missing.
    values: Vec<f64>,
    /// What counts as good enough, and where we want to be. None where the figure is only told.
    bounds: Option<(Bound, Bound)>,
}

impl Target {
    /// At least `must`, better `aim`.
    pub(super) fn at_least(what: impl Into<String>, (must, aim): (f64, f64), values: Vec<f64>) -> Self {
        let bounds = Some((Bound::AtLeast(must), Bound::AtLeast(aim)));
        Self { what: what.into(), values, bounds }
    }

    /// At most `must`, better `aim`.
    pub(super) fn at_most(what: impl Into<String>, (must, aim): (f64, f64), values: Vec<f64>) -> Self {
        let bounds = Some((Bound::AtMost(must), Bound::AtMost(aim)));
        Self { what: what.into(), values, bounds }
    }

    /// A figure that is only told.
    pub(super) fn told(what: impl Into<String>, values: Vec<f64>) -> Self {
        Self { what: what.into(), values, bounds: None }
    }

    fn row(&self) -> Vec<String> {
        let value = (!self.values.is_empty()).then(|| median(self.values.clone()));
        let least = self.values.iter().copied().fold(f64::INFINITY, f64::min);
        let most = self.values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let mut row = vec![self.what.clone()];
        row.push(value.map_or_else(|| "something is missing".to_owned(), |value| format!("{value:.2}")));
        row.push(value.map_or_else(String::new, |_| format!("{least:.2}–{most:.2}")));
        for bound in [self.bounds.map(|(must, _)| must), self.bounds.map(|(_, aim)| aim)] {
            row.push(bound.map_or_else(String::new, Bound::text));
            row.push(match (bound, value) {
                (None, _) => String::new(),
                (Some(_), None) => "?".to_owned(),
                (Some(bound), Some(value)) if bound.holds(value) => "yes".to_owned(),
                (Some(_), Some(_)) => "NO".to_owned(),
            });
        }
        row
    }
}

/// A figure is good on one side of it.
#[derive(Clone, Copy, Debug)]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

impl Bound {
    fn holds(self, value: f64) -> bool {
        match self {
            Self::AtLeast(bound) => value >= bound,
            Self::AtMost(bound) => value <= bound,
        }
    }

    fn text(self) -> String {
        match self {
            Self::AtLeast(bound) => format!("≥ {bound}"),
            Self::AtMost(bound) => format!("≤ {bound}"),
        }
    }
}

/// The targets beside what was measured, a row each, headings first.
pub(super) fn rows(targets: &[Target]) -> Vec<Vec<String>> {
    let headings = ["target", "median", "rounds", "must", "holds", "aim", "holds"];
    std::iter::once(headings.map(str::to_owned).to_vec()).chain(targets.iter().map(Target::row)).collect()
}

/// What a scenario is judged by on a kind of machine.
pub(super) fn of(scenario: Scenario, kind: Kind, measured: &[Measured]) -> Vec<Target> {
    let [daemon, nginx, scp] = [Program::RsyncDaemon, Program::CurlHttps, Program::Scp].map(Program::name);
    let time = |of: &str, by: &str| ratios(measured, of, by, Measured::times);
    let mut targets = match scenario {
        Scenario::File => {
            let (rate, cpu) = match kind {
                Kind::A => ((0.95, 1.15), (1.0, 0.85)),
                Kind::B => ((0.9, 1.0), (1.25, 1.1)),
            };
            let cpu_to_curl = ratios(measured, VERIFIED, nginx, Measured::cpu_times);
            vec![
                Target::at_least("rate ÷ that of curl over HTTPS, verified", rate, time(nginx, VERIFIED)),
                Target::at_least("rate ÷ scp's, verified", (1.6, 2.2), time(scp, VERIFIED)),
                Target::at_most("CPU-s of both sides ÷ those of curl and nginx", cpu, cpu_to_curl),
            ]
        }
        Scenario::Small => {
            vec![Target::at_most("time ÷ rsync daemon's, verified", (0.8, 0.6), time(VERIFIED, daemon))]
        }
        Scenario::Unchanged => vec![
            Target::at_most("time of get ÷ rsync daemon's", (0.3, 0.2), time(DURABLE, daemon)),
            Target::at_most("time of sync ÷ rsync daemon's", (0.5, 0.35), time(SYNC, daemon)),
        ],
        Scenario::Edited => {
            let bytes = ratios(measured, VERIFIED, daemon, Measured::wire_counts);
            vec![
                Target::at_most("time ÷ rsync daemon's, verified", (1.0, 0.7), time(VERIFIED, daemon)),
                Target::at_most("bytes on the wire ÷ rsync daemon's", (0.5, 0.4), bytes),
            ]
        }
    };
    targets.push(peak(measured));
    targets
}

/// What the second receiver of a file is judged by.
pub(super) fn of_second(measured: &[Measured]) -> Vec<Target> {
    let ratio = |figures| ratios(measured, SECOND, FIRST, figures);
    vec![
        Target::told("time, second receiver ÷ first", ratio(Measured::times)),
        Target::told("CPU-s at the source, second receiver ÷ first", ratio(Measured::sender_times)),
        peak(measured),
    ]
}

/// For any size, so in every scenario. Of the program that is held to the targets, wherever it wrote to.
fn peak(measured: &[Measured]) -> Target {
    let ours = measured.iter().filter(|measured| {
        ["shiplane, ", "shiplane sync"].iter().any(|ours| measured.name.starts_with(ours))
    });
    let peak_bytes = ours.filter_map(Measured::peak_bytes).max();
    let values = peak_bytes.map(|bytes| bytes as f64 / f64::from(1 << 20)).into_iter().collect();
    Target::at_most("peak memory of either side, MiB", (48.0, 24.0), values)
}

/// A figure of one program by that of another, round by round. Empty if one of them has none.
fn ratios(measured: &[Measured], of: &str, by: &str, figures: fn(&Measured) -> Vec<f64>) -> Vec<f64> {
    let find =
        |name: &str| measured.iter().find(|measured| measured.name == name).map(figures).unwrap_or_default();
    find(of).into_iter().zip(find(by)).map(|(of, by)| of / by).collect()
}

#[cfg(test)]
mod tests {
    use super::super::sample::tests::program;
    use super::*;

    fn told(scenario: Scenario, measured: &[Measured], at: usize) -> String {
        rows(&of(scenario, Kind::B, measured))[at + 1][1..].join("|")
    }

    #[test]
    fn the_median_of_the_rounds_is_judged() {
        let ours = program(VERIFIED, &[1000, 1000, 1000], 300, 40 << 20);
        let scp = program(Program::Scp.name(), &[2000, 1800, 2600], 300, 1);
        let measured = [ours, scp];
        assert_eq!(told(Scenario::File, &measured, 1), "2.00|1.80–2.60|≥ 1.6|yes|≥ 2.2|NO");
        assert_eq!(told(Scenario::File, &measured, 3), "40.00|40.00–40.00|≤ 48|yes|≤ 24|NO");
        assert_eq!(told(Scenario::Small, &measured, 0), "something is missing||≤ 0.8|?|≤ 0.6|?");
    }

    #[test]
    fn a_figure_without_bounds_is_only_told() {
        let measured = [program(FIRST, &[1000], 800, 1 << 20), program(SECOND, &[700], 400, 1 << 20)];
        let rows = rows(&of_second(&measured));
        let told: Vec<_> = rows[1..3].iter().map(|row| row[1..].join("|")).collect();
        assert_eq!(told, ["0.70|0.70–0.70||||", "0.50|0.50–0.50||||"]);
    }
}
