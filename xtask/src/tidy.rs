//! `cargo xtask tidy`: checks the rules of CONTRIBUTING.md that other tools cannot check.
//!
//! Each rule is a small scanner over text that `cargo fmt` has laid out; only `cycles` and `surface` parse Rust.
//! Where a rule and good code disagree, change the rule here, with its reason, not the code around it.

mod cycles;
mod docs;
mod layers;
mod model;
mod source;
mod spec;
mod surface;
mod words;

use std::fmt;
use std::path::PathBuf;

use anyhow::{Result, bail};

pub(crate) use self::layers::libraries;

use xtask::cargo;

/// Checks the workspace and prints every violation. `bless` writes the listings of the public surface instead of comparing
/// them.
pub(crate) fn run(bless: bool) -> Result<()> {
    let root = cargo::workspace_root();
    let files = source::load(root)?;
    let rules = spec::load(root)?;
    let mut violations = Vec::new();
    for file in &files {
        violations.extend(words::check(file));
        violations.extend(spec::check(file, &rules));
    }
    violations.extend(cycles::check(root, libraries().chain([layers::TOP]))?);
    violations.extend(docs::check(root, &files)?);
    violations.extend(layers::check(root)?);
    violations.extend(words::check_sizes(&files));
    violations.extend(surface::check(root, bless)?);
    for violation in &violations {
        eprintln!("{violation}");
    }
    match violations.len() {
        0 => {
            println!("tidy: {} files follow the rules", files.len());
            Ok(())
        }
        count => bail!("{count} violations of the rules"),
    }
}

/// One place that breaks a rule.
#[derive(Debug, PartialEq, Eq)]
struct Violation {
    path: PathBuf,
    /// From 1; 0 for the file as a whole.
    line: usize,
    what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.path.display(), self.what),
            line => write!(f, "{}:{line}: {}", self.path.display(), self.what),
        }
    }
}
