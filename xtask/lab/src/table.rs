//! Tables as Markdown.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

/// Rows as a table: the first column to the left, the others to the right.
pub(crate) fn markdown(rows: &[Vec<String>]) -> String {
    let mut text = String::new();
    for (number, row) in rows.iter().enumerate() {
        let _infallible = writeln!(text, "| {} |", row.join(" | "));
        if number == 0 {
            let _infallible = writeln!(text, "|---|{}", "--:|".repeat(row.len().saturating_sub(1)));
        }
    }
    text
}

/// The cells of a row.
pub(crate) fn cells(line: &str) -> Vec<String> {
    line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()
}

/// Writes a file, with its directory, and says so.
pub(crate) fn write(path: &Path, text: &str) -> Result<()> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    }
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    println!("written: {}", path.display());
    Ok(())
}
