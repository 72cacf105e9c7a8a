//! Streams media files to clients: any number of requests a connection, each answered on the connection
//! it came by, and each error sent to the caller.

use std::{
    io::{self, Read},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use cap_std::{ambient_authority, fs::Dir};
use serde::{Deserialize, Serialize};
use shiplane_protocols::{
    Delivery, Direction, NoChunk, TransferMetrics, TransferReport, claim_new, only_chunk,
};
use shiplane_rpc::{CallError, Fault, FaultCode, Method, RequestContext, Router, RpcClient};
use shiplane_transport::{
    ChunkExpectation, ConnectError, LaneOptions, PeerAddr, QuicTransport, RecvChunkError,
    internals::{ChunkRead, SourceError},
};
use shiplane_wire::{TaggedChunk, TransferId};

/// "Send me this file under this transfer id"; the answer is its size.
const PLAY: Method<Play, u64> = Method::new("media.play");

/// The body of [`PLAY`].
#[derive(Serialize, Deserialize)]
struct Play {
    transfer: [u8; 16],
    filename: String,
}

/// Streams the files of a directory to the peers that the transport trusts.
pub(crate) struct MediaStreamingService {
    transport: Arc<QuicTransport>,
    /// Held open: whatever a name says, nothing outside of it is opened.
    media: Dir,
    lane: LaneOptions,
    metrics: Arc<TransferMetrics>,
}

impl MediaStreamingService {
    /// Serves the files of `media_dir`.
    pub(crate) fn new(
        transport: Arc<QuicTransport>,
        media_dir: &Path,
        lane: LaneOptions,
    ) -> io::Result<Arc<Self>> {
        let media = Dir::open_ambient_dir(media_dir, ambient_authority())?;
        Ok(Arc::new(Self { transport, media, lane, metrics: Arc::new(TransferMetrics::new()) }))
    }

    /// What has been streamed so far.
    pub(crate) fn metrics(&self) -> &Arc<TransferMetrics> {
        &self.metrics
    }

    /// Serves all peers that connect, until the transport is closed.
    pub(crate) async fn serve(self: Arc<Self>) {
        let transport = Arc::clone(&self.transport);
        let methods = Arc::new(Router::new().typed(PLAY, move |context, request| {
            let service = Arc::clone(&self);
            async move { service.stream_media(context, request).await }
        }));
        while let Ok((_addr, connection)) = transport.accept().await {
            tokio::spawn(Arc::clone(&methods).serve(connection));
        }
    }

    async fn stream_media(self: Arc<Self>, context: RequestContext, request: Play) -> Result<u64, Fault> {
        let media = self.media.try_clone().map_err(|_| Fault::new(FaultCode::SourceIo, ""))?;
        let opened = tokio::task::spawn_blocking(move || MediaFile::open(&media, &request.filename)).await;
        let file =
            opened.map_err(|_| Fault::new(FaultCode::Internal, ""))?.map_err(|error| not_served(&error))?;
        let len_bytes = file.len_bytes();
        let tag = TaggedChunk { transfer: TransferId::from_bytes(request.transfer), index: 0 };
        tokio::spawn(async move {
            let start = Instant::now();
            let sent = context.connection.send_tagged_chunk(tag, file, &self.lane).await;
            let (peer, took) = (context.remote_addr, start.elapsed());
            self.metrics.record(&match sent {
                Ok(sent) => TransferReport::verified(Direction::Sent, peer, sent.len_bytes, took),
                Err(error) => TransferReport::failed(Direction::Sent, peer, Delivery::Unknown, &error, took),
            });
        });
        Ok(len_bytes)
    }
}

/// A file beneath the directory, opened once and sent from that handle.
struct MediaFile {
    file: cap_std::fs::File,
    before: (u64, cap_std::time::SystemTime),
}

impl MediaFile {
    fn open(media: &Dir, filename: &str) -> io::Result<Self> {
        let file = media.open(filename)?;
        let before = Self::state(&file)?;
        Ok(Self { file, before })
    }

    fn state(file: &cap_std::fs::File) -> io::Result<(u64, cap_std::time::SystemTime)> {
        let metadata = file.metadata()?;
        match metadata.is_file() {
            true => Ok((metadata.len(), metadata.modified()?)),
            false => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

impl ChunkRead for MediaFile {
    fn len_bytes(&self) -> u64 {
        self.before.0
    }

    fn read(&mut self, max_len_bytes: usize) -> Result<Bytes, SourceError> {
        let mut data = Vec::with_capacity(max_len_bytes);
        (&mut self.file).take(max_len_bytes as u64).read_to_end(&mut data)?;
        Ok(data.into())
    }

    fn check_unchanged(&mut self) -> Result<(), SourceError> {
        if Self::state(&self.file)? == self.before { Ok(()) } else { Err(SourceError::Changed) }
    }
}

fn not_served(error: &io::Error) -> Fault {
    match error.kind() {
        io::ErrorKind::NotFound => Fault::new(FaultCode::NotFound, "no such media"),
        io::ErrorKind::PermissionDenied => Fault::new(FaultCode::PathRefused, "no media of that name"),
        _ => Fault::new(FaultCode::SourceIo, "the media cannot be read"),
    }
}

/// Downloads media to disk.
pub(crate) struct MediaClient {
    transport: Arc<QuicTransport>,
}

/// Why a download failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DownloadError {
    /// The server cannot be reached.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The server does not send it; a fault says why.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The server did not send what it had promised to.
    #[error(transparent)]
    NoChunk(#[from] NoChunk),
    /// It did not arrive, or could not be written.
    #[error(transparent)]
    Receive(#[from] RecvChunkError),
}

impl MediaClient {
    /// Downloads over `transport`.
    pub(crate) fn new(transport: Arc<QuicTransport>) -> Self {
        Self { transport }
    }

    /// Downloads `filename` into a new file at `output_path`, which appears whole and verified or not at
    /// all. Any number of downloads may run at a time; they share a connection. Returns the size.
    pub(crate) async fn download_media(
        &self,
        server: PeerAddr,
        filename: &str,
        output_path: &Path,
    ) -> Result<u64, DownloadError> {
        let connection = self.transport.connect_to(server).await?;
        // Claimed before it is asked for: no other download's data can come under this id.
        let mut claim = claim_new(&connection)?;
        let request = Play { transfer: *claim.transfer().as_bytes(), filename: filename.to_owned() };
        let client = RpcClient::new(Arc::clone(&connection));
        let len_bytes = client.call_typed(PLAY, &request, CALL_BUDGET).await?;
        let chunk = only_chunk(&mut claim, connection.config().timeouts().progress).await?;
        let expected = ChunkExpectation::default().len_bytes(len_bytes);
        chunk.receive_to_path(output_path, &expected, &LaneOptions::default()).await?;
        Ok(len_bytes)
    }

    /// Lets what is under way finish and tells the servers.
    pub(crate) async fn close(&self) {
        self.transport.shutdown(CALL_BUDGET).await;
    }
}

const CALL_BUDGET: Duration = Duration::from_secs(5);
