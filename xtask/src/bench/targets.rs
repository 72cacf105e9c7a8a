//! What we hold ourselves to: ratios within one run, for absolute numbers drift from machine to machine.

use super::contenders::{DAEMON, DURABLE, NGINX, RAW, SCP, SYNC, VERIFIED};
use super::course::Scenario;
use super::sample::Measured;

/// A mark to be reached, and one to be aimed at.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) what: &'static str,
    /// What counts as good enough.
    must: Bound,
    /// Where we want to be.
    aim: Bound,
    /// None if somebody that it takes is missing.
    value: fn(&[Measured]) -> Option<f64>,
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

/// The targets of a scenario beside what was measured, a row each, headings first.
pub(super) fn rows(scenario: Scenario, measured: &[Measured]) -> Vec<Vec<String>> {
    let mut rows = vec![["target", "measured", "must", "holds", "aim", "holds"].map(str::to_owned).to_vec()];
    for target in of(scenario).iter().chain([&PEAK]) {
        let value = (target.value)(measured);
        let holds = |bound: Bound| match value {
            Some(value) if bound.holds(value) => "yes".to_owned(),
            Some(_) => "NO".to_owned(),
            None => "?".to_owned(),
        };
        rows.push(vec![
            target.what.to_owned(),
            value.map_or_else(|| "somebody is missing".to_owned(), |value| format!("{value:.2}")),
            target.must.text(),
            holds(target.must),
            target.aim.text(),
            holds(target.aim),
        ]);
    }
    rows
}

fn of(scenario: Scenario) -> &'static [Target] {
    match scenario {
        Scenario::File => &FILE,
        Scenario::Small => &SMALL,
        Scenario::Unchanged => &UNCHANGED,
        Scenario::Edited => &EDITED,
    }
}

const FILE: [Target; 4] = [
    Target {
        what: "rate ÷ scp's, verified",
        must: Bound::AtLeast(1.5),
        aim: Bound::AtLeast(2.2),
        value: |measured| ratio(measured, SCP, VERIFIED, Measured::seconds),
    },
    Target {
        what: "rate ÷ that of curl over HTTPS, verified",
        must: Bound::AtLeast(0.75),
        aim: Bound::AtLeast(1.1),
        value: |measured| ratio(measured, NGINX, VERIFIED, Measured::seconds),
    },
    Target {
        what: "rate ÷ raw quinn's, verified",
        must: Bound::AtLeast(0.6),
        aim: Bound::AtLeast(0.9),
        value: |measured| ratio(measured, RAW, VERIFIED, Measured::seconds),
    },
    Target {
        what: "CPU-s ÷ those of octopii's lane, by way of scp's",
        must: Bound::AtMost(0.5),
        aim: Bound::AtMost(0.35),
        value: |measured| {
            let to_scp = ratio(measured, VERIFIED, SCP, Measured::cpu_seconds)?;
            Some(to_scp / OCTOPII_CPU_TO_SCP)
        },
    },
];

const SMALL: [Target; 1] = [Target {
    what: "time ÷ rsync daemon's, verified",
    must: Bound::AtMost(1.5),
    aim: Bound::AtMost(0.8),
    value: |measured| ratio(measured, VERIFIED, DAEMON, Measured::seconds),
}];

const UNCHANGED: [Target; 2] = [
    Target {
        what: "time of get ÷ rsync daemon's",
        must: Bound::AtMost(1.0),
        aim: Bound::AtMost(0.5),
        value: |measured| ratio(measured, DURABLE, DAEMON, Measured::seconds),
    },
    Target {
        what: "time of sync ÷ rsync daemon's",
        must: Bound::AtMost(1.0),
        aim: Bound::AtMost(0.5),
        value: |measured| ratio(measured, SYNC, DAEMON, Measured::seconds),
    },
];

const EDITED: [Target; 1] = [Target {
    what: "bytes on the wire ÷ rsync daemon's",
    must: Bound::AtMost(1.0),
    aim: Bound::AtMost(0.5),
    value: |measured| {
        let (ours, theirs) = (find(measured, VERIFIED)?, find(measured, DAEMON)?);
        Some(ours.wire_bytes()? / theirs.wire_bytes()?)
    },
}];

/// For any size, so in every scenario.
const PEAK: Target = Target {
    what: "peak memory of either side, MiB",
    must: Bound::AtMost(64.0),
    aim: Bound::AtMost(32.0),
    value: |measured| {
        let ours = measured.iter().filter(|measured| [VERIFIED, DURABLE, SYNC].contains(&measured.name));
        let peak_bytes = ours.filter_map(Measured::peak_bytes).max()?;
        Some(peak_bytes as f64 / f64::from(1 << 20))
    },
};

/// The lane of octopii took 4.51 CPU-seconds for a GB where scp took 3.02, in one run. It is no program
/// that could be installed, so scp stands in for it.
const OCTOPII_CPU_TO_SCP: f64 = 4.51 / 3.02;

/// A figure of one program by that of another.
fn ratio(measured: &[Measured], of: &str, by: &str, figure: fn(&Measured) -> f64) -> Option<f64> {
    Some(figure(find(measured, of)?) / figure(find(measured, by)?))
}

fn find<'a>(measured: &'a [Measured], name: &str) -> Option<&'a Measured> {
    measured.iter().find(|measured| measured.name == name)
}

#[cfg(test)]
mod tests {
    use super::super::sample::tests::{apart, program};
    use super::*;

    fn row(scenario: Scenario, measured: &[Measured], at: usize) -> Vec<String> {
        rows(scenario, measured)[at + 1].clone()
    }

    #[test]
    fn twice_as_fast_as_scp_is_good_enough_and_not_yet_the_aim() {
        let used = apart(300, 300, 40 << 20);
        let measured = [program(VERIFIED, &[1000], used), program(SCP, &[2000], used)];
        let told = row(Scenario::File, &measured, 0);
        assert_eq!(told[1..], ["2.00", "≥ 1.5", "yes", "≥ 2.2", "NO"].map(str::to_owned));
        // As much CPU as scp is two thirds of octopii's.
        assert_eq!(row(Scenario::File, &measured, 3)[1..4], ["0.67", "≤ 0.5", "NO"].map(str::to_owned));
        assert_eq!(row(Scenario::File, &measured, 4)[1..], ["40.00", "≤ 64", "yes", "≤ 32", "NO"]);
    }

    #[test]
    fn a_ratio_to_nobody_is_not_known() {
        let measured = [program(VERIFIED, &[1000], apart(1, 1, 1))];
        let told = row(Scenario::Small, &measured, 0);
        assert_eq!((told[1].as_str(), told[3].as_str()), ("somebody is missing", "?"));
    }

    #[test]
    fn an_edited_file_is_judged_by_bytes() {
        let mut measured = [program(VERIFIED, &[1], apart(1, 1, 1)), program(DAEMON, &[9], apart(1, 1, 1))];
        measured[0].samples[0].wire_bytes = Some(400_000);
        assert_eq!(row(Scenario::Edited, &measured, 0)[1..4], ["0.40", "≤ 1", "yes"].map(str::to_owned));
    }
}
