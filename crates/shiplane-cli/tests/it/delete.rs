//! `--delete` removes files that the source does not have, and nothing else.

use std::fs;
use std::path::Path;

use crate::program::{Machine, Server};

/// A source of ten files, and a copy with some more.
fn tree(machine: &Machine, root: &str) {
    for at in 0..10 {
        machine.write(&format!("{root}/d{}/{at}", at % 2), at.to_string());
    }
}

fn surplus(machine: &Machine, root: &str) {
    tree(machine, root);
    machine.write(&format!("{root}/d0/old"), "old");
    machine.write(&format!("{root}/gone/deep/old"), "old");
    std::os::unix::fs::symlink("/etc/passwd", machine.file(root).join("link")).unwrap();
}

fn serve(there: &Machine) -> Server {
    there.serve_with("data", &["--writable", "--listen", "127.0.0.1:0"])
}

/// The same, with this one beside those of the source.
fn assert_gone_but(root: &Path, kept: &str) {
    let kept = root.join("d0").join(kept);
    assert!(kept.symlink_metadata().unwrap().is_symlink());
    fs::remove_file(&kept).unwrap();
    assert_gone(root);
    std::os::unix::fs::symlink("x", kept).unwrap();
}

fn assert_gone(root: &Path) {
    for path in ["d0/old", "gone", "link"] {
        assert!(root.join(path).symlink_metadata().is_err(), "{path}");
    }
    assert_eq!(fs::read_dir(root.join("d0")).unwrap().count(), 5);
    assert!(Path::new("/etc/passwd").exists());
}

#[test]
fn a_get_with_delete_removes_files_that_the_source_does_not_have() {
    let (here, there) = (Machine::new(), Machine::new());
    tree(&there, "data");
    surplus(&here, "copy");
    here.write("beside", "mine");
    let server = serve(&there);
    here.run(&["get", server.ticket(), "copy"]).done();
    assert!(here.file("copy/gone/deep/old").exists());
    let run = here.run(&["get", server.ticket(), "copy", "--delete", "--json"]).done();
    assert_eq!(run.last_event()["deleted"], 3);
    assert!(run.out.contains("\"change\":\"remove_directory\",\"path\":\"gone/deep\""), "{run:?}");
    assert_gone(&here.file("copy"));
    assert_eq!(fs::read(here.file("beside")).unwrap(), b"mine");
    let again = here.run(&["get", server.ticket(), "copy", "--delete", "--json"]).done().last_event();
    assert_eq!(again["deleted"], 0);
    // A single file takes nothing with it.
    here.run(&["get", &server.ticket_for("d0/0"), "copy/d0", "--delete"]).done();
    assert_gone(&here.file("copy"));
}

#[test]
fn a_push_deletes_within_the_directory_that_it_becomes() {
    let (here, there) = (Machine::new(), Machine::new());
    tree(&here, "src");
    surplus(&there, "data/src");
    there.write("data/beside", "theirs");
    let server = serve(&there);
    let run = here.run(&["push", "src", server.ticket(), "--delete", "--json"]).done();
    assert_eq!(run.last_event()["deleted"], 3);
    assert_gone(&there.file("data/src"));
    assert_eq!(fs::read(there.file("data/beside")).unwrap(), b"theirs");
}

#[test]
fn most_of_a_tree_is_deleted_with_consent_only() {
    let (here, there) = (Machine::new(), Machine::new());
    there.dir("data/empty");
    tree(&here, "copy");
    here.dir("void");
    let server = serve(&there);
    let empty = server.ticket_for("empty");
    let run = here.run(&["get", &empty, "copy", "--delete"]).failed(6, "10 of 10 files");
    assert!(run.err.contains("--yes"), "{run:?}");
    assert_eq!(fs::read(here.file("copy/d0/0")).unwrap(), b"0");
    tree(&there, "data/full");
    let full = server.ticket_for("full");
    here.run(&["push", "void/.", &full, "--delete"]).failed(6, "10 of 10 files");
    assert_eq!(fs::read(there.file("data/full/d0/0")).unwrap(), b"0");
    here.run(&["push", "void/.", &full, "--delete", "--yes"]).done();
    assert_eq!(fs::read_dir(there.file("data/full")).unwrap().count(), 0);
    here.run(&["get", &empty, "copy", "--delete", "--yes"]).done();
    assert_eq!(fs::read_dir(here.file("copy")).unwrap().count(), 0);
    here.run(&["get", &empty, "copy", "--yes"]).failed(2, "--delete");
}

#[test]
fn excluded_files_are_not_deleted() {
    let (here, there) = (Machine::new(), Machine::new());
    tree(&there, "data");
    tree(&here, "copy");
    for path in ["copy/a.log", "copy/cache/x", "copy/gone/b.log", "copy/gone/b", "copy/ignored"] {
        here.write(path, "mine");
    }
    there.write("data/.gitignore", "ignored\n");
    let server = serve(&there);
    let args =
        ["get", server.ticket(), "copy", "--delete", "--exclude=*.log", "--exclude=/cache", "--ignore"];
    let done = here.run(&[&args[..], &["--json"]].concat()).done().last_event();
    assert_eq!(done["deleted"], 1);
    for path in ["copy/a.log", "copy/cache/x", "copy/gone/b.log", "copy/ignored"] {
        assert_eq!(fs::read(here.file(path)).unwrap(), b"mine", "{path}");
    }
    assert!(!here.file("copy/gone/b").exists());
    // The same the other way, where the server looks at its own tree.
    tree(&here, "src");
    here.write("src/.gitignore", "ignored\n");
    for path in ["data/in/src/a.log", "data/in/src/ignored", "data/in/src/b"] {
        there.write(path, "theirs");
    }
    let target = server.ticket_for("in");
    here.run(&["push", "src", &target, "--delete", "--exclude=*.log", "--ignore"]).done();
    assert!(there.file("data/in/src/a.log").exists() && there.file("data/in/src/ignored").exists());
    assert!(!there.file("data/in/src/b").exists());
}

