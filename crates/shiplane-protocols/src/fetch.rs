//! Fetch: requests a path, receives it in chunks, confirms.

use std::sync::Arc;

use bytes::Bytes;
use shiplane_access::internals::TicketSecret;
use shiplane_files::internals::{Filters, JobKey, Shape};
use shiplane_rpc::{CallError, RpcClient, internals::EncodeError};
use shiplane_transport::internals::{Claim, ReceiveReservation};
use shiplane_wire::DigestAlgorithm;
use thiserror::Error;
use tokio_util::sync::CancellationToken;

use crate::{
    Compression, Direction,
    filters::OpenFilters,
    methods::{
        CALL_BUDGET, FETCH_OPEN, FetchOpen, PING, REDEEM, RedeemRequest, TransferShape, chosen_digest,
        offered_digests,
    },
    metrics::Counting,
    single::claim_new,
    transfer::{
        EventFn, FilesReport, ProtocolFault, Target, TransferError, TransferOptions, next_records,
        receiver::{Opening, invite, receive},
    },
};

/// A client whose first call shows a ticket's secret to the peer that issued it, so that this key owns the ticket.
///
/// Owning it already is no error. The call fails with `TicketRefused` if the ticket is spent, expired or unknown.
#[must_use]
pub fn with_ticket(client: RpcClient, secret: &TicketSecret) -> RpcClient {
    let secret = secret.clone();
    client.wrapped_in(REDEEM, move |method, body| redeem_body(&secret, method, &body))
}

/// Shows a ticket's secret to the peer that issued it, and asks for nothing else.
///
/// Cancel-safe: whether the peer has taken it is then unknown; try again.
///
/// # Errors
/// [`CallError::Fault`] with `TicketRefused` when the ticket is spent, expired or unknown.
pub async fn redeem(client: &RpcClient, secret: &TicketSecret) -> Result<(), CallError> {
    client.call(REDEEM, redeem_body(secret, "", &[])?, CALL_BUDGET).await.map(drop)
}

/// Asks the peer for a sign of life, and gives the version of its program. Any text of a peer is possible.
///
/// Cancel-safe: nothing is left of it.
///
/// # Errors
/// What can befall any call.
pub async fn ping(client: &RpcClient) -> Result<String, CallError> {
    client.call_typed(PING, &(), CALL_BUDGET).await
}

fn redeem_body(secret: &TicketSecret, method: &str, body: &[u8]) -> Result<Bytes, EncodeError> {
    let (secret, method, body) = (*secret.expose(), method.to_owned(), body.to_vec());
    shiplane_rpc::internals::encode(&RedeemRequest { secret, method, body })
}

/// A transfer that the peer is ready to provide.
///
/// ```no_run
/// # async fn example(client: shiplane_rpc::RpcClient) -> Result<(), Box<dyn std::error::Error>> {
/// use shiplane_files::internals::{Destination, Existing, LinkPolicy, ReceiveOptions};
/// use shiplane_protocols::internals::{Fetch, FetchRequest, transfer::TransferOptions};
/// use shiplane_wire::Durability;
///
/// let options = TransferOptions::default();
/// let fetch = Fetch::open(&client, FetchRequest::of(b"photos/2026"), &options).await?;
/// let (shape, job) = (fetch.shape().clone(), fetch.job());
/// let receive = ReceiveOptions {
///     existing: Existing::Refuse, durability: Durability::Durable, verify: false, digest: fetch.digest(),
///     links: LinkPolicy::All, attributes: false, chunk_len_bytes: options.chunk_len_bytes,
/// };
/// let target = tokio::task::spawn_blocking(move || {
///     Destination::open("backup".as_ref(), &shape, job, receive)
/// }).await??;
/// let report = fetch.receive(target, &options, std::sync::Arc::new(|_| ())).await?;
/// println!("{} files", report.summary.published_files);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Fetch {
    client: RpcClient,
    path: Vec<u8>,
    shape: Shape,
    filters: Arc<Filters>,
    claim: Claim,
    compression: Compression,
    digest: DigestAlgorithm,
    invites: Option<ReceiveReservation>,
}

/// What is to be fetched.
#[derive(Debug, Clone, Default)]
pub struct FetchRequest {
    /// Below what the peer serves; empty for all of it.
    pub path: Vec<u8>,
    /// Whether nothing of it is here, as far as is known: then the peer begins to send without waiting to be asked,
    /// which saves a round trip. If something is here after all, at most 1 MiB was sent unnecessarily.
    pub is_new_here: bool,
    /// What of it is not wanted.
    pub filters: Arc<Filters>,
    /// Whether owners, access lists and extended attributes are wanted. The target has to be told as well.
    pub attributes: bool,
}

impl FetchRequest {
    /// For a path of which something may be here.
    #[must_use]
    pub fn of(path: &[u8]) -> Self {
        Self { path: path.to_vec(), ..Self::default() }
    }
}

