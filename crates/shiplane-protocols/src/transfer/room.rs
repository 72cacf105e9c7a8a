//! Room in memory for the chunks that are under way, shared by all transfers of a server.
//!
//! A chunk that its peer does not take, or does not finish, is held until a deadline ends it. So that a crowd of
//! such peers neither fills the memory nor keeps others from theirs, a transfer gets more room the more there is
//! left, and those that have not moved a chunk yet get a quarter of it together. A transfer without any
//! room goes on with one chunk at a time, in small pieces.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use shiplane_transport::{BufferPool, SideBySide};

/// The room, and the buffers in it. A handle: clones share it.
#[derive(Debug, Clone)]
pub struct ChunkRoom {
    used_bytes: Arc<Mutex<u64>>,
    total_bytes: u64,
    pub(super) buffers: BufferPool,
    pub(super) hashing: SideBySide,
}

impl ChunkRoom {
    /// For chunks of so many bytes in all.
    #[must_use]
    pub fn new(total_bytes: u64) -> Self {
        let buffers = BufferPool::default();
        // Sent or received: together they are never more than the room.
        let hashing = SideBySide::with_buffers(buffers.clone());
        Self { used_bytes: Arc::default(), total_bytes, buffers, hashing }
    }

    fn used(&self) -> MutexGuard<'_, u64> {
        // Each change is one step.
        self.used_bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for ChunkRoom {
    /// [`CHUNK_ROOM_BYTES`].
    fn default() -> Self {
        Self::new(CHUNK_ROOM_BYTES)
    }
}

/// What one transfer has of the room; without a room it has all it wants.
#[derive(Debug)]
pub(super) struct Share {
    room: Option<ChunkRoom>,
    held_bytes: Arc<Mutex<u64>>,
    has_moved: bool,
}

impl Share {
    pub(super) fn of(room: Option<ChunkRoom>) -> Self {
        Self { room, held_bytes: Arc::default(), has_moved: false }
    }

    /// A chunk has got to its receiver: this is no transfer that only takes up room.
    pub(super) fn moved(&mut self) {
        self.has_moved = true;
    }

    /// A place for a chunk; `None` if it has to wait. While none of the transfer's chunks is `under_way` there is
    /// always one, if need be without room.
    pub(super) fn take(&self, len_bytes: u64, under_way: usize) -> Option<Place> {
        let Some(room) = &self.room else { return Some(Place::Unlimited) };
        match self.take_from(room, len_bytes) {
            Some(held) => Some(Place::Held(held)),
            None => (under_way == 0).then_some(Place::Without),
        }
    }

    fn take_from(&self, room: &ChunkRoom, len_bytes: u64) -> Option<Held> {
        let mut used = room.used();
        let left_bytes = room.total_bytes.checked_sub(*used)?.checked_sub(len_bytes)?;
        let mut held = lock(&self.held_bytes);
        let is_fair = *held + len_bytes <= SHARE_OF_REST * left_bytes;
        let leaves_most = self.has_moved || left_bytes >= room.total_bytes - room.total_bytes / UNMOVED_PART;
        if !(is_fair && leaves_most) {
            return None;
        }
        *used += len_bytes;
        *held += len_bytes;
        drop((used, held));
        Some(Held { room: room.clone(), held_bytes: Arc::clone(&self.held_bytes), len_bytes })
    }
}

/// Where a chunk is held while it is under way.
#[derive(Debug)]
pub(super) enum Place {
    /// Nobody counts.
    Unlimited,
    /// Its own room.
    Held(#[expect(dead_code, reason = "held for its drop")] Held),
    /// No room: only what small pieces take.
    Without,
}

impl Place {
    /// Whether all of the chunk may be held.
    pub(super) fn has_room(&self) -> bool {
        !matches!(self, Self::Without)
    }
}

/// Room that is given back when this is dropped.
#[derive(Debug)]
pub(super) struct Held {
    room: ChunkRoom,
    held_bytes: Arc<Mutex<u64>>,
    len_bytes: u64,
}

impl Drop for Held {
    fn drop(&mut self) {
        *self.room.used() -= self.len_bytes;
        *lock(&self.held_bytes) -= self.len_bytes;
    }
}

fn lock(bytes: &Mutex<u64>) -> MutexGuard<'_, u64> {
    bytes.lock().unwrap_or_else(PoisonError::into_inner)
}

/// 24 MiB: what a single transfer holds with the default lanes, and half as much again for others, well within a
/// process's memory cap of 64 MiB.
pub const CHUNK_ROOM_BYTES: u64 = 24 << 20;

/// A quarter is for those that have not moved a chunk: an honest one has by the time its first is acknowledged.
const UNMOVED_PART: u64 = 4;

/// A transfer may hold twice what it leaves to all others: two thirds of the room, if it is alone.
const SHARE_OF_REST: u64 = 2;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CHUNK: u64 = shiplane_wire::limits::DEFAULT_PAYLOAD_CHUNK_LEN_BYTES;

    /// All that it gets.
    fn fill(share: &Share) -> Vec<Place> {
        std::iter::from_fn(|| share.take(CHUNK, 1)).collect()
    }

    #[test]
    fn one_transfer_alone_has_room_for_all_the_default_lanes() {
        let mut share = Share::of(Some(ChunkRoom::default()));
        share.moved();
        assert_eq!(fill(&share).len(), super::super::DEFAULT_LANES);
    }

    #[test]
    fn those_that_never_move_leave_three_quarters_to_those_that_do() {
        let room = ChunkRoom::default();
        let stalled: Vec<_> = (0..500).map(|_| Share::of(Some(room.clone()))).collect();
        let held: Vec<_> = stalled.iter().flat_map(fill).collect();
        assert_eq!(held.len() as u64 * CHUNK, CHUNK_ROOM_BYTES / 4);
        let mut healthy = Share::of(Some(room));
        assert!(healthy.take(CHUNK, 1).is_none());
        assert!(matches!(healthy.take(CHUNK, 0), Some(Place::Without)), "it begins without room");
        healthy.moved();
        assert_eq!(fill(&healthy).len(), super::super::DEFAULT_LANES * 3 / 4);
    }

    #[test]
    fn what_is_given_back_can_be_had_again_by_others() {
        let room = ChunkRoom::new(4 * CHUNK);
        let (mut one, mut two) = (Share::of(Some(room.clone())), Share::of(Some(room)));
        one.moved();
        two.moved();
        let held = fill(&one);
        assert_eq!((held.len(), fill(&two).len()), (2, 1));
        drop(held);
        assert_eq!(fill(&two).len(), 2);
    }

    #[test]
    fn without_a_room_nobody_counts() {
        assert!(matches!(Share::of(None).take(u64::MAX, 1000), Some(Place::Unlimited)));
    }

    proptest! {
        #[test]
        fn never_more_than_the_room_is_given(
            steps in prop::collection::vec((0usize..8, 0u64..20 << 20, any::<bool>()), 0..200),
        ) {
            let room = ChunkRoom::default();
            let mut shares: Vec<_> = (0..8).map(|_| Share::of(Some(room.clone()))).collect();
            let mut places = Vec::new();
            for (who, len_bytes, gives_back) in steps {
                if gives_back && !places.is_empty() {
                    places.remove(who % places.len());
                    shares[who].moved();
                } else if let Some(place) = shares[who].take(len_bytes, 1) {
                    prop_assert!(place.has_room());
                    places.push(place);
                }
                prop_assert!(*room.used() <= CHUNK_ROOM_BYTES);
            }
            drop(places);
            prop_assert_eq!(*room.used(), 0);
        }
    }
}
