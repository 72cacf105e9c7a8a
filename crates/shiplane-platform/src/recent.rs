//! A cache that keeps recently used handles open.

use std::collections::HashMap;
use std::hash::Hash;

/// The values that were used last, by key.
#[derive(Debug)]
pub struct Recent<K, V> {
    values: HashMap<K, (V, u64)>,
    uses: u64,
}

impl<K, V> Default for Recent<K, V> {
    fn default() -> Self {
        Self { values: HashMap::new(), uses: 0 }
    }
}

impl<K: Clone + Eq + Hash, V: Clone> Recent<K, V> {
    /// The value of a key, which is used now.
    pub fn find(&mut self, key: &K) -> Option<V> {
        self.uses += 1;
        let (value, used) = self.values.get_mut(key)?;
        *used = self.uses;
        Some(value.clone())
    }

    /// Keeps a value. If there are many, it replaces the oldest that may go.
    pub fn keep(&mut self, key: K, value: V, may_go: impl Fn(&V) -> bool) {
        if self.values.len() >= MAX_OPEN {
            let idle = self.values.iter().filter(|(_, (value, _))| may_go(value));
            if let Some(oldest) = idle.min_by_key(|(_, (_, used))| *used).map(|(key, _)| key.clone()) {
                self.values.remove(&oldest);
            }
        }
        self.values.insert(key, (value, self.uses));
    }

    /// Drops a value.
    pub fn forget(&mut self, key: &K) {
        self.values.remove(key);
    }
}

/// 64 directories: as deep as a path may be, so that a walk to the bottom and back finds each level open. 64 files: as
/// many as chunks may be on their way at once. With what writers hold that stays far below the usual limit of 1,024.
const MAX_OPEN: usize = 64;
