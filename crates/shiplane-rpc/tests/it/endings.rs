//! Calls that end early: by deadline, by their caller, by the connection.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::future::join_all;
use shiplane_rpc::{CallError, Router, RpcClient};
use shiplane_transport::PeerConnection;
use shiplane_wire::{Code, StreamKind};
use tokio::time::Instant;

use crate::pair::{AMPLE, Pair, Seen, echo, endless, framed, request, twins};

const GONE: Option<Seen> = Some(Seen::Dropped { cancelled: true });

fn router() -> (Router, tokio::sync::mpsc::UnboundedReceiver<Seen>) {
    let (handler, told) = endless();
    let router = Router::new().method("demo.endless", handler).method("demo.echo", echo);
    (router, told)
}

#[tokio::test(start_paused = true)]
async fn the_budget_ends_the_call_here_and_the_handler_there() {
    let budget = Duration::from_millis(500);
    let (router, mut told) = router();
    let (_pair, client) = Pair::serving(router).await;
    let began = Instant::now();
    let outcome = client.call("demo.endless", Bytes::new(), budget).await;
    assert_eq!(outcome, Err(CallError::DeadlineExceeded { budget }));
    let late_by = began.elapsed().abs_diff(budget);
    assert!(late_by <= Duration::from_millis(50), "off by {late_by:?}");
    assert_eq!(client.in_flight(), 0);

    assert_eq!(told.recv().await, Some(Seen::Began));
    assert_eq!(told.recv().await, GONE);
    assert!(client.call("demo.echo", Bytes::new(), AMPLE).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_budget_of_nothing_is_used_up_and_one_without_end_is_not() {
    let (router, _told) = router();
    let (_pair, client) = Pair::serving(router).await;
    let outcome = client.call("demo.echo", Bytes::new(), Duration::ZERO).await;
    assert_eq!(outcome, Err(CallError::DeadlineExceeded { budget: Duration::ZERO }));
    assert_eq!(client.call("demo.echo", "x".into(), Duration::MAX).await.unwrap(), "x");
}

/// The server keeps the deadline too, for a caller that does not stop.
#[tokio::test(start_paused = true)]
async fn the_callee_ends_the_handler_at_the_callers_deadline() {
    let (router, mut told) = router();
    let (pair, _client) = Pair::serving(router).await;
    let opening = framed(StreamKind::RpcCall, &request(9, "demo.endless", 700, b""));
    let began = Instant::now();
    let mut stream = pair.alice.open_stream(opening).await.unwrap();
    stream.send.finish().unwrap();
    let answer = stream.recv.read_to_end(1 << 20).await.unwrap();
    assert!(began.elapsed().abs_diff(Duration::from_millis(700)) <= Duration::from_millis(50));
    assert_eq!(answer[8..24], [9, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 4, 0, 0, 0]);
    assert_eq!(told.recv().await, Some(Seen::Began));
    assert_eq!(told.recv().await, GONE);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_call_cancels_its_handler_and_no_other() {
    let (router, mut told) = router();
    let (_pair, client) = Pair::serving(router).await;
    let caller = client.clone();
    let call = tokio::spawn(async move { caller.call("demo.endless", Bytes::new(), AMPLE).await });
    assert_eq!(told.recv().await, Some(Seen::Began));
    assert_eq!(client.in_flight(), 1);
    let began = Instant::now();
    call.abort();
    assert_eq!(told.recv().await, GONE);
    assert!(began.elapsed() < AMPLE / 2, "it was the caller, not the deadline");
    assert_eq!(client.in_flight(), 0);
    assert!(client.call("demo.echo", Bytes::new(), AMPLE).await.is_ok());
}

/// SPEC 5.4, before the request was even whole.
#[tokio::test(start_paused = true)]
async fn a_request_that_is_reset_midway_reaches_no_handler() {
    let (router, mut told) = router();
    let (pair, client) = Pair::serving(router).await;
    let whole = framed(StreamKind::RpcCall, &request(9, "demo.endless", 700, b""));
    let stream = pair.alice.open_stream(whole.slice(..20)).await.unwrap();
    let mut recv = stream.recv;
    stream.send.reset(Code::Cancelled);
    assert!(recv.read().await.is_err());
    assert!(client.call("demo.echo", Bytes::new(), AMPLE).await.is_ok());
    assert!(told.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_lost_connection_is_reported_to_every_waiter_and_ends_every_handler() {
    const CALLS: usize = 100;
    let pair = Pair::new().await;
    let (router, mut told) = router();
    let serving = pair.bob_serves(router);
    let client = RpcClient::new(Arc::clone(&pair.alice));
    let call = |_| {
        let client = client.clone();
        async move { client.call("demo.endless", Bytes::new(), AMPLE).await }
    };
    let waiting = tokio::spawn(join_all((0..CALLS).map(call)));
    assert_eq!(told.recv().await, Some(Seen::Began));
    assert_eq!(client.in_flight(), CALLS, "most of them still wait for a stream");

    pair.bob.close(Code::ShuttingDown);
    for outcome in waiting.await.unwrap() {
        assert!(matches!(outcome, Err(CallError::ConnectionLost(_))), "{outcome:?}");
    }
    assert_eq!(client.in_flight(), 0);
    let outcome = client.call("demo.echo", Bytes::new(), AMPLE).await;
    assert!(matches!(outcome, Err(CallError::ConnectionLost(_))), "{outcome:?}");

    serving.await.unwrap();
    let mut running = 1;
    while let Ok(seen) = told.try_recv() {
        match seen {
            Seen::Began => running += 1,
            Seen::Dropped { cancelled } => {
                assert!(cancelled);
                running -= 1;
            }
        }
    }
    assert_eq!(running, 0, "serve returns after the last handler is gone");
}

#[tokio::test(start_paused = true)]
async fn to_stop_serving_cancels_the_handlers() {
    let pair = Pair::new().await;
    let (router, mut told) = router();
    let serving = pair.bob_serves(router);
    let client = RpcClient::new(Arc::clone(&pair.alice));
    let call = tokio::spawn(async move { client.call("demo.endless", Bytes::new(), AMPLE).await });
    assert_eq!(told.recv().await, Some(Seen::Began));
    serving.abort();
    assert_eq!(told.recv().await, GONE);
    let refused = CallError::Refused { code: Code::ShuttingDown };
    assert_eq!(call.await.unwrap(), Err(refused));
}

/// A peer that always has another connection, as one whose programs come and go, must not make its old ones stay.
#[tokio::test]
async fn serving_ends_with_its_connection_whatever_the_peer_has_beside_it() {
    let (router, mut told) = router();
    let router = Arc::new(router);
    let (bob, [first, second]) = twins().await;
    let served = [bob.accept().await.unwrap().1, bob.accept().await.unwrap().1];
    let weak = Arc::downgrade(&served[0]);
    let [old, new] = served.map(|connection| tokio::spawn(Arc::clone(&router).serve(connection)));

    // Taken by the server, on whichever connection they come.
    let call = |alice: &Arc<PeerConnection>| {
        let client = RpcClient::new(Arc::clone(alice));
        tokio::spawn(async move { client.call("demo.endless", Bytes::new(), AMPLE).await })
    };
    let calls = [call(&first.1), call(&second.1)];
    assert_eq!([told.recv().await, told.recv().await], [Some(Seen::Began), Some(Seen::Began)]);
    first.1.close(Code::NoError);
    assert_eq!(told.recv().await, GONE);
    let client = RpcClient::new(Arc::clone(&second.1));
    assert_eq!(client.call("demo.echo", "x".into(), AMPLE).await.unwrap(), "x");
    assert!(told.try_recv().is_err(), "a call on the other connection goes on");

    let [ended, goes_on] = calls;
    assert!(ended.await.unwrap().is_err());
    goes_on.abort();
    assert_eq!(told.recv().await, GONE);
    tokio::time::timeout(AMPLE, old).await.expect("it ends with its own connection").unwrap();
    assert!(weak.upgrade().is_none(), "nobody holds what has ended");
    assert_eq!(client.call("demo.echo", "y".into(), AMPLE).await.unwrap(), "y");
    drop((first, second, client));
    new.await.unwrap();
}
