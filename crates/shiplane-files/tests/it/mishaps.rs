//! Random mishaps, in any order: whatever happens to a transfer, the next run that is left alone ends with
//! the tree and nothing else.

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use shiplane_wire::{LeftOutReason, Version};
use tempfile::TempDir;

use super::tree::{Transfer, Tree, assert_equal, noise, open_with, overwriting, own_names, receive};

/// What happens next.
#[derive(Clone, Debug)]
enum Step {
    /// A chunk arrives.
    Deliver(usize),
    /// Part of a chunk arrives.
    Cut(usize, usize),
    Publish,
    /// The process is killed and run again.
    Kill,
    /// The disk forgets the end of the journal.
    TearJournal(usize),
    /// A bit of a temporary file flips between two runs.
    FlipPart(usize, usize),
    /// A temporary file is gone.
    LosePart(usize),
    /// A file changes at the peer.
    Change(usize),
    /// The peer cannot send a file after all, in this run.
    Discard(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let at = || 0_usize..1000;
    prop_oneof![
        8 => at().prop_map(Step::Deliver),
        2 => (at(), at()).prop_map(|(chunk, len)| Step::Cut(chunk, len)),
        2 => Just(Step::Publish),
        3 => Just(Step::Kill),
        1 => at().prop_map(Step::TearJournal),
        1 => (at(), at()).prop_map(|(part, byte)| Step::FlipPart(part, byte)),
        1 => at().prop_map(Step::LosePart),
        1 => at().prop_map(Step::Change),
        1 => at().prop_map(Step::Discard),
    ]
}

fn tree_of(versions: &[u8]) -> Tree {
    let mut tree = Tree::default().dir("d");
    for (at, version) in versions.iter().enumerate() {
        let path = if at % 2 == 0 { format!("d/f{at}") } else { format!("f{at}") };
        // Empty, packed, just a chunk, several chunks.
        let len = [0, 120, 340, 1000, 2700][at % 5];
        let seed = 16 * at as u8 + version;
        tree = tree.file(&path, noise(seed, len)).set(|entry| {
            entry.version = Version::from_bytes([seed; 16]);
            entry.mtime.secs += i64::from(*version);
        });
    }
    tree
}

/// One run, up to the step that ends it.
fn run(dest: &Path, tree: &Tree, steps: &mut impl Iterator<Item = Step>) -> Option<Step> {
    let mut transfer = Transfer::plan(open_with(dest, overwriting()), tree).unwrap();
    let mut delivered = vec![false; transfer.chunks.len()];
    let mut given_up = false;
    for step in steps.by_ref() {
        match step {
            Step::Deliver(_) | Step::Cut(..) if delivered.is_empty() => {}
            Step::Deliver(chunk) => {
                let chunk = chunk % delivered.len();
                if !std::mem::replace(&mut delivered[chunk], true) && !given_up {
                    transfer.deliver(chunk).unwrap();
                }
            }
            Step::Cut(chunk, len) => {
                let chunk = chunk % delivered.len();
                if !delivered[chunk] && !given_up {
                    let content = transfer.content(chunk);
                    transfer.writer(chunk).write(&content[..len % content.len()]).unwrap();
                }
            }
            Step::Publish => transfer.publish().unwrap(),
            Step::Discard(entry) => {
                // The engine would cut new chunks; here the run goes on without any.
                let entry = (entry % tree.entries.len()) as u64;
                transfer.ready.retain(|ready| *ready != entry);
                given_up |= transfer.dest.discard(entry, LeftOutReason::Vanished).is_ok();
            }
            other => return Some(other),
        }
    }
    None
}

fn happen(dest: &Path, versions: &mut [u8], step: &Step) {
    let names = own_names(dest);
    let (journals, parts): (Vec<_>, Vec<_>) =
        names.into_iter().partition(|name| name.extension().is_some_and(|end| end == "journal"));
    let part = |at: usize| parts.get(at % parts.len().max(1)).map(|name| dest.join(name));
    match *step {
        Step::TearJournal(len) => {
            if let Some(journal) = journals.first() {
                let journal = fs::File::options().write(true).open(dest.join(journal)).unwrap();
                // The header stays: without it nothing says whose files these are.
                let torn = journal.metadata().unwrap().len().saturating_sub(len as u64).max(48);
                journal.set_len(torn).unwrap();
            }
        }
        Step::FlipPart(at, byte) => {
            if let Some(path) = part(at) {
                let mut content = fs::read(&path).unwrap();
                let len = content.len();
                if len > 0 {
                    content[byte % len] ^= 0x10;
                    fs::write(path, content).unwrap();
                }
            }
        }
        Step::LosePart(at) => part(at).into_iter().for_each(|path| fs::remove_file(path).unwrap()),
        Step::Change(at) => {
            let at = at % versions.len();
            versions[at] = (versions[at] + 1) % 16;
        }
        Step::Kill | Step::Deliver(_) | Step::Cut(..) | Step::Publish | Step::Discard(_) => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn the_next_run_succeeds_after_any_failure(steps in prop::collection::vec(step(), 0..40)) {
        let temp = TempDir::new().unwrap();
        let mut versions = [0; 9];
        let mut steps = steps.into_iter();
        while let Some(step) = run(temp.path(), &tree_of(&versions), &mut steps) {
            happen(temp.path(), &mut versions, &step);
        }
        let tree = tree_of(&versions);
        receive(open_with(temp.path(), overwriting()), &tree).unwrap();
        assert_equal(temp.path(), &tree);
    }
}
