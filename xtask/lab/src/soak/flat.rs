//! Compares the first quarter of a server's life with the last.

use anyhow::{Result, bail};
use xtask::units;

use crate::stats::ProcessStats;

/// Looks at one life of a server, in order.
#[derive(Debug, Default)]
pub(super) struct Series {
    looks: Vec<Look>,
}

#[derive(Clone, Copy, Debug)]
struct Look {
    process_stats: ProcessStats,
    leftovers: u64,
}

/// One figure of a look.
struct Figure {
    name: &'static str,
    of: fn(&Look) -> u64,
    show: fn(u64) -> String,
    /// What may come on top of a tenth.
    slack: u64,
}

impl Series {
    pub(super) fn push(&mut self, process_stats: ProcessStats, leftovers: u64) {
        self.looks.push(Look { process_stats, leftovers });
    }

    /// An error that names every figure that has grown: the median of the last quarter is over that of the first by
    /// more than a tenth and its slack. The first tenth of the life does not count: a server warms up.
    pub(super) fn judge(&self) -> Result<()> {
        let Some((first, last)) = self.quarters() else { bail!("too short a life to be judged") };
        let grown: Vec<_> =
            FIGURES.iter().filter(|figure| !figure.is_flat(first, last)).map(|f| f.name).collect();
        if !grown.is_empty() {
            bail!("not flat: {}", grown.join(", "));
        }
        self.looks.iter().try_for_each(|look| expect_within_cap(look.process_stats))
    }

    /// A table of medians.
    pub(super) fn rows(&self) -> Vec<Vec<String>> {
        let mut rows = vec![units::row(["", "first quarter", "last quarter", "most", "verdict"])];
        let Some((first, last)) = self.quarters() else { return rows };
        for figure in &FIGURES {
            let most = self.looks.iter().map(figure.of).max().unwrap_or_default();
            rows.push(vec![
                figure.name.to_owned(),
                (figure.show)(figure.median(first)),
                (figure.show)(figure.median(last)),
                (figure.show)(most),
                if figure.is_flat(first, last) { "flat" } else { "grew" }.to_owned(),
            ]);
        }
        rows
    }

    fn quarters(&self) -> Option<(&[Look], &[Look])> {
        let warm = &self.looks[self.looks.len() / 10..];
        let quarter = warm.len() / 4;
        (quarter >= MIN_LOOKS).then(|| (&warm[..quarter], &warm[warm.len() - quarter..]))
    }
}

/// An error that says what the server came to hold, if that was too much.
pub(super) fn expect_within_cap(process_stats: ProcessStats) -> Result<()> {
    if process_stats.peak_bytes > CAP_BYTES {
        bail!("the server came to hold {}", units::bytes(process_stats.peak_bytes));
    }
    Ok(())
}

impl Figure {
    fn median(&self, looks: &[Look]) -> u64 {
        let mut figures: Vec<_> = looks.iter().map(self.of).collect();
        figures.sort_unstable();
        figures.get(figures.len() / 2).copied().unwrap_or_default()
    }

    fn is_flat(&self, first: &[Look], last: &[Look]) -> bool {
        let first = self.median(first);
        self.median(last) <= first + first / 10 + self.slack
    }
}

/// 4 MiB: what an allocator keeps differs from hour to hour. 8: as many things as two clients have under way.
const FIGURES: [Figure; 4] = [
    Figure {
        name: "memory",
        of: |look| look.process_stats.resident_bytes,
        show: units::bytes,
        slack: 4 << 20,
    },
    Figure { name: "descriptors", of: |look| look.process_stats.descriptors, show: units::count, slack: 8 },
    Figure { name: "threads", of: |look| look.process_stats.threads, show: units::count, slack: 8 },
    Figure { name: "leftovers", of: |look| look.leftovers, show: units::count, slack: 8 },
];

/// 64 MiB, what a side may hold.
const CAP_BYTES: u64 = 64 << 20;

/// In a quarter: below that a median says little.
const MIN_LOOKS: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;

    fn series(resident_bytes: impl Fn(u64) -> u64) -> Series {
        let mut series = Series::default();
        for second in 0..400 {
            let resident_bytes = resident_bytes(second);
            let process_stats =
                ProcessStats { peak_bytes: resident_bytes, resident_bytes, descriptors: 20, threads: 10 };
            series.push(process_stats, 3);
        }
        series
    }

    #[test]
    fn constant_and_oscillating_series_are_flat() {
        series(|_| 30 << 20).judge().unwrap();
        series(|second| (30 << 20) + ((second % 7) << 20)).judge().unwrap();
        // It warms up.
        series(|second| (second.min(30) + 5) << 20).judge().unwrap();
    }

    #[test]
    fn slow_growth_is_reported() {
        let grown = series(|second| (30 << 20) + (second << 15)).judge().unwrap_err();
        assert!(grown.to_string().contains("memory"), "{grown}");
        let large = series(|_| CAP_BYTES + 1).judge().unwrap_err();
        assert!(large.to_string().contains("came to hold"), "{large}");
    }

    #[test]
    fn a_short_life_says_nothing() {
        let mut series = Series::default();
        series.push(ProcessStats::default(), 0);
        assert!(series.judge().is_err());
        assert_eq!(series.rows().len(), 1);
    }
}
