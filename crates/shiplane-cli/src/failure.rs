//! Everything that can end a command before it is done, with the words for it.

use std::io;
use std::path::PathBuf;

use shiplane_protocols::access::{EditError, Host, IssueError, PeerName, PeersError};
use shiplane_protocols::files::{DestinationError, SourceError};
use shiplane_protocols::sync::SyncError;
use shiplane_protocols::{FetchError, PushError};
use shiplane_rpc::CallError;
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
    #[error("the ticket was not accepted: {0}")]
    Redeem(CallError),
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error(transparent)]
    Destination(DestinationError),
    #[error(transparent)]
    Push(#[from] PushError),
    #[error(transparent)]
    Sync(#[from] SyncError),
    #[error("{paths} paths changed while they were synced, and were left alone")]
    LeftAlone { paths: usize },
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
