//! Two network namespaces joined by a relay: TCP and UDP programs run in them unchanged.

use std::io;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tappers::{Interface, Tun};

use super::pipe::{Conditions, Pipe};

/// A link that is there until this is dropped.
#[derive(Debug)]
pub(super) struct Link {
    ends: [End; 2],
    stop: Arc<AtomicBool>,
    relay: Option<JoinHandle<()>>,
}

/// A namespace with one device of the same name; removed on drop.
#[derive(Debug)]
struct End {
    name: String,
}

impl Link {
    /// Sets the link up. Needs root and iproute2.
    pub(super) fn new(conditions: Conditions, seed: u64) -> Result<Self> {
        let ours = std::process::id();
        let (name_a, name_b) = (format!("slw{ours}a"), format!("slw{ours}b"));
        let (tun_a, tun_b) = (open_tun(&name_a)?, open_tun(&name_b)?);
        let ends = [End::new(name_a, SENDER)?, End::new(name_b, RECEIVER)?];
        let stop = Arc::new(AtomicBool::new(false));
        let relay = Relay::new(conditions, seed, tun_a, tun_b);
        let stopped = Arc::clone(&stop);
        let relay = std::thread::spawn(move || relay.run(&stopped));
        Ok(Self { ends, stop, relay: Some(relay) })
    }

    /// A command that will run at the sending end.
    pub(super) fn at_sender(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        self.ends[0].command(program)
    }

    /// A command that will run at the receiving end.
    pub(super) fn at_receiver(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        self.ends[1].command(program)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(relay) = self.relay.take() {
            // It panics only if a device vanished under it, and then there is nothing to stop.
            let _stopped = relay.join();
        }
    }
}

impl End {
    fn new(name: String, address: &str) -> Result<Self> {
        ip(&["netns", "add", &name])?;
        // From here on the guard removes it.
        let end = Self { name };
        let name = end.name.as_str();
        ip(&["link", "set", name, "netns", name])?;
        ip(&["-n", name, "addr", "add", &format!("{address}/24"), "dev", name])?;
        ip(&["-n", name, "link", "set", name, "mtu", "1500", "txqueuelen", "10000", "up"])?;
        ip(&["-n", name, "link", "set", "lo", "up"])?;
        // A TCP whose buffers are too small for the path is no fair neighbour.
        for setting in ["net.ipv4.tcp_wmem=4096 65536 33554432", "net.ipv4.tcp_rmem=4096 131072 67108864"] {
            let status = end.command("sysctl").args(["-q", "-w", setting]).status();
            if !status.is_ok_and(|status| status.success()) {
                eprintln!("warning: cannot set {setting}");
            }
        }
        Ok(end)
    }

    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }
}

impl Drop for End {
    fn drop(&mut self) {
        if let Err(failure) = ip(&["netns", "del", &self.name]) {
            eprintln!("warning: {failure:#}");
        }
    }
}

/// Carries packets from one device to the other.
struct Relay {
    tuns: [Tun; 2],
    /// From the first device to the second, and back.
    pipes: [Pipe; 2],
}

impl Relay {
    fn new(conditions: Conditions, seed: u64, a: Tun, b: Tun) -> Self {
        let now = Instant::now();
        Self {
            tuns: [a, b],
            pipes: [Pipe::new(conditions, seed, now), Pipe::new(conditions, seed ^ 0x5555, now)],
        }
    }

    fn run(mut self, stop: &AtomicBool) {
        let mut packet = vec![0; 65_536];
        while !stop.load(Ordering::Relaxed) {
            for from in 0..2 {
                self.fill(from, &mut packet);
            }
            let mut next = None;
            for from in 0..2 {
                while let Some(packet) = self.pipes[from].leave(Instant::now()) {
                    // A full device drops, as a full router would.
                    let _dropped = self.tuns[1 - from].send(&packet);
                }
                next = [next, self.pipes[from].next_leaves()].into_iter().flatten().min();
            }
            self.wait(next);
        }
    }

    fn fill(&mut self, from: usize, packet: &mut [u8]) {
        for _ in 0..PACKETS_AT_A_TIME {
            match self.tuns[from].recv(packet) {
                Ok(len) => self.pipes[from].enter(Instant::now(), &packet[..len]),
                // Nothing there, or the device is gone: the next round will see.
                Err(_) => return,
            }
        }
    }

    /// Until a packet comes or has to go, or it is time to look whether to stop.
    fn wait(&self, next: Option<Instant>) {
        let wait = next.map_or(LOOK, |at| at.saturating_duration_since(Instant::now()).min(LOOK));
        let timeout = Timespec { tv_sec: 0, tv_nsec: wait.subsec_nanos().into() };
        let [a, b] = &self.tuns;
        let mut fds = [PollFd::new(a, PollFlags::IN), PollFd::new(b, PollFlags::IN)];
        if poll(&mut fds, Some(&timeout)).is_err() {
            // Interrupted by a signal: the loop looks at `stop`.
            std::thread::yield_now();
        }
    }
}

fn open_tun(name: &str) -> Result<Tun> {
    let interface = Interface::new(name).context("device name")?;
    let open = || -> io::Result<Tun> {
        let mut tun = Tun::new_named(interface)?;
        tun.set_nonblocking(true)?;
        Ok(tun)
    };
    open().context("cannot open a TUN device (needs root and /dev/net/tun)")
}

fn ip(args: &[&str]) -> Result<()> {
    let status = Command::new("ip").args(args).status().context("cannot run ip (iproute2)")?;
    if !status.success() {
        bail!("`ip {}` failed", args.join(" "));
    }
    Ok(())
}

/// Inside the namespaces nothing else has an address.
const SENDER: &str = "10.9.0.1";
pub(super) const RECEIVER: &str = "10.9.0.2";

/// A fast sender must not keep the relay from delivering.
const PACKETS_AT_A_TIME: usize = 256;

/// How long a quiet relay goes without looking whether it is to stop.
const LOOK: Duration = Duration::from_millis(20);
