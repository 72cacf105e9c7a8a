//! Errors, one enum per operation, sorted by whose fault they are.

use std::{fmt, io, net::SocketAddr, sync::Arc, time::Duration};

use quinn_proto::TransportErrorCode;
use shiplane_wire::{Code, FrameError, RecvError, Refusal, SendError, StatusError};
use thiserror::Error;

use crate::{
    identity::PeerId,
    tls::{self, HandshakeFault},
};

/// Why a connection ended.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[cfg_attr(not(feature = "internals"), non_exhaustive)]
pub enum ConnectionEnd {
    /// The peer closed it with this code; `Code::NoError` is an orderly end.
    #[error("the peer closed the connection ({code})")]
    ClosedByPeer {
        /// The peer's reason.
        code: Code,
    },
    /// This side closed it.
    #[error("the connection was closed on this side")]
    ClosedHere,
    /// Nothing was heard for the idle timeout: the peer or the path is gone. Dial again.
    #[error("the peer stopped answering")]
    TimedOut,
    /// The peer has lost its state, as after a restart. Dial again.
    #[error("the peer no longer knows this connection")]
    Reset,
    /// The peer broke QUIC or TLS, or said that we did. The reason is escaped.
    #[error("the transport failed: {reason}")]
    Transport {
        /// Escaped and cut to 256 bytes.
        reason: String,
    },
}

impl ConnectionEnd {
    /// Whether either side ended it on purpose, with nothing wrong.
    #[must_use]
    pub fn is_orderly(&self) -> bool {
        matches!(self, Self::ClosedHere | Self::ClosedByPeer { code: Code::NoError })
    }

    /// Whether another dial may help.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::TimedOut | Self::Reset | Self::Transport { .. } => true,
            Self::ClosedByPeer { code } => *code == Code::NoError || may_pass(*code),
            // On purpose, by this program.
            Self::ClosedHere => false,
        }
    }
}

impl ConnectionEnd {
    pub(crate) fn of(error: quinn::ConnectionError) -> Self {
        // A client may learn only by the end that its key is not admitted.
        if tls::classify(&error) == HandshakeFault::RefusedByPeer {
            return Self::ClosedByPeer { code: Code::Unauthorised };
        }
        match error {
            // SPEC 1.13
            quinn::ConnectionError::ConnectionClosed(close)
                if close.error_code == TransportErrorCode::CONNECTION_REFUSED =>
            {
                Self::ClosedByPeer { code: Code::ShuttingDown }
            }
            quinn::ConnectionError::ApplicationClosed(close) => {
                Self::ClosedByPeer { code: Code::from_u64(close.error_code.into_inner()) }
            }
            quinn::ConnectionError::LocallyClosed => Self::ClosedHere,
            quinn::ConnectionError::TimedOut => Self::TimedOut,
            quinn::ConnectionError::Reset => Self::Reset,
            other @ (quinn::ConnectionError::VersionMismatch
            | quinn::ConnectionError::TransportError(_)
            | quinn::ConnectionError::ConnectionClosed(_)
            | quinn::ConnectionError::CidsExhausted) => Self::Transport {
                reason: shiplane_wire::escape_truncated(other.to_string().as_bytes(), MAX_REASON_LEN_BYTES)
                    .to_string(),
            },
        }
    }
}

