//! The settings of `ls`, `ping` and `doctor`.

use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};

use shiplane::Target;

use super::{FilterSettings, OutputMode, SettingsError, one_server, output_mode};
use crate::args::{DoctorArgs, LsArgs, PingArgs, Skip, SourceArgs, SshArgs};

/// The settings of `ls`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LsSettings {
    pub(crate) source: Target,
    pub(crate) ssh: SshArgs,
    pub(crate) long: bool,
    pub(crate) recursive: bool,
    pub(crate) skip: Vec<Skip>,
    pub(crate) filters: FilterSettings,
    pub(crate) output_mode: OutputMode,
}

/// The settings of `ping`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PingSettings {
    pub(crate) source: Target,
    pub(crate) ssh: SshArgs,
    pub(crate) count: u16,
    pub(crate) output_mode: OutputMode,
}

/// The settings of `doctor`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DoctorSettings {
    pub(crate) source: Option<Target>,
    pub(crate) ssh: SshArgs,
    pub(crate) directory: PathBuf,
    pub(crate) output_mode: OutputMode,
}

impl LsSettings {
    /// Interprets the arguments. `ticket_variable` is the value of `SHIPLANE_TICKET`; `stdin` is read
    /// only for `--ticket-file -` and `--files-from -`.
    pub(crate) fn from_args(
        args: LsArgs,
        ticket_variable: Option<OsString>,
        mut stdin: impl Read,
    ) -> Result<Self, SettingsError> {
        let has_ticket_on_stdin = args.source.ticket_file.as_deref() == Some(Path::new("-"));
        let filters = FilterSettings::from_args(&args.filters, (!has_ticket_on_stdin).then_some(&mut stdin))?;
        let SourceArgs { source, ticket_file, ssh } = args.source;
        let source = one_server(ticket_file.as_deref(), source, ticket_variable, stdin)?;
        Ok(Self {
            source: source.ok_or(SettingsError::NoSource)?.with_rights(true, false),
            ssh,
            long: args.long,
            recursive: args.recursive,
            skip: args.skip,
            filters,
            output_mode: output_mode(args.json, false),
        })
    }
}

impl PingSettings {
    /// Interprets the arguments, as those of `ls`.
    pub(crate) fn from_args(
        args: PingArgs,
        ticket_variable: Option<OsString>,
        stdin: impl Read,
    ) -> Result<Self, SettingsError> {
        let SourceArgs { source, ticket_file, ssh } = args.source;
        let source = one_server(ticket_file.as_deref(), source, ticket_variable, stdin)?;
        let source = source.ok_or(SettingsError::NoSource)?.with_rights(true, false);
        Ok(Self { source, ssh, count: args.count, output_mode: output_mode(args.json, false) })
    }
}

impl DoctorSettings {
    /// Interprets the arguments, as those of `ls`; it needs no source.
    pub(crate) fn from_args(
        args: DoctorArgs,
        ticket_variable: Option<OsString>,
        stdin: impl Read,
    ) -> Result<Self, SettingsError> {
        let SourceArgs { source, ticket_file, ssh } = args.source;
        let source = one_server(ticket_file.as_deref(), source, ticket_variable, stdin)?;
        Ok(Self { source, ssh, directory: args.dir, output_mode: output_mode(args.json, false) })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Command};

    fn settle(args: &[&str], variable: Option<&str>) -> Result<PingSettings, SettingsError> {
        let cli = Cli::try_parse_from([&["shiplane", "ping"], args].concat()).unwrap();
        let Command::Ping(args) = cli.command else { panic!("{args:?}") };
        PingSettings::from_args(args, variable.map(Into::into), &b"in@h:1/d\n"[..])
    }

    #[test]
    fn the_source_is_found_wherever_the_ticket_comes_from() {
        for (args, variable, name) in [
            (&["a@h:1/d"][..], Some("env@h:1/d"), "a"),
            (&[], Some("env@h:1/d"), "env"),
            (&["--ticket-file", "-"], None, "in"),
        ] {
            let source = format!("{name}@h:1/d").parse::<Target>().unwrap().with_rights(true, false);
            assert_eq!(settle(args, variable).unwrap().source, source);
        }
        assert!(matches!(settle(&[], Some("")), Err(SettingsError::NoSource)));
        assert!(matches!(
            settle(&["a@h:1", "--ticket-file", "-"], None),
            Err(SettingsError::TicketFileAndServer)
        ));
    }
}
