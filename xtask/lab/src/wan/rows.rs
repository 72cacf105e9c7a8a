//! The rows of the tables: link, workload, target.

use anyhow::{Result, bail};
use xtask::driver::Verb;

use super::pipe::{Conditions, Freeze};

/// One link with one workload.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) link: Conditions,
    /// The data always travels in the same direction.
    pub(super) verb: Verb,
    pub(super) workload: Workload,
    /// Whether other programs keep all cores busy.
    pub(super) is_busy: bool,
    pub(super) must: Must,
}

/// What is carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Workload {
    /// One file of 128 MiB, or less where the link takes more than so many seconds for it.
    Bulk { seconds: u64 },
    /// One file of 1 MB, measured in round trips.
    Small,
    /// Ten thousand small files.
    Tree,
    /// More than the link carries in 120 s; every program is killed after 60 s and after 120 s.
    Cut,
}

/// The least that our program must reach.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Must {
    /// 1.03 times the time of the perfect window in the same run, and three round trips.
    PerfectWindow,
    /// The rate of rsync's daemon over TCP BBR in the same run.
    TcpBbr,
    /// A fraction of the link.
    OfLink(f64),
    /// So many round trips at most.
    RoundTrips(f64),
    /// No target.
    Nothing,
}

impl Row {
    const fn bulk(name: &'static str, link: Conditions, must: Must) -> Self {
        let workload = Workload::Bulk { seconds: 20 };
        Self { name, link, verb: Verb::Get, workload, is_busy: false, must }
    }

    const fn frozen(name: &'static str, len_ms: f64, every_ms: f64) -> Self {
        let link = Conditions { freeze: Some(Freeze { len_ms, every_ms }), ..FIRST };
        Self::bulk(name, link, Must::TcpBbr)
    }

    const fn asymmetric(name: &'static str, rate_mbit: f64, back_mbit: f64, verb: Verb) -> Self {
        let link = Conditions { back_mbit, ..Conditions::new(50.0, rate_mbit, 0.0) };
        Self { verb, ..Self::bulk(name, link, Must::PerfectWindow) }
    }

    const fn small(name: &'static str, rtt_ms: f64) -> Self {
        let link = Conditions::new(rtt_ms, 200.0, 0.0);
        Self { workload: Workload::Small, ..Self::bulk(name, link, Must::RoundTrips(6.0)) }
    }

    const fn tree(name: &'static str, verb: Verb) -> Self {
        Self { workload: Workload::Tree, verb, ..Self::bulk(name, FIRST, Must::Nothing) }
    }

    const fn cut(name: &'static str, kbit: u32) -> Self {
        let link = Conditions { bucket_kbit: Some(kbit), ..Conditions::new(50.0, 100.0, 0.0) };
        Self { workload: Workload::Cut, ..Self::bulk(name, link, Must::Nothing) }
    }

    /// What the link carries, in Mbit/s.
    pub(super) fn link_mbit(&self) -> f64 {
        self.link.bucket_kbit.map_or(self.link.rate_mbit, |kbit| f64::from(kbit) / 1e3)
    }

    /// The size of the one file.
    pub(super) fn file_bytes(&self) -> u64 {
        let carried_bytes = |seconds: u64| (self.link_mbit() * 125_000.0 * seconds as f64) as u64;
        match self.workload {
            Workload::Bulk { seconds } => (carried_bytes(seconds) & !(MIB - 1)).min(128 * MIB),
            Workload::Small => 1_000_000,
            Workload::Tree => 0,
            Workload::Cut => carried_bytes(120),
        }
    }
}

/// The rows whose names begin with one of `only`, or all.
pub(super) fn chosen(only: &[String]) -> Result<Vec<Row>> {
    let is_chosen = |name: &str| only.is_empty() || only.iter().any(|begin| name.starts_with(begin.as_str()));
    if let Some(unknown) = only.iter().find(|begin| !names().any(|name| name.starts_with(begin.as_str()))) {
        bail!("no row begins with `{unknown}`; there are {}", names().collect::<Vec<_>>().join(", "));
    }
    Ok(ROWS.into_iter().filter(|row| is_chosen(row.name)).collect())
}

