//! A server that resembles `shiplane serve` and lies to its clients.

use std::net::SocketAddr;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use shiplane_access::internals::{Ticket, TicketSecret};
use shiplane_transport::{Admission, Identity, Trust, test_support};
use shiplane_wire::{Opened, OpeningReader, StreamHeader, StreamKind, TransferId, records_opening};

use super::Lie;
use super::provider::Provider;
use crate::peers::Failure;
use crate::peers::peer::{Request, patient, put_bytes};

/// A lying server on a thread of its own. It ends when dropped.
#[derive(Debug)]
pub struct LyingServer {
    ticket: String,
    goes_on: mpsc::Receiver<()>,
    runtime: Option<tokio::runtime::Runtime>,
}

impl LyingServer {
    /// Starts it on loopback. A lie about entries has so many of them.
    ///
    /// # Errors
    /// When there is no socket, no thread or no randomness.
    pub fn start(lie: Lie, entries: u32) -> Result<Self, Failure> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let (goes_on, heard) = mpsc::channel();
        let identity = Identity::generate()?;
        let trust = Trust::ask(|_| Admission::Trusted);
        let mut config = test_support::server_config(&identity, &trust, &[b"shiplane/1"])?;
        config.transport_config(Arc::new(patient()));
        let endpoint = {
            let _entered = runtime.enter();
            quinn::Endpoint::server(config, SocketAddr::from(([127, 0, 0, 1], 0)))?
        };
        let at = endpoint.local_addr()?.to_string().parse()?;
        let ticket = Ticket::for_everything(identity.peer_id(), at, TicketSecret::random()?).to_string();
        runtime.spawn(serve(endpoint, Telling { lie, entries, goes_on }));
        Ok(Self { ticket, goes_on: heard, runtime: Some(runtime) })
    }

    /// What `shiplane get` takes for a source.
    #[must_use]
    pub fn ticket(&self) -> &str {
        &self.ticket
    }

    /// Waits until a victim listens to a lie that goes on by itself: signs of life, single bytes, entries without
    /// end. Whether one does within `limit`.
    #[must_use]
    pub fn goes_on_within(&self, limit: Duration) -> bool {
        self.goes_on.recv_timeout(limit).is_ok()
    }
}

impl Drop for LyingServer {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// What is told to a victim.
#[derive(Debug, Clone)]
struct Telling {
    lie: Lie,
    entries: u32,
    goes_on: mpsc::Sender<()>,
}

async fn serve(endpoint: quinn::Endpoint, telling: Telling) {
    while let Some(incoming) = endpoint.accept().await {
        let telling = telling.clone();
        tokio::spawn(async move {
            let Ok(connection) = incoming.await else { return };
            while let Ok((send, recv)) = connection.accept_bi().await {
                let (connection, telling) = (connection.clone(), telling.clone());
                tokio::spawn(async move {
                    // However the victim ends it: that is told by the victim.
                    let _ended = answer(connection, send, recv, telling).await;
                });
            }
        });
    }
}

/// Answers a call, and lies on a stream of records about what was asked for.
async fn answer(
    connection: quinn::Connection,
    send: quinn::SendStream,
    mut recv: quinn::RecvStream,
    telling: Telling,
) -> Result<(), Failure> {
    let Telling { lie, entries, goes_on } = telling;
    let mut opening = OpeningReader::new();
    let opened = loop {
        // No further than the opening: what follows it is the stream's.
        let Some(chunk) = recv.read_chunk(1, true).await? else { return Ok(()) };
        if let Some(opened) = opening.push(&mut chunk.bytes.clone())? {
            break opened;
        }
    };
    if !matches!(opened, Opened::Rpc { .. }) {
        return Ok(());
    }
    let Some((transfer, is_invited)) = answer_call(send, recv, lie).await? else { return Ok(()) };
    let (mut send, recv) = connection.open_bi().await?;
    send.write_all(&records_opening(transfer)).await?;
    let mut provider = Provider::new(connection, transfer, send, recv);
    provider.only = (lie == Lie::HugeStream).then_some("huge");
    (provider.is_invited, provider.goes_on) = (is_invited, Some(goes_on));
    provider.tell(lie, entries).await
}

/// Gives the transfer that the call has opened, and whether the first chunks are invited.
async fn answer_call(
    mut send: quinn::SendStream,
    mut recv: quinn::RecvStream,
    lie: Lie,
) -> Result<Option<(TransferId, bool)>, Failure> {
    let request = Request::parse(recv.read_to_end(MAX_REQUEST_LEN_BYTES).await?)?.carried()?;
    let (body, asked) = match request.method.as_str() {
        "" => (Bytes::new(), None),
        "fetch.open" if lie != Lie::Mute => (opened(lie), Some(asked_for(&request.body)?)),
        _ => return std::future::pending().await,
    };
    let mut envelope = BytesMut::new();
    envelope.put_u64_le(request.id);
    envelope.put_u32_le(0); // An answer, no fault.
    put_bytes(&mut envelope, &body);
    let header = StreamHeader::new(StreamKind::RpcCall, envelope.len() as u64)?;
    send.write_all_chunks(&mut [Bytes::copy_from_slice(&header.encode()), envelope.freeze()]).await?;
    send.finish()?;
    Ok(asked)
}

/// The transfer of a `fetch.open`, and whether it invites (SPEC 5.10).
fn asked_for(body: &[u8]) -> Result<(TransferId, bool), Failure> {
    let id = body.first_chunk().ok_or("a fetch without an id")?;
    Ok((TransferId::from_bytes(*id), body.iter().nth_back(1) == Some(&1)))
}

/// The answer to `fetch.open` (SPEC 5.10): what is served, or one file.
fn opened(lie: Lie) -> Bytes {
    let mut body = BytesMut::new();
    if lie == Lie::HugeStream {
        body.put_u32_le(0);
        put_bytes(&mut body, b"huge");
    } else {
        body.put_u32_le(2);
    }
    body.put_u8(2); // BLAKE3, which everybody offers unless told otherwise.
    body.freeze()
}

/// No request of a `get` is as long.
const MAX_REQUEST_LEN_BYTES: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ticket_is_one_that_the_program_takes_and_the_server_ends_when_dropped() {
        let server = LyingServer::start(Lie::HugeFile, 0).unwrap();
        let ticket: Ticket = server.ticket().parse().unwrap();
        assert!(ticket.at().iter().all(|at| at.port != 0));
        drop(server);
    }
}
