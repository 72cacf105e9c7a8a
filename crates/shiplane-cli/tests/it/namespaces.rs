//! Two machines on one link: two network namespaces on a bridge. It takes root and iproute2; where that is not to be had,
//! the stories say so and are not told.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::program::Machine;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// Two namespaces whose `eth0` are on one bridge, in a third.
pub(crate) struct Link {
    names: [String; 3],
}

impl Link {
    /// `None` where this user may not make namespaces.
    pub(crate) fn new(tag: &str, has_ipv4: bool) -> Option<Self> {
        // Tests run at the same time, in this process and others.
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = |part: &str| format!("sl-{tag}-{part}-{}-{number}", std::process::id());
        let link = Self { names: [name("a"), name("b"), name("br")] };
        let [one, two, bridge] = &link.names;
        if !ip(&["netns", "add", bridge]) {
            println!("skipped: network namespaces take root and iproute2");
            return None;
        }
        let mut is_up = ip(&["-n", bridge, "link", "add", "br0", "type", "bridge", "mcast_snooping", "0"])
            && ip(&["-n", bridge, "link", "set", "br0", "up"]);
        for (name, address) in [(one, "10.77.0.1/24"), (two, "10.77.0.2/24")] {
            let port = if name == one { "port1" } else { "port2" };
            is_up = is_up
                && ip(&["netns", "add", name])
                && ip(&["-n", name, "link", "add", "eth0", "type", "veth", "peer", "name", port, "netns", bridge])
                && ip(&["-n", bridge, "link", "set", port, "master", "br0", "up"])
                // An address is good at once.
                && ip(&["netns", "exec", name, "sysctl", "-q", "-w", "net.ipv6.conf.eth0.accept_dad=0"])
                && (!has_ipv4 || ip(&["netns", "exec", name, "sysctl", "-q", "-w", "net.ipv6.conf.eth0.disable_ipv6=1"]))
                && (!has_ipv4 || ip(&["-n", name, "addr", "add", address, "dev", "eth0"]))
                && ip(&["-n", name, "link", "set", "lo", "up"])
                && ip(&["-n", name, "link", "set", "eth0", "up"]);
        }
        assert!(is_up, "the link cannot be set up");
        // The kernel takes a moment to notice that both ends of a cable are in.
        let _ = (0..MAX_LOOKS).find(|_| is_seen_up(one) && is_seen_up(two));
        Some(link)
    }

    pub(crate) fn name(&self, at: usize) -> &str {
        &self.names[at]
    }

    /// What runs a command in the first or the second namespace.
    pub(crate) fn prefix(&self, at: usize) -> String {
        format!("ip netns exec {}", self.names[at])
    }

    /// The program of a machine in the first or the second namespace.
    pub(crate) fn command(&self, at: usize, machine: &Machine, args: &[&str]) -> Command {
        self.enter(at, &machine.command(args))
    }

    /// The same of a command that is made already.
    pub(crate) fn enter(&self, at: usize, program: &Command) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.names[at]]).arg(program.get_program()).args(program.get_args());
        command.current_dir(program.get_current_dir().expect("the place for files")).stdin(Stdio::null());
        for (name, value) in program.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command
    }

    /// Runs any command in the first or the second namespace, or in that of the bridge.
    pub(crate) fn run(&self, at: usize, command: &[&str]) -> bool {
        ip(&[&["netns", "exec", &self.names[at]], command].concat())
    }

    /// Does `work` in one of the namespaces, where its sockets stay.
    pub(crate) fn inside<T: Send>(&self, at: usize, work: impl FnOnce() -> T + Send) -> T {
        let enter = || {
            let namespace = File::open(format!("/run/netns/{}", self.names[at])).expect("a namespace");
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                .expect("it enters");
            work()
        };
        std::thread::scope(|scope| scope.spawn(enter).join().expect("it ends"))
    }

    /// Gives a namespace one more interface. Its other end is in another namespace and has the address `there`, or
    /// swallows all that comes.
    pub(crate) fn add_interface(&self, at: usize, name: &str, here: &str, there: Option<(usize, &str)>) {
        let (end, other) = there.map_or((2, None), |(end, address)| (end, Some(address)));
        let peer = format!("{name}-{at}");
        let pair = ["link", "add", name, "type", "veth", "peer", "name", &peer, "netns", &self.names[end]];
        let mut is_up = ip(&[&["-n", &self.names[at]], &pair[..]].concat());
        for (at, name, address) in [(at, name, Some(here)), (end, &peer, other)] {
            let namespace = &self.names[at];
            is_up = is_up
                && address.is_none_or(|address| ip(&["-n", namespace, "addr", "add", address, "dev", name]))
                && ip(&["-n", namespace, "link", "set", name, "up"]);
        }
        assert!(is_up, "the interface cannot be set up");
    }

    /// Drops what comes into a namespace but for answers and for what is sent to `ports`; `false` without nftables.
    pub(crate) fn add_firewall(&self, at: usize, ports: &str) -> bool {
        let accept = |what: &str| format!("add rule inet f in {what} accept");
        let mut rules = vec![
            "add table inet f".to_owned(),
            "add chain inet f in { type filter hook input priority 0; policy drop; }".to_owned(),
            accept("iif lo"),
            accept("ct state established,related"),
            accept("icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert }"),
        ];
        rules.extend((!ports.is_empty()).then(|| accept(&format!("udp dport {ports}"))));
        let is_up = rules.iter().all(|rule| self.run(at, &["nft", rule]));
        if !is_up {
            println!("skipped: there is no nftables");
        }
        is_up
    }

    /// Cuts the second namespace off, or connects it again.
    pub(crate) fn plug(&self, is_connected: bool) {
        let state = if is_connected { "up" } else { "down" };
        assert!(ip(&["-n", &self.names[2], "link", "set", "port2", state]));
    }

    /// Gives the second namespace another address.
    pub(crate) fn renumber(&self, from: &str, to: &str) {
        for (change, address) in [("del", from), ("add", to)] {
            assert!(ip(&["-n", &self.names[1], "addr", change, address, "dev", "eth0"]));
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        for name in &self.names {
            ip(&["netns", "del", name]);
        }
    }
}

fn is_seen_up(name: &str) -> bool {
    let shown = Command::new("ip").args(["-n", name, "link", "show", "eth0"]).output();
    shown.is_ok_and(|shown| String::from_utf8_lossy(&shown.stdout).contains("state UP"))
}

/// Some seconds.
const MAX_LOOKS: usize = 2000;

fn ip(args: &[&str]) -> bool {
    let status = Command::new("ip").args(args).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}
