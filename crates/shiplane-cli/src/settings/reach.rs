//! The settings of `send` and `receive`.

use std::ffi::OsString;
use std::io::{self, BufRead, IsTerminal};
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::Duration;

use shiplane::escape;

use super::{JobSettings, Listen, OutputMode, SettingsError};
use crate::args::{ExistingArgs, ReceiveArgs, SendArgs};
use crate::logging::print_line;

/// The settings of `send`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SendSettings {
    pub(crate) paths: Vec<PathBuf>,
    pub(crate) text: Option<String>,
    /// `None`: any number, until Ctrl-C.
    pub(crate) receivers: Option<u32>,
    pub(crate) code_words: usize,
    pub(crate) listen: Listen,
    pub(crate) rate: Option<NonZeroU64>,
    /// In tests.
    pub(crate) code_ttl: Option<Duration>,
    pub(crate) qr: bool,
    pub(crate) json: bool,
}

/// The settings of `receive`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReceiveSettings {
    pub(crate) code: String,
    /// Words that were mistyped, and what must have been meant.
    pub(crate) corrected: Vec<(String, &'static str)>,
    pub(crate) dest: Option<PathBuf>,
    pub(crate) at: Option<String>,
    pub(crate) yes: bool,
    pub(crate) existing: ExistingArgs,
    pub(crate) common: JobSettings,
    pub(crate) output_mode: OutputMode,
}

impl SendSettings {
    /// Interprets the arguments.
    pub(crate) fn from_args(args: SendArgs) -> Self {
        Self {
            paths: args.paths,
            text: args.text,
            receivers: (!args.stay).then_some(args.receivers),
            code_words: args.code_words.into(),
            listen: Listen::from_arg(args.listen),
            rate: args.rate,
            code_ttl: args.code_ttl,
            qr: args.qr,
            json: args.json,
        }
    }
}

impl ReceiveSettings {
    /// Interprets the arguments. `code_variable` is the value of `SHIPLANE_CODE`; `stdin` is read only for `-`.
    pub(crate) fn from_args(
        args: ReceiveArgs,
        code_variable: Option<OsString>,
        stdin: impl BufRead + IsTerminal,
    ) -> Result<Self, SettingsError> {
        let has_terminal = stdin.is_terminal() && io::stderr().is_terminal();
        if !(args.yes || has_terminal) {
            return Err(SettingsError::NobodyToAsk);
        }
        let text = |text: &OsString| text.to_string_lossy().into_owned();
        let variable = code_variable.filter(|code| !code.is_empty()).as_ref().map(text);
        let (code, dest) = with_blanks(args.code, args.dest, &args.rest)?;
        let (typed, dest) = match (code, dest, variable) {
            (None, _, None) => return Err(SettingsError::NoCode),
            (None, dest, Some(variable)) => (variable, dest),
            // With a code in the variable a single word may be either.
            (Some(only), None, Some(variable))
                if only != "-" && shiplane::check_code(&text(&only)).is_err() =>
            {
                (variable, Some(only))
            }
            (Some(code), dest, _) => (text(&code), dest),
        };
        let typed = if typed == "-" { read_code(stdin)? } else { typed };
        let corrected = shiplane::check_code(&typed)?;
        if dest.as_ref().is_some_and(|dest| dest.is_empty()) {
            return Err(SettingsError::NoDest);
        }
        let ReceiveArgs { overwrite, keep_existing, .. } = args;
        let existing = ExistingArgs {
            overwrite,
            keep_existing,
            backup: None,
            delete: false,
            dry_run: false,
            yes: false,
        };
        Ok(Self {
            code: typed,
            corrected,
            dest: dest.map(PathBuf::from),
            at: args.at,
            yes: args.yes,
            existing,
            common: JobSettings {
                attributes: args.attributes,
                ..JobSettings::of_path(args.path, args.links, args.skip)
            },
            output_mode: args.print.into(),
        })
    }
}

/// The code and DEST of a command line on which the code was typed with blanks between its parts.
fn with_blanks(
    code: Option<OsString>,
    dest: Option<OsString>,
    rest: &[OsString],
) -> Result<(Option<OsString>, Option<OsString>), SettingsError> {
    let parts: Vec<&OsString> = code.iter().chain(&dest).chain(rest).collect();
    let is_number =
        code.as_ref().and_then(|code| code.to_str()).is_some_and(|code| code.parse::<u16>().is_ok());
    let joined = |parts: &[&OsString]| {
        let parts: Vec<_> = parts.iter().map(|part| part.to_string_lossy()).collect();
        OsString::from(parts.join(" "))
    };
    let is_code = |code: &OsString| shiplane::check_code(&code.to_string_lossy()).is_ok();
    match &parts[..] {
        [_, _, ..] if is_number && is_code(&joined(&parts)) => Ok((Some(joined(&parts)), None)),
        [most @ .., last] if is_number && is_code(&joined(most)) => {
            Ok((Some(joined(most)), Some((*last).clone())))
        }
        // It says what is wrong with it.
        _ if !rest.is_empty() && is_number => Ok((Some(joined(&parts)), None)),
        _ => match rest {
            [] => Ok((code, dest)),
            [other, ..] => Err(SettingsError::TooManyWords { extra: escape(other.as_encoded_bytes()) }),
        },
    }
}

/// The first line of standard input.
fn read_code(stdin: impl BufRead + IsTerminal) -> Result<String, SettingsError> {
    if stdin.is_terminal() {
        print_line("code:");
    }
    let mut code = String::new();
    stdin.take(MAX_CODE_LEN_BYTES).read_line(&mut code).map_err(SettingsError::CodeFromStdin)?;
    Ok(code)
}

/// 1 KiB: above the longest code.
const MAX_CODE_LEN_BYTES: u64 = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_may_be_typed_with_blanks_between_its_parts() {
        let read = |words: &[&str]| {
            let mut words = words.iter().map(OsString::from);
            let (code, dest) = (words.next(), words.next());
            let read = with_blanks(code, dest, &words.collect::<Vec<_>>()).ok()?;
            let text =
                |word: Option<OsString>| word.map(|word| word.into_string().unwrap()).unwrap_or_default();
            Some((text(read.0), text(read.1)))
        };
        let found = |code: &str, dest: &str| Some((code.to_owned(), dest.to_owned()));
        assert_eq!(read(&["7-crossover-clockwork", "out"]), found("7-crossover-clockwork", "out"));
        assert_eq!(read(&["7", "crossover", "clockwork"]), found("7 crossover clockwork", ""));
        assert_eq!(read(&["7", "crossover", "clockwork", "./out"]), found("7 crossover clockwork", "./out"));
        assert_eq!(read(&["7", "crossover-clockwork"]), found("7 crossover-clockwork", ""));
        assert_eq!(read(&["7", "crossover", "xyzzy", "out"]), found("7 crossover xyzzy out", ""));
        assert_eq!(read(&["7", "out"]), found("7", "out"));
        assert_eq!(read(&["7-crossover-clockwork", "out", "more"]), None);
        assert_eq!(read(&[]), found("", ""));
    }
}
