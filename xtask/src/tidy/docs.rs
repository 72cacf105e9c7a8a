//! What a table in `docs/` names as its proof must exist: what files declare, tests that are still tests, examples,
//! tasks. A document that says "shown by" is otherwise the first to go stale.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use walkdir::WalkDir;

use super::Violation;
use super::source::{SourceFile, declared};
use crate::is_task;

/// What is wrong with the tables of all files in `docs/`.
pub(super) fn check(root: &Path, files: &[SourceFile]) -> Result<Vec<Violation>> {
    let mut violations = Vec::new();
    for entry in WalkDir::new(root.join("docs")).sort_by_file_name() {
        let path = entry.context("cannot walk docs")?.into_path();
        if path.extension().is_some_and(|extension| extension == "md") {
            let text =
                fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            violations.extend(check_text(path.strip_prefix(root)?, &text, files));
        }
    }
    Ok(violations)
}

fn check_text(path: &Path, text: &str, files: &[SourceFile]) -> Vec<Violation> {
    let mut violations = Vec::new();
    let needs_proof = PROVEN.iter().any(|proven| path == Path::new(proven));
    let is_rule = |line: &str| line.starts_with("|-");
    let lines: Vec<&str> = text.lines().collect();
    for (number, line) in lines.iter().enumerate().filter(|(_, line)| line.starts_with('|')) {
        let mut add = |what| violations.push(Violation { path: path.to_owned(), line: number + 1, what });
        for span in spans(line) {
            if let Some(what) = wrong(span, files) {
                add(format!("`{span}`: {what}"));
            }
        }
        // The heading is what stands above the rule.
        let is_heading = lines.get(number + 1).is_some_and(|below| is_rule(below));
        let last = line.trim_end().trim_end_matches('|').rsplit('|').next().unwrap_or_default().trim();
        let is_proven = spans(last).any(|span| span.contains(".rs::")) || last.starts_with(NO_TEST);
        if needs_proof && !is_proven && !is_heading && !is_rule(line) {
            add(format!("no test is named; name one, or say `{NO_TEST} ...`"));
        }
    }
    violations
}

