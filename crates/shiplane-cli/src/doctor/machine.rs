//! Checks of this machine.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use indicatif::BinaryBytes;
use shiplane::{DigestAlgorithm, machine};

use super::{Finding, Grade, Machine};

/// Looks at everything. Blocks for about three seconds.
pub(crate) fn check_machine(directory: &Path) -> (Vec<Finding>, Machine) {
    let mut findings = Vec::new();
    match machine::socket_buffers() {
        Ok((wanted, [receive, send])) => {
            findings.push(buffer("receive", "net.core.rmem_max", wanted, receive));
            findings.push(buffer("send", "net.core.wmem_max", wanted, send));
        }
        Err(error) => {
            findings.push(Finding::new("socket_buffer", Grade::Bad, format!("no UDP socket: {error}")));
        }
    }
    findings.extend(interfaces());
    findings.push(clock(SystemTime::now(), is_synchronised()));
    findings.extend(open_files(&fs::read_to_string("/proc/self/limits").unwrap_or_default()));
    let mut measured = Machine::default();
    findings.extend(disk(directory, &mut measured));
    measured.digest = machine::digest_rate(DigestAlgorithm::Blake3);
    measured.encryption = machine::encryption_rate();
    findings.push(processor("digest", "BLAKE3", measured.digest));
    findings.push(processor("digest_sha256", "SHA-256", machine::digest_rate(DigestAlgorithm::Sha256)));
    findings.push(processor("encryption", "AES-128-GCM", measured.encryption));
    (findings, measured)
}

fn buffer(direction: &'static str, setting: &str, wanted: usize, granted: usize) -> Finding {
    let (check, words) = match direction {
        "receive" => ("socket_receive_buffer", "UDP receive buffer"),
        _ => ("socket_send_buffer", "UDP send buffer"),
    };
    let grade = match granted {
        granted if granted >= wanted => Grade::Fine,
        granted if granted >= LEAST_BUFFER_BYTES => Grade::Poor,
        _ => Grade::Bad,
    };
    let [granted_text, wanted_text] = [granted, wanted].map(|bytes| BinaryBytes(bytes as u64));
    Finding::new(check, grade, format!("{words}: {granted_text}, {wanted_text} requested"))
        .value(granted as f64, "bytes")
        .hint(format!("packets may be lost on fast paths; sudo sysctl -w {setting}={wanted}"))
}

/// The interfaces that are up, but for loopback.
fn interfaces() -> Vec<Finding> {
    let Ok(entries) = fs::read_dir("/sys/class/net") else { return Vec::new() };
    let mut mtus = Vec::new();
    for entry in entries.flatten() {
        let read = |file: &str| fs::read_to_string(entry.path().join(file)).unwrap_or_default();
        let name = shiplane::escape(entry.file_name().as_encoded_bytes());
        if let Ok(mtu) = read("mtu").trim().parse::<u64>()
            && name != "lo"
            && read("operstate").trim() != "down"
        {
            mtus.push((name, mtu));
        }
    }
    mtus.sort();
    mtus.iter().map(|(name, mtu)| interface(name, *mtu)).collect()
}

fn interface(name: &str, mtu: u64) -> Finding {
    let grade = match mtu {
        1500.. => Grade::Fine,
        LEAST_MTU_BYTES.. => Grade::Poor,
        _ => Grade::Bad,
    };
    Finding::new("mtu", grade, format!("MTU of {name}: {mtu}")).value(mtu as f64, "bytes").hint(format!(
        "small packets cost processor time; if the network supports it: sudo ip link set {name} mtu 1500"
    ))
}

fn clock(now: SystemTime, is_synchronised: Option<bool>) -> Finding {
    let secs = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let is_plausible = (EARLIEST_SECS..LATEST_SECS).contains(&secs);
    let (grade, words) = match (is_plausible, is_synchronised) {
        (false, _) => (Grade::Bad, "cannot be right"),
        (true, Some(true)) => (Grade::Fine, "synchronised"),
        (true, Some(false)) => (Grade::Poor, "not synchronised"),
        (true, None) => (Grade::Fine, "synchronisation unknown"),
    };
    Finding::new("clock", grade, format!("clock: {words}")).value(secs as f64, "seconds").hint(
        "the clock decides when tickets expire and which version is later; sudo timedatectl set-ntp true",
    )
}

/// Whether something keeps the clock right, as systemd knows it.
fn is_synchronised() -> Option<bool> {
    if Path::new("/run/systemd/timesync/synchronized").exists() {
        return Some(true);
    }
    let mut ask = Command::new("timedatectl");
    ask.args(["show", "--property=NTPSynchronized", "--value"]);
    let answer = ask.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    match answer.stdout.trim_ascii() {
        b"yes" => Some(true),
        b"no" => Some(false),
        _ => None,
    }
}

/// From the system's table of limits.
fn open_files(limits: &str) -> Option<Finding> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    let soft = line.split_whitespace().next()?;
    let soft = if soft == "unlimited" { u64::MAX } else { soft.parse().ok()? };
    let grade = match soft {
        1024.. => Grade::Fine,
        LEAST_OPEN_FILES.. => Grade::Poor,
        _ => Grade::Bad,
    };
    let finding = Finding::new("open_files", grade, format!("open files: at most {soft}"));
    Some(finding.value(soft as f64, "files").hint("raise it for this shell with: ulimit -n 65536"))
}

