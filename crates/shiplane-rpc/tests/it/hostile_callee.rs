//! A misbehaving callee: only the call fails, with a precise error.

use std::sync::Arc;

use bytes::Bytes;
use shiplane_rpc::{
    CallError, Method, RpcClient,
    internals::{AnswerFault, DecodeError, EnvelopeError},
};
use shiplane_transport::internals::BiStream;
use shiplane_wire::{Code, OpeningError, StreamHeader, StreamKind};
use tokio::time::Instant;

use crate::pair::{AMPLE, Pair, answer, framed, id_of};

/// How the one call went that Bob answered by `script`, which gets the id; and what became of the half
/// that he answered on, which he finishes if `finishes`.
async fn answered(finishes: bool, script: impl FnOnce(u64) -> Vec<u8>) -> (Result<Bytes, CallError>, Code) {
    let pair = Pair::new().await;
    let client = RpcClient::new(Arc::clone(&pair.alice));
    let bob = async {
        let call = pair.bob.next_call().await.unwrap();
        let BiStream { mut send, mut recv } = call.stream;
        let envelope = recv.read_to_end(1 << 20).await.unwrap();
        send.write(script(id_of(&envelope)).into()).await.unwrap();
        if finishes {
            send.finish().unwrap();
        }
        send.stopped().await
    };
    let (outcome, code) = tokio::join!(client.call("demo.any", Bytes::new(), AMPLE), bob);
    assert_eq!(client.in_flight(), 0);
    assert!(!pair.alice.is_closed(), "only the stream is given up");
    (outcome, code)
}

fn protocol(fault: impl Into<AnswerFault>) -> Result<Bytes, CallError> {
    Err(CallError::PeerProtocol(fault.into()))
}

#[tokio::test(start_paused = true)]
async fn an_answer_by_hand_is_an_answer() {
    let (outcome, code) = answered(true, |id| framed(StreamKind::RpcCall, &answer(id, b"yes")).into()).await;
    assert_eq!((outcome, code), (Ok(Bytes::from_static(b"yes")), Code::NoError));
}

#[tokio::test(start_paused = true)]
async fn an_answer_to_another_call_is_refused() {
    let (outcome, code) =
        answered(false, |id| framed(StreamKind::RpcCall, &answer(id.wrapping_add(1), b"no")).into()).await;
    let Err(CallError::PeerProtocol(AnswerFault::WrongId { expected, actual })) = outcome else {
        panic!("{outcome:?}");
    };
    assert_eq!(actual.as_u64(), expected.as_u64().wrapping_add(1));
    assert_eq!(code, Code::Protocol);
}

#[tokio::test(start_paused = true)]
async fn an_answer_of_4_gib_is_refused_by_its_header() {
    let (outcome, code) = answered(false, |_| {
        let mut header = StreamHeader::new(StreamKind::RpcCall, 0).unwrap().encode();
        header[..4].fill(0xff);
        header.to_vec()
    })
    .await;
    let is_too_large = matches!(
        outcome,
        Err(CallError::PeerProtocol(AnswerFault::Frame(EnvelopeError::Opening(OpeningError::TooLarge {
            len_bytes: 0xffff_ffff,
            ..
        }))))
    );
    assert!(is_too_large, "{outcome:?}");
    assert_eq!(code, Code::TooLarge);
}

