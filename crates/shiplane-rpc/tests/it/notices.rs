//! One-way requests: handled once, never answered, bounded.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::future::try_join_all;
use shiplane_rpc::{CallError, MAX_IN_FLIGHT, Method, Router, RpcClient};
use shiplane_transport::internals::{BiStream, CallKind};
use shiplane_wire::{Code, limits::MAX_RPC_FRAME_LEN_BYTES};
use tokio::sync::mpsc;

use crate::pair::{AMPLE, Pair, Seen, echo, endless};

const NOTE: Method<u64, ()> = Method::new("demo.note");

#[tokio::test(start_paused = true)]
async fn a_thousand_notices_are_each_handled_once() {
    let (noted, mut notes) = mpsc::unbounded_channel();
    let router = Router::new().typed(NOTE, move |context, number| {
        let left = context.deadline.saturating_duration_since(tokio::time::Instant::now());
        assert!(left <= AMPLE && left > AMPLE / 2, "{left:?}");
        noted.send(number).unwrap();
        async { Ok(()) }
    });
    let (pair, client) = Pair::serving(router).await;
    for number in 0..1000 {
        client.notify_typed(NOTE, &number, AMPLE).await.unwrap();
    }
    pair.alice.drained().await;
    let mut seen: Vec<_> = std::iter::from_fn(|| notes.try_recv().ok()).collect();
    seen.sort_unstable();
    assert_eq!(seen, (0..1000).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_notice_returns_before_its_handler_does_and_leaves_it_alone() {
    let (handler, mut told) = endless();
    let router = Router::new().method("demo.endless", handler).method("demo.echo", echo);
    let (_pair, client) = Pair::serving(router).await;
    let budget = Duration::from_secs(5);
    let began = tokio::time::Instant::now();
    client.notify("demo.endless", Bytes::new(), budget).await.unwrap();
    assert_eq!(told.recv().await, Some(Seen::Began));
    assert!(began.elapsed() < budget / 2);
    assert_eq!(client.in_flight(), 1);

    // Nothing but the deadline ends it.
    client.call("demo.echo", Bytes::new(), AMPLE).await.unwrap();
    assert!(told.try_recv().is_err());
    assert_eq!(told.recv().await, Some(Seen::Dropped { cancelled: true }));
    assert!(began.elapsed().abs_diff(budget) < Duration::from_millis(50));
    client.call("demo.echo", Bytes::new(), AMPLE).await.unwrap();
    assert_eq!(client.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_notice_that_cannot_be_sent_is_an_error_and_a_refused_one_is_not() {
    let (pair, client) = Pair::serving(Router::new()).await;
    let large = Bytes::from(vec![0; MAX_RPC_FRAME_LEN_BYTES as usize]);
    let outcome = client.notify("demo.none", large, AMPLE).await;
    assert!(matches!(outcome, Err(CallError::TooLarge { .. })), "{outcome:?}");
    let outcome = client.notify("demo.none", Bytes::new(), Duration::ZERO).await;
    assert_eq!(outcome, Err(CallError::DeadlineExceeded { budget: Duration::ZERO }));

    client.notify("demo.none", Bytes::new(), AMPLE).await.unwrap();
    pair.alice.drained().await;
    assert_eq!(client.in_flight(), 0);

    pair.bob.close(Code::ShuttingDown);
    pair.alice.closed().await;
    let outcome = client.notify("demo.none", Bytes::new(), AMPLE).await;
    assert!(matches!(outcome, Err(CallError::ConnectionLost(_))), "{outcome:?}");
}

#[tokio::test(start_paused = true)]
async fn unhandled_notices_are_bounded() {
    let pair = Pair::new().await;
    let client = RpcClient::new(Arc::clone(&pair.alice));
    let notify = |_| client.notify("demo.note", Bytes::new(), Duration::from_secs(5));
    let waiting = try_join_all((0..MAX_IN_FLIGHT).map(notify));
    let (sent, refused) = tokio::join!(waiting, async {
        assert_eq!(client.in_flight(), MAX_IN_FLIGHT);
        notify(0).await
    });
    assert_eq!(refused, Err(CallError::Busy { max_in_flight: MAX_IN_FLIGHT }));
    let budget = Duration::from_secs(5);
    assert_eq!(sent, Err(CallError::DeadlineExceeded { budget }), "there are not so many streams");
}

#[tokio::test(start_paused = true)]
async fn an_answer_to_a_notice_is_stopped() {
    let pair = Pair::new().await;
    let client = RpcClient::new(Arc::clone(&pair.alice));
    client.notify("demo.note", Bytes::new(), AMPLE).await.unwrap();
    let call = pair.bob.next_call().await.unwrap();
    assert_eq!(call.kind, CallKind::OneWay);
    let BiStream { mut send, recv: _recv } = call.stream;
    send.write(Bytes::from_static(b"answer")).await.unwrap();
    assert_eq!(send.stopped().await, Code::Protocol);
    assert!(!pair.alice.is_closed());
}
