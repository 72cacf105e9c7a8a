//! Methods that a server's owner adds, and the rights that a caller needs.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use shiplane::{Context, Error, ErrorKind, Request, Server, ServerBuilder, Side, State, TicketBuilder};
use tokio::sync::Semaphore;

use crate::harness::Machine;

#[derive(Serialize, Deserialize)]
struct WhoAmI;

impl Request for WhoAmI {
    const METHOD: &'static str = "test.who-am-i";
    type Response = String;
}

#[derive(Serialize, Deserialize)]
struct Wait;

impl Request for Wait {
    const METHOD: &'static str = "test.wait";
    type Response = ();
}

#[derive(Serialize, Deserialize)]
struct MayRead(String);

impl Request for MayRead {
    const METHOD: &'static str = "test.may-read";
    type Response = (bool, bool);
}

async fn who(_: WhoAmI, context: Context) -> Result<String, Error> {
    Ok(context.peer_id().to_string())
}

fn builder(there: &Machine) -> ServerBuilder {
    Server::builder(there.dir("root")).writable()
}

#[tokio::test]
async fn a_method_needs_full_rights_unless_it_says_otherwise() {
    type Rights = fn(TicketBuilder) -> TicketBuilder;
    let full: Rights = |ticket| ticket.read().write();
    let reader: Rights = TicketBuilder::read;
    let writer: Rights = TicketBuilder::write;
    let partial: Rights = |ticket| ticket.read().write().below("photos");
    type With = fn(ServerBuilder) -> ServerBuilder;
    let by_default: With = |builder| builder.method(who);
    let for_readers: With = |builder| builder.method_for_readers(who);
    let for_writers: With = |builder| builder.method_for_writers(who);
    for (with, admitted, denied) in [
        (by_default, &[full][..], &[reader, writer, partial][..]),
        (for_readers, &[full, reader, partial], &[writer]),
        (for_writers, &[full, writer, partial], &[reader]),
    ] {
        let there = Machine::new();
        let running = there.run(with(builder(&there))).await;
        for rights in admitted {
            let here = Machine::new();
            let client = here.client().await;
            let connection = client.connect(running.ticket(rights)).await.unwrap();
            assert_eq!(connection.call(WhoAmI).await.unwrap(), client.id().to_string());
        }
        for rights in denied {
            let here = Machine::new();
            let connection = here.client().await.connect(running.ticket(rights)).await.unwrap();
            let error = connection.call(WhoAmI).await.unwrap_err();
            assert_eq!((error.kind(), error.side()), (ErrorKind::Identity, Side::Peer));
        }
    }
}

#[tokio::test]
async fn a_stranger_calls_nothing() {
    let (here, there) = (Machine::new(), Machine::new());
    let running = there.run(builder(&there).method_for_readers(who)).await;
    // While a ticket is open, strangers are admitted as guests.
    let _open = running.ticket(TicketBuilder::read);
    let peer = (running.server.id(), running.server.local_addr());
    let connection = here.client().await.connect(peer).await.unwrap();
    let error = connection.call(WhoAmI).await.unwrap_err();
    assert_eq!((error.kind(), error.side()), (ErrorKind::Identity, Side::Peer));
}

#[tokio::test]
async fn a_handler_can_ask_for_its_callers_rights() {
    let (here, there) = (Machine::new(), Machine::new());
    let handler = |MayRead(path): MayRead, context: Context| async move {
        Ok((context.may_read(&path), context.may_write(&path)))
    };
    let running = there.run(builder(&there).method_for_readers(handler)).await;
    let ticket = running.ticket(|ticket| ticket.read().below("photos"));
    let connection = here.client().await.connect(ticket).await.unwrap();
    for (path, rights) in [("photos/a", (true, false)), ("", (false, false)), ("secret", (false, false))] {
        assert_eq!(connection.call(MayRead(path.to_owned())).await.unwrap(), rights, "{path}");
    }
}

#[tokio::test]
async fn a_handlers_error_reaches_its_caller_and_other_errors_do_not() {
    let (here, there) = (Machine::new(), Machine::new());
    let own = async |_: WhoAmI| Err(Error::new(ErrorKind::Refused, "not today"));
    let other =
        async |_: MayRead| Err::<(bool, bool), _>(Server::builder("/none").bind("x").await.unwrap_err());
    let running = there.run(builder(&there).method(own).method(other)).await;
    let connection = running.connect_writing(&here.client().await).await;
    let error = connection.call(WhoAmI).await.unwrap_err();
    assert_eq!((error.kind(), error.side()), (ErrorKind::Refused, Side::Peer));
    assert!(error.to_string().ends_with("not today"), "{error}");
    let error = connection.call(MayRead(String::new())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Other);
    assert!(!error.to_string().contains("none"), "{error}");
    let error = connection.call(Wait).await.unwrap_err();
    assert_eq!((error.kind(), error.side()), (ErrorKind::Refused, Side::Peer), "no such method");
}

#[tokio::test]
async fn a_name_is_given_once_and_never_one_of_shiplanes_own() {
    struct Redeem;
    impl Serialize for Redeem {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.serialize_unit()
        }
    }
    impl<'de> Deserialize<'de> for Redeem {
        fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
            Ok(Self)
        }
    }
    impl Request for Redeem {
        const METHOD: &'static str = "ticket.redeem";
        type Response = ();
    }
    let there = Machine::new();
    let twice = builder(&there).method(who).method_for_readers(who);
    let own = builder(&there).method_for_readers(async |_: Redeem| Ok(()));
    for builder in [twice, own] {
        let error = builder.home(there.path("home")).bind("127.0.0.1:0").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage);
    }
}

#[tokio::test]
async fn a_shutdown_waits_for_calls_under_way_and_refuses_new_ones() {
    let (here, there) = (Machine::new(), Machine::new());
    let (begun, go_on) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let gates = (Arc::clone(&begun), Arc::clone(&go_on));
    let wait = async |_: Wait, State((begun, go_on)): State<(Arc<Semaphore>, Arc<Semaphore>)>| {
        begun.add_permits(1);
        drop(go_on.acquire().await);
        Ok(())
    };
    let builder = Server::builder(there.dir("root")).state(gates).method_for_readers(wait);
    let running = there.run(builder).await;
    let connection = running.connect(&here.client().await).await;
    let waiting = tokio::spawn({
        let connection = connection.clone();
        async move { connection.call(Wait).await }
    });
    drop(begun.acquire().await);
    running.server.shutdown();
    // Whether the signal was noticed already shows by the refusal.
    let mut asked = 1;
    let refused = loop {
        tokio::select! {
            biased;
            refused = connection.call(Wait) => break refused,
            permit = begun.acquire() => permit.unwrap().forget(),
        }
        asked += 1;
        go_on.add_permits(1);
    };
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Unreachable);
    assert!(!running.ended.is_finished());
    go_on.add_permits(asked);
    waiting.await.unwrap().unwrap();
    running.ended.await.unwrap().unwrap();
}
