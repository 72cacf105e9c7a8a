//! Push, the notify-transfer-acknowledge pattern: offer what is here, send it down the lane once the peer
//! is ready for it, and learn what has become of it.

use std::{num::NonZeroU64, pin::pin, sync::Arc};

use futures::future::{Either, select};
use shiplane_files::internals::{Existing, Filters, Shape, Source, Summary};
use shiplane_rpc::{CallError, Fault, FaultCode, RpcClient};
use shiplane_transport::{StreamError, internals::Claim};
use shiplane_wire::{Digest, DigestAlgorithm, Durability, TransferId};
use thiserror::Error;

use crate::{
    Compression, Direction,
    filters::OpenFilters,
    methods::{
        CALL_BUDGET, PUSH_OPEN, PUSH_SETTLE, PushDone, PushOpen, PushOpened, TransferShape, chosen_digest,
        offered_digests, poll_method,
    },
    metrics::Counting,
    result::Delivery,
    single::claim_new,
    transfer::{
        EventFn, FilesReport, TransferError, TransferEvent, TransferOptions, next_records,
        progress::longest_choice,
        provider::{Provided, provide},
    },
};

/// What is to be pushed, and how.
#[derive(Debug, Clone)]
pub struct PushRequest {
    /// The directory to put it into, below what the peer serves; empty for the whole of that. Those parts
    /// of it that are missing are created where we may write.
    pub path: Vec<u8>,
    /// The name that a directory gets there. With `None` its content is put into `path` itself, without a directory
    /// around it. A file goes by the name of its source.
    pub name: Option<Vec<u8>>,
    /// The sum of the sizes, if that is known, so that the peer can refuse what does not fit.
    pub total_bytes: Option<u64>,
    /// What becomes of different files that are there already.
    pub existing: Existing,
    /// Whether what this side does not have is removed there; then, whether that may be most of what is there.
    pub delete: Option<bool>,
    /// How much of the payload is to be a chunk; the peer cuts them and has its own limits.
    pub chunk_len_bytes: u64,
    /// What the peer says it has done when everything is there.
    pub durability: Durability,
    /// What of the source is not sent.
    pub filters: Arc<Filters>,
    /// Whether owners, access lists and extended attributes are sent. The peer refuses the push if it takes none.
    pub attributes: bool,
    /// Names the source on this side, such as by its absolute path: a push of the same to the same place
    /// goes on where it was cut. The peer sees a digest of it only.
    pub source_name: Vec<u8>,
}

/// A push that the peer is ready for.
///
/// ```no_run
/// # async fn example(client: shiplane_rpc::RpcClient) -> Result<(), Box<dyn std::error::Error>> {
/// use shiplane_files::internals::{Existing, SourceRoot};
/// use shiplane_protocols::internals::{Push, PushError, PushRequest, transfer::TransferOptions};
/// use shiplane_wire::Durability;
///
/// let source = tokio::task::spawn_blocking(|| SourceRoot::open("photos".as_ref())?.resolve(b"")).await??;
/// let request = PushRequest {
///     path: b"inbox".to_vec(),
///     name: Some(b"photos".to_vec()),
///     total_bytes: None,
///     existing: Existing::Refuse,
///     delete: None,
///     chunk_len_bytes: 4 << 20,
///     durability: Durability::Durable,
///     filters: std::sync::Arc::default(),
///     attributes: false,
///     source_name: b"/home/me/photos".to_vec(),
/// };
/// let options = TransferOptions::default();
/// let push = Push::open(&client, source, &request, &options).await?;
/// let report = match push.send(&options, std::sync::Arc::new(|_| ())).await {
///     // The answer was lost. Asking again does nothing twice; over another connection as well.
///     Err(PushError::Unknown { receipt, .. }) => receipt.settle(&client).await?,
///     other => other?,
/// };
/// println!("{} files are there now", report.summary.published_files);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Push {
    client: RpcClient,
    source: Arc<Source>,
    durability: Durability,
    claim: Claim,
    /// What the peer allows.
    compression: Compression,
    digest: DigestAlgorithm,
    bytes_per_second: Option<NonZeroU64>,
    invites: bool,
}

/// Proof of what was delivered, to ask the peer about it for as long as it remembers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushReceipt {
    transfer: TransferId,
    sent_bytes: u64,
    wire_bytes: u64,
    durability: Durability,
    digest: DigestAlgorithm,
    left_out: u64,
}

