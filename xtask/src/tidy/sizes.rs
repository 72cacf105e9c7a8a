//! How long a crate may be.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{Violation, source::SourceFile};

/// Every crate that has grown too long.
pub(super) fn check(files: &[SourceFile]) -> Vec<Violation> {
    let mut crates = BTreeMap::<PathBuf, usize>::new();
    for file in files.iter().filter(|file| is_source(&file.path)) {
        let lines = (0..file.lines.len()).filter(|&line| !file.is_test(line)).count();
        *crates.entry(file.path.components().take(2).collect()).or_default() += lines;
    }
    let too_long = crates.into_iter().filter(|(_, lines)| *lines > MAX_LINES);
    let what = |lines| {
        format!("{lines} lines, tests not counted, are over {MAX_LINES}: take away what says a thing twice")
    };
    too_long.map(|(path, lines)| Violation { path, line: 0, what: what(lines) }).collect()
}

fn is_source(path: &Path) -> bool {
    path.starts_with("crates") && path.components().nth(2).is_some_and(|part| part.as_os_str() == "src")
}

const MAX_LINES: usize = 15_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crate_over_the_limit_is_found_and_its_tests_do_not_count() {
        let half = "//\n".repeat(MAX_LINES / 2);
        let of = |paths: &[&str]| {
            let files: Vec<_> = paths.iter().map(|path| SourceFile::new(path, &half)).collect();
            check(&files).len()
        };
        assert_eq!(
            of(&["crates/a/src/a.rs", "crates/a/src/b.rs", "crates/b/src/a.rs", "crates/a/tests/a.rs"]),
            0
        );
        assert_eq!(of(&["crates/a/src/a.rs", "crates/a/src/b.rs", "crates/a/src/b/c.rs"]), 1);
    }
}