/// Why `connect` gave no connection.
#[derive(Debug, Clone, Error)]
#[cfg_attr(not(feature = "internals"), non_exhaustive)]
pub enum ConnectError {
    /// No answer within the handshake timeout: nothing listens there, or a firewall drops UDP.
    #[error("no answer from {addr} within {timeout:?}")]
    TimedOut {
        /// Where we dialled.
        addr: SocketAddr,
        /// How long we waited.
        timeout: Duration,
    },
    /// The peer at this address holds another key than the one asked for. Never retried: check the
    /// id with the peer's owner.
    #[error("{addr} answered with another key than {expected:?}")]
    WrongKey {
        /// Where we dialled.
        addr: SocketAddr,
        /// The key we asked for; none when any key that `Trust` holds would have done.
        expected: Option<PeerId>,
    },
    /// The peer proved its key, but our `Trust` does not hold it. Name the key, or add it.
    #[error("{addr} holds a key that is not trusted here")]
    Untrusted {
        /// Where we dialled.
        addr: SocketAddr,
    },
    /// The peer refused our key.
    #[error("{addr} does not admit this key")]
    Refused {
        /// Where we dialled.
        addr: SocketAddr,
    },
    /// The peer has as many connections as it takes, in all or with our key. Try again later.
    #[error("{addr} has reached its limit of connections")]
    Busy {
        /// Where we dialled.
        addr: SocketAddr,
    },
    /// What answers there does not speak `shiplane/1`.
    #[error("{addr} does not speak shiplane/1")]
    WrongProtocol {
        /// Where we dialled.
        addr: SocketAddr,
    },
    /// The connection ended during the handshake.
    #[error("the handshake with {addr} failed: {end}")]
    Failed {
        /// Where we dialled.
        addr: SocketAddr,
        /// What ended it.
        end: ConnectionEnd,
    },
    /// This address cannot be dialled from here, or this transport is closed.
    #[error("cannot dial {addr} from here: {reason}")]
    CannotDial {
        /// Where we should have dialled.
        addr: SocketAddr,
        /// Why not.
        reason: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// Our own key or its TLS set-up failed.
    #[error("cannot set up TLS: {0}")]
    Tls(#[source] Arc<tls::TlsError>),
    /// The dialling task died, as when the runtime shuts down.
    #[error("the dial was cancelled")]
    Abandoned,
}

impl ConnectError {
    /// What the end of a connection means to a dialler that was not admitted yet.
    #[must_use]
    pub fn of_end(addr: SocketAddr, end: ConnectionEnd) -> Self {
        match end {
            ConnectionEnd::ClosedByPeer { code: Code::Unauthorised } => Self::Refused { addr },
            ConnectionEnd::ClosedByPeer { code: Code::Busy } => Self::Busy { addr },
            end => Self::Failed { addr, end },
        }
    }
}

impl ConnectError {
    /// Whether another dial may help: the peer may have been restarting or out of reach. Who may dial
    /// whom does not change by trying again.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::TimedOut { .. } | Self::Busy { .. } => true,
            Self::Failed { end, .. } => end.is_retryable(),
            Self::WrongKey { .. }
            | Self::Untrusted { .. }
            | Self::Refused { .. }
            | Self::WrongProtocol { .. }
            | Self::CannotDial { .. }
            | Self::Tls(_)
            | Self::Abandoned => false,
        }
    }
}

/// Why a transport could not be made.
#[derive(Debug, Error)]
#[cfg_attr(not(feature = "internals"), non_exhaustive)]
pub enum BindError {
    /// The socket could not be bound: the address is taken or not ours.
    #[error("cannot listen on {addr}: {source}")]
    Socket {
        /// What was asked for.
        addr: SocketAddr,
        /// The system's word.
        source: io::Error,
    },
    /// A fresh identity could not be made.
    #[error(transparent)]
    Identity(#[from] crate::identity::IdentityError),
    /// The TLS set-up failed.
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] tls::TlsError),
}

/// What went wrong on one stream.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[cfg_attr(not(feature = "internals"), non_exhaustive)]
pub enum StreamError {
    /// The peer abandoned what it was sending.
    #[error("the peer stopped sending ({0})")]
    Reset(Code),
    /// The peer does not want what we send.
    #[error("the peer stopped reading ({0})")]
    Stopped(Code),
    /// The peer sent more than it may.
    #[error("the peer sent more than {max_bytes} bytes")]
    TooLong {
        /// The limit.
        max_bytes: usize,
    },
    /// The peer made no progress for this long.
    #[error("the peer made no progress for {timeout:?}")]
    TimedOut {
        /// How long we waited.
        timeout: Duration,
    },
    /// The connection under the stream ended.
    #[error("connection lost: {0}")]
    ConnectionLost(#[from] ConnectionEnd),
    /// The caller's misuse: this half was already finished, reset or stopped.
    #[error("the stream was already closed on this side")]
    Closed,
}

impl StreamError {
    /// Whether the connection under the stream is gone, so that another dial may help.
    #[must_use]
    pub fn is_connection_loss(&self) -> bool {
        matches!(self, Self::ConnectionLost(_))
    }

