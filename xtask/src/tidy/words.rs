//! Checks words: forbidden ones, and ones that are limited to one file.

use super::Violation;
use super::source::{SourceFile, code};

/// What is wrong with the words of one file.
pub(super) fn check(file: &SourceFile) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (number, line) in file.lines.iter().enumerate() {
        for word in UNFINISHED.iter().filter(|word| line.contains(**word)) {
            violations.push(file.violation(number, format!("`{word}`: finish it, or leave it out")));
        }
        if file.is_test(number) && sleeps(code(line)) {
            let what = "a sleep in a test: wait for the event, or pause the clock";
            violations.push(file.violation(number, what));
        }
        if let Some((name, term)) = private_name(code(line)) {
            violations.push(file.violation(number, format!("`{name}` is a private word: say `{term}`")));
        }
        if line.contains(QUINN) && !may_name_quinn(file, number) {
            let what = format!("`{QUINN}` above the transport: only shiplane-transport knows quinn");
            violations.push(file.violation(number, what));
        }
        if shows_quinn(file, number) {
            let what = format!("`{QUINN}` in a public signature: give it a type of ours");
            violations.push(file.violation(number, what));
        }
    }
    violations
}

/// What is wrong with the words of all files together.
pub(super) fn check_all(files: &[SourceFile]) -> Vec<Violation> {
    let mut violations = Vec::new();
    let dangerous: Vec<&SourceFile> =
        files.iter().filter(|file| in_crates(file) && has_code(file, DANGEROUS)).collect();
    if dangerous.len() > 1 {
        let what = format!("`{DANGEROUS}` in more than one file: certificates are judged in one place");
        violations.extend(dangerous.iter().map(|file| file.violation_of_all(what.as_str())));
    }
    violations
}

/// A private word that this code declares as a name, with the term to use instead.
fn private_name(code: &str) -> Option<(&'static str, &'static str)> {
    let words = code.split(|c: char| !(c.is_alphanumeric() || c == '_')).filter(|word| !word.is_empty());
    let mut is_declared = false;
    for word in words {
        if is_declared {
            return PRIVATE.into_iter().find(|(name, _)| *name == word);
        }
        is_declared = KEYWORDS.contains(&word);
    }
    None
}

fn may_name_quinn(file: &SourceFile, line: usize) -> bool {
    let is_below = |place: &&str| file.path.starts_with(place);
    ["crates/shiplane-transport", "benches", "xtask/lab/src/peers"].iter().any(is_below)
        // They play octopii nodes by hand.
        || (file.path.starts_with("crates/shiplane-octopii") && file.is_test(line))
}

/// Whether a public item names quinn in its first line. What is hidden from the docs, and what tests play hostile peers
/// with, may.
fn shows_quinn(file: &SourceFile, line: usize) -> bool {
    let is_public = |text: &str| text.starts_with("pub ") || text.starts_with("impl From<");
    let is_hidden = || file.lines[line.saturating_sub(3)..line].iter().any(|above| above.contains(HIDDEN));
    let text = code(&file.lines[line]).trim_start();
    file.path.starts_with("crates/shiplane-transport/src")
        && is_public(text)
        && text.contains(QUINN)
        && !file.path.ends_with("test_support.rs")
        && !is_hidden()
}

fn in_crates(file: &SourceFile) -> bool {
    file.crate_name().is_some()
}

/// Whether the code says the word; comments may name what they explain.
fn has_code(file: &SourceFile, word: &str) -> bool {
    file.lines.iter().any(|line| code(line).contains(word))
}

/// Whether this code calls a `sleep` function, by whatever path it was imported. A method of that
/// name belongs to a simulated clock.
fn sleeps(code: &str) -> bool {
    code.match_indices(SLEEP).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '.')
    })
}

/// Keywords before a declared name.
const KEYWORDS: [&str; 6] = ["struct", "enum", "trait", "type", "fn", "mod"];

/// Names that were replaced because a reader cannot guess them, with the standard terms.
const PRIVATE: [(&str, &str); 52] = [
    ("Doorway", "HandshakeLimiter"),
    ("ChunkRoom", "MemoryBudget"),
    ("line_up", "enqueue"),
    ("Came", "SignaturePart"),
    ("Told", "SignatureComplete"),
    ("Carrier", "Route"),
    ("Carried", "DeliveryReport"),
    ("Drained", "ShutdownReport"),
    ("GaveUp", "RetryError"),
    ("LeftWhy", "UnresolvedReason"),
    ("Promise", "Durability"),
    ("Turns", "DeterministicScheduler"),
    ("Stray", "OrphanedTempFile"),
    ("Steering", "Controller"),
    ("Crowd", "CompetingTraffic"),
    ("Lift", "BandwidthProbe"),
    ("roomy", "underutilized"),
    ("farewell", "flush_close"),
    ("see_off", "await_ack"),
    ("take_leave", "confirm_reset"),
    ("hear_out", "drain"),
    ("Audience", "OutputMode"),
    ("Tally", "ProgressState"),
    ("Verdict", "Diagnosis"),
    ("Party", "TestProcess"),
    ("standstill", "suspend"),
    ("vitals", "process_stats"),
    ("WantCuts", "WantSignatures"),
    ("PlacedCut", "Block"),
    ("Landing", "ResolvedDestination"),
    ("Leftovers", "JournalState"),
    ("Held", "Reservation"),
    ("Place", "Permit"),
    ("Places", "ConcurrencyLimit"),
    ("Share", "Quota"),
    ("Stage", "Fixture"),
    ("Trail", "OffsetPredictor"),
    ("lead", "predict"),
    ("look_around", "resync"),
    ("Credit", "ConnectionMemoryBudget"),
    ("Windows", "ConnectionWindows"),
    ("Growth", "WindowAutotune"),
    ("Ask", "SignatureRequest"),
    ("Due", "Pending"),
    ("Dial", "PeerTarget"),
    ("Duel", "RawPair"),
    ("RootHasher", "TransferHasher"),
    ("Course", "Workload"),
    ("Lap", "Sample"),
    ("Leased", "DropTracked"),
    ("Cut", "BlockSignature"),
    ("Cuts", "BlockSignatures"),
];