/// Why a push failed.
#[derive(Debug, Error)]
pub enum PushError {
    /// The peer is not ready for it; no byte of it was sent. The fault in it says why: `Busy`, `TooLarge`,
    /// `NoSpace`, `Exists`, `Unauthorised`, `ReadOnly`, `PathRefused`, ...
    #[error(transparent)]
    Refused(CallError),
    /// The peer gave up in the middle; the fault says why. What it has kept is not sent again by the same
    /// push.
    #[error(transparent)]
    Rejected(Fault),
    /// The transfer failed. Push it again: what has arrived is not sent again.
    #[error(transparent)]
    Transfer(#[from] TransferError),
    /// Everything was sent, and the peer's answer was lost. [`PushReceipt::settle`] asks again, over another
    /// connection if need be; so does the same push, which finds everything there.
    #[error("unknown whether all data arrived: {source}; run the push again")]
    Unknown {
        /// To ask with.
        receipt: Box<PushReceipt>,
        /// Why there was no answer.
        source: CallError,
    },
    /// The peer has everything, and promises less than it was asked for.
    #[error("the peer received everything but did not confirm that it is durable; run the push again")]
    NotDurable,
    /// The system has no randomness.
    #[error("the system's random source failed")]
    NoRandomness,
}

impl PushError {
    /// What is known of the peer.
    #[must_use]
    pub fn delivery(&self) -> Delivery {
        match self {
            Self::Unknown { .. } | Self::Transfer(TransferError::Stream(StreamError::ConnectionLost(_))) => {
                Delivery::Unknown
            }
            Self::NotDurable => Delivery::Verified,
            Self::Refused(_) | Self::Rejected(_) | Self::Transfer(_) | Self::NoRandomness => {
                Delivery::Rejected
            }
        }
    }

    /// Whether the peer was merely busy, so that the same may succeed a little later.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        matches!(self, Self::Refused(CallError::Fault(fault)) | Self::Rejected(fault)
            if fault.code == FaultCode::Busy)
    }
}

impl Push {
    /// Asks the peer whether it is ready for `source`. It answers after it has checked our permission, that there is
    /// room, and that no other push is at the same name; nothing of the content has been sent by then. It is also asked
    /// whether it takes what is compressed as the options say: give [`send`](Self::send) the same.
    ///
    /// Cancel-safe: the peer forgets a push that does not begin.
    ///
    /// # Errors
    /// [`PushError::Refused`].
    pub async fn open(
        client: &RpcClient,
        source: Source,
        request: &PushRequest,
        options: &TransferOptions,
    ) -> Result<Self, PushError> {
        // Claimed before it is asked for: the records stream may be faster than the answer.
        let claim = claim_new(client.connection()).map_err(|_| PushError::NoRandomness)?;
        let open = PushOpen {
            transfer: *claim.transfer().as_bytes(),
            path: request.path.clone(),
            shape: shape(&source, request.name.as_ref()),
            source: *Digest::blake3(&request.source_name).as_bytes(),
            total_bytes: request.total_bytes,
            existing: request.existing.into(),
            delete: request.delete,
            durable: request.durability == Durability::Durable,
            chunk_len_bytes: request.chunk_len_bytes,
            compression: options.compression,
            digests: offered_digests(options.digest),
            filters: OpenFilters::of(&request.filters),
            attributes: request.attributes,
        };
        let opened = client.call_typed(PUSH_OPEN, &open, CALL_BUDGET).await;
        match opened.map_err(PushError::Refused)? {
            PushOpened::Ready { compression, bytes_per_second, digest, invites } => Ok(Self {
                client: client.clone(),
                source: Arc::new(
                    source.with_filters(Arc::clone(&request.filters)).with_attributes(request.attributes),
                ),
                durability: request.durability,
                claim,
                compression: compression.min(options.compression),
                digest: chosen_digest(options.digest, digest).map_err(TransferError::from)?,
                bytes_per_second,
                invites,
            }),
            // A random id that it knows already.
            PushOpened::Known => Err(PushError::NoRandomness),
        }
    }

    /// Sends what the peer asks for, and waits until it says that it has everything as promised. Of the
    /// `options`, lanes, rate and metrics count: the chunks are the peer's to cut, and whether they are
    /// compressed was agreed on.
    ///
    /// Not cancel-safe: dropping it ends the transfer; what was verified is kept for the next push.
    ///
    /// # Errors
    /// [`PushError`]. That single paths are left out is none.
    pub async fn send(self, options: &TransferOptions, events: EventFn) -> Result<FilesReport, PushError> {
        let peer = self.client.connection().remote_addr();
        let given = self.give(options, events);
        Counting::of(options.metrics.as_ref(), Direction::Sent, peer, given, |report| report.sent_bytes).await
    }