#[tokio::test(start_paused = true)]
async fn an_answer_of_another_kind_is_refused() {
    let (outcome, code) = answered(false, |id| framed(StreamKind::OneWay, &answer(id, b"no")).into()).await;
    assert_eq!((outcome, code), (protocol(EnvelopeError::NotAnAnswer), Code::Protocol));
    let (outcome, _) = answered(false, |_| vec![0; 64]).await;
    assert_eq!(outcome, protocol(EnvelopeError::NotAnAnswer), "a chunk");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_cannot_be_read_is_refused() {
    let (outcome, code) = answered(false, |id| {
        let mut envelope = answer(id, b"");
        envelope[8] = 2; // neither body nor fault
        framed(StreamKind::RpcCall, &envelope).into()
    })
    .await;
    let invalid = AnswerFault::Envelope(DecodeError::InvalidValue);
    assert_eq!((outcome, code), (protocol(invalid), Code::Protocol));

    let (outcome, _) = answered(false, |id| {
        let envelope = [&answer(id, b"")[..], b"x"].concat();
        framed(StreamKind::RpcCall, &envelope).into()
    })
    .await;
    assert_eq!(outcome, protocol(AnswerFault::Envelope(DecodeError::TrailingBytes)));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_ends_early_or_never_came_is_refused() {
    let (outcome, _) = answered(true, |id| {
        let mut whole = framed(StreamKind::RpcCall, &answer(id, b"yes")).to_vec();
        whole.pop();
        whole
    })
    .await;
    let truncated = EnvelopeError::Truncated { received_bytes: 22, expected_bytes: 23 };
    assert_eq!(outcome, protocol(truncated));

    let (outcome, _) = answered(true, |_| Vec::new()).await;
    let nothing = OpeningError::Truncated { received_bytes: 0, expected_bytes: 8 };
    assert_eq!(outcome, protocol(EnvelopeError::Opening(nothing)));
}

#[tokio::test(start_paused = true)]
async fn a_second_answer_is_an_error_and_the_first_is_kept() {
    let (outcome, code) = answered(false, |id| {
        let first = framed(StreamKind::RpcCall, &answer(id, b"first"));
        let second = framed(StreamKind::RpcCall, &answer(id, b"second"));
        [first, second].concat()
    })
    .await;
    assert_eq!((outcome, code), (Ok(Bytes::from_static(b"first")), Code::Protocol));
}

#[tokio::test(start_paused = true)]
async fn an_answer_whose_stream_never_ends_counts_at_the_deadline() {
    let began = Instant::now();
    let (outcome, code) = answered(false, |id| framed(StreamKind::RpcCall, &answer(id, b"yes")).into()).await;
    assert_eq!(outcome, Ok(Bytes::from_static(b"yes")));
    assert_eq!(code, Code::Cancelled);
    assert!(began.elapsed() >= AMPLE);
}

#[tokio::test(start_paused = true)]
async fn a_typed_answer_of_another_type_is_refused() {
    let pair = Pair::new().await;
    pair.bob_serves(shiplane_rpc::Router::new().method("demo.text", crate::pair::echo));
    let client = RpcClient::new(Arc::clone(&pair.alice));
    let wrong = Method::<u8, String>::new("demo.text");
    let outcome = client.call_typed(wrong, &5, AMPLE).await;
    let fault = AnswerFault::Body(DecodeError::Truncated);
    assert_eq!(outcome, Err(CallError::PeerProtocol(fault)));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_given_up_says_with_which_code() {
    let pair = Pair::new().await;
    let client = RpcClient::new(Arc::clone(&pair.alice));
    let bob = async {
        let call = pair.bob.next_call().await.unwrap();
        call.stream.recv.stop(Code::Busy);
        call.stream.send.reset(Code::Busy);
    };
    let (outcome, ()) = tokio::join!(client.call("demo.any", Bytes::new(), AMPLE), bob);
    assert_eq!(outcome, Err(CallError::Refused { code: Code::Busy }));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_never_answers_costs_the_budget_and_no_more() {
    let pair = Pair::new().await;
    let client = RpcClient::new(Arc::clone(&pair.alice));
    let began = Instant::now();
    let outcome = client.call("demo.any", Bytes::new(), AMPLE).await;
    assert_eq!(outcome, Err(CallError::DeadlineExceeded { budget: AMPLE }));
    assert!(began.elapsed() < AMPLE * 2);
    assert!(!pair.alice.is_closed());
}
