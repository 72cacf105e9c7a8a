//! The table of a bench: medians, and every program's distance from scp and from raw quinn.

use std::time::Duration;

use super::{Sample, Used};
use crate::process::Usage;
use crate::units;

/// All counted runs of one program.
#[derive(Debug)]
pub(super) struct Measured {
    pub(super) name: &'static str,
    pub(super) samples: Vec<Sample>,
}

impl Measured {
    pub(super) fn new(name: &'static str) -> Self {
        Self { name, samples: Vec::new() }
    }

    fn seconds(&self) -> f64 {
        median(self.samples.iter().map(|sample| sample.time.as_secs_f64()))
    }

    fn gigabytes_a_second(&self, bytes: u64) -> f64 {
        bytes as f64 / 1e9 / self.seconds()
    }

    /// Median CPU-seconds of a side, by the whole file.
    fn cpu(&self, side: fn(&Used) -> Option<Usage>) -> Option<f64> {
        let used: Option<Vec<Usage>> = self.samples.iter().map(|sample| side(&sample.used)).collect();
        Some(median(used?.iter().map(|used| used.cpu.as_secs_f64())))
    }

    /// The largest peak of a side in any run.
    fn peak_bytes(&self, side: fn(&Used) -> Option<Usage>) -> Option<u64> {
        self.samples.iter().filter_map(|sample| side(&sample.used)).map(|used| used.peak_rss_bytes).max()
    }
}

/// The table itself; `bytes` is what each run carried.
pub(super) fn table(measured: &[Measured], bytes: u64) -> String {
    let mut rows = vec![HEADINGS.map(str::to_owned).to_vec()];
    let rate_of = |word: &str| {
        let found = measured.iter().find(|measured| measured.name.starts_with(word));
        found.map(|measured| measured.gigabytes_a_second(bytes))
    };
    let (scp, raw) = (rate_of("scp"), rate_of("raw"));
    for program in measured {
        let rate = program.gigabytes_a_second(bytes);
        let a_gigabyte = |cpu: f64| cpu / (bytes as f64 / 1e9);
        let cpu = |side| number(program.cpu(side).map(a_gigabyte));
        let peak = |side| program.peak_bytes(side).map_or_else(dash, units::bytes);
        rows.push(vec![
            program.name.to_owned(),
            number(Some(rate)),
            spread(&program.samples),
            number(scp.map(|scp| rate / scp)),
            number(raw.map(|raw| rate / raw)),
            cpu(both),
            cpu(sender),
            cpu(receiver),
            peak(sender),
            peak(receiver),
        ]);
    }
    let mut text = units::table(&rows);
    text.extend(measured.iter().filter_map(footnote));
    text
}

/// What has no column: a program that is both sides at once.
fn footnote(program: &Measured) -> Option<String> {
    let Used::Together { packet_bytes, .. } = program.samples.last()?.used else { return None };
    let peak = units::bytes(program.peak_bytes(both)?);
    let name = program.name;
    Some(format!("  {name}: packets of {packet_bytes} bytes; peak of both sides {peak}\n"))
}

fn both(used: &Used) -> Option<Usage> {
    Some(match used {
        Used::Apart { sender, receiver } => Usage {
            cpu: sender.cpu + receiver.cpu,
            peak_rss_bytes: sender.peak_rss_bytes + receiver.peak_rss_bytes,
        },
        Used::Together { used, .. } => *used,
    })
}

fn sender(used: &Used) -> Option<Usage> {
    match used {
        Used::Apart { sender, .. } => Some(*sender),
        Used::Together { .. } => None,
    }
}

fn receiver(used: &Used) -> Option<Usage> {
    match used {
        Used::Apart { receiver, .. } => Some(*receiver),
        Used::Together { .. } => None,
    }
}

/// The quickest and the slowest run.
fn spread(samples: &[Sample]) -> String {
    let times = || samples.iter().map(|sample| sample.time);
    let (low, high) = (times().min().unwrap_or(Duration::ZERO), times().max().unwrap_or(Duration::ZERO));
    format!("{:.2}–{:.2} s", low.as_secs_f64(), high.as_secs_f64())
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        len if len % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

fn number(value: Option<f64>) -> String {
    value.map_or_else(dash, |value| format!("{value:.2}"))
}

fn dash() -> String {
    "–".to_owned()
}

const HEADINGS: [&str; 10] = [
    "",
    "GB/s",
    "runs",
    "÷ scp",
    "÷ raw quinn",
    "CPU-s/GB",
    "sending",
    "receiving",
    "peak sending",
    "receiving",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(cpu_ms: u64, peak_rss_bytes: u64) -> Usage {
        Usage { cpu: Duration::from_millis(cpu_ms), peak_rss_bytes }
    }

    fn program(name: &'static str, times_ms: &[u64], used: Used) -> Measured {
        let sample = |&ms: &u64| Sample { time: Duration::from_millis(ms), used };
        Measured { name, samples: times_ms.iter().map(sample).collect() }
    }

    #[test]
    fn the_middle_run_counts() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0].into_iter()), 2.5);
    }

    #[test]
    fn rates_stand_beside_scp_and_raw_quinn() {
        let apart = Used::Apart { sender: usage(600, 20_000_000), receiver: usage(900, 30_000_000) };
        let raw = Used::Together { used: usage(1700, 50_000_000), packet_bytes: 8952 };
        let measured = [
            program("shiplane, verified", &[900, 1000, 1500], apart),
            program("scp, aes128-gcm", &[2000], apart),
            program("raw quinn", &[800], raw),
        ];
        let text = table(&measured, 1_000_000_000);
        let ours: Vec<&str> = text.lines().nth(1).unwrap().split_whitespace().collect();
        let told = "shiplane, verified 1.00 0.90–1.50 s 2.00 0.80 1.50 0.60 0.90 20.0 MB 30.0 MB";
        assert_eq!(ours, told.split_whitespace().collect::<Vec<_>>());
        assert!(text.contains("packets of 8952 bytes; peak of both sides 50.0 MB"), "{text}");
    }

    #[test]
    fn what_is_missing_has_no_ratio() {
        let apart = Used::Apart { sender: usage(1, 1), receiver: usage(1, 1) };
        let text = table(&[program("shiplane, verified", &[1000], apart)], 1_000_000_000);
        assert!(text.lines().nth(1).unwrap().contains('–'), "{text}");
    }
}
