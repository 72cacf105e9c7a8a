//! Read buffers that are used again.
//!
//! A fresh buffer of some hundred KiB costs the system a mapping, a page fault and a cleared page for every
//! 4 KiB: more than reading the file. A used one costs nothing.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

/// Hands out buffers that come back when the last [`Bytes`] made of them is dropped. A handle: clones share
/// the buffers.
#[derive(Debug, Clone)]
pub struct BufferPool {
    free: Arc<Mutex<Vec<Vec<u8>>>>,
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
        let mut bytes = self.take();
        if bytes.len() < max_len_bytes {
            bytes.resize(max_len_bytes, 0);
        }
        let mut buffer = PooledBuffer { bytes, used: 0, pool: self.clone() };
        buffer.used = fill(&mut buffer.bytes[..max_len_bytes])?;
        Ok(Bytes::from_owner(buffer))
    }

    /// A buffer of any length, with the bytes of an earlier use in it; to be given back by
    /// [`put`](Self::put).
    pub(crate) fn take(&self) -> Vec<u8> {
        self.lock().pop().unwrap_or_default()
    }

    /// Keeps a buffer for later, unless there are enough.
    pub(crate) fn put(&self, buffer: Vec<u8>) {
        let mut free = self.lock();
        if free.len() < self.max_free {
            free.push(buffer);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Vec<u8>>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for BufferPool {
    /// Keeps what a transfer has under way by default: with chunks of 512 KiB that are read whole, 16 MiB.
    fn default() -> Self {
        Self::keeping(MAX_FREE_BUFFERS)
    }
}

#[derive(Debug)]
struct PooledBuffer {
    bytes: Vec<u8>,
    used: usize,
    pool: BufferPool,
}

impl AsRef<[u8]> for PooledBuffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.used]
    }
}

impl Drop for PooledBuffer {
    fn drop(&mut self) {
        self.pool.put(std::mem::take(&mut self.bytes));
    }
}

/// As many as a transfer has lanes.
const MAX_FREE_BUFFERS: usize = 32;

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
            pool.put(vec![1]);
            assert_eq!(pool.lock().len(), limit);
        }
    }
}
