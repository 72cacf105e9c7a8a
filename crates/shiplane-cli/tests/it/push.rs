//! Pushing to writable and to read-only servers.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Stdio;

use crate::program::{Machine, Run, Server, assert_same_tree, interrupt, mixed_tree};

fn serve_writable(there: &Machine) -> Server {
    there.serve_with("inbox", &["--writable", "--listen", "127.0.0.1:0"])
}

#[test]
fn a_tree_arrives_by_its_name_and_is_not_sent_twice() {
    let (here, there) = (Machine::new(), Machine::new());
    mixed_tree(&here);
    let server = serve_writable(&there);
    let run = here.run(&["push", "src", server.ticket()]).done();
    assert_eq!((run.out.as_str(), run.err.as_str()), ("", ""), "silence on a pipe");
    assert_same_tree(&here.file("src"), &there.file("inbox/src"));

    let again = here.run(&["push", "src/", server.ticket(), "--json"]).done();
    let done = again.last_event();
    assert_eq!((&done["event"], &done["files"]), (&"done".into(), &53.into()));
    assert_eq!((&done["bytes_sent"], &done["durable"]), (&0.into(), &true.into()));
    assert_eq!(done["bytes_resumed"], done["bytes_total"]);
    assert!(!again.out.contains(server.ticket().split_once('#').unwrap().1), "{again:?}");

    // What was pushed can be fetched, by the same ticket.
    here.run(&["get", &server.ticket_for("src"), "back"]).done();
    assert_same_tree(&here.file("src"), &here.file("back"));
    assert_eq!(server.stop().code, Some(0));
}

#[test]
fn each_path_lands_by_its_name_in_the_directory_of_the_target() {
    let (here, there) = (Machine::new(), Machine::new());
    here.write("a", "a");
    here.write("d/e/f", "f");
    here.write("x/.hidden", "h");
    let server = serve_writable(&there);
    here.run(&["push", "a", "d", "x/.hidden", &server.ticket_for("new/place")]).done();
    assert_eq!(fs::read(there.file("inbox/new/place/a")).unwrap(), b"a");
    assert_eq!(fs::read(there.file("inbox/new/place/d/e/f")).unwrap(), b"f");
    assert_eq!(fs::read(there.file("inbox/new/place/.hidden")).unwrap(), b"h");

    here.run(&["push", "d/.", &server.ticket_for("content")]).done();
    assert_same_tree(&here.file("d"), &there.file("inbox/content"));
    Run::of(here.command(&["push", "a"]).env("SHIPLANE_TICKET", server.ticket())).done();
    assert_eq!(fs::read(there.file("inbox/a")).unwrap(), b"a");
}

#[test]
fn standard_input_goes_to_the_file_that_the_target_names() {
    let (here, there) = (Machine::new(), Machine::new());
    let server = serve_writable(&there);
    let target = server.ticket_for("logs/today");
    let input: Vec<u8> = (0..5_000_000_u32).map(|at| (at % 251) as u8).collect();
    for _ in 0..2 {
        assert_eq!(here.feed(&["push", "-", &target], &input), Some(0));
        assert!(fs::read(there.file("inbox/logs/today")).unwrap() == input, "other bytes");
    }
    assert_eq!(here.feed(&["push", "-", &target], b"other"), Some(6));
    assert_eq!(here.feed(&["push", "-", "--overwrite", &target], b""), Some(0));
    assert_eq!(fs::read(there.file("inbox/logs/today")).unwrap(), b"");
    assert_eq!(here.feed(&["push", "-", server.ticket()], b"x"), Some(2));
    assert_eq!(fs::read_dir(there.file("inbox")).unwrap().count(), 1, "nothing else is there");
}

#[test]
fn a_different_file_is_replaced_only_if_asked() {
    let (here, there) = (Machine::new(), Machine::new());
    here.write("a", "mine");
    there.write("inbox/a", "theirs");
    let server = serve_writable(&there);
    let run = here.run(&["push", "a", server.ticket()]).failed(6, "exists with different content");
    assert!(run.err.contains("(peer)") && run.err.contains("--overwrite"), "{run:?}");
    assert_eq!(fs::read(there.file("inbox/a")).unwrap(), b"theirs");
    here.run(&["push", "a", server.ticket(), "--overwrite"]).done();
    assert_eq!(fs::read(there.file("inbox/a")).unwrap(), b"mine");
}

#[test]
fn a_server_is_writable_only_if_it_says_so() {
    let (here, there) = (Machine::new(), Machine::new());
    here.write("a", "a");
    let server = there.serve("inbox");
    let run = here.run(&["push", "a", server.ticket()]).failed(4, "may not write here");
    assert!(run.err.contains("serve --writable") && run.err.contains("--write "), "{run:?}");
    drop(server);

    there.run(&["peers", "add", "laptop", &here.id(), "--read", "--write"]).done();
    let server = there.serve("inbox");
    let target = format!("{}@{}/x", there.id(), server.address());
    let run = here.run(&["push", "a", &target]).failed(6, "read only");
    assert!(run.err.contains("--writable"), "{run:?}");
    assert_eq!(fs::read_dir(there.file("inbox")).unwrap().count(), 0);

    there.write("file", "x");
    there.run(&["serve", "file", "--writable", "--listen", "127.0.0.1:0"]).failed(2, "one file");
}

