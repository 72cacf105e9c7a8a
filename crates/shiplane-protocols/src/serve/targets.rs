//! Locks the targets of pushes and syncs, so that no two overlap.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, Weak, atomic::AtomicU64, atomic::Ordering},
    time::Duration,
};

use shiplane_files::internals::{Destination, DestinationError, JobKey};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::lock;

/// The paths that pushes and syncs are writing to, none of which lies in another. A handle: clones share them.
///
/// Two pushes to one name would mix their files, since each file is published by itself. So one gets the name, and the
/// other is refused as `Busy`.
#[derive(Debug, Clone, Default)]
pub(super) struct Targets(Arc<Mutex<HashMap<Vec<u8>, Holder>>>);

/// Who holds a path.
#[derive(Debug)]
struct Holder {
    job: JobKey,
    give_up: CancellationToken,
    /// Closed once it is over.
    over: watch::Receiver<()>,
}

/// Holds a path for one push or sync until it is dropped.
#[derive(Debug)]
pub(super) struct TargetClaim {
    targets: Targets,
    path: Vec<u8>,
    give_up: CancellationToken,
    under_way: UnderWay,
}

/// A push or a sync is not over before the last of these is dropped.
pub(super) type UnderWay = Arc<watch::Sender<()>>;

impl Targets {
    /// `None` while another push or sync writes to that path, to one above it or to one in it. The empty path is
    /// above all others.
    pub(super) fn claim(&self, path: &[u8], job: JobKey) -> Option<TargetClaim> {
        let mut held = lock(&self.0);
        // There are no more than pushes and syncs under way.
        if held.keys().any(|other| is_within(other, path) || is_within(path, other)) {
            return None;
        }
        let (under_way, over) = watch::channel(());
        let give_up = CancellationToken::new();
        held.insert(path.to_vec(), Holder { job, give_up: give_up.clone(), over });
        let under_way = Arc::new(under_way);
        Some(TargetClaim { targets: self.clone(), path: path.to_vec(), give_up, under_way })
    }

    /// Ends what the same job is at with that very path, if there is one, and waits until it is over, but not longer than
    /// [`TAKE_OVER_TIMEOUT`]. Cancel-safe: it ends all the same.
    pub(super) async fn take_over(&self, path: &[u8], job: JobKey) {
        let mut over = {
            let held = lock(&self.0);
            let Some(holder) = held.get(path).filter(|holder| holder.job == job) else { return };
            holder.give_up.cancel();
            holder.over.clone()
        };
        // Nothing is ever sent: it ends with the last sender.
        let ended = async { while over.changed().await.is_ok() {} };
        let _ = tokio::time::timeout(TAKE_OVER_TIMEOUT, ended).await;
    }
}

impl TargetClaim {
    /// Cancelled when the same job, begun anew, wants the path.
    pub(super) fn give_up(&self) -> CancellationToken {
        self.give_up.clone()
    }

    /// The push that takes over waits until this is dropped too.
    pub(super) fn under_way(&self) -> UnderWay {
        Arc::clone(&self.under_way)
    }
}

impl Drop for TargetClaim {
    fn drop(&mut self) {
        lock(&self.targets.0).remove(&self.path);
    }
}

