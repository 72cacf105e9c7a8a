//! Peers that do what honest ones do: in large numbers, with much work, or without reading what they asked for.

use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use bytes::BytesMut;
use shiplane_wire::{ReceiverRecord, Span};
use tokio::task::JoinSet;

use super::peer::{Dialler, Fault, Server, call, open_fetch, patient};
use super::tell;

/// `count` connections that do nothing, one key after another.
pub(crate) async fn idle(server: &Server, count: usize) -> Result<()> {
    let mut dialler = Dialler::new(server, patient())?;
    let begin = async |_, connection: quinn::Connection| {
        // A stream proves that it is admitted.
        let first = connection.open_bi().await?;
        Ok((connection, first))
    };
    let idle = dialler.begin("connections", count, begin).await?;
    let is_alive = |(connection, _): &&(quinn::Connection, _)| connection.close_reason().is_none();
    dialler.end(async || [("connections", idle.iter().filter(is_alive).count() as u64)]).await
}

/// `count` calls one after another on one connection, then 50 times 64 at a time.
pub(crate) async fn calls(server: &Server, count: usize) -> Result<()> {
    let mut dialler = Dialler::new(server, patient())?;
    let connection = dialler.dial()?.await?;
    let ask_all = async |at_once: u64| {
        futures::future::try_join_all((0..at_once).map(|_| ask(&connection))).await.map(drop)
    };
    timed(count, ask_all).await?;
    dialler.end(async || [("answered", count as u64 + AT_ONCE * ROUNDS as u64)]).await
}

/// `count` chunks of one fetch one after another on one connection, then 50 times 64 that are wanted at once.
pub(crate) async fn chunks(server: &Server, count: usize) -> Result<()> {
    let mut dialler = Dialler::new(server, patient())?;
    let connection = dialler.dial()?.await?;
    let (mut send, mut recv) = open_fetch(&connection).await?;
    // The server says now and then that it lives.
    let heard = tokio::spawn(async move { while let Ok(Some(_)) = recv.read_chunk(4096, true).await {} });
    let mut next = 0;
    let take_all = async |at_once: u64| {
        let wanted = next..next + at_once;
        next += at_once;
        take(&connection, &mut send, wanted).await
    };
    timed(count, take_all).await?;
    dialler.end(async || [("received", next)]).await?;
    heard.abort();
    Ok(())
}

/// `count` connections, each with one fetch of the file `large` whose chunks it wants and does not read.
pub(crate) async fn readers(server: &Server, count: usize) -> Result<()> {
    let mut quic = patient();
    // Enough for an answer and a manifest, and for the beginning of every chunk.
    quic.stream_receive_window(STREAM_WINDOW_BYTES.into()).receive_window(CONNECTION_WINDOW_BYTES.into());
    let mut dialler = Dialler::new(server, quic)?;
    let begin = async |_, connection: quinn::Connection| {
        let (mut send, recv) = open_fetch(&connection).await?;
        want(&mut send, 0..SPANS, LONG_CHUNK_BYTES).await?;
        Ok((connection, send, recv))
    };
    let mut stalled = dialler.begin("stalled", count, begin).await?;
    let given_up = async || {
        let mut given_up = 0;
        for (_, _, recv) in &mut stalled {
            // The server gives up a transfer by ending its records stream.
            let ended = async { while let Ok(Some(_)) = recv.read_chunk(4096, true).await {} };
            given_up += u64::from(tokio::time::timeout(Duration::ZERO, ended).await.is_ok());
        }
        [("given_up", given_up)]
    };
    dialler.end(given_up).await
}

/// Takes `count` steps of one thing each, then 50 of 64 things at a time, and says how long that took.
async fn timed(count: usize, mut step: impl AsyncFnMut(u64) -> Result<()>) -> Result<()> {
    let mut figures = Vec::new();
    for (name, steps, at_once) in [("sequential_ms", count, 1), ("concurrent_ms", ROUNDS, AT_ONCE)] {
        let started = Instant::now();
        for _ in 0..steps {
            step(at_once).await?;
        }
        figures.push((name, started.elapsed().as_millis() as u64));
    }
    tell(&figures)
}

/// A call that is answered by a fault, for there is no such push: what it takes is the way there and back.
async fn ask(connection: &quinn::Connection) -> Result<()> {
    let settle = [0_u8; 16];
    match call(connection, "push.settle", &settle).await {
        Err(failure) if failure.is::<Fault>() => Ok(()),
        Err(failure) => Err(failure),
        Ok(_) => bail!("a push that was never begun was settled"),
    }
}

/// Wants chunks of that length: of the same few spans again and again.
async fn want(records: &mut quinn::SendStream, chunks: Range<u64>, len_bytes: u64) -> Result<()> {
    let mut wants = BytesMut::new();
    for index in chunks {
        let span = Span { entry: 0, offset_bytes: index % SPANS * len_bytes, len_bytes };
        ReceiverRecord::WantChunk { index, spans: vec![span] }.encode(&mut wants)?;
    }
    Ok(records.write_all(&wants).await?)
}

/// Wants chunks, takes them as they come, and answers each (SPEC 3.4).
async fn take(
    connection: &quinn::Connection,
    records: &mut quinn::SendStream,
    chunks: Range<u64>,
) -> Result<()> {
    want(records, chunks.clone(), SMALL_CHUNK_BYTES).await?;
    // Tasks, as the server sends no more before some are answered.
    let mut taken = JoinSet::new();
    for _ in chunks {
        let (mut send, mut recv) = connection.accept_bi().await?;
        taken.spawn(async move {
            let frame = recv.read_to_end(FRAME_LIMIT_BYTES).await?;
            send.write_all(&[0]).await?;
            send.finish()?;
            anyhow::Ok(frame.len())
        });
    }
    while let Some(len) = taken.join_next().await {
        if len?? != TAG_BYTES + 8 + SMALL_CHUNK_BYTES as usize + 32 {
            bail!("a chunk of another length than wanted");
        }
    }
    Ok(())
}

/// Calls or chunks, and how often.
const AT_ONCE: u64 = 64;
const ROUNDS: usize = 50;

/// More than the server sends at a time.
const SPANS: u64 = 64;

const SMALL_CHUNK_BYTES: u64 = 4096;

/// What an honest receiver asks for.
const LONG_CHUNK_BYTES: u64 = 512 << 10;

/// Header and tag of a chunk's stream (SPEC 2.2).
const TAG_BYTES: usize = 8 + 24;

const FRAME_LIMIT_BYTES: usize = 64 << 10;

const STREAM_WINDOW_BYTES: u32 = 1024;
const CONNECTION_WINDOW_BYTES: u32 = 16 * 1024;
