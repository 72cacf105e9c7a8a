//! `sync --watch`: changes on either side arrive on the other by themselves.

use std::fs;
use std::process::Command;

use serde_json::Value;

use crate::program::{Machine, Run, Running, Server, assert_same_tree};

fn serve(there: &Machine, at: &str) -> Server {
    there.serve_with("data", &["--writable", "--listen", at])
}

/// Two machines that know each other, and a server.
fn machines() -> (Machine, Machine, Server) {
    let (here, there) = (Machine::new(), Machine::new());
    there.run(&["peers", "add", "laptop", &here.id(), "--read", "--write"]).done();
    here.run(&["peers", "add", "nas", &there.id()]).done();
    here.dir("data");
    there.dir("data");
    let server = serve(&there, "127.0.0.1:0");
    (here, there, server)
}

/// Starts to watch, and waits until both sides are equal.
fn watch(here: &Machine, server: &Server, args: &[&str]) -> Running {
    let target = format!("nas@{}", server.address());
    let watch = ["sync", "--watch", "--json", "data", &target];
    let mut watch = Running::start(&mut here.command(&[&watch[..], args].concat()));
    watch.event(|event| event["event"] == "synced");
    watch
}

/// Waits until a file is, or is no longer, as it is meant to be.
fn synced(watch: &mut Running, is_there: impl Fn() -> bool) {
    while !is_there() {
        watch.event(|event| event["event"] == "synced");
    }
}

fn reads(machine: &Machine, name: &str, content: &str) -> bool {
    fs::read_to_string(machine.file(&format!("data/{name}"))).is_ok_and(|found| found == content)
}

/// Ctrl-C ends it at once, and every file is whole.
fn interrupted(watch: Running, here: &Machine, there: &Machine) -> Run {
    watch.interrupt();
    let run = watch.rest();
    assert_eq!(run.code, Some(130), "{run:?}");
    // If it was cut in the middle, the next sync goes on by this.
    for entry in fs::read_dir(here.file("data")).unwrap().chain(fs::read_dir(there.file("data")).unwrap()) {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "journal") {
            fs::remove_file(path).unwrap();
        }
    }
    assert_same_tree(&here.file("data"), &there.file("data"));
    run
}

fn is_phase(event: &Value, phase: &str) -> bool {
    event["event"] == "progress" && event["phase"] == phase
}

#[test]
fn changes_on_either_side_arrive_on_the_other() {
    let (here, there, server) = machines();
    here.write("data/old", "old");
    let mut watch = watch(&here, &server, &[]);
    assert!(reads(&there, "old", "old"));
    for (from, to) in [(&here, &there), (&there, &here)] {
        // Created, in a directory that is new, too.
        from.write("data/file", "1");
        synced(&mut watch, || reads(to, "file", "1"));
        from.write("data/a/b/c/file", "deep");
        synced(&mut watch, || reads(to, "a/b/c/file", "deep"));
        from.write("data/a/b/c/file", "deeper");
        synced(&mut watch, || reads(to, "a/b/c/file", "deeper"));
        // Changed, linked, renamed, deleted.
        from.write("data/file", "22");
        synced(&mut watch, || reads(to, "file", "22"));
        std::os::unix::fs::symlink("file", from.file("data/link")).unwrap();
        synced(&mut watch, || fs::read_link(to.file("data/link")).is_ok());
        fs::hard_link(from.file("data/file"), from.file("data/hard")).unwrap();
        synced(&mut watch, || reads(to, "hard", "22"));
        fs::rename(from.file("data/a"), from.file("data/moved")).unwrap();
        synced(&mut watch, || reads(to, "moved/b/c/file", "deeper") && !to.file("data/a").exists());
        from.write("data/moved/b/c/file", "in the moved directory");
        synced(&mut watch, || reads(to, "moved/b/c/file", "in the moved directory"));
        for name in ["file", "link", "hard"] {
            fs::remove_file(from.file(&format!("data/{name}"))).unwrap();
        }
        synced(&mut watch, || !to.file("data/file").exists() && !to.file("data/hard").exists());
        fs::remove_dir_all(from.file("data/moved")).unwrap();
        synced(&mut watch, || !to.file("data/moved").exists());
    }
    interrupted(watch, &here, &there);
    assert_eq!(server.stop().code, Some(0));
}

