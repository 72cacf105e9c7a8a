//! Serving and getting without faults.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::process::Stdio;

use crate::program::{Machine, Run, assert_same_tree, mixed_tree};

/// What `printf hello | b3sum` prints.
const HELLO_BLAKE3: &str = "ea8f163db38682925e4491c5e58d4bb3506ef8c14eb78a86e908c5624a67200f";

/// What `printf hello | sha256sum` prints.
const HELLO_SHA256: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

const ESCAPE: char = '\u{1b}';

#[test]
fn a_tree_arrives_whole_and_is_not_sent_twice() {
    let (here, there) = (Machine::new(), Machine::new());
    mixed_tree(&there);
    let server = there.serve("src");

    let run = here.run(&["get", server.ticket(), "copy"]).done();
    assert_eq!((run.out.as_str(), run.err.as_str()), ("", ""), "silence on a pipe");
    assert_same_tree(&there.file("src"), &here.file("copy"));

    let again = here.run(&["get", server.ticket(), "copy", "--json"]).done().last_event();
    assert_eq!(again["event"], "done");
    assert_eq!(again["files"], 53);
    assert_eq!(again["bytes_received"], 0);
    assert_eq!(again["bytes_resumed"], again["bytes_total"]);
    assert_eq!(server.stop().code, Some(0));
}

#[test]
fn one_file_goes_to_standard_output_with_its_digest_beside_it() {
    let (here, there) = (Machine::new(), Machine::new());
    there.write("src/hello", "hello");
    mixed_tree(&there);
    let server = there.serve("src");
    let run = here.run(&["get", &server.ticket_for("hello"), "-", "--sha256"]).done();
    assert_eq!(run.out, "hello");
    assert_eq!(run.err, format!("{HELLO_SHA256}  hello\n"));

    let mut big = here.command(&["get", &server.ticket_for("big"), "-", "--chunk", "1M", "--jobs", "3"]);
    let output = big.stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success());
    assert!(output.stdout == fs::read(there.file("src/big")).unwrap(), "other bytes");
    let empty = here.run(&["get", &server.ticket_for("empty"), "-"]).done();
    assert_eq!((empty.out.as_str(), empty.err.as_str()), ("", ""));
}

#[test]
fn digests_are_printed_as_sha256sum_prints_them() {
    let (here, there) = (Machine::new(), Machine::new());
    there.write("src/d/hello", "hello");
    there.write("src/back\\slash", "hello");
    there.write(&format!("src/{ESCAPE}[2J"), "hello");
    let server = there.serve("src");
    let expected = [
        format!("{HELLO_SHA256}  d/hello"),
        format!("{HELLO_SHA256}  {ESCAPE}[2J"),
        format!("\\{HELLO_SHA256}  back\\\\slash"),
    ];
    // In whatever order the files are done.
    let expected = BTreeSet::from(expected.each_ref().map(String::as_str));
    // The second time they are there already, and digested all the same.
    for _ in 0..2 {
        let out = here.run(&["get", server.ticket(), "copy", "--sha256"]).done().out;
        assert_eq!(out.lines().collect::<BTreeSet<_>>(), expected);
    }
}

