//! Knowing when everybody has let go of a target.

use std::time::Duration;

use shiplane_files::internals::{DestinationError, PlacedCut, Plan, Summary};
use shiplane_transport::internals::ChunkSink;
use shiplane_wire::{Digest, Entry, FailReason, Span, Stored, Verified};
use tokio::sync::mpsc;

use super::super::target::Target;

/// A target whose clones and writers are counted. What is behind a target undoes itself when the last of
/// them goes, on whichever thread that is; who is told that a transfer has failed may rely on it having
/// happened, unless a write hangs.
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
    /// Waits, but not for ever: a thread that writes into a pipe that nobody reads never comes back, and the
    /// failure has to be told all the same.
    pub(super) async fn wait(mut self) {
        // Nothing is ever sent.
        let _ = tokio::time::timeout(RELEASE_GRACE, self.0.recv()).await;
    }
}

/// 5 s: a write that a disk will do at all is done by then.
pub(super) const RELEASE_GRACE: Duration = Duration::from_secs(5);

impl<T: Target> Target for Leased<T> {
    type Writer = LeasedWriter<T::Writer>;

    fn plan(&self, index: u64, entry: &Entry) -> Result<Plan, DestinationError> {
        self.target.plan(index, entry)
    }

    fn compare(&self, index: u64, entry: &Entry, theirs: Digest) -> Result<Plan, DestinationError> {
        self.target.compare(index, entry, theirs)
    }

    fn follow(&self, index: u64, theirs: &[PlacedCut]) -> Result<(), DestinationError> {
        self.target.follow(index, theirs)
    }

    fn delta(&self, index: u64, entry: &Entry, theirs: &[PlacedCut]) -> Result<Plan, DestinationError> {
        self.target.delta(index, entry, theirs)
    }

    fn reserve(&self, missing_bytes: u64) -> Result<(), DestinationError> {
        self.target.reserve(missing_bytes)
    }

    fn file_len_bytes(&self, entry: u64) -> Option<u64> {
        self.target.file_len_bytes(entry)
    }

    fn is_immediate(&self) -> bool {
        self.target.is_immediate()
    }

    fn writer(&self, chunk: u64, spans: &[Span]) -> Result<Self::Writer, DestinationError> {
        let writer = self.target.writer(chunk, spans)?;
        Ok(LeasedWriter { writer, _alive: self.alive.clone() })
    }

    fn publish(&self, entries: &[u64]) -> Result<(), DestinationError> {
        self.target.publish(entries)
    }

    fn discard(&self, entry: u64, reason: FailReason) -> Result<(), DestinationError> {
        self.target.discard(entry, reason)
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

    fn is_immediate(&self) -> bool {
        self.writer.is_immediate()
    }

    fn write(&mut self, data: &[u8]) -> Result<(), W::Error> {
        self.writer.write(data)
    }

    fn commit(self, verified: Verified) -> Result<(Stored, W::Output), W::Error> {
        self.writer.commit(verified)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_last_one_to_let_go_ends_the_wait_and_one_that_never_does_ends_it_late() {
        let began = Instant::now();
        let (leased, released) = Leased::new(());
        let another = leased.clone();
        drop(leased);
        tokio::join!(released.wait(), async { drop(another) });
        assert_eq!(began.elapsed(), Duration::ZERO);

        let (stuck, released) = Leased::new(());
        released.wait().await;
        assert!(began.elapsed() >= RELEASE_GRACE);
        drop(stuck);
    }
}
