//! The caller's side of watching the peer's dataset.

use std::{sync::Arc, time::Duration};

use shiplane_files::internals::{
    Filters,
    sync::{Unwatched, WatchLimit},
};
use shiplane_rpc::RpcClient;

use super::{
    SyncError,
    messages::{SYNC_WATCH, SyncWatch, SyncWatched},
};
use crate::{
    filters::OpenFilters,
    methods::{Step, random_transfer_id},
};

/// Watches a dataset of the peer's until the connection ends.
#[derive(Debug)]
pub struct PeerWatch {
    client: RpcClient,
    request: SyncWatch,
}

/// What the peer has noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Noticed {
    /// Another number after each change.
    pub changes: u64,
    /// Why not all changes are noticed, if so.
    pub unwatched: Option<Unwatched>,
}

impl PeerWatch {
    /// Begins. What changes from now on is noticed. Dropping the future may leave the watch at the peer, until the
    /// connection ends.
    ///
    /// # Errors
    /// [`SyncError::Refused`]: `NotFound` if there is no such directory yet.
    pub async fn begin(
        client: &RpcClient,
        path: &[u8],
        filters: &Arc<Filters>,
    ) -> Result<(Self, Noticed), SyncError> {
        let watch = random_transfer_id().ok_or(SyncError::NoRandomness)?;
        let request = SyncWatch {
            watch: *watch.as_bytes(),
            path: path.to_vec(),
            seen: None,
            filters: OpenFilters::of(filters),
        };
        let mut watch = Self { client: client.clone(), request };
        let begun = watch.ask().await?.ok_or(SyncError::Disagreed)?;
        watch.request.filters = OpenFilters::default();
        Ok((watch, begun))
    }

    /// Its id, for a sync that is about what it has noticed.
    pub fn id(&self) -> [u8; 16] {
        self.request.watch
    }

    /// Waits for changes after those that the caller has `seen`. Cancel-safe.
    ///
    /// # Errors
    /// [`SyncError::Refused`].
    pub async fn changed(&self, seen: u64) -> Result<Noticed, SyncError> {
        let request = SyncWatch { seen: Some(seen), ..self.request.clone() };
        let asking = Self { client: self.client.clone(), request };
        loop {
            if let Some(noticed) = asking.ask().await? {
                return Ok(noticed);
            }
        }
    }

    async fn ask(&self) -> Result<Option<Noticed>, SyncError> {
        let answer = self.client.call_typed(SYNC_WATCH, &self.request, WATCH_BUDGET).await;
        Ok(match answer.map_err(SyncError::Refused)? {
            Step::Done(SyncWatched { changes, unwatched }) => {
                let unwatched = unwatched.map(|(limit, value)| Unwatched { limit: limit_of(limit), value });
                Some(Noticed { changes, unwatched })
            }
            Step::Working => None,
        })
    }
}

/// The number of a limit on the wire (SPEC 5.25).
pub(crate) fn number_of(limit: WatchLimit) -> u8 {
    LIMITS.iter().position(|known| *known == limit).unwrap_or_default() as u8
}

fn limit_of(number: u8) -> WatchLimit {
    LIMITS.get(usize::from(number)).copied().unwrap_or(WatchLimit::System)
}

const LIMITS: [WatchLimit; 5] = [
    WatchLimit::System,
    WatchLimit::Watches,
    WatchLimit::NamespaceWatches,
    WatchLimit::Instances,
    WatchLimit::Memory,
];

/// 20 min, and an answer after half of it: needless calls are rare, and lost ones do not stay for ever.
pub(crate) const WATCH_BUDGET: Duration = Duration::from_secs(20 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_come_back_from_the_wire() {
        for number in 0..=4 {
            assert_eq!(number_of(limit_of(number)), number);
        }
        assert_eq!(limit_of(200), WatchLimit::System);
    }
}
