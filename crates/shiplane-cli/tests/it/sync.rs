//! Two-way sync.

use std::fs;

use crate::program::{Machine, Run, Running, Server, assert_same_tree};

fn serve(there: &Machine) -> Server {
    there.serve_with("data", &["--writable", "--listen", "127.0.0.1:0"])
}

fn diverged() -> (Machine, Machine) {
    let (here, there) = (Machine::new(), Machine::new());
    for at in 0..20 {
        for machine in [&here, &there] {
            machine.write_old(&format!("data/common/{at}"), at.to_string());
        }
    }
    here.write("data/mine/new", "mine");
    there.write("data/theirs/odd\u{1b}name", "theirs");
    there.dir("data/void");
    (here, there)
}

#[test]
fn files_of_either_side_are_on_both_and_a_second_run_has_nothing_to_do() {
    let (here, there) = diverged();
    let server = serve(&there);
    let run = here.run(&["sync", "data", server.ticket()]).done();
    assert_eq!((run.out.as_str(), run.err.as_str()), ("", ""), "silence on a pipe");
    assert_same_tree(&here.file("data"), &there.file("data"));

    let again = here.run(&["sync", "data/", server.ticket(), "--json"]).done().last_event();
    assert_eq!(
        (&again["event"], &again["files"], &again["actions"]),
        (&"done".into(), &22.into(), &0.into())
    );
    assert_eq!((&again["bytes_sent"], &again["bytes_received"]), (&0.into(), &0.into()));

    fs::remove_dir_all(here.file("data/mine")).unwrap();
    fs::write(there.file("data/common/1"), "edited").unwrap();
    here.run(&["sync", "data", server.ticket(), "--quiet"]).done();
    assert!(!there.file("data/mine").exists());
    assert_eq!(fs::read(here.file("data/common/1")).unwrap(), b"edited");
    assert_same_tree(&here.file("data"), &there.file("data"));
    assert_eq!(server.stop().code, Some(0));
}

#[test]
fn a_dry_run_tells_each_action_its_side_and_why() {
    let (here, there) = diverged();
    for entry in fs::read_dir(here.file("data/common")).unwrap() {
        let entry = entry.unwrap();
        let same = there.file("data/common").join(entry.file_name());
        let same = fs::File::options().write(true).open(same).unwrap();
        same.set_modified(entry.metadata().unwrap().modified().unwrap()).unwrap();
    }
    let server = serve(&there);
    let run = here.run(&["sync", "--dry-run", "data", server.ticket()]).done();
    let mut lines: Vec<_> = run.out.lines().collect();
    lines.sort_unstable();
    let expected = [
        "here: create directory theirs (new on the other side)",
        "here: create directory void (new on the other side)",
        "here: take theirs/odd\\x1bname (new on the other side)",
        "there: create directory mine (new on the other side)",
        "there: take mine/new (new on the other side)",
    ];
    assert_eq!(lines, expected);
    let events = here.run(&["sync", "-n", "--json", "data", server.ticket()]).done().events();
    let done = events.last().unwrap();
    assert_eq!((&done["dry_run"], &done["actions"]), (&true.into(), &5.into()));
    let take = events.iter().find(|event| event["path"] == "mine/new").unwrap();
    assert_eq!(
        (&take["event"], &take["side"], &take["change"]),
        (&"action".into(), &"there".into(), &"take".into())
    );
    assert!(!here.file("data/theirs").exists() && !there.file("data/mine").exists());
}