    async fn give(self, options: &TransferOptions, events: EventFn) -> Result<FilesReport, PushError> {
        let Self { client, source, durability, mut claim, compression, digest, bytes_per_second, invites } =
            self;
        let wished = TransferOptions { compression, digest, ..options.clone() };
        let options = &wished.agreed(compression, bytes_per_second);
        let connection = client.connection();
        let transfer = claim.transfer();
        let header_timeout = connection.config().timeouts().header;
        let records = match next_records(&mut claim, connection, header_timeout).await {
            Ok(records) => records,
            Err(silent @ TransferError::Silent { .. }) => return Err(why(&client, transfer, silent).await),
            Err(error) => return Err(error.into()),
        };
        let provided =
            provide(Arc::clone(connection), transfer, records, source, options, invites, Arc::clone(&events));
        match provided.await {
            Ok(mut provided) => {
                events(TransferEvent::Finishing);
                let Provided { sent_bytes, wire_bytes, left_out, .. } = provided;
                let receipt = PushReceipt { transfer, sent_bytes, wire_bytes, durability, digest, left_out };
                let published = pin!(provided.published(&events));
                match select(pin!(receipt.settle(&client)), published).await {
                    Either::Left((report, published)) => {
                        // It ends its stream before it answers.
                        let _ = tokio::time::timeout(header_timeout, published).await;
                        report
                    }
                    Either::Right((_, asking)) => asking.await,
                }
            }
            Err(error) => match error.explained(connection) {
                lost @ TransferError::Stream(StreamError::ConnectionLost(_)) => Err(lost.into()),
                error => Err(why(&client, transfer, error).await),
            },
        }
    }
}

impl PushReceipt {
    /// Asks the peer what has become of the push, and waits for as long as it says that it is working on
    /// it. The answer is the same however often it is asked, over whichever connection of the same key.
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    /// [`PushError::Unknown`] when there is again no answer, or when the peer has forgotten;
    /// [`PushError::Rejected`], [`PushError::NotDurable`].
    pub async fn settle(self, client: &RpcClient) -> Result<FilesReport, PushError> {
        // Each answer is a sign of life. The peer gets as long as it may take to make these bytes durable.
        let most = longest_choice(client.connection().config().timeouts().progress, self.sent_bytes);
        match poll_method(client, PUSH_SETTLE, self.transfer.as_bytes(), most).await {
            Ok(done) => self.report(done),
            Err(CallError::Fault(fault)) if is_final(fault.code) => Err(PushError::Rejected(fault)),
            Err(source) => Err(PushError::Unknown { receipt: Box::new(self), source }),
        }
    }

    fn report(self, done: PushDone) -> Result<FilesReport, PushError> {
        let durability = match (done.durable, self.durability) {
            (true, _) => Durability::Durable,
            (false, Durability::Verified) => Durability::Verified,
            (false, Durability::Durable) => return Err(PushError::NotDurable),
        };
        Ok(FilesReport {
            transfer: self.transfer,
            entries: done.entries,
            total_bytes: done.total_bytes,
            sent_bytes: self.sent_bytes,
            received_bytes: 0,
            wire_bytes: self.wire_bytes,
            summary: Summary {
                published_files: done.published_files,
                identical_files: done.identical_files,
                kept_files: done.kept_files,
                deleted_files: done.deleted_files,
                is_deletion_withheld: done.deletion_withheld,
                resumed_bytes: done.resumed_bytes,
                ..Summary::default()
            },
            left_out_here: self.left_out,
            left_out_there: done.left_out,
            durability,
            digest_algorithm: self.digest,
            digest: None,
        })
    }
}

/// A stream that the peer reset does not say why; the peer does.
async fn why(client: &RpcClient, transfer: TransferId, error: TransferError) -> PushError {
    if !error.is_hang_up() {
        return error.into();
    }
    let budget = client.connection().config().timeouts().progress;
    match client.call_typed(PUSH_SETTLE, transfer.as_bytes(), budget).await {
        Err(CallError::Fault(fault)) if is_final(fault.code) => PushError::Rejected(fault),
        _ => error.into(),
    }
}

/// Whether the fault is the receiver's word on the push, and not the lack of one.
fn is_final(code: FaultCode) -> bool {
    !matches!(
        code,
        FaultCode::Internal
            | FaultCode::UnknownMethod
            | FaultCode::DeadlineExceeded
            | FaultCode::Unauthorised
            | FaultCode::TicketRefused
            | FaultCode::Gone
            | FaultCode::ShuttingDown
            | FaultCode::Other(_)
    )
}

fn shape(source: &Source, name: Option<&Vec<u8>>) -> TransferShape {
    match (source.shape(), name) {
        (Shape::File { name }, _) if source.input().is_some() => TransferShape::Parts { name: name.clone() },
        (Shape::File { name }, _) => TransferShape::File { name: name.clone() },
        (Shape::Directory { .. } | Shape::Contents, Some(name)) => {
            TransferShape::Directory { name: name.clone() }
        }
        (Shape::Directory { .. } | Shape::Contents, None) => TransferShape::Contents,
    }
}
