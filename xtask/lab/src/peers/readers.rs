//! Receivers that want everything and read nothing.

use bytes::BytesMut;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use shiplane_wire::{ReceiverRecord, Span};

use crate::peers::Failure;
use crate::peers::peer::{Dialler, Refusals, Server, open_fetch, patient};
use crate::peers::report::{enough, tell};

/// `count` connections, each with one fetch of the file `large` whose chunks it wants and does not read.
pub(crate) async fn stalled(server: &Server, count: usize) -> Result<(), Failure> {
    let mut quic = patient();
    // Enough for an answer and a manifest, and for the beginning of every chunk.
    quic.stream_receive_window(STREAM_WINDOW_BYTES.into()).receive_window(CONNECTION_WINDOW_BYTES.into());
    let mut dialler = Dialler::new(server, quic)?;
    let mut refused = Refusals::default();
    let mut stalled = Vec::new();
    let mut begun = 0;
    while begun < count {
        let mut dials = FuturesUnordered::new();
        for _ in 0..AT_A_TIME.min(count - begun) {
            dials.push(stall(dialler.dial()?));
            begun += 1;
        }
        while let Some(outcome) = dials.next().await {
            match outcome {
                Ok(reader) => stalled.push(reader),
                Err(failure) => refused.count(&failure),
            }
        }
    }
    tell("ready", &[("stalled", stalled.len() as u64), ("refused", refused.total())])?;
    enough().await;
    // The server gives up a transfer by ending its records stream.
    let mut given_up = 0;
    for (_, _, recv) in &mut stalled {
        let ended = async { while let Ok(Some(_)) = recv.read_chunk(4096, true).await {} };
        given_up += u64::from(tokio::time::timeout(std::time::Duration::ZERO, ended).await.is_ok());
    }
    tell("done", &[("given_up", given_up)])?;
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

/// Dials under way: below the mark from which addresses have to be proven.
const AT_A_TIME: usize = 32;
