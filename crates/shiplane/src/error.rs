//! Why a job failed: one error type, its kind, the side it is on, and what to do next.

mod sync;
mod transfer;

use std::{fmt, io, sync::Arc};

use shiplane_files::{DestinationError, SourceError};
use shiplane_protocols::{
    FetchError, PushError,
    access::{AddressError, EditError, Host, IssueError, NameError, PeerName, PeersError},
    sync::{LeftPath, SyncError, UnresolvedReason},
};
use shiplane_rpc::{CallError, Fault, FaultCode};
use shiplane_transport::{BindError, ConnectError, IdentityError};
use shiplane_wire::PathRefused;

use crate::{event::Side, home::HomeError, report::Report, target::TargetError};

/// Why a job failed.
///
/// Its text names the cause; [`kind`](Self::kind) is for programs, [`hint`](Self::hint) for people. A job that
/// failed can be run again: what was verified is kept and not sent again.
pub struct Error(Box<Inner>);

struct Inner {
    cause: Cause,
    report: Option<Report>,
}

/// The kinds of failures. The program's exit codes follow them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The caller's mistake: arguments that make no sense.
    Usage,
    /// The peer is not reachable, silent, or busy. Try again later.
    Unreachable,
    /// A key, a ticket or a right is missing or wrong.
    Identity,
    /// What arrived is not what was sent.
    Integrity,
    /// A rule forbids it: a path, a limit, an existing file.
    Refused,
    /// This machine's disk or system failed, is full, or does not permit it.
    LocalIo,
    /// All is done but for some paths; [`Error::report`] names them.
    LeftOut,
    /// The job was cancelled.
    Interrupted,
    /// Any other failure.
    Other,
}

impl Error {
    /// An error of your own, for a method's handler to answer with. The caller sees the kind and the message;
    /// of any other error that a handler returns, it only sees that there was one.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Cause::Own { kind, message: message.into() }.into()
    }

    /// What kind of failure it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.verdict().kind
    }

    /// Where the cause is.
    #[must_use]
    pub fn side(&self) -> Side {
        self.verdict().side
    }

    /// What to do next, in the words of the `shiplane` program.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        self.verdict().hint
    }

    /// What was done all the same, if everything was but for some paths.
    #[must_use]
    pub fn report(&self) -> Option<&Report> {
        self.0.report.as_ref()
    }

    pub(crate) fn with_report(mut self, report: Report) -> Self {
        self.0.report = Some(report);
        self
    }

    pub(crate) fn cause(&self) -> &Cause {
        &self.0.cause
    }

    pub(crate) fn into_cause(self) -> Cause {
        self.0.cause
    }

    /// The fault that the caller of a method receives.
    pub(crate) fn into_fault(self) -> Fault {
        match self.into_cause() {
            Cause::Own { kind, message } => Fault::new(fault_code(kind), message),
            Cause::Call(CallError::Fault(fault)) => fault,
            other => {
                tracing::error!(error = %other, "a method failed");
                Fault::new(FaultCode::Internal, "")
            }
        }
    }

    fn verdict(&self) -> Verdict {
        self.0.cause.verdict()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.cause.fmt(f)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error").field("kind", &self.kind()).field("cause", &self.0.cause).finish()
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        std::error::Error::source(&self.0.cause)
    }
}

impl From<Cause> for Error {
    fn from(cause: Cause) -> Self {
        Self(Box::new(Inner { cause, report: None }))
    }
}