// Put together from two halves, or this file would break its own rules.
const UNFINISHED: [&str; 2] = [concat!("FIX", "ME"), concat!("X", "XX")];
const QUINN: &str = concat!("quinn", "::");
const HIDDEN: &str = "#[doc(hidden)]";
const DANGEROUS: &str = concat!(".dan", "gerous()");
const SLEEP: &str = concat!("sle", "ep(");

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: &str) -> SourceFile {
        SourceFile::new(path, text)
    }

    fn count(path: &str, text: &str) -> usize {
        check(&file(path, text)).len()
    }

    #[test]
    fn unfinished_work_is_found_anywhere() {
        for word in UNFINISHED {
            assert_eq!(count("xtask/src/a.rs", &format!("fn a() {{ {word}(); }}")), 1, "{word}");
        }
        assert_eq!(count("xtask/src/a.rs", "fn a() { done(); }"), 0);
    }

    #[test]
    fn a_private_word_is_refused_as_a_declared_name_only() {
        for (name, _) in PRIVATE {
            for keyword in KEYWORDS {
                assert_eq!(
                    count("crates/x/src/a.rs", &format!("pub(crate) {keyword} {name}<T>;")),
                    1,
                    "{name}"
                );
            }
            assert_eq!(count("crates/x/src/a.rs", &format!("let x: {name} = y; // fn {name}")), 0, "{name}");
            assert_eq!(count("crates/x/src/a.rs", &format!("fn a_{name}_that_is_full() {{}}")), 0, "{name}");
        }
    }

    #[test]
    fn a_sleep_is_refused_in_tests_only() {
        let call = format!("    tokio::time::{SLEEP}A_WHILE).await;");
        assert_eq!(count("crates/x/tests/it/a.rs", &call), 1);
        assert_eq!(count("crates/x/src/a.rs", &call), 0);
        let inside = format!("#[cfg(test)]\nmod tests {{\n{call}\n}}\n");
        assert_eq!(count("crates/x/src/a.rs", &inside), 1);
    }

    #[test]
    fn only_a_call_of_a_function_sleeps() {
        assert!(sleeps(&format!("{SLEEP}x)")));
        assert!(sleeps(&format!("std::thread::{SLEEP}x)")));
        assert!(!sleeps(&format!("clock.{SLEEP}x)")));
        assert!(!sleeps(&format!("no_{SLEEP}x)")));
    }

    #[test]
    fn quinn_is_named_by_the_transport_and_what_measures_and_loads_it() {
        let line = format!("use {QUINN}Connection;");
        assert_eq!(count("crates/shiplane-transport/src/a.rs", &line), 0);
        assert_eq!(count("benches/bin/a.rs", &line), 0);
        assert_eq!(count("xtask/lab/src/peers/a.rs", &line), 0);
        assert_eq!(count("crates/shiplane-protocols/src/a.rs", &line), 1);
        assert_eq!(count("crates/shiplane-cli/src/a.rs", &line), 1);
        assert_eq!(count("crates/shiplane-octopii/src/a.rs", &line), 1);
        assert_eq!(count("crates/shiplane-octopii/src/tests/a.rs", &line), 0);
    }

    #[test]
    fn no_public_item_of_the_transport_names_quinn() {
        let path = "crates/shiplane-transport/src/a.rs";
        assert_eq!(count(path, &format!("    pub fn a(b: {QUINN}Connection) {{}}")), 1);
        assert_eq!(count(path, &format!("impl From<{QUINN}ReadError> for A {{}}")), 1);
        assert_eq!(count(path, &format!("    pub(crate) fn a(b: {QUINN}Connection) {{}}")), 0);
        assert_eq!(count(path, &format!("{HIDDEN}\npub fn a(b: {QUINN}Connection) {{}}")), 0);
    }

    #[test]
    fn certificates_are_judged_in_one_file() {
        let text = format!("    .with{DANGEROUS}\n    .again{DANGEROUS}");
        let one = || file("crates/shiplane-transport/src/tls.rs", &text);
        assert_eq!(check_all(&[one()]), []);
        let two = file("crates/shiplane-octopii/src/tls.rs", &text);
        assert_eq!(check_all(&[one(), two]).len(), 2);
    }
}
