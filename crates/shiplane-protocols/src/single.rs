//! A transfer of one chunk, for custom protocols: agree by RPC, then send the chunk.
//!
//! The receiver makes a transfer id and claims it *before* it sends the request. So no chunk can arrive too early, and
//! concurrent transfers cannot be mixed up. The sender sends the chunk with index 0 of that id, on the connection of the
//! request.

use std::{sync::Arc, time::Duration};

use shiplane_transport::{
    PeerConnection,
    internals::{Claim, InboundChunk, TransferStream},
};
use shiplane_wire::Code;
use thiserror::Error;

use crate::methods::random_transfer_id;

/// Why a claimed chunk did not arrive.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum NoChunk {
    /// The sender did not start within this time.
    #[error("the chunk did not start within {timeout:?}")]
    TimedOut {
        /// The timeout.
        timeout: Duration,
    },
    /// The connection closed first. Connect again.
    #[error("the connection closed before the chunk arrived")]
    ConnectionEnded,
    /// The sender opened another stream under this id. It was refused.
    #[error("the peer sent something other than one chunk")]
    NotTheChunk,
    /// The system's random source failed.
    #[error("the system's random source failed")]
    NoRandomness,
}

/// Makes a transfer id and claims it. Send the id to the peer, then await [`only_chunk`].
///
/// # Errors
/// [`NoChunk::NoRandomness`].
pub fn claim_new(connection: &Arc<PeerConnection>) -> Result<Claim, NoChunk> {
    let transfer = random_transfer_id().ok_or(NoChunk::NoRandomness)?;
    // Of 128 random bits, none is claimed already.
    connection.claim(transfer).map_err(|_| NoChunk::NoRandomness)
}

/// Waits for the only chunk of a transfer. Cancel-safe until it returns.
///
/// # Errors
/// See [`NoChunk`].
pub async fn only_chunk(claim: &mut Claim, timeout: Duration) -> Result<InboundChunk, NoChunk> {
    match tokio::time::timeout(timeout, claim.next()).await {
        Err(_) => Err(NoChunk::TimedOut { timeout }),
        Ok(None) => Err(NoChunk::ConnectionEnded),
        Ok(Some(TransferStream::Chunk(chunk))) if chunk.index() == 0 => Ok(chunk),
        Ok(Some(TransferStream::Chunk(chunk) | TransferStream::Compressed(chunk))) => {
            chunk.refuse(Code::Protocol).await;
            Err(NoChunk::NotTheChunk)
        }
        Ok(Some(TransferStream::Records(_))) => Err(NoChunk::NotTheChunk), // Reset by its drop.
    }
}
