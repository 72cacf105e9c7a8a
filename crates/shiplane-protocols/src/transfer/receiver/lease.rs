//! Knowing when everybody has let go of a target.

use shiplane_transport::ChunkSink;
use shiplane_wire::{Digest, Entry, Span, Stored, Verified};
use tokio::sync::mpsc;

use super::super::target::Target;
use crate::files::{DestinationError, PlacedCut, Plan, Summary};

/// A target whose clones and writers are counted. What is behind a target undoes itself when the last of
/// them goes, on whichever thread that is; who is told that a transfer has failed may rely on it having
/// happened.
#[derive(Clone)]
pub(super) struct Leased<T> {
    // Fields are dropped in this order: the target is gone before that is told.
    target: T,
    alive: Alive,
}

/// Resolves when all that was leased is gone.
pub(super) struct Released(mpsc::Receiver<()>);

/// Held for as long as something may still be done to the target.
type Alive = mpsc::Sender<()>;

impl<T> Leased<T> {
    pub(super) fn new(target: T) -> (Self, Released) {
        let (alive, released) = mpsc::channel(1);
        (Self { target, alive }, Released(released))
    }
}

impl Released {
    pub(super) async fn wait(mut self) {
        // Nothing is ever sent.
        let _ = self.0.recv().await;
    }
}

impl<T: Target> Target for Leased<T> {
    type Writer = LeasedWriter<T::Writer>;

    fn plan(&self, index: u64, entry: &Entry) -> Result<Plan, DestinationError> {
        self.target.plan(index, entry)
    }

    fn compare(&self, index: u64, entry: &Entry, theirs: Digest) -> Result<Plan, DestinationError> {
        self.target.compare(index, entry, theirs)
    }

    fn survey(&self, index: u64, entry: &Entry) {
        self.target.survey(index, entry);
    }

    fn delta(&self, index: u64, entry: &Entry, theirs: &[PlacedCut]) -> Result<Plan, DestinationError> {
        self.target.delta(index, entry, theirs)
    }

    fn reserve(&self, missing_bytes: u64) -> Result<(), DestinationError> {
        self.target.reserve(missing_bytes)
    }

    fn writer(&self, chunk: u64, spans: &[Span]) -> Result<Self::Writer, DestinationError> {
        let writer = self.target.writer(chunk, spans)?;
        Ok(LeasedWriter { writer, _alive: self.alive.clone() })
    }

    fn publish(&self, entries: &[u64]) -> Result<(), DestinationError> {
        self.target.publish(entries)
    }

    fn discard(&self, entry: u64) -> Result<(), DestinationError> {
        self.target.discard(entry)
    }

    fn abandon(&self) {
        self.target.abandon();
    }

    fn finish(self) -> Result<Summary, DestinationError> {
        self.target.finish()
    }
}

/// A writer of a [`Leased`] target.
pub(super) struct LeasedWriter<W> {
    writer: W,
    _alive: Alive,
}

impl<W: ChunkSink> ChunkSink for LeasedWriter<W> {
    type Output = W::Output;
    type Error = W::Error;

    fn write(&mut self, data: &[u8]) -> Result<(), W::Error> {
        self.writer.write(data)
    }

    fn commit(self, verified: Verified) -> Result<(Stored, W::Output), W::Error> {
        self.writer.commit(verified)
    }
}
