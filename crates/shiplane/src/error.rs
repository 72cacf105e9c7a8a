//! The error type of jobs, with kind, side and hint.

mod choice;
mod code;
mod diagnosis;
mod dial;
mod ssh;
mod sync;
mod target;
mod transfer;

use std::{convert::Infallible, fmt, io, num::NonZeroU64, path::PathBuf, time::Duration};

use shiplane_access::internals::{
    AddressError, EditError, Host, IssueError, NameError, PeerName, PeersError, TicketsError,
};
use shiplane_files::internals::{DestinationError, SourceError};
use shiplane_protocols::internals::{FetchError, PushError, sync::SyncError};
use shiplane_rpc::{CallError, Fault, FaultCode};
use shiplane_transport::{BindError, ConnectError, IdentityError};
use shiplane_wire::PathRefused;

pub use self::diagnosis::ErrorKind;
use self::diagnosis::{Diagnosis, RESUME, here, unreachable_by_network};
pub(crate) use self::{
    choice::ChoiceError, code::CodeFailure, dial::DialError, ssh::SshFailure, target::TargetError,
};
use crate::{event::Side, report::Report};

/// Why a job failed.
///
/// Its text names the cause; [`kind`](Self::kind) is for programs, [`hint`](Self::hint) for people. Run a failed
/// job again to resume it: verified data is kept.
pub struct Error(Box<Inner>);

struct Inner {
    cause: Cause,
    report: Option<Report>,
}

impl Error {
    /// An error of your own, for a method's handler to answer with. The caller sees the kind and the message;
    /// of any other error that a handler returns, it only sees that there was one.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Cause::Own { kind, message: message.into() }.into()
    }

    /// The kind of failure.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.diagnosis().kind
    }

    /// The side on which the cause is.
    #[must_use]
    pub fn side(&self) -> Side {
        self.diagnosis().side
    }

    /// What to do next, for a user of the `shiplane` program.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        self.diagnosis().hint
    }

    /// Whether the job would delete more files than it may without the user's consent: run it again with `allow_mass_deletion`.
    #[must_use]
    pub fn needs_consent(&self) -> bool {
        use shiplane_protocols::internals::transfer::TransferError;
        match self.cause() {
            Cause::Fetch(FetchError::Transfer(TransferError::Destination(error))) => {
                matches!(error, DestinationError::MassDeletion { .. })
            }
            Cause::Push(PushError::Rejected(fault)) => fault.code == FaultCode::MassDeletion,
            _ => false,
        }
    }

    /// What was done, if only some paths were left out.
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

    fn diagnosis(&self) -> Diagnosis {
        self.0.cause.diagnosis()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.cause.fmt(f)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.kind())
            .field("message", &self.to_string())
            .field("hint", &self.hint())
            .field("cause", &self.0.cause)
            .finish()
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

impl From<TargetError> for Error {
    fn from(error: TargetError) -> Self {
        Cause::Target(error).into()
    }
}

