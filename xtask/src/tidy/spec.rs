//! Checks that rules of SPEC.md cited in code exist.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

use super::Violation;
use super::source::SourceFile;

/// The numbers of all rules and sections: `3`, `3.2`.
#[derive(Debug)]
pub(super) struct Rules {
    numbers: BTreeSet<String>,
}

impl Rules {
    /// From the workspace's `SPEC.md`.
    pub(super) fn load(root: &Path) -> Result<Self> {
        let text = fs::read_to_string(root.join("SPEC.md")).context("cannot read SPEC.md")?;
        let rules = Self::parse(&text);
        if rules.numbers.is_empty() {
            bail!("SPEC.md holds no numbered rule");
        }
        Ok(rules)
    }

    fn parse(text: &str) -> Self {
        let numbered = |line: &str| {
            let line = line.trim_start_matches('#').trim_start();
            number_at_start(line).map(|number| number.to_owned())
        };
        Self { numbers: text.lines().filter_map(numbered).collect() }
    }

    /// The citations of one file that lead nowhere.
    pub(super) fn check(&self, file: &SourceFile) -> Vec<Violation> {
        let mut violations = Vec::new();
        for (line, text) in file.lines.iter().enumerate() {
            for number in cited(text).into_iter().filter(|number| !self.numbers.contains(*number)) {
                violations.push(file.violation(line + 1, format!("{CITATION}{number} is not in SPEC.md")));
            }
        }
        violations
    }
}

/// The numbers cited in a line: all of `SPEC 4.7, 4.8 and 5.1`.
fn cited(line: &str) -> Vec<&str> {
    let mut numbers = Vec::new();
    for (at, _) in line.match_indices(CITATION) {
        let mut rest = &line[at + CITATION.len()..];
        while let Some(number) = number_at_start(rest) {
            numbers.push(number);
            rest = &rest[number.len()..];
            let next = [", ", " and ", "–", "-"].iter().find_map(|link| rest.strip_prefix(link));
            rest = next.unwrap_or_default();
        }
    }
    numbers
}

/// A rule number with which `text` begins, if a word ends there.
fn number_at_start(text: &str) -> Option<&str> {
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let section = digits(text);
    if section == 0 {
        return None;
    }
    let end = match text[section..].strip_prefix('.').map(digits) {
        None | Some(0) => section,
        Some(rule) => section + 1 + rule,
    };
    let ends = text[end..].chars().next().is_none_or(|c| !c.is_alphanumeric());
    ends.then_some(&text[..end])
}

const CITATION: &str = "SPEC ";

#[cfg(test)]
mod tests {
    use super::*;

    const SPEC: &str =
        "# Title\n\n## 3 The frame\n\n3.1 A rule\nthat goes on.\n\n3.12 Another.\n\n| 4 | a row |\n";

    /// `§` stands for the citing word, or this file would cite what its own SPEC.md has not.
    fn wrong(text: &str) -> Vec<String> {
        let file = SourceFile::new("a.rs", &text.replace("§ ", CITATION));
        Rules::parse(SPEC).check(&file).into_iter().map(|violation| violation.what).collect()
    }

    #[test]
    fn rules_and_sections_may_be_cited() {
        assert_eq!(wrong("// § 3.1\n// § 3: all of it\n// as § 3.12, 3.1 and 3.12 say."), [""; 0]);
    }

    #[test]
    fn a_citation_that_leads_nowhere_is_found() {
        assert_eq!(wrong("// § 3.2"), [format!("{CITATION}3.2 is not in SPEC.md")]);
        assert_eq!(wrong("// § 3.1, 9.9").len(), 1);
        assert_eq!(wrong("// § 4").len(), 1, "a table's number is no rule");
    }

    #[test]
    fn a_number_ends_where_its_word_ends() {
        assert_eq!(number_at_start("3.1."), Some("3.1"));
        assert_eq!(number_at_start("3. Then"), Some("3"));
        assert_eq!(number_at_start("128-bit"), Some("128"));
        assert_eq!(number_at_start("3x"), None);
        assert_eq!(number_at_start("x"), None);
    }
}
