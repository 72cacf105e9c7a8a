//! Where a transfer lands.

mod stream;

use shiplane_files::internals::{ChunkWriter, Destination, DestinationError, PlacedCut, Plan, Summary};
use shiplane_transport::internals::ChunkSink;
use shiplane_wire::{Digest, Entry, FailReason, Span, Stored, Verified};

pub use self::stream::StreamTarget;

/// The receiver's half of the disk, or what stands for it. All of it blocks and runs on blocking threads.
///
/// The order of calls is that of [`Destination`], which is the usual target.
pub trait Target: Clone + Send + Sync + 'static {
    /// Takes one chunk; its commit yields the entries that are complete now.
    type Writer: ChunkSink<Output = Vec<u64>, Error = DestinationError>;

    /// Decides what is to be done for an entry.
    ///
    /// # Errors
    /// Ends the transfer.
    fn plan(&self, index: u64, entry: &Entry) -> Result<Plan, DestinationError>;

    /// Goes on after [`Plan::Compare`].
    ///
    /// # Errors
    /// Ends the transfer.
    fn compare(&self, index: u64, entry: &Entry, theirs: Digest) -> Result<Plan, DestinationError>;

    /// Takes a part of the peer's cuts for an entry for which [`Plan::Delta`] was given, in order, while the
    /// peer reads on. Nothing is lost if it does nothing.
    ///
    /// # Errors
    /// Ends the transfer.
    fn follow(&self, index: u64, theirs: &[PlacedCut]) -> Result<(), DestinationError> {
        let _ = (index, theirs);
        Ok(())
    }

    /// Goes on after [`Plan::Delta`] with the peer's cuts of all the ranges that it named.
    ///
    /// # Errors
    /// Ends the transfer. A target that never gives that plan need not provide this.
    fn delta(&self, index: u64, entry: &Entry, theirs: &[PlacedCut]) -> Result<Plan, DestinationError> {
        let _ = (entry, theirs);
        Err(DestinationError::NotWanted { entry: index })
    }

    /// Checks that so many bytes fit.
    ///
    /// # Errors
    /// Ends the transfer.
    fn reserve(&self, missing_bytes: u64) -> Result<(), DestinationError>;

    /// The size of an entry for which a plan was given that wants something of it, and that was not given up since.
    fn file_len_bytes(&self, entry: u64) -> Option<u64>;

    /// Whether chunks are written without ever waiting for a disk, so that it may be done between two packets.
    fn is_immediate(&self) -> bool {
        false
    }

    /// Begins a chunk.
    ///
    /// # Errors
    /// Ends the transfer.
    fn writer(&self, chunk: u64, spans: &[Span]) -> Result<Self::Writer, DestinationError>;

    /// Makes complete entries visible, and durable if that was promised.
    ///
    /// # Errors
    /// Ends the transfer.
    fn publish(&self, entries: &[u64]) -> Result<(), DestinationError>;

    /// Gives up an entry that the provider cannot send, for this reason.
    ///
    /// # Errors
    /// Ends the transfer.
    fn discard(&self, entry: u64, reason: FailReason) -> Result<(), DestinationError>;

    /// The transfer has failed: what takes long may end early, in any error. Nothing more is asked for.
    fn abandon(&self) {}

    /// Everything has come.
    ///
    /// # Errors
    /// Ends the transfer.
    fn finish(self) -> Result<Summary, DestinationError>;
}

impl Target for Destination {
    type Writer = FileWriter;

    fn plan(&self, index: u64, entry: &Entry) -> Result<Plan, DestinationError> {
        let plan = Self::plan(self, index, entry)?;
        self.offer_delta(index, entry, plan)
    }

    fn compare(&self, index: u64, entry: &Entry, theirs: Digest) -> Result<Plan, DestinationError> {
        let plan = Self::compare(self, index, entry, theirs)?;
        self.offer_delta(index, entry, plan)
    }

    fn follow(&self, index: u64, theirs: &[PlacedCut]) -> Result<(), DestinationError> {
        self.follow_old(index, theirs)
    }

    fn delta(&self, index: u64, entry: &Entry, theirs: &[PlacedCut]) -> Result<Plan, DestinationError> {
        self.take_from_old(index, entry, theirs)
    }

    fn reserve(&self, missing_bytes: u64) -> Result<(), DestinationError> {
        Self::reserve(self, missing_bytes)
    }

    fn file_len_bytes(&self, entry: u64) -> Option<u64> {
        Self::file_len_bytes(self, entry)
    }

    fn is_immediate(&self) -> bool {
        Self::is_immediate(self)
    }

    fn writer(&self, chunk: u64, spans: &[Span]) -> Result<FileWriter, DestinationError> {
        self.chunk_writer(chunk, spans).map(FileWriter)
    }

    fn publish(&self, entries: &[u64]) -> Result<(), DestinationError> {
        Self::publish(self, entries)
    }

    fn discard(&self, entry: u64, _reason: FailReason) -> Result<(), DestinationError> {
        Self::discard(self, entry)
    }

    fn abandon(&self) {
        Self::abandon(self);
    }

    fn finish(self) -> Result<Summary, DestinationError> {
        Self::finish(self)
    }
}

/// A [`ChunkWriter`] as a lane's sink.
#[derive(Debug)]
pub struct FileWriter(ChunkWriter);

impl ChunkSink for FileWriter {
    type Output = Vec<u64>;
    type Error = DestinationError;

    fn write(&mut self, data: &[u8]) -> Result<(), DestinationError> {
        self.0.write(data)
    }

    fn commit(self, verified: Verified) -> Result<(Stored, Vec<u64>), DestinationError> {
        self.0.commit(verified)
    }
}
