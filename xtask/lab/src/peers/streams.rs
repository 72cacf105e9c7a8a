//! Honest peers in large numbers or with much work.

use std::time::Instant;

use bytes::BytesMut;
use shiplane_wire::{ReceiverRecord, Span};
use tokio::task::JoinSet;

use crate::peers::Failure;
use crate::peers::peer::{Dialler, Server, call, open_fetch, patient};
use crate::peers::report::{enough, tell};

/// `count` connections that do nothing, one key after another.
pub(crate) async fn idle(server: &Server, count: usize) -> Result<(), Failure> {
    let mut dialler = Dialler::new(server, patient())?;
    let (connections, refused) = dialler.dial_all(count, |_, connecting| admitted(connecting)).await;
    tell(&[("connections", connections.len() as u64), ("refused", refused)])?;
    enough().await;
    let alive = connections.iter().filter(|(connection, _)| connection.close_reason().is_none()).count();
    tell(&[("connections", alive as u64)])?;
    dialler.finish().await;
    Ok(())
}

/// A connection with the proof that it is admitted: a stream.
async fn admitted(
    connecting: quinn::Connecting,
) -> Result<(quinn::Connection, (quinn::SendStream, quinn::RecvStream)), Failure> {
    let connection = connecting.await?;
    let first = connection.open_bi().await?;
    Ok((connection, first))
}

/// `count` calls one after another on one connection, then 50 for each of 64 at a time.
pub(crate) async fn calls(server: &Server, count: usize) -> Result<(), Failure> {
    let mut dialler = Dialler::new(server, patient())?;
    let connection = dialler.dial()?.await?;
    let started = Instant::now();
    for _ in 0..count {
        ask(&connection).await?;
    }
    let sequential_ms = started.elapsed().as_millis() as u64;
    let started = Instant::now();
    let callers = (0..AT_ONCE).map(|_| async {
        for _ in 0..ROUNDS {
            ask(&connection).await?;
        }
        Ok::<_, Failure>(())
    });
    futures::future::try_join_all(callers).await?;
    let concurrent_ms = started.elapsed().as_millis() as u64;
    let figures = [("sequential_ms", sequential_ms), ("concurrent_ms", concurrent_ms)];
    tell(&figures)?;
    enough().await;
    tell(&[("answered", (count + AT_ONCE * ROUNDS) as u64)])?;
    dialler.finish().await;
    Ok(())
}

/// `count` chunks of one fetch one after another on one connection, then 50 times 64 that are wanted at once.
pub(crate) async fn chunks(server: &Server, count: usize) -> Result<(), Failure> {
    let mut dialler = Dialler::new(server, patient())?;
    let connection = dialler.dial()?.await?;
    let (mut send, recv) = open_fetch(&connection, b"large").await?;
    // The server says now and then that it lives.
    let heard = tokio::spawn(drain(recv));
    let started = Instant::now();
    let mut next = 0;
    for _ in 0..count {
        take(&connection, &mut send, &mut next, 1).await?;
    }
    let sequential_ms = started.elapsed().as_millis() as u64;
    let started = Instant::now();
    for _ in 0..ROUNDS {
        take(&connection, &mut send, &mut next, AT_ONCE as u64).await?;
    }
    let concurrent_ms = started.elapsed().as_millis() as u64;
    tell(&[("sequential_ms", sequential_ms), ("concurrent_ms", concurrent_ms)])?;
    enough().await;
    heard.abort();
    tell(&[("received", next)])?;
    dialler.finish().await;
    Ok(())
}

async fn drain(mut recv: quinn::RecvStream) {
    while let Ok(Some(_)) = recv.read_chunk(4096, true).await {}
}

/// Wants the next `count` chunks, takes them as they come, and answers each (SPEC 3.4).
async fn take(
    connection: &quinn::Connection,
    records: &mut quinn::SendStream,
    next: &mut u64,
    count: u64,
) -> Result<(), Failure> {
    let mut wants = BytesMut::new();
    for index in *next..*next + count {
        // The same few KiB again and again: it is about streams.
        let span =
            Span { entry: 0, offset_bytes: index % 1024 * SMALL_CHUNK_BYTES, len_bytes: SMALL_CHUNK_BYTES };
        ReceiverRecord::WantChunk { index, spans: vec![span] }.encode(&mut wants)?;
    }
    *next += count;
    records.write_all(&wants).await?;
    // Tasks, as the server sends no more before some are answered.
    let mut taken = JoinSet::new();
    for _ in 0..count {
        let (mut send, mut recv) = connection.accept_bi().await?;
        taken.spawn(async move {
            let frame = recv.read_to_end(FRAME_LIMIT_BYTES).await?;
            send.write_all(&[0]).await?;
            send.finish()?;
            Ok::<_, Failure>(frame.len())
        });
    }
    while let Some(len) = taken.join_next().await {
        if len?? != TAG_BYTES + 8 + SMALL_CHUNK_BYTES as usize + 32 {
            return Err("a chunk of another length than wanted".into());
        }
    }
    Ok(())
}

/// A call that is answered by a fault, for there is no such push: what it takes is the way there and back.
async fn ask(connection: &quinn::Connection) -> Result<(), Failure> {
    let settle = [0; 16 + 1];
    match call(connection, "push.settle", &settle).await {
        Err(failure) if failure.is::<crate::peers::peer::Fault>() => Ok(()),
        Err(failure) => Err(failure),
        Ok(_) => Err("a push that was never begun was settled".into()),
    }
}

/// Calls or chunks, and how often.
const AT_ONCE: usize = 64;
const ROUNDS: usize = 50;

const SMALL_CHUNK_BYTES: u64 = 4096;

/// Header and tag of a chunk's stream (SPEC 2.2).
const TAG_BYTES: usize = 8 + 24;

const FRAME_LIMIT_BYTES: usize = 64 << 10;
