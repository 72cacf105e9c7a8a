//! The target of a transfer: a directory tree, one stream, or nothing. All functions block and run on blocking threads.

mod parts;
mod stream;
mod writes;

use std::{fmt, sync::Arc};

use shiplane_files::internals::{
    Block, ChunkWriter, Comparison, Destination, DestinationError, Filters, LeftOut, Plan, Summary,
    TopDirectory,
};
use shiplane_wire::{Digest, Durability, Entry, LeftOutReason, Span, Stored, Verified};

pub use self::stream::OutputStream;
pub(super) use self::writes::{RELEASE_GRACE, WriteTracker};
use self::{
    parts::{PartWriter, PartedTarget},
    stream::StreamWriter,
};

/// Where a transfer lands.
pub struct Target {
    // Fields are dropped in this order: first the output, then the note of that.
    output: Output,
    writes: WriteTracker,
}

#[derive(Clone)]
enum Output {
    /// A transfer is all that is written there, or one part of it, which the caller finishes.
    Files {
        destination: Destination,
        is_part: bool,
    },
    /// One file of unknown length.
    Parts(PartedTarget),
    Stream(OutputStream),
    /// Nothing is written.
    Comparison(Comparison),
    /// Takes what the peer lists.
    Listing(ListFn),
}

/// Called with each entry that a peer lists, in its order, on a thread that may wait.
pub type ListFn = Arc<dyn Fn(&Entry) + Send + Sync>;

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target").finish_non_exhaustive()
    }
}

/// Takes one chunk.
pub(super) enum Writer {
    Files(ChunkWriter),
    Parts(PartWriter),
    Stream(StreamWriter),
}

impl From<Destination> for Target {
    fn from(destination: Destination) -> Self {
        Self::at(Output::Files { destination, is_part: false })
    }
}

impl Target {
    /// Writes the bytes of a single file to the writer of `stream`, which is flushed at the end: those that it has not
    /// had yet. Every chunk is verified before a byte of it is written; those that come early are held, as many as there
    /// are lanes.
    pub fn stream(stream: &OutputStream) -> Self {
        stream.begin();
        Self::at(Output::Stream(stream.clone()))
    }

    /// The same, which refuses files and directories that `filters` exclude.
    #[must_use]
    pub(crate) fn with_filters(self, filters: &Arc<Filters>) -> Self {
        // Of one file, filters exclude nothing.
        let Output::Files { destination, is_part } = self.output else { return self };
        let destination = destination.with_filters(Arc::clone(filters));
        Self { output: Output::Files { destination, is_part }, ..self }
    }

    /// Compares what the peer lists with what is here, and asks for none of it.
    pub fn comparison(comparison: &Comparison) -> Self {
        Self::at(Output::Comparison(comparison.clone()))
    }

    /// Gives each entry that the peer lists to `list`, and asks for none of them.
    pub fn listing(list: ListFn) -> Self {
        Self::at(Output::Listing(list))
    }

    /// A destination of one file, which comes in parts.
    pub(crate) fn in_parts(destination: Destination) -> Self {
        Self::at(Output::Parts(PartedTarget::new(destination)))
    }

    /// Whether what comes is one file in parts.
    pub(super) fn is_in_parts(&self) -> bool {
        matches!(self.output, Output::Parts(_))
    }

    /// A destination that others finish.
    pub(crate) fn part(destination: Destination) -> Self {
        Self::at(Output::Files { destination, is_part: true })
    }

    fn at(output: Output) -> Self {
        Self { output, writes: WriteTracker::default() }
    }

    /// The directory or file that is written, if one is.
    fn destination(&self) -> Option<&Destination> {
        match &self.output {
            Output::Files { destination, .. } | Output::Parts(PartedTarget { destination, .. }) => {
                Some(destination)
            }
            Output::Stream(_) | Output::Comparison(_) | Output::Listing(_) => None,
        }
    }

    /// What is promised of what lands here.
    pub(crate) fn durability(&self) -> Durability {
        self.destination().map_or(Durability::Verified, Destination::durability)
    }

    /// Another handle.
    pub(super) fn share(&self) -> Self {
        Self { output: self.output.clone(), writes: self.writes.clone() }
    }

    pub(super) fn writes(&self) -> &WriteTracker {
        &self.writes
    }

    /// Takes what is said of the directory that all of it is in.
    pub(super) fn plan_top(&self, top: TopDirectory) -> Result<(), DestinationError> {
        match self.destination() {
            Some(destination) => destination.plan_top(top),
            None if matches!(self.output, Output::Stream(_)) => {
                Err(DestinationError::NotRequested { path: ".".to_owned() })
            }
            None => Ok(()),
        }
    }

    /// Decides what is to be done for an entry.
    pub(super) fn plan(&self, index: u64, entry: &Entry) -> Result<Plan, DestinationError> {
        match &self.output {
            Output::Files { destination, .. } => destination.plan(index, entry),
            Output::Parts(parts) => parts.plan(index, entry),
            Output::Stream(stream) => stream.plan(entry),
            Output::Comparison(comparison) => comparison.plan(entry),
            Output::Listing(list) => {
                list(entry);
                Ok(Plan::Done)
            }
        }
    }

    /// Goes on after [`Plan::Compare`].
    pub(super) fn compare(
        &self,
        index: u64,
        entry: &Entry,
        theirs: Digest,
    ) -> Result<Plan, DestinationError> {
        match &self.output {
            Output::Comparison(comparison) => comparison.compare(entry, theirs),
            Output::Parts(parts) => parts.destination.compare_part(entry, theirs),
            Output::Files { .. } | Output::Stream(_) | Output::Listing(_) => {
                self.files(index)?.compare(index, entry, theirs)
            }
        }
    }