#[test]
fn a_burst_of_files_is_taken_together() {
    let (here, there, server) = machines();
    let mut watch = watch(&here, &server, &[]);
    for at in 0..1000 {
        here.write(&format!("data/{}/{at}", at % 10), at.to_string());
    }
    synced(&mut watch, || (0..1000).all(|at| there.file(&format!("data/{}/{at}", at % 10)).exists()));
    let run = interrupted(watch, &here, &there);
    let rounds = run.events().iter().filter(|event| event["event"] == "synced").count();
    assert!(rounds < 100, "{rounds} rounds");
}

#[test]
fn a_syncs_own_writes_cause_no_endless_rounds() {
    let (here, there, server) = machines();
    let mut watch = watch(&here, &server, &[]);
    for (at, (from, to)) in [(&here, &there), (&there, &here)].into_iter().cycle().take(6).enumerate() {
        from.write(&format!("data/d{at}/file"), "x");
        synced(&mut watch, || reads(to, &format!("d{at}/file"), "x"));
    }
    watch.event(|event| is_phase(event, "watching"));
    // Takes about a second.
    here.run(&["ping", &format!("nas@{}", server.address())]).done();
    let run = interrupted(watch, &here, &there);
    let rounds = run.events().iter().filter(|event| is_phase(event, "scanning")).count();
    assert!(rounds <= 2, "one that finds nothing, and one for what was noticed late: {rounds}");
    assert!(run.events().iter().all(|event| event["event"] != "synced"), "nothing to tell: {run:?}");
}

#[test]
fn it_waits_for_an_absent_server_and_takes_the_changes_since() {
    let (here, there, server) = machines();
    let mut watch = watch(&here, &server, &[]);
    watch.event(|event| is_phase(event, "watching"));
    let at = server.address();
    drop(server); // Killed.
    here.write("data/here", "1");
    watch.event(|event| event["event"] == "connection_lost");
    there.write("data/there", "2");
    let server = serve(&there, &at);
    synced(&mut watch, || reads(&there, "here", "1") && reads(&here, "there", "2"));
    // And goes on to watch over the new connection.
    there.write("data/there", "3");
    synced(&mut watch, || reads(&here, "there", "3"));
    // A server that is stopped in order is waited for as well.
    assert_eq!(server.stop().code, Some(0));
    watch.event(|event| event["event"] == "connection_lost");
    let _server = serve(&there, &at);
    there.write("data/there", "4");
    synced(&mut watch, || reads(&here, "there", "4"));
    interrupted(watch, &here, &there);
}

#[test]
fn it_waits_for_a_server_that_is_absent_at_the_start() {
    let (here, there, server) = machines();
    let at = server.address();
    drop(server); // Killed.
    there.write("data/theirs", "1");
    let target = format!("nas@{at}");
    let args = ["sync", "--watch", "--json", "data", &target];
    let mut watch = Running::start(&mut here.command(&args));
    let lost = watch.event(|event| event["event"] == "connection_lost");
    assert!(lost["pause_seconds"].as_f64().unwrap() > 0.0, "{lost}");
    let _server = serve(&there, &at);
    synced(&mut watch, || reads(&here, "theirs", "1"));
    watch.interrupt();
    assert_eq!(watch.rest().code, Some(130));
    // Not longer than it is told to, and not at all where nothing is watched.
    drop(_server);
    let run = here.run(&["sync", "--watch", "--json", "--give-up-after", "8s", "data", &target]);
    assert!(run.events().iter().any(|event| event["event"] == "connection_lost"), "{run:?}");
    run.told(3, "no connection for 8s");
    let run = here.run(&["sync", "--json", "data", &target]);
    assert!(run.events().iter().all(|event| event["event"] != "connection_lost"), "{run:?}");
    assert_eq!(run.code, Some(3));
}

#[test]
fn a_directory_that_the_server_does_not_have_yet_is_created_and_watched() {
    let (here, there, server) = machines();
    here.write("data/file", "1");
    let target = format!("nas@{}/new/below", server.address());
    let args = ["sync", "--watch", "--json", "data", &target];
    let mut watch = Running::start(&mut here.command(&args));
    watch.event(|event| event["event"] == "synced");
    there.write("data/new/below/theirs", "2");
    synced(&mut watch, || reads(&here, "theirs", "2"));
    watch.interrupt();
    assert_eq!(watch.rest().code, Some(130));
}