/// Everything that can end a job, with the words for it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Cause {
    #[error("{message}")]
    Own { kind: ErrorKind, message: String },
    #[error(transparent)]
    Home(HomeError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("the list of peers is broken: {0}")]
    Peers(#[from] PeersError),
    #[error(transparent)]
    Edit(#[from] EditError),
    #[error(transparent)]
    Name(NameError),
    #[error("the root is refused: {0}")]
    Root(PathRefused),
    #[error(transparent)]
    Target(TargetError),
    #[error("there is no peer named {name}")]
    NoSuchName { name: PeerName },
    #[error("{host} has no address: {source}")]
    Resolve { host: Host, source: io::Error },
    #[error("the name server does not answer for {host}")]
    ResolveSilent { host: Host },
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error("the address to listen on is unknown: {0}")]
    Listen(io::Error),
    #[error("the host of the tickets is wrong: {0}")]
    Advertise(AddressError),
    #[error("cannot serve this: {0}")]
    Serve(SourceError),
    #[error("what is served is one file, and nothing can be pushed into that")]
    WritableFile,
    #[error("the method {name} is {why}")]
    Method { name: &'static str, why: &'static str },
    #[error("the server runs already")]
    RunsAlready,
    #[error("a ticket without any right is of no use")]
    TicketWithoutRight,
    #[error("no ticket can be made: {0}")]
    Ticket(#[from] IssueError),
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error(transparent)]
    Destination(DestinationError),
    #[error("the source is a directory, and only one file fits a stream")]
    NotOneFile,
    #[error("cannot write to the output: {0}")]
    Output(#[source] io::Error),
    #[error(transparent)]
    Push(#[from] PushError),
    #[error("cannot push this: {0}")]
    Source(SourceError),
    #[error("two of the paths have the name {name}, and only one can go there")]
    SameName { name: String },
    #[error("there is nothing to push")]
    NothingToPush,
    #[error("the target does not name the file that the content goes to")]
    ContentUnnamed,
    #[error(transparent)]
    Sync(#[from] SyncError),
    #[error("{paths} paths could not be synced yet, and were left alone")]
    LeftAlone { paths: usize },
    #[error("{paths} paths were left alone: {cause}")]
    CannotChange { paths: usize, cause: Arc<DestinationError> },
    #[error("{paths} paths were left alone: {cause}")]
    CannotRead { paths: usize, cause: Arc<SourceError> },
    #[error(transparent)]
    Call(CallError),
    #[error("interrupted")]
    Interrupted,
    #[error("a worker thread ended early, as when the runtime shuts down")]
    Abandoned,
}

impl Cause {
    /// What a sync that has left these alone ends with; `None` if there are none. This machine's own failure
    /// says more than that something changed.
    pub(crate) fn of_left(left: &[LeftPath]) -> Option<Self> {
        let paths = left.len();
        let failed = left.iter().find_map(|left| match &left.why {
            UnresolvedReason::Failed(cause) => Some(Self::CannotChange { paths, cause: Arc::clone(cause) }),
            UnresolvedReason::Unreadable(cause) => Some(Self::CannotRead { paths, cause: Arc::clone(cause) }),
            UnresolvedReason::Changed
            | UnresolvedReason::NotOffered
            | UnresolvedReason::NotSent(_)
            | UnresolvedReason::NotAsListed
            | UnresolvedReason::NotEmpty
            | UnresolvedReason::LeftThere => None,
        });
        failed.or((paths > 0).then_some(Self::LeftAlone { paths }))
    }

    fn verdict(&self) -> Verdict {
        use ErrorKind::{Interrupted, LeftOut, LocalIo, Other, Refused, Unreachable, Usage};
        match self {
            Self::Own { kind, .. } => here(*kind, "see what the message says"),
            Self::Home(_) => here(Usage, "set SHIPLANE_HOME to a directory of your own"),
            Self::Identity(error) => identity(error),
            Self::Peers(error) => peers(error),
            Self::Edit(error) => edit(error),
            Self::Name(_) => here(Usage, "choose another name"),
            Self::Root(_) => here(Usage, "give a path relative to what is served, as in photos/2024"),
            Self::Target(error) => target(error),
            Self::NoSuchName { .. } => {
                here(Usage, "shiplane peers list shows the names; shiplane peers add adds one")
            }
            Self::Resolve { .. } => Verdict {
                kind: Unreachable,
                side: Side::Network,
                hint: "check the host's name, or use its address",
            },
            Self::ResolveSilent { .. } => Verdict {
                kind: Unreachable,
                side: Side::Network,
                hint: "check this machine's network, or use the host's address",
            },
            Self::Connect(error) => transfer::connect(error),
            Self::Bind(error) => bind(error),
            Self::Listen(_) => here(LocalIo, "give an IP address and a port to listen on"),
            Self::Advertise(_) => here(Usage, "give a host name or an IP address, without a port"),
            Self::Serve(_) => {
                here(LocalIo, "give a directory or a file that exists and that this user can read")
            }
            Self::WritableFile => here(Usage, "serve the directory it is in, or leave --writable out"),
            Self::Method { .. } => here(Usage, "give the method another name"),
            Self::RunsAlready => here(Usage, "run a server once; its clones share it"),
            Self::TicketWithoutRight => here(Usage, "say read() or write()"),
            Self::Ticket(_) => here(Other, "try again, with a shorter --ticket-ttl"),
            Self::Fetch(error) => transfer::fetch(error),
            Self::Destination(error) => transfer::destination(error),
            Self::NotOneFile => here(Refused, "give the path of one file, or a directory as DEST"),
            Self::Output(_) => here(LocalIo, "see to whatever reads the output"),
            Self::Push(error) => transfer::push(error),
            Self::Source(error) => transfer::source(error),
            Self::SameName { .. } => {
                here(Usage, "push them one after another, or into different directories")
            }
            Self::NothingToPush => here(Usage, "give what is to be pushed before the target"),
            Self::ContentUnnamed => here(Usage, CONTENT_UNNAMED),
            Self::Sync(error) => sync::sync(error),
            Self::LeftAlone { .. } => {
                here(LeftOut, "run the same command again once the files are at rest; the rest is done")
            }
            Self::CannotChange { cause, .. } => Verdict { hint: SEE_TO_IT, ..transfer::destination(cause) },
            Self::CannotRead { cause, .. } => Verdict { hint: SEE_TO_IT, ..transfer::source(cause) },
            Self::Call(error) => transfer::method_call(error),
            Self::Interrupted => {
                here(Interrupted, "run the same command again; what was kept is not sent again")
            }
            Self::Abandoned => here(Other, "run the same command again; what was kept is not sent again"),
        }
    }
}

/// A failure, judged.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Verdict {
    kind: ErrorKind,
    side: Side,
    hint: &'static str,
}

fn here(kind: ErrorKind, hint: &'static str) -> Verdict {
    Verdict { kind, side: Side::ThisMachine, hint }
}

/// The code that a handler's error travels as; [`transfer::method_call`] turns it back.
fn fault_code(kind: ErrorKind) -> FaultCode {
    match kind {
        ErrorKind::Usage | ErrorKind::Refused => FaultCode::InvalidRequest,
        ErrorKind::Unreachable => FaultCode::Busy,
        ErrorKind::Identity => FaultCode::Unauthorised,
        ErrorKind::Integrity => FaultCode::Integrity,
        ErrorKind::LocalIo | ErrorKind::LeftOut | ErrorKind::Interrupted | ErrorKind::Other => {
            FaultCode::Internal
        }
    }
}

fn target(error: &TargetError) -> Verdict {
    here(
        ErrorKind::Usage,
        match error {
            TargetError::Ticket(_) => {
                "copy the whole ticket again, in single quotes, from where shiplane serve printed it"
            }
            TargetError::Id(_) => "copy the id again; shiplane id prints it there",
            TargetError::Unknown | TargetError::Name(_) | TargetError::Address(_) | TargetError::Path(_) => {
                "a source or target is a ticket URL, or a peer's name or id with its address: NAME@HOST:PORT/PATH"
            }
        },
    )
}

fn identity(error: &IdentityError) -> Verdict {
    match error {
        IdentityError::Io { .. } | IdentityError::NoRandomness => {
            here(ErrorKind::LocalIo, "see to the file, or set SHIPLANE_HOME to another directory")
        }
        IdentityError::NotPrivate { .. }
        | IdentityError::Malformed { .. }
        | IdentityError::Damaged { .. } => {
            here(ErrorKind::Identity, "see to the key file; without its old key this machine is a stranger")
        }
    }
}

fn peers(error: &PeersError) -> Verdict {
    match error {
        PeersError::Unreadable { .. } => {
            here(ErrorKind::LocalIo, "see to the file; until then all peers are refused")
        }
        PeersError::WritableByOthers { .. } => {
            here(ErrorKind::Identity, "look through it, then chmod 600 it; until then all peers are refused")
        }
        PeersError::TooLong { .. } | PeersError::Malformed { .. } => {
            here(ErrorKind::Identity, "mend the file by hand; until then all peers are refused")
        }
    }
}

fn edit(error: &EditError) -> Verdict {
    match error {
        EditError::List(error) => peers(error),
        EditError::NameTaken { .. } => here(
            ErrorKind::Identity,
            "if the peer really has a new key, check the id with its owner, \
             then shiplane peers remove the name and add it again",
        ),
        EditError::IdTaken { .. } => {
            here(ErrorKind::Usage, "use that name, or shiplane peers remove it first")
        }
        EditError::NoSuchPeer { .. } => here(ErrorKind::Usage, "shiplane peers list shows the names"),
        EditError::Unwritable { .. } => {
            here(ErrorKind::LocalIo, "see to the space and the permissions there; the list is as it was")
        }
    }
}

fn bind(error: &BindError) -> Verdict {
    match error {
        BindError::Socket { source, .. } => here(
            ErrorKind::LocalIo,
            match source.kind() {
                io::ErrorKind::AddrInUse => {
                    "another program has that port; choose another one, or 0 for any, with --listen"
                }
                io::ErrorKind::AddrNotAvailable => {
                    "this machine has no such address; --listen 0.0.0.0:7514 listens on all it has"
                }
                io::ErrorKind::PermissionDenied => "choose a port above 1023 with --listen",
                _ => "see to this machine's network, or choose another address with --listen",
            },
        ),
        BindError::Identity(error) => identity(error),
        BindError::Tls(_) => here(ErrorKind::Other, "this is a fault of shiplane; please report it"),
    }
}

const SEE_TO_IT: &str = "see to what the message names, then run the same command again; the rest is done";

const CONTENT_UNNAMED: &str =
    "end the target with the name of a file: NAME@HOST:PORT/DIR/FILE, or /DIR/FILE before the # of a ticket";

#[cfg(test)]
mod tests {
    use shiplane_files::Operation;
    use shiplane_protocols::sync::Side as SyncSide;
    use shiplane_wire::RelPath;

    use super::*;

    fn left(path: &str, why: UnresolvedReason) -> LeftPath {
        LeftPath { side: SyncSide::Local, path: RelPath::parse(path.as_bytes()).unwrap(), why }
    }

    fn read_only() -> io::Error {
        io::ErrorKind::ReadOnlyFilesystem.into()
    }

    #[test]
    fn a_sync_that_this_machines_disk_stops_says_why() {
        let path = || "d/f".to_owned();
        let cannot_create = DestinationError::PermissionDenied {
            operation: Operation::Create,
            path: path(),
            source: read_only(),
        };
        let cannot_read = SourceError::Unreadable { path: path(), source: read_only() };
        for why in
            [UnresolvedReason::Failed(cannot_create.into()), UnresolvedReason::Unreadable(cannot_read.into())]
        {
            let cause = Cause::of_left(&[left("c", UnresolvedReason::Changed), left("d/f", why)]).unwrap();
            let error = Error::from(cause);
            assert_eq!((error.kind(), error.side()), (ErrorKind::LocalIo, Side::ThisMachine));
            let said = error.to_string();
            assert!(said.starts_with("2 paths were left alone: ") && said.contains("d/f"), "{said}");
            assert!(said.ends_with(&read_only().to_string()), "{said}");
        }
    }

    #[test]
    fn a_sync_that_others_have_disturbed_is_no_success() {
        let cause =
            Cause::of_left(&[left("c", UnresolvedReason::Changed), left("d", UnresolvedReason::LeftThere)])
                .unwrap();
        assert_eq!(Error::from(cause).kind(), ErrorKind::LeftOut);
        assert!(Cause::of_left(&[]).is_none());
    }

    #[test]
    fn a_handlers_error_keeps_its_kind_on_the_way_to_the_caller() {
        for kind in [
            ErrorKind::Refused,
            ErrorKind::Unreachable,
            ErrorKind::Identity,
            ErrorKind::Integrity,
            ErrorKind::Other,
        ] {
            let fault = Error::new(kind, "why").into_fault();
            let told = Error::from(Cause::Call(CallError::Fault(fault)));
            assert_eq!((told.kind(), told.side()), (kind, Side::Peer));
            assert!(told.to_string().ends_with("why"), "{told}");
        }
    }

    #[test]
    fn a_caller_learns_nothing_of_an_error_that_is_not_the_handlers_own() {
        let secret = io::Error::other("/home/me/secret");
        let fault = Error::from(Cause::Listen(secret)).into_fault();
        assert_eq!((fault.code, fault.message()), (FaultCode::Internal, ""));
    }
}