    /// Takes a part of the block signatures of an entry for which [`Plan::Delta`] was given, in order, while the peer
    /// reads on.
    pub(super) fn follow(&self, index: u64, theirs: &[Block]) -> Result<(), DestinationError> {
        self.files(index)?.follow(index, theirs);
        Ok(())
    }

    /// Goes on after [`Plan::Delta`] with the block signatures of all the ranges that it named.
    pub(super) fn delta(
        &self,
        index: u64,
        entry: &Entry,
        theirs: &[Block],
    ) -> Result<Plan, DestinationError> {
        self.files(index)?.delta(index, entry, theirs)
    }

    /// Only files are compared.
    fn files(&self, entry: u64) -> Result<&Destination, DestinationError> {
        self.destination().filter(|_| !self.is_in_parts()).ok_or(DestinationError::NotWanted { entry })
    }

    /// Checks that `missing_bytes` fit.
    pub(super) fn reserve(&self, missing_bytes: u64) -> Result<(), DestinationError> {
        self.destination().map_or(Ok(()), |destination| destination.reserve(missing_bytes))
    }

    /// The size of an entry for which a plan was given that wants something of it, and that was not given up since.
    pub(super) fn file_len_bytes(&self, entry: u64) -> Option<u64> {
        match &self.output {
            Output::Files { destination, .. } => destination.file_len_bytes(entry),
            Output::Stream(stream) => stream.file_len_bytes(),
            // Chunks of parts are hashed plainly.
            Output::Parts(_) | Output::Comparison(_) | Output::Listing(_) => None,
        }
    }

    /// Whether chunks are written without ever waiting for a disk, so that it may be done between two packets.
    pub(super) fn is_immediate(&self) -> bool {
        self.destination().is_some_and(Destination::is_immediate)
    }

    /// Begins a chunk.
    pub(super) fn writer(&self, chunk: u64, spans: &[Span]) -> Result<Writer, DestinationError> {
        match &self.output {
            Output::Files { destination, .. } => destination.chunk_writer(chunk, spans).map(Writer::Files),
            Output::Parts(parts) => parts.writer(chunk, spans).map(Writer::Parts),
            Output::Stream(stream) => Ok(Writer::Stream(stream.writer(spans))),
            Output::Comparison(_) | Output::Listing(_) => Err(DestinationError::NotWanted { entry: chunk }),
        }
    }

    /// Makes complete entries visible, and durable if that was promised. Gives those that are; the others are left out.
    pub(super) fn publish(&self, entries: &[u64]) -> Result<Vec<u64>, DestinationError> {
        match self.destination().filter(|_| !self.is_in_parts()) {
            Some(destination) => destination.publish(entries),
            None => Ok(entries.to_vec()),
        }
    }

    /// What was left out here since the last time, and how many more there were.
    pub(super) fn take_left_out(&self) -> Result<(Vec<LeftOut>, u64), DestinationError> {
        self.destination().map_or_else(|| Ok(Default::default()), Destination::take_left_out)
    }

    /// Removes what there is of an entry that was left out.
    pub(super) fn discard_left_out(&self, entry: u64) -> Result<(), DestinationError> {
        self.destination().map_or(Ok(()), |destination| destination.discard_left_out(entry))
    }

    /// Gives up an entry that the provider cannot send, for this reason.
    pub(super) fn discard(&self, entry: u64, reason: LeftOutReason) -> Result<(), DestinationError> {
        match &self.output {
            Output::Files { destination, .. } => destination.discard(entry, reason),
            // Without one of its parts it is not that file.
            Output::Parts(_) => Err(DestinationError::NotWanted { entry }),
            Output::Stream(stream) => {
                stream.discard();
                Ok(())
            }
            Output::Comparison(_) | Output::Listing(_) => Ok(()),
        }
    }

    /// The transfer has failed: what takes long may end early, in any error. Nothing more is asked for.
    pub(super) fn abandon(&self) {
        self.destination().into_iter().for_each(Destination::abandon);
    }

    /// Something is left out, at the peer if its path, escaped, is given.
    pub(super) fn is_left_out(&self, reason: LeftOutReason, there: Option<&str>) {
        self.destination().into_iter().for_each(|destination| destination.is_left_out(reason, there));
    }

    /// Everything has arrived.
    pub(super) fn finish(self) -> Result<Summary, DestinationError> {
        match self.output {
            Output::Files { destination, is_part: false } => destination.finish(),
            Output::Files { destination, is_part: true } => {
                destination.lay_hard_links().map(|()| Summary::default())
            }
            Output::Parts(PartedTarget { destination, .. }) => {
                destination.end_parts()?;
                destination.finish()
            }
            Output::Stream(stream) => stream.finish(),
            Output::Comparison(comparison) => comparison.finish().map(|()| Summary::default()),
            Output::Listing(_) => Ok(Summary::default()),
        }
    }
}

impl Writer {
    pub(super) fn write(&mut self, data: &[u8]) -> Result<(), DestinationError> {
        match self {
            Self::Files(writer) => writer.write(data),
            Self::Parts(writer) => writer.write(data),
            Self::Stream(writer) => {
                writer.write(data);
                Ok(())
            }
        }
    }

    /// Gives the entries that are complete now.
    pub(super) fn commit(self, verified: Verified) -> Result<(Stored, Vec<u64>), DestinationError> {
        match self {
            Self::Files(writer) => writer.commit(verified),
            Self::Parts(writer) => writer.commit(verified),
            Self::Stream(writer) => writer.commit(verified),
        }
    }
}
