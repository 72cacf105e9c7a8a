//! Two network namespaces joined by a relay, for unmodified TCP and UDP programs.

use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process, setpriority_process};
use tappers::{Interface, Tun};
use testlink::Path;
use xtask::process;

use super::pipe::{Conditions, Counts, Pipe};
use crate::netns::{Namespace, ip, run};

/// An emulated link. Dropping it removes both namespaces and kills what still runs in them.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) conditions: Conditions,
    ends: [End; 2],
    counts: Arc<Mutex<Counts>>,
    stop: Arc<AtomicBool>,
    relay: Option<JoinHandle<()>>,
}

/// A namespace with one device of the same name; removed on drop.
#[derive(Debug)]
pub(super) struct End {
    namespace: Namespace,
}

impl Link {
    /// Sets the link up. Needs root and iproute2.
    pub(super) fn new(conditions: Conditions, seed: u64) -> Result<Self> {
        let (process, number) = (std::process::id(), LINKS.fetch_add(1, Ordering::Relaxed));
        let (name_a, name_b) = (format!("sw{process}a{number}"), format!("sw{process}b{number}"));
        let (tun_a, tun_b) = (open_tun(&name_a)?, open_tun(&name_b)?);
        let ends = [End::new(name_a, SENDER)?, End::new(name_b, RECEIVER)?];
        let pipes = [Pipe::new(conditions, seed), Pipe::new(conditions.reversed(), seed ^ 0x5555)];
        let (freezes, began) = (conditions.freezes(seed ^ 0xAAAA), Instant::now());
        let relay = Relay { tuns: [tun_a, tun_b], pipes, freezes, began };
        let (counts, stop) = (Arc::clone(&relay.pipes[0].counts), Arc::new(AtomicBool::new(false)));
        let stopped = Arc::clone(&stop);
        let relay = thread::spawn(move || relay.run(&stopped));
        let link = Self { conditions, ends, counts, stop, relay: Some(relay) };
        if let Some(kbit) = conditions.bucket_kbit {
            link.sender().set_token_bucket(kbit)?;
        }
        Ok(link)
    }

    pub(super) fn sender(&self) -> &End {
        &self.ends[0]
    }

    pub(super) fn receiver(&self) -> &End {
        &self.ends[1]
    }

    /// What was carried so far in the direction of the data.
    pub(super) fn counts(&self) -> Counts {
        *self.counts.lock()
    }

    /// Sets TCP's congestion control, as the kernel calls it, for connections opened from now on. The setting of a
    /// namespace would have to be one that the machine allows to all its users; a route's need not.
    pub(super) fn set_congestion_control(&self, control: &str) -> Result<()> {
        self.ends.iter().map(|end| end.namespace.name()).try_for_each(|name| {
            ip(&["-n", name, "route", "replace", NETWORK, "dev", name, "congctl", control])
        })
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

/// The kernel's congestion controls, separated by spaces.
pub(super) fn available_tcp() -> String {
    let available = fs::read_to_string("/proc/sys/net/ipv4/tcp_available_congestion_control");
    available.unwrap_or_default().trim().to_owned()
}

/// Why a program that needs one of them is missing, if so.
pub(super) fn missing_tcp(name: &str) -> Option<String> {
    let is_there = available_tcp().split_whitespace().any(|available| available == name);
    (!is_there).then(|| format!("the kernel has no TCP {name} (`modprobe tcp_{name}`)"))
}

impl End {
    fn new(name: String, address: &str) -> Result<Self> {
        let end = Self { namespace: Namespace::new(name)? };
        let name = end.namespace.name();
        ip(&["link", "set", name, "netns", name])?;
        ip(&["-n", name, "addr", "add", &format!("{address}/24"), "dev", name])?;
        ip(&["-n", name, "link", "set", name, "mtu", "1500", "txqueuelen", "10000", "up"])?;
        // A TCP whose buffers are too small for the path is no fair neighbour.
        let buffers = ["net.ipv4.tcp_wmem=4096 65536 33554432", "net.ipv4.tcp_rmem=4096 131072 67108864"];
        ip(&[&["netns", "exec", name, "sysctl", "-qw"], &buffers[..]].concat())?;
        Ok(end)
    }

    /// Runs `work` on a thread in this namespace: the programs that it starts are in it too.
    pub(super) fn within<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let entered = || self.namespace.enter().and_then(|()| work());
        let outcome = thread::scope(|scope| scope.spawn(entered).join());
        outcome.unwrap_or_else(|_| Err(anyhow!("a thread in {} panicked", self.namespace.name())))
    }

    /// Limits what this end sends, or changes the limit.
    pub(super) fn set_token_bucket(&self, kbit: u32) -> Result<()> {
        let limit_bytes = (u64::from(kbit) * 125).max(MIN_BUCKET_QUEUE_BYTES);
        let (rate, limit) = (format!("{kbit}kbit"), limit_bytes.to_string());
        let name = self.namespace.name();
        let device = ["-n", name, "qdisc", "replace", "dev", name, "root"];
        run("tc", &[&device[..], &["tbf", "rate", &rate, "burst", "5kb", "limit", &limit]].concat())
    }
}

impl Drop for End {
    /// Ends the processes of a server whose parent was killed; every process here is of our making.
    fn drop(&mut self) {
        let mut command = Command::new("ip");
        let pids = process::output("ip netns pids", command.args(["netns", "pids", self.namespace.name()]));
        for pid in pids.unwrap_or_default().lines().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)) {
            // It may have ended by itself.
            let _gone = kill_process(pid, Signal::KILL);
        }
    }
}

