//! Everything that can end a command before it is done, with the words for it.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use shiplane_files::{DestinationError, SourceError};
use shiplane_protocols::access::{EditError, Host, IssueError, PeerName, PeersError};
use shiplane_protocols::sync::{LeftPath, LeftWhy, SyncError};
use shiplane_protocols::{FetchError, PushError};
use shiplane_transport::compat::{OctopiiBindError, OctopiiConnectError};
use shiplane_transport::{BindError, ConnectError, IdentityError, RecvChunkError, SendChunkError};
use shiplane_wire::{PathRefused, escape};

use crate::home::HomeError;
use crate::settings::SettingsError;

/// Everything that ends a command before it is done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error(transparent)]
    Home(#[from] HomeError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("the list of peers is broken: {0}")]
    Peers(#[from] PeersError),
    #[error(transparent)]
    Edit(#[from] EditError),
    #[error("the root is refused: {0}")]
    Root(PathRefused),
    #[error("there is no command {name}")]
    NoSuchCommand { name: String },
    #[error("there is no peer named {name}")]
    NoSuchName { name: PeerName },
    #[error("cannot write to standard output: {0}")]
    Stdout(io::Error),
    #[error("cannot write the ticket to {}: {source}", .path.display())]
    TicketFile { path: PathBuf, source: io::Error },
    #[error("the system gives no threads, timers or signals: {0}")]
    Runtime(io::Error),
    #[error("cannot serve this: {0}")]
    Serve(SourceError),
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error("no ticket can be made: {0}")]
    Ticket(#[from] IssueError),
    #[error("{host} has no address: {source}")]
    Resolve { host: Host, source: io::Error },
    #[error("the name server does not answer for {host}")]
    ResolveSilent { host: Host },
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error(transparent)]
    Destination(DestinationError),
    #[error(transparent)]
    Push(#[from] PushError),
    #[error(transparent)]
    Sync(#[from] SyncError),
    #[error("{paths} paths could not be synced yet, and were left alone")]
    LeftAlone { paths: usize },
    #[error("{paths} paths were left alone: {cause}")]
    CannotChange { paths: usize, cause: Arc<DestinationError> },
    #[error("{paths} paths were left alone: {cause}")]
    CannotRead { paths: usize, cause: Arc<SourceError> },
    #[error("cannot push this: {0}")]
    Source(SourceError),
    #[error("cannot read standard input into a temporary file: {0}")]
    Spool(io::Error),
    #[error("what is served is one file, and nothing can be pushed into that")]
    WritableFile,
    #[error("the source is a directory, and only one file fits standard output")]
    NotOneFile,
    #[error(transparent)]
    OctopiiBind(OctopiiBindError),
    #[error(transparent)]
    OctopiiConnect(OctopiiConnectError),
    #[error("the file was not sent: {0}")]
    OctopiiSend(SendChunkError),
    #[error("nothing was received: {0}")]
    OctopiiReceive(#[from] RecvChunkError),
    #[error("the node ended the connection without sending anything")]
    OctopiiNothing,
    #[error("{} exists already", escape(.path.as_os_str().as_encoded_bytes()))]
    OctopiiExists { path: PathBuf },
    #[error("interrupted")]
    Interrupted,
}

impl Failure {
    /// What a sync that has left these alone ends with; `None` if there are none. This machine's own failure
    /// says more than that something changed.
    pub(crate) fn of_left(left: &[LeftPath]) -> Option<Self> {
        let paths = left.len();
        let failed = left.iter().find_map(|left| match &left.why {
            LeftWhy::Failed(cause) => Some(Self::CannotChange { paths, cause: Arc::clone(cause) }),
            LeftWhy::Unreadable(cause) => Some(Self::CannotRead { paths, cause: Arc::clone(cause) }),
            LeftWhy::Changed
            | LeftWhy::NotOffered
            | LeftWhy::NotSent(_)
            | LeftWhy::NotAsListed
            | LeftWhy::NotEmpty
            | LeftWhy::LeftThere => None,
        });
        failed.or((paths > 0).then_some(Self::LeftAlone { paths }))
    }
}

#[cfg(test)]
mod tests {
    use shiplane_files::Operation;
    use shiplane_protocols::sync::Side;
    use shiplane_wire::RelPath;

    use super::*;
    use crate::exit::Class;

    fn left(path: &str, why: LeftWhy) -> LeftPath {
        LeftPath { side: Side::Local, path: RelPath::parse(path.as_bytes()).unwrap(), why }
    }

    fn read_only() -> io::Error {
        io::ErrorKind::ReadOnlyFilesystem.into()
    }

    #[test]
    fn a_sync_that_this_machines_disk_stops_says_why_and_ends_so() {
        let path = || "d/f".to_owned();
        let cannot_create = DestinationError::PermissionDenied {
            operation: Operation::Create,
            path: path(),
            source: read_only(),
        };
        let cannot_read = SourceError::Unreadable { path: path(), source: read_only() };
        for why in [LeftWhy::Failed(cannot_create.into()), LeftWhy::Unreadable(cannot_read.into())] {
            let failure = Failure::of_left(&[left("c", LeftWhy::Changed), left("d/f", why)]).unwrap();
            assert_eq!(failure.verdict().class, Class::LocalIo);
            let said = failure.to_string();
            assert!(said.starts_with("2 paths were left alone: ") && said.contains("d/f"), "{said}");
            assert!(said.ends_with(&read_only().to_string()), "{said}");
        }
    }

    #[test]
    fn a_sync_that_others_have_disturbed_is_no_success() {
        let failure =
            Failure::of_left(&[left("c", LeftWhy::Changed), left("d", LeftWhy::LeftThere)]).unwrap();
        assert_eq!(failure.verdict().class, Class::Other);
        assert!(Failure::of_left(&[]).is_none());
    }
}
