//! Buffers that are used again.
//!
//! A fresh buffer of some hundred KiB costs the system a mapping, a page fault and a cleared page for every
//! 4 KiB: more than reading the file. A used one costs nothing. Large ones are mappings of their own: cut out of an
//! allocator's heaps, of which there is one a thread, they would leave holes that no other use fits and that the
//! system never gets back.

use std::{
    ops::{Deref, DerefMut},
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use memmap2::MmapMut;
use shiplane_wire::ChunkBuffer;

/// Hands out buffers that come back when the last [`Bytes`] made of them is dropped. A handle: clones share
/// the buffers.
#[derive(Debug, Clone)]
pub struct BufferPool {
    free: Arc<Mutex<Vec<Buffer>>>,
    max_free: usize,
}

impl BufferPool {
    /// Keeps at most so many buffers for later.
    #[must_use]
    pub fn keeping(max_free: usize) -> Self {
        Self { free: Arc::default(), max_free }
    }

    /// Fills a buffer of at most `max_len_bytes` by `fill`, which returns how much of it is used. What it
    /// does not fill has the bytes of an earlier use, which are never in the result.
    ///
    /// # Errors
    /// What `fill` says.
    pub fn filled<E>(
        &self,
        max_len_bytes: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<usize, E>,
    ) -> Result<Bytes, E> {
        let mut buffer = PooledBuffer { buffer: self.take(max_len_bytes), pool: self.clone() };
        buffer.buffer.used = fill(&mut buffer.buffer.memory.as_mut()[..max_len_bytes])?;
        Ok(Bytes::from_owner(buffer))
    }

    /// A buffer for so many bytes, empty; to be given back by [`put`](Self::put).
    pub(crate) fn take(&self, capacity_bytes: usize) -> Buffer {
        let mut free = self.lock();
        let fits = free.iter().rposition(|buffer| buffer.capacity() >= capacity_bytes);
        let found = fits.map(|at| free.swap_remove(at));
        drop(free);
        let mut buffer = found.unwrap_or_else(|| Buffer::with_capacity(capacity_bytes));
        buffer.used = 0;
        buffer
    }

    /// Keeps a buffer for later, unless there are enough that are no shorter.
    pub(crate) fn put(&self, buffer: Buffer) {
        let mut free = self.lock();
        if free.len() < self.max_free {
            free.push(buffer);
        } else if let Some(shorter) = free.iter_mut().find(|free| free.capacity() < buffer.capacity()) {
            *shorter = buffer;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Buffer>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for BufferPool {
    /// Keeps what a transfer has under way by default: with chunks of 512 KiB that are held whole, 16 MiB.
    fn default() -> Self {
        Self::keeping(MAX_FREE_BUFFERS)
    }
}

/// A zeroed buffer that is used once and not kept; a long one goes back to the system as it is dropped.
#[derive(Debug)]
pub struct Scratch {
    memory: Memory,
    len_bytes: usize,
}

impl Scratch {
    /// Of so many bytes.
    #[must_use]
    pub fn new(len_bytes: usize) -> Self {
        Self { memory: Memory::new(len_bytes), len_bytes }
    }
}

impl Deref for Scratch {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory.as_ref()[..self.len_bytes]
    }
}

impl DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.memory.as_mut()[..self.len_bytes]
    }
}

/// Memory, and how much of it is used.
#[derive(Debug)]
pub(crate) struct Buffer {
    memory: Memory,
    used: usize,
}

#[derive(Debug)]
enum Memory {
    Heap(Vec<u8>),
    /// Nothing of it is there before it is touched.
    Mapped(MmapMut),
}

impl Buffer {
    fn with_capacity(capacity_bytes: usize) -> Self {
        Self { memory: Memory::new(capacity_bytes), used: 0 }
    }

    fn capacity(&self) -> usize {
        self.memory.as_ref().len()
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.memory.as_ref()[..self.used]
    }
}

impl ChunkBuffer for Buffer {
    fn clear(&mut self) {
        self.used = 0;
    }

    fn extend_from_slice(&mut self, bytes: &[u8]) {
        let end = self.used + bytes.len();
        if end > self.capacity() {
            let mut larger = Memory::new(end.max(2 * self.capacity()));
            larger.as_mut()[..self.used].copy_from_slice(self.as_ref());
            self.memory = larger;
        }
        self.memory.as_mut()[self.used..end].copy_from_slice(bytes);
        self.used = end;
    }

    fn truncate(&mut self, len_bytes: usize) {
        self.used = self.used.min(len_bytes);
    }
}

impl Memory {
    fn new(len_bytes: usize) -> Self {
        if len_bytes < MIN_MAPPED_LEN_BYTES {
            return Self::Heap(vec![0; len_bytes]);
        }
        // All as long as the longest chunk that is held whole, so that each will do for any.
        let mapped = MmapMut::map_anon(len_bytes.max(MAPPED_LEN_BYTES));
        mapped.map_or_else(|_| Self::Heap(vec![0; len_bytes]), Self::Mapped)
    }

    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Heap(bytes) => bytes,
            Self::Mapped(bytes) => bytes,
        }
    }

    fn as_mut(&mut self) -> &mut [u8] {
        match self {
            Self::Heap(bytes) => bytes,
            Self::Mapped(bytes) => bytes,
        }
    }
}