#[test]
fn nothing_is_deleted_if_anything_is_left_out() {
    let (here, there) = (Machine::new(), Machine::new());
    tree(&there, "data");
    let _socket = std::os::unix::net::UnixListener::bind(there.file("data/socket")).unwrap();
    surplus(&here, "copy");
    let server = serve(&there);
    here.run(&["get", server.ticket(), "copy", "--delete"]).failed(9, "1 path was left out");
    let skipped = ["get", server.ticket(), "copy", "--delete", "--skip", "special"];
    here.run(&skipped).failed(9, "nothing was deleted");
    assert!(here.file("copy/gone/deep/old").exists());
    tree(&here, "src");
    let _other = std::os::unix::net::UnixListener::bind(here.file("src/socket")).unwrap();
    there.write("data/in/src/old", "old");
    let target = server.ticket_for("in");
    here.run(&["push", "src", &target, "--delete", "--skip", "special"]).failed(9, "nothing was deleted");
    assert!(there.file("data/in/src/old").exists());
}

#[test]
fn links_that_are_not_wanted_keep_nothing_else_from_being_deleted_and_stay_themselves() {
    let (here, there) = (Machine::new(), Machine::new());
    let link = |machine: &Machine, path: &str| std::os::unix::fs::symlink("x", machine.file(path)).unwrap();
    tree(&there, "data");
    surplus(&here, "copy");
    link(&there, "data/d0/kept");
    link(&here, "copy/d0/kept");
    let server = serve(&there);
    for wanted in ["--links=skip", "--skip=links"] {
        here.write("copy/d0/old", "old");
        here.run(&["get", server.ticket(), "copy", "--delete", wanted]).done();
        assert_gone_but(&here.file("copy"), "kept");
    }
    tree(&here, "src");
    link(&here, "src/d0/kept");
    surplus(&there, "data/src");
    link(&there, "data/src/d0/kept");
    here.run(&["push", "src", server.ticket(), "--delete", "--links=skip"]).done();
    assert_gone_but(&there.file("data/src"), "kept");
    // A path that is shown in another way than it is cannot be told from others by the server.
    link(&here, "src/d0/line\nfeed");
    there.write("data/src/d0/old", "old");
    let args = ["push", "src", server.ticket(), "--delete", "--links=skip"];
    here.run(&args).failed(9, "nothing was deleted");
    assert!(there.file("data/src/d0/old").exists());
}

#[test]
fn names_of_one_file_are_deleted_one_by_one_and_filters_and_dry_runs_know_them() {
    use std::os::unix::fs::MetadataExt as _;

    let (here, there) = (Machine::new(), Machine::new());
    let linked = |machine: &Machine, root: &str, names: &[&str]| {
        machine.write(&format!("{root}/a"), "one file");
        for name in names {
            fs::hard_link(machine.file(root).join("a"), machine.file(root).join(name)).unwrap();
        }
    };
    linked(&there, "data", &["b", "c.log"]);
    for name in ["x", "y", "z"] {
        there.write(&format!("data/{name}"), name);
    }
    let server = serve(&there);
    here.run(&["get", server.ticket(), "copy", "--exclude=*.log"]).done();
    let inode = |name: &str| fs::metadata(here.file("copy").join(name)).unwrap().ino();
    assert_eq!(inode("a"), inode("b"));
    assert!(!here.file("copy/c.log").exists());
    // One of its names is the source's no more, and another came; what is excluded stays.
    fs::remove_file(there.file("data/b")).unwrap();
    fs::hard_link(there.file("data/a"), there.file("data/d")).unwrap();
    fs::hard_link(here.file("copy/a"), here.file("copy/mine.log")).unwrap();
    let args = ["get", server.ticket(), "copy", "--exclude=*.log", "--delete"];
    let told = here.run(&[&args[..], &["--dry-run"]].concat()).done();
    assert_eq!(told.out.lines().filter(|line| line.contains("remove file")).count(), 1, "{told:?}");
    assert!(told.out.contains("remove file b") && here.file("copy/b").exists(), "{told:?}");
    let done = here.run(&[&args[..], &["--json"]].concat()).done().last_event();
    assert_eq!(done["deleted"], 1);
    assert!(!here.file("copy/b").exists());
    assert_eq!((inode("a"), inode("a")), (inode("d"), inode("mine.log")));
    // The first name goes, and the others stay the same file.
    fs::remove_file(there.file("data/a")).unwrap();
    here.run(&args).done();
    assert!(!here.file("copy/a").exists());
    assert_eq!(inode("d"), inode("mine.log"));
    assert_eq!(fs::read(here.file("copy/d")).unwrap(), b"one file");
}

#[test]
fn deleted_files_stay_as_backups_if_backups_are_kept() {
    let (here, there) = (Machine::new(), Machine::new());
    tree(&there, "data");
    tree(&here, "copy");
    here.write("copy/old", "old");
    let server = serve(&there);
    for _ in 0..2 {
        here.run(&["get", server.ticket(), "copy", "--delete", "--backup"]).done();
        assert!(!here.file("copy/old").exists());
        assert_eq!(fs::read(here.file("copy/old~")).unwrap(), b"old");
    }
}
