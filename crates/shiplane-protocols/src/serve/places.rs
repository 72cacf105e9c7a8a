//! Limits running transfers, in all and per peer.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use shiplane_rpc::{Fault, FaultCode};
use shiplane_transport::PeerId;

/// Limits what runs at a time, in all and of one peer. A handle: clones share the places.
#[derive(Debug, Clone)]
pub(super) struct Places {
    taken: Arc<Mutex<HashMap<PeerId, usize>>>,
    max: usize,
    max_per_peer: usize,
}

/// A place that is taken until this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Places,
    peer: PeerId,
}

impl Places {
    pub(super) fn new(max: usize, max_per_peer: usize) -> Self {
        Self { taken: Arc::default(), max, max_per_peer }
    }

    /// A place for `peer`; `Busy` if there is none.
    pub(super) fn take(&self, peer: PeerId) -> Result<Place, Fault> {
        let mut taken = self.lock();
        let of_peer = taken.get(&peer).copied().unwrap_or_default();
        // However much the others want, a peer that has nothing under way finds a place: they leave some to such.
        let left = self.max.saturating_sub(taken.values().sum());
        let reserved = if of_peer == 0 { 0 } else { self.max / RESERVED_PART };
        if of_peer >= self.max_per_peer || of_peer + reserved >= left {
            return Err(Fault::new(FaultCode::Busy, "too many transfers at a time"));
        }
        taken.insert(peer, of_peer + 1);
        Ok(Place { places: self.clone(), peer })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PeerId, usize>> {
        // Each change is one step.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        if let Some(of_peer) = taken.get_mut(&self.peer) {
            *of_peer -= 1;
            if *of_peer == 0 {
                taken.remove(&self.peer);
            }
        }
    }
}

/// Each holds a records stream and up to a window of entries, and, while its receiver stalls, one of the 512 threads
/// that a runtime has for blocking work by default.
pub(super) const MAX_FETCHES: usize = 192;

/// Each has two such threads for its disk and one for a chunk.
pub(super) const MAX_PUSHES: usize = 56;

/// Each lists a dataset and holds that list; what all of them hold is bounded by the `MemoryBudget`.
pub(super) const MAX_SYNCS: usize = 16;

/// A quarter of the places is for peers that have none yet.
const RESERVED_PART: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(number: u8) -> PeerId {
        PeerId::from_bytes([number; 32])
    }

    #[test]
    fn places_are_bounded_in_all_and_for_each_peer() {
        let places = Places::new(8, 2);
        let mut taken = vec![places.take(peer(1)).unwrap(), places.take(peer(1)).unwrap()];
        assert_eq!(places.take(peer(1)).unwrap_err().code, FaultCode::Busy, "two of one peer");
        taken.extend((2..=7).map(|number| places.take(peer(number)).unwrap()));
        assert_eq!(places.take(peer(8)).unwrap_err().code, FaultCode::Busy, "eight in all");
        drop(taken);
        places.take(peer(8)).unwrap();
        assert!(places.lock().is_empty(), "nothing is kept of peers that are gone");
    }

    #[test]
    fn a_peer_that_opens_without_end_leaves_places_to_others() {
        let places = Places::new(MAX_FETCHES, MAX_FETCHES);
        let mut taken = Vec::new();
        for number in 1..=MAX_FETCHES as u8 / 4 {
            while let Ok(place) = places.take(peer(number)) {
                taken.push(place);
            }
        }
        places.take(peer(0)).unwrap();
    }
}