#[test]
fn events_tell_the_whole_story_and_nothing_a_terminal_would_obey() {
    let (here, there) = (Machine::new(), Machine::new());
    there.write("src/\u{1b}]0;x\u{7}", "hello");
    let _socket = std::os::unix::net::UnixListener::bind(there.file("src/socket")).unwrap();
    let server = there.serve_with("src", &["--json", "--listen", "127.0.0.1:0"]);
    let listening: serde_json::Value = serde_json::from_str(&server.first_line).unwrap();
    assert_eq!(listening["event"], "listening");
    assert_eq!(listening["ticket_seconds"], 3600);
    let ticket = listening["ticket"].as_str().unwrap();

    let run = here.run(&["get", ticket, "copy", "--json", "--sha256"]);
    assert_eq!(run.code, Some(9), "{run:?}");
    assert!(!run.out.contains(['\u{1b}', '\u{7}']), "{run:?}");
    assert!(!run.out.contains(ticket.split_once('#').unwrap().1), "{run:?}");
    let events = run.events();
    let find = |name: &str| {
        events.iter().find(|event| event["event"] == name).unwrap_or_else(|| panic!("no {name}: {run:?}"))
    };
    assert_eq!(find("started")["peer_id"], listening["peer_id"]);
    let file = find("file");
    assert_eq!(file["path"], r"\x1b]0;x\x07");
    assert_eq!((&file["received"], &file["sha256"]), (&true.into(), &HELLO_SHA256.into()));
    let left_out = find("left_out");
    assert_eq!(
        (&left_out["path"], &left_out["kind"], &left_out["side"]),
        (&"socket".into(), &"special".into(), &"there".into())
    );
    let failed = run.last_event();
    assert_eq!((&failed["class"], &failed["exit_code"]), (&"left_out".into(), &9.into()));
    let done = find("done");
    assert_eq!(done["left_out"], 1);
    assert_eq!((&done["bytes_total"], &done["bytes_received"]), (&5.into(), &5.into()));
    assert_eq!((&done["digest"], &done["digest_algorithm"]), (&HELLO_BLAKE3.into(), &"blake3".into()));
    let run = here.run(&["get", ticket, "other", "--json", "--digest", "sha256", "--skip", "special"]).done();
    let done = run.last_event();
    assert_eq!(done["left_out"], 0);
    assert_eq!((&done["digest"], &done["digest_algorithm"]), (&HELLO_SHA256.into(), &"sha256".into()));
}

