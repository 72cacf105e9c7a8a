//! The public surface: what a user of each crate can name without a feature, listed in `docs/api/`.
//!
//! A change to the surface is thereby a change to a reviewed file. The listing is read off the source, not off the
//! compiler, so that it is the same with every version of it. Macros are not expanded, but for those without arguments
//! that stand in an `impl`.

mod listing;
#[cfg(test)]
pub(super) mod tests;

use std::{fs, path::Path};

use anyhow::{Context as _, Result};

use self::listing::Entry;
use super::{
    Violation,
    layers::{FRONT, TRANSPORT, libraries},
    model::{Crate, is_conditional},
};

/// Compares each crate's listing with its file, or writes the file if `bless` is set, and checks the rules of the
/// surface.
pub(super) fn check(root: &Path, bless: bool) -> Result<Vec<Violation>> {
    let mut violations = Vec::new();
    let mut all_types = 0;
    for name in libraries() {
        let krate = Crate::load(root, name, is_conditional)?;
        let entries = listing::entries(&krate);
        let (types, own_types) = listing::counts(&entries);
        all_types += own_types;
        violations.extend(entries.iter().flat_map(|entry| rules(name, entry)));
        let listing = listing::written(&entries);
        violations.extend(compare(root, name, &listing, bless)?);
        if name == TRANSPORT && listing.contains("quinn") {
            let what = "`quinn` in a public signature: give it a type of ours".to_owned();
            violations.push(violation(name, what));
        }
        if name == FRONT && types > MAX_FRONT_TYPES {
            let what = format!("{types} public types in `shiplane`, at most {MAX_FRONT_TYPES} are allowed");
            violations.push(violation(name, what));
        }
    }
    let what = format!("{all_types} public types in all crates, at most {MAX_TYPES} are allowed");
    violations.extend((all_types > MAX_TYPES).then(|| violation(FRONT, what)));
    Ok(violations)
}

fn compare(root: &Path, name: &str, listing: &str, bless: bool) -> Result<Option<Violation>> {
    let path = root.join(listing_path(name));
    if bless {
        fs::create_dir_all(root.join(DIRECTORY))?;
        fs::write(&path, listing).with_context(|| format!("cannot write {}", path.display()))?;
        return Ok(None);
    }
    let known = fs::read_to_string(&path).unwrap_or_default();
    Ok((known != listing).then(|| {
        violation(
            name,
            "the public surface differs: `cargo xtask tidy --bless`, then review the change".to_owned(),
        )
    }))
}

/// What each item of the surface must have.
fn rules(krate: &str, entry: &Entry) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut add = |what: String| found.push(violation(krate, format!("{}: {what}", entry.path)));
    for (name, docs) in &entry.futures {
        if !["drop", "cancel"].iter().any(|word| docs.to_lowercase().contains(word)) {
            add(format!("`{name}` does not say what a dropped future leaves"));
        }
    }
    let grows = GROWING.iter().any(|ending| entry.path.ends_with(ending));
    if grows && entry.is_exhaustive {
        add("settings, errors, events and reports grow: it needs private fields or `#[non_exhaustive]`"
            .to_owned());
    }
    found
}

fn violation(krate: &str, what: String) -> Violation {
    Violation { path: listing_path(krate).into(), line: 0, what }
}

fn listing_path(krate: &str) -> String {
    format!("{DIRECTORY}/{krate}.txt")
}

const DIRECTORY: &str = "docs/api";

/// What one person can survey.
const MAX_TYPES: usize = 130;

/// Those that a user of `shiplane` may have to know, from all crates.
const MAX_FRONT_TYPES: usize = 30;

/// Names of what a caller makes, where a new setting must not break it, and of what it reads.
const GROWING: [&str; 8] =
    ["Options", "Config", "Policy", "Error", "Event", "EventKind", "Report", "Snapshot"];
