//! What limits transfers: of this machine, of the path to a server, and the ceiling that follows.

mod machine;
mod path;

use std::path::Path;

use indicatif::BinaryBytes;
use shiplane::{Connection, DigestAlgorithm};

use crate::failure::Failure;

pub(crate) use self::machine::check_machine;
pub(crate) use self::path::check_path;

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Finding {
    /// Its name in events.
    pub(crate) check: &'static str,
    pub(crate) grade: Grade,
    /// The number, if it is one.
    pub(crate) value: Option<f64>,
    pub(crate) unit: &'static str,
    /// For people: the thing and what was found.
    pub(crate) message: String,
    /// What to do.
    pub(crate) hint: Option<String>,
}

/// How good it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Grade {
    Fine,
    /// Some transfers could be faster.
    Poor,
    /// Transfers suffer, or fail.
    Bad,
}

impl Grade {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Fine => "fine",
            Self::Poor => "poor",
            Self::Bad => "bad",
        }
    }
}

impl Finding {
    fn new(check: &'static str, grade: Grade, message: impl Into<String>) -> Self {
        Self { check, grade, value: None, unit: "", message: message.into(), hint: None }
    }

    fn value(self, value: f64, unit: &'static str) -> Self {
        Self { value: Some(value), unit, ..self }
    }

    /// What to do, unless it is fine.
    fn hint(self, hint: impl Into<String>) -> Self {
        let hint = (self.grade != Grade::Fine).then(|| hint.into());
        Self { hint, ..self }
    }
}

/// Which way data goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    ToHere,
    ToServer,
}

/// The rates of all that data passes through, in bytes a second: the least of them is the ceiling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ceiling(Vec<(&'static str, u64)>);

impl Ceiling {
    /// The least, and what it is of. What is 0 was not measured.
    pub(crate) fn least(&self) -> Option<(&'static str, u64)> {
        self.0.iter().copied().filter(|(_, rate)| *rate > 0).min_by_key(|(_, rate)| *rate)
    }

    pub(crate) fn parts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.0.iter().copied()
    }

    fn of(machine: &Machine, path: u64, limit: Option<u64>, way: Way) -> Self {
        let disk = match way {
            Way::ToHere => machine.write,
            Way::ToServer => machine.read,
        };
        let parts = [("path", path), ("disk", disk), ("digest", machine.digest), ("AES", machine.encryption)];
        Self(parts.into_iter().chain(limit.map(|limit| ("--rate", limit))).collect())
    }
}

/// The rates of this machine, in bytes a second; 0 if it could not be measured.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Machine {
    digest: u64,
    encryption: u64,
    write: u64,
    read: u64,
}

impl Machine {
    /// Blocks for two or three seconds.
    fn measure(directory: &Path, algorithm: DigestAlgorithm) -> Self {
        let [write, read] = shiplane::machine::disk(directory).map_or([0; 2], |(rates, _)| rates);
        let (digest, encryption) =
            (shiplane::machine::digest_rate(algorithm), shiplane::machine::encryption_rate());
        Self { digest, encryption, write, read }
    }
}

/// What `--explain` compares a run with: measured right before it.
#[derive(Debug, Clone)]
pub(crate) struct Prediction {
    ceilings: Vec<(Way, Ceiling)>,
}

impl Prediction {
    /// Measures this machine and the path, in the directions that data may go.
    pub(crate) async fn measure(
        connection: &Connection,
        ways: &[Way],
        directory: &Path,
        algorithm: DigestAlgorithm,
        limit: Option<u64>,
    ) -> Result<Self, Failure> {
        let directory = existing(directory);
        let machine = tokio::task::spawn_blocking(move || Machine::measure(&directory, algorithm));
        let machine = machine.await.map_err(|_| Failure::Interrupted)?;
        let mut ceilings = Vec::new();
        for way in ways {
            // What is wrong with the connection, the run itself says.
            let path = connection.measure(*way == Way::ToServer).await.unwrap_or_default();
            ceilings.push((*way, Ceiling::of(&machine, path, limit, *way)));
        }
        Ok(Self { ceilings })
    }

    /// The ceiling of the way that most has gone, and how much went that way in a second.
    pub(crate) fn compare(&self, received: u64, sent: u64, seconds: f64) -> Option<Explained<'_>> {
        let bytes = |way| if way == Way::ToHere { received } else { sent };
        let (way, ceiling) = self.ceilings.iter().max_by_key(|(way, _)| bytes(*way))?;
        let (limited_by, predicted) = ceiling.least()?;
        let actual = (bytes(*way) as f64 / seconds.max(MIN_SECONDS)) as u64;
        let is_long_enough = bytes(*way) >= MIN_BYTES;
        Some(Explained { actual, predicted, limited_by, is_long_enough, ceiling })
    }
}

