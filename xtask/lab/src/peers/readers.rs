//! Receivers that want everything and read nothing.

use bytes::BytesMut;
use shiplane_wire::{ReceiverRecord, Span};

use crate::peers::Failure;
use crate::peers::peer::{Dialler, Server, open_fetch, patient};
use crate::peers::report::{enough, tell};

/// `count` connections, each with one fetch of the file `large` whose chunks it wants and does not read.
pub(crate) async fn stalled(server: &Server, count: usize) -> Result<(), Failure> {
    let mut quic = patient();
    // Enough for an answer and a manifest, and for the beginning of every chunk.
    quic.stream_receive_window(STREAM_WINDOW_BYTES.into()).receive_window(CONNECTION_WINDOW_BYTES.into());
    let mut dialler = Dialler::new(server, quic)?;
    let (mut stalled, refused) = dialler.dial_all(count, |_, connecting| stall(connecting)).await;
    tell(&[("stalled", stalled.len() as u64), ("refused", refused)])?;
    enough().await;
    // The server gives up a transfer by ending its records stream.
    let mut given_up = 0;
    for (_, _, recv) in &mut stalled {
        let ended = async { while let Ok(Some(_)) = recv.read_chunk(4096, true).await {} };
        given_up += u64::from(tokio::time::timeout(std::time::Duration::ZERO, ended).await.is_ok());
    }
    tell(&[("given_up", given_up)])?;
    dialler.finish().await;
    Ok(())
}

type Stalled = (quinn::Connection, quinn::SendStream, quinn::RecvStream);

async fn stall(connecting: quinn::Connecting) -> Result<Stalled, Failure> {
    let connection = connecting.await?;
    let (mut send, recv) = open_fetch(&connection, b"large").await?;
    let mut wants = BytesMut::new();
    for index in 0..WANTED_CHUNKS {
        let span = Span { entry: 0, offset_bytes: index * CHUNK_LEN_BYTES, len_bytes: CHUNK_LEN_BYTES };
        ReceiverRecord::WantChunk { index, spans: vec![span] }.encode(&mut wants)?;
    }
    send.write_all(&wants).await?;
    Ok((connection, send, recv))
}

/// As many as the server sends at a time, and some that wait.
const WANTED_CHUNKS: u64 = 64;

/// What an honest receiver asks for.
const CHUNK_LEN_BYTES: u64 = 512 << 10;

const STREAM_WINDOW_BYTES: u32 = 1024;
const CONNECTION_WINDOW_BYTES: u32 = 16 * 1024;
