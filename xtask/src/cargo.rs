//! Cargo, as seen from inside `cargo xtask`.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::process::Running;

/// The directory of the workspace's `Cargo.toml`.
pub(crate) fn workspace_root() -> &'static Path {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest)
}

/// A `cargo` command that runs in the workspace root.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace_root());
    command
}

/// What cargo says of the workspace's own packages.
pub(crate) fn metadata() -> Result<Value> {
    let text = output(cargo().args(["metadata", "--no-deps", "--format-version=1"]))?;
    serde_json::from_str(&text).context("cargo metadata printed no JSON")
}

/// Whether a package of the workspace has such a binary.
pub(crate) fn has_binary(package: &str, binary: &str) -> Result<bool> {
    let metadata = metadata()?;
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let targets = packages.filter(|found| found["name"] == package).map(|found| &found["targets"]);
    let mut targets = targets.filter_map(Value::as_array).flatten();
    Ok(targets.any(|target| target["name"] == binary && target["kind"][0] == "bin"))
}

/// What a command prints; an error unless it succeeds.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command.stderr(Stdio::inherit()).output().context("cannot run cargo")?;
    if !output.status.success() {
        bail!("{command:?} ended with {}", output.status);
    }
    String::from_utf8(output.stdout).context("cargo printed no UTF-8")
}

/// Builds one binary in release and says where it is.
pub(crate) fn build_release(package: &str, binary: &str) -> Result<PathBuf> {
    let name = format!("building {binary}");
    let mut command = cargo();
    command.args(["build", "--release", "--package", package, "--bin", binary]);
    command.arg("--message-format=json-render-diagnostics").stdout(Stdio::piped());
    let mut running = Running::start(&name, &mut command)?;
    let stdout = running.take_stdout().context("cargo has no standard output")?;
    // Read here, not after the wait: cargo blocks once the pipe is full.
    let mut executable = None;
    for line in BufReader::new(stdout).lines() {
        let message: Value = serde_json::from_str(&line?).context("cargo printed no JSON")?;
        if message["target"]["name"] == binary
            && let Some(path) = message["executable"].as_str()
        {
            executable = Some(PathBuf::from(path));
        }
    }
    running.wait(Duration::MAX)?.expect_success(&name)?;
    match executable {
        Some(path) => Ok(path),
        None => bail!("cargo built no binary `{binary}` in `{package}`"),
    }
}
