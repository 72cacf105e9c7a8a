//! Lying pushes to `shiplane serve --writable`.

use std::net::SocketAddr;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use shiplane_access::internals::Ticket;
use shiplane_transport::Identity;
use tokio_util::sync::DropGuard;

use super::provider::{Provider, Telling};
use super::{Lie, in_background};
use crate::peers::peer::{DIGESTS, Dialler, NO_FILTERS, Server, accept_records, call, patient, transfer_id};
use crate::peers::{enough, tell};

/// One push of the owner of a ticket, on a thread of its own. It is broken off when dropped.
#[derive(Debug)]
pub struct LyingPusher {
    /// Disconnected once the push has ended.
    under_way: mpsc::Receiver<()>,
    _end: DropGuard,
}

impl LyingPusher {
    /// Redeems the ticket and begins the push. A lie about entries has this number of them.
    pub fn start(ticket: &str, lie: Lie, entries: u32) -> Result<Self> {
        let ticket: Ticket = ticket.parse()?;
        let addr: SocketAddr = ticket.at().to_string().parse()?;
        let server = Server { addr, id: ticket.server(), keys: vec![Identity::generate()?] };
        let secret: [u8; 16] = data_encoding::BASE64URL_NOPAD
            .decode(ticket.secret().to_text().as_bytes())?
            .try_into()
            .map_err(|_| anyhow!("a secret of another length"))?;
        let (ended, under_way) = mpsc::channel();
        let ((), end) = in_background(async || {
            let mut dialler = Dialler::new(&server, patient())?;
            let connection = dialler.dial()?.await?;
            // It carries no other call (SPEC 5.12).
            call(&connection, "ticket.redeem", &(secret, "", "")).await?;
            let provider = begin(&connection, 0, Telling { lie, entries, goes_on: None }).await?;
            let push = async move {
                // They live as long as the push.
                let (_ended, _dialler) = (ended, dialler);
                // However it ends, the server has ended it.
                let _told = provider.tell().await;
            };
            Ok(((), push))
        })?;
        Ok(Self { under_way, _end: end })
    }

    /// Waits until the server has ended the push; whether it has within `limit`.
    pub fn ends_within(&mut self, limit: Duration) -> bool {
        self.under_way.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Disconnected)
    }
}

/// `count` pushes, with the keys and the lies in turn. Says so once the server has ended them all.
pub(crate) async fn push(server: &Server, count: usize, lies: &[Lie], entries: u32) -> Result<()> {
    let mut dialler = Dialler::new(server, patient())?;
    let begun = async |number: usize, connection: quinn::Connection| {
        let telling = Telling { lie: lies[number % lies.len()], entries, goes_on: None };
        tokio::time::timeout(BEGIN_LIMIT, begin(&connection, number, telling)).await?
    };
    let providers = dialler.begin("pushes", count, begun).await?;
    let mut pushes = tokio::task::JoinSet::new();
    for provider in providers {
        pushes.spawn(provider.tell());
    }
    let began = Instant::now();
    let all_ended = async { while pushes.join_next().await.is_some() {} };
    let mut enough = std::pin::pin!(enough());
    tokio::select! {
        () = &mut enough => {}
        () = all_ended => {
            tell(&[("ended after ms", began.elapsed().as_millis() as u64)])?;
            enough.await;
        }
    }
    tell(&[("under way", pushes.len() as u64)])?;
    dialler.finish().await;
    Ok(())
}

/// Opens a push (SPEC 5.5) of a directory of unknown size, and waits for its stream of records.
async fn begin(connection: &quinn::Connection, number: usize, telling: Telling) -> Result<Provider> {
    let transfer = transfer_id();
    let directory = (1_u32, format!("lie-{number:04}-{}", std::process::id()));
    let (path, source, total, existing, delete, durable) = ("", [7_u8; 32], 0_u8, 0_u32, 0_u8, 0_u8);
    let chunk_len_bytes = shiplane_wire::limits::DEFAULT_PAYLOAD_CHUNK_LEN_BYTES;
    let (compression, attributes) = (0_u32, 0_u8);
    let head = (*transfer.as_bytes(), path, directory, source, total, existing, delete, durable);
    let body = (head, chunk_len_bytes, compression, DIGESTS, NO_FILTERS, attributes);
    let ready = call(connection, "push.open", &body).await?;
    let records = accept_records(connection).await?;
    // Whether the server waits to be offered chunks (SPEC 4.24).
    let is_invited = ready.last() == Some(&1);
    Provider::open(connection.clone(), transfer, records, is_invited, telling).await
}

/// Far longer than a server takes to open a push.
const BEGIN_LIMIT: Duration = Duration::from_secs(15);
