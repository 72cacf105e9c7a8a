//! Counts memory that several users share.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{self, Notify};

/// Counts memory that is shared out. A handle: clones share it.
#[derive(Debug, Clone)]
pub struct MemoryPool {
    total_bytes: u64,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    used_bytes: Mutex<u64>,
    /// Whose turn it is to wait.
    turn: sync::Mutex<()>,
    given_back: Notify,
}

/// Memory of a pool; given back when this is dropped.
#[derive(Debug)]
pub struct PooledMemory {
    pool: MemoryPool,
    len_bytes: u64,
}

impl MemoryPool {
    /// Holds `total_bytes`.
    #[must_use]
    pub fn new(total_bytes: u64) -> Self {
        Self { total_bytes, shared: Arc::default() }
    }

    /// What there is to share.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.total_bytes
    }

    /// What is held of it.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        *self.lock()
    }

    /// Takes as many bytes as `decide` says, given those that are left.
    pub fn take(&self, decide: impl FnOnce(u64) -> u64) -> u64 {
        let mut used = self.lock();
        let taken_bytes = decide(self.total_bytes.saturating_sub(*used));
        *used += taken_bytes;
        taken_bytes
    }

    /// What who holds `held_bytes` may take of `left_bytes`: each may hold twice what it leaves to all others, which are
    /// two thirds if it is alone.
    #[must_use]
    pub fn fair_share(held_bytes: u64, left_bytes: u64) -> u64 {
        // held + share <= 2 * (left - share)
        (2 * left_bytes).saturating_sub(held_bytes) / 3
    }

    /// Gives back what was taken.
    pub fn give_back(&self, bytes: u64) {
        *self.lock() -= bytes;
        self.shared.given_back.notify_one();
    }

    /// Takes `len_bytes`, if there are as many.
    #[must_use]
    pub fn hold(&self, len_bytes: u64) -> Option<PooledMemory> {
        let taken_bytes = self.take(|left_bytes| if len_bytes <= left_bytes { len_bytes } else { 0 });
        (taken_bytes == len_bytes).then(|| PooledMemory { pool: self.clone(), len_bytes })
    }

    /// Waits for `len_bytes`, in turn: what is short does not overtake what is long. Dropped, nothing is held.
    pub async fn held(&self, len_bytes: u64) -> PooledMemory {
        let _turn = self.shared.turn.lock().await;
        loop {
            match self.hold(len_bytes) {
                Some(held) => return held,
                None => self.shared.given_back.notified().await,
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, u64> {
        // Each change is one step.
        self.shared.used_bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for PooledMemory {
    fn drop(&mut self) {
        self.pool.give_back(self.len_bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};

    use super::*;

    fn is_waiting(future: &mut (impl Future<Output = PooledMemory> + Unpin)) -> bool {
        std::pin::Pin::new(future).poll(&mut Context::from_waker(Waker::noop())).is_pending()
    }

    #[tokio::test]
    async fn those_who_wait_get_memory_in_turn_and_one_that_gives_up_keeps_none() {
        let pool = MemoryPool::new(10);
        let first = pool.held(6).await;
        let (mut gives_up, mut long) = (Box::pin(pool.held(7)), Box::pin(pool.held(8)));
        let mut short = Box::pin(pool.held(1));
        let waiting = [is_waiting(&mut gives_up), is_waiting(&mut long), is_waiting(&mut short)];
        assert_eq!(waiting, [true; 3], "there is no room for it, or it is not its turn");
        drop(gives_up);
        assert!(is_waiting(&mut long));
        drop(first);
        let long = long.await;
        drop(short.await);
        assert_eq!(pool.used_bytes(), 8);
        drop(long);
        assert_eq!(pool.used_bytes(), 0);
    }
}
