//! A peer on raw quinn that completes the handshake and then misbehaves as told.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use futures::StreamExt as _;
use quinn_proto::crypto;
use shiplane_transport::{Identity, PeerId, Trust, test_support};
use shiplane_wire::{ProviderRecord, RecordReader, StreamHeader, StreamKind, TransferId};

use crate::peers::Failure;

/// Who is under load, and the keys that have a right there.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) addr: SocketAddr,
    pub(crate) id: PeerId,
    pub(crate) keys: Vec<Identity>,
}

/// One socket and the TLS settings of every key.
pub(crate) struct Dialler {
    endpoint: quinn::Endpoint,
    configs: Vec<quinn::ClientConfig>,
    server: SocketAddr,
    next: usize,
}

impl Dialler {
    pub(crate) fn new(server: &Server, quic: quinn::TransportConfig) -> Result<Self, Failure> {
        Self::with(server, quic, |crypto| crypto)
    }

    /// As [`new`](Self::new), with what seals the packets replaced.
    pub(crate) fn with(
        server: &Server,
        quic: quinn::TransportConfig,
        wrap: impl Fn(Arc<dyn crypto::ClientConfig>) -> Arc<dyn crypto::ClientConfig>,
    ) -> Result<Self, Failure> {
        let (trust, quic) = (Trust::only([server.id]), Arc::new(quic));
        let config = |identity: &Identity| {
            let crypto = test_support::client_crypto(identity, &trust, &[b"shiplane/1"])?;
            let mut config = quinn::ClientConfig::new(wrap(Arc::new(crypto)));
            config.transport_config(Arc::clone(&quic));
            Ok(config)
        };
        let configs = server.keys.iter().map(config).collect::<Result<_, Failure>>()?;
        let endpoint = quinn::Endpoint::client(([127, 0, 0, 1], 0).into())?;
        Ok(Self { endpoint, configs, server: server.addr, next: 0 })
    }

    /// Closes all its connections and waits until the server has been told.
    pub(crate) async fn finish(self) {
        self.endpoint.close(0u32.into(), b"");
        // No longer than that: what cannot be told is found by the idle timeout.
        let _ = tokio::time::timeout(std::time::Duration::from_secs(2), self.endpoint.wait_idle()).await;
    }

    /// Dials `count` times, some at a time, and begins something on each connection, which is given its number. Gives what
    /// was begun, and how often that failed.
    pub(crate) async fn dial_all<T, B>(
        &mut self,
        count: usize,
        begin: impl Fn(usize, quinn::Connecting) -> B,
    ) -> (Vec<T>, u64)
    where
        B: Future<Output = Result<T, Failure>>,
    {
        let begin = &begin;
        let dials = futures::stream::iter(0..count).map(|number| {
            let connecting = self.dial();
            async move { begin(number, connecting?).await }
        });
        let mut dials = std::pin::pin!(dials.buffer_unordered(DIALS_AT_A_TIME));
        let (mut begun, mut refused) = (Vec::new(), 0);
        while let Some(outcome) = dials.next().await {
            match outcome {
                Ok(one) => begun.push(one),
                Err(failure) => {
                    tracing::debug!(%failure, "refused");
                    refused += 1;
                }
            }
        }
        (begun, refused)
    }

    /// A connection with the next key in turn.
    pub(crate) fn dial(&mut self) -> Result<quinn::Connecting, Failure> {
        let config = self.configs[self.next % self.configs.len()].clone();
        self.next += 1;
        Ok(self.endpoint.connect_with(config, self.server, test_support::SERVER_NAME)?)
    }
}

/// Settings of a peer that never grows tired.
pub(crate) fn patient() -> quinn::TransportConfig {
    let mut quic = quinn::TransportConfig::default();
    quic.keep_alive_interval(Some(std::time::Duration::from_secs(5)))
        .max_concurrent_bidi_streams(64u32.into());
    quic
}

/// The next call; ids are a peer's own.
static NEXT_CALL: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);

/// Calls `method` (SPEC 5.1, 5.2) and returns the answer's body; a fault is an error.
pub(crate) async fn call(
    connection: &quinn::Connection,
    method: &str,
    body: &[u8],
) -> Result<Vec<u8>, Failure> {
    let id = NEXT_CALL.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let mut envelope = BytesMut::new();
    envelope.put_u64_le(id);
    put_bytes(&mut envelope, method.as_bytes());
    envelope.put_u64_le(DEADLINE_MS);
    put_bytes(&mut envelope, body);
    let header = StreamHeader::new(StreamKind::RpcCall, envelope.len() as u64)?;
    let (mut send, mut recv) = connection.open_bi().await?;
    send.write_all_chunks(&mut [Bytes::copy_from_slice(&header.encode()), envelope.freeze()]).await?;
    send.finish()?;
    let answer = recv.read_to_end(2 << 20).await?;
    match answer.get(HEAD..HEAD + 8 + 4 + 8) {
        Some(head) if head[8..12] == [0; 4] => Ok(answer[HEAD + 20..].to_vec()),
        Some(head) => Err(Fault(head[12]).into()),
        None => Err("an answer without a head".into()),
    }
}

/// A call that came in.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) id: u64,
    pub(crate) method: String,
    pub(crate) body: Bytes,
}

impl Request {
    /// Reads an envelope (SPEC 5.2).
    pub(crate) fn parse(envelope: Vec<u8>) -> Result<Self, Failure> {
        let mut rest = Bytes::from(envelope);
        let id = rest.try_get_u64_le()?;
        let method = String::from_utf8(take_bytes(&mut rest)?.to_vec())?;
        rest.try_get_u64_le()?; // Until when.
        Ok(Self { id, method, body: take_bytes(&mut rest)? })
    }

