//! Formats the rows of the tables.

use super::lane::Measured;
use super::programs::{Kit, Program};
use super::report::Table;
use super::rows::{Must, Row, Workload};
use super::run::{CutSample, End, Sample};
use crate::machine;

/// All that was measured of a row: the run in the middle for each program.
pub(super) struct Results<'a> {
    pub(super) kit: &'a Kit,
    pub(super) row: &'a Row,
    pub(super) samples: Vec<(Program, Sample)>,
    pub(super) lanes: Option<Lanes>,
}

/// The lane in a bench, in the same run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lanes {
    pub(super) perfect: Measured,
    pub(super) ours: Measured,
}

/// All tables, in order, without rows.
pub(super) fn all() -> Vec<Table> {
    vec![
        Table::new("One large file, Mbit/s", RATE_HEADINGS),
        Table::new("One file of 1 MB, in round trips", TRIP_HEADINGS),
        Table::new("Ten thousand small files, seconds", TREE_HEADINGS),
        Table::new("Slow links, cut after 60 s and after 120 s, kB", CUT_HEADINGS),
    ]
}

/// The table that has the rows of a workload.
pub(super) fn number_of(workload: Workload) -> usize {
    match workload {
        Workload::Bulk { .. } => 0,
        Workload::Small => 1,
        Workload::Tree => 2,
        Workload::Cut => 3,
    }
}

impl Results<'_> {
    /// One row for each program of ours.
    pub(super) fn rows(&self) -> Vec<Vec<String>> {
        let ours = self.samples.iter().filter(|(program, _)| program.is_ours());
        let cells = |sample: &Sample| match self.row.workload {
            Workload::Bulk { .. } => self.rate_cells(sample),
            Workload::Small => self.trip_cells(sample),
            Workload::Tree | Workload::Cut => self.tree_cells(sample),
        };
        let row = |(program, sample): &(Program, Sample)| {
            let mut row = vec![self.row.name.to_owned(), self.kit.name(*program).to_owned()];
            row.extend(cells(sample));
            row.push(machine::today());
            row
        };
        ours.map(row).collect()
    }

    fn rate_cells(&self, sample: &Sample) -> Vec<String> {
        let rate = |sample: &Sample| marked(format!("{:.1}", sample.mbit_s()), sample);
        let of_link = sample.mbit_s() / self.row.link_mbit();
        let must = self.must();
        let mut cells = vec![rate(sample)];
        cells.extend(
            [Program::RsyncBbr, Program::RsyncCubic, Program::Scp, Program::Qcp]
                .map(|program| self.sample(program).map_or_else(dash, rate)),
        );
        let lanes = |figure: fn(&Lanes) -> f64, digits: usize| {
            self.lanes.as_ref().map_or_else(dash, |lanes| format!("{:.digits$}", figure(lanes)))
        };
        cells.extend([
            lanes(|lanes| lanes.perfect.mbit_s, 1),
            lanes(|lanes| lanes.ours.mbit_s, 1),
            lanes(|lanes| lanes.ours.message_p99_ms, 0),
            format!("{of_link:.2}"),
            self.lanes.map_or_else(dash, |lanes| format!("{:.2}", sample.mbit_s() / lanes.perfect.mbit_s)),
            must.map_or_else(dash, |must| format!("≥ {must:.2}")),
            must.map_or_else(dash, |must| holds(of_link >= must)),
            format!("{:.1}", sample.resent_percent),
            self.sample(Program::RsyncBbr).map_or_else(dash, |other| format!("{:.1}", other.resent_percent)),
        ]);
        cells.extend(peaks(sample));
        cells
    }

    /// What the row must reach, as a fraction of the link.
    fn must(&self) -> Option<f64> {
        let link_mbit = self.row.link_mbit();
        match self.row.must {
            Must::PerfectWindow => Some(must_by_perfect_window(self.row, self.lanes?.perfect.seconds)),
            Must::TcpBbr => Some(self.sample(Program::RsyncBbr)?.mbit_s() / link_mbit),
            Must::OfLink(must) => Some(must),
            Must::RoundTrips(_) | Must::Nothing => None,
        }
    }

    fn trip_cells(&self, sample: &Sample) -> Vec<String> {
        let trips = |sample: &Sample| sample.seconds * 1e3 / self.row.link.rtt_ms;
        let told = |sample: &Sample| marked(format!("{:.1}", trips(sample)), sample);
        let others = [Program::CurlHttp, Program::CurlHttps, Program::RsyncBbr, Program::Scp, Program::Qcp];
        let mut cells = vec![told(sample)];
        cells.extend(others.map(|program| self.sample(program).map_or_else(dash, told)));
        cells.extend(match self.row.must {
            Must::RoundTrips(must) => [format!("≤ {must:.0}"), holds(trips(sample) <= must)],
            Must::PerfectWindow | Must::TcpBbr | Must::OfLink(_) | Must::Nothing => [dash(), dash()],
        });
        cells.extend(peaks(sample));
        cells
    }

    fn tree_cells(&self, sample: &Sample) -> Vec<String> {
        let told = |sample: &Sample| match sample.end {
            End::Stopped => format!("{:.0}*, {:.1} MB", sample.seconds, sample.bytes as f64 / 1e6),
            End::Done | End::Failed(_) => marked(format!("{:.2}", sample.seconds), sample),
        };
        let mut cells = vec![told(sample)];
        cells.extend(
            [Program::RsyncBbr, Program::RsyncCubic, Program::Scp]
                .map(|program| self.sample(program).map_or_else(dash, told)),
        );
        cells.extend(peaks(sample));
        cells
    }

    fn sample(&self, wanted: Program) -> Option<&Sample> {
        self.samples.iter().find(|(program, _)| *program == wanted).map(|(_, sample)| sample)
    }
}

