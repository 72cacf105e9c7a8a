//! Describes the machine of a bench.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;

/// The day, for figures that get old. Empty where there is no `date`.
pub(crate) fn today() -> String {
    let output = Command::new("date").args(["-u", "+%Y-%m-%d"]).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}

/// Processors in two kinds, by what costs most on one and little on the other. Each has targets and tables of its
/// own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// With instructions for SHA-256.
    A,
    /// Without.
    B,
}

impl Kind {
    /// That of this machine.
    pub(crate) fn here() -> Self {
        Self::of(&cpuinfo())
    }

    fn of(cpuinfo: &str) -> Self {
        let features = features(cpuinfo);
        if ["sha_ni", "sha2"].iter().any(|sha| features.contains(sha)) { Self::A } else { Self::B }
    }

    /// As the directory of its tables.
    pub(crate) fn slug(self) -> &'static str {
        match self {
            Self::A => "kind-a",
            Self::B => "kind-b",
        }
    }
}

/// Processor, its features, cores and system.
pub(crate) fn described() -> String {
    let (cores, cpuinfo) = (thread::available_parallelism().map_or(1, usize::from), cpuinfo());
    let processor = model_name(&cpuinfo).unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    // What distributions append says less.
    let kernel = kernel.trim().split('-').next().unwrap_or_default();
    let system = format!("{} {kernel}", std::env::consts::OS);
    let (kind, features) = (Kind::of(&cpuinfo), told_features(&cpuinfo));
    format!("{processor} (kind {kind:?}: {features}), {cores} cores, {}", system.trim())
}

/// The type of the file system that holds `place`.
pub(crate) fn file_system(place: &Path) -> String {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    innermost(&mounts, place).unwrap_or_else(|| "a file system".to_owned())
}

fn cpuinfo() -> String {
    fs::read_to_string("/proc/cpuinfo").unwrap_or_default()
}

/// What the first processor can do.
fn features(cpuinfo: &str) -> Vec<&str> {
    let line = cpuinfo.lines().find(|line| line.starts_with("flags") || line.starts_with("Features"));
    let words = line.and_then(|line| line.split_once(':')).map_or("", |(_, words)| words);
    words.split_whitespace().collect()
}

/// Which of the features that matter here it has, and which it has not.
fn told_features(cpuinfo: &str) -> String {
    let features = features(cpuinfo);
    let (has, lacks): (Vec<&str>, Vec<&str>) = FEATURES.iter().partition(|name| features.contains(name));
    match (has.is_empty(), lacks.is_empty()) {
        (true, _) => "no known features".to_owned(),
        (_, true) => has.join(", "),
        (false, false) => format!("{}, without {}", has.join(", "), lacks.join(", ")),
    }
}

/// What hashing and encryption are made for.
const FEATURES: [&str; 5] = ["aes", "avx2", "avx512f", "vaes", "sha_ni"];

fn model_name(cpuinfo: &str) -> Option<String> {
    let line = cpuinfo.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// The type of the innermost mount that holds `place`.
fn innermost(mounts: &str, place: &Path) -> Option<String> {
    let mounts = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        Some((Path::new(words.next()?), words.next()?))
    });
    let holding = mounts.filter(|(at, _)| place.starts_with(at));
    let innermost = holding.max_by_key(|(at, _)| at.components().count())?;
    Some(innermost.1.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_mount_counts() {
        let mounts = "/dev/a / ext4 rw 0 0\ntmpfs /dev/shm tmpfs rw 0 0\nproc /proc proc rw 0 0\n";
        assert_eq!(innermost(mounts, Path::new("/dev/shm/x")).as_deref(), Some("tmpfs"));
        assert_eq!(innermost(mounts, Path::new("/tmp")).as_deref(), Some("ext4"));
        assert_eq!(innermost("", Path::new("/")), None);
    }

    #[test]
    fn the_kind_and_the_features_are_those_of_the_processor() {
        let old = "flags\t\t: fpu aes avx2 avx512f\n";
        assert_eq!((Kind::of(old), Kind::of("flags : sha_ni\n")), (Kind::B, Kind::A));
        assert_eq!(told_features(old), "aes, avx2, avx512f, without vaes, sha_ni");
    }
}
