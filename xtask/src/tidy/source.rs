//! Loads the workspace's Rust files and finds their test lines.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use walkdir::{DirEntry, WalkDir};

use super::Violation;

/// One Rust file.
#[derive(Debug)]
pub(super) struct SourceFile {
    /// Relative to the workspace root, with `/`.
    pub(super) path: PathBuf,
    pub(super) lines: Vec<String>,
    /// The first line of its test module, which is the last thing in it; 0 where the whole file is a test.
    tests_from: usize,
}

impl SourceFile {
    /// From a path relative to the root and the file's text.
    pub(super) fn new(path: impl Into<PathBuf>, text: &str) -> Self {
        let path = path.into();
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let begins = |pair: &[String]| pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod tests {");
        let module = lines.windows(2).position(begins).unwrap_or(lines.len());
        let is_test = path.components().any(|part| part.as_os_str() == "tests") || path.ends_with("tests.rs");
        Self { path, lines, tests_from: if is_test { 0 } else { module } }
    }

    /// Whether the line (from 0) belongs to a test.
    pub(super) fn is_test(&self, line: usize) -> bool {
        line >= self.tests_from
    }

    /// A violation at a line (from 1), or of the file as a whole (0).
    pub(super) fn violation(&self, line: usize, what: impl Into<String>) -> Violation {
        Violation { path: self.path.clone(), line, what: what.into() }
    }
}

/// All Rust files below `root` but those of `target` and hidden directories, in order.
pub(super) fn load(root: &Path) -> Result<Vec<SourceFile>> {
    let mut files = Vec::new();
    let ours = |entry: &DirEntry| {
        let name = entry.file_name().to_string_lossy();
        entry.depth() == 0 || !(name.starts_with('.') || name == "target")
    };
    for entry in WalkDir::new(root).sort_by_file_name().into_iter().filter_entry(ours) {
        let entry = entry.context("cannot walk the workspace")?;
        if entry.path().extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        let text = fs::read_to_string(entry.path())
            .with_context(|| format!("cannot read {}", entry.path().display()))?;
        let relative = entry.path().strip_prefix(root).context("walked out of the workspace")?;
        files.push(SourceFile::new(relative, &text));
    }
    Ok(files)
}

/// The names that a line of code declares, each with its keyword.
pub(super) fn declared(line: &str) -> impl Iterator<Item = (&str, &str)> {
    let code = line.split_once("//").map_or(line, |(code, _)| code);
    let words = code.split(|c: char| !(c.is_alphanumeric() || c == '_')).filter(|word| !word.is_empty());
    words.clone().zip(words.skip(1)).filter(|(keyword, _)| KEYWORDS.contains(keyword))
}

const KEYWORDS: [&str; 8] = ["fn", "struct", "enum", "trait", "const", "static", "type", "mod"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn from_its_test_module_on_a_file_is_tests() {
        let text = "//! Docs\nfn a() {}\n\n#[cfg(test)]\nmod tests {\n    fn b() {\n    }\n}\n";
        let file = SourceFile::new("crates/x/src/a.rs", text);
        let tests: Vec<usize> = (0..file.lines.len()).filter(|&line| file.is_test(line)).collect();
        assert_eq!(tests, [3, 4, 5, 6, 7]);
    }

    #[test]
    fn a_file_of_tests_is_all_test() {
        for path in ["crates/x/tests/it/main.rs", "crates/x/src/tests.rs", "crates/x/src/tests/a.rs"] {
            assert!(SourceFile::new(path, "fn a() {}").is_test(0), "{path}");
        }
        assert!(!SourceFile::new("crates/x/src/latest.rs", "fn a() {}").is_test(0));
    }

    #[test]
    fn only_what_follows_a_keyword_is_declared() {
        let names = |line| declared(line).map(|(_, name)| name).collect::<Vec<_>>();
        assert_eq!(names("pub(crate) struct A<T>; // fn b"), ["A"]);
        assert_eq!(names("let a: B = fn_c();"), [""; 0]);
    }
}
