//! Checks the text of files: that it opens by saying what it is for, its length, words that are forbidden; and the length
//! of crates.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::Violation;
use super::source::{SourceFile, declared};

/// What is wrong with the text of one file. (Clippy counts the lines of functions.)
pub(super) fn check(file: &SourceFile) -> Vec<Violation> {
    let mut violations = Vec::new();
    if !file.lines.first().is_some_and(|line| line.starts_with("//! ")) {
        let what = "begins without `//!`: say in the first line what the file is for";
        violations.push(file.violation(0, what));
    }
    let len = file.lines.len();
    if len > MAX_FILE_LINES {
        let what = format!("{len} lines, at most {MAX_FILE_LINES}: split it by responsibility");
        violations.push(file.violation(0, what));
    }
    for (number, line) in file.lines.iter().enumerate() {
        let mut add = |what: String| violations.push(file.violation(number + 1, what));
        for word in UNFINISHED.iter().filter(|word| line.contains(**word)) {
            add(format!("`{word}`: finish it, or leave it out"));
        }
        if file.is_test(number) && sleeps(line) {
            add("a sleep in a test: wait for the event, or pause the clock".to_owned());
        }
        for (phrase, term) in PHRASES.iter().filter(|(phrase, _)| line.to_lowercase().contains(phrase)) {
            add(format!("`{phrase}` must be read twice: say {term}"));
        }
        let names = declared(line).filter(|(keyword, _)| !["const", "static"].contains(keyword));
        for (name, term) in names.filter_map(|(_, name)| private(name)) {
            add(format!("`{name}` is a private word: say `{term}`"));
        }
    }
    violations
}

/// Every crate that has grown too long.
pub(super) fn check_sizes(files: &[SourceFile]) -> Vec<Violation> {
    let mut crates = BTreeMap::<PathBuf, usize>::new();
    for file in files.iter().filter(|file| file.path.starts_with("crates")) {
        let mut parts = file.path.components();
        let name = parts.by_ref().take(2).collect();
        if parts.next().is_some_and(|part| part.as_os_str() == "src") {
            *crates.entry(name).or_default() +=
                (0..file.lines.len()).filter(|&line| !file.is_test(line)).count();
        }
    }
    let too_long = crates.into_iter().filter(|(_, lines)| *lines > MAX_LINES);
    let what = |lines| format!("{lines} lines without tests, at most {MAX_LINES}: say nothing twice");
    too_long.map(|(path, lines)| Violation { path, line: 0, what: what(lines) }).collect()
}

/// A private word, with the term to use instead.
fn private(name: &str) -> Option<(&'static str, &'static str)> {
    PRIVATE.split_whitespace().filter_map(|pair| pair.split_once('=')).find(|(private, _)| *private == name)
}

