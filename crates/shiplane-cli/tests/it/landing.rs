//! Destinations: one rule for every command, and a command that is run twice changes nothing.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::program::{Machine, Server};

/// What each `get` of the served tree makes: sources, DEST, the files that are there afterwards. A directory `dir`
/// is there before.
const GETS: &[(&[&str], Option<&str>, &[&str])] = &[
    (&[""], None, &["src/d/e/h", "src/d/g", "src/f"]),
    (&[""], Some("."), &["d/e/h", "d/g", "f"]),
    (&[""], Some("./"), &["src/d/e/h", "src/d/g", "src/f"]),
    (&[""], Some("new"), &["new/d/e/h", "new/d/g", "new/f"]),
    (&[""], Some("new/"), &["new/src/d/e/h", "new/src/d/g", "new/src/f"]),
    (&[""], Some("dir"), &["dir/d/e/h", "dir/d/g", "dir/f"]),
    (&[""], Some("dir/"), &["dir/src/d/e/h", "dir/src/d/g", "dir/src/f"]),
    (&[""], Some("a/b/c"), &["a/b/c/d/e/h", "a/b/c/d/g", "a/b/c/f"]),
    (&["d"], None, &["d/e/h", "d/g"]),
    (&["d"], Some("."), &["e/h", "g"]),
    (&["d"], Some("new"), &["new/e/h", "new/g"]),
    (&["d/"], Some("new"), &["new/e/h", "new/g"]),
    (&["d"], Some("new/"), &["new/d/e/h", "new/d/g"]),
    (&["d"], Some("dir"), &["dir/e/h", "dir/g"]),
    (&["d"], Some("dir/"), &["dir/d/e/h", "dir/d/g"]),
    (&["d"], Some("a/b/"), &["a/b/d/e/h", "a/b/d/g"]),
    (&["d/g"], None, &["g"]),
    (&["d/g"], Some("."), &["g"]),
    (&["d/g"], Some("new"), &["new"]),
    (&["d/g"], Some("new/"), &["new/g"]),
    (&["d/g"], Some("dir"), &["dir/g"]),
    (&["d/g"], Some("dir/"), &["dir/g"]),
    (&["d/g"], Some("dir/new"), &["dir/new"]),
    (&["d/g"], Some("a/b"), &["a/b"]),
    (&["d/e", "f"], None, &["e/h", "f"]),
    (&["d/e", "f"], Some("new"), &["new/e/h", "new/f"]),
    (&["d/e", "f"], Some("dir/"), &["dir/e/h", "dir/f"]),
    (&["", "d/e"], Some("new"), &["new/e/h", "new/src/d/e/h", "new/src/d/g", "new/src/f"]),
];

/// The same for `push`: paths, the directory of the target, the files there afterwards. A directory `dir` is there before.
const PUSHES: &[(&[&str], &str, &[&str])] = &[
    (&["src"], "", &["src/d/e/h", "src/d/g", "src/f"]),
    (&["src/"], "", &["src/d/e/h", "src/d/g", "src/f"]),
    (&["src/."], "", &["d/e/h", "d/g", "f"]),
    (&["src/."], "new", &["new/d/e/h", "new/d/g", "new/f"]),
    (&["src/d"], "dir", &["dir/d/e/h", "dir/d/g"]),
    (&["src/d/."], "dir/", &["dir/e/h", "dir/g"]),
    (&["src/d"], "a/b", &["a/b/d/e/h", "a/b/d/g"]),
    (&["src/f"], "", &["f"]),
    (&["src/f"], "dir", &["dir/f"]),
    (&["src/f", "src/d/e"], "new", &["new/e/h", "new/f"]),
    (&["src/f", "src/d/."], "", &["e/h", "f", "g"]),
];

