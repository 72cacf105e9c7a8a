//! Turns arguments into settings: fills in defaults, parses sources, refuses contradictions.

mod apply;
mod error;
mod filters;
mod inspect;
mod listen;
#[cfg(feature = "octopii")]
pub(crate) mod octopii;
mod push;
mod reach;
mod sync;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::time::Duration;

use shiplane::{Client, ClientBuilder, Target, escape};

#[cfg(feature = "status")]
use crate::args::MetricsArgs;
use crate::args::{
    Compress, Digest, Durability, ExistingArgs, GetArgs, JobArgs, Links, PathArgs, PrintArgs, ServeArgs,
    Skip, SshArgs, TicketUses,
};

pub(crate) use self::apply::{with_common, with_existing, with_filters};
#[cfg(feature = "octopii")]
pub(crate) use self::error::OctopiiError;
pub(crate) use self::error::SettingsError;
pub(crate) use self::filters::FilterSettings;
pub(crate) use self::inspect::{DoctorSettings, LsSettings, PingSettings};
pub(crate) use self::listen::{DEFAULT_LISTEN, Listen};
pub(crate) use self::push::{PushSettings, Pushed};
pub(crate) use self::reach::{ReceiveSettings, SendSettings};
pub(crate) use self::sync::SyncSettings;

/// The settings of `serve`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServeSettings {
    pub(crate) root: PathBuf,
    pub(crate) listen: Listen,
    pub(crate) advertise: Vec<String>,
    pub(crate) ticket_ttl: Duration,
    pub(crate) ticket_uses: TicketUses,
    pub(crate) ticket_file: Option<PathBuf>,
    pub(crate) writable: bool,
    pub(crate) all_links: bool,
    pub(crate) attributes: bool,
    /// The longest: never.
    pub(crate) clean_after: Duration,
    pub(crate) rate: Option<NonZeroU64>,
    pub(crate) qr: bool,
    pub(crate) announce: bool,
    /// The longest: never.
    pub(crate) drain: Duration,
    #[cfg(feature = "status")]
    pub(crate) metrics: MetricsArgs,
    pub(crate) output_mode: OutputMode,
}

/// The settings of `get`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GetSettings {
    /// At least one.
    pub(crate) sources: Vec<Target>,
    pub(crate) dest: Dest,
    pub(crate) existing: ExistingArgs,
    pub(crate) verify: bool,
    pub(crate) sha256: bool,
    pub(crate) durability: Durability,
    pub(crate) client: ClientSettings,
    pub(crate) common: JobSettings,
    pub(crate) output_mode: OutputMode,
}

/// How `get`, `push` and `sync` reach a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClientSettings {
    ssh: SshArgs,
    buffer_len_bytes: usize,
}

impl ClientSettings {
    fn of(job: &JobArgs) -> Self {
        Self { ssh: job.ssh.clone(), buffer_len_bytes: job.moving.buffer }
    }

    /// A client that has them.
    pub(crate) fn builder(&self) -> ClientBuilder {
        let builder = Client::builder().foreground(true).buffer_len_bytes(self.buffer_len_bytes);
        self.ssh.clone().apply(builder)
    }
}

/// What `get`, `push`, `sync` and `receive` have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JobSettings {
    /// `None`: as many as the library takes by itself.
    pub(crate) jobs: Option<u16>,
    /// `None`: as large as the library makes them by itself.
    pub(crate) chunk_len_bytes: Option<u64>,
    pub(crate) rate: Option<NonZeroU64>,
    pub(crate) compress: Compress,
    pub(crate) digest: Digest,
    pub(crate) skip: Vec<Skip>,
    pub(crate) give_up_after: Duration,
    /// Whether the run is compared with what was measured before it.
    pub(crate) explain: bool,
    pub(crate) filters: FilterSettings,
    pub(crate) inside_links_only: bool,
    pub(crate) attributes: bool,
}

