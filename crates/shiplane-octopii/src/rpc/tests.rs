//! Envelopes against golden bytes, and calls over real connections: between two of ours, and with a peer
//! that is played message by message.

mod calls;
mod envelopes;

use std::time::Duration;

use bytes::Bytes;
use shiplane_transport::TransportConfig;

use super::*;
use crate::{AcceptAnyPeer, InsecureOctopiiTransport};

/// Far more than any story takes.
const AMPLE: Duration = Duration::from_secs(60);

fn custom(operation: &str, data: impl Into<Bytes>) -> RequestPayload {
    RequestPayload::Custom { operation: operation.to_owned(), data: data.into() }
}

fn done(data: impl Into<Bytes>) -> ResponsePayload {
    ResponsePayload::CustomResponse { success: true, data: data.into() }
}

fn response(id: CallId, payload: ResponsePayload) -> Bytes {
    RpcMessage::Response(RpcResponse { id, payload }).encode().unwrap()
}

fn request(id: u64, payload: RequestPayload) -> Bytes {
    RpcMessage::Request(RpcRequest { id: CallId::from_u64(id), payload }).encode().unwrap()
}
