//! What is to be done for chunks that have been hashed together: each is stored where it belongs.
//!
//! The thread that hashed them does it, while they are warm and nobody has to be woken. Others help where there
//! are cores for them, or where disks differ: one that hangs holds up the chunks of its own transfer only.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::{blocking, config::LaneThreads};

/// The transfer that a chunk is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Owner(pub(super) u64);

/// Something that may wait for a disk.
pub(super) struct Chore {
    pub(super) owner: Owner,
    pub(super) work: Box<dyn FnOnce() + Send>,
}

/// Does them all, one share of them on this thread.
pub(super) fn share_out(chores: Vec<Chore>, threads: LaneThreads) {
    let mut shares = shares(chores, blocking::cores() / 2).into_iter();
    let mine = shares.next();
    for share in shares {
        threads.spawn(move || do_all(share));
    }
    mine.into_iter().for_each(do_all);
}

/// At most so many shares for each owner, and none with two owners.
fn shares(mut chores: Vec<Chore>, most: usize) -> Vec<Vec<Chore>> {
    chores.sort_by_key(|chore| chore.owner);
    let len = chores.len().div_ceil(most.max(1));
    let mut shares: Vec<Vec<Chore>> = Vec::new();
    for chore in chores {
        match shares.last_mut() {
            Some(share) if share.len() < len && share[0].owner == chore.owner => share.push(chore),
            _ => shares.push(vec![chore]),
        }
    }
    shares
}

fn do_all(share: Vec<Chore>) {
    for chore in share {
        // A sink that panics ends its own chunk, as on a thread of its own: whoever waits for it sees it gone.
        let _ = catch_unwind(AssertUnwindSafe(chore.work));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc, Mutex,
        mpsc::{Sender, channel},
    };

    use super::*;

    fn chore(owner: u64, work: impl FnOnce() + Send + 'static) -> Chore {
        Chore { owner: Owner(owner), work: Box::new(work) }
    }

    fn owners(shares: &[Vec<Chore>]) -> Vec<Vec<u64>> {
        shares.iter().map(|share| share.iter().map(|chore| chore.owner.0).collect()).collect()
    }

    #[test]
    fn no_share_has_two_owners_and_cores_divide_what_one_owner_has() {
        let of = |owners: &[u64]| owners.iter().map(|&owner| chore(owner, || ())).collect::<Vec<_>>();
        assert_eq!(owners(&shares(of(&[1, 2, 1, 1]), 1)), [vec![1, 1, 1], vec![2]]);
        assert_eq!(owners(&shares(of(&[1; 4]), 2)), [vec![1, 1], vec![1, 1]]);
        assert_eq!(owners(&shares(of(&[1; 3]), 8)), [vec![1], vec![1], vec![1]]);
        assert_eq!(owners(&shares(of(&[1, 1]), 0)), [vec![1, 1]], "with one core too");
    }

    #[tokio::test]
    async fn what_hangs_or_panics_holds_up_its_own_transfer_at_most() {
        let done = Arc::new(Mutex::new(Vec::new()));
        let note = |name: &'static str| {
            let done = Arc::clone(&done);
            move || done.lock().unwrap().push(name)
        };
        let (release, hangs) = channel::<()>();
        let (tell, told) = channel();
        let tells = |tell: Sender<()>| move || tell.send(()).unwrap();
        let chores = vec![
            chore(1, move || hangs.recv().unwrap()),
            chore(1, note("behind it")),
            chore(2, || panic!("a sink's own mistake")),
            chore(2, note("after the panic")),
            chore(2, tells(tell.clone())),
        ];
        let working = tokio::task::spawn_blocking(|| share_out(chores, LaneThreads::Ordinary));
        told.recv().unwrap();
        assert_eq!(*done.lock().unwrap(), ["after the panic"]);
        release.send(()).unwrap();
        working.await.unwrap();
        assert_eq!(*done.lock().unwrap(), ["after the panic", "behind it"]);
    }
}
