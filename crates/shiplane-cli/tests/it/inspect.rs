//! `ls` and `ping`: what a server has, and how far away it is.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use serde_json::Value;

use crate::program::{Machine, Server};

fn tree(there: &Machine) -> Server {
    there.write_old("src/b/inner", "inner");
    there.write_old("src/b.txt", vec![0; 3_000_000]);
    there.write_old("src/a\u{1b}[2J", "a");
    for (name, mode) in [("b/inner", 0o640), ("b.txt", 0o644), ("a\u{1b}[2J", 0o600), ("b", 0o750)] {
        fs::set_permissions(there.file("src").join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    symlink("b.txt", there.file("src/link")).unwrap();
    there.serve("src")
}

#[test]
fn a_listing_is_sorted_and_one_level_deep_unless_it_is_recursive() {
    let (here, there) = (Machine::new(), Machine::new());
    let server = tree(&there);
    assert_eq!(here.run(&["ls", server.ticket()]).done().out, "a\\x1b[2J\nb/\nb.txt\nlink\n");
    let all = here.run(&["ls", "-R", server.ticket()]).done();
    assert_eq!((all.out.as_str(), all.err.as_str()), ("a\\x1b[2J\nb/\nb/inner\nb.txt\nlink\n", ""));
    assert_eq!(here.run(&["ls", &format!("{}/b", server.ticket())]).done().out, "inner\n");
    assert_eq!(here.run(&["ls", &server.ticket_for("b.txt")]).done().out, "b.txt\n");
    let chosen = here.run(&["ls", "-R", "--exclude", "*.txt", "--skip", "links", server.ticket()]).done();
    assert_eq!(chosen.out, "a\\x1b[2J\nb/\nb/inner\n");
    here.run(&["ls", &server.ticket_for("none")]).failed(6, "none does not exist");
    here.run(&["ls", "nas"]).failed(2, "there is no peer named nas");
    assert!(!here.file("src").exists());
}

#[test]
fn a_long_listing_has_permissions_sizes_times_and_targets() {
    let (here, there) = (Machine::new(), Machine::new());
    let server = tree(&there);
    let long = here.run(&["ls", "-l", server.ticket()]).done().out;
    let lines: Vec<&str> = long.lines().collect();
    assert_eq!(lines[0], "-rw-------         1 B 1970-01-01 00:00 a\\x1b[2J");
    assert!(lines[1].starts_with("drwxr-x---           - ") && lines[1].ends_with(" b/"), "{long}");
    assert_eq!(lines[2], "-rw-r--r--    2.86 MiB 1970-01-01 00:00 b.txt");
    assert!(lines[3].starts_with("lrwx") && lines[3].ends_with(" link -> b.txt"), "{long}");
    assert_eq!(lines.len(), 4);
}

#[test]
fn a_listing_for_programs_has_an_event_for_each_path() {
    let (here, there) = (Machine::new(), Machine::new());
    there.run(&["peers", "add", "laptop", &here.id(), "--read"]).done();
    let server = tree(&there);
    here.run(&["peers", "add", "nas", &there.id(), "--at", &server.address()]).done();
    let run = here.run(&["ls", "-R", "--json", "nas/"]).done();
    let events = run.events();
    let entries: Vec<&Value> = events.iter().filter(|event| event["event"] == "entry").collect();
    let names: Vec<&str> = entries.iter().map(|entry| entry["path"].as_str().unwrap()).collect();
    assert_eq!(names, ["a\\x1b[2J", "b", "b/inner", "b.txt", "link"]);
    let expected = serde_json::json!({
        "event": "entry", "path": "b/inner", "kind": "file", "bytes": 5, "mode": 0o640, "modified_seconds": 0
    });
    assert_eq!(entries[2], &expected);
    assert_eq!((&entries[4]["kind"], &entries[4]["target"]), (&"link".into(), &"b.txt".into()));
    let done = run.last_event();
    assert_eq!((&done["event"], &done["files"]), (&"done".into(), &3.into()));
    assert_eq!((&done["bytes_total"], &done["left_out"]), (&3_000_006.into(), &0.into()));
}

#[test]
fn paths_that_cannot_be_listed_are_named_and_end_with_9() {
    let (here, there) = (Machine::new(), Machine::new());
    let _socket = there.write("src/a", "a");
    let _listener = std::os::unix::net::UnixListener::bind(there.file("src/socket")).unwrap();
    let server = there.serve("src");
    let run = here.run(&["ls", server.ticket()]).told(9, "1 path was left out");
    assert_eq!(run.out, "a\n");
    assert!(run.err.contains("left out there: socket: "), "{}", run.err);
    here.run(&["ls", "--skip", "special", server.ticket()]).done();
}

#[test]
fn a_long_list_is_listed_whole() {
    let (here, there) = (Machine::new(), Machine::new());
    for number in 0..3000 {
        there.write(&format!("src/{:02}/{number}", number % 20), "");
    }
    let server = there.serve("src");
    let run = here.run(&["ls", "-R", server.ticket()]).done();
    let lines: Vec<&str> = run.out.lines().collect();
    assert_eq!(lines.len(), 3020);
    assert!(lines[0] == "00/" && lines.contains(&"19/2999"), "{lines:?}");
}

#[test]
fn a_ping_says_how_far_away_a_server_is_and_by_which_way() {
    let (here, there) = (Machine::new(), Machine::new());
    let server = there.serve("src");
    let version = env!("CARGO_PKG_VERSION");
    let out = here.run(&["ping", "--count", "3", server.ticket()]).done().out;
    assert!(
        out.starts_with(&format!("{} at {} (IPv4)\nround trip: ", there.id(), server.address())),
        "{out}"
    );
    assert!(out.contains(", 3 probes\npackets: "), "{out}");
    assert!(out.ends_with(&format!(" lost\nshiplane {version} here, {version} there\n")), "{out}");

    let event = here.run(&["ping", "--json", "--count", "1", server.ticket()]).done().last_event();
    assert_eq!((&event["event"], &event["probes"]), (&"pinged".into(), &1.into()));
    assert!(event["min_seconds"].as_f64() > Some(0.0) && event["packets_sent"].as_u64() > Some(0), "{event}");
    let (min, max) = (event["min_seconds"].as_f64(), event["max_seconds"].as_f64());
    assert!(min <= event["median_seconds"].as_f64() && event["median_seconds"].as_f64() <= max, "{event}");
    Machine::new().run(&["ping", server.ticket()]).failed(4, "");
    here.run(&["ping", "--count", "0", server.ticket()]).failed(2, "1..=1000");
}
