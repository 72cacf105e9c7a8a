//! Checks the dependencies between crates, as cargo reports them.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::Violation;
use xtask::{cargo, process};

/// Everything that looks upwards.
pub(super) fn check(root: &Path) -> Result<Vec<Violation>> {
    let mut violations = Vec::new();
    for entry in fs::read_dir(root.join("crates")).context("cannot list the crates")? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let direct = tree(&name, &["--edges", "features", "--depth", "1"])?;
        let violation = |what| Violation { path: format!("crates/{name}/Cargo.toml").into(), line: 0, what };
        let wrong = judge(&name, &direct, &tree(&name, &["--edges", "normal"])?);
        violations.extend(wrong.into_iter().map(violation));
    }
    Ok(violations)
}

/// What `cargo tree` shows of a crate, itself left out: names, and names with their features.
fn tree(name: &str, arguments: &[&str]) -> Result<BTreeSet<String>> {
    let mut command = cargo::cargo();
    command.args(["tree", "--package", name, "--charset", "ascii"]).args(arguments);
    Ok(shown(name, &process::output("cargo tree", &mut command)?))
}

fn shown(name: &str, text: &str) -> BTreeSet<String> {
    let (built, tests) = text.split_once("[dev-dependencies]").unwrap_or((text, ""));
    let is_allowed = |line: &&str| FOR_TESTS.iter().any(|(of, used)| *of == name && line.contains(used));
    let lines = built.lines().chain(tests.lines().filter(|line| !is_allowed(line)));
    let lines = lines.map(|line| line.trim_start_matches(['|', '`', '-', ' ']));
    let found = lines.flat_map(|line| [line, line.split(' ').next().unwrap_or_default()]);
    found.map(str::to_owned).filter(|found| found != name).collect()
}

/// What is wrong with a crate that names `direct`, for the build or for tests, and is built with all of `closure`.
fn judge(name: &str, direct: &BTreeSet<String>, closure: &BTreeSet<String>) -> Vec<String> {
    let Some([_, may_use, never, not_directly]) = LAYERS.iter().find(|layer| layer[0] == name) else {
        return vec![format!("{name} has no layer: give it one in xtask/src/tidy/layers.rs")];
    };
    let is_ours = |used: &str| [FRONT, TEST_PEERS].contains(&used) || used.starts_with("shiplane-");
    let ours = direct.iter().filter(|used| is_ours(used) && !used.contains(' '));
    let above = ours.filter(|used| !may_use.split_whitespace().any(|may_use| may_use == *used));
    let above = above.map(|used| format!("{name} must not use {used}: it is not beneath it"));
    let named = not_directly.split_whitespace().chain((name != DIALECT).then_some(DIALECT_FEATURE));
    let named = named.filter(|used| direct.contains(*used));
    let named = named.map(|used| format!("{name} must not name {used}"));
    let reached = never.split_whitespace().filter(|used| closure.contains(*used));
    let reached =
        reached.map(|used| format!("{name} must not reach {used}: see `cargo tree -p {name} -i {used}`"));
    above.chain(named).chain(reached).collect()
}

pub(super) const TOP: &str = "shiplane-cli";

/// What most programs need, and all that the command line uses.
pub(super) const FRONT: &str = "shiplane";

/// Its private parts may name quinn; its public ones must not.
pub(super) const TRANSPORT: &str = "shiplane-transport";

/// The transport's feature for connections that it does not authenticate, as cargo shows it.
const DIALECT_FEATURE: &str = "shiplane-transport feature \"dialect\"";

/// The only crate that builds on them.
const DIALECT: &str = "shiplane-octopii";

/// Hostile peers, which the tests of the top may use, and nothing else of it.
const TEST_PEERS: &str = "lab";

/// What a crate names only for its tests: hostile peers, and streams that a test plays by hand.
const FOR_TESTS: [(&str, &str); 2] = [(TOP, TEST_PEERS), (DIALECT, "quinn")];

/// All crates but the top, from the bottom up.
pub(crate) fn libraries() -> impl Iterator<Item = &'static str> {
    LAYERS.iter().map(|layer| layer[0]).filter(|name| *name != TOP)
}

