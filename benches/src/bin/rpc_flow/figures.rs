//! The measurements and their medians, as a table.

use std::{collections::BTreeMap, time::Duration};

/// One round of one contender.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    calls_per_s: f64,
    p50_us: f64,
    p99_us: f64,
    /// What the lane carried meanwhile.
    pub(crate) bulk_mb_per_s: Option<f64>,
}

impl Sample {
    pub(crate) fn new(mut latencies_ns: Vec<u64>, took: Duration) -> Self {
        latencies_ns.sort_unstable();
        let at = |share: f64| {
            let last = latencies_ns.len().saturating_sub(1);
            let index = (last as f64 * share).round() as usize;
            latencies_ns.get(index).map_or(f64::NAN, |&ns| ns as f64 / 1000.0)
        };
        let calls_per_s = latencies_ns.len() as f64 / took.as_secs_f64();
        Self { calls_per_s, p50_us: at(0.5), p99_us: at(0.99), bulk_mb_per_s: None }
    }
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
    pub(crate) fn print(&self, reference: &str) {
        println!(
            "| | in flight | calls/s | p50, µs | p99, µs | the bulk, MB/s | calls ÷ quinn's | p50 ÷ quinn's |"
        );
        println!("|---|--:|--:|--:|--:|--:|--:|--:|");
        for ((in_flight, name), samples) in &self.rows {
            let of = |figure: fn(&Sample) -> f64| median(samples.iter().map(figure));
            let (calls, p50) = (of(|sample| sample.calls_per_s), of(|sample| sample.p50_us));
            let p99 = of(|sample| sample.p99_us);
            let bulk = of(|sample| sample.bulk_mb_per_s.unwrap_or(f64::NAN));
            let other = self.rows.get(&(*in_flight, reference));
            let ratio = |own: f64, figure: fn(&Sample) -> f64| {
                own / other.map_or(f64::NAN, |other| median(other.iter().map(figure)))
            };
            let (calls_ratio, p50_ratio) =
                (ratio(calls, |sample| sample.calls_per_s), ratio(p50, |sample| sample.p50_us));
            println!(
                "| {name} | {in_flight} | {calls:.0} | {p50:.1} | {p99:.1} | {bulk:.0} | {calls_ratio:.2} | \
                 {p50_ratio:.2} |"
            );
        }
    }
}

fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
