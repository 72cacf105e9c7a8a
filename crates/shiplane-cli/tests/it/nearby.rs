//! Two machines on one link that find each other by multicast DNS.

use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::namespaces::Link;
use crate::program::{Machine, Run, Running};

/// A `send` in the first namespace, and its code.
fn send(link: &Link, there: &Machine, args: &[&str]) -> (Running, String) {
    there.write("file", "file");
    let args = [&["send", "file", "--json"], args].concat();
    let mut sending = Running::start(&mut link.command(0, there, &args));
    let waiting = sending.event(|event| event["event"] == "waiting");
    let code = waiting["code"].as_str().expect("a code").to_owned();
    assert_eq!(waiting["command"], format!("shiplane receive {code}"), "it is announced");
    (sending, code)
}

/// A `receive` in the second namespace.
fn receive(link: &Link, here: &Machine, code: &str, args: &[&str]) -> Run {
    let args = [&["receive", code, "--yes"], args].concat();
    Running::start(&mut link.command(1, here, &args)).rest()
}

fn finds_the_sender(link: &Link) {
    let (here, there) = (Machine::new(), Machine::new());
    let (sending, code) = send(link, &there, &[]);
    receive(link, &here, &code, &["--give-up-after", "30s"]).done();
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
fn an_unknown_number_finds_no_sender() {
    let Some(link) = Link::new("wait", true) else { return };
    let here = Machine::new();
    let args = ["receive", "7-crossover-clockwork", "--yes", "--give-up-after", "1s"];
    let nobody = Running::start(&mut link.command(1, &here, &args)).rest();
    nobody.failed(3, "no sender with the number 7");
}

#[test]
fn a_sender_on_two_subnets_is_found_by_the_one_that_is_shared() {
    let Some(link) = Link::new("nets", true) else { return };
    // The one that is not shared comes first.
    assert!(link.run(0, &["ip", "addr", "flush", "dev", "eth0"]));
    for address in ["10.99.0.1/24", "10.77.0.1/24", "10.98.0.1/24"] {
        assert!(link.run(0, &["ip", "addr", "add", address, "dev", "eth0"]));
    }
    for _ in 0..3 {
        finds_the_sender(&link);
    }
}

#[test]
fn a_sender_on_two_links_is_found_on_either() {
    let Some(link) = Link::new("two", true) else { return };
    link.add_interface(0, "eth1", "10.78.0.1/24", Some((1, "10.78.0.2/24")));
    link.plug(false);
    finds_the_sender(&link);
    link.plug(true);
    assert!(link.run(0, &["ip", "link", "set", "eth1", "down"]));
    finds_the_sender(&link);
}

#[test]
fn a_vpn_that_swallows_everything_is_no_obstacle() {
    let Some(link) = Link::new("vpn", true) else { return };
    for (at, address) in [(0, "10.88.0.1/24"), (1, "10.88.0.2/24")] {
        link.add_interface(at, "vpn0", address, None);
        assert!(link.run(at, &["ip", "route", "add", "default", "dev", "vpn0", "metric", "1"]));
        assert!(link.run(at, &["ip", "route", "add", "224.0.0.0/4", "dev", "vpn0"]));
    }
    finds_the_sender(&link);
}

/// Multicast DNS alone, as the firewalls of most desktops have it.
const MDNS: &str = "5353";

#[test]
fn a_firewall_on_either_side_is_no_obstacle() {
    for (has_ipv4, at) in [(true, 0), (false, 0), (true, 1)] {
        let Some(link) = Link::new("wall", has_ipv4) else { return };
        if !link.add_firewall(at, MDNS) {
            return;
        }
        finds_the_sender(&link);
    }
}

#[test]
fn a_firewall_that_lets_nothing_in_is_suspected_aloud() {
    let Some(link) = Link::new("shut", true) else { return };
    let (here, there) = (Machine::new(), Machine::new());
    if !link.add_firewall(1, "") {
        return;
    }
    let (_sending, code) = send(&link, &there, &[]);
    let failed =
        receive(&link, &here, &code, &["--give-up-after", "2s"]).failed(3, "no sender with the number");
    assert!(failed.err.contains("firewall"), "{failed:?}");
}

/// Announces senders of all numbers but `number`, up to a hundred each second, until `is_over`.
fn flood(link: &Link, number: u32, is_over: &AtomicBool) {
    assert!(link.run(2, &["ip", "addr", "add", "10.77.0.3/24", "dev", "br0"]));
    assert!(link.run(2, &["ip", "route", "add", "224.0.0.0/4", "dev", "br0"]));
    let socket = link.inside(2, || UdpSocket::bind("10.77.0.3:5353").expect("a socket"));
    let mut rng = testlink::Rng::new(1);
    while !is_over.load(Ordering::Relaxed) {
        let random = rng.bytes(8);
        let others = 1 + u32::from(random[0]) * 3;
        let others = if others == number { others + 1 } else { others };
        let name: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        std::thread::park_timeout(Duration::from_millis(10));
        // What is lost on the way is none of its worries.
        let _ = socket.send_to(&announcement(&format!("{others} ({name})"), &name), "224.0.0.251:5353");
    }
}

/// Ends the flood, also when the test fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A response of multicast DNS that announces this instance, for as long as can be said.
fn announcement(instance: &str, host: &str) -> Vec<u8> {
    let name = |labels: &[&str]| {
        let labels = labels.iter().flat_map(|label| [&[label.len() as u8][..], label.as_bytes()].concat());
        labels.chain([0]).collect::<Vec<u8>>()
    };
    let record = |name: &[u8], kind: u16, data: &[u8]| {
        let head = [&kind.to_be_bytes()[..], &[0, 1], &(i32::MAX as u32).to_be_bytes()].concat();
        [name, &head, &(data.len() as u16).to_be_bytes(), data].concat()
    };
    let service = name(&["_shiplane-code", "_udp", "local"]);
    let (full, host) = (name(&[instance, "_shiplane-code", "_udp", "local"]), name(&[host, "local"]));
    let text: Vec<u8> = (0..4).flat_map(|_| [&[255][..], &[b'x'; 255]].concat()).collect();
    [
        &[0, 0, 0x84, 0, 0, 0, 0, 4, 0, 0, 0, 0][..],
        &record(&service, 12, &full),
        &record(&full, 33, &[&[0, 0, 0, 0, 0x1d, 0x5a][..], &host].concat()),
        &record(&full, 16, &text),
        &record(&host, 1, &[10, 77, 0, 9]),
    ]
    .concat()
}

#[test]
fn a_flood_of_announcements_takes_a_bounded_amount_of_memory_and_passes() {
    let Some(link) = Link::new("flood", true) else { return };
    let (here, there) = (Machine::new(), Machine::new());
    let (sending, code) = send(&link, &there, &[]);
    let number = code.split('-').next().and_then(|number| number.parse().ok()).expect("a number");
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _over = Over(&is_over);
        scope.spawn(|| flood(&link, number, &is_over));
        // It looks for a sender that is not there, and hears all others.
        let other = format!("{}-crossover-clockwork", if number == 999 { 998 } else { number + 1 });
        let args = ["receive", &other, "--yes", "--give-up-after", "600s"];
        let mut seeking = Running::start(&mut link.command(1, &here, &args));
        seeking.err_line("flooded with announcements");
        seeking.err_line("flooded with announcements");
        assert!(seeking.peak_kib() < BOUND_KIB, "{} KiB", seeking.peak_kib());
        assert!(sending.peak_kib() < BOUND_KIB, "{} KiB", sending.peak_kib());
    });
    // Once it is over, all is as before.
    receive(&link, &here, &code, &["--give-up-after", "80s"]).done();
    sending.rest().done();
}

/// 64 MiB: the program without any flood, and what it keeps of one.
const BOUND_KIB: u64 = 64 << 10;
