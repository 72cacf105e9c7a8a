//! `--dry-run` of `get` and `push`: says what the same command would do, and changes nothing.

use std::fs;
use std::path::{Path, PathBuf};

use crate::program::{Machine, Server};

/// A source, and a copy that differs from it in every way.
fn diverged(source: (&Machine, &str), copy: (&Machine, &str)) {
    let time = std::time::SystemTime::now();
    for ((machine, root), mine) in [(source, "source"), (copy, "copy")] {
        let same = machine.write(&format!("{root}/same"), "same");
        fs::File::options().write(true).open(same).and_then(|file| file.set_modified(time)).expect("a time");
        machine.write(&format!("{root}/touched"), "touched");
        let sparse = fs::File::create(machine.file(&format!("{root}/sparse"))).expect("a file");
        sparse.set_len(1 << 28).expect("a hole");
        machine.write(&format!("{root}/d/larger"), mine);
        machine.write(&format!("{root}/d/alike"), &mine[..4]);
        machine.write(&format!("{root}/skipped.o"), mine);
    }
    source.0.write(&format!("{}/new/x", source.1), "new");
    copy.0.write(&format!("{}/old/y", copy.1), "old");
    copy.0.dir(&format!("{}/kind", copy.1));
    source.0.write(&format!("{}/kind", source.1), "a file");
}

fn serve(there: &Machine) -> Server {
    there.serve_with("data", &["--writable", "--listen", "127.0.0.1:0"])
}

/// What a dry run prints, sorted.
fn told(machine: &Machine, args: &[&str]) -> Vec<String> {
    let run = machine.run(&[args, &["--dry-run", "--exclude=*.o"]].concat()).done();
    let mut lines: Vec<_> = run.out.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

fn listing(root: &Path) -> Vec<(PathBuf, Option<Vec<u8>>)> {
    let entries = walkdir::WalkDir::new(root).sort_by_file_name().into_iter();
    let entry = |entry: walkdir::DirEntry| (entry.path().to_owned(), fs::read(entry.path()).ok());
    entries.map(|found| entry(found.expect("an entry"))).collect()
}

#[test]
fn a_dry_run_of_a_get_says_what_it_would_do_and_does_nothing() {
    let (here, there) = (Machine::new(), Machine::new());
    diverged((&there, "data"), (&here, "copy"));
    let server = serve(&there);
    let before = listing(&here.file(""));
    let plain = told(&here, &["get", server.ticket(), "copy"]);
    assert_eq!(
        plain,
        [
            "here: create directory new (new at the source)",
            "here: refuse d/alike (exists with different content)",
            "here: refuse d/larger (exists with different content)",
            "here: refuse kind (something else has the name)",
            "here: take new/x (new at the source)",
        ]
    );
    let all = told(&here, &["get", server.ticket(), "copy", "--overwrite", "--delete"]);
    assert!(all.contains(&"here: take d/alike (different content at the source)".to_owned()), "{all:?}");
    assert!(all.contains(&"here: remove directory old (not at the source)".to_owned()), "{all:?}");
    assert!(all.contains(&"here: remove file old/y (not at the source)".to_owned()), "{all:?}");
    assert_eq!(all.len(), 7, "{all:?}");
    let none = told(&here, &["get", server.ticket(), "none/at/all"]);
    assert_eq!(none.len(), 9, "{none:?}");
    assert_eq!(told(&here, &["get", &server.ticket_for("same"), "copy/same"]), [""; 0]);
    assert_eq!(told(&here, &["get", &server.ticket_for("new/x"), "x"]), ["here: take x (new at the source)"]);
    assert_eq!(listing(&here.file("")), before);
    here.run(&["get", &server.ticket_for("same"), "-", "--dry-run"]).failed(2, "dry run");
}

#[test]
fn a_dry_run_of_a_push_says_what_it_would_do_there_and_does_nothing() {
    let (here, there) = (Machine::new(), Machine::new());
    diverged((&here, "src"), (&there, "data/src"));
    let server = serve(&there);
    let before = listing(&there.file("data"));
    let all = told(&here, &["push", "src", server.ticket(), "--backup", "--delete"]);
    assert_eq!(
        all,
        [
            "there: create directory src/new (new at the source)",
            "there: refuse src/kind (something else has the name)",
            "there: remove directory src/old (not at the source)",
            "there: remove file src/old/y (not at the source)",
            "there: take src/d/alike (different content; the old file is kept)",
            "there: take src/d/larger (different content; the old file is kept)",
            "there: take src/new/x (new at the source)",
        ]
    );
    let kept = told(&here, &["push", "src/.", &server.ticket_for("src"), "--keep-existing"]);
    assert!(kept.contains(&"there: keep d/alike (exists with different content)".to_owned()), "{kept:?}");
    assert_eq!(told(&here, &["push", "src", &server.ticket_for("none")]).len(), 9);
    assert_eq!(told(&here, &["push", "src/same", &server.ticket_for("src")]), [""; 0]);
    assert_eq!(
        told(&here, &["push", "src/same", &server.ticket_for("none")]),
        ["there: take same (new at the source)"]
    );
    assert_eq!(listing(&there.file("data")), before);
}
