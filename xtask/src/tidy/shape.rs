//! How a file is laid out: it opens by saying what it is for, and is not longer than a reader can hold. (Clippy counts
//! the lines of functions.)

use super::Violation;
use super::source::SourceFile;

/// Everything wrong with the shape of one file.
pub(super) fn check(file: &SourceFile) -> Vec<Violation> {
    let mut violations = Vec::new();
    if !file.lines.first().is_some_and(|line| line.starts_with("//! ")) {
        let what = "begins without `//!`: say in the first line what the file is for";
        violations.push(file.violation_of_all(what));
    }
    let len = file.lines.len();
    if len > MAX_FILE_LINES {
        let what = format!("{len} lines, at most {MAX_FILE_LINES}: split it by responsibility");
        violations.push(file.violation_of_all(what));
    }
    violations
}

/// More than this and a file holds two things.
const MAX_FILE_LINES: usize = 600;

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(text: &str) -> Vec<String> {
        let file = SourceFile::new("crates/x/src/a.rs", text);
        check(&file).into_iter().map(|violation| violation.to_string()).collect()
    }

    #[test]
    fn a_file_says_what_it_is_for_and_is_not_too_long() {
        assert_eq!(checked(&format!("//! Docs.\n{}", "\n".repeat(599))), [""; 0]);
        assert!(checked("fn a() {}\n")[0].contains("begins without"));
        assert!(checked(&format!("//! Docs.\n{}", "\n".repeat(600)))[0].contains("601 lines"));
    }
}
