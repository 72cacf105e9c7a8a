//! A connection that speaks the octopii dialect.

use std::{
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex as SyncMutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use shiplane_transport::{
    ChunkSource, ConnectionEnd, LaneOptions, RecvChunkError, SendChunkError, StreamError,
    dialect::{BareConnection, file_sink, memory_sink, refusal_code},
    internals::{BiStream, ChunkSink, SinkError, blocking},
};
use shiplane_wire::{Code, Offer, Stored, Verified, limits};
use tokio::{
    sync::{Mutex, mpsc},
    time::timeout,
};

use crate::{
    error::OctopiiMessageError,
    intake::{self, Inbound, Lane, Messages, Policy, reject},
};

/// A connection to an **unauthenticated** peer in the octopii dialect (SPEC 9).
///
/// Chunks and messages can be sent at any time; what comes in is what the policy `P` says.
/// Dropped, it closes in order once what is under way has ended.
#[derive(Debug)]
pub struct InsecureOctopiiConnection<P: Policy> {
    connection: BareConnection,
    inbox: Mutex<mpsc::Receiver<Inbound>>,
    policy: P,
}

impl<P: Policy> InsecureOctopiiConnection<P> {
    pub(crate) fn new(connection: BareConnection, policy: P) -> Self {
        let inbox = intake::start(connection.clone(), policy);
        Self { connection, inbox: inbox.into(), policy }
    }

    /// The type of the incoming streams.
    #[must_use]
    pub fn policy(&self) -> P {
        self.policy
    }

    /// The peer's address. Any program may be there.
    #[must_use]
    pub fn remote_addr(&self) -> SocketAddr {
        self.connection.remote_addr()
    }

    /// Whether the connection has ended.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.connection.is_closed()
    }

    /// Waits for the end and says why it came. Cancel-safe.
    pub async fn closed(&self) -> ConnectionEnd {
        self.connection.closed().await
    }

    /// Ends the connection at once; what is under way fails on both sides. [`Code::NoError`] is an
    /// orderly end. If the connection has ended before, that end stands.
    pub fn close(&self, code: Code) {
        self.connection.close(code);
    }

    /// Waits until no stream is open, so that a close loses nothing.
    ///
    /// Cancel-safe.
    pub async fn drained(&self) {
        self.connection.drained().await;
    }

    /// Sends a chunk and waits until the receiver has verified it. Returns its size in bytes.
    ///
    /// Not cancel-safe: dropping resets the stream, and the receiver keeps nothing.
    ///
    /// # Errors
    /// See [`SendChunkError`]; each variant says whether another try may help.
    pub async fn send_chunk_verified(&self, chunk: &ChunkSource) -> Result<u64, SendChunkError> {
        self.send_chunk_with(chunk, &LaneOptions::default()).await
    }

    /// As [`send_chunk_verified`](Self::send_chunk_verified), with progress.
    ///
    /// Not cancel-safe: dropping resets the stream, and the receiver keeps nothing.
    ///
    /// # Errors
    /// As there.
    pub async fn send_chunk_with(
        &self,
        chunk: &ChunkSource,
        options: &LaneOptions,
    ) -> Result<u64, SendChunkError> {
        // SPEC 9.7
        Ok(self.connection.send_chunk(chunk.opened().await?, options).await?.len_bytes)
    }

    /// Sends a message of at most 1 MiB and waits until the peer has taken it. The peer must be one that
    /// takes messages on this connection.
    ///
    /// Not cancel-safe: dropped midway, whether the peer gets it is unknown.
    ///
    /// # Errors
    /// [`OctopiiMessageError::TooLarge`] before anything is sent; otherwise its `Stream`.
    pub async fn send(&self, data: Bytes) -> Result<(), OctopiiMessageError> {
        let len_bytes = check_message_len(data.len() as u64)?;
        let progress_timeout = self.connection.config().timeouts().progress;
        let mut stream = self.connection.open().await?;
        // SPEC 9.8
        let prefix = Bytes::copy_from_slice(&len_bytes.to_le_bytes());
        stream.send.write_within(prefix, progress_timeout).await?;
        stream.send.write_within(data, progress_timeout).await?;
        stream.send.finish()?;
        match stream.recv.read_within(progress_timeout).await? {
            None => Ok(()),
            Some(_) => Err(StreamError::TooLong { max_bytes: 0 }.into()),
        }
    }

    /// The next stream; `None` after an orderly end of the connection (SPEC 9.9).
    async fn next(&self) -> Result<Option<Inbound>, StreamError> {
        if let Some(inbound) = self.inbox.lock().await.recv().await {
            return Ok(Some(inbound));
        }
        let end = self.closed().await;
        if end.is_orderly() { Ok(None) } else { Err(end.into()) }
    }
}

