//! One module a command.

mod completions;
mod id;
mod man;
mod peers;

use std::env;

use crate::args::{Cli, Command};
use crate::exit::Failure;
use crate::home::Home;

/// Does what was asked.
pub(crate) fn run(cli: Cli) -> Result<(), Failure> {
    match cli.command {
        Command::Id => id::run(&home()?),
        Command::Peers(command) => peers::run(command, &home()?),
        Command::Completions { shell } => completions::run(shell),
        Command::Man { command } => man::run(&command),
    }
}

fn home() -> Result<Home, Failure> {
    Ok(Home::locate(env::var_os("SHIPLANE_HOME"))?)
}
