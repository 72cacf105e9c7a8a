//! A pool of reusable buffers.
//!
//! A fresh buffer of some hundred KiB costs the system a mapping, a page fault and a cleared page for every
//! 4 KiB: more than reading the file. A used one costs nothing. Large ones are mappings of their own: cut out of an
//! allocator's heaps, of which there is one a thread, they would leave holes that no other use fits and that the
//! system never gets back.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use memmap2::MmapMut;

/// Hands out buffers that come back when the last [`Bytes`] made of them is dropped. A handle: clones share
/// the buffers.
#[derive(Debug, Clone)]
pub struct BufferPool {
    free: Arc<Mutex<Vec<Buffer>>>,
    max_free: usize,
}

impl BufferPool {
    /// Keeps up to this many free buffers.
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
        let mut buffer = self.take(max_len_bytes);
        let filled = fill(buffer.spare(max_len_bytes))?;
        buffer.fill(filled);
        Ok(buffer.freeze())
    }

    /// Gives the free buffers back to the system.
    pub fn free(&self) {
        self.lock().clear();
    }

    /// How many free buffers it keeps.
    #[must_use]
    pub fn kept(&self) -> usize {
        self.lock().len()
    }

    /// An empty buffer of at least this capacity.
    pub(crate) fn take(&self, capacity_bytes: usize) -> PooledBuffer {
        let mut free = self.lock();
        let fits = free.iter().rposition(|buffer| buffer.capacity() >= capacity_bytes);
        let found = fits.map(|at| free.swap_remove(at));
        drop(free);
        let mut buffer = found.unwrap_or_else(|| Buffer::with_capacity(capacity_bytes));
        buffer.used = 0;
        PooledBuffer { buffer, pool: self.clone() }
    }

    /// Keeps a buffer for later, unless there are enough that are no shorter.
    fn put(&self, buffer: Buffer) {
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
    /// Keeps some that are read, hashed and sent at a time.
    fn default() -> Self {
        Self::keeping(MAX_FREE_BUFFERS)
    }
}

/// Memory, and how much of it is used.
#[derive(Debug)]
struct Buffer {
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

impl Memory {
    fn new(len_bytes: usize) -> Self {
        if len_bytes < MIN_MAPPED_LEN_BYTES {
            return Self::Heap(vec![0; len_bytes]);
        }
        // All of one length, so that each will do for any.
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

/// A buffer that goes back to its pool.
#[derive(Debug)]
pub(crate) struct PooledBuffer {
    buffer: Buffer,
    pool: BufferPool,
}

impl PooledBuffer {
    /// How much of it is filled.
    pub(crate) fn len(&self) -> usize {
        self.buffer.used
    }

    /// The unfilled part of the first `len` bytes; it contains bytes of an earlier use.
    pub(crate) fn spare(&mut self, len: usize) -> &mut [u8] {
        let used = self.buffer.used;
        &mut self.buffer.memory.as_mut()[used..len]
    }

    /// Says that the first `len` of the spare bytes are filled now.
    pub(crate) fn fill(&mut self, len: usize) {
        self.buffer.used += len;
    }

    /// The filled part; the buffer comes back when its last clone is dropped.
    pub(crate) fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
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

/// 16 buffers of 256 KiB: 4 MiB at most are kept between two uses.
const MAX_FREE_BUFFERS: usize = 16;

/// 128 KiB, from where on glibc maps too, until it has once been given back something longer.
const MIN_MAPPED_LEN_BYTES: usize = 128 * 1024;

/// 256 KiB, what is read and hashed at a time, and a page for what ends a frame.
const MAPPED_LEN_BYTES: usize = (256 << 10) + 4096;

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
        let again = filled(&pool, 300 << 10, b"z");
        assert_eq!((again.as_ptr(), pool.lock().len()), (address, 0));
    }

    #[test]
    fn long_buffers_are_mapped_and_clean() {
        for len_bytes in [0, 1, MIN_MAPPED_LEN_BYTES - 1, MIN_MAPPED_LEN_BYTES, 5 << 20] {
            let memory = Memory::new(len_bytes);
            assert!(memory.as_ref().len() >= len_bytes);
            assert!(memory.as_ref().iter().all(|byte| *byte == 0));
            let is_mapped = matches!(memory, Memory::Mapped(_));
            assert_eq!(is_mapped, len_bytes >= MIN_MAPPED_LEN_BYTES);
        }
    }

    #[test]
    fn a_buffer_is_filled_in_steps() {
        let pool = BufferPool::default();
        let mut buffer = pool.take(10);
        buffer.spare(10)[..3].copy_from_slice(b"abc");
        buffer.fill(3);
        assert_eq!(buffer.spare(10).len(), 7);
        buffer.spare(4)[0] = b'd';
        buffer.fill(1);
        assert_eq!((buffer.len(), &buffer.freeze()[..]), (4, &b"abcd"[..]));
        assert_eq!(pool.take(1).len(), 0);
    }
}
