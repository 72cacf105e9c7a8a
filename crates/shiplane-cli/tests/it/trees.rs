//! Trees arrive as they are: what `get`, `push` and `sync` of the real program make of hard links, holes and odd names.

use std::{
    fs::{self, File},
    os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _},
    path::Path,
};

use crate::program::Machine;

fn fill(machine: &Machine) {
    machine.write("src/a", "several names");
    machine.write("src/deep/line\nfeed", "odd");
    let root = machine.file("src");
    fs::hard_link(root.join("a"), root.join("deep/b")).expect("a link");
    let sparse = File::create(root.join("sparse")).expect("a step");
    sparse.set_len(1 << 36).expect("a step");
    sparse.write_all_at(b"content", 1 << 35).expect("a step");
}

/// What is to be equal: the names that are one file, the holes, and what the odd name contains.
fn assert_same(at: &Path) {
    let found = |name: &str| fs::symlink_metadata(at.join(name)).expect("a step");
    assert_eq!(found("a").ino(), found("deep/b").ino());
    assert_eq!(fs::read(at.join("deep/line\nfeed")).expect("a step"), b"odd");
    let sparse = found("sparse");
    assert!(sparse.len() == 1 << 36 && sparse.blocks() * 512 <= 1 << 16, "{}", sparse.blocks());
    let mut content = [0; 7];
    File::open(at.join("sparse")).expect("a step").read_exact_at(&mut content, 1 << 35).expect("a step");
    assert_eq!(&content, b"content");
}

#[test]
fn a_get_and_a_push_keep_hard_links_holes_and_names_with_line_breaks() {
    let there = Machine::new();
    fill(&there);
    let server = there.serve("src");
    let here = Machine::new();
    for _ in 0..2 {
        let run = here.run(&["get", server.ticket(), "copy", "--json"]).done();
        assert_same(&here.file("copy"));
        assert!(!run.out.contains("line\nfeed") && !run.err.contains("line\nfeed"), "{run:?}");
    }
    let target = Machine::new();
    let server = target.serve_with("in", &["--listen", "127.0.0.1:0", "--writable"]);
    for _ in 0..2 {
        here.run(&["push", "copy/.", server.ticket()]).done();
        assert_same(&target.file("in"));
    }
}

#[test]
fn a_get_reads_files_that_the_kernel_makes_up_to_their_end() {
    let there = Machine::new();
    let random = Path::new("/proc/sys/kernel/random");
    let server = there.serve_file(random, &["--listen", "127.0.0.1:0"]);
    let here = Machine::new();
    here.run(&["get", server.ticket(), "copy"]).done();
    assert_eq!(
        fs::read(here.file("copy/boot_id")).expect("a step"),
        fs::read("/proc/sys/kernel/random/boot_id").expect("a step")
    );
}

#[test]
fn a_directory_below_one_with_setgid_has_the_mode_of_its_source() {
    let (here, there) = (Machine::new(), Machine::new());
    let set = |machine: &Machine, name: &str, mode| {
        machine.dir(name);
        fs::set_permissions(machine.file(name), fs::Permissions::from_mode(mode)).expect("a mode");
    };
    let mode = |machine: &Machine, name: &str| {
        fs::symlink_metadata(machine.file(name)).expect("a directory").mode() & 0o7777
    };
    let modes = [("plain", 0o755), ("plain/deep", 0o750), ("shared", 0o2775), ("both", 0o755)];
    for (name, of) in modes {
        set(&here, &format!("src/{name}"), of);
    }
    here.write("src/plain/deep/file", "content");
    for parent in ["pushed", "synced"] {
        set(&there, parent, 0o2775);
    }
    set(&there, "pushed/both", 0o2755);
    set(&here, "got", 0o2775);
    let args = ["--listen", "127.0.0.1:0", "--writable"];
    let (pushed, synced) = (there.serve_with("pushed", &args), there.serve_with("synced", &args));
    let source = here.serve("src");
    for _ in 0..2 {
        here.run(&["get", source.ticket(), "got/copy"]).done();
        here.run(&["push", "src/.", pushed.ticket()]).done();
        here.run(&["sync", "src", synced.ticket()]).done();
        for (name, expected) in modes {
            for (machine, root) in
                [(&here, "src"), (&here, "got/copy"), (&there, "pushed"), (&there, "synced")]
            {
                let found = mode(machine, &format!("{root}/{name}"));
                assert_eq!(found, expected, "{root}/{name}: {found:o}");
            }
        }
    }
    // Taken away here, it goes there as well.
    set(&here, "src/shared", 0o775);
    here.run(&["sync", "src", synced.ticket()]).done();
    assert_eq!((mode(&here, "src/shared"), mode(&there, "synced/shared")), (0o775, 0o775));
}
