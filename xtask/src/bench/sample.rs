//! The figures of a run, and medians of several.

use std::time::Duration;

use super::contenders::Contender;
use crate::process::Usage;

/// What one run took.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    pub(super) time: Duration,
    pub(super) used: Used,
    /// What loopback carried meanwhile, both directions, each byte once. None where nobody counts.
    pub(super) wire_bytes: Option<u64>,
}

/// What the two sides used.
#[derive(Clone, Copy, Debug)]
pub(super) enum Used {
    /// Two programs.
    Apart { sender: Usage, receiver: Usage },
    /// Both sides in one process.
    Together(Usage),
}

impl Used {
    pub(super) fn sender(&self) -> Option<Usage> {
        match self {
            Self::Apart { sender, .. } => Some(*sender),
            Self::Together(_) => None,
        }
    }

    pub(super) fn receiver(&self) -> Option<Usage> {
        match self {
            Self::Apart { receiver, .. } => Some(*receiver),
            Self::Together(_) => None,
        }
    }

    fn cpu(&self) -> Duration {
        match self {
            Self::Apart { sender, receiver } => sender.cpu + receiver.cpu,
            Self::Together(used) => used.cpu,
        }
    }
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
    /// Of a contender before its runs; `suffix` tells where it runs.
    pub(super) fn of(contender: &dyn Contender, suffix: &str) -> Self {
        Self {
            name: format!("{}{suffix}", contender.name()),
            checks: contender.checks(),
            version: contender.version(),
            samples: Vec::new(),
        }
    }

    /// In seconds, of each run.
    pub(super) fn times(&self) -> Vec<f64> {
        self.samples.iter().map(|sample| sample.time.as_secs_f64()).collect()
    }

    /// CPU-seconds of both sides, of each run.
    pub(super) fn cpu_times(&self) -> Vec<f64> {
        self.samples.iter().map(|sample| sample.used.cpu().as_secs_f64()).collect()
    }

    /// Bytes on the wire, of each run; none if one run has no count.
    pub(super) fn wire_counts(&self) -> Vec<f64> {
        let counted: Option<Vec<f64>> =
            self.samples.iter().map(|sample| sample.wire_bytes.map(|bytes| bytes as f64)).collect();
        counted.unwrap_or_default()
    }

    pub(super) fn seconds(&self) -> f64 {
        median(self.times().into_iter())
    }

    /// The quickest and the slowest run, in seconds.
    pub(super) fn spread(&self) -> (f64, f64) {
        let seconds = self.samples.iter().map(|sample| sample.time.as_secs_f64());
        seconds.fold((f64::INFINITY, 0.0), |(low, high), seconds| (low.min(seconds), high.max(seconds)))
    }

    /// CPU-seconds of both sides.
    pub(super) fn cpu_seconds(&self) -> f64 {
        median(self.cpu_times().into_iter())
    }

    /// CPU-seconds of a side, unless both are one process.
    pub(super) fn cpu_seconds_of(&self, side: fn(&Used) -> Option<Usage>) -> Option<f64> {
        let used: Option<Vec<Usage>> = self.samples.iter().map(|sample| side(&sample.used)).collect();
        Some(median(used?.iter().map(|used| used.cpu.as_secs_f64())))
    }

    /// The largest peak of a side in any run, unless both are one process.
    pub(super) fn peak_bytes_of(&self, side: fn(&Used) -> Option<Usage>) -> Option<u64> {
        self.samples.iter().filter_map(|sample| side(&sample.used)).map(|used| used.peak_rss_bytes).max()
    }

    /// The larger of both sides' peaks.
    pub(super) fn peak_bytes(&self) -> Option<u64> {
        self.peak_bytes_of(Used::sender).max(self.peak_bytes_of(Used::receiver))
    }

    pub(super) fn wire_bytes(&self) -> Option<f64> {
        let counted = self.wire_counts();
        (!counted.is_empty()).then(|| median(counted.into_iter()))
    }
}

/// The one in the middle, or the mean of the two.
pub(super) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
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
    pub(crate) fn program(name: &str, times_ms: &[u64], used: Used) -> Measured {
        let sample =
            |&ms: &u64| Sample { time: Duration::from_millis(ms), used, wire_bytes: Some(1_000_000) };
        let samples = times_ms.iter().map(sample).collect();
        Measured { name: name.to_owned(), checks: "", version: String::new(), samples }
    }

    pub(crate) fn apart(sender_ms: u64, receiver_ms: u64, peak_rss_bytes: u64) -> Used {
        let usage = |ms| Usage { cpu: Duration::from_millis(ms), peak_rss_bytes };
        Used::Apart { sender: usage(sender_ms), receiver: usage(receiver_ms) }
    }

    #[test]
    fn the_middle_run_counts() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0].into_iter()), 2.5);
    }

    #[test]
    fn both_sides_are_told_apart_and_together() {
        let mut measured = program("a", &[1000, 3000, 2000], apart(600, 900, 5));
        assert_eq!((measured.seconds(), measured.spread()), (2.0, (1.0, 3.0)));
        assert_eq!(measured.cpu_seconds(), 1.5);
        assert_eq!(measured.cpu_seconds_of(Used::receiver), Some(0.9));
        assert_eq!(measured.peak_bytes(), Some(5));
        let used = Usage { cpu: Duration::from_secs(7), peak_rss_bytes: 9 };
        measured = program("b", &[1], Used::Together(used));
        assert_eq!(measured.cpu_seconds(), 7.0);
        assert_eq!(measured.peak_bytes(), None);
    }

    #[test]
    fn one_run_without_a_count_leaves_none() {
        let mut measured = program("a", &[1, 2], apart(1, 1, 1));
        assert_eq!(measured.wire_bytes(), Some(1e6));
        measured.samples[0].wire_bytes = None;
        assert_eq!(measured.wire_bytes(), None);
    }
}