/// Carries packets from one device to the other.
struct Relay {
    tuns: [Tun; 2],
    /// From the first device to the second, and back.
    pipes: [Pipe; 2],
    freezes: Option<Path>,
    began: Instant,
}

impl Relay {
    fn run(mut self, stop: &AtomicBool) {
        // Of this thread alone. A link does not slow down because the machine is busy.
        if let Err(failure) = setpriority_process(None, RELAY_NICENESS) {
            eprintln!("warning: the relay keeps its priority: {failure}");
        }
        let mut packet = vec![0; 65_536];
        while !stop.load(Ordering::Relaxed) {
            let now = self.began.elapsed();
            let thaws_at = self.freezes.as_ref().map_or(now, |freezes| freezes.thaws_at(now));
            if thaws_at > now {
                thread::sleep(thaws_at - now);
                continue;
            }
            for from in 0..2 {
                self.fill(from, &mut packet);
            }
            let mut next = None;
            for from in 0..2 {
                while let Some(packet) = self.pipes[from].leave(self.began.elapsed()) {
                    // A full device drops, as a full router would.
                    let _dropped = self.tuns[1 - from].send(&packet);
                }
                next = [next, self.pipes[from].link.next_at()].into_iter().flatten().min();
            }
            self.wait(next);
        }
    }

    fn fill(&mut self, from: usize, packet: &mut [u8]) {
        for _ in 0..PACKETS_AT_A_TIME {
            match self.tuns[from].recv(packet) {
                Ok(len) => self.pipes[from].enter(self.began.elapsed(), &packet[..len]),
                // Nothing there, or the device is gone: the next round will see.
                Err(_) => return,
            }
        }
    }

    /// Until a packet comes or has to go, or it is time to look whether to stop.
    fn wait(&self, next: Option<Duration>) {
        let wait = next.map_or(LOOK, |at| at.saturating_sub(self.began.elapsed()).min(LOOK));
        let timeout = Timespec { tv_sec: 0, tv_nsec: wait.subsec_nanos().into() };
        let [a, b] = &self.tuns;
        let mut fds = [PollFd::new(a, PollFlags::IN), PollFd::new(b, PollFlags::IN)];
        if poll(&mut fds, Some(&timeout)).is_err() {
            // Interrupted by a signal: the loop looks at `stop`.
            thread::yield_now();
        }
    }
}

fn open_tun(name: &str) -> Result<Tun> {
    let open = || {
        let mut tun = Tun::new_named(Interface::new(name)?)?;
        tun.set_nonblocking(true).map(|()| tun)
    };
    open().context("cannot open a TUN device (needs root and /dev/net/tun)")
}

/// Inside the namespaces nothing else has an address.
pub(super) const SENDER: &str = "10.9.0.1";
pub(super) const RECEIVER: &str = "10.9.0.2";
const NETWORK: &str = "10.9.0.0/24";

/// Names of devices: several links may exist at once.
static LINKS: AtomicU32 = AtomicU32::new(0);

/// A fast sender must not keep the relay from delivering.
const PACKETS_AT_A_TIME: usize = 256;

/// How long a quiet relay goes without looking whether it is to stop.
const LOOK: Duration = Duration::from_millis(20);

/// The highest that is not real-time.
const RELAY_NICENESS: i32 = -20;

/// The queue before a token bucket holds a second, but no fewer than ten packets.
const MIN_BUCKET_QUEUE_BYTES: u64 = 16_000;