#[test]
fn a_get_lands_by_one_rule_and_changes_nothing_the_second_time() {
    let there = Machine::new();
    let server = serve(&there, "src", &[]);
    // A ticket is for one key.
    let here = Machine::new();
    for (at, (sources, dest, files)) in GETS.iter().enumerate() {
        let place = format!("case-{at}");
        here.dir(&format!("{place}/dir"));
        let sources: Vec<_> = sources.iter().map(|path| server.ticket_for(path)).collect();
        let args: Vec<_> =
            ["get"].into_iter().chain(sources.iter().map(String::as_str)).chain(*dest).collect();
        twice(&here, &args, &here.file(&place), files);
    }
}

#[test]
fn a_push_lands_by_one_rule_and_changes_nothing_the_second_time() {
    let (here, there) = (Machine::new(), Machine::new());
    tree(&here);
    let server = serve(&there, "inbox", &["--writable"]);
    for (at, (paths, target, files)) in PUSHES.iter().enumerate() {
        let place = format!("case-{at}");
        there.dir(&format!("inbox/{place}/dir"));
        let target =
            server.ticket_for(&if target.is_empty() { place.clone() } else { format!("{place}/{target}") });
        let args = [&["push"], *paths, &[&target]].concat();
        twice_in(&here, &here.file(""), &args, &there.file("inbox").join(&place), files);
    }
}

#[test]
fn a_sync_changes_nothing_the_second_time() {
    let (here, there) = (Machine::new(), Machine::new());
    tree(&here);
    let server = serve(&there, "inbox", &["--writable"]);
    let args = ["sync", "src", &server.ticket_for("copy")];
    twice_in(&here, &here.file(""), &args, &there.file("inbox/copy"), &["d/e/h", "d/g", "f"]);
}

#[test]
fn two_sources_of_one_name_are_refused_before_the_second_is_written() {
    let (here, there) = (Machine::new(), Machine::new());
    there.write("src/a/x", "one");
    there.write("src/b/x", "two");
    let server = serve(&there, "src", &[]);
    let (one, two) = (server.ticket_for("a/x"), server.ticket_for("b/x"));
    for _ in 0..2 {
        here.run(&["get", &one, &two, "dest", "--overwrite"]).failed(2, "the name x");
        assert_eq!(fs::read(here.file("dest/x")).unwrap(), b"one");
    }
    here.run(&["get", &one, &two, "-"]).failed(2, "standard output");
}

fn tree(machine: &Machine) {
    for (path, content) in [("src/f", "f"), ("src/d/g", "g"), ("src/d/e/h", "h")] {
        machine.write(path, content);
    }
}

fn serve(there: &Machine, root: &str, args: &[&str]) -> Server {
    if root == "src" {
        tree(there);
    }
    there.serve_with(root, &[args, &["--listen", "127.0.0.1:0"]].concat())
}

fn twice(machine: &Machine, args: &[&str], place: &Path, files: &[&str]) {
    twice_in(machine, place, args, place, files);
}

/// Runs the command twice in `dir`; both times `place` must hold these files, and the second time the very same.
#[track_caller]
fn twice_in(machine: &Machine, dir: &Path, args: &[&str], place: &Path, files: &[&str]) {
    let run = || crate::program::Run::of(machine.command(args).current_dir(dir)).done();
    run();
    let first = listing(place);
    let found: Vec<_> = first.iter().map(|(path, _)| path.to_str().expect("plain names")).collect();
    assert_eq!(found, files, "{args:?}");
    run();
    assert_eq!(listing(place), first, "{args:?}, the second time");
}

/// The files below, each with its inode and its times.
fn listing(root: &Path) -> Vec<(PathBuf, (u64, i64, i64))> {
    let entries = walkdir::WalkDir::new(root).sort_by_file_name().into_iter();
    let files = entries.map(|entry| entry.expect("an entry")).filter(|entry| entry.file_type().is_file());
    let state = |path: &Path| {
        let found = fs::metadata(path).expect("a file");
        (found.ino(), found.mtime(), found.ctime())
    };
    files
        .map(|file| (file.path().strip_prefix(root).expect("below").to_owned(), state(file.path())))
        .collect()
}
