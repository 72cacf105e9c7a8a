//! Honest calls that the server refuses.

use bytes::Bytes;
use shiplane_rpc::{CallError, Fault, FaultCode, Method, Router};
use shiplane_transport::StreamError;
use shiplane_wire::{Code, StreamKind};

use crate::pair::{AMPLE, Count, Pair, Seen, echo, endless, fault_code, framed, request};

#[tokio::test(start_paused = true)]
async fn an_unknown_method_is_a_fault_that_names_it_escaped() {
    let (_pair, client) = Pair::serving(Router::new()).await;
    let outcome = client.call("demo.\u{1b}[31mnone", Bytes::new(), AMPLE).await;
    let Err(CallError::Fault(fault)) = outcome else { panic!("{outcome:?}") };
    assert_eq!(fault.code, FaultCode::UnknownMethod);
    assert!(fault.message().contains(r"demo.\x1b[31mnone"), "{}", fault.message());

    let outcome = client.call(&"long".repeat(9999), Bytes::new(), AMPLE).await;
    let Err(CallError::Fault(fault)) = outcome else { panic!("{outcome:?}") };
    assert!(fault.message().len() < 100);
}

#[tokio::test(start_paused = true)]
async fn a_handlers_fault_arrives_with_code_and_message() {
    let router = Router::new().method("demo.fails", |_context, _body| async {
        Err(Fault::new(FaultCode::from_u32(4242), "by\nitself"))
    });
    let (_pair, client) = Pair::serving(router).await;
    let error = client.call("demo.fails", Bytes::new(), AMPLE).await.unwrap_err();
    assert_eq!(error, CallError::Fault(Fault::new(FaultCode::Other(4242), "by\nitself")));
    assert!(!error.to_string().contains('\n'), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_a_fault_and_the_connection_lives() {
    let router = Router::new()
        .method("demo.panics", |_context, body| async move {
            assert!(!body.is_empty(), "this is the panic that the test is about");
            Ok(body)
        })
        .method("demo.panics-early", |_context, body: Bytes| {
            assert!(!body.is_empty(), "this is the panic that the test is about");
            async { Ok(Bytes::new()) }
        })
        .guard(|_context, method| {
            assert!(method != "demo.guarded", "this is the panic that the test is about");
            Ok(())
        });
    let (_pair, client) = Pair::serving(router).await;
    for method in ["demo.panics", "demo.panics-early", "demo.guarded"] {
        let outcome = client.call(method, Bytes::new(), AMPLE).await;
        let Err(CallError::Fault(fault)) = outcome else { panic!("{outcome:?}") };
        assert_eq!(fault.code, FaultCode::Internal);
        assert!(!fault.message().contains("about"), "the panic's words stay at home");
    }
    assert_eq!(client.call("demo.panics", "x".into(), AMPLE).await.unwrap(), "x");
}

#[tokio::test(start_paused = true)]
async fn a_body_of_another_type_is_refused_before_the_handler() {
    const LENGTH: Method<String, u64> = Method::new("demo.length");
    let handled = Count::default();
    let count = handled.clone();
    let router = Router::new().typed(LENGTH, move |_context, text| {
        count.add();
        async move { Ok(text.len() as u64) }
    });
    let (_pair, client) = Pair::serving(router).await;
    let endless_length = Bytes::copy_from_slice(&(1_u64 << 62).to_le_bytes());
    for body in [Bytes::from_static(b"\x01"), endless_length] {
        let outcome = client.call(LENGTH.name(), body, AMPLE).await;
        assert_eq!(fault_code(outcome), FaultCode::InvalidRequest);
    }
    assert_eq!(handled.get(), 0);
    assert_eq!(client.call_typed(LENGTH, &"four".to_owned(), AMPLE).await, Ok(4));
}

#[tokio::test(start_paused = true)]
async fn a_guard_decides_before_anything_is_known_of_the_method() {
    let handled = Count::default();
    let count = handled.clone();
    let router = Router::new()
        .guard(|_context, method| match method {
            "ticket.redeem" => Ok(()),
            _ => Err(Fault::new(FaultCode::Unauthorised, "redeem a ticket first")),
        })
        .method("ticket.redeem", echo)
        .method("demo.secret", move |context, body| {
            count.add();
            echo(context, body)
        });
    let (_pair, client) = Pair::serving(router).await;
    for method in ["demo.secret", "demo.none"] {
        let outcome = client.call(method, Bytes::new(), AMPLE).await;
        assert_eq!(fault_code(outcome), FaultCode::Unauthorised);
    }
    assert_eq!(handled.get(), 0);
    assert!(client.call("ticket.redeem", Bytes::new(), AMPLE).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn one_call_more_than_are_handled_is_answered_busy() {
    let (handler, mut told) = endless();
    let router = Router::new().method("demo.endless", handler).method("demo.echo", echo).max_in_flight(1);
    let (_pair, client) = Pair::serving(router).await;
    let caller = client.clone();
    let first = tokio::spawn(async move { caller.call("demo.endless", Bytes::new(), AMPLE).await });
    assert_eq!(told.recv().await, Some(Seen::Began));
    let outcome = client.call("demo.echo", Bytes::new(), AMPLE).await;
    assert_eq!(fault_code(outcome), FaultCode::Busy);

    first.abort();
    assert!(matches!(told.recv().await, Some(Seen::Dropped { .. })));
    assert!(client.call("demo.echo", Bytes::new(), AMPLE).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_one_way_request_is_handled_and_answered_by_the_end_of_the_stream() {
    let handled = Count::default();
    let count = handled.clone();
    let router = Router::new().method("demo.note", move |context, body| {
        count.add();
        echo(context, body)
    });
    let (pair, _client) = Pair::serving(router).await;
    let send = async |method| {
        let opening = framed(StreamKind::OneWay, &request(1, method, 1000, b"note"));
        let mut stream = pair.alice.open_stream(opening).await.unwrap();
        stream.send.finish().unwrap();
        stream.recv.read().await
    };
    assert_eq!(send("demo.note").await, Ok(None));
    assert_eq!(handled.get(), 1);
    assert_eq!(send("demo.none").await, Err(StreamError::Reset(Code::Protocol)));
}

/// A close discards what the peer has not acknowledged, so an answer counts as open until then.
#[tokio::test(start_paused = true)]
async fn a_drain_waits_for_the_last_answer() {
    let body = Bytes::from(vec![7; 900_000]);
    let (answering, mut answered) = tokio::sync::mpsc::unbounded_channel();
    let router = Router::new().method("demo.echo", move |context, body| {
        answering.send(()).unwrap();
        echo(context, body)
    });
    let (pair, client) = Pair::serving(router).await;
    let closing = async {
        answered.recv().await.unwrap();
        pair.bob.drained().await;
        pair.bob.close(Code::NoError);
    };
    let (outcome, ()) = tokio::join!(client.call("demo.echo", body.clone(), AMPLE), closing);
    assert_eq!(outcome, Ok(body));
}
