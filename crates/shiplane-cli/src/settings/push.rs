//! `push`, settled.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};

use shiplane_wire::escape;

use super::{SettingsError, audience, read_ticket};
use crate::args::{Compress, Digest, Durability, PushArgs};
use crate::progress::Audience;
use crate::source_arg::SourceArg;

/// `push`, settled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PushSettings {
    pub(crate) pushed: Vec<Pushed>,
    pub(crate) target: SourceArg,
    pub(crate) overwrite: bool,
    pub(crate) durability: Durability,
    pub(crate) jobs: u16,
    pub(crate) buffer_len_bytes: usize,
    pub(crate) chunk_len_bytes: u64,
    pub(crate) rate: Option<NonZeroU64>,
    pub(crate) compress: Compress,
    pub(crate) digest: Digest,
    pub(crate) audience: Audience,
}

/// One thing to push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Pushed {
    /// Standard input, to the file that the target names.
    Stdin,
    /// A file or a directory, into the directory that the target names.
    Path(PathBuf),
}

impl PushSettings {
    /// Settles what was typed. `ticket_variable` is the value of `SHIPLANE_TICKET`; `stdin` is read
    /// only for `--ticket-file -`.
    pub(crate) fn from_args(
        args: PushArgs,
        ticket_variable: Option<OsString>,
        stdin: impl Read,
    ) -> Result<Self, SettingsError> {
        let mut paths = args.paths;
        let ticket_variable = ticket_variable.filter(|ticket| !ticket.is_empty());
        let last_is_target = paths.last().is_some_and(|last| SourceArg::is_meant(last));
        let target = match (&args.moving.ticket_file, ticket_variable) {
            (Some(_), _) if last_is_target => return Err(SettingsError::TwoTargets),
            (Some(file), _) => {
                if file == Path::new("-") && paths.iter().any(|path| path == "-") {
                    return Err(SettingsError::StdinNotAlone);
                }
                read_ticket(file, stdin)?
            }
            (None, Some(ticket)) if !last_is_target => ticket,
            // What was meant for a target and is none is told as such.
            (None, _) if last_is_target => paths.pop().unwrap_or_default(),
            (None, _) => return Err(SettingsError::NoTarget),
        };
        if paths.is_empty() {
            return Err(SettingsError::NoPath);
        }
        let target = SourceArg::parse(&target)?;
        let pushed = settle_paths(&paths, &target)?;
        Ok(Self {
            pushed,
            target,
            overwrite: args.overwrite,
            durability: args.durability,
            jobs: args.moving.jobs,
            buffer_len_bytes: args.moving.buffer,
            chunk_len_bytes: args.moving.chunk,
            rate: args.path.rate,
            compress: args.path.compress,
            digest: args.path.digest,
            audience: audience(args.json, args.quiet),
        })
    }
}

impl Pushed {
    /// The name that it goes by; `None` for the content of a directory.
    pub(crate) fn name(&self) -> Option<&OsStr> {
        match self {
            Self::Stdin => None,
            Self::Path(path) => name_of(path),
        }
    }
}

fn settle_paths(paths: &[OsString], target: &SourceArg) -> Result<Vec<Pushed>, SettingsError> {
    if paths.iter().any(|path| path == "-") {
        return match paths {
            [_] if target.path().is_empty() => Err(SettingsError::StdinUnnamed),
            [_] => Ok(vec![Pushed::Stdin]),
            _ => Err(SettingsError::StdinNotAlone),
        };
    }
    let mut names = HashSet::new();
    for path in paths {
        let name = name_of(Path::new(path));
        if !names.insert(name) {
            let shown = name.unwrap_or_else(|| OsStr::new("."));
            return Err(SettingsError::SameName { name: escape(shown.as_encoded_bytes()).to_string() });
        }
    }
    Ok(paths.iter().map(|path| Pushed::Path(path.into())).collect())
}

/// As for `cp -r`: `dir/` is `dir`, and `dir/.` is what is in it.
fn name_of(path: &Path) -> Option<&OsStr> {
    let is_content = path.as_os_str().as_encoded_bytes().ends_with(b"/.");
    path.file_name().filter(|_| !is_content)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Command};
    use crate::source_arg::{Server, SourceError};

    fn settle(args: &[&str], variable: Option<&str>, stdin: &str) -> Result<PushSettings, SettingsError> {
        let cli = Cli::try_parse_from([&["shiplane", "push"], args].concat()).unwrap();
        let Command::Push(args) = cli.command else { panic!("{args:?}") };
        PushSettings::from_args(args, variable.map(Into::into), stdin.as_bytes())
    }

    /// What is pushed, and the target's name.
    fn picked(args: &[&str], variable: Option<&str>) -> (Vec<Pushed>, String) {
        let settings = settle(args, variable, "in@h:1/d\n").unwrap();
        let SourceArg::Standing { server: Server::Name(name), .. } = settings.target else {
            panic!("{args:?}")
        };
        (settings.pushed, name.to_string())
    }

    fn path(path: &str) -> Pushed {
        Pushed::Path(path.into())
    }

    #[test]
    fn paths_and_target_are_found_wherever_the_ticket_comes_from() {
        const ENV: &str = "env@h:1/d";
        for (args, variable, pushed, target) in [
            (&["x", "a@h:1"][..], None, vec![path("x")], "a"),
            (&["x", "y", "a@h:1"], Some(ENV), vec![path("x"), path("y")], "a"),
            (&["x", "y"], Some(ENV), vec![path("x"), path("y")], "env"),
            (&["./b@c"], Some(ENV), vec![path("./b@c")], "env"),
            (&["-"], Some(ENV), vec![Pushed::Stdin], "env"),
            (&["-", "a@h:1/f"], None, vec![Pushed::Stdin], "a"),
            (&["x", "--ticket-file", "-"], Some(ENV), vec![path("x")], "in"),
        ] {
            assert_eq!(picked(args, variable), (pushed, target.to_owned()), "{args:?}");
        }
    }

    #[test]
    fn contradictions_are_refused() {
        use SettingsError::{NoPath, NoTarget, SameName, Source, StdinNotAlone, StdinUnnamed, TwoTargets};
        let refused = |args: &[&str]| settle(args, None, "in@h:1/d").unwrap_err();
        assert!(matches!(refused(&["a@h:1"]), NoPath));
        assert!(matches!(refused(&["x", "y"]), NoTarget));
        assert!(matches!(refused(&["x", "a@h:1", "--ticket-file", "-"]), TwoTargets));
        assert!(matches!(refused(&["-", "a@h:1"]), StdinUnnamed));
        assert!(matches!(refused(&["-", "x", "a@h:1/f"]), StdinNotAlone));
        assert!(matches!(refused(&["-", "--ticket-file", "-"]), StdinNotAlone));
        assert!(matches!(refused(&["x", "a@h"]), Source(SourceError::Address(_))));
        for same in [["x", "d/x", "a@h:1"], ["x/", "x", "a@h:1"], [".", "y/.", "a@h:1"]] {
            assert!(matches!(refused(&same), SameName { .. }), "{same:?}");
        }
    }

    #[test]
    fn names_are_those_of_cp() {
        for (typed, name) in [
            ("x", Some("x")),
            ("d/x/", Some("x")),
            (".", None),
            ("..", None),
            ("d/.", None),
            ("/", None),
            ("d/..", None),
            (".hidden", Some(".hidden")),
        ] {
            assert_eq!(path(typed).name(), name.map(OsStr::new), "{typed}");
        }
    }
}
