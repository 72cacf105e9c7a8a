//! The settings of `push`.

use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};

use shiplane::Target;

use super::{
    ClientSettings, FilterSettings, JobSettings, OutputMode, SettingsError, check_local, read_ticket,
};
use crate::args::{Durability, ExistingArgs, PushArgs};

/// The settings of `push`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PushSettings {
    pub(crate) pushed: Pushed,
    pub(crate) target: Target,
    pub(crate) existing: ExistingArgs,
    pub(crate) durability: Durability,
    pub(crate) client: ClientSettings,
    pub(crate) common: JobSettings,
    pub(crate) output_mode: OutputMode,
}

/// What to push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Pushed {
    /// Standard input, to the target's file.
    Stdin,
    /// Files and directories, into the target's directory.
    Paths(Vec<PathBuf>),
}

impl PushSettings {
    /// Interprets the arguments. `ticket_variable` is the value of `SHIPLANE_TICKET`; `stdin` is read
    /// only for `--ticket-file -`.
    pub(crate) fn from_args(
        args: PushArgs,
        ticket_variable: Option<OsString>,
        mut stdin: impl Read,
    ) -> Result<Self, SettingsError> {
        let mut paths = args.paths;
        let needs_stdin = args.job.has_ticket_on_stdin() || paths.iter().any(|path| path == "-");
        let filters = FilterSettings::from_args(&args.job.filters, (!needs_stdin).then_some(&mut stdin))?;
        let ticket_variable = ticket_variable.filter(|ticket| !ticket.is_empty());
        let last_is_target = paths.last().is_some_and(|last| Target::is_meant(last));
        let target = match (&args.job.moving.ticket_file, ticket_variable) {
            (Some(_), _) if last_is_target => return Err(SettingsError::TwoTargets),
            (Some(file), _) => {
                if file == Path::new("-") && paths.iter().any(|path| path == "-") {
                    return Err(SettingsError::StdinNotAlone);
                }
                read_ticket(file, stdin)?
            }
            (None, Some(ticket)) if !last_is_target => ticket,
            // A malformed target is reported as a target.
            (None, _) if last_is_target || paths.len() > 1 => paths.pop().unwrap_or_default(),
            (None, _) => return Err(SettingsError::NoTarget),
        };
        if paths.is_empty() {
            return Err(SettingsError::NoPath);
        }
        // A dry run reads what is there.
        let target = Target::from_os_str(&target)?.with_rights(args.existing.dry_run, true);
        let pushed = settle_paths(&paths, &target)?;
        Ok(Self {
            pushed,
            target,
            existing: args.existing,
            durability: args.durability,
            client: ClientSettings::of(&args.job),
            common: JobSettings::of(args.job, filters),
            output_mode: args.print.into(),
        })
    }
}

fn settle_paths(paths: &[OsString], target: &Target) -> Result<Pushed, SettingsError> {
    if paths.iter().any(|path| path == "-") {
        return match paths {
            [_] if target.path().is_empty() => Err(SettingsError::StdinUnnamed),
            [_] => Ok(Pushed::Stdin),
            _ => Err(SettingsError::StdinNotAlone),
        };
    }
    paths.iter().try_for_each(|path| check_local(path))?;
    Ok(Pushed::Paths(paths.iter().map(PathBuf::from).collect()))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Command};

    fn settle(args: &[&str], variable: Option<&str>, stdin: &str) -> Result<PushSettings, SettingsError> {
        let cli = Cli::try_parse_from([&["shiplane", "push"], args].concat()).unwrap();
        let Command::Push(args) = cli.command else { panic!("{args:?}") };
        PushSettings::from_args(args, variable.map(Into::into), stdin.as_bytes())
    }

    fn paths(paths: &[&str]) -> Pushed {
        Pushed::Paths(paths.iter().map(PathBuf::from).collect())
    }

    #[test]
    fn paths_and_target_are_found_wherever_the_ticket_comes_from() {
        const ENV: &str = "env@h:1/d";
        for (args, variable, pushed, target) in [
            (&["x", "a@h:1"][..], None, paths(&["x"]), "a@h:1"),
            (&["x", "y", "a@h:1"], Some(ENV), paths(&["x", "y"]), "a@h:1"),
            (&["x", "y"], Some(ENV), paths(&["x", "y"]), ENV),
            (&["./b@c"], Some(ENV), paths(&["./b@c"]), ENV),
            (&["-"], Some(ENV), Pushed::Stdin, ENV),
            (&["-", "a@h:1/f"], None, Pushed::Stdin, "a@h:1/f"),
            (&["x", "--ticket-file", "-"], Some(ENV), paths(&["x"]), "in@h:1/d"),
        ] {
            let settings = settle(args, variable, "in@h:1/d\n").unwrap();
            let target = target.parse::<Target>().unwrap().with_rights(false, true);
            assert_eq!((settings.pushed, settings.target), (pushed, target), "{args:?}");
        }
    }

    #[test]
    fn contradictions_are_refused() {
        use SettingsError::{NoPath, NoTarget, RemotePath, StdinNotAlone, StdinUnnamed, Target, TwoTargets};
        let refused = |args: &[&str]| settle(args, None, "in@h:1/d").unwrap_err();
        assert!(matches!(refused(&["a@h:1"]), NoPath));
        assert!(matches!(refused(&["x"]), NoTarget));
        assert!(matches!(refused(&["x", "./y"]), Target(_)));
        assert!(matches!(refused(&["x", "a@h:1", "--ticket-file", "-"]), TwoTargets));
        assert!(matches!(refused(&["-", "a@h:1"]), StdinUnnamed));
        assert!(matches!(refused(&["-", "x", "a@h:1/f"]), StdinNotAlone));
        assert!(matches!(refused(&["-", "--ticket-file", "-"]), StdinNotAlone));
        assert!(matches!(refused(&["x", "a b:"]), Target(_)));
        assert!(matches!(refused(&["h:x", "a@h:1"]), RemotePath { .. }));
    }
}
