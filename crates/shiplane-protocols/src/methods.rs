//! The RPC methods of this crate: names, bodies, faults.

use std::{num::NonZeroU64, time::Duration};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use shiplane_access::internals::{Denied, RedeemError};
use shiplane_files::internals::{
    DestinationError, Existing, FaultClass, HAS_OWNERS, Kind, Shape, SourceError, Suffix, SuffixRefused,
};
use shiplane_rpc::{CallError, Fault, FaultCode, Method, RpcClient};
use shiplane_wire::{DigestAlgorithm, TransferId};
use tokio::time::Instant;

use crate::{
    Compression,
    filters::OpenFilters,
    transfer::{ProtocolFault, TransferError},
};

/// A guest redeems a ticket, and calls another method with it; its connection is then one like any other.
pub(crate) const REDEEM: &str = "ticket.redeem";

/// Opens a transfer with the callee as the provider.
pub(crate) const FETCH_OPEN: Method<FetchOpen, FetchOpened> = Method::new("fetch.open");

/// Opens a transfer with the callee as the receiver (SPEC 5.5).
pub(crate) const PUSH_OPEN: Method<PushOpen, PushOpened> = Method::new("push.open");

/// Asks for the outcome of a push, by its transfer's id (SPEC 5.8).
pub(crate) const PUSH_SETTLE: Method<[u8; 16], Step<PushDone>> = Method::new("push.settle");

/// Asks for a sign of life, and for the version of the crates that the peer is built from: any text (SPEC 5.24).
pub(crate) const PING: Method<(), String> = Method::new("ping");

/// The budget of a call that moves no data.
pub(crate) const CALL_BUDGET: Duration = Duration::from_secs(10);

/// The body of [`REDEEM`].
#[derive(Serialize, Deserialize)]
pub(crate) struct RedeemRequest {
    pub(crate) secret: [u8; 16],
    /// The method that is called with it; empty for none.
    pub(crate) method: String,
    /// Its body.
    pub(crate) body: Vec<u8>,
}

/// The body of [`FETCH_OPEN`].
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct FetchOpen {
    /// Chosen by the caller at random, so that it can claim the streams before it asks.
    pub(crate) transfer: [u8; 16],
    /// Below what is served; empty for all of it.
    pub(crate) path: Vec<u8>,
    /// The most that the provider may try.
    pub(crate) compression: Compression,
    /// The most that it may send.
    pub(crate) bytes_per_second: Option<NonZeroU64>,
    /// The digests that the caller offers, as a set of bits (SPEC 4.21).
    pub(crate) digests: u8,
    /// What is not wanted.
    pub(crate) filters: OpenFilters,
    /// Whether the provider may send the first chunks unasked (SPEC 4.24).
    pub(crate) invites: bool,
    /// Whether owners, access lists and extended attributes are wanted (SPEC 4.31).
    pub(crate) attributes: bool,
}

/// The answer to [`FETCH_OPEN`]: the transfer is ready.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct FetchOpened {
    pub(crate) shape: TransferShape,
    /// The digest of this transfer: one bit.
    pub(crate) digest: u8,
}

/// What a transfer consists of.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum TransferShape {
    File {
        name: Vec<u8>,
    },
    Directory {
        name: Vec<u8>,
    },
    Contents,
    /// A file of unknown length, which comes in parts (SPEC 4.32). Only pushes have it.
    Parts {
        name: Vec<u8>,
    },
}

