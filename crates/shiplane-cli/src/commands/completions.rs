//! `shiplane completions SHELL`

use std::io::{self, Write};

use clap::CommandFactory;
use clap_complete::Shell;

use crate::args::Cli;
use crate::failure::Failure;

pub(super) fn run(shell: Shell) -> Result<(), Failure> {
    // Made in memory first: the generator panics when its output fails.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "shiplane", &mut script);
    let mut out = io::stdout();
    out.write_all(&script).and_then(|()| out.flush()).map_err(Failure::Stdout)
}