/// The row of one program on a slow link.
pub(super) fn cut_row(kit: &Kit, program: Program, row: &Row, sample: &CutSample) -> Vec<String> {
    let [carried, carried_in_all] = sample.carried_bytes;
    let [kept, kept_in_all] = sample.kept_bytes;
    let lost_bytes = lost_bytes(sample);
    let may_lose_bytes = MAY_LOSE_BYTES.max((row.link_mbit() * 125_000.0 * MAY_LOSE_SECONDS) as u64);
    let kilobytes = |bytes: u64| format!("{:.0}", bytes as f64 / 1e3);
    let share = 100.0 * kept_in_all as f64 / carried_in_all.max(1) as f64;
    vec![
        row.name.to_owned(),
        kit.name(program).to_owned(),
        kilobytes(carried),
        kilobytes(kept),
        kilobytes(carried_in_all),
        kilobytes(kept_in_all),
        format!("{share:.0}"),
        kilobytes(lost_bytes),
        kilobytes(may_lose_bytes),
        holds(lost_bytes <= may_lose_bytes),
        sample.early_end.clone().unwrap_or_else(dash),
        machine::today(),
    ]
}

/// 1.03 times the time of the perfect window and three round trips, as a fraction of the link.
fn must_by_perfect_window(row: &Row, perfect_seconds: f64) -> f64 {
    let seconds = perfect_seconds * 1.03 + 3.0 * row.link.rtt_ms / 1e3;
    row.file_bytes() as f64 * 8e-6 / seconds / row.link_mbit()
}

/// What was carried before a cut and was not kept, at the worse of the two cuts.
fn lost_bytes(sample: &CutSample) -> u64 {
    let [carried, carried_in_all] = sample.carried_bytes;
    let [kept, kept_in_all] = sample.kept_bytes;
    let lost = |carried_bytes: u64, kept_bytes: u64| {
        ((carried_bytes as f64 * CONTENT_SHARE) as u64).saturating_sub(kept_bytes)
    };
    let second = lost(carried_in_all - carried, kept_in_all.saturating_sub(kept));
    lost(carried, kept).max(second)
}

/// A figure with its reservation.
fn marked(figure: String, sample: &Sample) -> String {
    match sample.end {
        End::Done => figure,
        End::Stopped => format!("{figure}*"),
        End::Failed(_) => format!("{figure}, failed"),
    }
}

fn peaks(sample: &Sample) -> [String; 2] {
    let told = |bytes: u64| format!("{:.1}", bytes as f64 / f64::from(1 << 20));
    sample.peak_bytes.map_or_else(|| [dash(), dash()], |(server, client)| [told(server), told(client)])
}

fn holds(holds: bool) -> String {
    if holds { "yes" } else { "NO" }.to_owned()
}

fn dash() -> String {
    "–".to_owned()
}

const RATE_HEADINGS: &str = "\
    link|program|Mbit/s|rsync, BBR|rsync, Cubic|scp|qcp|perfect window|our lane|its message p99, ms|÷ link|\
    ÷ perfect|must ÷ link|holds|resent %|by rsync, BBR|peak server, MiB|client|taken";

const TRIP_HEADINGS: &str = "\
    link|program|round trips|curl, HTTP|curl, HTTPS|rsync|scp|qcp|must|holds|peak server, MiB|client|taken";

const TREE_HEADINGS: &str = "\
    link|program|seconds|rsync, BBR|rsync, Cubic|scp|peak server, MiB|client|taken";

const CUT_HEADINGS: &str = "\
    link|program|carried after 60 s|kept|carried after 120 s|kept of that|kept, %|lost at a cut, at most|\
    may be lost|holds|ended by itself|taken";

/// Of what a link carries; the rest are headers.
const CONTENT_SHARE: f64 = 0.955;

/// A cut may lose the larger of 256 KiB and what the link carries in two seconds.
const MAY_LOSE_BYTES: u64 = 256 << 10;
const MAY_LOSE_SECONDS: f64 = 2.0;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wan::rows;

    #[test]
    fn the_perfect_window_of_the_first_row_asks_for_0_88_of_the_link() {
        let row = rows::chosen(&["50-200-0".to_owned()]).unwrap()[0];
        let must = must_by_perfect_window(&row, 5.77);
        assert!((must - 0.88).abs() < 0.005, "{must}");
    }

    #[test]
    fn the_worse_of_two_cuts_counts() {
        let cut =
            |carried_bytes, kept_bytes| lost_bytes(&CutSample { carried_bytes, kept_bytes, early_end: None });
        assert_eq!(cut([1000, 2000], [900, 1000]), 855);
        assert_eq!(cut([1000, 2000], [0, 1900]), 955);
        assert_eq!(cut([1000, 2000], [955, 1910]), 0);
    }
}
