//! Reads a chunk's spans as one source for a lane.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use shiplane_files::internals::{Source, SourceError, SourceFile};
use shiplane_transport::internals::{BufferPool, ChunkRead, SourceError as LaneError};
use shiplane_wire::{Entry, Piece, Span};

use crate::lock;

/// How many threads read from the source right now. A handle: clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Reading(Arc<AtomicUsize>);

impl Reading {
    pub(super) fn count<T>(&self, read: impl FnOnce() -> T) -> T {
        self.0.fetch_add(1, Ordering::Relaxed);
        let result = read();
        self.0.fetch_sub(1, Ordering::Relaxed);
        result
    }

    pub(super) fn is_under_way(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }
}

/// A span with what is known of its file.
#[derive(Debug, Clone)]
pub(super) struct FileSpan {
    pub(super) span: Span,
    pub(super) entry: Entry,
}

impl FileSpan {
    /// The piece of its file that it is, if it is one.
    fn piece(&self) -> Option<Piece> {
        Piece::of_file(self.span.offset_bytes, self.span.len_bytes, self.entry.size_bytes)
    }
}

/// The file and the piece of it that a chunk of these spans is, if it is one: the receiver knows the same.
pub(super) fn piece_of(spans: &[FileSpan]) -> Option<(&Entry, Piece)> {
    match spans {
        [span] => Some((&span.entry, span.piece()?)),
        _ => None,
    }
}

/// Reads spans one after another.
pub(super) struct SpanSource {
    source: Arc<Source>,
    spans: std::vec::IntoIter<FileSpan>,
    current: Option<Current>,
    len_bytes: u64,
    failure: FailedSpan,
    buffers: BufferPool,
    reading: Reading,
    /// Files can be opened between two packets.
    is_immediate: bool,
}

struct Current {
    file: SourceFile,
    entry: u64,
    offset_bytes: u64,
    left_bytes: u64,
}

/// Which entry failed, and how: the lane only knows that its source did.
#[derive(Debug, Clone, Default)]
pub(super) struct FailedSpan(Arc<Mutex<Option<(u64, SourceError)>>>);

impl FailedSpan {
    pub(super) fn take(&self) -> Option<(u64, SourceError)> {
        lock(&self.0).take()
    }

    fn set(&self, entry: u64, error: SourceError) -> LaneError {
        *lock(&self.0) = Some((entry, error));
        LaneError::Changed
    }
}

impl SpanSource {
    pub(super) fn new(
        source: Arc<Source>,
        spans: Vec<FileSpan>,
        buffers: BufferPool,
        reading: Reading,
        is_immediate: bool,
    ) -> (Self, FailedSpan) {
        let len_bytes = spans.iter().map(|file| file.span.len_bytes).sum();
        let (spans, failure) = (spans.into_iter(), FailedSpan::default());
        let failed = failure.clone();
        (Self { source, spans, current: None, len_bytes, failure, buffers, reading, is_immediate }, failed)
    }

    /// The span that is being read, the next one opened if need be; `None` after the last.
    fn current(&mut self) -> Result<Option<&mut Current>, LaneError> {
        if self.current.is_none()
            && let Some(FileSpan { span, entry }) = self.spans.next()
        {
            let file = self.source.open(&entry).map_err(|error| self.failure.set(span.entry, error))?;
            self.current = Some(Current {
                file,
                entry: span.entry,
                offset_bytes: span.offset_bytes,
                left_bytes: span.len_bytes,
            });
        }
        Ok(self.current.as_mut())
    }

    /// Reads on in the current span, to its end at most; 0 after the last, and where reading would wait and may not.
    fn read_part(&mut self, buf: &mut [u8], may_wait: bool) -> Result<usize, LaneError> {
        if !may_wait && self.current.is_none() && !self.is_immediate {
            return Ok(0);
        }
        let failure = self.failure.clone();
        let Some(current) = self.current()? else { return Ok(0) };
        let max = usize::try_from(current.left_bytes).map_or(buf.len(), |left| left.min(buf.len()));
        let read = match may_wait {
            true => current.file.read_at(current.offset_bytes, &mut buf[..max]).map(|()| max),
            false => current.file.try_read_at(current.offset_bytes, &mut buf[..max]),
        };
        let len = read.map_err(|error| failure.set(current.entry, error))?;
        current.offset_bytes += len as u64;
        current.left_bytes -= len as u64;
        if current.left_bytes == 0 {
            // SPEC 4.9: before anything that this span completes can be sent.
            let unchanged = current.file.check_unchanged();
            unchanged.map_err(|error| failure.set(current.entry, error))?;
            self.current = None;
        }
        Ok(len)
    }

    /// Fills a buffer across spans: small files share buffers of full size.
    fn fill(&mut self, max_len_bytes: usize, may_wait: bool) -> Result<Bytes, LaneError> {
        let (buffers, reading) = (self.buffers.clone(), self.reading.clone());
        buffers.filled(max_len_bytes, |buf| {
            reading.count(|| {
                let mut filled = 0;
                while filled < buf.len() {
                    let read = self.read_part(&mut buf[filled..], may_wait)?;
                    if read == 0 {
                        break;
                    }
                    filled += read;
                }
                Ok(filled)
            })
        })
    }
}

impl ChunkRead for SpanSource {
    fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    fn read(&mut self, max_len_bytes: usize) -> Result<Bytes, LaneError> {
        self.fill(max_len_bytes, true)
    }

    fn try_read(&mut self, max_len_bytes: usize) -> Result<Option<Bytes>, LaneError> {
        let read = self.fill(max_len_bytes, false)?;
        Ok((!read.is_empty()).then_some(read))
    }

    /// Every span has been checked at its own end.
    fn check_unchanged(&mut self) -> Result<(), LaneError> {
        Ok(())
    }
}
