//! Golden bytes of envelopes.

use proptest::prelude::*;
use shiplane_rpc::internals::{DecodeError, EncodeError};

use super::*;

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

/// Every variant, with its bytes written by hand from SPEC 9.10.
fn golden() -> Vec<(RpcMessage, Vec<u8>)> {
    let one = CallId::from_u64(1);
    let (kind, data) = ("vote".to_owned(), Bytes::from_static(b"\xca\xfe"));
    let requests = [
        (
            RequestPayload::RaftMessage { message: data.clone() },
            "00000000 0100000000000000 00000000 0200000000000000 cafe",
        ),
        (
            RequestPayload::OpenRaft { kind: kind.clone(), data: data.clone() },
            "00000000 0100000000000000 01000000 0400000000000000 766f7465 0200000000000000 cafe",
        ),
        (
            custom("ping", "hi"),
            "00000000 0100000000000000 02000000 0400000000000000 70696e67 0200000000000000 6869",
        ),
    ];
    let responses = [
        (
            ResponsePayload::AppendEntriesResponse { term: 0x0102, success: true },
            "01000000 0100000000000000 00000000 0201000000000000 01",
        ),
        (
            ResponsePayload::RequestVoteResponse { term: 7, vote_granted: false },
            "01000000 0100000000000000 01000000 0700000000000000 00",
        ),
        (
            ResponsePayload::SnapshotResponse { term: u64::MAX, success: true },
            "01000000 0100000000000000 02000000 ffffffffffffffff 01",
        ),
        (
            ResponsePayload::OpenRaft { kind, data: data.clone() },
            "01000000 0100000000000000 03000000 0400000000000000 766f7465 0200000000000000 cafe",
        ),
        (done("ok"), "01000000 0100000000000000 04000000 01 0200000000000000 6f6b"),
        (
            ResponsePayload::Error { message: "no".to_owned() },
            "01000000 0100000000000000 05000000 0200000000000000 6e6f",
        ),
    ];
    let notices = [
        (
            OneWayMessage::Heartbeat { node_id: 3, timestamp: 9 },
            "02000000 00000000 0300000000000000 0900000000000000",
        ),
        (
            OneWayMessage::Custom { operation: "log".to_owned(), data },
            "02000000 01000000 0300000000000000 6c6f67 0200000000000000 cafe",
        ),
    ];
    let request = |payload| RpcMessage::Request(RpcRequest { id: one, payload });
    let response = |payload| RpcMessage::Response(RpcResponse { id: one, payload });
    let mut all = Vec::new();
    all.extend(requests.map(|(payload, hex)| (request(payload), bytes(hex))));
    all.extend(responses.map(|(payload, hex)| (response(payload), bytes(hex))));
    all.extend(notices.map(|(notice, hex)| (RpcMessage::OneWay(notice), bytes(hex))));
    all
}

#[test]
fn every_variant_has_its_documented_bytes_both_ways() {
    for (message, golden) in golden() {
        assert_eq!(message.encode().unwrap(), golden, "{message:?}");
        assert_eq!(RpcMessage::decode(&golden), Ok(message));
    }
}

#[test]
fn an_envelope_that_is_cut_or_followed_is_none() {
    for (message, golden) in golden() {
        for cut in 0..golden.len() {
            assert_eq!(RpcMessage::decode(&golden[..cut]), Err(DecodeError::Truncated), "{message:?}");
        }
        let followed = [&golden[..], &[0]].concat();
        assert_eq!(RpcMessage::decode(&followed), Err(DecodeError::TrailingBytes), "{message:?}");
    }
}

#[test]
fn variants_and_truths_that_there_are_not_are_refused() {
    let unknown = [
        "03000000 0100000000000000",
        "00000000 0100000000000000 03000000 0000000000000000",
        "01000000 0100000000000000 06000000 0000000000000000",
        "02000000 02000000 0000000000000000",
    ];
    for hex in unknown {
        assert_eq!(RpcMessage::decode(&bytes(hex)), Err(DecodeError::InvalidValue), "{hex}");
    }
    let neither = bytes("01000000 0100000000000000 00000000 0200000000000000 02");
    assert_eq!(RpcMessage::decode(&neither), Err(DecodeError::InvalidTag { tag: 2 }));
}

#[test]
fn a_length_that_is_claimed_costs_nothing() {
    let claimed = bytes("00000000 0100000000000000 00000000 ffffffffffffff7f");
    assert_eq!(RpcMessage::decode(&claimed), Err(DecodeError::Truncated));
}

#[test]
fn over_a_mebibyte_is_refused_both_ways() {
    let large = vec![0; 1 << 20];
    let message = RpcMessage::Request(RpcRequest { id: CallId::from_u64(1), payload: custom("", large) });
    assert!(matches!(message.encode(), Err(EncodeError::TooLarge { .. })));
    assert!(matches!(RpcMessage::decode(&vec![0; (1 << 20) + 1]), Err(DecodeError::TooLarge { .. })));
}

proptest! {
    #[test]
    fn decoded_values_encode_to_the_same_bytes(
        variant in 0..3_u8,
        question in 0..7_u8,
        rest in proptest::collection::vec(prop_oneof![3 => Just(0_u8), 1 => any::<u8>()], 0..60),
    ) {
        let id = if variant == 2 { &[][..] } else { &[1, 0, 0, 0, 0, 0, 0, 0] };
        let data = [&[variant, 0, 0, 0], id, &[question, 0, 0, 0], &rest].concat();
        if let Ok(message) = RpcMessage::decode(&data) {
            prop_assert_eq!(message.encode().unwrap(), data);
        }
    }

    #[test]
    fn any_custom_call_survives_the_journey(
        id in any::<u64>(),
        operation in ".{0,20}",
        data in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let message =
            RpcMessage::Request(RpcRequest { id: CallId::from_u64(id), payload: custom(&operation, data) });
        prop_assert_eq!(RpcMessage::decode(&message.encode().unwrap()), Ok(message));
    }
}