    /// The code with which a stream is given up on which this happened.
    pub(crate) fn answer(&self) -> Code {
        match self {
            Self::TimedOut { .. } => Code::Timeout,
            Self::TooLong { .. } => Code::Protocol,
            Self::Reset(_) | Self::Stopped(_) | Self::ConnectionLost(_) | Self::Closed => Code::Cancelled,
        }
    }

    /// Whether the same on another stream, or another connection, may succeed.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::TimedOut { .. } => true,
            Self::Reset(code) | Self::Stopped(code) => may_pass(*code),
            Self::ConnectionLost(end) => end.is_retryable(),
            Self::TooLong { .. } | Self::Closed => false,
        }
    }
}

impl StreamError {
    pub(crate) fn of_write(error: quinn::WriteError) -> Self {
        match error {
            quinn::WriteError::Stopped(code) => Self::Stopped(Code::from_u64(code.into_inner())),
            quinn::WriteError::ConnectionLost(end) => Self::of_end(end),
            quinn::WriteError::ClosedStream | quinn::WriteError::ZeroRttRejected => Self::Closed,
        }
    }

    pub(crate) fn of_read(error: quinn::ReadError) -> Self {
        match error {
            quinn::ReadError::Reset(code) => Self::Reset(Code::from_u64(code.into_inner())),
            quinn::ReadError::ConnectionLost(end) => Self::of_end(end),
            quinn::ReadError::ClosedStream
            | quinn::ReadError::IllegalOrderedRead
            | quinn::ReadError::ZeroRttRejected => Self::Closed,
        }
    }

    pub(crate) fn of_end(error: quinn::ConnectionError) -> Self {
        Self::ConnectionLost(ConnectionEnd::of(error))
    }
}

/// Why a chunk was not delivered.
#[derive(Debug, Error)]
#[cfg_attr(not(feature = "internals"), non_exhaustive)]
pub enum SendChunkError {
    /// The source cannot be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The receiver found another digest than the one sent: corruption past the reach of TLS. Retry.
    #[error("the digest does not match at the receiver")]
    ChecksumFailed,
    /// The receiver could not take it (its limit, its disk, its user).
    #[error("the receiver refused the chunk{}", Reason(*code))]
    Rejected {
        /// The receiver's reason; none when it had the whole chunk before it gave up, or gave none.
        code: Option<Code>,
    },
    /// The receiver's answer was no valid status. Whether it kept the chunk is unknown.
    #[error("the receiver's status is invalid: {0}")]
    Status(#[from] StatusError),
    /// The stream failed. Whether the receiver kept the chunk is unknown.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// The size cannot be framed.
    #[error(transparent)]
    Frame(SendError),
}

impl SendChunkError {
    /// Whether the same chunk, sent again, may be taken. The receiver may have it already: see
    /// [`is_unknown`](Self::is_unknown).
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::ChecksumFailed | Self::Status(StatusError::Missing) => true,
            Self::Stream(error) => error.is_retryable(),
            // A file that changed is read anew; one that is missing stays so.
            Self::Source(SourceError::Changed) => true,
            Self::Rejected { code } => code.is_some_and(may_pass),
            Self::Source(SourceError::Io(_) | SourceError::Abandoned)
            | Self::Status(StatusError::Extra | StatusError::Early | StatusError::Unknown { .. })
            | Self::Frame(_) => false,
        }
    }

    /// The code with which the stream is given up.
    pub(crate) fn code(&self) -> Code {
        match self {
            Self::Source(SourceError::Changed) => Code::SourceChanged,
            Self::Source(SourceError::Io(_) | SourceError::Abandoned) => Code::SourceFailed,
            Self::Status(error) => error.code(),
            Self::Frame(error) => error.code(),
            Self::Stream(error) => error.answer(),
            Self::ChecksumFailed | Self::Rejected { .. } => Code::Cancelled,
        }
    }

    /// Whether the receiver may have kept the chunk all the same: its answer was lost or is no answer.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        match self {
            Self::Status(_) | Self::Stream(_) => true,
            Self::Source(_) | Self::ChecksumFailed | Self::Rejected { .. } | Self::Frame(_) => false,
        }
    }
}