/// The destination of `get`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Dest {
    Stdout,
    Path(PathBuf),
}

impl Dest {
    /// As typed, escaped.
    pub(crate) fn shown(&self) -> String {
        match self {
            Self::Stdout => "-".to_owned(),
            Self::Path(path) => escape(path.as_os_str().as_encoded_bytes()),
        }
    }
}

/// How output is presented.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OutputMode {
    /// Text: a bar if standard error is a terminal, and a line for each path that is left out.
    Human,
    /// Every event as a line of JSON on standard output.
    Json,
    /// Errors only: failures and what is left out.
    Quiet,
}

impl ServeSettings {
    /// Interprets the arguments.
    pub(crate) fn from_args(args: ServeArgs) -> Result<Self, SettingsError> {
        check_ttl(args.ticket_ttl)?;
        Ok(Self {
            root: args.root.unwrap_or_default(),
            listen: Listen::from_arg(args.listen),
            advertise: args.advertise,
            ticket_ttl: args.ticket_ttl,
            ticket_uses: args.ticket_uses,
            ticket_file: args.ticket_file,
            writable: args.writable,
            all_links: args.all_links,
            attributes: args.attributes,
            clean_after: args.clean_after,
            rate: args.rate,
            qr: args.qr,
            announce: args.announce,
            drain: args.drain,
            #[cfg(feature = "status")]
            metrics: args.metrics,
            output_mode: output_mode(args.json, args.quiet),
        })
    }
}

/// Whether a ticket may live that long.
pub(crate) fn check_ttl(ttl: Duration) -> Result<(), SettingsError> {
    if (MIN_TICKET_TTL..=MAX_TICKET_TTL).contains(&ttl) {
        return Ok(());
    }
    Err(SettingsError::TicketTtl { max_days: MAX_TICKET_TTL.as_secs() / 86_400 })
}

impl GetSettings {
    /// Interprets the arguments. `ticket_variable` is the value of `SHIPLANE_TICKET`; `stdin` is read
    /// only for `--ticket-file -`.
    pub(crate) fn from_args(
        args: GetArgs,
        ticket_variable: Option<OsString>,
        mut stdin: impl Read,
    ) -> Result<Self, SettingsError> {
        let mut paths = args.paths;
        let has_ticket_on_stdin = args.job.has_ticket_on_stdin();
        let filters =
            FilterSettings::from_args(&args.job.filters, (!has_ticket_on_stdin).then_some(&mut stdin))?;
        let ticket = match &args.job.moving.ticket_file {
            Some(_) if paths.len() > 1 || paths.iter().any(|path| Target::is_meant(path)) => {
                return Err(SettingsError::TwoSources);
            }
            Some(file) => Some(read_ticket(file, stdin)?),
            None => ticket_variable.filter(|ticket| !ticket.is_empty()),
        };
        // With a ticket a single word may be either; one that looks like a source is one, so that the variable never
        // overrides what was typed.
        let has_dest =
            paths.last().is_some_and(|last| !Target::is_meant(last)) && (paths.len() > 1 || ticket.is_some());
        let dest = if has_dest { paths.pop() } else { None };
        let typed = if paths.is_empty() { ticket.into_iter().collect() } else { paths };
        let sources: Vec<_> = (typed.iter())
            .map(|typed| Target::from_os_str(typed).map(|source| source.with_rights(true, false)))
            .collect::<Result<_, _>>()?;
        // With scp the last one is the destination, and here it could be a source too.
        if sources.len() > 1 && sources.last().is_some_and(|last| !last.is_direct()) && dest.is_none() {
            return Err(SettingsError::RemoteDest {
                dest: escape(typed.last().map_or(b"", |last| last.as_encoded_bytes())),
            });
        }
        let dest = match dest {
            _ if sources.is_empty() => return Err(SettingsError::NoSource),
            None => Dest::Path(PathBuf::from("./")),
            Some(dest) if dest.is_empty() => return Err(SettingsError::NoDest),
            Some(dest) if dest == "-" && sources.len() > 1 => return Err(SettingsError::StdoutNotAlone),
            Some(dest) if dest == "-" => Dest::Stdout,
            // Several land in it by their names.
            Some(dest) if sources.len() > 1 => Dest::Path(Path::new(&dest).join("")),
            Some(dest) => Dest::Path(dest.into()),
        };
        if args.print.json && dest == Dest::Stdout {
            return Err(SettingsError::JsonAndContent);
        }
        Ok(Self {
            sources,
            dest,
            existing: args.existing,
            verify: args.verify,
            sha256: args.sha256,
            durability: args.durability,
            client: ClientSettings::of(&args.job),
            common: JobSettings::of(args.job, filters),
            output_mode: args.print.into(),
        })
    }
}

