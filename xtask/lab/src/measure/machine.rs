//! Describes the machine of a bench, and keeps it busy.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use anyhow::Result;
use procfs::Current as _;
use xtask::process::{self, Running};

/// The day, for figures that get old. Empty where there is no `date`.
pub(super) fn today() -> String {
    process::output("date", Command::new("date").args(["-u", "+%Y-%m-%d"])).unwrap_or_default()
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
        if features().iter().any(|feature| feature.starts_with("sha")) { Self::A } else { Self::B }
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

/// What this processor can do of what hashing and encryption are made for, as the kernel calls it on x86-64 or AArch64.
fn features() -> Vec<&'static str> {
    let flags = processor("flags").or_else(|| processor("Features")).unwrap_or_default();
    let has = |flag: &&str| flags.split(' ').any(|has| has == *flag);
    ["sha_ni", "sha2", "aes", "vaes", "avx2", "avx512f"].into_iter().filter(has).collect()
}

/// What the kernel says of the first processor.
fn processor(name: &str) -> Option<String> {
    procfs::CpuInfo::current().ok()?.get_field(0, name).map(str::to_owned)
}

/// One program of our own priority for each core, none of which ever rests. Killed when dropped.
pub(super) fn keep_busy() -> Result<Vec<Running>> {
    let start = |_| {
        let mut command = Command::new("sh");
        command.args(["-c", SPIN, "spin", &std::process::id().to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Running::start("a busy program", &mut command)
    };
    (0..thread::available_parallelism().map_or(1, usize::from)).map(start).collect()
}

/// Counts for as long as the process whose id it is given lives, should that be killed before it kills us.
const SPIN: &str = "while kill -0 $1; do i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; done";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_mount_counts() {
        assert_eq!(file_system(Path::new("/proc/self")), "proc");
    }
}
