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
mod ssh;

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

pub(super) use self::lane::Lane;
pub(super) use self::nginx::NAME as NGINX;
pub(super) use self::ours::{DURABLE, Ours, SYNC, VERIFIED};
pub(super) use self::raw::NAME as RAW;
use self::raw::Raw;
pub(super) use self::rsync::DAEMON;
pub(super) use self::scp::NAME as SCP;
use super::Options;
use super::course::{Course, Scenario};
use super::sample::{Measured, Sample, Used};
use crate::process::{self, Exit, Running, Signal};
use crate::shiplane::Shiplane;
use crate::{interrupt, units};

/// A program that can carry the item.
pub(super) trait Contender {
    /// How the tables call it.
    fn name(&self) -> &'static str;

    /// What it checks of what arrives.
    fn checks(&self) -> &'static str;

    /// Its own word.
    fn version(&self) -> String;

    /// Whether the comparison goes on without it.
    fn is_optional(&self) -> bool {
        true
    }

    /// Carries the item once. Preparing and tidying up are not timed.
    fn run(&mut self, course: &Course) -> Result<Sample>;
}

/// What the contenders are made of.
#[derive(Debug)]
pub(super) struct Tools {
    shiplane: Shiplane,
    raw: Result<Raw, String>,
    peer_dir: Option<PathBuf>,
}

impl Tools {
    /// Builds what is ours.
    pub(super) fn build(options: &Options) -> Result<Self> {
        println!("building shiplane and the reference programs in release");
        let (shiplane, raw) = (Shiplane::build()?, Raw::build(options.raw_mtu)?);
        Ok(Self { shiplane, raw, peer_dir: options.peer_dir.clone() })
    }

    pub(super) fn shiplane(&self) -> &Shiplane {
        &self.shiplane
    }

    /// Raw quinn, or why there is none.
    pub(super) fn raw(&self) -> Result<&Raw, &String> {
        self.raw.as_ref()
    }

    /// Where a program is, if it is installed.
    fn find(&self, program: &str) -> Option<PathBuf> {
        let ours = self.peer_dir.iter().map(|directory| directory.join(program));
        ours.into_iter().find(|path| path.is_file()).or_else(|| process::find_program(program))
    }
}

/// The programs that will run, and why others will not.
pub(super) struct Field {
    contenders: Vec<Box<dyn Contender>>,
    pub(super) missing: Vec<String>,
}

/// A contender, or why it is missing.
type Found = Result<Box<dyn Contender>, String>;

impl Field {
    /// These, and nobody is missing.
    pub(super) fn of(contenders: Vec<Box<dyn Contender>>) -> Self {
        Self { contenders, missing: Vec::new() }
    }

    pub(super) fn gather(tools: &Tools, course: &Course, options: &Options) -> Result<Self> {
        let mut field = Self { contenders: ours::all(&tools.shiplane, course.scenario), missing: Vec::new() };
        for peer in &PEERS {
            if !options.only.is_empty() && !options.only.iter().any(|only| peer.name.contains(only.as_str()))
            {
                continue;
            }
            if let Some(reason) = (peer.unfit)(course.scenario) {
                field.missing.push(format!("left out: {}: {reason}", peer.name));
                continue;
            }
            match (peer.find)(tools, course)? {
                Ok(contender) => field.contenders.push(contender),
                Err(reason) => field.missing.push(format!("missing: {}: {reason}", peer.name)),
            }
        }
        Ok(field)
    }

    /// One uncounted round. A program that is not ours and fails here is missing from then on.
    pub(super) fn warm_up(&mut self, course: &Course) -> Result<()> {
        for mut contender in std::mem::take(&mut self.contenders) {
            interrupt::check()?;
            let name = contender.name();
            let ran = contender.run(course);
            let judged = ran.and_then(|sample| course.judge(&slug(name), true).map(|()| sample));
            match judged {
                Ok(sample) => println!("  warming up  {name:20} {}", units::seconds(sample.time)),
                Err(failure) if contender.is_optional() => {
                    interrupt::check()?;
                    println!("  warming up  {name:20} failed: {failure:#}");
                    self.missing.push(format!("missing: {name}: {failure:#}"));
                    course.clear(&slug(name))?;
                    continue;
                }
                Err(failure) => return Err(failure.context(format!("{name} failed"))),
            }
            self.contenders.push(contender);
        }
        Ok(())
    }

    /// Rounds in which every program has its turn, so that a slow minute of the machine hits all.
    pub(super) fn measure(&mut self, runs: u32, course: &Course) -> Result<Vec<Measured>> {
        let mut measured: Vec<Measured> = self.contenders.iter().map(|one| nothing_yet(&**one)).collect();
        for round in 1..=runs {
            for (contender, measured) in self.contenders.iter_mut().zip(&mut measured) {
                interrupt::check()?;
                let name = measured.name;
                let sample = contender.run(course).with_context(|| format!("{name} failed"))?;
                course.judge(&slug(name), false)?;
                println!("  run {round} of {runs}  {name:20} {}", units::seconds(sample.time));
                measured.samples.push(sample);
            }
        }
        Ok(measured)
    }
}

/// A program that others have written.
struct Peer {
    name: &'static str,
    /// Why it has no place in a scenario.
    unfit: fn(Scenario) -> Option<&'static str>,
    find: fn(&Tools, &Course) -> Result<Found>,
}

const PEERS: [Peer; 7] = [
    Peer { name: scp::NAME, unfit: copies_all_again, find: scp::Scp::find },
    Peer { name: rsync::OVER_SSH, unfit: fits, find: rsync::over_ssh },
    Peer { name: DAEMON, unfit: fits, find: rsync::daemon },
    Peer { name: nginx::NAME, unfit: one_file_only, find: nginx::Nginx::find },
    Peer { name: sendme::NAME, unfit: copies_all_again, find: sendme::Sendme::find },
    Peer { name: qcp::NAME, unfit: copies_all_again, find: qcp::Qcp::find },
    Peer { name: raw::NAME, unfit: one_file_only, find: raw::find },
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

/// What is to be known of a contender before its runs.
pub(super) fn nothing_yet(contender: &dyn Contender) -> Measured {
    let (name, checks, version) = (contender.name(), contender.checks(), contender.version());
    Measured { name, checks, version, samples: Vec::new() }
}

/// A contender's directory.
pub(super) fn slug(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect()
}

/// The first line that a program prints with `option`, on whichever output.
fn version_line(program: &Path, option: &str) -> String {
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
fn await_listening(server: &mut Running, name: &str, port: u16) -> Result<()> {
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
        assert_eq!(unfit(Scenario::Small), [nginx::NAME, raw::NAME]);
        assert_eq!(unfit(Scenario::Unchanged), unfit(Scenario::Edited));
        assert_eq!(unfit(Scenario::Edited).len(), PEERS.len() - 2);
    }

    #[test]
    fn a_slug_is_a_file_name() {
        assert_eq!(slug("scp, aes128/gcm"), "scp--aes128-gcm");
    }
}
