//! `cargo xtask bench cores`: one large file with both programs on one core, on two, and so on.

use anyhow::Result;

use self::platform::Pinned;
use super::contenders::{Contender as _, Ours, slug};
use super::sample::Measured;
use super::workload::{Scenario, Workload};
use super::{Options, lay_one, report, scratch};
use crate::{interrupt, units};

/// Measures and prints the table.
pub(super) fn run(options: &Options) -> Result<()> {
    let (all, shiplanes) = (platform::allowed()?, options.shiplanes()?);
    let scratch = scratch(Scenario::File, options)?;
    let workload = lay_one(Scenario::File, options, &scratch)?;
    let mut ours = Ours::verified(&shiplanes[0]);
    let mut measured: Vec<(usize, Measured)> =
        counts(all.len()).into_iter().map(|cores| (cores, Measured::of(&ours, ""))).collect();
    options.rounds(|round| {
        for (cores, measured) in &mut measured {
            interrupt::check()?;
            let pinned = Pinned::to(&all[..*cores])?;
            let sample = ours.run(&workload)?;
            drop(pinned);
            workload.judge(&slug(&measured.name), round.is_warm_up())?;
            println!("  {round}  {}  {}", on(*cores), units::seconds(sample.time));
            measured.samples.extend((!round.is_warm_up()).then_some(sample));
        }
        Ok(())
    })?;
    let (heading, rows) = (heading(&workload, options, all.len()), rows(&measured, workload.bytes));
    println!("\n{heading}\n\n{}", units::table(&rows));
    match &options.docs {
        Some(docs) => report::write_table(docs, "cores", "What another core brings", &heading, &rows),
        None => Ok(()),
    }
}

/// One, twice as many as before, and so on; at last all.
fn counts(all: usize) -> Vec<usize> {
    let doubled = std::iter::successors(Some(1), |cores: &usize| cores.checked_mul(2));
    doubled.take_while(|cores| *cores < all).chain([all]).collect()
}

/// What each number of cores reaches, and how that compares with one.
fn rows(measured: &[(usize, Measured)], bytes: u64) -> Vec<Vec<String>> {
    let gigabytes = bytes as f64 / 1e9;
    let headings = ["", "time", "runs", "GB/s", "CPU-s/GB", "rate ÷ one core's"];
    let mut rows = vec![headings.map(str::to_owned).to_vec()];
    let one = measured.first().map_or(f64::NAN, |(_, one)| one.seconds());
    for (cores, measured) in measured {
        let (seconds, (low, high)) = (measured.seconds(), measured.spread());
        rows.push(vec![
            on(*cores),
            format!("{seconds:.2} s"),
            format!("{low:.2}–{high:.2}"),
            format!("{:.2}", gigabytes / seconds),
            format!("{:.2}", measured.cpu_seconds() / gigabytes),
            format!("{:.2}", one / seconds),
        ]);
    }
    rows
}

fn on(cores: usize) -> String {
    match cores {
        1 => "1 core".to_owned(),
        cores => format!("{cores} cores"),
    }
}

fn heading(workload: &Workload, options: &Options, all: usize) -> String {
    format!(
        "{} over loopback with `serve` and `get`, verified, both on the same cores: {}. {} {} {}",
        units::megabytes(workload.bytes),
        options.described(),
        report::BEFORE_A_RUN,
        limits(all),
        report::taken(workload),
    )
}

/// What such a machine cannot show.
fn limits(all: usize) -> &'static str {
    match all {
        1 => "There is one core only, so this says nothing of more.",
        2 => "There are two cores only, so this says nothing of more.",
        _ => "The cores are the first ones as the system counts them, which may share their units.",
    }
}

#[cfg(target_os = "linux")]
mod platform {
    //! What this thread may run on, and with it all that it starts.

    use anyhow::{Context as _, Result};
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

    /// The cores that we may use, by the system's numbers.
    pub(super) fn allowed() -> Result<Vec<usize>> {
        let set = sched_getaffinity(None).context("cannot ask for the cores")?;
        Ok((0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).collect())
    }

    /// While this lives, this thread and what it starts keeps to some cores.
    #[derive(Debug)]
    pub(super) struct Pinned {
        before: CpuSet,
    }

    impl Pinned {
        pub(super) fn to(cores: &[usize]) -> Result<Self> {
            let before = sched_getaffinity(None).context("cannot ask for the cores")?;
            let mut set = CpuSet::new();
            cores.iter().for_each(|core| set.set(*core));
            sched_setaffinity(None, &set).context("cannot keep to some cores")?;
            Ok(Self { before })
        }
    }

    impl Drop for Pinned {
        fn drop(&mut self) {
            if let Err(failure) = sched_setaffinity(None, &self.before) {
                eprintln!("warning: cannot go back to all cores: {failure}");
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod platform {
    //! Said before anything is built.

    use anyhow::{Result, bail};

    pub(super) fn allowed() -> Result<Vec<usize>> {
        bail!("only Linux lets a program keep others to some cores")
    }

    #[derive(Debug)]
    pub(super) struct Pinned;

    impl Pinned {
        pub(super) fn to(_cores: &[usize]) -> Result<Self> {
            allowed().map(|_| Self)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::tests::{apart, program};
    use super::*;

    #[test]
    fn the_cores_double_up_to_all() {
        assert_eq!(counts(1), [1]);
        assert_eq!(counts(2), [1, 2]);
        assert_eq!(counts(6), [1, 2, 4, 6]);
        assert_eq!(counts(8), [1, 2, 4, 8]);
    }

    #[test]
    fn more_cores_stand_beside_one() {
        let measured = [
            (1, program("a", &[2000], apart(1000, 1000, 1))),
            (2, program("a", &[1100, 1250, 1300], apart(1100, 1000, 1))),
        ];
        let rows = rows(&measured, 1_000_000_000);
        assert_eq!(rows[1].join("|"), "1 core|2.00 s|2.00–2.00|0.50|2.00|1.00");
        assert_eq!(rows[2].join("|"), "2 cores|1.25 s|1.10–1.30|0.80|2.10|1.60");
        assert!(limits(2).contains("two cores only") && !limits(4).contains("only"));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_is_started_keeps_to_the_same_core_and_only_for_a_while() {
        let all = platform::allowed().unwrap();
        let last = *all.last().unwrap();
        let pinned = Pinned::to(&[last]).unwrap();
        let status = std::process::Command::new("cat").arg("/proc/self/status").output().unwrap().stdout;
        drop(pinned);
        let status = String::from_utf8(status).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap();
        assert_eq!(line.trim(), last.to_string());
        assert_eq!(platform::allowed().unwrap(), all);
    }
}
