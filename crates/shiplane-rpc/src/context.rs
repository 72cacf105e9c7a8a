//! The context of a call: caller, deadline, connection.

use std::{net::SocketAddr, sync::Arc};

use shiplane_transport::{PeerConnection, PeerId};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{calls::CallId, client::RpcClient};

/// The caller, the deadline, and the connection.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RequestContext {
    /// The caller's key, proven by the handshake.
    pub peer: PeerId,
    /// Where the caller is now. Not proof of anything.
    pub remote_addr: SocketAddr,
    /// Names the call in logs.
    #[doc(hidden)]
    pub call_id: CallId,
    /// When the caller stops waiting. The handler is dropped then.
    pub deadline: Instant,
    /// Triggered when the handler is dropped before its end: the caller gave up, the deadline passed
    /// or the connection ended. Give it to work that the handler starts elsewhere.
    pub cancelled: CancellationToken,
    /// The connection that the peer is served on.
    pub connection: Arc<PeerConnection>,
    /// For calling the caller back, during this call.
    pub client: RpcClient,
}
