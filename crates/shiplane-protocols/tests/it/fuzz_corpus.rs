//! The committed corpus of the fuzzer's entries, replayed.

use std::{fs, path::Path};

use shiplane_protocols::fuzz;

fn replay(entry: &str, run: fn(&[u8])) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(entry);
    let mut replayed = 0;
    for file in fs::read_dir(dir).unwrap() {
        run(&fs::read(file.unwrap().path()).unwrap());
        replayed += 1;
    }
    assert!(replayed > 0, "no corpus for {entry}");
}

#[test]
fn the_corpus_is_survived() {
    replay("address", fuzz::fuzz_address);
    replay("base", fuzz::fuzz_base);
    replay("changes", fuzz::fuzz_changes);
    replay("encoded", fuzz::fuzz_encoded);
    replay("journal", fuzz::fuzz_journal);
    replay("manifest", fuzz::fuzz_manifest);
    replay("methods", fuzz::fuzz_methods);
    replay("peers", fuzz::fuzz_peers);
    replay("stat_cache", fuzz::fuzz_stat_cache);
    replay("ticket", fuzz::fuzz_ticket);
}
