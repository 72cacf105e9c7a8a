//! Accounts for the memory of a sync's lists.

use std::sync::{Arc, Mutex};

use shiplane_files::internals::sync::Dataset;
use shiplane_transport::PeerId;

use super::error::SyncError;
use crate::{
    lock,
    transfer::{MemoryBudget, PeerAccounts, Reservation},
};

/// What one sync holds for its lists. A handle: clones share it, and it is given back with the last of them.
#[derive(Clone, Debug)]
pub(crate) struct ListMemory(Arc<Reservations>);

#[derive(Debug)]
struct Reservations {
    accounts: PeerAccounts,
    ours: Mutex<Reservation>,
    theirs: Mutex<Reservation>,
}

impl ListMemory {
    /// Of a sync with `peer`. Without a budget it has one of its own.
    pub(crate) fn new(budget: Option<&MemoryBudget>, peer: PeerId) -> Self {
        let accounts = budget.cloned().unwrap_or_default().of_peer(peer);
        let [ours, theirs] =
            [&accounts.ours, &accounts.theirs].map(|account| Mutex::new(account.reservation()));
        Self(Arc::new(Reservations { accounts, ours, theirs }))
    }

    /// Pays for the lists of a dataset, until they are gone. A dataset that is the only one has what it takes.
    pub(crate) fn pay_for_ours(self, dataset: &mut Dataset) -> Result<(), SyncError> {
        let paid = lock(&self.0.ours).grow_alone_by(dataset.cost_bytes());
        dataset.hold(self.0);
        if paid { Ok(()) } else { Err(SyncError::ListsBusy) }
    }

    /// Pays for more of what the peer sends; `false` if there is no memory for it.
    pub(super) fn pay_for_theirs(&self, bytes: u64) -> bool {
        lock(&self.0.theirs).grow_by(bytes)
    }

    /// Pays for a list while it is received, until it is read.
    pub(super) fn pay_for_transit(&self, len_bytes: u64) -> Result<Reservation, SyncError> {
        let mut transit = self.0.accounts.theirs.reservation();
        if transit.grow_by(len_bytes) { Ok(transit) } else { Err(self.refusal()) }
    }

    /// Why there is no memory for more of the peer's list.
    pub(super) fn refusal(&self) -> SyncError {
        let theirs = &self.0.accounts.theirs;
        if theirs.is_shared() {
            return SyncError::ListsBusy;
        }
        SyncError::ListTooLarge { max_bytes: theirs.total_bytes() }
    }
}