#[test]
fn of_two_edits_both_stay() {
    let (here, there) = (Machine::new(), Machine::new());
    here.write("data/report.txt", "1");
    there.dir("data");
    let server = serve(&there);
    Run::of(here.command(&["sync", "data"]).env("SHIPLANE_TICKET", server.ticket())).done();
    here.write("data/report.txt", "ours");
    there.write("data/report.txt", "theirs");
    let run = here.run(&["sync", "data", server.ticket()]).done();
    let told = "conflict: report.txt was changed on both sides; the other version is report.conflict-";
    assert!(run.err.starts_with(told) && run.err.lines().count() == 1, "{run:?}");
    assert_same_tree(&here.file("data"), &there.file("data"));
    let names: Vec<_> =
        fs::read_dir(here.file("data")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
    assert!(names.iter().any(|name| name.to_str().unwrap().starts_with("report.conflict-")), "{names:?}");
}

#[test]
fn a_mass_deletion_needs_consent() {
    let (here, there) = diverged();
    let server = serve(&there);
    here.run(&["sync", "data", server.ticket()]).done();
    fs::remove_dir_all(here.file("data/common")).unwrap();
    let run = here.run(&["sync", "data", server.ticket()]).failed(6, "20 of 22 files would be deleted");
    assert!(run.err.contains("--allow-mass-deletion"), "{run:?}");
    assert!(there.file("data/common/1").exists());
    here.run(&["sync", "data", server.ticket(), "--allow-mass-deletion"]).done();
    assert_same_tree(&here.file("data"), &there.file("data"));
}

#[test]
fn either_machine_may_begin_and_both_remember() {
    let (here, there) = (Machine::new(), Machine::new());
    here.run(&["peers", "add", "nas", &there.id(), "--read", "--write"]).done();
    there.run(&["peers", "add", "laptop", &here.id(), "--read", "--write"]).done();
    for at in 0..4 {
        here.write(&format!("data/{at}"), at.to_string());
    }
    there.dir("data");
    let servers = [serve(&here), serve(&there)];
    let sync = |from: &Machine, to: &str, server: &Server| {
        from.run(&["sync", "data", &format!("{to}@{}", server.address())]).done();
    };
    sync(&here, "nas", &servers[1]);
    fs::remove_file(there.file("data/1")).unwrap();
    there.write("data/2", "edited");
    sync(&there, "laptop", &servers[0]);
    assert_same_tree(&here.file("data"), &there.file("data"));
    here.write("data/2", "edited again");
    sync(&here, "nas", &servers[1]);
    assert_same_tree(&here.file("data"), &there.file("data"));
    assert_eq!(fs::read_dir(here.file("data")).unwrap().count(), 3);
}

#[test]
fn a_missing_permission_is_reported_as_such() {
    let (here, there) = diverged();
    let read_only = there.serve("data");
    here.run(&["sync", "data", read_only.ticket()]).failed(4, "may not write here");
    // A dry run needs no more than that, but a server that takes part.
    let run = here.run(&["sync", "-n", "data", read_only.ticket()]).failed(6, "nothing can be synced");
    assert!(run.err.contains("--writable"), "{run:?}");
    let server = serve(&there);
    here.run(&["sync", "missing", server.ticket()]).failed(7, "does not exist");
    here.write("file", "x");
    here.run(&["sync", "file", server.ticket()]).failed(6, "file is not a directory");
    here.run(&["sync", "data"]).failed(2, "there is no target");
    here.run(&["sync", "data", &server.ticket_for("../x")]).told(2, "");
    assert!(!there.file("data/mine").exists());
}

/// Either of the two is killed while it works, at an arbitrary moment.
#[test]
fn killed_on_either_side_it_goes_on_by_the_same_command() {
    let (here, there) = (Machine::new(), Machine::new());
    there.run(&["peers", "add", "laptop", &here.id(), "--read", "--write"]).done();
    here.run(&["peers", "add", "nas", &there.id()]).done();
    let noise = |seed: u32| -> Vec<u8> {
        (0..20_000_000_u32)
            .map(|at| (at.wrapping_mul(2_654_435_761).wrapping_add(seed) >> 24) as u8)
            .collect()
    };
    here.write("data/mine", noise(1));
    there.write("data/theirs", noise(77));
    for at in 0..200 {
        here.write(&format!("data/small/{at}"), at.to_string());
    }
    let target = |server: &Server| format!("nas@{}", server.address());
    for kills_server in [true, false] {
        let server = serve(&there);
        let mut run = Running::start(&mut here.command(&["sync", "data", &target(&server), "--json"]));
        run.first_byte();
        let killed: (Option<Server>, Option<Running>) =
            if kills_server { (Some(server), None) } else { (None, Some(run)) };
        drop(killed);
    }
    let server = serve(&there);
    here.run(&["sync", "data", &target(&server)]).done();
    assert_same_tree(&here.file("data"), &there.file("data"));
    assert_eq!(fs::read(there.file("data/mine")).unwrap(), noise(1));
    assert_eq!(fs::read_dir(there.file("data")).unwrap().count(), 3, "nothing of our own is left");
}