/// From the bottom up: a crate, those of ours that it may use, what it must not reach by any way, and what it must not
/// name itself, though a lower layer may bring it. What a crate of ours may not use it cannot reach, as that holds for
/// those that it uses.
const LAYERS: [[&str; 4]; 11] = [
    // No clock, no IO, no logging: what it does can be replayed byte by byte.
    ["shiplane-wire", "", "tokio quinn quinn-proto rustls serde tracing", ""],
    // Messages are bytes here; what they mean is decided above. Certificates belong to the dialect that has some.
    [TRANSPORT, "shiplane-wire", "serde rcgen", ""],
    ["shiplane-rpc", "shiplane-wire shiplane-transport", "", QUINN],
    ["shiplane-platform", "shiplane-wire", "tokio futures serde", ""],
    // The disk alone: what it does blocks.
    ["shiplane-files", "shiplane-wire shiplane-platform", "tokio futures serde", ""],
    // It decides; what is asked of it, and how, is above.
    [
        "shiplane-access",
        "shiplane-wire shiplane-transport shiplane-files",
        "serde",
        "quinn quinn-proto quinn-udp tokio",
    ],
    [
        "shiplane-protocols",
        "shiplane-wire shiplane-transport shiplane-rpc shiplane-files shiplane-access",
        TERMINAL,
        QUINN,
    ],
    // What is sent once the peer is found is decided above.
    ["shiplane-reach", "shiplane-wire shiplane-transport shiplane-rpc", TERMINAL, QUINN],
    [
        FRONT,
        "shiplane-reach shiplane-wire shiplane-transport shiplane-rpc shiplane-files shiplane-access shiplane-protocols",
        TERMINAL,
        QUINN,
    ],
    [DIALECT, "shiplane-wire shiplane-transport shiplane-rpc", "", QUINN],
    [TOP, "shiplane shiplane-octopii", "", QUINN],
];

const QUINN: &str = "quinn quinn-proto quinn-udp";

const TERMINAL: &str = "clap indicatif";

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(name: &str, direct: &[&str], closure: &[&str]) -> usize {
        let [direct, closure] =
            [direct, closure].map(|names| names.iter().map(|name| (*name).to_owned()).collect());
        judge(name, &direct, &closure).len()
    }

    #[test]
    fn a_crate_uses_what_is_beneath_it() {
        assert_eq!(judged("shiplane-transport", &["shiplane-wire", "quinn"], &["quinn", "tokio"]), 0);
        assert_eq!(judged("shiplane-rpc", &["shiplane-transport"], &["shiplane-transport", "quinn"]), 0);
    }

    #[test]
    fn looking_upwards_is_found() {
        assert_eq!(judged("shiplane-wire", &["shiplane-transport"], &[]), 1);
        assert_eq!(judged("shiplane-transport", &["shiplane-rpc"], &["shiplane-rpc"]), 1);
        assert_eq!(judged("shiplane-protocols", &["shiplane-cli"], &[]), 1);
    }

    #[test]
    fn what_is_forbidden_is_found_by_whatever_way_it_comes() {
        assert_eq!(judged("shiplane-wire", &["harmless"], &["harmless", "tokio"]), 1);
        assert_eq!(judged("shiplane-rpc", &["quinn"], &["quinn"]), 1);
        assert_eq!(judged("shiplane-protocols", &["quinn-udp"], &[]), 1);
        assert_eq!(judged(DIALECT, &["quinn"], &["quinn"]), 1);
    }

    #[test]
    fn some_crates_are_for_tests_alone() {
        let found = |name: &str, text: &str| shown(name, text).contains("quinn");
        let text = "a v1 (/a)\n|-- rustls v1\n[dev-dependencies]\n`-- quinn feature \"default\"";
        assert!(!found(DIALECT, text) && found(TOP, text));
        assert!(found(DIALECT, "a v1 (/a)\n|-- quinn v1\n[dev-dependencies]\n"));
    }

    #[test]
    fn every_crate_has_a_layer() {
        assert_eq!(judged("shiplane-new", &[], &[]), 1);
    }

    #[test]
    fn only_the_command_line_uses_the_dialect_and_only_that_uses_its_feature() {
        assert_eq!(judged("shiplane-protocols", &[DIALECT], &[]), 1);
        assert_eq!(judged(TOP, &[DIALECT], &[]), 0);
        assert_eq!(judged(DIALECT, &[TRANSPORT, DIALECT_FEATURE], &[]), 0);
        assert_eq!(judged("shiplane-rpc", &[TRANSPORT, DIALECT_FEATURE], &[]), 1);
    }
}
