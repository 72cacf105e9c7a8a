//! The table of a comparison: one row per program.

use super::sample::{Measured, Used};
use super::workload::Scenario;
use crate::units;

/// A row each, headings first; `bytes` is what each run carried.
pub(super) fn rows(scenario: Scenario, measured: &[Measured], bytes: u64) -> Vec<Vec<String>> {
    // Where nothing has to be carried, there is no rate.
    let gigabytes = match scenario {
        Scenario::Unchanged => None,
        Scenario::File | Scenario::Small | Scenario::Edited => Some(bytes as f64 / 1e9),
    };
    let cpu = if gigabytes.is_some() { "CPU-s/GB" } else { "CPU-s" };
    let mut headings = vec!["", "time", "runs"];
    headings.extend(gigabytes.map(|_| "GB/s"));
    headings.extend([cpu, "sending", "receiving", "peak sending", "receiving", "on the wire", "checks"]);
    let mut rows = vec![headings.into_iter().map(str::to_owned).collect()];
    rows.extend(measured.iter().map(|program| row(program, gigabytes)));
    rows
}

fn row(program: &Measured, gigabytes: Option<f64>) -> Vec<String> {
    let (low, high) = program.spread();
    let mut row =
        vec![program.name.clone(), format!("{:.2} s", program.seconds()), format!("{low:.2}–{high:.2}")];
    row.extend(gigabytes.map(|gigabytes| format!("{:.2}", gigabytes / program.seconds())));
    let cpu = |seconds: Option<f64>| {
        seconds.map_or_else(dash, |seconds| format!("{:.2}", seconds / gigabytes.unwrap_or(1.0)))
    };
    let peak = |bytes: Option<u64>| bytes.map_or_else(dash, units::bytes);
    row.extend([
        cpu(Some(program.cpu_seconds())),
        cpu(program.cpu_seconds_of(Used::sender)),
        cpu(program.cpu_seconds_of(Used::receiver)),
        peak(program.peak_bytes_of(Used::sender)),
        peak(program.peak_bytes_of(Used::receiver)),
        program.wire_bytes().map_or_else(dash, |bytes| units::megabytes(bytes as u64)),
        program.checks.to_owned(),
    ]);
    row
}

fn dash() -> String {
    "–".to_owned()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::sample::tests::{apart, program};
    use super::*;
    use crate::process::Usage;

    #[test]
    fn a_row_has_the_median_and_both_sides() {
        let measured = [program("shiplane", &[900, 1000, 1500], apart(600, 900, 20_000_000))];
        let rows = rows(Scenario::File, &measured, 1_000_000_000);
        assert_eq!(rows[0].len(), rows[1].len());
        let told = "shiplane|1.00 s|0.90–1.50|1.00|1.50|0.60|0.90|20.0 MB|20.0 MB|1.0 MB|";
        assert_eq!(rows[1].join("|"), told);
    }

    #[test]
    fn one_process_has_no_sides_and_an_unchanged_tree_no_rate() {
        let used = Usage { cpu: Duration::from_secs(1), peak_rss_bytes: 1 };
        let measured = [program("raw", &[500], Used::Together(used))];
        let rows = rows(Scenario::Unchanged, &measured, 1_000_000_000);
        assert_eq!(rows[1].join("|"), "raw|0.50 s|0.50–0.50|1.00|–|–|–|–|1.0 MB|");
    }
}
