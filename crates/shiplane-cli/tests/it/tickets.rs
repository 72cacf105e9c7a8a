//! Tickets outlive the server that gave them out, and can be listed, made and revoked.

use crate::program::{Machine, Running, assert_same_tree};

#[test]
fn a_server_that_is_started_again_honours_its_tickets() {
    let (here, there, another) = (Machine::new(), Machine::new(), Machine::new());
    there.write("src/hello", "hello");
    there.write("other/secret", "secret");
    let server = there.serve("src");
    let (ticket, address) = (server.ticket().to_owned(), server.address());
    here.run(&["get", &ticket, "copy"]).done();
    drop(server);

    let server = there.serve_with("src", &["--listen", &address]);
    here.run(&["get", &ticket, "again"]).done();
    assert_same_tree(&here.file("again"), &there.file("src"));
    another.run(&["get", &ticket, "copy"]).failed(4, "another key");
    drop(server);

    let _server = there.serve_with("other", &["--listen", &address]);
    here.run(&["get", &ticket, "third"]).failed(4, "no ticket has this secret");
}

#[test]
fn no_secret_is_in_the_file_of_tickets() {
    let there = Machine::new();
    let server = there.serve("src");
    let (_, secret) = server.ticket().split_once('#').unwrap();
    let stored = std::fs::read_to_string(there.path("tickets")).unwrap();
    assert!(stored.contains("/src") && !stored.contains(secret), "{stored}");
}

#[test]
fn a_server_that_was_started_too_often_revokes_its_oldest_ticket_and_no_other_command_does() {
    let (here, there) = (Machine::new(), Machine::new());
    there.write("src/hello", "hello");
    let oldest = there.serve("src").ticket().to_owned();
    let file = there.path("tickets");
    let lines = std::fs::read_to_string(&file).unwrap();
    let line = lines.lines().find(|line| !line.starts_with('#')).unwrap();
    let rest = line.split_once(' ').unwrap().1;
    let others: String = (1..1024).map(|ticket| format!("{ticket:064x} {rest}\n")).collect();
    std::fs::write(&file, lines + &others).unwrap();
    there.run(&["ticket", "new", "src", "--at", "192.0.2.7"]).failed(1, "already 1024 valid tickets");
    let server = there.serve("src");
    here.run(&["get", server.ticket(), "copy"]).done();
    assert_eq!(there.run(&["ticket", "list"]).done().out.lines().count(), 1024);
    let addressed = oldest.split_once('#').unwrap().1;
    let (server, _) = server.ticket().split_once('#').unwrap();
    here.run(&["get", &format!("{server}#{addressed}"), "again"]).failed(4, "no ticket has this secret");
}

#[test]
fn a_ticket_that_is_revoked_ends_the_session_of_its_client() {
    let (here, there) = (Machine::new(), Machine::new());
    there.write("src/much", vec![7; 192 << 20]);
    let server = there.serve("src");
    let mut get = Running::start(&mut here.command(&["get", &server.ticket_for("much"), "-"]));
    get.first_byte();
    let listed = there.run(&["ticket", "list"]).done().out;
    assert!(listed.contains("read / of ") && listed.contains("used by 1 of 1, expires in 59m"), "{listed}");
    let id = listed.split(' ').next().unwrap();
    there.run(&["ticket", "revoke", id]).done();
    get.end().told(4, "(revoked)");
    here.run(&["get", server.ticket(), "copy"]).failed(4, "does not admit this key");
    assert_eq!(there.run(&["ticket", "list"]).done().out, "");
    there.run(&["ticket", "revoke", id]).failed(2, "there is no ticket");
}

#[test]
fn a_ticket_that_is_made_is_shown_as_a_qr_code_beside_its_line() {
    let there = Machine::new();
    there.dir("src");
    let made = there.run(&["ticket", "new", "src", "--at", "192.0.2.7", "--qr"]).done();
    assert!(made.out.lines().count() == 1 && made.out.starts_with("shiplane://"), "{made:?}");
    assert!(made.err.contains('▀'), "{made:?}");
}

#[test]
fn a_ticket_is_made_for_a_server_that_runs() {
    let there = Machine::new();
    there.write("src/a/hello", "hello");
    there.write("src/b/hello", "hello");
    let server = there.serve("src");
    let address = server.address();
    let args = ["ticket", "new", "src", "--path", "a", "--at", &address, "--ticket-uses", "2"];
    let ticket = there.run(&args).done().out;
    let ticket = ticket.trim_end();
    let clients = [Machine::new(), Machine::new(), Machine::new()];
    // The server notices it within a second; until then the ticket is refused.
    let mut first = clients[0].run(&["get", ticket, "copy"]);
    while first.code == Some(4) {
        first = clients[0].run(&["get", ticket, "copy"]);
    }
    first.done();
    clients[1].run(&["get", ticket, "copy"]).done();
    assert_same_tree(&clients[1].file("copy"), &there.file("src/a"));
    clients[1].run(&["get", &ticket.replace("/a#", "/b#"), "b"]).failed(4, "no permission for this path");
    clients[2].run(&["get", ticket, "copy"]).failed(4, "");
    there.run(&["ticket", "new", "nowhere"]).failed(7, "nowhere");
    there.run(&["ticket", "new", "src", "--at", "host:"]).failed(2, "port");
    there.run(&["ticket", "new", "src", "--ticket-uses", "0"]).failed(2, "from 1 to 1024, or any");
}

#[test]
fn a_ticket_may_be_for_any_number_of_clients() {
    let there = Machine::new();
    there.write("src/hello", "hello");
    let server = there.serve_with("src", &["--listen", "127.0.0.1:0", "--ticket-uses", "any"]);
    for _ in 0..3 {
        Machine::new().run(&["get", server.ticket(), "copy"]).done();
    }
    assert!(there.run(&["ticket", "list"]).done().out.contains("for any client"));
}

#[test]
fn a_path_may_follow_a_ticket_or_the_name_of_a_peer() {
    let (here, there) = (Machine::new(), Machine::new());
    there.write("src/a/hello", "hello");
    there.run(&["peers", "add", "laptop", &here.id(), "--read", "--write"]).done();
    let server = there.serve_with("src", &["--writable", "--listen", "127.0.0.1:0"]);
    here.run(&["get", &format!("{}/a", server.ticket()), "by-ticket"]).done();
    assert_same_tree(&here.file("by-ticket"), &there.file("src/a"));

    here.run(&["get", "nas/a", "by-name"]).failed(2, "there is no peer named nas");
    here.run(&["peers", "add", "nas", &there.id()]).done();
    here.run(&["get", "nas/a", "by-name"]).failed(2, "no address for nas");
    here.run(&["peers", "add", "nas", &there.id(), "--at", &server.address()]).done();
    here.run(&["get", "nas/a", "by-name"]).done();
    assert_same_tree(&here.file("by-name"), &there.file("src/a"));
    // Other rights are no other address.
    here.run(&["peers", "add", "nas", &there.id(), "--read"]).done();
    here.run(&["push", "by-name", "nas/b"]).done();
    assert_same_tree(&here.file("by-name"), &there.file("src/b/by-name"));
    here.run(&["sync", "by-name", "nas/a"]).done();
    assert!(here.run(&["peers", "list"]).done().out.contains(&format!(" @{}", server.address())));
    here.run(&["peers", "add", "other", &here.id(), "--at", "host:0"]).failed(2, "the port must be");
}
