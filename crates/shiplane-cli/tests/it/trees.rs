//! Trees arrive as they are: what `get`, `push` and `sync` of the real program make of hard links, holes and odd names.

use std::{
    fs::{self, File},
    os::unix::fs::{FileExt as _, MetadataExt as _},
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
fn a_get_of_what_the_kernel_makes_up_is_read_to_its_end() {
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
