//! Filters: patterns, lists and ignore files, the same for `get`, `push` and `sync`.

use std::path::Path;

use crate::program::{Machine, Run, Server};

const TREE: [&str; 9] = [
    ".gitignore",
    "a.c",
    "a.o",
    "docs/index",
    "docs/index.o",
    "src/keep.o",
    "src/lib.c",
    "src/lib.o",
    "target/debug/x",
];

/// Options, and what of the tree they let through.
const CASES: &[(&[&str], &[&str])] = &[
    (&["--exclude", "*.o", "--exclude", "/target"], &[".gitignore", "a.c", "docs/index", "src/lib.c"]),
    (
        &["--exclude", "*.o", "--include", "keep.o", "--exclude", "docs", "--exclude=target"],
        &[".gitignore", "a.c", "src/keep.o", "src/lib.c"],
    ),
    (
        &["--include", "keep.o", "--exclude", "*.o", "--exclude", "docs", "--exclude=target"],
        &[".gitignore", "a.c", "src/lib.c"],
    ),
    (&["--exclude-from", "patterns", "--exclude", "docs"], &[".gitignore", "a.c", "src/keep.o", "src/lib.c"]),
    (&["--files-from", "list"], &["a.o", "docs/index", "docs/index.o"]),
    (&["--files-from", "list0", "-0"], &["a.o", "docs/index", "docs/index.o"]),
    (&["--files-from", "list", "--exclude", "index"], &["a.o", "docs/index.o"]),
    (&["--ignore"], &[".gitignore", "a.c", "docs/index", "src/lib.c"]),
    (&["--ignore", "--include", "keep.o"], &[".gitignore", "a.c", "docs/index", "src/keep.o", "src/lib.c"]),
    (&["--one-file-system", "--exclude", "*", "--include", "*.c"], &["a.c"]),
];

fn tree(machine: &Machine, root: &str) {
    for path in TREE {
        machine.write(&format!("{root}/{path}"), path);
    }
    machine.write(&format!("{root}/.gitignore"), "*.o\n/target\n");
}

fn lists(machine: &Machine) {
    machine.write("patterns", "# objects\n*.o\n\n!keep.o\ntarget/\n");
    machine.write("list", "a.o\n./docs/\n");
    machine.write("list0", "a.o\0docs\0");
}

fn serve(there: &Machine, root: &str) -> Server {
    there.serve_with(root, &["--writable", "--listen", "127.0.0.1:0"])
}

#[test]
fn a_get_fetches_only_included_paths() {
    let (here, there) = (Machine::new(), Machine::new());
    tree(&there, "src");
    lists(&here);
    let server = serve(&there, "src");
    for (at, (options, files)) in CASES.iter().enumerate() {
        let dest = format!("copy-{at}");
        here.run(&[&["get", server.ticket(), &dest], *options].concat()).done();
        assert_eq!(listing(&here.file(&dest)), *files, "{options:?}");
    }
    // One file that is asked for by its path is not excluded.
    here.run(&["get", &server.ticket_for("a.o"), "one.o", "--exclude", "*.o", "--files-from", "list"]).done();
    assert!(here.file("one.o").exists());
}

#[test]
fn a_push_sends_only_included_paths() {
    let (here, there) = (Machine::new(), Machine::new());
    tree(&here, "src");
    lists(&here);
    let server = serve(&there, "inbox");
    for (at, (options, files)) in CASES.iter().enumerate() {
        let dest = format!("copy-{at}");
        here.run(&[&["push", "src/.", &server.ticket_for(&dest)], *options].concat()).done();
        assert_eq!(listing(&there.file("inbox").join(&dest)), *files, "{options:?}");
    }
}

