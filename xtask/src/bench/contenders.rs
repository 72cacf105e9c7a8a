//! The programs that are compared: each starts its server on loopback, carries the item once, and says
//! what both sides used. What is not installed is named, with what to install.

mod lane;
mod nginx;
mod ours;
mod qcp;
mod raw;
mod rsync;
mod scp;
mod sendme;
pub(crate) mod ssh;

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

pub(super) use self::lane::Lane;
pub(super) use self::nginx::NAME as NGINX;
pub(super) use self::ours::{DURABLE, Ours, SYNC, VERIFIED};
pub(super) use self::raw::Raw;
pub(super) use self::rsync::DAEMON;
pub(super) use self::scp::NAME as SCP;
use super::sample::{Measured, Sample, Used};
use super::workload::{Scenario, Workload};
use super::{Options, Round};
use crate::process::{self, Exit, Running, Signal};
use crate::shiplane::Shiplane;
use crate::{interrupt, units};

/// A program that can carry the item.
pub(super) trait Contender {
    /// How the tables call it.
    fn name(&self) -> &str;

    /// What it checks of what arrives.
    fn checks(&self) -> &'static str;

    /// Its own word.
    fn version(&self) -> String;

    /// Whether the comparison goes on without it.
    fn is_optional(&self) -> bool {
        true
    }

    /// Carries the item once. Preparing and tidying up are not timed.
    fn run(&mut self, workload: &Workload) -> Result<Sample>;
}

/// What the contenders are made of.
#[derive(Debug)]
pub(super) struct Tools {
    shiplanes: Vec<Shiplane>,
    peer_dir: Option<PathBuf>,
}

impl Tools {
    /// The programs of ours that were named, or else the one that is built here.
    pub(super) fn gather(options: &Options) -> Result<Self> {
        Ok(Self { shiplanes: options.shiplanes()?, peer_dir: options.peer_dir.clone() })
    }

    /// Where a program is, if it is installed.
    fn find(&self, program: &str) -> Option<PathBuf> {
        let ours = self.peer_dir.iter().map(|directory| directory.join(program));
        ours.into_iter().find(|path| path.is_file()).or_else(|| process::find_program(program))
    }
}

/// The programs that will run, and why others will not.
pub(super) struct Field<'a> {
    entrants: Vec<Entrant<'a>>,
    pub(super) missing: Vec<String>,
}

/// A contender with what it carries.
struct Entrant<'a> {
    contender: Box<dyn Contender>,
    workload: &'a Workload,
    measured: Measured,
}

/// A contender, or why it is missing.
type Found = Result<Box<dyn Contender>, String>;

impl<'a> Field<'a> {
    /// These, and none is missing.
    pub(super) fn of(contenders: Vec<Box<dyn Contender>>, workload: &'a Workload) -> Self {
        let entrants = contenders.into_iter().map(|contender| Entrant::new(contender, workload)).collect();
        Self { entrants, missing: Vec::new() }
    }

    /// Ours and the peers; on a disk ours and those that matter there.
    pub(super) fn gather(tools: &Tools, workloads: &'a [Workload], options: &Options) -> Result<Self> {
        let mut field = Self { entrants: Vec::new(), missing: Vec::new() };
        for workload in workloads {
            let mut missing = Vec::new();
            let contenders = ours::all(&tools.shiplanes, workload.scenario);
            field.entrants.extend(Self::of(contenders, workload).entrants);
            let runs = |peer: &&Peer| peer.runs_on_disk || workload.suffix.is_empty();
            for peer in PEERS.iter().filter(runs).filter(|peer| options.includes(peer.name)) {
                if let Some(reason) = (peer.unfit)(workload.scenario) {
                    missing.push(format!("left out: {}: {reason}", peer.name));
                    continue;
                }
                match (peer.find)(tools, workload)? {
                    Ok(contender) => field.entrants.push(Entrant::new(contender, workload)),
                    Err(reason) => missing.push(format!("missing: {}: {reason}", peer.name)),
                }
            }
            if workload.suffix.is_empty() {
                field.missing = missing;
            }
        }
        Ok(field)
    }

    /// Rounds in which every program has its turn, so that a slow minute of the machine hits all. A program that is
    /// not ours and fails in the first one, which is not counted, is missing from then on.
    pub(super) fn measure(&mut self, options: &Options) -> Result<Vec<Measured>> {
        options.rounds(|round| {
            for mut entrant in std::mem::take(&mut self.entrants) {
                interrupt::check()?;
                match entrant.run(round) {
                    Ok(()) => self.entrants.push(entrant),
                    Err(failure) if round.is_warm_up() && entrant.contender.is_optional() => {
                        interrupt::check()?;
                        println!("  {round}  {}", failure);
                        self.missing.push(format!("missing: {failure:#}"));
                        entrant.workload.clear(&slug(entrant.contender.name()))?;
                    }
                    Err(failure) => return Err(failure),
                }
            }
            Ok(())
        })?;
        Ok(std::mem::take(&mut self.entrants).into_iter().map(|entrant| entrant.measured).collect())
    }
}

impl<'a> Entrant<'a> {
    fn new(contender: Box<dyn Contender>, workload: &'a Workload) -> Self {
        let measured = Measured::of(&*contender, &workload.suffix);
        Self { contender, workload, measured }
    }

