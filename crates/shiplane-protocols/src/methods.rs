//! The RPC methods of this crate: names, bodies, and how faults are told.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use shiplane_rpc::{Fault, FaultCode, Method};
use shiplane_wire::TransferId;

use crate::{
    access::{Denied, RedeemError},
    files::{Shape, SourceError},
};

/// A guest redeems a ticket; its connection is then one like any other.
pub(crate) const REDEEM: Method<RedeemRequest, ()> = Method::new("ticket.redeem");

/// Opens a transfer with the callee as the provider.
pub(crate) const FETCH_OPEN: Method<FetchOpen, FetchOpened> = Method::new("fetch.open");

/// Ends a transfer: both sides have delivered and received the same.
pub(crate) const CONFIRM: Method<Confirm, Confirmed> = Method::new("transfer.confirm");

/// The budget of a call that only decides something.
pub(crate) const CALL_BUDGET: Duration = Duration::from_secs(10);

/// The body of [`REDEEM`].
#[derive(Serialize, Deserialize)]
pub(crate) struct RedeemRequest {
    pub(crate) secret: [u8; 16],
}

/// The body of [`FETCH_OPEN`].
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct FetchOpen {
    /// Chosen by the caller at random, so that it can claim the streams before it asks.
    pub(crate) transfer: [u8; 16],
    /// Below what is served; empty for all of it.
    pub(crate) path: Vec<u8>,
}

/// The answer: the transfer is ready, and what it consists of.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum FetchOpened {
    File { name: Vec<u8> },
    Directory { name: Vec<u8> },
    Root,
}

/// The body of [`CONFIRM`].
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Confirm {
    pub(crate) transfer: [u8; 16],
    /// SPEC 4.11.
    pub(crate) root: [u8; 32],
    pub(crate) chunks: u64,
    /// Whether everything is durable under its final name.
    pub(crate) durable: bool,
}

/// The provider agrees: complete.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Confirmed {
    pub(crate) sent_bytes: u64,
    pub(crate) failed_entries: u64,
}

impl From<&Shape> for FetchOpened {
    fn from(shape: &Shape) -> Self {
        match shape {
            Shape::File { name } => Self::File { name: name.clone() },
            Shape::Directory { name } => Self::Directory { name: name.clone() },
            Shape::Root => Self::Root,
        }
    }
}

impl From<FetchOpened> for Shape {
    fn from(opened: FetchOpened) -> Self {
        match opened {
            FetchOpened::File { name } => Self::File { name },
            FetchOpened::Directory { name } => Self::Directory { name },
            FetchOpened::Root => Self::Root,
        }
    }
}

/// A fresh random id; `None` when the system has no randomness.
pub(crate) fn random_transfer_id() -> Option<TransferId> {
    let random = ring::rand::generate::<[u8; 16]>(&ring::rand::SystemRandom::new()).ok()?;
    Some(TransferId::from_bytes(random.expose()))
}

pub(crate) fn denied(denied: &Denied) -> Fault {
    Fault::new(FaultCode::Unauthorised, denied.to_string())
}

pub(crate) fn not_redeemed(error: &RedeemError) -> Fault {
    Fault::new(FaultCode::Unauthorised, error.to_string())
}

pub(crate) fn not_served(error: &SourceError) -> Fault {
    let code = match error {
        SourceError::PathRefused { .. } | SourceError::LeavesRoot { .. } => FaultCode::PathRefused,
        SourceError::NotFound { .. } | SourceError::Vanished { .. } => FaultCode::NotFound,
        SourceError::NotServable { .. } => FaultCode::InvalidRequest,
        SourceError::Changed { .. } => FaultCode::SourceChanged,
        SourceError::Unreadable { .. } => FaultCode::SourceIo,
    };
    Fault::new(code, error.to_string())
}
