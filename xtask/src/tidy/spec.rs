//! Checks that rules of SPEC.md cited in code exist.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use super::Violation;
use super::source::SourceFile;

/// The numbers of all rules and sections of `SPEC.md`: `3`, `3.2`.
pub(super) fn load(root: &Path) -> Result<BTreeSet<String>> {
    let rules = parse(&fs::read_to_string(root.join("SPEC.md")).context("cannot read SPEC.md")?)?;
    ensure!(!rules.is_empty(), "SPEC.md holds no numbered rule");
    Ok(rules)
}

/// A rule's number begins its paragraph, and no two rules have the same.
fn parse(text: &str) -> Result<BTreeSet<String>> {
    let mut numbers = BTreeSet::new();
    for paragraph in text.split("\n\n") {
        let first_word = paragraph.trim_start_matches(['#', '\n']).split_whitespace().next();
        if let Some(number) = first_word.filter(|word| is_number(word)) {
            ensure!(numbers.insert(number.to_owned()), "SPEC.md has two rules {number}");
        }
    }
    Ok(numbers)
}

/// The citations of one file that lead nowhere.
pub(super) fn check(file: &SourceFile, rules: &BTreeSet<String>) -> Vec<Violation> {
    let mut wrong = Vec::new();
    for (text, line) in file.lines.iter().zip(1..) {
        let unknown = cited(text).into_iter().filter(|number| !rules.contains(*number));
        wrong.extend(
            unknown.map(|number| file.violation(line, format!("{CITATION}{number} is not in SPEC.md"))),
        );
    }
    wrong
}

/// The numbers cited in a line: all of `SPEC 4.7, 4.8 and 5.1`.
fn cited(line: &str) -> Vec<&str> {
    let mut numbers = Vec::new();
    for rest in line.split(CITATION).skip(1) {
        for word in rest.split([' ', '–', '-']) {
            let number = word.trim_end_matches(|c: char| !c.is_ascii_digit());
            numbers.extend(is_number(number).then_some(number));
            if word != "and" && word.trim_end_matches(',') != number {
                break;
            }
        }
    }
    numbers
}

fn is_number(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_digit()) && word.chars().all(|c| c.is_ascii_digit() || c == '.')
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
        check(&file, &parse(SPEC).unwrap()).into_iter().map(|violation| violation.what).collect()
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
    fn two_rules_of_one_number_are_found() {
        let twice = parse("3.1 A rule\n\n3.2 Another,\n3.1 in a line\n\n3.1 A third").unwrap_err();
        assert_eq!(twice.to_string(), "SPEC.md has two rules 3.1");
    }

    #[test]
    fn a_list_of_numbers_ends_where_prose_begins() {
        let numbers = |text: &str| cited(&text.replace("§ ", CITATION)).join(" ");
        assert_eq!(numbers("as § 3.1, 3.2 and 4 say"), "3.1 3.2 4");
        assert_eq!(numbers("(§ 3.1): 5 of § 4."), "3.1 4");
        assert_eq!(numbers("§ 3.1-3.3; a 128-bit number, § is prose"), "3.1 3.3");
    }
}
