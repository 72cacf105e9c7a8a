//! Existing files, and temporary files of interrupted runs.

use std::fs;
use std::io::{BufRead, BufReader};

use crate::program::{Machine, Server};

/// Both have `same`, one each of `mine` and `theirs`, and different contents of `differs`.
fn diverged() -> (Machine, Machine, Server) {
    let (here, there) = (Machine::new(), Machine::new());
    let time = std::time::SystemTime::now();
    for (machine, root) in [(&here, "copy"), (&there, "src")] {
        let same = machine.write(&format!("{root}/same"), "same");
        fs::File::options().write(true).open(same).and_then(|file| file.set_modified(time)).expect("a time");
        machine.write(&format!("{root}/d/differs"), root);
    }
    there.write("src/new", "new");
    let server = there.serve_with("src", &["--writable", "--listen", "127.0.0.1:0"]);
    (here, there, server)
}

fn read(machine: &Machine, path: &str) -> Option<String> {
    fs::read_to_string(machine.file(path)).ok()
}

#[test]
fn existing_files_are_kept_and_the_rest_is_copied() {
    let (here, there, server) = diverged();
    here.run(&["get", server.ticket(), "copy"]).failed(6, "differs exists");
    for _ in 0..2 {
        let done =
            here.run(&["get", server.ticket(), "copy", "--keep-existing", "--json"]).done().last_event();
        assert_eq!((&done["kept"], &done["left_out"]), (&1.into(), &0.into()));
        assert_eq!(read(&here, "copy/d/differs").as_deref(), Some("copy"));
        assert_eq!(read(&here, "copy/new").as_deref(), Some("new"));
    }
    here.write("copy/more", "more");
    let target = server.ticket();
    for _ in 0..2 {
        let done = here.run(&["push", "copy/.", target, "--keep-existing", "--json"]).done().last_event();
        assert_eq!((&done["kept"], &done["left_out"]), (&1.into(), &0.into()));
        assert_eq!(read(&there, "src/d/differs").as_deref(), Some("src"));
        assert_eq!(read(&there, "src/more").as_deref(), Some("more"));
    }
    here.run(&["get", target, "copy", "--keep-existing", "--overwrite"]).failed(2, "--overwrite");
}

#[test]
fn replaced_files_stay_under_another_name_and_no_backup_is_lost() {
    let (here, there, server) = diverged();
    let get = |option: &str| here.run(&["get", server.ticket(), "copy", option]).done();
    for _ in 0..2 {
        get("--backup");
        assert_eq!(read(&here, "copy/d/differs").as_deref(), Some("src"));
        assert_eq!(read(&here, "copy/d/differs~").as_deref(), Some("copy"));
        assert_eq!(fs::read_dir(here.file("copy/d")).unwrap().count(), 2);
    }
    there.write("src/d/differs", "later");
    get("--backup");
    assert_eq!(read(&here, "copy/d/differs~").as_deref(), Some("copy"));
    assert_eq!(read(&here, "copy/d/differs~2").as_deref(), Some("src"));
    there.write("src/d/differs", "last");
    get("--backup=.old");
    assert_eq!(read(&here, "copy/d/differs.old").as_deref(), Some("later"));
    here.run(&["get", server.ticket(), "copy", "--backup=a/b"]).failed(2, "suffix");

    here.write("copy/d/differs", "pushed");
    here.run(&["push", "copy/d/differs", &server.ticket_for("d"), "--backup"]).done();
    assert_eq!(read(&there, "src/d/differs").as_deref(), Some("pushed"));
    assert_eq!(read(&there, "src/d/differs~").as_deref(), Some("last"));
}

#[test]
fn leftovers_are_removed_once_they_are_old_enough() {
    let machine = Machine::new();
    machine.write("dest/.shiplane-01234567-3.part", "left");
    machine.write("dest/sub/.shiplane-0123456789abcdef.journal", "left");
    machine.write("dest/.shiplane-notes", "mine");
    let kept = machine.run(&["clean", "dest"]).done();
    assert_eq!((kept.out.as_str(), machine.file("dest/.shiplane-01234567-3.part").exists()), ("", true));
    let would = machine.run(&["clean", "dest", "--older-than", "0s", "--dry-run"]).done();
    assert_eq!(would.out.lines().count(), 2);
    let done = machine.run(&["clean", "dest", "--older-than", "0s", "--json"]).done().last_event();
    assert_eq!((&done["files"], &done["dry_run"]), (&2.into(), &false.into()));
    assert!(machine.file("dest/.shiplane-notes").exists());
    assert!(!machine.file("dest/sub/.shiplane-0123456789abcdef.journal").exists());
    machine.run(&["clean", "none"]).failed(7, "none");
}

#[test]
fn a_server_removes_old_temporary_files_of_interrupted_pushes() {
    let machine = Machine::new();
    machine.write("old/.shiplane-01234567-3.part", "left");
    machine.write("kept/.shiplane-01234567-3.part", "left");
    machine.write("old/mine", "mine");
    let _keeps = machine.serve_with("kept", &["--writable"]);
    let mut server = machine.serve_with("old", &["--writable", "--clean-after", "1s", "-v"]);
    let mut told = BufReader::new(server.stderr()).lines().map_while(Result::ok);
    assert!(told.any(|line| line.contains("leftovers were removed files=1")));
    assert!(!machine.file("old/.shiplane-01234567-3.part").exists());
    assert!(machine.file("old/mine").exists() && machine.file("kept/.shiplane-01234567-3.part").exists());
    machine.run(&["serve", "old", "--clean-after", "1d"]).failed(2, "--writable");
}