impl InsecureOctopiiConnection<Lane> {
    /// Receives the next chunk into memory; `None` after the connection's orderly end.
    ///
    /// Cancel-safe until a chunk has begun to arrive; dropping later rejects that chunk.
    ///
    /// # Errors
    /// See [`RecvChunkError`]. The connection remains usable unless it says otherwise.
    pub async fn recv_chunk_verified(&self) -> Result<Option<Bytes>, RecvChunkError> {
        let max_bytes = self.connection.config().bare_chunk_limit_bytes();
        let received = self.recv_frame(max_bytes, || Ok(memory_sink()), &LaneOptions::default()).await?;
        Ok(received.map(|(_, data)| data))
    }

    /// Receives the next chunk into a new file at `path`, in bounded memory, and returns its size in
    /// bytes; `None` after the connection's orderly end. The file appears whole, verified and synced, or
    /// not at all.
    ///
    /// Cancel-safe until a chunk has begun to arrive; dropping later rejects that chunk and leaves no file.
    ///
    /// # Errors
    /// `SinkError::Exists` inside [`RecvChunkError::Sink`] when the name is taken, and as
    /// [`recv_chunk_verified`](Self::recv_chunk_verified).
    pub async fn recv_chunk_to_path(
        &self,
        path: &Path,
        options: &LaneOptions,
    ) -> Result<Option<u64>, RecvChunkError> {
        let path = path.to_owned();
        let sink = move || file_sink(&path);
        let received = self.recv_frame(limits::MAX_FRAME_LEN_BYTES, sink, options).await?;
        Ok(received.map(|(len_bytes, ())| len_bytes))
    }

    async fn recv_frame<S: ChunkSink<Error = SinkError>>(
        &self,
        max_bytes: u64,
        make_sink: impl FnOnce() -> Result<S, SinkError> + Send + 'static,
        options: &LaneOptions,
    ) -> Result<Option<(u64, S::Output)>, RecvChunkError> {
        let Some(Inbound { len_bytes, stream }) = self.next().await? else {
            return Ok(None);
        };
        let prepared = async {
            let offer = Offer::new(len_bytes, max_bytes)?;
            let sink = blocking::spawn(make_sink).await.map_err(|_| RecvChunkError::Abandoned)?;
            Ok((offer, sink.map_err(RecvChunkError::Sink)?))
        };
        let (offer, inner) = match prepared.await {
            Ok(prepared) => prepared,
            Err(error) => {
                let error: RecvChunkError = error;
                self.connection.refuse_chunk(stream, refusal_code(&error)).await;
                return Err(error);
            }
        };
        let committed = Arc::default();
        let sink = KeepOutput { inner, committed: Arc::clone(&committed) };
        let received = self.connection.recv_chunk(stream, offer, sink, options).await;
        let output = committed.lock().unwrap_or_else(PoisonError::into_inner).take();
        match (received, output) {
            // SPEC 9.7: once the chunk is kept, how its stream ends changes nothing.
            (Ok(()) | Err(RecvChunkError::Stream(_)), Some(output)) => Ok(Some((len_bytes, output))),
            (Err(error), _) => Err(error),
            (Ok(()), None) => Err(RecvChunkError::Abandoned),
        }
    }
}

