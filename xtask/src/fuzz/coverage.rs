//! Builds our crates with coverage instrumentation for libFuzzer.
//!
//! Cargo asks a *workspace wrapper* to compile only the members of a workspace. That is us: the same program,
//! started by cargo with a variable set. So the dependencies are those of any other build and are not built anew.

use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result};

use super::PACKAGE;
use crate::tidy::libraries;

/// Makes this `cargo build` one whose coverage is seen.
pub(super) fn measure(command: &mut Command) -> Result<()> {
    let wrapper = std::env::current_exe().context("cannot find this program itself")?;
    command.env("RUSTC_WORKSPACE_WRAPPER", wrapper).env(SWITCH, "1");
    for name in libraries().chain([PACKAGE]) {
        // Unoptimised code would try a tenth of the inputs; its checks of overflow stay.
        command.arg("--config").arg(format!("profile.dev.package.{name}.opt-level=2"));
    }
    Ok(())
}

/// Compiles, if cargo has started this program for that.
pub(crate) fn as_compiler() -> Option<ExitCode> {
    std::env::var_os(SWITCH)?;
    let mut arguments = std::env::args_os().skip(1);
    let status = Command::new(arguments.next()?).args(arguments).args(COVERAGE).status().ok()?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Some(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

/// As libFuzzer wants it: a counter for each edge, where each one is, and both sides of comparisons.
const COVERAGE: [&str; 5] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
];

const SWITCH: &str = "SHIPLANE_FUZZ_COVERAGE";