#[test]
fn a_sync_neither_sends_nor_deletes_excluded_paths() {
    for (options, files) in CASES {
        let (here, there) = (Machine::new(), Machine::new());
        tree(&here, "mine");
        lists(&here);
        let server = serve(&there, "theirs");
        let sync = || {
            let args = ["sync", "mine", server.ticket(), "--allow-mass-deletion"];
            here.run(&[&args, *options].concat())
        };
        sync().done();
        assert_eq!(listing(&there.file("theirs")), *files, "{options:?}");

        // Their own excluded files stay, and an excluded one that goes here is not missed there.
        for path in TREE {
            there
                .write(&format!("theirs/{path}"), if path == ".gitignore" { "*.o\n/target\n" } else { path });
        }
        let excluded = TREE.iter().find(|path| !files.contains(path)).expect("something is excluded");
        std::fs::remove_file(here.file("mine").join(excluded)).unwrap();
        std::fs::remove_file(here.file("mine").join(files[0])).unwrap();
        sync().done();
        let mut left = TREE.to_vec();
        left.retain(|path| *path != files[0]);
        assert_eq!(listing(&there.file("theirs")), left, "{options:?}");
        assert!(!here.file("mine").join(excluded).exists(), "{options:?}");
    }
}

#[test]
fn paths_ignored_on_one_side_alone_stay_unchanged_on_both() {
    let (here, there) = (Machine::new(), Machine::new());
    here.write("mine/built", "here");
    let server = serve(&there, "theirs");
    let sync = || here.run(&["sync", "mine", server.ticket(), "--ignore"]).done();
    sync();
    assert_eq!(listing(&there.file("theirs")), ["built"]);
    // It was common; now this side ignores it, and the other must not take that for a deletion.
    here.write("mine/.gitignore", "built\n");
    sync();
    sync();
    assert_eq!(listing(&there.file("theirs")), [".gitignore", "built"]);
    assert_eq!(listing(&here.file("mine")), [".gitignore", "built"]);
}

#[test]
fn a_listed_path_that_does_not_exist_is_left_out_with_its_name() {
    let (here, there) = (Machine::new(), Machine::new());
    tree(&there, "src");
    tree(&here, "src");
    here.write("list", "a.c\nnone/at/all\n");
    let server = serve(&there, "src");
    let run = here.run(&["get", server.ticket(), "copy", "--files-from", "list"]).failed(9, "1 path");
    assert!(run.err.contains("left out there: none/at/all: not found\n"), "{run:?}");
    assert_eq!(listing(&here.file("copy")), ["a.c"]);
    let run =
        here.run(&["push", "src", &server.ticket_for("in"), "--files-from", "list"]).failed(9, "1 path");
    assert!(run.err.contains("left out here: none/at/all: not found\n"), "{run:?}");
    let code = here.feed(&["get", server.ticket(), "two", "--files-from", "-"], b"a.o\n");
    assert_eq!((code, listing(&here.file("two"))), (Some(0), vec!["a.o".to_owned()]));
}

#[test]
fn a_broken_pattern_is_a_usage_error_with_its_line() {
    let (here, there) = (Machine::new(), Machine::new());
    tree(&there, "src");
    let server = serve(&there, "src");
    here.write("patterns", "*.o\n\na[z\n");
    here.write("list", "../a\n");
    let get = |options: &[&str]| here.run(&[&["get", server.ticket(), "copy"], options].concat());
    let told = |run: Run, text: &str| assert!(run.err.contains(text), "{run:?}");
    told(get(&["--exclude", "[a"]).failed(2, "the pattern [a is broken"), "written as in a .gitignore");
    told(get(&["--include", "[a"]).failed(2, "the pattern [a is broken"), "hint");
    told(get(&["--exclude-from", "patterns"]).failed(2, "patterns, line 3"), "a[z");
    told(get(&["--exclude-from", "none"]).failed(2, "cannot read the patterns of none"), "hint");
    told(get(&["--files-from", "list"]).failed(2, "../a"), "relative to the source");
    told(get(&["--files-from", "none"]).failed(2, "none"), "hint");
    told(get(&["--exclude", ""]).failed(2, "empty"), "hint");
    let run = here.run(&["push", "-", &server.ticket_for("x"), "--files-from", "-"]);
    run.failed(2, "standard input");
    assert!(!here.file("copy").exists());
}

/// The files below, by their paths.
fn listing(root: &Path) -> Vec<String> {
    let entries = walkdir::WalkDir::new(root).sort_by_file_name().into_iter();
    let files = entries.map(|entry| entry.expect("an entry")).filter(|entry| entry.file_type().is_file());
    let name = |file: walkdir::DirEntry| file.path().strip_prefix(root).expect("below").display().to_string();
    files.map(name).collect()
}
