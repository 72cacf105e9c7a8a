//! Encodes the envelopes of the octopii dialect (SPEC 9.10).

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use shiplane_rpc::internals::{CallId, DecodeError, EncodeError};

/// One envelope: all that a message carries. The order of variants and fields is that of the wire, here
/// and below.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RpcMessage {
    /// Wants a response.
    Request(RpcRequest),
    /// The response to a request.
    Response(RpcResponse),
    /// Wants none.
    OneWay(OneWayMessage),
}

/// A question with its id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RpcRequest {
    /// Chosen by the one who asks.
    #[serde(with = "call_id")]
    pub id: CallId,
    /// What is asked.
    pub payload: RequestPayload,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RequestPayload {
    /// A message of the raft protocol, in an encoding of its own.
    RaftMessage {
        /// The encoded message.
        #[serde(with = "octets")]
        message: Bytes,
    },
    /// A message of the openraft library.
    OpenRaft {
        /// Which one.
        kind: String,
        /// The encoded message.
        #[serde(with = "octets")]
        data: Bytes,
    },
    /// An application's own.
    Custom {
        /// Which one.
        operation: String,
        /// The application's bytes.
        #[serde(with = "octets")]
        data: Bytes,
    },
}

/// An answer with the id of its question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RpcResponse {
    /// The question's.
    #[serde(with = "call_id")]
    pub id: CallId,
    /// What is answered.
    pub payload: ResponsePayload,
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ResponsePayload {
    /// To raft's append entries.
    AppendEntriesResponse {
        /// The answering node's term.
        term: u64,
        /// Whether the entries were appended.
        success: bool,
    },
    /// To raft's request for a vote.
    RequestVoteResponse {
        /// The answering node's term.
        term: u64,
        /// Whether the vote was given.
        vote_granted: bool,
    },
    /// To raft's snapshot.
    SnapshotResponse {
        /// The answering node's term.
        term: u64,
        /// Whether the snapshot was taken.
        success: bool,
    },
    /// A message of the openraft library.
    OpenRaft {
        /// Which one.
        kind: String,
        /// The encoded message.
        #[serde(with = "octets")]
        data: Bytes,
    },
    /// An application's own.
    CustomResponse {
        /// The application's verdict.
        success: bool,
        /// The application's bytes.
        #[serde(with = "octets")]
        data: Bytes,
    },
    /// The request could not be answered. The text is the peer's: escape it before it is shown.
    Error {
        /// Why.
        message: String,
    },
}

/// What needs no answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum OneWayMessage {
    /// A node lives.
    Heartbeat {
        /// Which one.
        node_id: u64,
        /// Its own clock's reading.
        timestamp: u64,
    },
    /// An application's own.
    Custom {
        /// Which one.
        operation: String,
        /// The application's bytes.
        #[serde(with = "octets")]
        data: Bytes,
    },
}

impl RpcMessage {
    /// The data of the message that carries this envelope.
    ///
    /// # Errors
    /// [`EncodeError::TooLarge`] over 1 MiB: send what is large as a chunk.
    pub fn encode(&self) -> Result<Bytes, EncodeError> {
        shiplane_rpc::internals::encode(self)
    }

    /// The envelope that a message's data is.
    ///
    /// # Errors
    /// [`DecodeError`]: it is not exactly one envelope.
    pub fn decode(data: &[u8]) -> Result<Self, DecodeError> {
        shiplane_rpc::internals::decode(data)
    }
}

/// For the fuzzer: what decodes encodes to the same again.
#[doc(hidden)]
pub fn fuzz_octopii(data: &[u8]) {
    if let Ok(message) = RpcMessage::decode(data) {
        assert!(message.encode().is_ok_and(|encoded| encoded == data));
    }
}

/// Bytes, cut from the input at once: a length that a peer claims costs nothing before it is there.
mod octets {
    use super::{Bytes, Deserialize};
    use serde::{Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
        <&[u8]>::deserialize(deserializer).map(Bytes::copy_from_slice)
    }
}

mod call_id {
    use super::{CallId, Deserialize};
    use serde::{Deserializer, Serializer};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde calls")]
    pub(super) fn serialize<S: Serializer>(id: &CallId, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(id.as_u64())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<CallId, D::Error> {
        u64::deserialize(deserializer).map(CallId::from_u64)
    }
}