/// Whether this line calls a `sleep` function, by whatever path it was imported. A method of that name belongs to a
/// simulated clock.
fn sleeps(line: &str) -> bool {
    let code = line.split_once("//").map_or(line, |(code, _)| code);
    code.match_indices(SLEEP).any(|(at, _)| {
        !code[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_' || before == '.')
    })
}

/// More than this and a file holds two things.
const MAX_FILE_LINES: usize = 600;

/// Of a crate, tests not counted.
const MAX_LINES: usize = 15_000;

/// Names that were replaced because a reader cannot guess them, with the standard terms.
const PRIVATE: &str = "
Doorway=HandshakeLimiter ChunkRoom=MemoryBudget line_up=enqueue Came=SignaturePart Told=SignatureComplete
Carrier=Route Carried=DeliveryReport Drained=ShutdownReport GaveUp=RetryError LeftWhy=UnresolvedReason
Promise=Durability Turns=DeterministicScheduler Stray=OrphanedTempFile Steering=Controller
Crowd=CompetingTraffic Lift=BandwidthProbe roomy=underutilized farewell=flush_close see_off=await_ack
take_leave=confirm_reset hear_out=drain Audience=OutputMode Tally=ProgressState Verdict=Diagnosis
Party=TestProcess standstill=suspend vitals=process_stats WantCuts=WantSignatures PlacedCut=Block
Landing=ResolvedDestination Leftovers=JournalState Held=Reservation Place=Permit Places=ConcurrencyLimit
Share=Quota Stage=Fixture Trail=OffsetPredictor lead=predict look_around=resync
Credit=ConnectionMemoryBudget Windows=ConnectionWindows Growth=WindowAutotune Ask=SignatureRequest
Due=Pending Dial=PeerTarget Duel=RawPair RootHasher=TransferHasher Course=Workload Lap=Sample
Leased=DropTracked Cut=BlockSignature Cuts=BlockSignatures
";

/// Words in comments, messages and names that were replaced because a reader stumbles over them, with what to say.
const PHRASES: [(&str, &str); 5] = [
    (concat!("who", "ever"), "who it is: the caller, the peer, the client"),
    (concat!("front", " door"), "`shiplane`, the crate"),
    (concat!("house", " rule"), "rule"),
    (concat!("as good", " as"), "`counts as`, or `is equal to`"),
    (concat!("told", "_off"), "that it is an error"),
];

// Put together from two halves, or this file would break its own rules.
const UNFINISHED: [&str; 2] = [concat!("FIX", "ME"), concat!("X", "XX")];
const SLEEP: &str = concat!("sle", "ep(");

#[cfg(test)]
mod tests {
    use super::*;

    /// Violations of a file that says what it is for, and then this.
    fn count(path: &str, text: &str) -> usize {
        check(&SourceFile::new(path, &format!("//! Docs.\n{text}"))).len()
    }

    #[test]
    fn unfinished_work_is_found_anywhere() {
        for word in UNFINISHED {
            assert_eq!(count("xtask/src/a.rs", &format!("fn a() {{ {word}(); }}")), 1, "{word}");
        }
        assert_eq!(count("xtask/src/a.rs", "fn a() { done(); }"), 0);
    }

    #[test]
    fn a_phrase_that_must_be_read_twice_is_found_in_comments_and_names() {
        for (phrase, _) in PHRASES {
            for text in [phrase.to_owned(), phrase.to_uppercase()] {
                let line = format!("/// {text}\nfn a() {{}}");
                assert_eq!(count("crates/x/src/a.rs", &line), 1, "{text}");
            }
        }
        assert_eq!(count("crates/x/src/a.rs", "/// A house, as good a rule as any.\nfn a() {}"), 0);
    }

    #[test]
    fn a_private_word_is_refused_as_a_declared_name_only() {
        for name in PRIVATE.split_whitespace().filter_map(|pair| Some(pair.split_once('=')?.0)) {
            for keyword in ["struct", "enum", "trait", "type", "fn", "mod"] {
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
    fn a_file_says_what_it_is_for_and_is_not_too_long() {
        let what = |text: &str| check(&SourceFile::new("crates/x/src/a.rs", text)).remove(0).what;
        assert_eq!(count("crates/x/src/a.rs", &"\n".repeat(598)), 0);
        assert!(what("fn a() {}\n").contains("begins without"));
        assert!(what(&format!("//! Docs.\n{}", "\n".repeat(600))).contains("601 lines"));
    }

    #[test]
    fn a_crate_over_the_limit_is_found_and_its_tests_do_not_count() {
        let half = "//\n".repeat(MAX_LINES / 2);
        let of = |paths: &[&str]| {
            let files: Vec<_> = paths.iter().map(|path| SourceFile::new(path, &half)).collect();
            check_sizes(&files).len()
        };
        assert_eq!(
            of(&["crates/a/src/a.rs", "crates/a/src/b.rs", "crates/b/src/a.rs", "crates/a/tests/a.rs"]),
            0
        );
        assert_eq!(of(&["crates/a/src/a.rs", "crates/a/src/b.rs", "crates/a/src/b/c.rs"]), 1);
    }
}
