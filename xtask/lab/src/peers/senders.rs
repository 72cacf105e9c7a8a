//! Pushes that stop in the middle of every chunk, or continue byte by byte.

use bytes::BytesMut;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use shiplane_wire::{
    Entry, EntryKind, Holes, Mtime, ProviderRecord, ReceiverRecord, RecordReader, RelPath, Span, TaggedChunk,
    TransferId, Version,
};

use crate::peers::Failure;
use crate::peers::peer::{Dialler, OpenedPush, Refusals, Server, open_push, patient};
use crate::peers::report::{enough, tell};

/// How a push goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    Stall,
    /// A byte a second on every stream: what is alive enough never meets a deadline.
    Drip,
}

/// `count` pushes, each on a connection of its own.
pub(crate) async fn push(server: &Server, count: usize, then: Then) -> Result<(), Failure> {
    let mut dialler = Dialler::new(server, patient())?;
    let mut refused = Refusals::default();
    let mut pushes = Vec::new();
    let mut begun = 0;
    while begun < count {
        let mut dials = FuturesUnordered::new();
        for _ in 0..AT_A_TIME.min(count - begun) {
            dials.push(begin(dialler.dial()?, begun, then));
            begun += 1;
        }
        while let Some(outcome) = dials.next().await {
            match outcome {
                Ok(push) => pushes.push(push),
                Err(failure) => refused.count(&failure),
            }
        }
    }
    tell("ready", &[("pushes", pushes.len() as u64), ("refused", refused.total())])?;
    enough().await;
    let alive = pushes.iter().filter(|push| !push.task.is_finished()).count();
    tell("done", &[("under_way", alive as u64)])?;
    dialler.finish().await;
    Ok(())
}

/// A push under way.
struct Push {
    _connection: quinn::Connection,
    task: tokio::task::JoinHandle<()>,
}

async fn begin(connecting: quinn::Connecting, number: usize, then: Then) -> Result<Push, Failure> {
    let connection = connecting.await?;
    let name = format!("load-{number:04}-{}", std::process::id());
    let OpenedPush { transfer, mut send, mut recv, is_invited } =
        open_push(&connection, &name, Some(FILE_LEN_BYTES)).await?;
    if is_invited {
        let mut end = BytesMut::new();
        ProviderRecord::OffersEnd.encode(&mut end)?;
        send.write_all(&end).await?;
    }
    send.write_all(&manifest(&name)?).await?;
    let task = tokio::spawn({
        let connection = connection.clone();
        async move {
            // The records stream stays open as long as the server wants it.
            if let Err(failure) = answer_wants(&connection, transfer, &mut recv, then).await {
                eprintln!("a push has ended: {failure}");
            }
            drop(send);
        }
    });
    Ok(Push { _connection: connection, task })
}

fn manifest(name: &str) -> Result<BytesMut, Failure> {
    let mut records = BytesMut::new();
    let entry = Entry {
        kind: EntryKind::File,
        mode: 0o644,
        size_bytes: FILE_LEN_BYTES,
        mtime: Mtime { secs: 0, nanos: 0 },
        version: Version::from_bytes([7; 16]),
        path: RelPath::parse(name.as_bytes())?,
        target: None,
        first: None,
        holes: Holes::default(),
        attributes: None,
    };
    ProviderRecord::Entry(entry).encode(&mut records)?;
    ProviderRecord::End { entries: 1, total_bytes: FILE_LEN_BYTES }.encode(&mut records)?;
    Ok(records)
}

/// Sends half of every chunk that is wanted.
async fn answer_wants(
    connection: &quinn::Connection,
    transfer: TransferId,
    recv: &mut quinn::RecvStream,
    then: Then,
) -> Result<(), Failure> {
    let mut reader = RecordReader::<ReceiverRecord>::new();
    let mut lanes = tokio::task::JoinSet::new();
    while let Some(chunk) = recv.read_chunk(4096, true).await? {
        reader.push(chunk.bytes);
        while let Some(record) = reader.poll()? {
            if let ReceiverRecord::WantChunk { index, spans } = record {
                let connection = connection.clone();
                lanes.spawn(half(connection, TaggedChunk { transfer, index }, spans, then));
            }
        }
    }
    Ok(())
}

async fn half(
    connection: quinn::Connection,
    tag: TaggedChunk,
    spans: Vec<Span>,
    then: Then,
) -> Result<(), Failure> {
    let len_bytes: u64 = spans.iter().map(|span| span.len_bytes).sum();
    let (mut send, mut recv) = connection.open_bi().await?;
    send.write_all(&tag.encode()).await?;
    send.write_all(&len_bytes.to_le_bytes()).await?;
    send.write_all(&vec![0; len_bytes as usize / 2]).await?;
    if then == Then::Drip {
        for _ in 0..len_bytes / 4 {
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            send.write_all(&[0]).await?;
        }
    }
    // A status, or the end of the connection.
    recv.read_to_end(64).await?;
    Ok(())
}

const FILE_LEN_BYTES: u64 = 32 << 20;

/// Dials under way: below the mark from which addresses have to be proven.
const AT_A_TIME: usize = 32;
