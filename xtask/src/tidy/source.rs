//! Loads the workspace's Rust files and finds their test lines.

use std::fs;
use std::ops::Range;
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
    /// Line indexes inside `#[cfg(test)]` modules; the whole file where it is a test itself.
    tests: Vec<Range<usize>>,
}

impl SourceFile {
    /// From a path relative to the root and the file's text.
    pub(super) fn new(path: impl Into<PathBuf>, text: &str) -> Self {
        let path = path.into();
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let tests = if is_test_file(&path) {
            std::iter::once(0..lines.len()).collect()
        } else {
            test_modules(&lines)
        };
        Self { path, lines, tests }
    }

    /// Whether the line (from 0) belongs to a test.
    pub(super) fn is_test(&self, line: usize) -> bool {
        self.tests.iter().any(|range| range.contains(&line))
    }

    /// A violation at a line (from 0).
    pub(super) fn violation(&self, line: usize, what: impl Into<String>) -> Violation {
        Violation { path: self.path.clone(), line: line + 1, what: what.into() }
    }

    /// A violation of the file as a whole.
    pub(super) fn violation_of_all(&self, what: impl Into<String>) -> Violation {
        Violation { path: self.path.clone(), line: 0, what: what.into() }
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

/// The code of a line: what stands before a `//` that is not inside a string.
pub(super) fn code(line: &str) -> &str {
    let mut in_string = false;
    let mut escaped = false;
    for (i, byte) in line.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            // A quote as a character, '"', opens nothing.
            b'"' if !(i > 0 && line[..i].ends_with('\'') && line[i + 1..].starts_with('\'')) => {
                in_string = !in_string;
            }
            b'/' if !in_string && line[i..].starts_with("//") => return &line[..i],
            _ => {}
        }
    }
    line
}

/// The line (from 0) that closes what the line `start` opens: in formatted code, the first later one
/// that is a closing brace at the same depth. `None` where nothing is opened.
pub(super) fn block_end(lines: &[String], start: usize) -> Option<usize> {
    let indent = indent(&lines[start]);
    for (i, line) in lines.iter().enumerate().skip(start) {
        let code = code(line).trim_end();
        let depth = self::indent(line);
        if i == start && (code.ends_with('}') || code.ends_with(';')) {
            return (code.ends_with('}')).then_some(i);
        }
        // A signature over several lines may end without a body.
        if depth == indent && i > start && (code.ends_with(';') && !code.trim().starts_with('}')) {
            return None;
        }
        if i > start && depth == indent && code.trim().starts_with('}') {
            return Some(i);
        }
    }
    None
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

fn is_test_file(path: &Path) -> bool {
    let in_tests = path.components().any(|part| part.as_os_str() == "tests");
    let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    in_tests || stem == "tests" || stem.ends_with("_tests")
}

fn test_modules(lines: &[String]) -> Vec<Range<usize>> {
    let marked = |line: &String| {
        let line = line.trim();
        line.starts_with("#[cfg(") && line.contains("test") && !line.contains("not(test)")
    };
    let mut found = Vec::new();
    for (i, _) in lines.iter().enumerate().filter(|(_, line)| marked(line)) {
        let opens = |line: &String| line.trim().starts_with("mod ") || line.trim().starts_with("pub");
        let module = (i + 1..lines.len().min(i + 4)).find(|&at| opens(&lines[at]));
        if let Some(end) = module.and_then(|at| block_end(lines, at)) {
            found.push(i..end + 1);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_is_no_code() {
        assert_eq!(code("let a = 1; // one"), "let a = 1; ");
        assert_eq!(code("/// docs"), "");
        assert_eq!(code(r#"let a = "http://x"; // url"#), r#"let a = "http://x"; "#);
        assert_eq!(code(r#"let a = "say \"//\""; // x"#), r#"let a = "say \"//\""; "#);
        assert_eq!(code("if c == '\"' { a / b } // x"), "if c == '\"' { a / b } ");
    }

    #[test]
    fn the_lines_of_a_test_module_are_tests() {
        let text = "//! Docs\nfn a() {}\n\n#[cfg(test)]\nmod tests {\n    fn b() {\n    }\n}\nfn c() {}\n";
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
}
