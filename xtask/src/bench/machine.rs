//! On what a bench ran: figures without it say nothing.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;

/// The day, for figures that get old. Empty where there is no `date`.
pub(super) fn today() -> String {
    let output = Command::new("date").args(["-u", "+%Y-%m-%d"]).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}

/// Processor, cores, system, and what lies beneath `place`.
pub(super) fn described(place: &Path) -> String {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let beneath = file_system(&mounts, place).unwrap_or_else(|| "a file system".to_owned());
    format!("{}, from and to {beneath}", named())
}

/// Processor, cores and system.
pub(super) fn named() -> String {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let processor = fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| model_name(&text));
    let processor = processor.unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    // What distributions append says less.
    let kernel = kernel.trim().split('-').next().unwrap_or_default();
    let system = format!("{} {kernel}", std::env::consts::OS);
    format!("{processor}, {cores} cores, {}", system.trim())
}

/// The most memory that this process has held. The kernel tells no lower peak of a child: it counts from
/// the fork on. None where it does not say.
pub(super) fn own_peak_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok().map(|kib: u64| kib << 10)
}

fn model_name(cpuinfo: &str) -> Option<String> {
    let line = cpuinfo.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// The type of the innermost mount that holds `place`.
fn file_system(mounts: &str, place: &Path) -> Option<String> {
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
        assert_eq!(file_system(mounts, Path::new("/dev/shm/x")).as_deref(), Some("tmpfs"));
        assert_eq!(file_system(mounts, Path::new("/tmp")).as_deref(), Some("ext4"));
        assert_eq!(file_system("", Path::new("/")), None);
    }

    #[test]
    fn our_own_peak_is_known_on_linux() {
        if cfg!(target_os = "linux") {
            assert!(own_peak_bytes().unwrap() > 1 << 20);
        }
    }

    #[test]
    fn a_processor_has_a_name() {
        assert_eq!(model_name("processor : 0\nmodel name\t: A B\n").as_deref(), Some("A B"));
        assert_eq!(model_name("processor : 0\n"), None);
    }
}
