//! The measurements and their medians, as a table.

use std::{collections::BTreeMap, time::Duration};

/// One round of one contender: calls a second, the median and the 99th percentile in µs, and what the bulk carried
/// meanwhile in MB/s.
pub(crate) type Sample = [f64; 4];

pub(crate) fn sample(mut latencies_ns: Vec<u64>, took: Duration) -> Sample {
    latencies_ns.sort_unstable();
    let within = |share: f64| {
        let at = (latencies_ns.len().saturating_sub(1) as f64 * share).round() as usize;
        latencies_ns.get(at).map_or(f64::NAN, |&ns| ns as f64 / 1000.0)
    };
    [latencies_ns.len() as f64 / took.as_secs_f64(), within(0.5), within(0.99), f64::NAN]
}

/// All rounds.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    rows: BTreeMap<(usize, &'static str), Vec<Sample>>,
}

impl Figures {
    pub(crate) fn add(&mut self, name: &'static str, in_flight: usize, sample: Sample) {
        self.rows.entry((in_flight, name)).or_default().push(sample);
    }

    /// A Markdown table; ratios are those to `reference` with as many calls in flight.
    pub(crate) fn print(&self, reference: &'static str) {
        println!(
            "| | in flight | calls/s | p50, µs | p99, µs | the bulk, MB/s | calls ÷ quinn's | p50 ÷ quinn's |"
        );
        println!("|---|--:|--:|--:|--:|--:|--:|--:|");
        for ((in_flight, name), samples) in &self.rows {
            let [calls, p50, p99, bulk] = medians(samples);
            let other = self.rows.get(&(*in_flight, reference)).map_or([f64::NAN; 4], |rows| medians(rows));
            println!(
                "| {name} | {in_flight} | {calls:.0} | {p50:.1} | {p99:.1} | {bulk:.0} | {:.2} | {:.2} |",
                calls / other[0],
                p50 / other[1],
            );
        }
    }
}

fn medians(samples: &[Sample]) -> Sample {
    [0, 1, 2, 3].map(|figure| {
        let mut values: Vec<f64> = samples.iter().map(|sample| sample[figure]).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
    })
}
