//! How a file is laid out: it opens by saying what it is for, and neither it nor a function in it is
//! longer than a reader can hold.

use super::Violation;
use super::source::{SourceFile, block_end, code};

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
    violations.extend(long_functions(file));
    violations
}

fn long_functions(file: &SourceFile) -> Vec<Violation> {
    let mut violations = Vec::new();
    for start in 0..file.lines.len() {
        let Some(name) = function_name(&file.lines[start]) else {
            continue;
        };
        let Some(end) = block_end(&file.lines, start) else {
            continue;
        };
        let len = end - start + 1;
        if len > MAX_FUNCTION_LINES {
            let what = format!("`{name}` has {len} lines, at most {MAX_FUNCTION_LINES}");
            violations.push(file.violation(start, what));
        }
    }
    violations
}

/// The name of the function that starts on this line.
fn function_name(line: &str) -> Option<&str> {
    let mut rest = code(line).trim_start();
    while let Some(after) = QUALIFIERS.iter().find_map(|word| rest.strip_prefix(word)) {
        rest = after.trim_start();
        // pub(crate), pub(in path), extern "C"
        if let Some(inner) = rest.strip_prefix('(') {
            rest = inner.split_once(')')?.1.trim_start();
        } else if let Some(inner) = rest.strip_prefix('"') {
            rest = inner.split_once('"')?.1.trim_start();
        }
    }
    let name = rest.strip_prefix("fn ")?;
    name.split(|c: char| !(c.is_alphanumeric() || c == '_')).next().filter(|name| !name.is_empty())
}

const QUALIFIERS: [&str; 6] = ["pub", "default ", "const ", "async ", "unsafe ", "extern "];

/// More than this and a file holds two things.
const MAX_FILE_LINES: usize = 600;

/// One screen, from the signature to the closing brace.
const MAX_FUNCTION_LINES: usize = 70;

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(text: &str) -> Vec<String> {
        let file = SourceFile::new("crates/x/src/a.rs", text);
        check(&file).into_iter().map(|violation| violation.to_string()).collect()
    }

    fn function_of(lines: usize, signature: &str) -> String {
        format!("//! Docs.\n{signature} {{\n{}}}\n", "    a();\n".repeat(lines - 2))
    }

    #[test]
    fn a_file_says_what_it_is_for() {
        assert_eq!(checked("//! What for.\nfn a() {}\n"), [""; 0]);
        assert!(checked("fn a() {}\n")[0].contains("begins without"));
        assert!(checked("")[0].contains("begins without"));
    }

    #[test]
    fn a_long_file_is_named_with_its_length() {
        assert_eq!(checked(&format!("//! Docs.\n{}", "\n".repeat(599))), [""; 0]);
        assert!(checked(&format!("//! Docs.\n{}", "\n".repeat(600)))[0].contains("601 lines"));
    }

    #[test]
    fn a_function_may_have_seventy_lines_and_no_more() {
        for signature in ["fn a()", "pub(crate) const fn a()", "pub async unsafe extern \"C\" fn a()"] {
            assert_eq!(checked(&function_of(70, signature)), [""; 0]);
            let found = checked(&function_of(71, signature));
            assert_eq!(found, ["crates/x/src/a.rs:2: `a` has 71 lines, at most 70"]);
        }
    }

    #[test]
    fn methods_and_signatures_over_several_lines_are_measured_to_their_own_brace() {
        let long = "        a();\n".repeat(70);
        let text = format!(
            "//! D.\nimpl A {{\n    fn short(\n        &self,\n    ) -> u8 {{\n    }}\n\n    fn long(\n        b: u8,\n    ) where\n        A: B,\n    {{\n{long}    }}\n}}\n"
        );
        let found = checked(&text);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains(":8: `long`"), "{found:?}");
    }

    #[test]
    fn a_declaration_has_no_length() {
        let text = format!(
            "//! D.\ntrait A {{\n    fn a(&self);\n    fn b(\n        &self,\n    ) -> u8;\n{}}}\n",
            "    // x\n".repeat(80)
        );
        assert_eq!(checked(&text), [""; 0]);
    }

    #[test]
    fn only_a_function_is_a_function() {
        assert_eq!(function_name("    pub(in crate::a) async fn go<T>(t: T) {"), Some("go"));
        assert_eq!(function_name("let f: fn (u8) = g;"), None);
        assert_eq!(function_name("// fn a() {"), None);
        assert_eq!(function_name("fn_name();"), None);
    }
}