/// In the order of the tables.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    ROWS.iter().map(|row| row.name).chain([SHARES])
}

/// What `--only` calls the table of shares.
pub(super) const SHARES: &str = "shares";

/// Two quick rows.
pub(super) const SHORT: [&str; 2] = ["1mb-50", "push"];

const FIRST: Conditions = Conditions::new(50.0, 200.0, 0.0);

const ROWS: [Row; 26] = [
    Row::bulk("50-200-0", FIRST, Must::PerfectWindow),
    Row::bulk("50-200-1", Conditions::new(50.0, 200.0, 1.0), Must::PerfectWindow),
    Row::bulk("50-200-3", Conditions::new(50.0, 200.0, 3.0), Must::PerfectWindow),
    Row::bulk("200-200-0.1", Conditions::new(200.0, 200.0, 0.1), Must::PerfectWindow),
    Row::bulk("100-500-0.5", Conditions::new(100.0, 500.0, 0.5), Must::PerfectWindow),
    Row { is_busy: true, ..Row::bulk("busy", FIRST, Must::TcpBbr) },
    Row::frozen("freeze-20", 20.0, 500.0),
    Row::frozen("freeze-60", 60.0, 2000.0),
    Row::frozen("freeze-150", 150.0, 5000.0),
    Row::bulk("loss-5", Conditions::new(50.0, 200.0, 5.0), Must::OfLink(0.80)),
    Row::bulk("loss-10", Conditions::new(50.0, 200.0, 10.0), Must::OfLink(0.75)),
    // Both carry what their links do in forty round trips, as their target says.
    Row::bulk("rtt-500", Conditions::new(500.0, 50.0, 0.0), Must::OfLink(0.80)),
    Row {
        workload: Workload::Bulk { seconds: 40 },
        ..Row::bulk("rtt-1000", Conditions::new(1000.0, 20.0, 0.0), Must::OfLink(0.80))
    },
    Row::asymmetric("down-200-5", 200.0, 5.0, Verb::Get),
    Row::asymmetric("up-20-100", 20.0, 100.0, Verb::Push),
    Row { verb: Verb::Push, ..Row::bulk("push", FIRST, Must::PerfectWindow) },
    Row { verb: Verb::Sync, ..Row::bulk("sync", FIRST, Must::PerfectWindow) },
    Row::small("1mb-50", 50.0),
    Row::small("1mb-200", 200.0),
    Row::tree("tree-get", Verb::Get),
    Row::tree("tree-push", Verb::Push),
    Row::tree("tree-sync", Verb::Sync),
    Row::cut("slow-64", 64),
    Row::cut("slow-256", 256),
    Row::cut("slow-700", 700),
    Row::cut("slow-2400", 2400),
];

const MIB: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_takes_twenty_seconds_or_has_128_mib() {
        let bytes = |name: &str| chosen(&[name.to_owned()]).unwrap()[0].file_bytes();
        assert_eq!(bytes("50-200-0"), 128 << 20);
        assert_eq!(bytes("rtt-500"), 119 << 20);
        assert_eq!(bytes("slow-64"), 960_000);
    }

    #[test]
    fn rows_are_chosen_by_how_their_names_begin() {
        let names = |only: &[&str]| -> Result<Vec<&str>> {
            let only: Vec<String> = only.iter().map(ToString::to_string).collect();
            Ok(chosen(&only)?.iter().map(|row| row.name).collect())
        };
        assert_eq!(names(&["freeze"]).unwrap(), ["freeze-20", "freeze-60", "freeze-150"]);
        assert_eq!(names(&["1mb-50", "busy"]).unwrap(), ["busy", "1mb-50"]);
        assert_eq!(names(&[SHARES]).unwrap(), [""; 0]);
        assert_eq!(names(&[]).unwrap().len(), ROWS.len());
        assert!(names(&["nowhere"]).unwrap_err().to_string().contains("50-200-0"));
        assert_eq!(names(&SHORT).unwrap().len(), SHORT.len());
    }
}