fn disk(directory: &Path, measured: &mut Machine) -> Vec<Finding> {
    let shown = shiplane::escape(directory.as_os_str().as_encoded_bytes());
    match machine::disk(directory) {
        Ok(([write, read], sync_time)) => {
            (measured.write, measured.read) = (write, read);
            let rate = |check, does, rate| {
                let message = format!("disk of {shown}: {does} {}/s", BinaryBytes(rate));
                Finding::new(check, rate_grade(rate, LEAST_DISK_RATE), message)
                    .value(rate as f64, "bytes_per_second")
                    .hint("choose a DEST on another disk, or find the program that uses this one")
            };
            vec![
                rate("disk_write", "writes and syncs", write),
                rate("disk_read", "reads", read),
                sync(&shown, sync_time),
            ]
        }
        Err(error) => {
            let message = format!("disk of {shown}: cannot be written: {error}");
            vec![Finding::new("disk_write", Grade::Bad, message).hint("check the free space and permissions")]
        }
    }
}

fn sync(shown: &str, time: Duration) -> Finding {
    let grade = if time > SLOW_SYNC { Grade::Poor } else { Grade::Fine };
    Finding::new("disk_sync", grade, format!("disk of {shown}: a small sync takes {time:.1?}"))
        .value(time.as_secs_f64(), "seconds")
        .hint("making many small files durable waits for this; --durability verified does not")
}

fn processor(check: &'static str, name: &str, rate: u64) -> Finding {
    Finding::new(check, rate_grade(rate, LEAST_PROCESSOR_RATE), format!("{name}: {}/s", BinaryBytes(rate)))
        .value(rate as f64, "bytes_per_second")
        .hint("the processor has no instructions for it, or its clock is low")
}

/// Bad at a tenth of what is good enough.
fn rate_grade(rate: u64, enough: u64) -> Grade {
    match rate {
        rate if rate >= enough => Grade::Fine,
        rate if rate >= enough / 10 => Grade::Poor,
        _ => Grade::Bad,
    }
}

/// 64 KiB: some forty packets.
const LEAST_BUFFER_BYTES: usize = 64 << 10;

/// 1,280: what IPv6 needs; QUIC needs 1,200 and its headers.
const LEAST_MTU_BYTES: u64 = 1280;

/// 2025-01-01: this program is younger.
const EARLIEST_SECS: u64 = 1_735_689_600;

/// 2100-01-01.
const LATEST_SECS: u64 = 4_102_444_800;

/// 256: a transfer has some seventy open.
const LEAST_OPEN_FILES: u64 = 256;

/// 20 MB/s: a usual disk writes several times as fast.
const LEAST_DISK_RATE: u64 = 20_000_000;

/// 100 ms: a disk that turns takes 10.
const SLOW_SYNC: Duration = Duration::from_millis(100);

/// 200 MB/s: more than a gigabit.
const LEAST_PROCESSOR_RATE: u64 = 200_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_buffer_is_named_with_the_line_that_raises_it() {
        let found = |granted| buffer("receive", "net.core.rmem_max", 4 << 20, granted);
        assert_eq!((found(4 << 20).grade, found(4 << 20).hint), (Grade::Fine, None));
        let small = found(212_992);
        assert_eq!(small.grade, Grade::Poor);
        assert!(small.hint.unwrap().ends_with("sudo sysctl -w net.core.rmem_max=4194304"));
        assert_eq!(found(4096).grade, Grade::Bad);
    }

    #[test]
    fn grades_follow_the_numbers() {
        let grades = |found: [Finding; 3]| found.map(|found| found.grade);
        let (fine, poor, bad) = (Grade::Fine, Grade::Poor, Grade::Bad);
        assert_eq!(grades([9000, 1400, 576].map(|mtu| interface("eth0", mtu))), [fine, poor, bad]);
        assert_eq!(grades([300, 90, 1].map(|rate| processor("d", "d", rate * 1_000_000))), [fine, poor, bad]);
        let at = |secs| UNIX_EPOCH + Duration::from_secs(secs);
        let now = at(EARLIEST_SECS + 5);
        let clocks = [(now, Some(true)), (now, Some(false)), (at(5), Some(true))];
        assert_eq!(grades(clocks.map(|(now, is)| clock(now, is))), [fine, poor, bad]);
        assert_eq!(clock(now, None).grade, fine);
        let limit = |soft: &str| {
            open_files(&format!("Limit  Soft\nMax open files            {soft}   524288   files\n")).unwrap()
        };
        assert_eq!(grades(["1024", "512", "64"].map(limit)), [fine, poor, bad]);
        assert_eq!(limit("unlimited").grade, fine);
        assert_eq!(open_files(""), None);
    }

    #[test]
    fn a_disk_that_cannot_be_written_is_bad() {
        let found = disk(Path::new("/does/not/exist"), &mut Machine::default());
        assert_eq!((found.len(), found[0].grade), (1, Grade::Bad));
    }
}
