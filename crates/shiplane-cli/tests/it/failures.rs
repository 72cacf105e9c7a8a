//! Failures between two machines: messages and exit codes.

use std::fs;
use std::net::UdpSocket;

use crate::program::{Machine, Run};

#[test]
fn an_absent_server_is_reported_as_absent() {
    let here = Machine::new();
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    let source = format!("{}@{address}/x", Machine::new().id());
    let run = here.run(&["get", &source, "--json"]).told(3, "no answer from");
    let error = run.last_event();
    assert_eq!((&error["event"], &error["exit_code"]), (&"error".into(), &3.into()));
    assert_eq!((&error["class"], &error["side"]), (&"unreachable".into(), &"network".into()));
    assert!(run.err.contains("(network)"), "{run:?}");

    let unknown = format!("{}@no-such-host.invalid:7514/x", Machine::new().id());
    here.run(&["get", &unknown]).failed(3, "no-such-host.invalid");
}

#[test]
fn another_key_than_the_ticket_names_is_not_talked_to() {
    let (here, there) = (Machine::new(), Machine::new());
    there.write("src/a", "a");
    let server = there.serve("src");
    let ticket = server.ticket().replace(&there.id(), &Machine::new().id());
    here.run(&["get", &ticket, "copy"]).failed(4, "another key");
    assert!(!here.file("copy").exists());
}

#[test]
fn a_ticket_has_one_owner_and_a_wrong_one_has_none() {
    let (here, there, third) = (Machine::new(), Machine::new(), Machine::new());
    there.write("src/a", "a");
    let server = there.serve("src");
    let wrong = format!("{}#{}", server.ticket().split_once('#').unwrap().0, "A".repeat(22));
    let run = third.run(&["get", &wrong, "copy"]).failed(4, "no ticket has this secret");
    assert!(run.err.contains("(peer)"), "{run:?}");

    here.run(&["get", server.ticket(), "copy"]).done();
    third.run(&["get", server.ticket(), "copy"]).failed(4, "does not admit this key");
    here.run(&["get", server.ticket(), "copy2"]).done();
    // Neither does it get in by leaving the ticket out.
    let source = format!("{}@{}/a", there.id(), server.address());
    third.run(&["get", &source]).failed(4, "does not admit this key");
}

#[test]
fn a_stranger_without_a_secret_learns_nothing() {
    let (there, stranger) = (Machine::new(), Machine::new());
    there.write("src/a", "a");
    let server = there.serve("src");
    // The ticket is still open, so that strangers are let in as guests.
    for path in ["a", "missing"] {
        let source = format!("{}@{}/{path}", there.id(), server.address());
        stranger.run(&["get", &source]).failed(4, "redeem your ticket first");
    }
}

#[test]
fn a_missing_or_forbidden_path_is_refused() {
    let (here, there) = (Machine::new(), Machine::new());
    there.write("src/d/a", "a");
    there.write("secret", "s");
    std::os::unix::fs::symlink("../secret", there.file("src/out")).unwrap();
    let server = there.serve("src");
    here.run(&["get", &server.ticket_for("d/none"), "copy"]).failed(6, "does not exist");
    here.run(&["get", &server.ticket_for("out"), "copy"]).failed(6, "leaves the served root");
    here.run(&["get", &server.ticket_for("../secret"), "copy"]).failed(2, "invalid path");
    here.run(&["get", &server.ticket_for("d"), "-"]).failed(6, "only one file");
    assert!(!here.file("copy").exists());
    // None of that has spoilt the ticket.
    here.run(&["get", &server.ticket_for("d/a"), "-"]).done();
}

#[test]
fn an_existing_different_file_stays_unless_overwritten() {
    let (here, there) = (Machine::new(), Machine::new());
    there.write("src/a", "theirs");
    there.write("src/b", "new");
    let server = there.serve("src");
    here.write("copy/a", "mine");
    let run = here.run(&["get", server.ticket(), "copy"]).failed(6, "copy/a exists");
    assert!(run.err.contains("--overwrite"), "{run:?}");
    assert_eq!(fs::read(here.file("copy/a")).unwrap(), b"mine");
    here.run(&["get", server.ticket(), "copy", "--overwrite"]).done();
    assert_eq!(fs::read(here.file("copy/a")).unwrap(), b"theirs");
}

#[test]
fn equal_size_and_time_are_believed_unless_verified() {
    let (here, there) = (Machine::new(), Machine::new());
    let theirs = there.write("src/a", "theirs");
    let server = there.serve("src");
    here.run(&["get", server.ticket(), "copy"]).done();
    fs::write(here.file("copy/a"), "broken").unwrap();
    let modified = fs::metadata(theirs).unwrap().modified().unwrap();
    fs::File::options().write(true).open(here.file("copy/a")).unwrap().set_modified(modified).unwrap();

    here.run(&["get", server.ticket(), "copy"]).done();
    assert_eq!(fs::read(here.file("copy/a")).unwrap(), b"broken");
    here.run(&["get", server.ticket(), "copy", "--verify"]).failed(6, "copy/a exists");
    here.run(&["get", server.ticket(), "copy", "--verify", "--overwrite"]).done();
    assert_eq!(fs::read(here.file("copy/a")).unwrap(), b"theirs");
}

#[test]
fn a_destination_that_cannot_be_is_a_local_error() {
    let (here, there) = (Machine::new(), Machine::new());
    there.write("src/a", "a");
    let server = there.serve("src");
    here.write("file", "");
    for dest in ["file", "file/", "file/below"] {
        here.run(&["get", server.ticket(), dest]).failed(6, "is a file, but");
    }
}

#[test]
fn a_path_that_cannot_be_served_is_refused_before_a_ticket_is_printed() {
    let there = Machine::new();
    there.run(&["serve", "none", "--listen", "127.0.0.1:0"]).failed(7, "none does not exist");
    there.write("src/a", "a");
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    there.run(&["serve", "src", "--listen", &address]).failed(7, "cannot listen");
    there.run(&["serve", "src", "--ticket-ttl", "1x"]).failed(2, "as in 1h");
    let file = ["serve", "src", "--listen", "127.0.0.1:0", "--ticket-file", "none/ticket"];
    there.run(&file).failed(7, "none/ticket");
    fs::write(there.path("peers"), "what is this\n").unwrap();
    there.run(&["serve", "src", "--listen", "127.0.0.1:0"]).failed(4, "line 1");
}

#[test]
fn a_ticket_is_never_repeated_in_an_error() {
    let here = Machine::new();
    let id = here.id();
    let secret = "c2VjcmV0c2VjcmV0c2VjcmV0";
    for ticket in [
        format!("shiplane://{id}@h:1/#{secret}"),
        format!("shiplane://{id}@h/#{secret}"),
        format!("shiplane://{}@h:1/#{secret}", &id[1..]),
        format!("shiplane://{id}@h:1/%#{secret}"),
    ] {
        let run = here.run(&["-vv", "get", &ticket]).failed(2, "the ticket is wrong");
        assert!(!run.err.contains(secret), "{run:?}");
        let mut command = here.command(&["get"]);
        let run = Run::of(command.env("SHIPLANE_TICKET", &ticket)).failed(2, "the ticket is wrong");
        assert!(!run.err.contains(secret), "{run:?}");
    }
}
