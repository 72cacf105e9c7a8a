//! `cargo xtask screenshots`: the pictures of the status page in the documents, as the test of the page sees it.

use anyhow::{Result, ensure};
use xtask::cargo;

/// Has the test write what it sees into `docs`.
pub(crate) fn run() -> Result<()> {
    let mut command = cargo::cargo();
    command.args(["test", "--package", "shiplane-cli", "--test", "it", "--", "page::", "--nocapture"]);
    command.env("SHIPLANE_SCREENSHOTS", cargo::workspace_root().join("docs"));
    let ended = command.status()?;
    ensure!(ended.success(), "the test of the status page failed");
    Ok(())
}