/// Why a source could not be sent.
#[derive(Debug, Error)]
pub enum SourceError {
    /// It is not what it was when the transfer began. Nothing of it is kept; send it again.
    #[error("the source changed while it was being sent")]
    Changed,
    /// It cannot be opened or read.
    #[error("cannot read the source: {0}")]
    Io(#[from] io::Error),
    /// The reading thread died, as when the runtime shuts down.
    #[error("the reading thread ended early")]
    Abandoned,
}

/// Why a chunk was not received. `E` is the sink's error.
#[derive(Debug, Error)]
#[cfg_attr(not(feature = "internals"), non_exhaustive)]
pub enum RecvChunkError<E: std::error::Error + 'static = SinkError> {
    /// The sender announced more than the limit, or another size than was agreed on; nothing was
    /// allocated.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The sender broke the frame: wrong digest, too short, bytes after the digest.
    #[error(transparent)]
    Recv(#[from] RecvError),
    /// The stream failed or made no progress.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// The sink failed; see its error.
    #[error(transparent)]
    Sink(E),
    /// The writing thread died, as when the runtime shuts down.
    #[error("the writing thread ended early")]
    Abandoned,
}

impl<E: std::error::Error + 'static> RecvChunkError<E> {
    /// The status that the sender gets.
    pub(crate) fn refusal(&self) -> Refusal {
        match self {
            Self::Frame(error) => error.refusal(),
            Self::Recv(error) => error.refusal(),
            Self::Stream(_) | Self::Sink(_) | Self::Abandoned => Refusal::Error,
        }
    }

    /// The code with which the sender's stream is stopped.
    pub(crate) fn code(&self) -> Code {
        match self {
            Self::Frame(error) => error.code(),
            Self::Recv(error) => error.code(),
            Self::Stream(error) => error.answer(),
            Self::Abandoned => Code::Cancelled,
            Self::Sink(_) => Code::SinkFailed,
        }
    }
}

/// Why one of this crate's own sinks failed.
#[derive(Debug, Error)]
pub enum SinkError {
    /// A file of that name exists already; nothing was written over it.
    #[error("{path:?} exists already")]
    Exists {
        /// The final name.
        path: std::path::PathBuf,
    },
    /// The data is whole, but not what was agreed on before.
    #[error("the data differs from what was agreed")]
    WrongDigest,
    /// The disk or the writer failed.
    #[error("cannot write: {0}")]
    Io(#[from] io::Error),
}

/// Why a message was not sent or received.
#[derive(Debug, Error)]
#[cfg_attr(not(feature = "internals"), non_exhaustive)]
pub enum MessageError {
    /// Over the limit for messages; send it as a chunk down the lane.
    #[error("a message of {len_bytes} bytes is over the limit of {max_bytes}: send it as a chunk")]
    TooLarge {
        /// The message's length.
        len_bytes: usize,
        /// The limit.
        max_bytes: usize,
    },
    /// The peer ended the message early. It was discarded, and the stream was reset.
    #[error("the message ended after {received_bytes} of {expected_bytes} bytes")]
    Truncated {
        /// What came.
        received_bytes: u64,
        /// What was announced.
        expected_bytes: u64,
    },
    /// The dial failed.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The stream failed. Whether the peer took the message is unknown.
    #[error(transparent)]
    Stream(#[from] StreamError),
}

/// Whether a peer's reason is one that time mends.
fn may_pass(code: Code) -> bool {
    match code {
        Code::Cancelled
        | Code::Timeout
        | Code::Busy
        | Code::Unclaimed
        | Code::ShuttingDown
        | Code::DuplicateConnection
        | Code::Integrity
        | Code::SourceChanged => true,
        Code::NoError
        | Code::Protocol
        | Code::TooLarge
        | Code::Unauthorised
        | Code::SourceFailed
        | Code::SinkFailed
        | Code::UnknownKind
        | Code::Revoked
        | Code::PathRefused => false,
    }
}

/// A reason at the end of a sentence, if there is one.
struct Reason(Option<Code>);

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(code) => write!(f, " ({code})"),
            None => Ok(()),
        }
    }
}

/// What of a peer's close reason is kept: enough to read, too little to flood a log.
const MAX_REASON_LEN_BYTES: usize = 256;
