//! The settings of `sync`.

use std::ffi::OsString;
use std::io::Read;
use std::path::PathBuf;

use shiplane::Target;

use super::{
    ClientSettings, FilterSettings, JobSettings, OutputMode, SettingsError, check_local, one_server,
};
use crate::args::{OneWay, SyncArgs};

/// The settings of `sync`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SyncSettings {
    pub(crate) directory: PathBuf,
    pub(crate) target: Target,
    pub(crate) dry_run: bool,
    pub(crate) watch: bool,
    pub(crate) one_way: Option<OneWay>,
    pub(crate) allow_mass_deletion: bool,
    pub(crate) client: ClientSettings,
    pub(crate) common: JobSettings,
    pub(crate) output_mode: OutputMode,
}

impl SyncSettings {
    /// Interprets the arguments. `ticket_variable` is the value of `SHIPLANE_TICKET`; `stdin` is read
    /// only for `--ticket-file -`.
    pub(crate) fn from_args(
        args: SyncArgs,
        ticket_variable: Option<OsString>,
        mut stdin: impl Read,
    ) -> Result<Self, SettingsError> {
        let has_ticket_on_stdin = args.job.has_ticket_on_stdin();
        let filters =
            FilterSettings::from_args(&args.job.filters, (!has_ticket_on_stdin).then_some(&mut stdin))?;
        let server = one_server(args.job.moving.ticket_file.as_deref(), args.target, ticket_variable, stdin);
        let target = server?.ok_or(SettingsError::NoTarget)?;
        check_local(args.directory.as_os_str())?;
        let give_up_after = args.job.path.patience(args.watch);
        Ok(Self {
            directory: args.directory,
            target,
            dry_run: args.dry_run,
            watch: args.watch,
            one_way: args.one_way,
            allow_mass_deletion: args.allow_mass_deletion,
            client: ClientSettings::of(&args.job),
            common: JobSettings { give_up_after, ..JobSettings::of(args.job, filters) },
            output_mode: args.print.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;
    use std::time::Duration;

    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Command, Compress};

    fn settle(args: &[&str], variable: Option<&str>) -> Result<SyncSettings, SettingsError> {
        let cli = Cli::try_parse_from([&["shiplane", "sync"], args].concat()).unwrap();
        let Command::Sync(args) = cli.command else { panic!("{args:?}") };
        SyncSettings::from_args(args, variable.map(Into::into), &b"in@h:1/d\n"[..])
    }

    #[test]
    fn a_sync_moves_things_as_get_and_push_do() {
        let sync = settle(&["d", "a@h:1"], None).unwrap();
        assert_eq!((sync.common.jobs, sync.client.buffer_len_bytes), (Some(32), 256 << 10));
        assert_eq!((sync.common.rate, sync.common.compress), (None, Compress::Never));
        let sync = settle(&["d", "a@h:1", "--rate", "80Mbit", "--compress"], None).unwrap();
        assert_eq!((sync.common.rate, sync.common.compress), (NonZeroU64::new(10_000_000), Compress::Auto));
    }

    #[test]
    fn a_watching_sync_waits_for_its_server_without_end_unless_told_otherwise() {
        let patience = |args: &[&str]| settle(args, None).unwrap().common.give_up_after;
        assert_eq!(patience(&["d", "a@h:1"]), Duration::from_secs(120));
        assert_eq!(patience(&["d", "a@h:1", "--watch"]), Duration::MAX);
        assert_eq!(patience(&["d", "a@h:1", "--watch", "--give-up-after=1m"]), Duration::from_secs(60));
    }

    #[test]
    fn the_target_is_found_wherever_the_ticket_comes_from() {
        const ENV: &str = "env@h:1/d";
        for (args, variable, name) in [
            (&["dir", "a@h:1/d"][..], Some(ENV), "a"),
            (&["dir"], Some(ENV), "env"),
            (&["dir", "--ticket-file", "-"], Some(ENV), "in"),
        ] {
            let settings = settle(args, variable).unwrap();
            let target = format!("{name}@h:1/d").parse().unwrap();
            assert_eq!((settings.target, settings.directory), (target, PathBuf::from("dir")), "{args:?}");
        }
        assert!(matches!(settle(&["dir"], None), Err(SettingsError::NoTarget)));
        assert!(matches!(settle(&["dir"], Some("")), Err(SettingsError::NoTarget)));
        let both = settle(&["dir", "a@h:1", "--ticket-file", "-"], None);
        assert!(matches!(both, Err(SettingsError::TicketFileAndServer)));
    }
}