    /// Carries the item once, looks at what arrived, and keeps the figures if they count.
    fn run(&mut self, round: Round) -> Result<()> {
        let Self { contender, workload, measured } = self;
        let name = &measured.name;
        let sample = contender.run(workload).with_context(|| format!("{name} failed"))?;
        let judged = workload.judge(&slug(contender.name()), round.is_warm_up());
        judged.with_context(|| format!("{name} failed"))?;
        println!("  {round}  {name:28} {}", units::seconds(sample.time));
        measured.samples.extend((!round.is_warm_up()).then_some(sample));
        Ok(())
    }
}

/// A program that others have written.
struct Peer {
    name: &'static str,
    /// Whether it has a row for the disk.
    runs_on_disk: bool,
    /// Why it has no place in a scenario.
    unfit: fn(Scenario) -> Option<&'static str>,
    find: fn(&Tools, &Workload) -> Result<Found>,
}

const PEERS: [Peer; 6] = [
    Peer { name: scp::NAME, runs_on_disk: false, unfit: copies_all_again, find: scp::Scp::find },
    Peer { name: rsync::OVER_SSH, runs_on_disk: false, unfit: fits, find: rsync::over_ssh },
    Peer { name: DAEMON, runs_on_disk: true, unfit: fits, find: rsync::daemon },
    Peer { name: nginx::NAME, runs_on_disk: true, unfit: one_file_only, find: nginx::Nginx::find },
    Peer { name: sendme::NAME, runs_on_disk: false, unfit: copies_all_again, find: sendme::Sendme::find },
    Peer { name: qcp::NAME, runs_on_disk: false, unfit: copies_all_again, find: qcp::Qcp::find },
];

fn fits(_: Scenario) -> Option<&'static str> {
    None
}

fn copies_all_again(scenario: Scenario) -> Option<&'static str> {
    matches!(scenario, Scenario::Unchanged | Scenario::Edited).then_some("copies everything again")
}

fn one_file_only(scenario: Scenario) -> Option<&'static str> {
    (scenario != Scenario::File).then_some("carries one file, from its beginning to its end")
}

/// A contender's directory.
pub(super) fn slug(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect()
}

/// The first line that a program prints with `option`, on whichever output.
pub(crate) fn version_line(program: &Path, option: &str) -> String {
    let output = Command::new(program).arg(option).stdin(Stdio::null()).output();
    let Ok(output) = output else { return String::new() };
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().next().unwrap_or_default();
    // What else it was built with is of no interest.
    line.split(['(', ',']).next().unwrap_or_default().trim().chars().take(60).collect()
}

/// A port that nobody has now. It is given back before the server takes it: a race, but only against
/// programs that ask for it by number.
fn free_port() -> Result<u16> {
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port")?;
    Ok(free.local_addr().context("no free port")?.port())
}

/// Waits until a server takes connections.
pub(crate) fn await_listening(server: &mut Running, name: &str, port: u16) -> Result<()> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let started = Instant::now();
    while TcpStream::connect(address).is_err() {
        interrupt::check()?;
        if let Some(exit) = server.poll()? {
            bail!("{name} ended with {}", exit.status);
        }
        if started.elapsed() > START_LIMIT {
            bail!("{name} does not listen");
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Ends a server once it has reaped the process that served: only then does what that one used count as
/// its own.
fn stop_forking(server: Running) -> Result<Exit> {
    let started = Instant::now();
    while has_children(server.pid()) && started.elapsed() < START_LIMIT {
        interrupt::check()?;
        std::thread::sleep(Duration::from_millis(1));
    }
    server.signal(Signal::Terminate)?;
    server.wait(START_LIMIT)
}

/// False too where the kernel does not say.
fn has_children(pid: u32) -> bool {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    children.is_ok_and(|children| !children.trim().is_empty())
}

fn apart(sender: Exit, receiver: Exit) -> Used {
    Used::Apart { sender: sender.used, receiver: receiver.used }
}

/// A server only reads its configuration and binds a socket, and ends at once when asked.
const START_LIMIT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Lines;

    #[test]
    fn our_own_children_are_seen() {
        if !cfg!(target_os = "linux") {
            return;
        }
        let mut command = Command::new("sh");
        // A background job's standard input is /dev/null unless it is given another.
        let script = "exec 3<&0; sh -c 'read line <&3' & echo ready; wait";
        command.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut shell = Running::start("sh", &mut command).unwrap();
        let lines = Lines::of(shell.take_stdout().unwrap());
        assert_eq!(lines.next_within(START_LIMIT).unwrap().as_deref(), Some("ready"));
        let pid = shell.pid();
        assert!(has_children(pid));
        drop(shell);
        assert!(!has_children(pid));
    }

    #[test]
    fn a_server_that_ends_is_not_waited_for() {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.arg("--list").stdout(Stdio::null());
        let mut running = Running::start("lister", &mut command).unwrap();
        // Nobody ever listens there.
        let failure = await_listening(&mut running, "lister", 0).unwrap_err();
        assert!(failure.to_string().starts_with("lister ended"), "{failure}");
    }

    #[test]
    fn who_copies_everything_has_no_place_where_there_is_nothing_to_copy() {
        let unfit = |scenario| -> Vec<&str> {
            PEERS.iter().filter(|peer| (peer.unfit)(scenario).is_some()).map(|peer| peer.name).collect()
        };
        assert!(unfit(Scenario::File).is_empty());
        assert_eq!(unfit(Scenario::Small), [nginx::NAME]);
        assert_eq!(unfit(Scenario::Unchanged), unfit(Scenario::Edited));
        assert_eq!(unfit(Scenario::Edited).len(), PEERS.len() - 2);
    }

    #[test]
    fn a_slug_is_a_file_name() {
        assert_eq!(slug("scp, aes128/gcm"), "scp--aes128-gcm");
    }
}
