//! The `shiplane` program: a thin layer of arguments, messages and exit codes over the libraries.
//!
//! `args` is what was typed and `settings` what it means; `commands` do it; `failure` says what can
//! end them, and `exit` what that means to a script and to a person.

#![forbid(unsafe_code)]

mod advertise;
mod args;
mod commands;
mod dial;
mod events;
mod exit;
mod failure;
mod home;
mod job;
mod logging;
mod progress;
mod remote;
mod report;
mod runtime;
mod settings;
mod signals;
mod source_arg;
mod units;
mod watched;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let cli = match args::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return report::usage(&error),
    };
    logging::init(cli.verbose);
    let json = cli.command.is_json();
    match commands::run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => report::report(&failure, json),
    }
}
