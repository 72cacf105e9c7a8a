//! Compares the first quarter of a server's life with the last.

use xtask::units;

use crate::stats::ProcessStats;

/// Looks at one life of a server, in order: what each of [`FIGURES`] was.
#[derive(Debug, Default)]
pub(super) struct Series(Vec<[u64; FIGURES.len()]>);

/// What is looked at.
struct Figure {
    name: &'static str,
    show: fn(u64) -> String,
    /// What may come on top of a tenth.
    slack: u64,
}

impl Series {
    pub(super) fn push(&mut self, stats: ProcessStats, leftovers: u64) {
        self.0.push([stats.resident_bytes, stats.descriptors, stats.threads, leftovers]);
    }

    /// A table of the medians of the quarters, and the figures whose median in the last quarter is over that in the first by
    /// more than a tenth and its slack. None if the life was too short to say anything. The first tenth of it does not
    /// count: a server warms up.
    pub(super) fn compare(&self) -> Option<(Vec<Vec<String>>, Vec<&'static str>)> {
        let warm = &self.0[self.0.len() / 10..];
        let quarter = warm.len() / 4;
        if quarter < MIN_LOOKS {
            return None;
        }
        let mut rows = vec![units::row(["", "first quarter", "last quarter", "most", "verdict"])];
        let mut grown = Vec::new();
        for (number, Figure { name, show, slack }) in FIGURES.iter().enumerate() {
            let sorted = |looks: &[[u64; FIGURES.len()]]| {
                let mut figures: Vec<_> = looks.iter().map(|look| look[number]).collect();
                figures.sort_unstable();
                figures
            };
            let [first, last] =
                [&warm[..quarter], &warm[warm.len() - quarter..]].map(|looks| sorted(looks)[quarter / 2]);
            let most = sorted(&self.0).last().copied().unwrap_or_default();
            let is_flat = last <= first + first / 10 + slack;
            let [first, last, most] = [first, last, most].map(show);
            rows.push(units::row([name, &first, &last, &most, if is_flat { "flat" } else { "grew" }]));
            grown.extend((!is_flat).then_some(*name));
        }
        Some((rows, grown))
    }
}

/// 4 MiB: what an allocator keeps differs from hour to hour. 8: as many things as two clients have under way.
const FIGURES: [Figure; 4] = [
    Figure { name: "memory", show: units::bytes, slack: 4 << 20 },
    Figure { name: "descriptors", show: units::count, slack: 8 },
    Figure { name: "threads", show: units::count, slack: 8 },
    Figure { name: "leftovers", show: units::count, slack: 8 },
];

/// In a quarter: below that a median says little.
const MIN_LOOKS: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;

    fn grown(seconds: u64, resident_bytes: impl Fn(u64) -> u64) -> Option<Vec<&'static str>> {
        let mut series = Series::default();
        for second in 0..seconds {
            let resident_bytes = resident_bytes(second);
            series.push(ProcessStats { resident_bytes, descriptors: 20, ..ProcessStats::default() }, 3);
        }
        series.compare().map(|(_, grown)| grown)
    }

    #[test]
    fn what_stays_or_swings_is_flat_and_what_grows_is_named_however_slowly() {
        assert_eq!(grown(400, |_| 30 << 20), Some(vec![]));
        assert_eq!(grown(400, |second| (30 << 20) + ((second % 7) << 20)), Some(vec![]));
        // It warms up.
        assert_eq!(grown(400, |second| (second.min(30) + 5) << 20), Some(vec![]));
        assert_eq!(grown(400, |second| (30 << 20) + (second << 15)), Some(vec!["memory"]));
        assert_eq!(grown(10, |_| 0), None);
    }
}