/// The body of [`PUSH_OPEN`].
#[derive(Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct PushOpen {
    /// Chosen by the caller at random, so that it can claim the streams before it asks.
    pub(crate) transfer: [u8; 16],
    /// A directory below what is served; empty for all of it.
    pub(crate) path: Vec<u8>,
    pub(crate) shape: TransferShape,
    /// A digest of the caller's name for the source: a push of the same source resumes.
    pub(crate) source: [u8; 32],
    /// The sum of the sizes, if it is known.
    pub(crate) total_bytes: Option<u64>,
    /// What happens to existing files with other content.
    pub(crate) existing: OpenExisting,
    /// Whether files that the pusher does not have are removed; then, whether these may be most of the files there.
    pub(crate) delete: Option<bool>,
    /// Whether all must be durable before it is settled.
    pub(crate) durable: bool,
    pub(crate) chunk_len_bytes: u64,
    /// Whether chunks are to be compressed.
    pub(crate) compression: Compression,
    /// The digests that the caller offers, as a set of bits (SPEC 4.21).
    pub(crate) digests: u8,
    /// The ranges that are not sent.
    pub(crate) filters: OpenFilters,
    /// Whether owners, access lists and extended attributes are sent (SPEC 4.31).
    pub(crate) attributes: bool,
}

/// What happens to existing files with other content (SPEC 5.5).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum OpenExisting {
    /// The push fails.
    Refuse,
    /// They stay.
    Keep,
    /// They are replaced.
    Replace,
    /// They are replaced, and stay under their names with this suffix.
    BackUp { suffix: Vec<u8> },
}

/// The answer to it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum PushOpened {
    /// Every check has passed, space is reserved, and the records stream is being opened.
    Ready {
        /// The most that the pusher may try.
        compression: Compression,
        /// The most that it may send.
        bytes_per_second: Option<NonZeroU64>,
        /// The digest of this transfer: one bit.
        digest: u8,
        /// Whether the pusher may send the first chunks unasked (SPEC 4.24).
        invites: bool,
    },
    /// The same request was accepted before. The caller can only ask for its outcome.
    Known,
}

/// The answer to a call that waits for work at the peer: a fault, or one of these.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step<T> {
    /// Not yet, but the peer is working: ask again.
    Working,
    /// It is done.
    Done(T),
}

/// The result of a push at its receiver: everything is as promised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PushDone {
    /// Whether everything is durable under its final name.
    pub(crate) durable: bool,
    pub(crate) entries: u64,
    pub(crate) total_bytes: u64,
    pub(crate) published_files: u64,
    pub(crate) identical_files: u64,
    pub(crate) kept_files: u64,
    pub(crate) deleted_files: u64,
    /// Whether nothing was removed because something is left out.
    pub(crate) deletion_withheld: bool,
    pub(crate) resumed_bytes: u64,
    /// Paths that the receiver has left out.
    pub(crate) left_out: u64,
}

/// For the fuzzer: a body of any method here, which encodes to the same again.
pub(crate) fn fuzz_bodies(data: &[u8]) {
    fuzz_body::<RedeemRequest>(data);
    fuzz_body::<FetchOpen>(data);
    fuzz_body::<FetchOpened>(data);
    fuzz_body::<PushOpen>(data);
    fuzz_body::<PushOpened>(data);
    fuzz_body::<Step<PushDone>>(data);
    fuzz_body::<String>(data);
}

/// For the fuzzer: a body of this type, which encodes to the same again.
pub(crate) fn fuzz_body<T: Serialize + for<'de> Deserialize<'de>>(data: &[u8]) {
    if let Ok(body) = shiplane_rpc::internals::decode::<T>(data) {
        assert!(shiplane_rpc::internals::encode(&body).is_ok_and(|encoded| encoded == data));
    }
}

impl From<Existing> for OpenExisting {
    fn from(existing: Existing) -> Self {
        match existing {
            Existing::Refuse => Self::Refuse,
            Existing::Keep => Self::Keep,
            Existing::Replace => Self::Replace,
            Existing::BackUp(suffix) => Self::BackUp { suffix: suffix.as_bytes().to_vec() },
        }
    }
}

impl TryFrom<&OpenExisting> for Existing {
    type Error = Fault;

    fn try_from(existing: &OpenExisting) -> Result<Self, Fault> {
        Ok(match existing {
            OpenExisting::Refuse => Self::Refuse,
            OpenExisting::Keep => Self::Keep,
            OpenExisting::Replace => Self::Replace,
            OpenExisting::BackUp { suffix } => {
                let refused = |error: SuffixRefused| Fault::new(FaultCode::PathRefused, error.to_string());
                Self::BackUp(Suffix::new(suffix).map_err(refused)?)
            }
        })
    }
}

