//! A server has several addresses: in its tickets, in the list of peers, as typed.

use std::net::UdpSocket;

use crate::program::{Machine, Server, assert_same_tree};

/// A server on all addresses, with loopback ones in its ticket, and its port.
fn dual(there: &Machine) -> (Server, String) {
    there.write("src/hello", "hello");
    let listen = if has_ipv6() { "[::]:0" } else { "0.0.0.0:0" };
    let advertised = ["--advertise", "127.0.0.1", "--advertise", "::1"];
    let server = there.serve_with("src", &[&["--listen", listen][..], &advertised].concat());
    let address = server.address();
    let port = address.strip_prefix("127.0.0.1:").and_then(|rest| rest.strip_suffix(",::1"));
    let port = port.expect("both addresses").to_owned();
    (server, port)
}

fn has_ipv6() -> bool {
    UdpSocket::bind("[::1]:0").is_ok()
}

/// The ticket with other addresses.
fn at(server: &Server, addresses: &str) -> String {
    server.ticket().replace(&server.address(), addresses)
}

/// Gets from `source`, and gives the address that answered.
fn answered(here: &Machine, source: &str, dest: &str) -> String {
    let run = here.run(&["get", "--json", source, dest]).done();
    let started = run.events().into_iter().find(|event| event["event"] == "started").expect("a start");
    started["address"].as_str().expect("an address").to_owned()
}

#[test]
fn a_server_answers_at_its_addresses_of_both_families() {
    let (here, there) = (Machine::new(), Machine::new());
    let (server, port) = dual(&there);
    let (v4, v6) = (format!("127.0.0.1:{port}"), format!("[::1]:{port}"));
    assert_eq!(answered(&here, &at(&server, &v4), "v4"), v4);
    assert_eq!(answered(&here, server.ticket(), "both"), v4, "the first of the ticket");
    if has_ipv6() {
        assert_eq!(answered(&here, &at(&server, &v6), "v6"), v6);
        assert_same_tree(&here.file("v6"), &there.file("src"));
    }
}

#[test]
fn a_dead_address_is_dialled_and_the_next_one_answers() {
    let (here, there) = (Machine::new(), Machine::new());
    let (server, port) = dual(&there);
    // It takes what comes, and answers nothing.
    let dead = UdpSocket::bind("127.0.0.1:0").unwrap();
    let live = format!("127.0.0.1:{port}");
    let ticket = at(&server, &format!("{},{live}", dead.local_addr().unwrap()));
    assert_eq!(answered(&here, &ticket, "copy"), live);
    assert!(dead.recv(&mut [0; 2000]).unwrap() > 0);
    assert_same_tree(&here.file("copy"), &there.file("src"));
}

#[test]
fn a_server_listens_on_all_addresses_by_default() {
    let there = Machine::new();
    let server = there.serve_with("src", &["--json"]);
    let event: serde_json::Value = serde_json::from_str(&server.first_line).unwrap();
    let address = event["address"].as_str().unwrap();
    assert!(address.starts_with(if has_ipv6() { "[::]:" } else { "0.0.0.0:" }), "{address}");
    assert_eq!(server.stop().code, Some(0));
}

#[test]
fn a_peer_has_several_addresses() {
    let (here, there) = (Machine::new(), Machine::new());
    there.run(&["peers", "add", "laptop", &here.id(), "--read"]).done();
    let (_server, port) = dual(&there);
    let dead = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let live = format!("127.0.0.1:{port}");
    here.run(&["peers", "add", "nas", &there.id(), "--at", &dead, "--at", &live]).done();
    assert_eq!(answered(&here, "nas", "copy"), live);
    assert!(here.run(&["peers", "list"]).done().out.ends_with(&format!("@{dead},{live}\n")));
    assert_eq!(answered(&here, &format!("nas@{dead},{live}/hello"), "hello"), live);
    let many: Vec<String> = (1..=9).flat_map(|n| ["--at".to_owned(), format!("192.0.2.{n}")]).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let id = here.id();
    let add = [&["peers", "add", "other", &id][..], &many].concat();
    here.run(&add).failed(2, "there are more than 8 addresses");
}

#[test]
fn a_link_local_address_needs_an_interface_of_this_machine() {
    let (here, there) = (Machine::new(), Machine::new());
    let target = format!("{}@[fe80::1%none]:7514", there.id());
    here.run(&["get", &target, "copy"]).failed(3, "[fe80::1%none] has no address");
    let global = format!("{}@[2001:db8::1%none]:7514", there.id());
    here.run(&["get", &global, "copy"]).failed(2, "only with a link-local address");
}
