//! The figures of a run, and medians of several.

use std::time::Duration;

use xtask::process::Usage;

/// What one run took.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    pub(super) time: Duration,
    pub(super) sender: Usage,
    pub(super) receiver: Usage,
    /// What loopback carried meanwhile, both directions, each byte once. None where nobody counts.
    pub(super) wire_bytes: Option<u64>,
}

/// All counted runs of one program.
#[derive(Debug)]
pub(super) struct Measured {
    pub(super) name: String,
    /// What it checks of what arrives.
    pub(super) checks: &'static str,
    /// As it calls itself.
    pub(super) version: String,
    pub(super) samples: Vec<Sample>,
}

impl Measured {
    /// Of a program before its runs.
    pub(super) fn of(name: String, checks: &'static str, version: String) -> Self {
        Self { name, checks, version, samples: Vec::new() }
    }

    /// A figure of each run.
    pub(super) fn each(&self, figure: impl Fn(&Sample) -> f64) -> Vec<f64> {
        self.samples.iter().map(figure).collect()
    }

    /// The median of a figure.
    pub(super) fn median(&self, figure: impl Fn(&Sample) -> f64) -> f64 {
        median(self.each(figure))
    }

    /// In seconds, of each run.
    pub(super) fn times(&self) -> Vec<f64> {
        self.each(|sample| sample.time.as_secs_f64())
    }

    /// CPU-seconds of both sides, of each run.
    pub(super) fn cpu_times(&self) -> Vec<f64> {
        self.each(|sample| (sample.sender.cpu + sample.receiver.cpu).as_secs_f64())
    }

    /// CPU-seconds of the sending side, of each run.
    pub(super) fn sender_times(&self) -> Vec<f64> {
        self.each(|sample| sample.sender.cpu.as_secs_f64())
    }

    /// Bytes on the wire, of each run; none if one run has no count.
    pub(super) fn wire_counts(&self) -> Vec<f64> {
        let counted = self.samples.iter().map(|sample| sample.wire_bytes.map(|bytes| bytes as f64));
        counted.collect::<Option<_>>().unwrap_or_default()
    }

    /// The largest peak of either side in any run.
    pub(super) fn peak_bytes(&self) -> Option<u64> {
        let peaks = self.samples.iter().flat_map(|sample| [sample.sender, sample.receiver]);
        peaks.map(|used| used.peak_rss_bytes).max()
    }
}

/// The one in the middle, or the mean of the two.
pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        len if len % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A program whose runs took so long, each with the same figures.
    pub(crate) fn program(name: &str, times_ms: &[u64], cpu_ms: u64, peak_rss_bytes: u64) -> Measured {
        let used = Usage { cpu: Duration::from_millis(cpu_ms), peak_rss_bytes };
        let sample = |&ms: &u64| Sample {
            time: Duration::from_millis(ms),
            sender: used,
            receiver: used,
            wire_bytes: Some(1_000_000),
        };
        let samples = times_ms.iter().map(sample).collect();
        Measured { samples, ..Measured::of(name.to_owned(), "", String::new()) }
    }

    #[test]
    fn the_middle_run_counts_and_one_run_without_a_count_leaves_none() {
        assert_eq!((median(vec![3.0, 1.0, 2.0]), median(vec![4.0, 1.0, 2.0, 3.0])), (2.0, 2.5));
        let mut measured = program("a", &[1000, 3000, 2000], 750, 5);
        assert_eq!((median(measured.times()), median(measured.cpu_times())), (2.0, 1.5));
        assert_eq!((measured.peak_bytes(), measured.wire_counts().len()), (Some(5), 3));
        measured.samples[0].wire_bytes = None;
        assert!(measured.wire_counts().is_empty());
    }
}
