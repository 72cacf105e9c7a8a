//! Limits running transfers, in all and per peer.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use shiplane_rpc::{Fault, FaultCode};

use crate::lock;
use shiplane_transport::PeerId;

/// Limits the running transfers, in all and per peer. A handle: clones share the limit.
#[derive(Debug, Clone)]
pub(super) struct ConcurrencyLimit {
    taken: Arc<Mutex<HashMap<PeerId, usize>>>,
    max: usize,
    max_per_peer: usize,
}

/// One running transfer, until this is dropped.
#[derive(Debug)]
pub(super) struct ConcurrencyPermit {
    limit: ConcurrencyLimit,
    peer: PeerId,
}

impl ConcurrencyLimit {
    pub(super) fn new(max: usize, max_per_peer: usize) -> Self {
        Self { taken: Arc::default(), max, max_per_peer }
    }

    /// A permit for `peer`; `Busy` if there is none left.
    pub(super) fn take(&self, peer: PeerId) -> Result<ConcurrencyPermit, Fault> {
        let mut taken = lock(&self.taken);
        let of_peer = taken.get(&peer).copied().unwrap_or_default();
        // Some permits are reserved for peers that have none, whatever the others take.
        let left = self.max.saturating_sub(taken.values().sum());
        let reserved = if of_peer == 0 { 0 } else { self.max / RESERVED_PART };
        if of_peer >= self.max_per_peer || of_peer + reserved >= left {
            return Err(Fault::new(FaultCode::Busy, "too many transfers at once; try again later"));
        }
        taken.insert(peer, of_peer + 1);
        Ok(ConcurrencyPermit { limit: self.clone(), peer })
    }
}

impl Drop for ConcurrencyPermit {
    fn drop(&mut self) {
        let mut taken = lock(&self.limit.taken);
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

/// A quarter of the permits is reserved for peers that have none.
const RESERVED_PART: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(number: u8) -> PeerId {
        PeerId::from_bytes([number; 32])
    }

    #[test]
    fn permits_are_bounded_in_all_and_per_peer() {
        let limit = ConcurrencyLimit::new(8, 2);
        let mut taken = vec![limit.take(peer(1)).unwrap(), limit.take(peer(1)).unwrap()];
        assert_eq!(limit.take(peer(1)).unwrap_err().code, FaultCode::Busy, "two of one peer");
        taken.extend((2..=7).map(|number| limit.take(peer(number)).unwrap()));
        assert_eq!(limit.take(peer(8)).unwrap_err().code, FaultCode::Busy, "eight in all");
        drop(taken);
        limit.take(peer(8)).unwrap();
        assert!(lock(&limit.taken).is_empty(), "nothing is kept of peers that are gone");
    }

    #[test]
    fn a_peer_that_opens_without_end_leaves_permits_to_others() {
        let limit = ConcurrencyLimit::new(MAX_FETCHES, MAX_FETCHES);
        let mut taken = Vec::new();
        for number in 1..=MAX_FETCHES as u8 / 4 {
            while let Ok(permit) = limit.take(peer(number)) {
                taken.push(permit);
            }
        }
        limit.take(peer(0)).unwrap();
    }
}
