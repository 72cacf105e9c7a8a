//! Messages under the `Messages` policy.

use shiplane_transport::StreamError;
use shiplane_wire::{Code, limits};

use super::*;

#[tokio::test]
async fn what_is_sent_is_byte_for_byte_the_documented_frame() {
    for (data, golden) in [(&b"hello"[..], HELLO_MESSAGE), (b"", "00000000")] {
        let played = Played::dialled(Messages, TransportConfig::default()).await;
        let receiver = async {
            let (mut send, frame) = played.hear().await;
            send.finish().unwrap();
            frame
        };
        let (sent, frame) = tokio::join!(played.ours.send(Bytes::from_static(data)), receiver);
        sent.unwrap();
        assert_eq!(HEXLOWER.encode(&frame), golden);
    }
}

#[tokio::test]
async fn the_documented_frame_is_received_and_answered_with_an_empty_end() {
    for (data, golden) in [(&b"hello"[..], HELLO_MESSAGE), (b"", "00000000")] {
        let played = Played::dialling(Messages, TransportConfig::default()).await;
        let ack = played.say(&bytes(golden)).await;
        assert_eq!(played.ours.recv().await.unwrap().as_deref(), Some(data));
        assert_eq!(answer(ack).await, Ok(vec![]));
    }
}

/// It has read the length's worth, and drops the rest of the stream before its end has come.
#[tokio::test]
async fn a_receiver_may_stop_our_half_as_the_original_does() {
    let played = Played::dialled(Messages, TransportConfig::default()).await;
    let receiver = async {
        let (mut send, mut recv) = played.raw.accept_bi().await.unwrap();
        recv.read_exact(&mut [0; 4 + 5]).await.unwrap();
        send.finish().unwrap();
    };
    let (sent, ()) = tokio::join!(played.ours.send(Bytes::from_static(b"hello")), receiver);
    sent.unwrap();
}

#[tokio::test]
async fn an_answer_that_is_not_empty_or_never_comes_is_no_receipt() {
    let played = Played::dialled(Messages, impatient()).await;
    let receiver = async {
        let (mut send, _) = played.hear().await;
        send.write_all(b"?").await.unwrap();
        send.finish().unwrap();
    };
    let (sent, ()) = tokio::join!(played.ours.send(Bytes::from_static(b"hello")), receiver);
    assert_eq!(sent, Err(StreamError::TooLong { max_bytes: 0 }.into()));

    let sent = timeout(AMPLE, played.ours.send(Bytes::from_static(b"hello"))).await.unwrap();
    assert!(matches!(sent, Err(OctopiiMessageError::Stream(StreamError::TimedOut { .. }))), "{sent:?}");
}

#[tokio::test]
async fn a_message_over_the_limit_is_refused_on_either_side() {
    let max_bytes = u64::from(limits::MAX_MESSAGE_LEN_BYTES);
    let played = Played::dialling(Messages, TransportConfig::default()).await;

    let data = vec![0; limits::MAX_MESSAGE_LEN_BYTES as usize + 1];
    let too_large = OctopiiMessageError::TooLarge { len_bytes: max_bytes + 1, max_bytes };
    assert_eq!(played.ours.send(data.into()).await, Err(too_large));

    for len in [limits::MAX_MESSAGE_LEN_BYTES + 1, u32::MAX] {
        let (mut send, ack) = played.raw.open_bi().await.unwrap();
        send.write_all(&len.to_le_bytes()).await.unwrap();
        let too_large = OctopiiMessageError::TooLarge { len_bytes: len.into(), max_bytes };
        assert_eq!(played.ours.recv().await, Err(too_large));
        assert_eq!(answer(ack).await, Err(Code::TooLarge.as_u64()));
    }
}

#[tokio::test]
async fn the_largest_message_arrives() {
    let pair = Pair::new(Messages, Messages).await;
    let data = Bytes::from(vec![7; limits::MAX_MESSAGE_LEN_BYTES as usize]);
    let (sent, received) = tokio::join!(pair.alice.send(data.clone()), pair.bob.recv());
    sent.unwrap();
    assert_eq!(received.unwrap(), Some(data));
}

#[tokio::test]
async fn a_message_that_is_cut_or_followed_is_refused_and_the_next_one_taken() {
    let played = Played::dialling(Messages, TransportConfig::default()).await;
    let golden = bytes(HELLO_MESSAGE);

    let ack = played.say(&golden[..golden.len() - 2]).await;
    let truncated = OctopiiMessageError::Truncated { received_bytes: 3, expected_bytes: 5 };
    assert_eq!(played.ours.recv().await, Err(truncated));
    assert_eq!(answer(ack).await, Err(Code::Protocol.as_u64()));

    let ack = played.say(&[&golden[..], b"!"].concat()).await;
    assert_eq!(played.ours.recv().await, Err(StreamError::TooLong { max_bytes: 5 }.into()));
    assert_eq!(answer(ack).await, Err(Code::Protocol.as_u64()));

    // Too short even for its length: only its sender gets an error.
    let ack = played.say(&golden[..3]).await;
    assert_eq!(answer(ack).await, Err(Code::Protocol.as_u64()));

    let ack = played.say(&golden).await;
    assert_eq!(played.ours.recv().await.unwrap().as_deref(), Some(&b"hello"[..]));
    assert_eq!(answer(ack).await, Ok(vec![]));
}

#[tokio::test]
async fn a_sender_that_stalls_is_given_up() {
    let played = Played::dialling(Messages, impatient()).await;
    let (mut send, ack) = played.raw.open_bi().await.unwrap();
    send.write_all(&bytes(HELLO_MESSAGE)[..6]).await.unwrap();
    let received = timeout(AMPLE, played.ours.recv()).await.unwrap();
    assert!(matches!(received, Err(OctopiiMessageError::Stream(StreamError::TimedOut { .. }))));
    assert_eq!(answer(ack).await, Err(Code::Timeout.as_u64()));
}

#[tokio::test]
async fn chunks_and_messages_share_a_connection_when_they_go_opposite_ways() {
    let pair = Pair::new(Lane, Messages).await;
    let (sent, name) = tokio::join!(pair.alice.send(Bytes::from_static(b"a.mp4")), pair.bob.recv());
    sent.unwrap();
    assert_eq!(name.unwrap().as_deref(), Some(&b"a.mp4"[..]));
    let source = memory(b"frames");
    let (sent, chunk) = tokio::join!(pair.bob.send_chunk_verified(&source), pair.alice.recv_chunk_verified());
    assert_eq!(sent.unwrap(), 6);
    assert_eq!(chunk.unwrap().as_deref(), Some(&b"frames"[..]));
}

#[tokio::test]
async fn an_orderly_end_is_none_and_any_other_an_error() {
    for (code, is_orderly) in [(0, true), (5, false)] {
        let played = Played::dialled(Messages, TransportConfig::default()).await;
        played.raw.close(VarInt::from_u32(code), b"shutdown");
        match played.ours.recv().await {
            Ok(None) => assert!(is_orderly),
            Err(OctopiiMessageError::Stream(StreamError::ConnectionLost(_))) => assert!(!is_orderly),
            other => panic!("{other:?}"),
        }
    }
}
