//! The `shiplane` program: a thin layer of arguments, messages and exit codes over the libraries.
//!
//! `args` is what was typed, `commands` what it does, `exit` what a failure means to a script and
//! to a person.

mod args;
mod commands;
mod exit;
mod home;
mod logging;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let cli = match args::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return exit::usage(&error),
    };
    logging::init(cli.verbose);
    match commands::run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => exit::report(&failure),
    }
}
