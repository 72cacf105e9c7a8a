//! Two machines on one link that find each other by multicast DNS.

use crate::namespaces::Link;
use crate::program::{Machine, Running};

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
fn an_unknown_number_leads_nowhere() {
    let Some(link) = Link::new("wait", true) else { return };
    let here = Machine::new();
    let args = ["receive", "7-crossover-clockwork", "--yes", "--give-up-after", "1s"];
    let nobody = Running::start(&mut link.command(1, &here, &args)).rest();
    nobody.failed(3, "no sender with the number 7");
}
