//! How a failure is told: to a person on standard error, to a script by the exit code and, with
//! `--json`, by a last event.

use std::io::{self, IsTerminal};
use std::process::ExitCode;

use clap::CommandFactory;
use clap::error::ErrorKind;
use shiplane::escape;

use crate::args::Cli;
use crate::events::Event;
use crate::exit::{Class, Verdict};
use crate::failure::Failure;
use crate::logging::print_line;

/// Tells what happened; `json` asks for an event too.
pub(crate) fn report(failure: &Failure, json: bool) -> ExitCode {
    let Verdict { class, side, hint } = failure.verdict();
    let (message, side) = (printable(&failure.to_string()), side.to_string());
    print_line(&format!("error: {message} ({side})"));
    print_line(&format!("hint: {hint}"));
    if json {
        let (hint, exit_code) = (hint.to_owned(), class as u8);
        let event = Event::Error { class: class.name(), side, message, hint, exit_code };
        // Whoever does not read it has the exit code still.
        let _ = event.write_line(&mut io::stdout());
    }
    ExitCode::from(class as u8)
}

/// Prints what the argument parser has to say: help and version to standard output, anything else
/// as a usage error.
pub(crate) fn usage(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        return match error.print() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => report(&Failure::Stdout(error), false),
        };
    }
    let message = error.render();
    let text = if io::stderr().is_terminal() { message.ansi().to_string() } else { message.to_string() };
    let kept: Vec<&str> = text.lines().take_while(|line| !line.starts_with("For more information")).collect();
    print_line(kept.join("\n").trim_end());
    // Where the help was all there was to say, it is no use to point to it.
    if error.kind() != ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        print_line(&format!("hint: {} tells what it takes", help_command()));
    }
    ExitCode::from(Class::Usage as u8)
}

/// The help that fits what was typed: that of the command, if one was named.
fn help_command() -> String {
    let program = Cli::command();
    let mut command = &program;
    let mut text = "shiplane".to_owned();
    for word in std::env::args_os().skip(1) {
        if let Some(named) = command.find_subcommand(word) {
            command = named;
            text = format!("{text} {}", named.get_name());
        }
    }
    text + " --help"
}

/// A message that cannot drive a terminal, whatever a library has put into it. Text that is clean
/// stays as it is: what was escaped already is not escaped again.
fn printable(message: &str) -> String {
    let escaped = escape(message.as_bytes());
    if escaped.replace("\\\\", "\\") == message { message.to_owned() } else { escaped }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_escaped_once() {
        assert_eq!(printable(r"no file a\x1bb"), r"no file a\x1bb");
        assert_eq!(printable("no file a\u{1b}b"), r"no file a\x1bb");
        assert_eq!(printable("C:\\é"), "C:\\é");
    }
}
