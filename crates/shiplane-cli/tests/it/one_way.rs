//! Sync in one direction.

use std::fs;

use serde_json::Value;

use crate::program::{Machine, Run, Server, assert_same_tree};

fn serve(there: &Machine) -> Server {
    there.serve_with("data", &["--writable", "--listen", "127.0.0.1:0"])
}

/// Two machines that have been synced.
fn equal() -> (Machine, Machine, Server) {
    let (here, there) = (Machine::new(), Machine::new());
    for name in ["edited", "deleted", "gone", "both", "d/same", "other/x"] {
        here.write(&format!("data/{name}"), name);
    }
    there.dir("data");
    let server = serve(&there);
    here.run(&["sync", "data", server.ticket()]).done();
    assert_same_tree(&here.file("data"), &there.file("data"));
    (here, there, server)
}

fn read(machine: &Machine, name: &str) -> Option<String> {
    fs::read_to_string(machine.file(&format!("data/{name}"))).ok()
}

fn conflicts(run: &Run) -> Vec<(Value, Value)> {
    let events = run.events().into_iter();
    let conflicts = events.filter(|event| event["event"] == "left_out" && event["kind"] == "conflict");
    conflicts.map(|event| (event["side"].clone(), event["path"].clone())).collect()
}

/// Changes on both sides: `from` has those that are to be taken, `at` takes them.
fn change(from: &Machine, at: &Machine) {
    from.write("data/edited", "edited again");
    from.write("data/new/file", "new");
    fs::remove_file(from.file("data/deleted")).unwrap();
    from.write("data/both", "one version");
    at.write("data/both", "another");
    at.write("data/own", "its own");
    fs::remove_file(at.file("data/gone")).unwrap();
    fs::remove_dir_all(at.file("data/other")).unwrap();
}

fn is_done(from: &Machine, at: &Machine) {
    assert_eq!(read(at, "edited").as_deref(), Some("edited again"));
    assert_eq!(read(at, "new/file").as_deref(), Some("new"));
    assert_eq!(read(at, "deleted"), None);
    assert_eq!(read(at, "both").as_deref(), Some("another"), "what it has changed itself stays");
    assert_eq!(read(at, "own").as_deref(), Some("its own"));
    assert_eq!(read(at, "gone").as_deref(), Some("gone"), "what is still there comes again");
    assert_eq!(read(at, "other/x").as_deref(), Some("other/x"));
    // Nothing has happened there.
    assert_eq!(read(from, "both").as_deref(), Some("one version"));
    assert_eq!(read(from, "own"), None);
    assert_eq!(read(from, "gone").as_deref(), Some("gone"));
}

#[test]
fn a_one_way_push_changes_only_the_server_and_keeps_its_own_changes() {
    let (here, there, server) = equal();
    change(&here, &there);
    let push = ["sync", "--one-way", "push", "data", server.ticket(), "--json"];
    let run = here.run(&push).told(9, "");
    assert_eq!(conflicts(&run), [("there".into(), "both".into())], "{run:?}");
    is_done(&here, &there);
    // A second run finds nothing to do but the conflict, and names it again.
    let run = here.run(&push).told(9, "");
    assert!(run.events().iter().all(|event| event["event"] != "action"), "{run:?}");
    assert_eq!(conflicts(&run).len(), 1);
    // A sync in both directions finds all of it.
    here.run(&["sync", "data", server.ticket()]).done();
    assert_same_tree(&here.file("data"), &there.file("data"));
    assert_eq!(read(&here, "own").as_deref(), Some("its own"));
}

#[test]
fn a_one_way_get_changes_only_this_side_and_keeps_its_own_changes() {
    let (here, there, server) = equal();
    change(&there, &here);
    let get = ["sync", "--one-way=get", "data", server.ticket(), "--json"];
    // Of a dry run, the same.
    let run = here.run(&[&get[..], &["-n"]].concat()).told(9, "");
    assert_eq!(conflicts(&run), [("here".into(), "both".into())], "{run:?}");
    assert_eq!(read(&here, "deleted").as_deref(), Some("deleted"));
    let run = here.run(&get).told(9, "");
    assert_eq!(conflicts(&run), [("here".into(), "both".into())], "{run:?}");
    is_done(&there, &here);
    // Without events, conflicts are shown too.
    let run = here.run(&get[..4]).told(9, "a one-way sync keeps it");
    assert!(run.err.contains("both"), "{run:?}");
}

#[test]
fn modes_links_and_directories_go_one_way_too() {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    let (here, there, server) = equal();
    let push = ["sync", "--one-way", "push", "data", server.ticket()];
    symlink("d/same", here.file("data/link")).unwrap();
    fs::set_permissions(here.file("data/edited"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(there.file("data/gone"), fs::Permissions::from_mode(0o640)).unwrap();
    here.dir("data/void");
    there.dir("data/own");
    here.run(&push).done();
    let mode = |machine: &Machine, name: &str| {
        fs::metadata(machine.file(&format!("data/{name}"))).unwrap().permissions().mode() & 0o777
    };
    assert_eq!(fs::read_link(there.file("data/link")).unwrap().to_str(), Some("d/same"));
    assert_eq!((mode(&there, "edited"), mode(&there, "gone")), (0o600, 0o640));
    assert!(there.file("data/void").is_dir() && there.file("data/own").is_dir());
    assert!(!here.file("data/own").exists());
    assert_ne!(mode(&here, "gone"), 0o640);
    // A directory that is gone here goes there, unless something of its own is in it.
    fs::remove_dir_all(here.file("data/void")).unwrap();
    fs::remove_dir_all(here.file("data/d")).unwrap();
    there.write("data/d/own", "x");
    here.run(&push).done();
    assert!(!there.file("data/void").exists());
    assert_eq!((read(&there, "d/own").as_deref(), read(&there, "d/same")), (Some("x"), None));
}

#[test]
fn a_mass_deletion_in_one_direction_needs_consent() {
    let (here, there, server) = equal();
    for entry in fs::read_dir(here.file("data")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }.unwrap();
    }
    let push = ["sync", "--one-way", "push", "data", server.ticket()];
    here.run(&push).failed(6, "6 of 6 files would be deleted");
    assert!(there.file("data/d/same").exists());
    // The other way, nothing is lost by it: it all comes again.
    here.run(&["sync", "--one-way", "get", "data", server.ticket()]).done();
    assert_same_tree(&here.file("data"), &there.file("data"));
}

#[test]
fn a_get_needs_no_permission_to_write() {
    let (here, there) = (Machine::new(), Machine::new());
    here.dir("data");
    there.write("data/d/theirs", "1");
    let server = there.serve("data");
    here.run(&["sync", "--one-way", "get", "data", server.ticket()]).done();
    there.write("data/d/theirs", "22");
    there.write("data/new", "3");
    here.run(&["sync", "--one-way", "get", "data", server.ticket()]).done();
    assert_same_tree(&here.file("data"), &there.file("data"));
    for one_way in [&["--one-way", "push"][..], &[]] {
        let run = here.run(&[&["sync"][..], one_way, &["data", server.ticket()]].concat());
        assert_eq!(run.code, Some(4), "{run:?}");
    }
    assert_eq!(server.stop().code, Some(0));
    assert_eq!(fs::read_dir(there.file("data")).unwrap().count(), 2, "nothing is left there");
}