/// What converts without fail has this error.
impl From<Infallible> for Error {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

/// The causes of an [`Error`].
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
    #[error("invalid path: {0}")]
    Path(PathRefused),
    #[error(transparent)]
    Target(TargetError),
    #[error("there is no peer named {name}")]
    NoSuchName { name: PeerName },
    #[error("the list of peers has no address for {name}")]
    NoAddress { name: PeerName },
    #[error("{host} has no address: {source}")]
    Resolve { host: Host, source: io::Error },
    #[error("the name server does not answer for {host}")]
    ResolveSilent { host: Host },
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Dial(DialError),
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error("cannot resolve the address to listen on: {0}")]
    Listen(io::Error),
    #[cfg(feature = "status")]
    #[error("cannot listen on {addr} for the status page: {why}")]
    Metrics { addr: std::net::SocketAddr, why: io::Error },
    #[error("the advertised address is invalid: {0}")]
    Advertise(AddressError),
    #[error("cannot serve this: {0}")]
    Serve(SourceError),
    #[error("a single file is served; nothing can be pushed into one file")]
    WritableFile,
    #[error("the method {name} is {why}")]
    Method { name: &'static str, why: &'static str },
    #[error("cannot start a thread: {0}")]
    Watch(#[source] io::Error),
    #[error("the server is running already")]
    RunsAlready,
    #[error("the ticket has no permission")]
    TicketWithoutRight,
    #[error("cannot create a ticket: {0}")]
    Ticket(#[from] IssueError),
    #[error("the stored tickets cannot be used: {0}")]
    Tickets(#[from] TicketsError),
    #[error("there is no ticket {}", shiplane_wire::escape(id.as_bytes()))]
    NoSuchTicket { id: String },
    #[error("cannot examine {}: {source}", .path.display())]
    Root { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error(transparent)]
    Destination(DestinationError),
    #[error("the source is a directory; only one file can be written to a stream")]
    NotOneFile,
    #[error("cannot write to the output: {0}")]
    Output(#[source] io::Error),
    #[error(transparent)]
    Push(#[from] PushError),
    #[error(transparent)]
    Input(Box<Error>),
    #[error("cannot push this: {0}")]
    Source(SourceError),
    #[error("two of the paths have the name {name}")]
    SameName { name: String },
    #[error(transparent)]
    Choice(#[from] ChoiceError),
    #[error("cannot look for leftovers: {0}")]
    Clean(#[source] SourceError),
    #[error("nothing was deleted, because paths were left out; everything else is done")]
    NothingDeleted,
    #[error("the target has a directory where the source is a file, or a file where it is a directory")]
    OtherKindThere,
    #[error("there is nothing to push")]
    NothingToPush,
    #[error("the target names no file for the content")]
    ContentUnnamed,
    #[error(transparent)]
    Sync(#[from] SyncError),
    #[error("{paths} {} left out; everything else is done", if paths.get() == 1 { "path was" } else { "paths were" })]
    LeftOut { paths: NonZeroU64, side: Side },
    #[error("there is no kind of path called {}", shiplane_wire::escape(name.as_bytes()))]
    UnknownKind { name: String },
    #[error(transparent)]
    Call(CallError),
    #[error("there has been no connection for {}: {source}", seconds(*tried))]
    NotConnectedAgain { tried: Duration, source: Box<Error> },
    #[error(transparent)]
    Code(#[from] CodeFailure),
    #[error(transparent)]
    Ssh(#[from] SshFailure),
    #[error("interrupted")]
    Interrupted,
    #[error("a worker thread ended early, as when the runtime shuts down")]
    Abandoned,
}

/// There is no place to store anything.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HomeError {
    #[error("there is no home directory to keep the key of this machine in")]
    NoHomeDirectory,
    #[error("the current directory is not known: {0}")]
    NoCurrentDirectory(io::Error),
}

impl Cause {
    fn diagnosis(&self) -> Diagnosis {
        use ErrorKind::{Interrupted, LeftOut, LocalIo, Other, Refused, Usage};
        match self {
            Self::Own { kind, .. } => here(*kind, "see the message"),
            Self::Home(_) => here(Usage, "set SHIPLANE_HOME to a directory that you own"),
            Self::Identity(error) => identity(error),
            Self::Peers(error) => peers(error),
            Self::Edit(error) => edit(error),
            Self::Name(_) => here(Usage, "choose another name"),
            Self::Path(_) => here(Usage, "give a path relative to the served root, e.g. photos/2024"),
            Self::Target(error) => target::target(error),
            Self::NoSuchName { .. } => {
                here(Usage, "run shiplane peers list for the names, or add one with shiplane peers add")
            }
            Self::NoAddress { .. } => here(
                Usage,
                "give NAME@HOST, or store the address with shiplane peers add NAME PEERID --at HOST",
            ),
            Self::Resolve { .. } => unreachable_by_network("check the host name, or use an IP address"),
            Self::ResolveSilent { .. } => {
                unreachable_by_network("check this machine's network, or use an IP address")
            }
            Self::Connect(error) | Self::Dial(DialError { worst: error, .. }) => transfer::connect(error),
            Self::Bind(error) => bind(error),
            #[cfg(feature = "status")]
            Self::Metrics { .. } => here(LocalIo, "choose another address or port with --metrics"),
            Self::Listen(_) => here(LocalIo, "give an IP address and a port to listen on"),
            Self::Advertise(_) => {
                here(Usage, "give a host name or an IP address, with a port if it is not that of --listen")
            }
            Self::Serve(_) | Self::Root { .. } => here(LocalIo, GIVE_READABLE),
            Self::WritableFile => here(Usage, "serve its parent directory, or omit --writable"),
            Self::Method { .. } => here(Usage, "give the method another name"),
            Self::Watch(_) => here(LocalIo, "check the limits of this user (ulimit -a)"),
            Self::RunsAlready => here(Usage, "call run once; clones share the server"),
            Self::TicketWithoutRight => here(Usage, "call read() or write()"),
            Self::Ticket(IssueError::File(error)) | Self::Tickets(error) => tickets(error),
            Self::Ticket(_) => here(Other, "try again, with a shorter --ticket-ttl"),
            Self::NoSuchTicket { .. } => here(Usage, "run shiplane ticket list for the ids"),
            Self::Fetch(error) => transfer::fetch(error),
            Self::Destination(error) => transfer::destination(error),
            Self::NotOneFile => here(Refused, "give the path of one file, or a directory as DEST"),
            Self::Output(_) => here(LocalIo, "check the program or disk that reads the output"),
            Self::Push(error) => transfer::push(error),
            Self::Input(error) => transfer::of_input(error.diagnosis()),
            Self::Source(error) => transfer::source(error),
            Self::SameName { .. } => here(Usage, "copy them in separate commands, to different directories"),
            Self::Choice(error) => here(Usage, error.hint()),
            Self::Clean(_) => here(LocalIo, "give an existing directory that this user can read"),
            Self::NothingDeleted => {
                here(LeftOut, "correct what is named above, or exclude it, and run the same command again")
            }
            Self::OtherKindThere => here(Refused, "push to another path"),
            Self::NothingToPush => here(Usage, "give the files to push before the target"),
            Self::ContentUnnamed => here(Usage, transfer::CONTENT_UNNAMED),
            Self::Sync(error) => sync::sync(error),
            Self::LeftOut { side, .. } => Diagnosis {
                kind: LeftOut,
                side: *side,
                hint: "each path is named above with the reason; correct that and run the same command again, or give \
                       --skip KIND for what is not wanted",
            },
            Self::UnknownKind { .. } => here(Usage, "give links, special, names, unreadable or changed"),
            Self::Call(error) => transfer::method_call(error),
            Self::NotConnectedAgain { source, .. } => transfer::again_later(source.diagnosis()),
            Self::Code(error) => error.diagnosis(),
            Self::Ssh(error) => error.diagnosis(),
            Self::Interrupted => here(Interrupted, RESUME),
            Self::Abandoned => here(Other, RESUME),
        }
    }
}

/// The fault code of a handler's error on the wire; [`transfer::method_call`] turns it back.
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

/// What a failure of a peer's job is, for the server that it was a job of.
#[cfg(feature = "status")]
pub(crate) fn kind_and_side(error: &(dyn std::error::Error + 'static)) -> (ErrorKind, Side) {
    use self::diagnosis::there;
    use shiplane_protocols::internals::transfer::TransferError;
    use shiplane_transport::{ConnectionEnd, SendChunkError, StreamError};
    use shiplane_wire::Code;
    let error: &(dyn std::error::Error + 'static) = match error.downcast_ref() {
        Some(SyncError::Transfer(error)) => error,
        _ => error,
    };
    let stream = match error.downcast_ref() {
        Some(TransferError::Stream(error)) => Some(error),
        Some(TransferError::Undelivered { source: SendChunkError::Stream(error), .. }) => Some(error),
        _ => None,
    };
    let diagnosis = match (stream, error.downcast_ref(), error.downcast_ref()) {
        // Somebody has stopped it there.
        (
            Some(
                StreamError::Reset(Code::Cancelled)
                | StreamError::Stopped(Code::Cancelled)
                | StreamError::ConnectionLost(ConnectionEnd::ClosedByPeer {
                    code: Code::NoError | Code::Cancelled,
                }),
            ),
            ..,
        ) => there(ErrorKind::Interrupted, RESUME),
        (_, Some(error), _) => transfer::transfer(error),
        (_, None, Some(error)) => sync::sync(error),
        (_, None, None) => match error.downcast_ref::<Fault>().map(|fault| fault.code) {
            Some(FaultCode::SourceIo | FaultCode::SinkIo | FaultCode::NoSpace) => {
                here(ErrorKind::LocalIo, RESUME)
            }
            // The wait for it has timed out.
            Some(FaultCode::Gone) => there(ErrorKind::Unreachable, RESUME),
            Some(code) => here(kind_of_fault(code), RESUME),
            None => here(ErrorKind::Other, RESUME),
        },
    };
    (diagnosis.kind, diagnosis.side)
}

/// The kind of a call's error, if the call was answered with a fault.
#[cfg(feature = "status")]
pub(crate) fn kind_of_fault(code: FaultCode) -> ErrorKind {
    transfer::answered(code).kind
}

fn identity(error: &IdentityError) -> Diagnosis {
    match error {
        IdentityError::Io { .. } | IdentityError::NoRandomness => {
            here(ErrorKind::LocalIo, "check the file, or set SHIPLANE_HOME to another directory")
        }
        IdentityError::NotPrivate { .. }
        | IdentityError::Malformed { .. }
        | IdentityError::Damaged { .. } => here(
            ErrorKind::Identity,
            "repair the key file or restore it from a backup; with a new key, all peers refuse this machine",
        ),
    }
}

fn peers(error: &PeersError) -> Diagnosis {
    match error {
        PeersError::Unreadable { .. } => {
            here(ErrorKind::LocalIo, "make the file readable; until then all peers are refused")
        }
        PeersError::WritableByOthers { .. } => here(
            ErrorKind::Identity,
            "check its content, then run chmod 600 on it; until then all peers are refused",
        ),
        PeersError::TooLong { .. } | PeersError::Malformed { .. } => {
            here(ErrorKind::Identity, "correct the file; until then all peers are refused")
        }
    }
}

fn tickets(error: &TicketsError) -> Diagnosis {
    match error {
        TicketsError::Io { .. } => {
            here(ErrorKind::LocalIo, "check the free space and permissions there; nothing was changed")
        }
        TicketsError::WritableByOthers { .. } => here(
            ErrorKind::Identity,
            "remove the file, which revokes all tickets, unless you trust its content",
        ),
        TicketsError::Malformed { .. } => here(ErrorKind::Identity, "remove the line, or the file"),
    }
}

fn edit(error: &EditError) -> Diagnosis {
    match error {
        EditError::List(error) => peers(error),
        EditError::NameTaken { .. } => here(
            ErrorKind::Identity,
            "if the peer has a new key, check the id with its owner; then remove the name with shiplane peers remove \
             and add it again",
        ),
        EditError::IdTaken { .. } => {
            here(ErrorKind::Usage, "use that name, or remove it with shiplane peers remove")
        }
        EditError::NoSuchPeer { .. } => here(ErrorKind::Usage, "run shiplane peers list for the names"),
        EditError::Unwritable { .. } => {
            here(ErrorKind::LocalIo, "check the free space and permissions there; the list is unchanged")
        }
    }
}

fn bind(error: &BindError) -> Diagnosis {
    match error {
        BindError::Socket { source, .. } => here(
            ErrorKind::LocalIo,
            match source.kind() {
                io::ErrorKind::AddrInUse => {
                    "another program uses that port; choose another with --listen, or port 0 for any"
                }
                io::ErrorKind::AddrNotAvailable => {
                    "this machine has no such address; use --listen [::]:7514 for all addresses"
                }
                io::ErrorKind::PermissionDenied => "choose a port above 1023 with --listen",
                _ => "check this machine's network, or choose another address with --listen",
            },
        ),
        BindError::Identity(error) => identity(error),
        BindError::Tls(_) => here(ErrorKind::Other, "this is a bug in shiplane; please report it"),
    }
}

/// For a message: whole seconds, or as many digits as matter.
fn seconds(time: Duration) -> String {
    format!("{:?}", Duration::from_millis(time.as_millis().try_into().unwrap_or(u64::MAX)))
}

const GIVE_READABLE: &str = "give an existing directory or file that this user can read";

#[cfg(test)]
mod tests {
    use super::*;

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