impl From<&Shape> for TransferShape {
    fn from(shape: &Shape) -> Self {
        match shape {
            Shape::File { name } => Self::File { name: name.clone() },
            Shape::Directory { name } => Self::Directory { name: name.clone() },
            Shape::Contents => Self::Contents,
        }
    }
}

impl From<TransferShape> for Shape {
    fn from(shape: TransferShape) -> Self {
        match shape {
            TransferShape::File { name } | TransferShape::Parts { name } => Self::File { name },
            TransferShape::Directory { name } => Self::Directory { name },
            TransferShape::Contents => Self::Contents,
        }
    }
}

/// The digest for a transfer whose caller offers these (SPEC 4.21).
pub(crate) fn agree_digest(ours: DigestAlgorithm, theirs: u8) -> Result<DigestAlgorithm, Fault> {
    DigestAlgorithm::best_of(offered_digests(ours) & theirs).ok_or_else(|| {
        Fault::new(FaultCode::InvalidRequest, "no digest in common: this side computes SHA-256 and BLAKE3")
    })
}

/// The digests that a side offers that prefers this one: SHA-256 alone if that was asked for.
pub(crate) const fn offered_digests(preferred: DigestAlgorithm) -> u8 {
    match preferred {
        DigestAlgorithm::Blake3 => DigestAlgorithm::Blake3.bit() | DigestAlgorithm::Sha256.bit(),
        DigestAlgorithm::Sha256 => DigestAlgorithm::Sha256.bit(),
    }
}

/// The digest that the peer has chosen from the offered set.
pub(crate) fn chosen_digest(preferred: DigestAlgorithm, bit: u8) -> Result<DigestAlgorithm, ProtocolFault> {
    let chosen = DigestAlgorithm::best_of(offered_digests(preferred) & bit);
    chosen.filter(|chosen| chosen.bit() == bit).ok_or(ProtocolFault::UnofferedDigest { bits: bit })
}

/// Asks again until the peer is done, and no longer than `most` in all. Each answer has a deadline.
pub(crate) async fn poll_method<Req: Serialize, T: DeserializeOwned>(
    client: &RpcClient,
    method: Method<Req, Step<T>>,
    request: &Req,
    most: Duration,
) -> Result<T, CallError> {
    let budget = client.connection().config().timeouts().progress;
    let began = Instant::now();
    while began.elapsed() <= most {
        let next = Instant::now() + MIN_POLL_INTERVAL;
        if let Step::Done(done) = client.call_typed(method, request, budget).await? {
            return Ok(done);
        }
        tokio::time::sleep_until(next).await;
    }
    Err(CallError::DeadlineExceeded { budget: most })
}

/// 1 s: a peer that answers "working" at once is not asked more often.
const MIN_POLL_INTERVAL: Duration = Duration::from_secs(1);

/// A fresh random id; `None` when the system has no randomness.
pub(crate) fn random_transfer_id() -> Option<TransferId> {
    let random = ring::rand::generate::<[u8; 16]>(&ring::rand::SystemRandom::new()).ok()?;
    Some(TransferId::from_bytes(random.expose()))
}

/// Whether owners and attributes can be carried as they were asked for.
pub(crate) fn check_attributes(are_wanted: bool, are_taken: bool) -> Result<(), Fault> {
    let refused = |why| Err(Fault::new(FaultCode::AttributesRefused, why));
    match (are_wanted, are_taken) {
        (true, _) if !HAS_OWNERS => refused("this system has no owners, access lists or attributes to carry"),
        (true, false) => refused("this server takes no owners, access lists or attributes of others"),
        (false, _) | (true, true) => Ok(()),
    }
}

pub(crate) fn denied(denied: &Denied) -> Fault {
    Fault::new(FaultCode::Unauthorised, denied.to_string())
}

