//! A server that resembles `shiplane serve` and lies to its clients.

use std::net::SocketAddr;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use anyhow::{Context as _, Result};
use shiplane_access::internals::{Ticket, TicketSecret};
use shiplane_rpc::internals::{decode, encode};
use shiplane_transport::{Admission, Identity, Trust, test_support};
use shiplane_wire::{TransferId, records_opening};
use tokio_util::sync::DropGuard;

use super::provider::{Provider, Telling};
use super::{HUGE, Lie, in_background};
use crate::peers::peer::{HEAD, patient, send_envelope};

/// A lying server on a thread of its own. It ends when dropped.
#[derive(Debug)]
pub struct LyingServer {
    ticket: String,
    goes_on: mpsc::Receiver<()>,
    _end: DropGuard,
}

impl LyingServer {
    /// Starts it on loopback. A lie about entries has this number of them.
    pub fn start(lie: Lie, entries: u32) -> Result<Self> {
        let (goes_on, heard) = mpsc::channel();
        let (ticket, end) = in_background(async || {
            let identity = Identity::generate()?;
            let trust = Trust::ask(|_| Admission::Trusted);
            let mut config = test_support::server_config(&identity, &trust, &[b"shiplane/1"])?;
            config.transport_config(Arc::new(patient()));
            let endpoint = quinn::Endpoint::server(config, SocketAddr::from(([127, 0, 0, 1], 0)))?;
            let at = endpoint.local_addr()?.to_string().parse()?;
            let ticket = Ticket::for_everything(identity.peer_id(), at, TicketSecret::random()?);
            Ok((ticket.to_string(), serve(endpoint, Telling { lie, entries, goes_on: Some(goes_on) })))
        })?;
        Ok(Self { ticket, goes_on: heard, _end: end })
    }

    /// What `shiplane get` takes for a source.
    pub fn ticket(&self) -> &str {
        &self.ticket
    }

    /// Waits until a victim listens to a lie that goes on by itself: signs of life, single bytes, entries without
    /// end. Whether one does within `limit`.
    pub fn goes_on_within(&self, limit: Duration) -> bool {
        self.goes_on.recv_timeout(limit).is_ok()
    }
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
    mut send: quinn::SendStream,
    mut recv: quinn::RecvStream,
    telling: Telling,
) -> Result<()> {
    let request = recv.read_to_end(MAX_REQUEST_LEN_BYTES).await?;
    let envelope = request.get(HEAD..).context("a call without a header")?;
    let (id, mut method, _until, mut body): (u64, String, u64, Vec<u8>) = decode(envelope)?;
    if method == "ticket.redeem" {
        // It carries another call (SPEC 5.12).
        let (_secret, carried, its_body): ([u8; 16], String, Vec<u8>) = decode(&body)?;
        (method, body) = (carried, its_body);
    }
    let answer = match (method.as_str(), telling.lie) {
        ("", _) => encode(&())?,
        ("fetch.open", Lie::HugeStream) => encode(&(FILE, HUGE, BLAKE3))?,
        ("fetch.open", lie) if lie != Lie::Mute => encode(&(SERVED, BLAKE3))?,
        _ => return std::future::pending().await,
    };
    let is_fault = 0_u32;
    send_envelope(&mut send, &(id, is_fault, &answer[..])).await?;
    if method.is_empty() {
        return Ok(());
    }
    let transfer = TransferId::from_bytes(*body.first_chunk().context("a fetch without an id")?);
    // Whether it invites (SPEC 5.10).
    let is_invited = body.iter().nth_back(1) == Some(&1);
    let (mut send, recv) = connection.open_bi().await?;
    send.write_all(&records_opening(transfer)).await?;
    Provider::open(connection, transfer, (send, recv), is_invited, telling).await?.tell().await
}

/// What a fetch gets (SPEC 5.10): one file of this name, or what is served.
const FILE: u32 = 0;
const SERVED: u32 = 2;

/// Everybody offers it unless told otherwise.
const BLAKE3: u8 = 2;

/// No request of a `get` is as long.
const MAX_REQUEST_LEN_BYTES: usize = 64 << 10;
