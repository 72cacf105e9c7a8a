//! Reports a failure: as text on standard error, as the exit code and, with `--json`, as a last event.

use std::io;
use std::process::ExitCode;

use clap::CommandFactory;
use clap::error::ErrorKind;
use shiplane::{Side, escape};

use crate::args::Cli;
use crate::events::Event;
use crate::exit::{Class, Diagnosis};
use crate::failure::Failure;
use crate::logging::{has_colors, print_line};

/// Reports the failure; with `json` also as an event. If the program that read standard output has ended, the exit code
/// alone reports it, as with `cat` and `head`.
pub(crate) fn report(failure: &Failure, json: bool) -> ExitCode {
    if failure.is_closed_output() {
        return ExitCode::from(OUTPUT_CLOSED);
    }
    let Diagnosis { class, side, hint } = failure.diagnosis();
    let message = printable(&failure.to_string());
    // That it is this machine goes without saying.
    match side {
        Side::ThisMachine => print_line(&format!("error: {message}")),
        side => print_line(&format!("error: {message} ({side})")),
    }
    let side = side.to_string();
    print_line(&format!("hint: {hint}"));
    if json {
        let (hint, exit_code) = (hint.to_owned(), class as u8);
        let event = Event::Error { class: class.name(), side, message, hint, exit_code };
        // If the output is closed, the exit code remains.
        let _ = event.write_line(&mut io::stdout());
    }
    ExitCode::from(class as u8)
}

/// Prints the argument parser's message: help and version to standard output, anything else as a usage error.
pub(crate) fn usage(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        return match error.print() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => report(&Failure::Stdout(error), false),
        };
    }
    let message = error.render();
    let text = if has_colors() { message.ansi().to_string() } else { message.to_string() };
    let kept: Vec<&str> = text.lines().take_while(|line| !line.starts_with("For more information")).collect();
    print_line(kept.join("\n").trim_end());
    // The message is the help itself.
    if error.kind() != ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        print_line(&format!("hint: run {} for usage", help_command()));
    }
    ExitCode::from(Class::Usage as u8)
}

/// The help command for the typed subcommand.
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

/// Escapes control characters, unless the message is escaped already.
fn printable(message: &str) -> String {
    let escaped = escape(message.as_bytes());
    if escaped.replace("\\\\", "\\") == message { message.to_owned() } else { escaped }
}

/// 141: what a shell reports for a program that SIGPIPE has ended.
const OUTPUT_CLOSED: u8 = 141;

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
