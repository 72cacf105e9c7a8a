//! Calls cargo from `cargo xtask`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::process::{self, Running};

/// The directory of the workspace's `Cargo.toml`.
pub fn workspace_root() -> &'static Path {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest)
}

/// A `cargo` command that runs in the workspace root, as if it were typed there.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace_root());
    // What `cargo run` tells us of ourselves is none of the inner cargo's business: ring's build script
    // asks for it, so that ring and all above it would be built anew at every change from `cargo` to
    // `cargo xtask` and back.
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(is_about_us) {
            command.env_remove(name);
        }
    }
    command
}

/// What cargo says of the workspace's own packages.
pub fn metadata() -> Result<Value> {
    let text = process::output("cargo", cargo().args(["metadata", "--no-deps", "--format-version=1"]))?;
    serde_json::from_str(&text).context("cargo metadata printed no JSON")
}

/// Builds one binary in release and says where it is.
pub fn build_release(package: &str, binary: &str) -> Result<PathBuf> {
    build(package, binary, &["--release"])
}

/// Builds `shiplane` for the demo, without what the demo does not run, and says where it is.
pub fn build_for_demo() -> Result<PathBuf> {
    build("shiplane-cli", "shiplane", &["--profile", "demo", "--no-default-features"])
}

fn build(package: &str, binary: &str, how: &[&str]) -> Result<PathBuf> {
    let mut command = cargo();
    command.args(["build", "--package", package, "--bin", binary]).args(how);
    executable_of(&mut command, binary)
}

/// Runs a `cargo build` of one binary and says where it is.
pub fn executable_of(command: &mut Command, binary: &str) -> Result<PathBuf> {
    let name = format!("building {binary}");
    command.arg("--message-format=json-render-diagnostics").stdout(Stdio::piped());
    let ended = Running::start(&name, command)?.wait(Duration::MAX)?;
    let mut executable = None;
    for line in &ended.lines {
        let message: Value = serde_json::from_str(line).context("cargo printed no JSON")?;
        let is_it = message["target"]["name"] == binary && message["target"]["kind"][0] == "bin";
        if is_it && let Some(path) = message["executable"].as_str() {
            executable = Some(PathBuf::from(path));
        }
    }
    if ended.code != Some(0) {
        bail!("{name} failed");
    }
    match executable {
        Some(path) => Ok(path),
        None => bail!("cargo built no binary `{binary}`"),
    }
}

/// Whether cargo sets this variable for the program it runs.
fn is_about_us(name: &str) -> bool {
    ABOUT_US.iter().any(|prefix| name.starts_with(prefix))
}

const ABOUT_US: [&str; 4] = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inner_cargo_does_not_learn_of_us_but_keeps_the_users_settings() {
        assert!(is_about_us("CARGO_PKG_NAME") && is_about_us("CARGO_MANIFEST_DIR"));
        assert!(!is_about_us("CARGO_HOME") && !is_about_us("CARGO_TARGET_DIR"));
        // `cargo test` tells us as much as `cargo run` does.
        let command = cargo();
        let mut removed = command.get_envs().filter(|(_, value)| value.is_none());
        assert!(removed.any(|(name, _)| name == "CARGO_PKG_NAME"));
    }
}
