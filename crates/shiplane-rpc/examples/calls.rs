//! Two peers in one process: a typed call, a call back, a one-way notice, and a fault.
//!
//! `cargo run -p shiplane-rpc --example calls`

use std::{error::Error, sync::Arc, time::Duration};

use bytes::Bytes;
use shiplane_rpc::{CallError, Fault, FaultCode, Method, Router, RpcClient};
use shiplane_transport::{Identity, PeerAddr, QuicTransport, Trust};

/// Divides, where that can be done.
const DIVIDE: Method<(u64, u64), u64> = Method::new("demo.divide");

/// Orders; the waiter asks back for whom.
const ORDER: Method<String, String> = Method::new("demo.order");

/// What the guest is called.
const NAME: Method<(), String> = Method::new("demo.name");

/// Something to write down, without an answer.
const NOTE: Method<String, ()> = Method::new("demo.note");

// On few cores one thread is the fastest home for a connection.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let (guest, waiter) = (Identity::generate()?, Identity::generate()?);
    let (guest_id, waiter_id) = (guest.peer_id(), waiter.peer_id());
    let bind = |identity, trusted| {
        let builder = QuicTransport::builder().identity(identity).trust(Trust::only([trusted]));
        builder.bind(([127, 0, 0, 1], 0).into())
    };
    let (guest, waiter) = (bind(guest, waiter_id)?, bind(waiter, guest_id)?);
    let waiter_addr = PeerAddr { id: waiter_id, addr: waiter.local_addr()? };
    let serving = tokio::spawn(async move {
        if let Ok((_, peer)) = waiter.accept().await {
            Arc::new(waiters()).serve(peer).await;
        }
    });

    let connection = guest.connect_to(waiter_addr).await?;
    // Either side of a connection may answer.
    let guests = Router::new().typed(NAME, |_context, ()| async { Ok("Alice".to_owned()) });
    tokio::spawn(Arc::new(guests).serve(Arc::clone(&connection)));

    let client = RpcClient::new(Arc::clone(&connection));
    println!("7 / 2 = {}", client.call_typed(DIVIDE, &(7, 2), BUDGET).await?);
    match client.call_typed(DIVIDE, &(7, 0), BUDGET).await {
        Err(CallError::Fault(fault)) => println!("7 / 0: {fault}"),
        other => return Err(format!("a division by nothing gave {other:?}").into()),
    }
    println!("{}", client.call_typed(ORDER, &"soup".to_owned(), BUDGET).await?);
    client.notify_typed(NOTE, &"no salt".to_owned(), BUDGET).await?;

    // What was sent last is handled before the connection closes.
    connection.drained().await;
    guest.shutdown(Duration::from_secs(1)).await;
    serving.await?;
    Ok(())
}

fn waiters() -> Router {
    Router::new()
        .typed(DIVIDE, |_context, (a, b)| async move {
            a.checked_div(b).ok_or_else(|| Fault::new(FaultCode::InvalidRequest, "by nothing"))
        })
        .typed(ORDER, |context, dish| async move {
            // A call within a call, back over the same connection, within the caller's own deadline.
            let left = context.deadline.saturating_duration_since(tokio::time::Instant::now());
            let name = context.client.call_typed(NAME, &(), left).await;
            let name = name.map_err(|error| Fault::new(FaultCode::Gone, error.to_string()))?;
            Ok(format!("one {dish} for {name}"))
        })
        .typed(NOTE, |context, note| async move {
            println!("note of {}: {note}", context.peer);
            Ok(())
        })
        // Bodies need no types.
        .method("demo.echo", |_context, body: Bytes| async { Ok(body) })
}

/// For all of a call: a free stream, sending, and the handler.
const BUDGET: Duration = Duration::from_secs(5);
