//! A peer on raw quinn that completes the handshake and then misbehaves as told.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use futures::StreamExt as _;
use quinn_proto::crypto;
use serde::Serialize;
use shiplane_rpc::internals::encode;
use shiplane_transport::{Identity, PeerId, Trust, test_support};
use shiplane_wire::{ProviderRecord, RecordReader, StreamHeader, StreamKind, TransferId};

use super::{enough, tell};

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
    configs: std::iter::Cycle<std::vec::IntoIter<quinn::ClientConfig>>,
    server: SocketAddr,
}

impl Dialler {
    pub(crate) fn new(server: &Server, quic: quinn::TransportConfig) -> Result<Self> {
        Self::with(server, quic, |crypto| crypto)
    }

    /// As [`new`](Self::new), with what seals the packets replaced.
    pub(crate) fn with(
        server: &Server,
        quic: quinn::TransportConfig,
        wrap: impl Fn(Arc<dyn crypto::ClientConfig>) -> Arc<dyn crypto::ClientConfig>,
    ) -> Result<Self> {
        let (trust, quic) = (Trust::only([server.id]), Arc::new(quic));
        let config = |identity: &Identity| {
            let crypto = test_support::client_crypto(identity, &trust, &[b"shiplane/1"])?;
            let mut config = quinn::ClientConfig::new(wrap(Arc::new(crypto)));
            config.transport_config(Arc::clone(&quic));
            Ok(config)
        };
        let configs = server.keys.iter().map(config).collect::<Result<Vec<_>>>()?;
        let endpoint = quinn::Endpoint::client(([127, 0, 0, 1], 0).into())?;
        Ok(Self { endpoint, configs: configs.into_iter().cycle(), server: server.addr })
    }

    /// A connection with the next key in turn.
    pub(crate) fn dial(&mut self) -> Result<quinn::Connecting> {
        let config = self.configs.next().context("there are no keys")?;
        Ok(self.endpoint.connect_with(config, self.server, test_support::SERVER_NAME)?)
    }

    /// Dials `count` times, some at a time, and begins something on each connection, which is given its number. Says how
    /// many there are of it, and how often that failed.
    pub(crate) async fn begin<T>(
        &mut self,
        name: &str,
        count: usize,
        begin: impl AsyncFn(usize, quinn::Connection) -> Result<T>,
    ) -> Result<Vec<T>> {
        let begin = &begin;
        let dials = futures::stream::iter(0..count).map(|number| {
            let connecting = self.dial();
            async move { begin(number, connecting?.await?).await }
        });
        let outcomes: Vec<_> = dials.buffer_unordered(DIALS_AT_A_TIME).collect().await;
        let begun: Vec<T> = outcomes.into_iter().filter_map(Result::ok).collect();
        tell(&[(name, begun.len() as u64), ("refused", (count - begun.len()) as u64)])?;
        Ok(begun)
    }

    /// Waits until it is enough, and says what has become of all. Then closes its connections.
    pub(crate) async fn end<const N: usize>(
        self,
        figures: impl AsyncFnOnce() -> [(&'static str, u64); N],
    ) -> Result<()> {
        enough().await;
        tell(&figures().await)?;
        self.finish().await;
        Ok(())
    }

    /// Closes all its connections and waits until the server has been told.
    pub(crate) async fn finish(self) {
        self.endpoint.close(0u32.into(), b"");
        // No longer than that: what cannot be told is found by the idle timeout.
        let _ = tokio::time::timeout(Duration::from_secs(2), self.endpoint.wait_idle()).await;
    }
}

/// Settings of a peer that never grows tired.
pub(crate) fn patient() -> quinn::TransportConfig {
    let mut quic = quinn::TransportConfig::default();
    quic.keep_alive_interval(Some(Duration::from_secs(5))).max_concurrent_bidi_streams(64u32.into());
    quic
}

/// Calls `method` (SPEC 5.1, 5.2) and returns the answer's body; a fault is an error.
pub(crate) async fn call(
    connection: &quinn::Connection,
    method: &str,
    body: &impl Serialize,
) -> Result<Vec<u8>> {
    let (mut send, mut recv) = connection.open_bi().await?;
    send_envelope(&mut send, &(next(), method, DEADLINE_MS, &encode(body)?[..])).await?;
    let answer = recv.read_to_end(2 << 20).await?;
    match answer.get(HEAD..HEAD + 8 + 4 + 8) {
        Some(head) if head[8..12] == [0; 4] => Ok(answer[HEAD + 20..].to_vec()),
        Some(head) => Err(Fault(head[12]).into()),
        None => bail!("an answer without a head"),
    }
}

/// Writes an envelope (SPEC 5.2) after its header, and ends the stream.
pub(crate) async fn send_envelope(send: &mut quinn::SendStream, envelope: &impl Serialize) -> Result<()> {
    let envelope = encode(envelope)?;
    let header = StreamHeader::new(StreamKind::RpcCall, envelope.len() as u64)?;
    send.write_all_chunks(&mut [Bytes::copy_from_slice(&header.encode()), envelope]).await?;
    Ok(send.finish()?)
}

/// The code of a fault (SPEC 5.13).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("fault {0}")]
pub(crate) struct Fault(pub(crate) u8);

/// Opens a fetch of the file `large` (SPEC 5.10) and its records stream, and reads the manifest to its end.
pub(crate) async fn open_fetch(
    connection: &quinn::Connection,
) -> Result<(quinn::SendStream, quinn::RecvStream)> {
    let (compression, rate, invitation, attributes) = (0_u32, 0_u8, 0_u8, 0_u8);
    let transfer = *transfer_id().as_bytes();
    let body = (transfer, "large", compression, rate, DIGESTS, NO_FILTERS, invitation, attributes);
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
    bail!("the manifest has no end")
}

/// The stream of records that the peer opens, behind its opening.
pub(crate) async fn accept_records(
    connection: &quinn::Connection,
) -> Result<(quinn::SendStream, quinn::RecvStream)> {
    let (send, mut recv) = connection.accept_bi().await?;
    let mut opening = [0; 8 + TransferId::LEN_BYTES];
    recv.read_exact(&mut opening).await?;
    Ok((send, recv))
}

/// Ids of transfers, each another one.
pub(crate) fn transfer_id() -> TransferId {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&next().to_le_bytes());
    // So that two runs against one server have no id in common.
    id[8..12].copy_from_slice(&std::process::id().to_le_bytes());
    TransferId::from_bytes(id)
}

/// The next number of this process, for ids.
fn next() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// No patterns, no list, no ignore files, any file system (SPEC 5.23).
pub(crate) const NO_FILTERS: [u8; 11] = [0; 11];

/// SHA-256 and BLAKE3 (SPEC 4.21).
pub(crate) const DIGESTS: u8 = 3;

/// Below the mark from which addresses have to be proven.
const DIALS_AT_A_TIME: usize = 32;

/// A stream's header.
pub(crate) const HEAD: usize = 8;

/// The caller's budget.
const DEADLINE_MS: u64 = 20_000;