impl JobSettings {
    /// `filters` are read already.
    fn of(JobArgs { moving, path, .. }: JobArgs, filters: FilterSettings) -> Self {
        Self {
            jobs: Some(moving.jobs),
            chunk_len_bytes: Some(moving.chunk),
            explain: moving.explain,
            filters,
            attributes: moving.attributes,
            ..Self::of_path(path, moving.links, moving.skip)
        }
    }

    /// With chunks as the library chooses them, and without filters.
    fn of_path(path: PathArgs, links: Links, skip: Vec<Skip>) -> Self {
        Self {
            jobs: None,
            chunk_len_bytes: None,
            explain: false,
            rate: path.rate,
            compress: path.compress,
            digest: path.digest,
            skip: links.skipped(skip),
            give_up_after: path.patience(false),
            filters: FilterSettings::default(),
            inside_links_only: links == Links::Inside,
            attributes: false,
        }
    }
}

/// Refuses a path that names another machine, unless there is a local file of that name.
fn check_local(path: &OsStr) -> Result<(), SettingsError> {
    let is_remote = Target::is_meant(path)
        && Target::from_os_str(path).is_ok_and(|target| target.is_over_ssh())
        && Path::new(path).symlink_metadata().is_err();
    match is_remote {
        true => Err(SettingsError::RemotePath { path: escape(path.as_encoded_bytes()) }),
        false => Ok(()),
    }
}

impl From<PrintArgs> for OutputMode {
    fn from(PrintArgs { json, quiet }: PrintArgs) -> Self {
        output_mode(json, quiet)
    }
}

fn output_mode(json: bool, quiet: bool) -> OutputMode {
    match (json, quiet) {
        (true, _) => OutputMode::Json,
        (false, true) => OutputMode::Quiet,
        (false, false) => OutputMode::Human,
    }
}

/// The only server of a command: typed, or its ticket from a file or from `SHIPLANE_TICKET`. `None`: neither.
fn one_server(
    ticket_file: Option<&Path>,
    typed: Option<OsString>,
    ticket_variable: Option<OsString>,
    stdin: impl Read,
) -> Result<Option<Target>, SettingsError> {
    let ticket_variable = ticket_variable.filter(|ticket| !ticket.is_empty());
    let typed = match ticket_file {
        Some(_) if typed.is_some() => return Err(SettingsError::TicketFileAndServer),
        Some(file) => Some(read_ticket(file, stdin)?),
        None => typed.or(ticket_variable),
    };
    typed.map(|typed| Target::from_os_str(&typed)).transpose().map_err(Into::into)
}

