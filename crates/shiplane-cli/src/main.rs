//! The `shiplane` program: arguments, messages and exit codes around the library `shiplane`.
//!
//! `args` is what was typed and `settings` what it means; `commands` have the library do it; `failure` says what can end
//! them, and `exit` what that means to a script and to a person.

mod args;
mod board;
mod checksums;
mod commands;
mod completion;
mod doctor;
mod events;
mod exit;
mod failure;
mod job;
mod logging;
mod memory;
mod progress;
mod qr;
mod report;
mod runtime;
mod service;
mod settings;
mod signals;
mod units;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

fn main() -> ExitCode {
    completion::answer(args::Cli::command);
    let cli = match args::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return report::usage(&error),
    };
    logging::init(cli.verbose, cli.command.is_for_ssh(), cli.log_format);
    let json = cli.command.is_json();
    match commands::run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => report::report(&failure, json),
    }
}
