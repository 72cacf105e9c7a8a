//! Slow links and changing rates: transfers end, reported progress is kept, a cut costs little.

#![cfg(target_os = "linux")]

use std::{num::NonZeroU64, time::Duration};

use lab::sim::{CutRun, CutSeries, Job, Simulation};

const JOBS: [Job; 3] = [Job::Get, Job::Push, Job::Sync];

const KIB: u64 = 1 << 10;

/// One large file over a link as behind a token bucket of 16 KB, never cut.
fn over(bytes_per_second: u64, file_len_bytes: u64) -> CutSeries {
    CutSeries {
        job: Job::Get,
        files: 1,
        file_len_bytes,
        bytes_per_second,
        delay: Duration::from_millis(10),
        change: None,
        queue_len_bytes: 16_000 + bytes_per_second / 20,
        limit: None,
        cut_after: Duration::from_secs(100_000),
    }
}

/// Runs it. What was shown as kept never comes twice, and of what a cut run has carried, at most so much was in vain:
/// packets' headers, a 16th, aside.
fn run(simulation: &Simulation, cuts: CutSeries, most_bytes: u64) -> Vec<CutRun> {
    let total_bytes = cuts.files * cuts.file_len_bytes;
    let shown = format!("{cuts:?}");
    let runs = simulation.run_cuts(cuts).unwrap_or_else(|violation| panic!("{shown}: {violation}"));
    let kept_bytes: u64 = runs.iter().map(|run| run.kept_bytes).sum();
    assert!(kept_bytes <= total_bytes, "{shown}: {runs:?}");
    for run in &runs[..runs.len() - 1] {
        let needed_bytes = run.kept_bytes + run.kept_bytes / 16;
        let cost_bytes = run.carried_bytes.saturating_sub(needed_bytes);
        assert!(cost_bytes <= most_bytes, "{shown}: a cut costs {cost_bytes}, {runs:?}");
        assert!(run.kept_bytes > 0, "{shown}: {runs:?}");
    }
    runs
}

/// 128 and 64 kbit/s: a chunk takes four and eight seconds, and those behind it wait for longer than any timeout.
#[test]
fn transfers_end_at_any_rate_from_64_kbit_on() {
    let simulation = Simulation::new().unwrap();
    for job in JOBS {
        for (bytes_per_second, len_bytes) in [(8_000, 900_000), (16_000, 1_800_000)] {
            let runs = run(&simulation, CutSeries { job, ..over(bytes_per_second, len_bytes) }, 0);
            let (run, ideal) = (&runs[0], Duration::from_secs(len_bytes / bytes_per_second));
            assert!(run.took < ideal * 5 / 4, "{job:?}: {:?} instead of {ideal:?}", run.took);
            // The first chunk of 64 KiB, which no other one delays.
            let first_chunk = Duration::from_secs(64 * KIB / bytes_per_second);
            let soon = Duration::from_secs(2);
            assert!(run.awaits_chunks.is_some_and(|at| at < soon), "{job:?}: {run:?}");
            assert!(run.arrives.unwrap() < soon, "{job:?}: {run:?}");
            assert!(run.keeps.unwrap() < first_chunk * 3 / 2 + soon, "{job:?}: {run:?}");
        }
    }
}

/// Within 256 KiB or what the link carries in two seconds.
#[test]
fn a_cut_costs_little_on_slow_links() {
    let simulation = Simulation::new().unwrap();
    for job in JOBS {
        for (bytes_per_second, len_bytes, cut_after) in
            [(300_000, 9_000_000, 15), (32_000, 1_500_000, 20), (8_000, 500_000, 30)]
        {
            let cut_after = Duration::from_secs(cut_after);
            let cuts = CutSeries { job, cut_after, ..over(bytes_per_second, len_bytes) };
            let small = CutSeries { files: len_bytes / 8_000, file_len_bytes: 8_000, ..cuts.clone() };
            for cuts in [cuts, small] {
                let runs = run(&simulation, cuts, (2 * bytes_per_second).max(256 * KIB) / 2);
                assert!(runs.len() > 2, "{job:?}: {runs:?}");
            }
        }
    }
}

/// Of a rate that was asked for, on a path that carries much more.
#[test]
fn a_cut_costs_little_where_the_rate_is_limited() {
    let simulation = Simulation::new().unwrap();
    for job in JOBS {
        for (limit, len_bytes, cut_after) in [(300_000, 6_000_000, 9), (20_000, 900_000, 20)] {
            let cuts = CutSeries {
                job,
                limit: NonZeroU64::new(limit),
                cut_after: Duration::from_secs(cut_after),
                ..over(12_500_000, len_bytes)
            };
            let runs = run(&simulation, cuts, limit.max(128 * KIB));
            assert!(runs.len() > 2, "{job:?}: {runs:?}");
        }
    }
}

/// A hundred times slower after a second, and a hundred times faster after ten.
#[test]
fn a_rate_that_changes_by_a_hundred_is_followed() {
    let simulation = Simulation::new().unwrap();
    for job in JOBS {
        let slower =
            CutSeries { job, change: Some((Duration::from_secs(1), 25_000)), ..over(2_500_000, 4_000_000) };
        let runs = run(&simulation, slower, 0);
        // What was left after the first second, and the queue that was filled at the rate before.
        assert!(runs[0].took < Duration::from_secs(110), "{job:?}: {runs:?}");
        let faster =
            CutSeries { job, change: Some((Duration::from_secs(10), 2_500_000)), ..over(25_000, 30_000_000) };
        let runs = run(&simulation, faster, 0);
        assert!(runs[0].took < Duration::from_secs(10 + 12 * 5 / 4 + 3), "{job:?}: {runs:?}");
    }
}

/// 20 Mbit/s with a round trip of a second, for which the shortest chunks are too short.
#[test]
fn a_long_path_is_filled_with_the_default_number_of_chunks() {
    let simulation = Simulation::new().unwrap();
    let delay = Duration::from_millis(500);
    let runs =
        run(&simulation, CutSeries { delay, queue_len_bytes: 2_500_000, ..over(2_500_000, 60_000_000) }, 0);
    let start_and_end = 10 * 2 * delay;
    assert!(runs[0].took < Duration::from_secs(60_000_000 / 2_500_000) + start_and_end, "{runs:?}");
}