/// What stands between backquotes.
fn spans(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

/// Why `span` leads nowhere, if so. What names neither Rust code nor a command is prose.
fn wrong(span: &str, files: &[SourceFile]) -> Option<String> {
    let words: Vec<&str> = span.split_whitespace().collect();
    match words[..] {
        ["cargo", "xtask", ref arguments @ ..] => (!is_task(arguments)).then(|| "no such task".to_owned()),
        ["cargo", ref arguments @ ..] => {
            let name = arguments.iter().skip_while(|word| **word != "--example").nth(1)?;
            let examples = [format!("examples/{name}.rs"), format!("examples/{name}/main.rs")];
            let is_there =
                files.iter().any(|file| examples.iter().any(|example| file.path.ends_with(example)));
            (!is_there).then(|| "no such example".to_owned())
        }
        [span] if !span.contains('*') => {
            let mut names = span.split("::");
            let path = names.next().filter(|path| path.ends_with(".rs"))?;
            // From the root, or with `crates/shiplane-` left out.
            let places: [PathBuf; 2] = [path.into(), format!("crates/shiplane-{path}").into()];
            let Some(file) = files.iter().find(|file| places.contains(&file.path)) else {
                return Some("there is no such file".to_owned());
            };
            let missing = names.find(|name| !declares(file, name))?;
            let what = if file.is_test(0) { "no test" } else { "not declared" };
            Some(format!("`{missing}` is {what} there"))
        }
        _ => None,
    }
}

/// Whether a file declares `name`; a function among tests only counts if it is one.
fn declares(file: &SourceFile, name: &str) -> bool {
    file.lines.iter().enumerate().any(|(at, line)| {
        let found = declared(line).find(|(_, declared)| *declared == name);
        found.is_some_and(|(keyword, _)| {
            keyword != "fn" || !file.is_test(at) || is_marked_as_test(&file.lines[..at])
        })
    })
}

/// Whether the attributes right above a function say that it is a test.
fn is_marked_as_test(above: &[String]) -> bool {
    let attributes =
        above.iter().rev().map(|line| line.trim()).take_while(|line| line.starts_with(['#', '/']));
    attributes.into_iter().any(|line| line == "#[test]" || line.starts_with("#[tokio::test"))
}

/// Files whose tables are nothing without their tests.
const PROVEN: [&str; 2] = ["docs/hostile-peer.md", "docs/promises.md"];

const NO_TEST: &str = "no test of ours:";

#[cfg(test)]
mod tests {
    use super::*;

    const STORY: &str = "//! Docs\n#[tokio::test(start_paused = true)]\n/// Says.\nasync fn a_story() {}\n\nfn helper() {}\n\n#[test]\nfn a_story_that_is_longer() {}\n";

    fn all_wrong(line: &str) -> Vec<String> {
        violations("docs/x.md", line).into_iter().map(|violation| violation.what).collect()
    }

    fn violations(path: &str, text: &str) -> Vec<Violation> {
        let files = [
            SourceFile::new("crates/shiplane-rpc/tests/it/calls.rs", STORY),
            SourceFile::new("crates/shiplane-rpc/src/calls.rs", "pub struct Calls;\nfn helper() {}\n"),
            SourceFile::new("crates/shiplane-rpc/examples/echo.rs", ""),
            SourceFile::new("crates/shiplane-rpc/examples/chat/main.rs", ""),
        ];
        check_text(Path::new(path), text, &files)
    }

    #[test]
    fn what_is_there_may_be_named() {
        for span in [
            "rpc/tests/it/calls.rs",
            "rpc/tests/it/calls.rs::a_story",
            "crates/shiplane-rpc/tests/it/calls.rs::a_story_that_is_longer",
            "rpc/src/calls.rs::Calls",
            "rpc/src/calls.rs::Calls::helper",
            "cargo xtask tidy",
            "cargo xtask demo --small",
            "cargo run --example echo -- --loud",
            "cargo run -p shiplane-rpc --example chat",
            "RpcClient::call",
            "*.rs",
        ] {
            assert_eq!(all_wrong(&format!("| 1 | `{span}` |")), [""; 0], "{span}");
        }
    }

    #[test]
    fn names_that_do_not_exist_are_found() {
        for span in [
            "rpc/tests/it/gone.rs",
            "rpc/tests/it/calls.rs::a_stor",
            "rpc/tests/it/calls.rs::another",
            "rpc/src/calls.rs::Call",
            "rpc/src/calls.rs::Calls::gone",
            "cargo xtask dance",
            "cargo xtask demo --huge",
            "cargo run --example gone",
        ] {
            assert_eq!(all_wrong(&format!("| 1 | x `tls` | `{span}` |")).len(), 1, "{span}");
        }
        assert_eq!(all_wrong("| `rpc/src/a.rs`, `rpc/src/b.rs` |").len(), 2);
    }

    #[test]
    fn a_function_among_tests_that_is_none_shows_nothing() {
        let what = "`rpc/tests/it/calls.rs::helper`: `helper` is no test there";
        assert_eq!(all_wrong("| `rpc/tests/it/calls.rs::helper` |"), [what]);
    }

    #[test]
    fn only_tables_are_read() {
        assert_eq!(all_wrong("As in `rpc/src/gone.rs`."), [""; 0]);
    }

    #[test]
    fn a_promise_without_a_test_is_found() {
        let of = |rows: &str| {
            let text = format!("# Promises\n\n| promise | kept by |\n|---|---|\n{rows}\n");
            violations("docs/promises.md", &text).iter().map(|row| row.line).collect::<Vec<_>>()
        };
        assert_eq!(
            of("| a | `rpc/tests/it/calls.rs::a_story` |\n| b | no test of ours: nobody can |"),
            [0; 0]
        );
        let unproven = "| a | |\n| `rpc/tests/it/calls.rs::a_story` | we hope |\n| c | `rpc/src/calls.rs` |";
        assert_eq!(of(unproven), [5, 6, 7]);
    }
}