#[derive(Debug)]
struct PooledBuffer {
    buffer: Buffer,
    pool: BufferPool,
}

impl AsRef<[u8]> for PooledBuffer {
    fn as_ref(&self) -> &[u8] {
        self.buffer.as_ref()
    }
}

impl Drop for PooledBuffer {
    fn drop(&mut self) {
        let gone = Buffer { memory: Memory::Heap(Vec::new()), used: 0 };
        self.pool.put(std::mem::replace(&mut self.buffer, gone));
    }
}

/// As many as a transfer has lanes.
const MAX_FREE_BUFFERS: usize = 32;

/// 128 KiB, from where on glibc maps too, until it has once been given back something longer.
const MIN_MAPPED_LEN_BYTES: usize = 128 * 1024;

/// 1 MiB and a page for the digest.
const MAPPED_LEN_BYTES: usize = (1 << 20) + 4096;

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    fn filled(pool: &BufferPool, max: usize, with: &[u8]) -> Bytes {
        pool.filled(max, |buffer| {
            buffer[..with.len()].copy_from_slice(with);
            Ok::<_, Infallible>(with.len())
        })
        .unwrap()
    }

    #[test]
    fn a_dropped_buffer_is_used_again_and_shows_nothing_of_before() {
        let pool = BufferPool::default();
        let first = filled(&pool, 8, b"secrets!");
        let address = first.as_ptr();
        drop(first.slice(2..4));
        let second = filled(&pool, 8, b"one");
        assert_ne!(second.as_ptr(), address, "the first is still held");
        drop(first);
        let third = filled(&pool, 8, b"two");
        assert_eq!((third.as_ptr(), &third[..]), (address, &b"two"[..]));
        drop(second);
    }

    #[test]
    fn no_more_is_kept_than_the_limit() {
        for (pool, limit) in [(BufferPool::default(), MAX_FREE_BUFFERS), (BufferPool::keeping(3), 3)] {
            let held: Vec<_> = (0..limit + 5).map(|_| filled(&pool, 1, b"x")).collect();
            drop(held);
            pool.put(Buffer::with_capacity(1));
            assert_eq!(pool.lock().len(), limit);
        }
    }

    #[test]
    fn one_that_is_too_short_is_neither_given_out_nor_in_the_way() {
        let pool = BufferPool::keeping(1);
        drop(filled(&pool, 1, b"x"));
        let long = filled(&pool, 300 << 10, b"y");
        let address = long.as_ptr();
        drop(long);
        let again = filled(&pool, 1 << 20, b"z");
        assert_eq!((again.as_ptr(), pool.lock().len()), (address, 0), "it is long enough for any");
    }

    #[test]
    fn long_ones_are_no_part_of_a_heap_and_scratch_is_clean() {
        for len_bytes in [0, 1, MIN_MAPPED_LEN_BYTES - 1, MIN_MAPPED_LEN_BYTES, 5 << 20] {
            let mut scratch = Scratch::new(len_bytes);
            assert_eq!(scratch.len(), len_bytes);
            assert!(scratch.iter().all(|byte| *byte == 0));
            scratch.fill(7);
            let is_mapped = matches!(scratch.memory, Memory::Mapped(_));
            assert_eq!(is_mapped, len_bytes >= MIN_MAPPED_LEN_BYTES);
        }
    }

    #[test]
    fn what_is_gathered_is_kept_however_long_it_becomes() {
        let pool = BufferPool::default();
        let (mut buffer, mut expected) = (pool.take(10), Vec::new());
        for round in 0..400_u32 {
            let piece = round.to_le_bytes().repeat(1 + round as usize % 300);
            buffer.extend_from_slice(&piece);
            expected.extend_from_slice(&piece);
            assert!(buffer.as_ref() == expected, "after {} bytes", expected.len());
        }
        buffer.truncate(5);
        assert_eq!(buffer.as_ref(), &expected[..5]);
        pool.put(buffer);
        assert!(pool.take(1).as_ref().is_empty());
    }
}
