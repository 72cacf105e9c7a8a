//! A caller that breaks the rules harms only its own streams.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use shiplane_rpc::{Router, RpcClient};
use shiplane_transport::{
    StreamError,
    internals::{BiStream, RecvHalf},
};
use shiplane_wire::{Code, StreamHeader, StreamKind};
use tokio::time::Instant;

use crate::pair::{AMPLE, Count, Pair, Seen, answer, echo, endless, framed, request};

async fn counting() -> (Pair, RpcClient, Count) {
    let handled = Count::default();
    let count = handled.clone();
    let router = Router::new().method("demo.echo", move |context, body| {
        count.add();
        echo(context, body)
    });
    let (pair, client) = Pair::serving(router).await;
    (pair, client, handled)
}

async fn sent(pair: &Pair, bytes: Bytes) -> RecvHalf {
    let BiStream { mut send, recv } = pair.alice.open_stream(bytes).await.unwrap();
    send.finish().unwrap();
    recv
}

#[tokio::test(start_paused = true)]
async fn a_malformed_request_is_reset_and_the_connection_lives() {
    let (pair, client, handled) = counting().await;
    let good = request(1, "demo.echo", 1000, b"body");
    let flipped = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 0xff;
        bytes
    };
    let longer = [&good[..], b"x"].concat();
    let cases = [
        ("no envelope", Vec::new()),
        ("cut", good[..good.len() - 1].to_vec()),
        ("longer than its fields", longer),
        ("endless method", flipped(15)),
        ("method that is not UTF-8", flipped(16)),
        ("endless body", flipped(40)),
        ("an answer", answer(1, b"body")),
    ];
    for (name, envelope) in cases {
        let mut recv = sent(&pair, framed(StreamKind::RpcCall, &envelope)).await;
        assert_eq!(recv.read().await, Err(StreamError::Reset(Code::Protocol)), "{name}");
    }
    assert_eq!(handled.get(), 0);
    assert!(client.call("demo.echo", Bytes::new(), AMPLE).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_contradicts_its_header_is_reset() {
    let (pair, _client, handled) = counting().await;
    let whole = framed(StreamKind::RpcCall, &request(1, "demo.echo", 1000, b"body"));
    let early = whole.slice(..whole.len() - 1);
    let excess = Bytes::from([&whole[..], b"x"].concat());
    for bytes in [early, excess, whole.repeat(2).into()] {
        let mut recv = sent(&pair, bytes).await;
        assert_eq!(recv.read().await, Err(StreamError::Reset(Code::Protocol)));
    }
    assert_eq!(handled.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_time_is_over_when_it_arrives_is_not_handled() {
    let (pair, _client, handled) = counting().await;
    let mut recv = sent(&pair, framed(StreamKind::RpcCall, &request(1, "demo.echo", 0, b"body"))).await;
    assert!(recv.read().await.unwrap().is_some(), "it is told");
    let mut recv = sent(&pair, framed(StreamKind::OneWay, &request(2, "demo.echo", 0, b"body"))).await;
    assert_eq!(recv.read().await, Err(StreamError::Reset(Code::Timeout)));
    assert_eq!(handled.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_header_that_announces_4_gib_is_refused_at_once() {
    let (pair, client, handled) = counting().await;
    let mut header = StreamHeader::new(StreamKind::RpcCall, 0).unwrap().encode();
    header[..4].fill(0xff);
    let began = Instant::now();
    // Unfinished: nothing but these eight bytes decides.
    let opening = Bytes::copy_from_slice(&header);
    let mut stream = pair.alice.open_stream(opening).await.unwrap();
    assert_eq!(stream.recv.read().await, Err(StreamError::Reset(Code::TooLarge)));
    assert_eq!(stream.send.stopped().await, Code::TooLarge);
    assert!(began.elapsed() < Duration::from_secs(1));
    assert!(client.call("demo.echo", Bytes::new(), AMPLE).await.is_ok());
    assert_eq!(handled.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_id_in_flight_is_refused_and_the_first_call_goes_on() {
    let (handler, mut told) = endless();
    let router = Router::new().method("demo.endless", handler).method("demo.echo", echo);
    let (pair, _client) = Pair::serving(router).await;
    let open = async |method| sent(&pair, framed(StreamKind::RpcCall, &request(7, method, 2000, b""))).await;

    let mut first = open("demo.endless").await;
    assert_eq!(told.recv().await, Some(Seen::Began));
    let mut second = open("demo.echo").await;
    assert_eq!(second.read().await, Err(StreamError::Reset(Code::Protocol)));
    assert!(told.try_recv().is_err(), "the first call is not disturbed");

    assert!(first.read_to_end(1024).await.is_ok(), "it is answered at its deadline");
    let mut third = open("demo.echo").await;
    let echoed = third.read_to_end(1024).await.unwrap();
    assert_eq!(echoed, framed(StreamKind::RpcCall, &answer(7, b"")), "now the id is free again");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_never_comes_times_out_at_the_header_deadline() {
    let (pair, _client, handled) = counting().await;
    let whole = framed(StreamKind::RpcCall, &request(1, "demo.echo", u64::MAX, b"body"));
    let began = Instant::now();
    let opening = whole.slice(..whole.len() - 1);
    let mut stream = pair.alice.open_stream(opening).await.unwrap();
    assert_eq!(stream.recv.read().await, Err(StreamError::Reset(Code::Timeout)));
    let header_timeout = pair.bob.config().timeouts().header;
    assert!(began.elapsed().abs_diff(header_timeout) < Duration::from_secs(1));
    assert_eq!(handled.get(), 0);
}

/// Each may take a frame's worth of memory, so eight at a time is all that one peer gets.
#[tokio::test(start_paused = true)]
async fn silent_bodies_hold_up_their_own_peer_until_the_header_deadline() {
    let (pair, client, _handled) = counting().await;
    let header = StreamHeader::new(StreamKind::RpcCall, 1 << 20).unwrap().encode();
    let mut silent = Vec::new();
    for _ in 0..8 {
        silent.push(pair.alice.open_stream(Bytes::copy_from_slice(&header)).await.unwrap());
    }
    // A refusal comes back, so the eight before it are known there; and their time ends before the
    // honest call's does.
    let mut refused = sent(&pair, framed(StreamKind::RpcCall, b"")).await;
    assert_eq!(refused.read().await, Err(StreamError::Reset(Code::Protocol)));
    tokio::time::advance(Duration::from_secs(1)).await;
    let began = Instant::now();
    assert_eq!(client.call("demo.echo", "honest".into(), AMPLE).await.unwrap(), "honest");
    let waited = began.elapsed() + Duration::from_secs(1);
    assert!(waited.abs_diff(pair.bob.config().timeouts().header) < Duration::from_secs(1), "{waited:?}");
    for mut stream in silent {
        assert_eq!(stream.recv.read().await, Err(StreamError::Reset(Code::Timeout)));
    }
}

/// What one peer leaves of the memory for all is what another one may take for long requests; its short ones never wait.
#[tokio::test(start_paused = true)]
async fn bodies_of_all_peers_are_bounded_together_and_short_calls_never_wait() {
    let router = Arc::new(Router::new().method("demo.echo", echo).max_body_bytes(1 << 20));
    let (hostile, honest) = (Pair::new().await, Pair::new().await);
    for pair in [&hostile, &honest] {
        tokio::spawn(Arc::clone(&router).serve(Arc::clone(&pair.bob)));
    }
    let header = StreamHeader::new(StreamKind::RpcCall, 1 << 20).unwrap().encode();
    let mut silent = hostile.alice.open_stream(Bytes::copy_from_slice(&header)).await.unwrap();
    let mut refused = sent(&hostile, framed(StreamKind::RpcCall, b"")).await;
    assert_eq!(refused.read().await, Err(StreamError::Reset(Code::Protocol)));
    tokio::time::advance(Duration::from_secs(1)).await;
    let (client, began) = (RpcClient::new(Arc::clone(&honest.alice)), Instant::now());
    assert_eq!(client.call("demo.echo", "short".into(), AMPLE).await.unwrap(), "short");
    assert!(began.elapsed() < Duration::from_secs(1), "it has waited for another peer");
    let long = Bytes::from(vec![7; 100_000]);
    assert_eq!(client.call("demo.echo", long.clone(), AMPLE).await.unwrap(), long);
    assert!(began.elapsed() > Duration::from_secs(8), "the silent peer's memory was still taken");
    assert_eq!(silent.recv.read().await, Err(StreamError::Reset(Code::Timeout)));
}
