//! The tables, printed and written into the documents. Rows that are measured again replace the old ones there.

use std::fs;
use std::path::Path;

use anyhow::Result;
use xtask::units;

use crate::table::{self, cells};

/// One table. The first two cells of a row are its key: the link, and the program that was measured.
#[derive(Clone, Debug)]
pub(super) struct Table {
    title: String,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new(title: &str, headings: &str) -> Self {
        let headings = cells(headings);
        Self { title: title.to_owned(), rows: vec![headings] }
    }

    pub(super) fn add(&mut self, row: Vec<String>) {
        self.rows.push(row);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.len() == 1
    }

    /// For a terminal.
    pub(super) fn text(&self) -> String {
        format!("\n{}\n\n{}", self.title, units::table(&self.rows))
    }

    fn markdown(&self) -> String {
        format!("## {}\n\n{}", self.title, table::markdown(&self.rows))
    }

    /// Takes over the rows of `document`'s table of the same title and headings, but those that were measured again,
    /// in the order of `names`.
    fn merge(&mut self, document: &str, names: &[&str]) {
        let (heading, title) = (self.rows[0].clone(), format!("## {}", self.title));
        let section = document.lines().skip_while(|line| *line != title).skip(1);
        let section = section.take_while(|line| !line.starts_with("## "));
        let mut old = section.filter(|line| line.starts_with("| ")).map(cells);
        if old.next().as_ref() == Some(&heading) {
            let is_new = |row: &Vec<String>| !self.rows.iter().any(|new| new[..2] == row[..2]);
            let kept: Vec<_> = old.filter(|row| row.len() == heading.len()).filter(is_new).collect();
            self.rows.splice(1..1, kept);
        }
        let position = |row: &Vec<String>| names.iter().position(|name| *name == row[0]);
        self.rows[1..].sort_by_key(position);
    }
}

/// Writes `tables` behind `head` into the file, with the rows that it has already and those tables that are not
/// measured this time.
pub(super) fn write(path: &Path, head: &str, tables: &mut [Table], names: &[&str]) -> Result<()> {
    let old = fs::read_to_string(path).unwrap_or_default();
    let mut text = head.to_owned();
    for table in tables {
        table.merge(&old, names);
        if !table.is_empty() {
            text.push('\n');
            text.push_str(&table.markdown());
        }
    }
    table::write(path, &text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(cells: &[&str]) -> Vec<String> {
        cells.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn rows_that_are_measured_again_replace_the_old_ones_and_others_stay() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("docs/wan.md");
        let table = |rows: &[&[&str]]| {
            let mut table = Table::new("Rates", "link|program|Mbit/s");
            rows.iter().for_each(|cells| table.add(row(cells)));
            table
        };
        let names = ["first", "second"];
        let mut tables = [table(&[&["second", "old", "1"], &["first", "old", "2"]])];
        write(&path, "# Wide area\n", &mut tables, &names).unwrap();
        let mut tables =
            [table(&[&["first", "old", "3"], &["first", "new", "4"]]), Table::new("Empty", "a|b")];
        write(&path, "# Wide area\n", &mut tables, &names).unwrap();
        let expected = "# Wide area\n\n## Rates\n\n| link | program | Mbit/s |\n|---|--:|--:|\n\
                        | first | old | 3 |\n| first | new | 4 |\n| second | old | 1 |\n";
        assert_eq!(fs::read_to_string(&path).unwrap(), expected);
    }
}
