//! In which order a connection sends the chunks of its transfers: those of one transfer one after another, so that they
//! complete one after another, and several transfers side by side, byte for byte, however far each of them is (start-time
//! fair queueing).

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
};

use shiplane_wire::TransferId;

use crate::config::LANE_PRIORITY;

/// What is under way.
#[derive(Debug, Default)]
pub(super) struct ChunkOrder(Mutex<UnderWay>);

/// Where each chunk begins and ends in the order, in steps of [`STEP_BYTES`].
type UnderWay = HashMap<TransferId, BTreeMap<u64, u64>>;

/// A chunk's position, until it is dropped.
pub(super) struct Position<'a> {
    order: &'a ChunkOrder,
    transfer: TransferId,
    start: u64,
}

impl ChunkOrder {
    /// The position of a transfer's next chunk: behind those of the same transfer, and not before the transfer that is the
    /// furthest.
    pub(super) fn begin(&self, transfer: TransferId, len_bytes: u64) -> Position<'_> {
        let mut under_way = self.lock();
        let firsts = under_way.values().filter_map(|chunks| chunks.keys().next().copied());
        let now = firsts.max().unwrap_or_default();
        let chunks = under_way.entry(transfer).or_default();
        let start = chunks.values().next_back().map_or(now, |end| now.max(*end));
        chunks.insert(start, start + len_bytes.div_ceil(STEP_BYTES).max(1));
        Position { order: self, transfer, start }
    }

    fn lock(&self) -> MutexGuard<'_, UnderWay> {
        // Each change is one step.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Position<'_> {
    /// Of the chunk's stream.
    pub(super) fn priority(&self) -> i32 {
        // Beyond 128 TiB without a pause all are equal.
        i32::try_from(self.start).map_or(i32::MIN, |start| LANE_PRIORITY.saturating_sub(start))
    }
}

impl Drop for Position<'_> {
    fn drop(&mut self) {
        let mut under_way = self.order.lock();
        if let Some(chunks) = under_way.get_mut(&self.transfer) {
            chunks.remove(&self.start);
            if chunks.is_empty() {
                under_way.remove(&self.transfer);
            }
        }
    }
}

/// 64 KiB, the shortest usual chunk.
const STEP_BYTES: u64 = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    const A: TransferId = TransferId::from_bytes([1; 16]);
    const B: TransferId = TransferId::from_bytes([2; 16]);

    /// Has `transfer` send `count` chunks of that length, eight at a time, and gives those that are under way.
    fn send(order: &ChunkOrder, transfer: TransferId, count: usize, len_bytes: u64) -> Vec<Position<'_>> {
        let mut under_way = Vec::new();
        for _ in 0..count {
            if under_way.len() == 8 {
                under_way.remove(0);
            }
            under_way.push(order.begin(transfer, len_bytes));
        }
        under_way
    }

    fn priorities(positions: &[Position<'_>]) -> Vec<i32> {
        positions.iter().map(Position::priority).collect()
    }

    #[test]
    fn chunks_of_one_transfer_go_one_after_another() {
        let order = ChunkOrder::default();
        let positions = send(&order, A, 1000, 10);
        assert!(priorities(&positions).is_sorted_by(|before, after| before > after));
    }

    #[test]
    fn a_transfer_that_begins_is_level_with_one_that_is_far_and_as_many_bytes_of_each_go() {
        let order = ChunkOrder::default();
        let far = send(&order, A, 1000, 1 << 20);
        let new: Vec<_> = (0..32).map(|_| order.begin(B, 256 << 10)).collect();
        assert_eq!(new[0].priority(), far[0].priority());
        // Four chunks of the one for each of the other.
        for (at, position) in far.iter().enumerate() {
            assert_eq!(position.priority(), new[4 * at].priority());
        }
    }

    #[test]
    fn one_that_was_held_up_makes_up_for_nothing() {
        let order = ChunkOrder::default();
        let mut held_up = vec![order.begin(A, 1 << 20)];
        let far = send(&order, B, 1000, 1 << 20);
        held_up.push(order.begin(A, 1 << 20));
        assert_eq!(held_up[1].priority(), far[0].priority());
    }

    #[test]
    fn without_anything_under_way_nothing_is_remembered() {
        let order = ChunkOrder::default();
        drop(send(&order, A, 1000, 1 << 20));
        assert_eq!(order.begin(A, 1).priority(), LANE_PRIORITY);
        assert!(order.lock().is_empty());
    }
}