/// Whether `path` is `above` or lies in it.
fn is_within(path: &[u8], above: &[u8]) -> bool {
    above.is_empty() || path.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

/// The space that is set aside for pushes. A handle: clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Space(Arc<Mutex<Vec<Weak<ReservedSpace>>>>);

/// Space that is set aside until this is dropped.
pub(super) type Reserved = Arc<ReservedSpace>;

/// Space that a push has reserved.
#[derive(Debug)]
pub(super) struct ReservedSpace {
    device: u64,
    total_bytes: u64,
    /// What of it is on the disk, and so missing from what the system calls available.
    occupied_bytes: Arc<AtomicU64>,
}

impl Space {
    /// Sets `total_bytes` aside for `destination`. Blocking: asks the system.
    pub(super) fn reserve(
        &self,
        destination: &Destination,
        total_bytes: u64,
    ) -> Result<Reserved, DestinationError> {
        let device = destination.device();
        let mut reservations = lock(&self.0);
        reservations.retain(|other| other.strong_count() > 0);
        let others = reservations.iter().filter_map(Weak::upgrade).filter(|other| other.device == device);
        let others_bytes = others.fold(0, |sum: u64, other| sum.saturating_add(other.outstanding_bytes()));
        destination.reserve(total_bytes.saturating_add(others_bytes)).map_err(|error| match error {
            DestinationError::NoSpace { path, available_bytes, .. } => DestinationError::NoSpace {
                path,
                needed_bytes: total_bytes,
                available_bytes: available_bytes.saturating_sub(others_bytes),
            },
            other => other,
        })?;
        let occupied_bytes = destination.occupied_bytes();
        let reserved = Arc::new(ReservedSpace { device, total_bytes, occupied_bytes });
        reservations.push(Arc::downgrade(&reserved));
        Ok(reserved)
    }
}

impl ReservedSpace {
    fn outstanding_bytes(&self) -> u64 {
        self.total_bytes.saturating_sub(self.occupied_bytes.load(Ordering::Relaxed))
    }
}

/// 5 s, half of what the caller waits: what was begun earlier ends at once unless its disk holds it up.
const TAKE_OVER_TIMEOUT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;
    use shiplane_files::internals::{Existing, LinkPolicy, ReceiveOptions, Shape};

    fn job(source: &[u8]) -> JobKey {
        JobKey::new(b"peer", source)
    }

    #[test]
    fn a_second_writer_of_the_same_target_is_refused() {
        let targets = Targets::default();
        let held = targets.claim(b"a/b", job(b"")).unwrap();
        for busy in ["", "a", "a/b", "a/b/c"] {
            assert!(targets.claim(busy.as_bytes(), job(b"")).is_none(), "{busy}");
        }
        let claim = |path: &&str| targets.claim(path.as_bytes(), job(b"")).unwrap();
        let others: Vec<_> = ["a/bc", "a/c", "b"].iter().map(claim).collect();
        drop((held, others));
        let _all = targets.claim(b"", job(b"")).unwrap();
        assert!(targets.claim(b"x", job(b"")).is_none());
    }

    #[tokio::test]
    async fn only_the_same_job_takes_a_path_over_and_not_before_its_holder_is_done() {
        let targets = Targets::default();
        let held = targets.claim(b"a", job(b"mine")).unwrap();
        targets.take_over(b"a", job(b"other")).await;
        targets.take_over(b"b", job(b"mine")).await;
        assert!(!held.give_up().is_cancelled());

        let (give_up, under_way) = (held.give_up(), held.under_way());
        let holder = tokio::spawn(async move {
            give_up.cancelled().await;
            drop(held);
            tokio::task::yield_now().await;
            drop(under_way);
        });
        targets.take_over(b"a", job(b"mine")).await;
        // What is left of it has nothing more to wait for.
        holder.await.unwrap();
        targets.claim(b"a", job(b"mine")).unwrap();
    }

    #[test]
    fn space_is_reserved_once() {
        let dir = tempfile::TempDir::new().unwrap();
        let open = |name: &str| {
            let options = ReceiveOptions {
                existing: Existing::Refuse,
                durability: shiplane_wire::Durability::Verified,
                verify: false,
                links: LinkPolicy::All,
                attributes: false,
                digest: shiplane_wire::DigestAlgorithm::Blake3,
                chunk_len_bytes: 1 << 20,
            };
            let (shape, job) = (Shape::File { name: name.into() }, JobKey::new(b"peer", b""));
            Destination::open(dir.path(), &shape, job, options).unwrap()
        };
        let (one, two) = (open("one"), open("two"));
        let Err(DestinationError::NoSpace { available_bytes, .. }) = one.reserve(u64::MAX) else {
            panic!("there is no such disk")
        };
        // Other programs may write to this disk meanwhile, but hardly that much.
        let most = available_bytes / 4 * 3;
        let space = Space::default();
        let reserved = space.reserve(&one, most).unwrap();
        let refused = space.reserve(&two, most).unwrap_err();
        assert!(matches!(refused, DestinationError::NoSpace { needed_bytes, .. } if needed_bytes == most));
        // What is on the disk already is not counted twice.
        one.occupied_bytes().store(most, Ordering::Relaxed);
        drop(space.reserve(&two, most).unwrap());
        one.occupied_bytes().store(0, Ordering::Relaxed);
        drop(reserved);
        space.reserve(&two, most).unwrap();
    }
}
