//! Why arguments are refused.

use std::io;

/// Why the arguments are refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SettingsError {
    #[error("only one file can be written to standard output")]
    StdoutNotAlone,
    #[error("there is no source")]
    NoSource,
    #[error("give either a source or a ticket file, not both")]
    TwoSources,
    #[error(transparent)]
    Target(#[from] shiplane::Error),
    #[error("cannot read the ticket from {from}: {source}")]
    TicketFile { from: String, source: io::Error },
    #[error("cannot read the list of files from {from}: {source}")]
    FilesFrom { from: String, source: io::Error },
    #[error("standard input cannot be read for two purposes")]
    StdinTwice,
    #[error("DEST is empty")]
    NoDest,
    #[error(
        "it is not clear whether {dest} is a source or the destination, which cannot be on another machine"
    )]
    RemoteDest { dest: String },
    #[error("{path} is on another machine; only local files can be pushed or synced")]
    RemotePath { path: String },
    #[error("there is nothing to push, only a target")]
    NoPath,
    #[error("there is no target")]
    NoTarget,
    #[error("give either a target or a ticket file, not both")]
    TwoTargets,
    #[error("give either a server or a ticket file, not both")]
    TicketFileAndServer,
    #[error("the target names no file for standard input")]
    StdinUnnamed,
    #[error("standard input cannot be pushed together with other paths")]
    StdinNotAlone,
    #[cfg(feature = "octopii")]
    #[error(transparent)]
    Octopii(#[from] OctopiiError),
    #[error("standard output cannot carry both JSON events and the file")]
    JsonAndContent,
    #[error("there is no code")]
    NoCode,
    #[error("there is more than a code and a place: {extra}")]
    TooManyWords { extra: String },
    #[error("cannot read the code from standard input: {0}")]
    CodeFromStdin(io::Error),
    #[error("cannot ask whether to receive this: standard input is not a terminal")]
    NobodyToAsk,
    #[error("--ticket-ttl must be between 1 second and {max_days} days")]
    TicketTtl { max_days: u64 },
}

/// Why arguments are refused with `--insecure-octopii`.
#[cfg(feature = "octopii")]
#[derive(Debug, thiserror::Error)]
pub(crate) enum OctopiiError {
    #[error("there is no address of an Octopii node")]
    NoAddress,
    #[error("--insecure-octopii takes no ticket or peer id: it has no authentication")]
    Authenticated,
    #[error("the address of an Octopii node is HOST:PORT, or [IPV6]:PORT")]
    Address,
    #[error("--insecure-octopii transfers one file, no trees and no standard streams")]
    NotOneFile,
}
