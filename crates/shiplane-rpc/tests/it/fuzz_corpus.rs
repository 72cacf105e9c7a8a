//! The committed corpus of the fuzzer's entries, replayed.

use std::{fs, path::Path};

use shiplane_rpc::fuzz;

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
    replay("envelopes", fuzz::fuzz_envelopes);
    replay("body", fuzz::fuzz_body);
    replay("answer_stream", fuzz::fuzz_answer_stream);
    replay("octopii", fuzz::fuzz_octopii);
}