/// The first line of the file: what `serve --ticket-file` and `serve | tee` leave there.
fn read_ticket(file: &Path, stdin: impl Read) -> Result<OsString, SettingsError> {
    let is_stdin = file == OsStr::new("-");
    let read = || {
        let mut text = String::new();
        let limited = |input: &mut dyn Read, text: &mut String| {
            input.take(MAX_TICKET_FILE_LEN_BYTES).read_to_string(text)
        };
        if is_stdin {
            let mut stdin = stdin;
            limited(&mut stdin, &mut text)?;
        } else {
            limited(&mut File::open(file)?, &mut text)?;
        }
        Ok(text)
    };
    let text = read().map_err(|source| SettingsError::TicketFile {
        from: if is_stdin { "standard input".to_owned() } else { file.display().to_string() },
        source,
    })?;
    Ok(text.trim_start().lines().next().unwrap_or_default().into())
}

const MIN_TICKET_TTL: Duration = Duration::from_secs(1);

/// 365 days. To admit a peer for longer, add it to the list of peers.
const MAX_TICKET_TTL: Duration = Duration::from_secs(365 * 86_400);

/// Above the longest ticket, and little enough to be read from anything.
const MAX_TICKET_FILE_LEN_BYTES: u64 = 16 << 10;

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Command};

    const ENV: &str = "env@h:1";

    fn settle(args: &[&str], variable: Option<&str>, stdin: &str) -> Result<GetSettings, SettingsError> {
        let cli = Cli::try_parse_from([&["shiplane", "get"], args].concat()).unwrap();
        let Command::Get(args) = cli.command else { panic!("{args:?}") };
        GetSettings::from_args(args, variable.map(Into::into), stdin.as_bytes())
    }

    /// The source and the destination.
    fn picked(args: &[&str], variable: Option<&str>, stdin: &str) -> (Target, Dest) {
        let settings = settle(args, variable, stdin).unwrap();
        assert_eq!(settings.sources.len(), 1);
        (settings.sources[0].clone(), settings.dest)
    }

    fn source(name: &str) -> Target {
        format!("{name}@h:1").parse::<Target>().unwrap().with_rights(true, false)
    }

    fn path(path: &str) -> Dest {
        Dest::Path(path.into())
    }

    #[test]
    fn source_and_destination_are_found_wherever_the_ticket_comes_from() {
        for (args, variable, name, dest) in [
            (&["a@h:1"][..], None, "a", path("./")),
            (&["a@h:1", "out"], None, "a", path("out")),
            (&["a@h:1", "-"], None, "a", Dest::Stdout),
            (&["a@h:1", "./b@c"], Some(ENV), "a", path("./b@c")),
            (&["a@h:1"], Some(ENV), "a", path("./")),
            (&[], Some(ENV), "env", path("./")),
            (&["out"], Some(ENV), "env", path("out")),
            (&["./b@c"], Some(ENV), "env", path("./b@c")),
            (&["-"], Some(ENV), "env", Dest::Stdout),
            (&["--ticket-file", "-"], Some(ENV), "in", path("./")),
            (&["--ticket-file", "-", "out"], None, "in", path("out")),
        ] {
            let picked = picked(args, variable, "\n  in@h:1\nmore\n");
            assert_eq!(picked, (source(name), dest), "{args:?}");
        }
    }

    #[test]
    fn several_sources_land_by_name_in_the_destination() {
        for (args, dest) in [
            (&["a@h:1", "b@h:1"][..], "./"),
            (&["a@h:1", "b@h:1", "out"], "out/"),
            (&["a@h:1", "b@h:1", "out/"], "out/"),
        ] {
            let settings = settle(args, Some(ENV), "").unwrap();
            let dest = Dest::Path(dest.into());
            assert_eq!((settings.sources, settings.dest), (vec![source("a"), source("b")], dest), "{args:?}");
        }
        let stdout = settle(&["a@h:1", "b@h:1", "-"], None, "");
        assert!(matches!(stdout, Err(SettingsError::StdoutNotAlone)));
    }

    #[test]
    fn a_ticket_file_is_read_and_bounded() {
        let dir = tempfile::TempDir::new().unwrap();
        let file = dir.path().join("ticket");
        std::fs::write(&file, "file@h:1\n").unwrap();
        let args = ["--ticket-file", file.to_str().unwrap()];
        assert_eq!(picked(&args, None, ""), (source("file"), path("./")));

        std::fs::write(&file, vec![b'x'; 1 << 20]).unwrap();
        assert!(matches!(settle(&args, None, ""), Err(SettingsError::Target(_))));
        std::fs::remove_file(&file).unwrap();
        assert!(matches!(settle(&args, None, ""), Err(SettingsError::TicketFile { .. })));
    }

    #[test]
    fn contradictions_are_refused() {
        assert!(matches!(settle(&[], None, ""), Err(SettingsError::NoSource)));
        assert!(matches!(settle(&[], Some(""), ""), Err(SettingsError::NoSource)));
        assert!(matches!(settle(&["./out"], None, ""), Err(SettingsError::Target(_))));
        for both in [&["--ticket-file", "-", "a@h:1", "out"][..], &["--ticket-file", "-", "a@h:1"]] {
            assert!(matches!(settle(both, None, ""), Err(SettingsError::TwoSources)));
        }
        assert!(matches!(settle(&["a@h:1", "./x", "b@h:1"], None, ""), Err(SettingsError::Target(_))));
        let json = ["a@h:1", "-", "--json"];
        assert!(matches!(settle(&json, None, ""), Err(SettingsError::JsonAndContent)));
        let empty = settle(&["--ticket-file", "-"], None, "");
        assert!(matches!(empty, Err(SettingsError::Target(_))));
    }

    #[test]
    fn numbers_out_of_range_are_refused_and_defaults_are_those_of_the_design() {
        let settings = settle(&["a@h:1"], None, "").unwrap();
        let common = &settings.common;
        assert_eq!((settings.client.buffer_len_bytes, common.chunk_len_bytes), (256 << 10, Some(4 << 20)));
        assert_eq!(settings.durability, Durability::Durable);
        assert_eq!((common.rate, common.compress), (None, Compress::Never));
        for args in [
            ["--buffer", "1K"],
            ["--buffer", "5M"],
            ["--chunk", "17M"],
            ["--chunk", "1K"],
            ["--chunk", "4"],
            ["--jobs", "0"],
            ["--jobs", "33"],
            ["--durability", "maybe"],
            ["--rate", "0"],
            ["--rate", "999"],
            ["--rate", "fast"],
            ["--compress=maybe", "--quiet"],
        ] {
            let typed = [&["shiplane", "get", "a@h:1"][..], &args].concat();
            assert!(Cli::try_parse_from(typed).is_err(), "{args:?}");
        }
    }

    #[test]
    fn rate_and_compression_are_as_typed() {
        let settings = settle(&["a@h:1", "--rate", "80Mbit/s", "--compress"], None, "").unwrap();
        assert_eq!(settings.common.rate.map(NonZeroU64::get), Some(10_000_000));
        assert_eq!(settings.common.compress, Compress::Auto);
        let settings = settle(&["--compress=always", "a@h:1", "out"], None, "").unwrap();
        assert_eq!((settings.common.compress, settings.dest), (Compress::Always, path("out")));
        // A word after it is the source, not a way to compress.
        assert_eq!(settle(&["--compress", "a@h:1"], None, "").unwrap().common.compress, Compress::Auto);
    }

    #[test]
    fn a_ticket_lives_for_a_second_to_a_year() {
        let settle = |args: &[&str]| {
            let cli = Cli::try_parse_from([&["shiplane", "serve", "."], args].concat()).unwrap();
            let Command::Serve(args) = cli.command else { panic!("{args:?}") };
            ServeSettings::from_args(args)
        };
        assert_eq!(settle(&[]).unwrap().ticket_ttl, Duration::from_secs(3600));
        for ttl in ["0s", "366d"] {
            let refused = settle(&["--ticket-ttl", ttl]);
            assert!(matches!(refused, Err(SettingsError::TicketTtl { .. })), "{ttl}");
        }
    }
}
