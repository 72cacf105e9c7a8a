//! Calls cargo from `cargo xtask`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::process;

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

/// Builds one binary in release and says where it is.
pub fn build_release(package: &str, binary: &str) -> Result<PathBuf> {
    executable_of(cargo().args(["build", "--release", "--package", package, "--bin", binary]), binary)
}

/// Runs a build of one binary and says where it is.
pub fn executable_of(command: &mut Command, binary: &str) -> Result<PathBuf> {
    command.arg("--message-format=json-render-diagnostics");
    let text = process::output(&format!("building {binary}"), command)?;
    let messages = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let is_it =
        |message: &Value| message["target"]["name"] == binary && message["target"]["kind"][0] == "bin";
    let mut built =
        messages.filter(is_it).filter_map(|built| built["executable"].as_str().map(PathBuf::from));
    built.next_back().with_context(|| format!("cargo built no binary `{binary}`"))
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
