//! Describes the machine of a bench.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;

/// The day, for figures that get old. Empty where there is no `date`.
pub(super) fn today() -> String {
    let output = Command::new("date").args(["-u", "+%Y-%m-%d"]).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}

/// Processors in two kinds, by what costs most on one and little on the other. Each has targets and tables of its
/// own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// With instructions for SHA-256.
    A,
    /// Without.
    B,
}

impl Kind {
    /// That of this machine.
    pub(super) fn here() -> Self {
        if features().contains(&SHA) { Self::A } else { Self::B }
    }

    /// As the directory of its tables.
    pub(super) fn slug(self) -> &'static str {
        match self {
            Self::A => "kind-a",
            Self::B => "kind-b",
        }
    }
}

/// Processor, its features, cores and system.
pub(super) fn described() -> String {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name =
        cpuinfo.lines().find(|line| line.starts_with("model name")).and_then(|line| line.split_once(':'));
    let processor = name.map_or(std::env::consts::ARCH, |(_, name)| name.trim());
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    // What distributions append says less.
    let kernel = kernel.trim().split('-').next().unwrap_or_default();
    let (kind, features) = (Kind::here(), features().join(", "));
    let cores = thread::available_parallelism().map_or(1, usize::from);
    format!("{processor} (kind {kind:?}: {features}), {cores} cores, {} {kernel}", std::env::consts::OS)
}

/// The type of the file system that holds `place`.
pub(super) fn file_system(place: &Path) -> String {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    innermost(&mounts, place).unwrap_or_else(|| "a file system".to_owned())
}

/// What this processor can do of what hashing and encryption are made for.
fn features() -> Vec<&'static str> {
    #[cfg(target_arch = "x86_64")]
    let all = [
        (SHA, is_x86_feature_detected!("sha")),
        ("aes", is_x86_feature_detected!("aes")),
        ("vaes", is_x86_feature_detected!("vaes")),
        ("avx2", is_x86_feature_detected!("avx2")),
        ("avx512f", is_x86_feature_detected!("avx512f")),
    ];
    #[cfg(target_arch = "aarch64")]
    let all = [
        (SHA, std::arch::is_aarch64_feature_detected!("sha2")),
        ("aes", std::arch::is_aarch64_feature_detected!("aes")),
    ];
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let all = [(SHA, false)];
    all.into_iter().filter(|(_, is_there)| *is_there).map(|(name, _)| name).collect()
}

const SHA: &str = "instructions for SHA-256";

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
}