/// Why a fetch failed.
#[derive(Debug, Error)]
pub enum FetchError {
    /// The peer does not provide it; the fault in it says why.
    #[error(transparent)]
    Open(CallError),
    /// The transfer failed.
    #[error(transparent)]
    Transfer(#[from] TransferError),
    /// Everything has arrived, but the peer did not confirm that it is what it sent.
    #[error("cannot confirm the transfer: {0}")]
    Unconfirmed(TransferError),
    /// The system has no randomness.
    #[error("the system's random source failed")]
    NoRandomness,
}

impl Fetch {
    /// Asks the peer for what it serves, and tells it what the options say of rate and compression. Give
    /// [`receive`](Self::receive) the same options.
    ///
    /// Cancel-safe: the peer forgets a transfer that is not begun.
    ///
    /// # Errors
    /// [`FetchError::Open`]: not found, refused, not authorised, or the call failed.
    pub async fn open(
        client: &RpcClient,
        request: FetchRequest,
        options: &TransferOptions,
    ) -> Result<Self, FetchError> {
        let FetchRequest { path, is_new_here, filters, attributes } = request;
        // Claimed before it is asked for: no chunk can be early.
        let claim = claim_new(client.connection()).map_err(|_| FetchError::NoRandomness)?;
        let invites = if is_new_here { invite(client.connection()) } else { None };
        let request = FetchOpen {
            transfer: *claim.transfer().as_bytes(),
            path: path.clone(),
            compression: options.compression,
            bytes_per_second: options.bytes_per_second(),
            digests: offered_digests(options.digest),
            invites: invites.is_some(),
            filters: OpenFilters::of(&filters),
            attributes,
        };
        let opened = client.call_typed(FETCH_OPEN, &request, CALL_BUDGET).await.map_err(FetchError::Open)?;
        let digest = chosen_digest(options.digest, opened.digest).map_err(TransferError::from)?;
        if matches!(opened.shape, TransferShape::Parts { .. }) {
            return Err(TransferError::from(ProtocolFault::UnwantedParts).into());
        }
        let shape = Shape::from(opened.shape);
        let compression = options.compression;
        Ok(Self { client: client.clone(), path, shape, filters, claim, compression, digest, invites })
    }

    /// What it consists of, which decides where it lands.
    #[must_use]
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// What its digests are computed with: for the [`ReceiveOptions`](shiplane_files::internals::ReceiveOptions) of the target.
    #[must_use]
    pub fn digest(&self) -> DigestAlgorithm {
        self.digest
    }

    /// Names this job for the journal: the same peer and path again resume it.
    #[must_use]
    pub fn job(&self) -> JobKey {
        JobKey::new(self.client.connection().peer_id().as_bytes(), &self.path)
    }

    /// Receives it all into `target`, a [`Destination`](shiplane_files::internals::Destination) or a stream, and confirms.
    ///
    /// Not cancel-safe: dropping it ends the transfer; what was verified is kept for the next run.
    ///
    /// # Errors
    /// [`FetchError`]. That single paths are [left out](FilesReport::left_out) is none.
    pub async fn receive(
        self,
        target: impl Into<Target>,
        options: &TransferOptions,
        events: EventFn,
    ) -> Result<FilesReport, FetchError> {
        let peer = self.client.connection().remote_addr();
        let target = target.into().with_filters(&self.filters);
        let taken = self.take(target, options, events);
        let bytes = |report: &FilesReport| report.received_bytes;
        Counting::of(options.metrics.as_ref(), Direction::Received, peer, taken, bytes).await
    }

    async fn take(
        mut self,
        target: Target,
        options: &TransferOptions,
        events: EventFn,
    ) -> Result<FilesReport, FetchError> {
        // What was not asked for is not taken.
        let options =
            TransferOptions { compression: self.compression, digest: self.digest, ..options.clone() };
        let connection = Arc::clone(self.client.connection());
        let timeout = connection.config().timeouts().progress;
        let explained = |error: TransferError| error.explained(&connection);
        let header_timeout = connection.config().timeouts().header;
        let records = next_records(&mut self.claim, &connection, header_timeout).await.map_err(explained)?;
        let (transfer, durability) = (self.claim.transfer(), target.durability());
        let opening = Opening { claim: self.claim, records, invites: self.invites };
        let received = receive(opening, timeout, target, &options, events, CancellationToken::new()).await;
        let mut received = received.map_err(explained)?;
        std::mem::replace(&mut received.confirmed, Ok(()))
            .map_err(explained)
            .map_err(FetchError::Unconfirmed)?;
        Ok(FilesReport {
            transfer,
            entries: received.entries,
            total_bytes: received.totals.entry_bytes,
            sent_bytes: 0,
            received_bytes: received.totals.received_bytes,
            wire_bytes: received.totals.wire_bytes,
            summary: received.summary,
            left_out_here: received.totals.left_out_here,
            left_out_there: received.totals.left_out_there,
            durability,
            digest_algorithm: self.digest,
            digest: received.totals.only_chunk,
        })
    }
}
