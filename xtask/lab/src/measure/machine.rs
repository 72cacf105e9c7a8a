//! Describes the machine of a bench.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;

use procfs::Current as _;

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
    pub(super) fn slug(self) -> String {
        format!("kind-{self:?}").to_lowercase()
    }
}

/// Processor, its features, cores and system.
pub(super) fn described() -> String {
    let processor = processor("model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    // What distributions append says less.
    let kernel = kernel.trim().split('-').next().unwrap_or_default();
    let (kind, features) = (Kind::here(), features().join(", "));
    let cores = thread::available_parallelism().map_or(1, usize::from);
    format!("{processor} (kind {kind:?}: {features}), {cores} cores, {} {kernel}", std::env::consts::OS)
}

/// The type of the file system that holds `place`: that of the innermost mount.
pub(super) fn file_system(place: &Path) -> String {
    let mounts = procfs::mounts().unwrap_or_default();
    let holding = mounts.into_iter().filter(|mount| place.starts_with(&mount.fs_file));
    let innermost = holding.max_by_key(|mount| Path::new(&mount.fs_file).components().count());
    innermost.map_or_else(|| "a file system".to_owned(), |mount| mount.fs_vfstype)
}

/// What this processor can do of what hashing and encryption are made for.
fn features() -> Vec<&'static str> {
    // As x86-64 has them, or AArch64.
    let flags = processor("flags").or_else(|| processor("Features")).unwrap_or_default();
    let has = |flag: &str| flags.split(' ').any(|has| has == flag);
    let all = [
        ("sha_ni", SHA),
        ("sha2", SHA),
        ("aes", "aes"),
        ("vaes", "vaes"),
        ("avx2", "avx2"),
        ("avx512f", "avx512f"),
    ];
    all.into_iter().filter(|(flag, _)| has(flag)).map(|(_, name)| name).collect()
}

/// What the kernel says of the first processor.
fn processor(name: &str) -> Option<String> {
    procfs::CpuInfo::current().ok()?.get_field(0, name).map(str::to_owned)
}

const SHA: &str = "instructions for SHA-256";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_mount_counts() {
        assert_eq!(file_system(Path::new("/proc/self")), "proc");
    }
}