impl InsecureOctopiiConnection<Messages> {
    /// The peer's next message; `None` after the connection's orderly end.
    ///
    /// Cancel-safe until a message has begun to arrive; dropping later rejects that message.
    ///
    /// # Errors
    /// See [`OctopiiMessageError`]. Unless the connection is lost, the next message can be received.
    pub async fn recv(&self) -> Result<Option<Bytes>, OctopiiMessageError> {
        let Some(Inbound { len_bytes, mut stream }) = self.next().await? else {
            return Ok(None);
        };
        let progress_timeout = self.connection.config().timeouts().progress;
        match read_message(&mut stream, len_bytes, progress_timeout).await {
            Ok(data) => {
                // SPEC 9.8: the empty FIN.
                stream.send.finish()?;
                Ok(Some(data))
            }
            Err((error, code)) => {
                reject(stream, code);
                Err(error)
            }
        }
    }
}

impl<P: Policy> Drop for InsecureOctopiiConnection<P> {
    fn drop(&mut self) {
        // The intake and quinn hold the connection too: close it explicitly. What was sent
        // last must still arrive: a close discards what has not been acknowledged.
        let connection = self.connection.clone();
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) if !connection.is_idle() && !connection.is_closed() => {
                runtime.spawn(async move {
                    let progress_timeout = connection.config().timeouts().progress;
                    let _ = timeout(progress_timeout, connection.drained()).await;
                    connection.close(Code::NoError);
                });
            }
            _ => connection.close(Code::NoError),
        }
    }
}

/// Exactly one message, to the end of its stream; or the error, and the code to refuse it with.
async fn read_message(
    stream: &mut BiStream,
    len_bytes: u64,
    progress_timeout: Duration,
) -> Result<Bytes, (OctopiiMessageError, Code)> {
    let len = check_message_len(len_bytes).map_err(|error| (error, Code::TooLarge))? as usize;
    let data = match timeout(progress_timeout, stream.recv.read_to_end(len)).await {
        Ok(read) => read.map_err(|error| (error.into(), Code::Protocol))?,
        Err(_) => return Err((StreamError::TimedOut { timeout: progress_timeout }.into(), Code::Timeout)),
    };
    let received_bytes = data.len() as u64;
    if received_bytes < len_bytes {
        let error = OctopiiMessageError::Truncated { received_bytes, expected_bytes: len_bytes };
        return Err((error, Code::Protocol));
    }
    Ok(data)
}

fn check_message_len(len_bytes: u64) -> Result<u32, OctopiiMessageError> {
    match u32::try_from(len_bytes) {
        Ok(len) if len <= limits::MAX_MESSAGE_LEN_BYTES => Ok(len),
        _ => {
            let max_bytes = limits::MAX_MESSAGE_LEN_BYTES.into();
            Err(OctopiiMessageError::TooLarge { len_bytes, max_bytes })
        }
    }
}

/// Sets the commit's output aside, so that it outlives a stream that fails afterwards.
struct KeepOutput<S: ChunkSink> {
    inner: S,
    committed: Arc<SyncMutex<Option<S::Output>>>,
}

impl<S: ChunkSink<Error = SinkError>> ChunkSink for KeepOutput<S> {
    type Output = ();
    type Error = SinkError;

    fn write(&mut self, data: &[u8]) -> Result<(), SinkError> {
        self.inner.write(data)
    }

    fn commit(self, verified: Verified) -> Result<(Stored, ()), SinkError> {
        let (stored, output) = self.inner.commit(verified)?;
        *self.committed.lock().unwrap_or_else(PoisonError::into_inner) = Some(output);
        Ok((stored, ()))
    }
}