pub(crate) fn not_redeemed(error: &RedeemError) -> Fault {
    let code = match error {
        RedeemError::Unknown | RedeemError::Expired | RedeemError::OwnedByAnother => FaultCode::TicketRefused,
        // The ticket is good; the server's disk is not.
        RedeemError::NotRecorded { .. } => FaultCode::SinkIo,
    };
    Fault::new(code, error.to_string())
}

pub(crate) fn not_served(error: &SourceError) -> Fault {
    let code = match error {
        SourceError::PathRefused { .. } | SourceError::LeavesServedRoot { .. } => FaultCode::PathRefused,
        SourceError::NotFound { .. } | SourceError::Vanished { .. } => FaultCode::NotFound,
        SourceError::NotServable { .. } => FaultCode::InvalidRequest,
        SourceError::Changed { .. } => FaultCode::SourceChanged,
        SourceError::Unreadable { .. } | SourceError::Gone => FaultCode::SourceIo,
    };
    Fault::new(code, error.to_string())
}

/// The fault that the peer gets for a transfer that failed here.
pub(crate) fn failed(error: &TransferError) -> Fault {
    let code = match error {
        TransferError::Destination(error) => return not_taken(error),
        TransferError::Source(error) => return not_served(error),
        TransferError::Corrupt { .. }
        | TransferError::TransferDigestMismatch
        | TransferError::Undecodable { .. } => FaultCode::Integrity,
        TransferError::Protocol(_) | TransferError::Records(_) => FaultCode::InvalidRequest,
        TransferError::TakenOver => FaultCode::Gone,
        TransferError::Silent { .. }
        | TransferError::Stream(_)
        | TransferError::Call(_)
        | TransferError::Undelivered { .. }
        | TransferError::Abandoned => return Fault::new(FaultCode::Gone, "the transfer was interrupted"),
    };
    Fault::new(code, error.to_string())
}

/// The fault that the pusher gets when its files cannot be taken.
pub(crate) fn not_taken(error: &DestinationError) -> Fault {
    let code = match (error, error.class()) {
        (DestinationError::WrongKind { found: Kind::Symlink, .. }, _) => FaultCode::PathRefused,
        (DestinationError::Exists { .. } | DestinationError::WrongKind { .. }, _) => FaultCode::Exists,
        (DestinationError::Busy { .. } | DestinationError::NoMemory, _) => FaultCode::Busy,
        (DestinationError::TooLarge { .. } | DestinationError::TooManyToDelete { .. }, _) => {
            FaultCode::TooLarge
        }
        (DestinationError::MassDeletion { .. }, _) => FaultCode::MassDeletion,
        (DestinationError::NotResumable { .. }, _) => FaultCode::NotResumable,
        (DestinationError::ParentMissing { .. }, _) => FaultCode::NotFound,
        (
            DestinationError::NoSpace { .. }
            | DestinationError::NoInodes { .. }
            | DestinationError::QuotaExceeded { .. },
            _,
        ) => FaultCode::NoSpace,
        // What is left of these is about names.
        (_, FaultClass::Refused) => FaultCode::PathRefused,
        (_, FaultClass::Protocol) => FaultCode::InvalidRequest,
        (_, FaultClass::LocalIo | FaultClass::Integrity) => FaultCode::SinkIo,
    };
    Fault::new(code, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_of_a_settled_push_are_these() {
        let done = PushDone {
            durable: true,
            entries: 3,
            total_bytes: 300,
            published_files: 1,
            identical_files: 1,
            kept_files: 1,
            deleted_files: 0,
            deletion_withheld: false,
            resumed_bytes: 100,
            left_out: 1,
        };
        let expected = include_bytes!("../corpus/methods/settled-done");
        assert_eq!(shiplane_rpc::internals::encode(&Step::Done(done)).unwrap()[..], expected[..]);
    }

    #[test]
    #[cfg(unix)]
    fn a_disk_that_fails_is_named_and_is_no_refusal_of_the_ticket() {
        let errno = 5; // EIO
        let fault = not_redeemed(&RedeemError::NotRecorded { errno: Some(errno) });
        assert_eq!(fault.code, FaultCode::SinkIo);
        assert!(fault.to_string().contains("Input/output error"), "{fault}");
    }
}