#[test]
fn one_direction_and_filters_count_while_it_watches() {
    let (here, there, server) = machines();
    let mut watch = watch(&here, &server, &["--one-way", "push", "--exclude", "skipped"]);
    there.write("data/theirs", "x");
    here.write("data/skipped/file", "x");
    here.write("data/ours", "1");
    synced(&mut watch, || reads(&there, "ours", "1"));
    here.write("data/theirs", "y");
    let conflict = watch.event(|event| event["event"] == "left_out");
    assert_eq!((&conflict["kind"], &conflict["path"]), (&"conflict".into(), &"theirs".into()));
    here.write("data/ours", "2");
    synced(&mut watch, || reads(&there, "ours", "2"));
    watch.interrupt();
    assert_eq!(watch.rest().code, Some(130));
    assert!(reads(&there, "theirs", "x") && !there.file("data/skipped").exists());
}

#[test]
fn changes_of_ignored_paths_start_no_round() {
    let (here, there, server) = machines();
    here.write("data/.gitignore", "*.log\nbuild/\n");
    let mut watch = watch(&here, &server, &["--ignore", "--exclude", "skipped"]);
    here.write("data/file", "1");
    synced(&mut watch, || reads(&there, "file", "1"));
    watch.event(|event| is_phase(event, "watching"));
    // Takes about a second: what the sync itself has written is noticed by then.
    here.run(&["ping", &format!("nas@{}", server.address())]).done();
    for machine in [&here, &there] {
        for name in ["new.log", "build/deep/file", "skipped/file"] {
            machine.write(&format!("data/{name}"), "x");
        }
    }
    here.run(&["ping", &format!("nas@{}", server.address())]).done();
    watch.interrupt();
    let events = watch.rest().events();
    let rounds = events.iter().filter(|event| is_phase(event, "scanning")).count();
    assert!(rounds <= 2, "those of what the sync has written: {rounds}");
    for name in ["new.log", "build", "skipped"] {
        fs::remove_dir_all(here.file(&format!("data/{name}"))).unwrap_or_default();
    }
}

#[test]
fn a_directory_that_is_moved_away_or_replaced_ends_it() {
    let (here, there, server) = machines();
    there.write("data/kept", "x");
    let mut watch = watch(&here, &server, &[]);
    watch.event(|event| is_phase(event, "watching"));
    fs::rename(here.file("data"), here.file("moved")).unwrap();
    here.dir("data");
    let run = watch.rest().told(7, "was removed or replaced");
    assert!(run.events().iter().all(|event| event["event"] != "action"), "{run:?}");
    assert!(reads(&there, "kept", "x"), "an empty directory in its place is no deletion");
}

#[test]
fn a_dry_run_does_not_watch() {
    let (here, _there, server) = machines();
    let target = format!("nas@{}", server.address());
    here.run(&["sync", "--watch", "--dry-run", "data", &target]).told(2, "cannot be used with");
}

/// Where the limit of watches is lower than what a tree needs.
#[cfg(target_os = "linux")]
#[test]
fn more_directories_than_may_be_watched_are_named_with_the_line_that_raises_the_limit() {
    let (here, there, server) = machines();
    for at in 0..20 {
        here.write(&format!("data/{at}/file"), "1");
    }
    let target = format!("nas@{}", server.address());
    let limited = "echo 5 > /proc/sys/user/max_inotify_watches && exec \"$0\" \"$@\"";
    let mut command = here.command(&["sync", "--watch", "--json", "data", &target]);
    let program = command.get_program().to_owned();
    let mut unshare = Command::new("unshare");
    unshare.args(["--user", "--map-root-user", "sh", "-c", limited]).arg(program).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => unshare.env(name, value),
            None => unshare.env_remove(name),
        };
    }
    command = unshare;
    command.current_dir(here.file(".")).stdin(std::process::Stdio::null());
    if !is_possible(limited) {
        eprintln!("skipped: no user namespaces here");
        return;
    }
    let mut watch = Running::start(&mut command);
    let told = watch.event(|event| event["event"] == "not_watched");
    let message = told["message"].as_str().unwrap();
    assert!(message.ends_with("sudo sysctl -w user.max_inotify_watches=131072"), "{message}");
    assert_eq!((&told["side"], &told["scan_seconds"]), (&"here".into(), &60.0.into()));
    // What is watched still is.
    here.write("data/top", "1");
    synced(&mut watch, || reads(&there, "top", "1"));
    interrupted(watch, &here, &there);
}

/// Whether the limit can be lowered here.
#[cfg(target_os = "linux")]
fn is_possible(limited: &str) -> bool {
    let mut trial = Command::new("unshare");
    trial.args(["--user", "--map-root-user", "sh", "-c", limited, "true"]);
    trial.output().is_ok_and(|done| done.status.success())
}
