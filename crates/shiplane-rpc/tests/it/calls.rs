//! Successful calls, one or many at a time, in one direction or both.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::future::{join_all, try_join_all};
use shiplane_rpc::{CallError, FaultCode, MAX_IN_FLIGHT, Method, Router, RpcClient};
use shiplane_transport::ChunkSource;
use shiplane_wire::{StreamKind, limits::MAX_RPC_FRAME_LEN_BYTES};
use tokio::time::Instant;

use crate::pair::{AMPLE, Count, Pair, Seen, echo, endless, fault_code, framed, request, work};

const ADD: Method<(u32, u32), u64> = Method::new("demo.add");

#[tokio::test(start_paused = true)]
async fn a_typed_call_is_answered_and_the_handler_knows_the_caller() {
    let router = Router::new().typed(ADD, |context, (a, b)| async move {
        assert_eq!(context.peer, context.connection.peer_id());
        assert_eq!(context.remote_addr, context.connection.remote_addr());
        let left = context.deadline.saturating_duration_since(Instant::now());
        assert!(left <= AMPLE && left > AMPLE / 2, "{left:?}");
        Ok(u64::from(a) + u64::from(b))
    });
    let (_pair, client) = Pair::serving(router).await;
    assert_eq!(client.call_typed(ADD, &(u32::MAX, 1), AMPLE).await, Ok(1 << 32));
    assert_eq!(client.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_thousand_calls_answered_out_of_order_each_get_their_own_answer() {
    const CALLS: u64 = 1000;
    let order = Arc::new(Mutex::new(Vec::new()));
    let handled = Arc::clone(&order);
    let delayed = Method::<u64, u64>::new("demo.delayed");
    let router = Router::new().typed(delayed, move |_context, number| {
        let handled = Arc::clone(&handled);
        async move {
            work(Duration::from_millis(number * 7919 % 101)).await;
            handled.lock().unwrap().push(number);
            Ok(number * number)
        }
    });
    let (_pair, client) = Pair::serving(router).await;

    let call = |number| {
        let client = client.clone();
        async move { client.call_typed(delayed, &number, AMPLE).await }
    };
    let answers = try_join_all((0..CALLS).map(call)).await.unwrap();
    assert_eq!(answers, (0..CALLS).map(|n| n * n).collect::<Vec<_>>());
    assert!(!order.lock().unwrap().is_sorted(), "the order of answers was not that of calls");
    assert_eq!(client.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_largest_request_and_answer_pass_and_a_byte_more_is_refused_here() {
    let handled = Count::default();
    let count = handled.clone();
    let router = Router::new().method("demo.echo", move |context, body| {
        count.add();
        echo(context, body)
    });
    let (_pair, client) = Pair::serving(router).await;

    let overhead = request(0, "demo.echo", 0, b"").len();
    let fits = MAX_RPC_FRAME_LEN_BYTES as usize - overhead;
    let body = Bytes::from(vec![7; fits]);
    assert_eq!(client.call("demo.echo", body.clone(), AMPLE).await, Ok(body));

    let error = client.call("demo.echo", vec![7; fits + 1].into(), AMPLE).await.unwrap_err();
    let max_bytes = u64::from(MAX_RPC_FRAME_LEN_BYTES);
    assert_eq!(error, CallError::TooLarge { len_bytes: max_bytes + 1, max_bytes });
    assert!(error.to_string().contains("lane"), "{error}");
    assert_eq!(handled.get(), 1, "nothing of the second one was sent");
    assert_eq!(client.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_does_not_fit_becomes_a_fault() {
    let large = Method::<(), Vec<u8>>::new("demo.large");
    let router = Router::new()
        .typed(large, |_context, ()| async { Ok(vec![0; MAX_RPC_FRAME_LEN_BYTES as usize]) })
        .method("demo.raw", |_context, _body| async { Ok(vec![0; MAX_RPC_FRAME_LEN_BYTES as usize].into()) });
    let (_pair, client) = Pair::serving(router).await;
    for method in ["demo.large", "demo.raw"] {
        let outcome = client.call(method, Bytes::new(), AMPLE).await;
        assert_eq!(fault_code(outcome), FaultCode::TooLarge);
    }
}

#[tokio::test(start_paused = true)]
async fn a_handler_may_call_the_caller_back() {
    let pair = Pair::new().await;
    pair.alice_serves(
        Router::new()
            .method("alice.secret", |_context, _body| async { Ok(Bytes::from_static(b"swordfish")) }),
    );
    pair.bob_serves(Router::new().method("bob.open", |context, body| async move {
        let secret = context.client.call("alice.secret", body, AMPLE).await.unwrap();
        Ok([b"opened by ", &secret[..]].concat().into())
    }));
    let client = RpcClient::new(Arc::clone(&pair.alice));
    let answer = client.call("bob.open", Bytes::new(), AMPLE).await.unwrap();
    assert_eq!(answer, "opened by swordfish");
}

/// With every stream taken by calls whose handlers need one themselves, both sides would wait for the
/// other until their deadlines.
#[tokio::test(start_paused = true)]
async fn a_hundred_calls_each_way_that_call_back_do_not_block_each_other() {
    const CALLS: u64 = 100;
    let calls_back = Method::<u64, u64>::new("demo.calls-back");
    let double = Method::<u64, u64>::new("demo.double");
    let router = || {
        Router::new().typed(double, |_context, n| async move { Ok(2 * n) }).typed(
            calls_back,
            move |context, n| async move {
                // Lets the calls of the other side come in before any of these ends.
                work(Duration::from_millis(10)).await;
                let doubled = context.client.call_typed(double, &n, AMPLE).await.unwrap();
                Ok(doubled + 1)
            },
        )
    };
    let pair = Pair::new().await;
    pair.alice_serves(router());
    pair.bob_serves(router());
    let began = Instant::now();
    let calls_of = |connection| {
        let client = RpcClient::new(Arc::clone(connection));
        try_join_all((0..CALLS).map(move |n| {
            let client = client.clone();
            async move { client.call_typed(calls_back, &n, AMPLE).await }
        }))
    };
    let (to_bob, to_alice) = tokio::join!(calls_of(&pair.alice), calls_of(&pair.bob));
    let expected: Vec<_> = (0..CALLS).map(|n| 2 * n + 1).collect();
    assert_eq!((to_bob.unwrap(), to_alice.unwrap()), (expected.clone(), expected));
    assert!(began.elapsed() < AMPLE / 2, "nobody waited for a deadline");
}

#[tokio::test(start_paused = true)]
async fn one_call_more_than_may_wait_is_busy_at_once() {
    let (handler, mut told) = endless();
    let (_pair, client) = Pair::serving(Router::new().method("demo.endless", handler)).await;
    let call = |_| {
        let client = client.clone();
        async move { client.call("demo.endless", Bytes::new(), AMPLE).await }
    };
    let waiting = tokio::spawn(join_all((0..MAX_IN_FLIGHT).map(call)));
    assert_eq!(told.recv().await, Some(Seen::Began));
    assert_eq!(client.in_flight(), MAX_IN_FLIGHT);

    let refused = client.call("demo.endless", Bytes::new(), AMPLE).await;
    assert_eq!(refused, Err(CallError::Busy { max_in_flight: MAX_IN_FLIGHT }));
    let outcomes = waiting.await.unwrap();
    assert!(outcomes.iter().all(|o| *o == Err(CallError::DeadlineExceeded { budget: AMPLE })));
    assert_eq!(client.in_flight(), 0);
}

/// Each answer is its own call's, whatever the lane carries beside it, and the lane's bytes are its own.
#[tokio::test]
async fn a_thousand_calls_during_a_large_transfer_are_all_answered_rightly() {
    const CALLS: u64 = 1000;
    let square = Method::<u64, u64>::new("demo.square");
    let router = Router::new().typed(square, |_context, n| async move { Ok(n * n) });
    let (pair, client) = Pair::serving(router).await;
    let done = Arc::new(AtomicBool::new(false));
    let bulk = Bytes::from_iter((0..8_u32 << 20).map(|i| (i % 251) as u8));
    let source = ChunkSource::Memory(bulk.clone());
    let transfer = async {
        // One after another, so that there is bulk on its way until the last call has its answer.
        let mut chunks = 0;
        while !done.load(Ordering::Relaxed) || chunks < 2 {
            let sent = pair.alice.send_chunk_verified(&source);
            let (sent, received) = tokio::join!(sent, pair.bob.recv_chunk_verified());
            sent.unwrap();
            assert_eq!(received.unwrap().as_ref(), Some(&bulk));
            chunks += 1;
        }
    };
    let calls = async {
        let call = |n| {
            let client = client.clone();
            async move { assert_eq!(client.call_typed(square, &n, AMPLE).await, Ok(n * n)) }
        };
        for burst in 0..CALLS / 100 {
            join_all((0..100).map(|n| call(burst * 100 + n))).await;
        }
        done.store(true, Ordering::Relaxed);
    };
    tokio::join!(transfer, calls);
    assert_eq!(client.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_chunk_that_looks_like_a_request_reaches_no_handler() {
    let handled = Count::default();
    let count = handled.clone();
    let router = Router::new().method("demo.echo", move |context, body| {
        count.add();
        echo(context, body)
    });
    let (pair, client) = Pair::serving(router).await;
    let lookalike = framed(StreamKind::RpcCall, &request(1, "demo.echo", 1000, b"body"));
    let source = ChunkSource::Memory(lookalike.clone());
    let (sent, received) =
        tokio::join!(pair.alice.send_chunk_verified(&source), pair.bob.recv_chunk_verified());
    sent.unwrap();
    assert_eq!(received.unwrap(), Some(lookalike));
    assert_eq!(handled.get(), 0);
    assert!(client.call("demo.echo", Bytes::new(), AMPLE).await.is_ok());
    assert_eq!(handled.get(), 1);
}