    /// What it asks for: where it redeems a ticket, the call that comes with that (SPEC 5.12).
    pub(crate) fn carried(self) -> Result<Self, Failure> {
        if self.method != "ticket.redeem" {
            return Ok(self);
        }
        let mut rest = self.body.get(16..).map(|rest| self.body.slice_ref(rest)).ok_or("a short secret")?;
        let method = String::from_utf8(take_bytes(&mut rest)?.to_vec())?;
        Ok(Self { id: self.id, method, body: take_bytes(&mut rest)? })
    }
}

/// The code of a fault (SPEC 5.13).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("fault {0}")]
pub(crate) struct Fault(pub(crate) u8);

/// A length and as many bytes (SPEC 5.2).
pub(crate) fn put_bytes(out: &mut BytesMut, bytes: &[u8]) {
    out.put_u64_le(bytes.len() as u64);
    out.put_slice(bytes);
}

/// The same, taken from the front.
fn take_bytes(rest: &mut Bytes) -> Result<Bytes, Failure> {
    let len = usize::try_from(rest.try_get_u64_le()?)?;
    if rest.len() < len {
        return Err("a call that is cut short".into());
    }
    Ok(rest.split_to(len))
}

/// Ids of transfers, each another one.
pub(crate) fn transfer_id() -> TransferId {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
    let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let mut id = [0; 16];
    id[..8].copy_from_slice(&number.to_le_bytes());
    // So that two runs against one server have no id in common.
    id[8..12].copy_from_slice(&std::process::id().to_le_bytes());
    TransferId::from_bytes(id)
}

/// Opens a fetch of `path` (SPEC 5.10) and its records stream, and reads the manifest to its end.
pub(crate) async fn open_fetch(
    connection: &quinn::Connection,
    path: &[u8],
) -> Result<(quinn::SendStream, quinn::RecvStream), Failure> {
    let transfer = transfer_id();
    let mut body = BytesMut::new();
    body.put_slice(transfer.as_bytes());
    put_bytes(&mut body, path);
    body.put_u32_le(0); // No compression.
    body.put_u8(0); // Any rate.
    body.put_u8(DIGESTS);
    body.put_slice(NO_FILTERS);
    body.put_u8(0); // No invitation.
    body.put_u8(0); // No attributes.
    call(connection, "fetch.open", &body).await?;
    let (send, mut recv) = accept_records(connection).await?;
    let mut reader = RecordReader::<ProviderRecord>::new();
    while let Some(chunk) = recv.read_chunk(4096, true).await? {
        reader.push(chunk.bytes);
        while let Some(record) = reader.poll()? {
            if matches!(record, ProviderRecord::End { .. }) {
                return Ok((send, recv));
            }
        }
    }
    Err("the manifest has no end".into())
}

/// The stream of records that the peer opens, behind its opening.
pub(crate) async fn accept_records(
    connection: &quinn::Connection,
) -> Result<(quinn::SendStream, quinn::RecvStream), Failure> {
    let (send, mut recv) = connection.accept_bi().await?;
    let mut opening = [0; 8 + TransferId::LEN_BYTES];
    recv.read_exact(&mut opening).await?;
    Ok((send, recv))
}

/// A push whose records stream is open.
pub(crate) struct OpenedPush {
    pub(crate) transfer: TransferId,
    pub(crate) send: quinn::SendStream,
    pub(crate) recv: quinn::RecvStream,
    /// Whether the server waits to be offered chunks (SPEC 4.24).
    pub(crate) is_invited: bool,
}

/// Opens a push (SPEC 5.5) below the root: of one file of so many bytes, or of a directory of unknown size.
pub(crate) async fn open_push(
    connection: &quinn::Connection,
    name: &str,
    file_len_bytes: Option<u64>,
) -> Result<OpenedPush, Failure> {
    let transfer = transfer_id();
    let mut body = BytesMut::new();
    body.put_slice(transfer.as_bytes());
    put_bytes(&mut body, b"");
    body.put_u32_le(u32::from(file_len_bytes.is_none())); // A file, or a directory.
    put_bytes(&mut body, name.as_bytes());
    body.put_slice(&[7; 32]); // Source
    body.put_u8(u8::from(file_len_bytes.is_some())); // Total
    if let Some(total_bytes) = file_len_bytes {
        body.put_u64_le(total_bytes);
    }
    body.put_u32_le(0); // Nothing that exists is replaced,
    body.put_u8(0); // or deleted.
    body.put_u8(0); // Durable
    body.put_u64_le(shiplane_wire::limits::DEFAULT_PAYLOAD_CHUNK_LEN_BYTES);
    body.put_u32_le(0); // Compression
    body.put_u8(DIGESTS);
    body.put_slice(NO_FILTERS);
    body.put_u8(0); // No attributes.
    let ready = call(connection, "push.open", &body).await?;
    let (send, recv) = accept_records(connection).await?;
    Ok(OpenedPush { transfer, send, recv, is_invited: ready.last() == Some(&1) })
}

/// No patterns, no list, no ignore files, any file system (SPEC 5.23).
const NO_FILTERS: &[u8] = &[0; 11];

/// Below the mark from which addresses have to be proven.
const DIALS_AT_A_TIME: usize = 32;

/// SHA-256 and BLAKE3 (SPEC 4.21).
pub(crate) const DIGESTS: u8 = 3;

/// A stream's header.
const HEAD: usize = 8;

/// The caller's budget.
const DEADLINE_MS: u64 = 20_000;
