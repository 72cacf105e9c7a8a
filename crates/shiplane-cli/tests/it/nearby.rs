//! Two machines on one link that find each other by multicast DNS: two network namespaces on a bridge. It takes root and
//! iproute2; where that is not to be had, the stories say so and are not told.

use std::process::{Command, Stdio};

use crate::program::{Machine, Running};

/// Two namespaces whose `eth0` are on one bridge, in a third.
struct Link {
    names: [String; 3],
}

impl Link {
    /// `None` where this user may not make namespaces.
    fn new(tag: &str, has_ipv4: bool) -> Option<Self> {
        let name = |part: &str| format!("sl-{tag}-{part}-{}", std::process::id());
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
        Some(link)
    }

    /// The program of a machine in the first or the second namespace.
    fn command(&self, at: usize, machine: &Machine, args: &[&str]) -> Command {
        let program = machine.command(args);
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
}

impl Drop for Link {
    fn drop(&mut self) {
        for name in &self.names {
            ip(&["netns", "del", name]);
        }
    }
}

fn ip(args: &[&str]) -> bool {
    let status = Command::new("ip").args(args).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

fn finds_the_sender(link: &Link) {
    let (here, there) = (Machine::new(), Machine::new());
    there.write("file", "file");
    let mut sending = Running::start(&mut link.command(0, &there, &["send", "file", "--json"]));
    let waiting = sending.event(|event| event["event"] == "waiting");
    let code = waiting["code"].as_str().expect("a code");
    let args = ["receive", code, "--yes", "--give-up-after", "30s"];
    let received = Running::start(&mut link.command(1, &here, &args)).rest();
    received.done();
    assert_eq!(std::fs::read_to_string(here.file("file")).expect("a file"), "file");
    sending.rest().done();
}

#[test]
fn a_code_is_found_on_a_link_with_ipv4_alone() {
    if let Some(link) = Link::new("v4", true) {
        finds_the_sender(&link);
    }
}

#[test]
fn a_code_is_found_on_a_link_with_link_local_addresses_alone() {
    if let Some(link) = Link::new("v6", false) {
        finds_the_sender(&link);
    }
}

#[test]
fn a_server_is_seen_by_its_neighbours_if_it_wants_to_be() {
    let Some(link) = Link::new("peers", true) else { return };
    let (here, there) = (Machine::new(), Machine::new());
    there.dir("src");
    let nearby = || Running::start(&mut link.command(1, &here, &["peers", "nearby"])).rest().done().out;
    let mut hidden = Running::start(&mut link.command(0, &there, &["serve", "src"]));
    hidden.first_byte();
    assert_eq!(nearby(), "");
    drop(hidden);
    let mut seen = Running::start(&mut link.command(0, &there, &["serve", "src", "--announce"]));
    seen.first_byte();
    let shown = nearby();
    assert!(shown.starts_with(&there.id()) && shown.contains(" 10.77.0.1:7514 "), "{shown}");
}

#[test]
fn a_number_that_nobody_has_leads_nowhere() {
    let Some(link) = Link::new("wait", true) else { return };
    let here = Machine::new();
    let args = ["receive", "7-crossover-clockwork", "--yes", "--give-up-after", "1s"];
    let nobody = Running::start(&mut link.command(1, &here, &args)).rest();
    nobody.failed(3, "no sender with the number 7");
}