#[test]
fn a_standing_peer_pushes_within_its_roots_only() {
    let (here, there) = (Machine::new(), Machine::new());
    here.write("authorized_keys", "key");
    there.run(&["peers", "add", "laptop", &here.id(), "--write", "--path", "drop"]).done();
    here.run(&["peers", "add", "nas", &there.id()]).done();
    let server = serve_writable(&there);
    let target = |path: &str| format!("nas@{}/{path}", server.address());
    for path in ["", ".ssh", "drop2"] {
        here.run(&["push", "authorized_keys", &target(path)]).failed(4, "no permission for this path");
    }
    here.run(&["push", "authorized_keys", &target("../drop")]).failed(2, "invalid path");
    here.run(&["push", "authorized_keys", &target("drop/.ssh")]).done();
    assert_eq!(fs::read(there.file("inbox/drop/.ssh/authorized_keys")).unwrap(), b"key");
    // To write is not to read.
    here.run(&["get", &target("drop"), "copy"]).failed(4, "may not read here");
}

#[test]
fn links_are_carried_and_named_if_they_lead_out_and_not_followed_there() {
    let (here, there) = (Machine::new(), Machine::new());
    here.write("src/a", "a");
    symlink("a", here.file("src/inside")).unwrap();
    symlink("/a", here.file("src/li\u{1b}nk")).unwrap();
    there.dir("inbox");
    there.dir("outside");
    symlink("../outside", there.file("inbox/way")).unwrap();
    let server = serve_writable(&there);
    let run = here.run(&["push", "src", server.ticket()]).failed(9, "1 path was left out");
    let told = "left out there: li\\x1bnk: a symbolic link that leads out of the tree\n";
    assert!(run.err.starts_with(told), "{run:?}");
    let found = |name: &str| fs::read_link(there.file(&format!("inbox/src/{name}")));
    assert_eq!(found("inside").unwrap(), std::path::Path::new("a"));
    found("li\u{1b}nk").unwrap_err();
    let run = here.run(&["push", "src", server.ticket(), "--quiet", "--skip", "links"]).done();
    assert_eq!((run.out.as_str(), run.err.as_str()), ("", ""));
    here.run(&["push", "src", &server.ticket_for("way")]).failed(6, "symbolic link");
    assert_eq!(fs::read_dir(there.file("outside")).unwrap().count(), 0);
}

#[test]
fn paths_that_cannot_be_pushed_are_named() {
    let (here, there) = (Machine::new(), Machine::new());
    here.write("a", "a");
    here.write("d/a", "a");
    let server = serve_writable(&there);
    here.run(&["push", "missing", server.ticket()]).failed(7, "missing does not exist");
    here.run(&["push", "a", "d/a", server.ticket()]).failed(2, "two of the paths have the name a");
    here.run(&["push", server.ticket()]).failed(2, "nothing to push");
    here.run(&["push", "a"]).failed(2, "no target");
    here.run(&["push", "a", "b"]).failed(2, "there is no peer named b");
    assert_eq!(fs::read_dir(there.file("inbox")).unwrap().count(), 0);
}

#[test]
fn events_tell_a_push_from_its_start_to_its_end() {
    let (here, there) = (Machine::new(), Machine::new());
    here.write("hello", "hello");
    let server = there.serve_with("inbox", &["--writable", "--json", "--listen", "127.0.0.1:0"]);
    let listening: serde_json::Value = serde_json::from_str(&server.first_line).unwrap();
    assert_eq!(listening["writable"], true);
    let ticket = listening["ticket"].as_str().unwrap();
    let run = here.run(&["push", "hello", ticket, "--json", "--durability", "verified"]).done();
    let events = run.events();
    let phases: Vec<_> = events.iter().filter_map(|event| event["phase"].as_str()).collect();
    for phase in ["connecting", "offering", "sending", "settling"] {
        assert!(phases.contains(&phase), "no {phase}: {run:?}");
    }
    assert!(events.iter().any(|event| event["event"] == "started"), "{run:?}");
    let done = run.last_event();
    assert_eq!((&done["bytes_total"], &done["bytes_sent"]), (&5.into(), &5.into()));
    assert_eq!(done["durable"], false);
}

#[test]
fn two_pushes_from_one_machine_at_a_time_both_arrive() {
    let (here, there) = (Machine::new(), Machine::new());
    let server = serve_writable(&there);
    here.write("first", "x");
    here.run(&["push", "first", server.ticket()]).done();
    let names: Vec<_> = (0..4).map(|at| format!("f{at}")).collect();
    for name in &names {
        here.write(name, vec![name.as_bytes()[1]; 3_000_000]);
    }
    let start = |name: &String| here.command(&["push", name, server.ticket()]).spawn().unwrap();
    let running: Vec<_> = names.iter().map(start).collect();
    for mut child in running {
        assert!(child.wait().unwrap().success());
    }
    for name in &names {
        assert!(
            fs::read(there.file(&format!("inbox/{name}"))).unwrap() == fs::read(here.file(name)).unwrap()
        );
    }
}

#[test]
fn a_push_that_was_interrupted_is_resumed_by_the_same_command() {
    let (here, there) = (Machine::new(), Machine::new());
    let content = testlink::Rng::new(1).bytes(40_000_000);
    here.write("big", &content);
    let server = serve_writable(&there);
    let args = ["push", "big", server.ticket(), "--json", "--chunk", "256K"];
    let mut child = here.command(&args).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut told = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    let sending = told.find(|line| line.as_ref().is_ok_and(|line| line.contains("\"sending\"")));
    assert!(sending.is_some());
    interrupt(&child);
    // On a slow day it is done already.
    let code = child.wait().unwrap().code();
    assert!(matches!(code, Some(130 | 0)), "{code:?}");
    let done = here.run(&args).done().last_event();
    assert_eq!(done["bytes_sent"].as_u64().unwrap() + done["bytes_resumed"].as_u64().unwrap(), 40_000_000);
    assert!(fs::read(there.file("inbox/big")).unwrap() == content, "other bytes");
    assert_eq!(fs::read_dir(there.file("inbox")).unwrap().count(), 1, "nothing of ours is left");
}
