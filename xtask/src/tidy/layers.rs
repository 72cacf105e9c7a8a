//! Checks the dependencies between crates, as cargo reports them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::Violation;
use xtask::{cargo, process};

/// Everything that looks upwards.
pub(super) fn check(root: &Path) -> Result<Vec<Violation>> {
    let metadata = cargo::metadata()?;
    let mut violations = Vec::new();
    for package in metadata["packages"].as_array().context("cargo metadata names no packages")? {
        let package = Package::read(package, root)?;
        let closure = if package.is_layered() { closure(&package.name)? } else { BTreeSet::new() };
        let violation = |what| Violation { path: package.manifest.clone(), line: 0, what };
        violations.extend(judge(&package, &closure).into_iter().map(violation));
    }
    Ok(violations)
}

/// One member of the workspace.
#[derive(Debug)]
struct Package {
    name: String,
    manifest: PathBuf,
    /// All it names, for the build and for tests too.
    direct: BTreeSet<String>,
    /// Whether it enables the transport's feature for connections without authentication.
    uses_dialect: bool,
}

impl Package {
    fn read(package: &Value, root: &Path) -> Result<Self> {
        let text = |value: &Value| value.as_str().map(str::to_owned).context("cargo metadata is unreadable");
        let name = text(&package["name"])?;
        let manifest = PathBuf::from(text(&package["manifest_path"])?);
        let manifest = manifest.strip_prefix(root).unwrap_or(&manifest).to_path_buf();
        let mut this = Self { name, manifest, direct: BTreeSet::new(), uses_dialect: false };
        for dependency in package["dependencies"].as_array().context("a package without dependencies")? {
            let used = text(&dependency["name"])?;
            let features = dependency["features"].as_array().map_or(&[][..], Vec::as_slice);
            this.uses_dialect |=
                used == TRANSPORT && features.iter().any(|feature| feature == DIALECT_FEATURE);
            let is_for_tests = FOR_TESTS.contains(&(this.name.as_str(), used.as_str()));
            if !(dependency["kind"] == "dev" && is_for_tests) {
                this.direct.insert(used);
            }
        }
        Ok(this)
    }

    /// Every crate in `crates/` has a layer.
    fn is_layered(&self) -> bool {
        self.manifest.starts_with("crates")
    }
}

/// What is wrong with a member. One that is no layer, as benches and chores, may use everything but the top.
fn judge(package: &Package, closure: &BTreeSet<String>) -> Vec<String> {
    let (name, mut what) = (package.name.as_str(), Vec::new());
    let Some([_, may_use, never, not_directly]) = LAYERS.iter().find(|layer| layer[0] == name) else {
        if package.is_layered() {
            what.push(format!("{name} has no layer: give it one in xtask/src/tidy/layers.rs"));
        }
        if package.direct.contains(TOP) {
            what.push(format!("{name} depends on {TOP}, on which nothing may depend"));
        }
        return what;
    };
    let is_ours = |name: &str| name == FRONT || name == TEST_PEERS || name.starts_with("shiplane-");
    for used in package.direct.iter().filter(|used| is_ours(used)) {
        // A crate's own tests may name it, to turn a feature on.
        if used != name && !may_use.split(' ').any(|may_use| may_use == used) {
            what.push(format!("{name} must not use {used}: it is not beneath it"));
        }
    }
    for used in not_directly.split(' ').filter(|used| package.direct.contains(*used)) {
        what.push(format!("{name} must not name {used}"));
    }
    for used in never.split(' ').filter(|used| closure.contains(*used)) {
        what.push(format!("{name} must not reach {used}: see `cargo tree -p {name} -i {used}`"));
    }
    if package.uses_dialect && name != DIALECT {
        what.push(format!(
            "{name} must not use {TRANSPORT}'s feature {DIALECT_FEATURE}: it is for {DIALECT}"
        ));
    }
    what
}

/// All that a build of the crate pulls in, itself left out.
fn closure(name: &str) -> Result<BTreeSet<String>> {
    let mut command = cargo::cargo();
    command.args(["tree", "--package", name, "--edges", "normal", "--prefix", "none"]);
    let text = process::output("cargo tree", &mut command)?;
    let first_word = |line: &str| line.split(' ').next().map(str::to_owned);
    Ok(text.lines().filter_map(first_word).filter(|found| found != name).collect())
}

const TOP: &str = "shiplane-cli";

/// What most programs need, and all that the command line uses.
pub(super) const FRONT: &str = "shiplane";

/// Its private parts may name quinn; its public ones must not.
pub(super) const TRANSPORT: &str = "shiplane-transport";

/// The transport's feature for connections that it does not authenticate.
const DIALECT_FEATURE: &str = "dialect";

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

    fn package(name: &str, direct: &[&str]) -> Package {
        Package {
            name: name.to_owned(),
            manifest: PathBuf::from(format!("crates/{name}/Cargo.toml")),
            direct: set(direct),
            uses_dialect: false,
        }
    }

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn judged(name: &str, direct: &[&str], closure: &[&str]) -> usize {
        judge(&package(name, direct), &set(closure)).len()
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
        assert_eq!(judged(DIALECT, &["quinn"], &[]), 1);
    }

    #[test]
    fn nothing_depends_on_the_command_line_and_every_crate_has_a_layer() {
        let benches = package("shiplane-benches", &["shiplane-cli"]);
        let benches = Package { manifest: "benches/Cargo.toml".into(), ..benches };
        assert_eq!(judge(&benches, &BTreeSet::new()).len(), 1);
        assert_eq!(judged("shiplane-new", &[], &[]), 1);
    }

    #[test]
    fn only_the_command_line_uses_the_dialect_and_only_that_uses_dialect() {
        assert_eq!(judged("shiplane-protocols", &[DIALECT], &[]), 1);
        assert_eq!(judged(TOP, &[DIALECT], &[]), 0);
        for (layer, violations) in [(DIALECT, 0), ("shiplane-rpc", 1)] {
            let package = Package { uses_dialect: true, ..package(layer, &[TRANSPORT]) };
            assert_eq!(judge(&package, &BTreeSet::new()).len(), violations);
        }
    }
}
