//! Counts memory that several users share.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Counts memory that is shared out. A handle: clones share it.
#[derive(Debug, Clone)]
pub struct MemoryPool {
    total_bytes: u64,
    used_bytes: Arc<Mutex<u64>>,
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
        Self { total_bytes, used_bytes: Arc::default() }
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
    }

    /// Takes `len_bytes`, if there are as many.
    #[must_use]
    pub fn hold(&self, len_bytes: u64) -> Option<PooledMemory> {
        let taken_bytes = self.take(|left_bytes| if len_bytes <= left_bytes { len_bytes } else { 0 });
        (taken_bytes == len_bytes).then(|| PooledMemory { pool: self.clone(), len_bytes })
    }

    fn lock(&self) -> MutexGuard<'_, u64> {
        // Each change is one step.
        self.used_bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for PooledMemory {
    fn drop(&mut self) {
        self.pool.give_back(self.len_bytes);
    }
}
