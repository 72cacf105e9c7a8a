//! The first bytes of incoming streams, each read in a task of its own, so that a stream that is opened
//! and stays silent holds up no other.

use std::fmt::Debug;

use shiplane_transport::{MAX_CONCURRENT_STREAMS, dialect::BareConnection, internals::BiStream};
use shiplane_wire::Code;
use tokio::{sync::mpsc, time::timeout};

/// The type of the incoming streams of a connection (SPEC 9.5). Both types may be sent under either.
pub trait Policy: sealed::Stream + Debug + Copy + Send + Sync + 'static {}

/// Every incoming stream is a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lane;

/// Every incoming stream is a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Messages;

impl Policy for Lane {}

impl Policy for Messages {}

/// A stream whose length prefix has been read.
#[derive(Debug)]
pub(crate) struct Inbound {
    /// The peer's word; no limit has been applied.
    pub(crate) len_bytes: u64,
    pub(crate) stream: BiStream,
}

/// Starts to read the streams of `connection`; ends with it, and so does the returned inbox.
pub(crate) fn start<P: Policy>(connection: BareConnection, _policy: P) -> mpsc::Receiver<Inbound> {
    let (outlet, inbox) = mpsc::channel(INBOX_LEN);
    tokio::spawn(async move {
        while let Some(stream) = connection.accept().await {
            // Bounded by the number of streams that the peer may have open.
            tokio::spawn(read_prefix::<P>(connection.clone(), stream, outlet.clone()));
        }
    });
    inbox
}

async fn read_prefix<P: Policy>(
    connection: BareConnection,
    mut stream: BiStream,
    outlet: mpsc::Sender<Inbound>,
) {
    let mut prefix = [0; 8];
    let read = stream.recv.read_exact(&mut prefix[..P::PREFIX_LEN_BYTES]);
    let code = match timeout(connection.config().timeouts().header, read).await {
        Ok(Ok(true)) => {
            // Little-endian: the bytes that a shorter prefix has not are zeros.
            let inbound = Inbound { len_bytes: u64::from_le_bytes(prefix), stream };
            // Fails when the connection's handle is gone; the stream is then reset by its drop.
            outlet.send(inbound).await.ok();
            return;
        }
        Ok(Ok(false)) => Code::Protocol,
        Ok(Err(error)) => {
            tracing::debug!(%error, "a stream ended before its length");
            return;
        }
        Err(_) => Code::Timeout,
    };
    tracing::debug!(%code, "a stream without a length was refused");
    P::refuse(&connection, stream, code).await;
}

/// Abandons both halves.
pub(crate) fn reject(stream: BiStream, code: Code) {
    stream.send.reset(code);
    stream.recv.stop(code);
}

mod sealed {
    use super::{BareConnection, BiStream, Code};

    /// How a policy's streams begin, and how one that cannot be taken is answered.
    pub trait Stream {
        /// Length of the length prefix.
        const PREFIX_LEN_BYTES: usize;

        fn refuse(
            connection: &BareConnection,
            stream: BiStream,
            code: Code,
        ) -> impl Future<Output = ()> + Send;
    }
}

// SPEC 9.6
impl sealed::Stream for Lane {
    const PREFIX_LEN_BYTES: usize = 8;

    async fn refuse(connection: &BareConnection, stream: BiStream, code: Code) {
        connection.refuse_chunk(stream, code).await;
    }
}

// SPEC 9.8
impl sealed::Stream for Messages {
    const PREFIX_LEN_BYTES: usize = 4;

    async fn refuse(_: &BareConnection, stream: BiStream, code: Code) {
        // Anything but the empty FIN that would accept it.
        reject(stream, code);
    }
}

/// As many as a peer may have open: with the stream limit at its default, the inbox never fills up.
const INBOX_LEN: usize = MAX_CONCURRENT_STREAMS as usize;
