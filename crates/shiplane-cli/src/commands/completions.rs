//! `shiplane completions SHELL`

use std::io::{self, Write};

use clap_complete::Shell;

use crate::completion;
use crate::failure::Failure;

pub(super) fn run(shell: Shell) -> Result<(), Failure> {
    let script = completion::script(shell).map_err(Failure::Stdout)?;
    let mut out = io::stdout();
    out.write_all(&script).and_then(|()| out.flush()).map_err(Failure::Stdout)
}