/// The rate of a run and the predicted rate, in bytes per second.
#[derive(Debug)]
pub(crate) struct Explained<'a> {
    pub(crate) actual: u64,
    pub(crate) predicted: u64,
    pub(crate) limited_by: &'static str,
    /// Else the beginning and the end of the run count for more than the rest.
    pub(crate) is_long_enough: bool,
    pub(crate) ceiling: &'a Ceiling,
}

impl Explained<'_> {
    pub(crate) fn ratio(&self) -> f64 {
        (100.0 * self.actual as f64 / self.predicted.max(1) as f64).round() / 100.0
    }

    /// The line for people.
    pub(crate) fn line(&self) -> String {
        let rate = |rate| format!("{}/s", BinaryBytes(rate));
        let others: Vec<_> = self
            .ceiling
            .parts()
            .filter(|(_, rate)| *rate > 0)
            .map(|(of, is)| format!("{of} {}", rate(is)))
            .collect();
        let short = if self.is_long_enough { "" } else { "; too little data to compare" };
        format!(
            "explained: {} ÷ {} predicted = {:.2}{short}; the lowest of {}",
            rate(self.actual),
            rate(self.predicted),
            self.ratio(),
            others.join(", ")
        )
    }
}

/// The directory itself, or the nearest above it that exists.
fn existing(directory: &Path) -> std::path::PathBuf {
    let above = directory.ancestors().find(|above| above.is_dir() && !above.as_os_str().is_empty());
    above.unwrap_or_else(|| Path::new(".")).to_owned()
}

/// What `doctor` says of a machine and a path: one line a ceiling.
pub(crate) fn ceilings(machine: &Machine, rates: [u64; 2]) -> [(Way, Ceiling); 2] {
    [Way::ToHere, Way::ToServer].map(|way| {
        let path = rates[usize::from(way == Way::ToServer)];
        (way, Ceiling::of(machine, path, None, way))
    })
}

/// 8 MiB.
const MIN_BYTES: u64 = 8 << 20;

/// Avoids a division by zero for very short runs.
const MIN_SECONDS: f64 = 0.001;

#[cfg(test)]
mod tests {
    use super::*;

    const MACHINE: Machine = Machine { digest: 2000, encryption: 3000, write: 500, read: 900 };

    #[test]
    fn the_ceiling_is_the_lowest_measured_rate() {
        assert_eq!(Ceiling::of(&MACHINE, 700, None, Way::ToHere).least(), Some(("disk", 500)));
        assert_eq!(Ceiling::of(&MACHINE, 700, None, Way::ToServer).least(), Some(("path", 700)));
        assert_eq!(Ceiling::of(&MACHINE, 700, Some(100), Way::ToServer).least(), Some(("--rate", 100)));
        // Of a disk that cannot be measured, nothing is known.
        let machine = Machine { write: 0, ..MACHINE };
        assert_eq!(Ceiling::of(&machine, 0, None, Way::ToHere).least(), Some(("digest", 2000)));
    }

    #[test]
    fn a_run_is_compared_in_the_direction_that_most_went() {
        let ceilings =
            [Way::ToHere, Way::ToServer].map(|way| (way, Ceiling::of(&MACHINE, 400 << 20, None, way)));
        let prediction = Prediction { ceilings: ceilings.to_vec() };
        let explained = prediction.compare(1000, 0, 4.0).unwrap();
        assert_eq!((explained.actual, explained.predicted, explained.limited_by), (250, 500, "disk"));
        assert_eq!((explained.ratio(), explained.is_long_enough), (0.5, false));
        assert!(explained.line().starts_with("explained: 250 B/s ÷ 500 B/s predicted = 0.50; too little"));
        let explained = prediction.compare(1000, 9 << 20, 1.0).unwrap();
        assert_eq!((explained.predicted, explained.is_long_enough), (900, true));
    }

    #[test]
    fn the_disk_is_that_of_the_directory_that_will_be_made() {
        let dir = tempfile::TempDir::new().unwrap();
        assert_eq!(existing(&dir.path().join("new/deep")), dir.path());
        assert_eq!(existing(Path::new("does-not-exist/x")), Path::new("."));
        assert_eq!(existing(Path::new("")), Path::new("."));
    }
}