#[test]
fn left_out_paths_are_named_and_end_with_9_unless_they_are_skipped() {
    let (here, there) = (Machine::new(), Machine::new());
    there.write("src/a", "a");
    std::os::unix::fs::symlink("../a", there.file("src/li\u{1b}nk")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(there.file("src/socket")).unwrap();
    let server = there.serve("src");
    let inside = ["get", server.ticket(), "copy", "--links", "inside"];
    let run = here.run(&inside).failed(9, "2 paths were left out");
    let why = "was not created: a symbolic link that leads out of the tree\n";
    let told = run.err.lines().find(|line| line.contains("li\\x1bnk")).unwrap();
    assert!(told.starts_with("left out here: li\\x1bnk: ") && run.err.contains(why), "{run:?}");
    assert!(run.err.contains("left out there: socket: special file\n"), "{run:?}");
    assert_eq!(fs::read(here.file("copy/a")).unwrap(), b"a");
    let run = here.run(&[&inside[..], &["--quiet", "--skip", "special"]].concat());
    assert_eq!(run.code, Some(9));
    assert!(run.err.contains("li\\x1bnk") && !run.err.contains("socket"), "{run:?}");
    for none in [&["--skip", "special,links"][..], &["--skip", "special", "--links", "skip"]] {
        let run = here.run(&[&["get", server.ticket(), "copy"], none].concat()).done();
        assert_eq!((run.out.as_str(), run.err.as_str()), ("", ""));
        assert!(fs::symlink_metadata(here.file("copy/li\u{1b}nk")).is_err());
    }
    here.run(&["get", server.ticket(), "copy", "--skip", "special"]).done();
    assert_eq!(fs::read_link(here.file("copy/li\u{1b}nk")).unwrap(), std::path::Path::new("../a"));
    here.run(&["get", server.ticket(), "copy", "--skip", "everything"]).failed(2, "everything");
}

#[cfg(target_os = "linux")]
#[test]
fn standard_output_that_cannot_be_written_is_a_local_failure() {
    let (here, there) = (Machine::new(), Machine::new());
    there.write("src/a", "a");
    let _socket = std::os::unix::net::UnixListener::bind(there.file("src/socket")).unwrap();
    let server = there.serve("src");
    let run = |arguments: &[&str]| {
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let mut command = here.command(&[&["get", server.ticket(), "copy"], arguments].concat());
        command.stdout(full).output().unwrap()
    };
    // It counts for more than what is left out.
    for arguments in [&["--json"][..], &["--sha256"], &["--json", "--skip", "special"]] {
        let output = run(arguments);
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(7), "{arguments:?}: {told}");
        assert!(told.contains("error: cannot write to standard output"), "{told}");
        assert_eq!(fs::read(here.file("copy/a")).unwrap(), b"a");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_server_with_few_descriptors_sends_all_of_a_deep_tree() {
    let (here, there) = (Machine::new(), Machine::with_descriptors(64));
    let mut path = "src".to_owned();
    for level in 0..60 {
        there.write(&format!("{path}/file-{level}"), "content");
        path.push_str("/d");
    }
    let server = there.serve("src");
    here.run(&["get", server.ticket(), "copy"]).done();
    assert_same_tree(&there.file("src"), &here.file("copy"));
}

#[test]
fn a_served_directory_that_is_gone_is_an_error_that_says_so() {
    let (here, there) = (Machine::new(), Machine::new());
    there.write("src/a", "a");
    let server = there.serve_with("src", &["--writable", "--listen", "127.0.0.1:0"]);
    here.run(&["get", server.ticket(), "copy"]).done();
    fs::remove_dir_all(there.file("src")).unwrap();
    here.run(&["get", server.ticket(), "again"]).failed(1, "the served directory was removed or replaced");
    here.write("b", "b");
    let run = here.run(&["push", here.file("b").to_str().unwrap(), server.ticket()]);
    run.failed(1, "the served directory was removed or replaced");
}

#[test]
fn the_ticket_may_come_from_a_file_the_environment_or_standard_input() {
    let (here, there) = (Machine::new(), Machine::new());
    there.write("src/a", "a");
    let ticket_file = there.file("ticket");
    let file = ticket_file.to_str().unwrap();
    let server = there.serve_with("src", &["--listen", "127.0.0.1:0", "--ticket-file", file]);
    let text = fs::read_to_string(&ticket_file).unwrap();
    assert_eq!(text, server.first_line);
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(fs::metadata(&ticket_file).unwrap().permissions().mode() & 0o777, 0o600);
    }

    here.run(&["get", "--ticket-file", file, "one"]).done();
    Run::of(here.command(&["get", "two"]).env("SHIPLANE_TICKET", server.ticket())).done();
    let mut piped =
        here.command(&["get", "--ticket-file", "-", "three"]).stdin(Stdio::piped()).spawn().unwrap();
    piped.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(piped.wait().unwrap().success());
    for copy in ["one", "two", "three"] {
        assert_same_tree(&there.file("src"), &here.file(copy));
    }
}

#[test]
fn a_standing_peer_needs_no_ticket() {
    let (here, there) = (Machine::new(), Machine::new());
    there.write("src/public/a", "a");
    there.write("src/public2/b", "b");
    let add = ["peers", "add", "laptop", &here.id(), "--read", "--path", "public"];
    there.run(&add).done();
    here.run(&["peers", "add", "nas", &there.id()]).done();
    let server = there.serve("src");
    let source = |who: &str, path: &str| format!("{who}@{}/{path}", server.address());

    here.run(&["get", &source("nas", "public"), "by name"]).done();
    here.run(&["get", &source(&there.id(), "public/"), "by id"]).done();
    for copy in ["by name", "by id"] {
        assert_same_tree(&there.file("src/public"), &here.file(copy));
    }
    for path in ["", "public2", "public2/b"] {
        here.run(&["get", &source("nas", path), "no"]).failed(4, "not authorised");
    }
    let host = server.address().split(':').next().map(str::to_owned).expect("a host");
    here.run(&["get", &format!("other@{host}/public"), "no"]).failed(2, "no peer named other");
    assert!(!here.file("no").exists());
}

#[test]
fn two_servers_on_the_default_port_do_not_collide() {
    let (one, two) = (Machine::new(), Machine::new());
    let serve = |machine: &Machine| machine.serve_with("src", &["--advertise", "localhost"]);
    let (one, two) = (serve(&one), serve(&two));
    assert!(one.address().starts_with("localhost:"), "{}", one.address());
    assert_ne!(one.address(), two.address());
}
