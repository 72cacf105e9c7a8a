//! Both sides start a sync at the same time.

use std::{path::PathBuf, sync::Arc};

use futures::future::join_all;
use shiplane_files::internals::sync::{Consent, SyncState};
use shiplane_protocols::internals::sync::{SyncJob, SyncReport, synchronise};
use shiplane_rpc::RpcClient;
use shiplane_transport::PeerId;

use super::{admitted, silent, write};
use crate::harness::{World, noise, tree};

/// Two machines, each of which serves its dataset and can sync it with the other's.
struct Machines {
    worlds: [World; 2],
    /// Of each, to the other.
    clients: [RpcClient; 2],
}

impl Machines {
    async fn new() -> Self {
        let worlds = [World::syncing(), World::syncing()];
        let dial =
            async |from: &World, to: &World| to.admitted_as(from.identity(), to.ticket_to_write("")).await;
        let clients = [dial(&worlds[0], &worlds[1]).await, dial(&worlds[1], &worlds[0]).await];
        Self { worlds, clients }
    }

    fn dataset(&self, at: usize) -> PathBuf {
        self.worlds[at].source()
    }

    async fn sync(&self, at: usize) -> SyncReport {
        let job = SyncJob {
            directory: self.dataset(at),
            remote_path: Vec::new(),
            state: SyncState::at(self.worlds[at].state()),
            own: self.worlds[at].identity().peer_id(),
            root: None,
            only_to: None,
            consent: Consent::default(),
            filters: Arc::default(),
            attributes: false,
            dry_run: false,
            relisting: None,
            peer_watch: None,
            transfer: self.worlds[at].options.clone(),
        };
        synchronise(&self.clients[at], &job, silent()).await.unwrap()
    }
}

#[tokio::test]
async fn two_that_begin_at_each_other_both_end_equal() {
    let machines = Machines::new().await;
    for at in 0..2 {
        for i in 0..30 {
            write(&machines.dataset(at), &format!("{at}/{i}"), &noise(i, 10_000));
        }
        write(&machines.dataset(at), "both", &noise(at as u64, 100_000));
    }
    for round in 0..3 {
        write(&machines.dataset(round % 2), "news", &noise(round as u64, 3000));
        let reports = join_all([machines.sync(0), machines.sync(1)]).await;
        assert_eq!(tree(&machines.dataset(0)), tree(&machines.dataset(1)), "round {round}");
        assert!(reports.iter().all(|report| report.left.is_empty()));
        // One of them has done it all, and the other has found nothing to do.
        assert_eq!(reports.iter().filter(|report| !report.actions.is_empty()).count(), 1);
    }
}

#[tokio::test]
async fn either_side_may_begin_the_next_sync() {
    let machines = Machines::new().await;
    for i in 0..5 {
        write(&machines.dataset(0), &i.to_string(), &noise(i, 100));
    }
    machines.sync(0).await;
    std::fs::remove_file(machines.dataset(0).join("1")).unwrap();
    write(&machines.dataset(1), "2", b"edited");
    let report = machines.sync(1).await;
    assert_eq!(report.actions.len(), 2, "no conflict: they remember the same");
    std::fs::remove_file(machines.dataset(1).join("2")).unwrap();
    machines.sync(0).await;
    assert_eq!(tree(&machines.dataset(0)), tree(&machines.dataset(1)));
    assert_eq!(tree(&machines.dataset(0)).len(), 3);
}

#[tokio::test]
async fn many_that_sync_with_one_take_turns() {
    let world = World::syncing();
    let mut machines = Vec::new();
    for i in 0..5_u8 {
        let directory = world.outside().join(format!("machine-{i}"));
        write(&directory, &format!("of-{i}"), &noise(i.into(), 5000));
        machines.push((directory, admitted(&world).await, i));
    }
    for _ in 0..2 {
        let syncs = machines.iter().map(|(directory, client, i)| {
            let state = SyncState::at(world.outside().join(format!("state-{i}")));
            let own = PeerId::from_bytes([*i; 32]);
            let job = SyncJob { directory: directory.clone(), state, own, ..super::job(&world) };
            async move { synchronise(client, &job, Arc::new(|_| ())).await.unwrap() }
        });
        join_all(syncs).await;
    }
    for (directory, ..) in &machines {
        assert_eq!(tree(directory), tree(&world.source()));
    }
    assert_eq!(tree(&world.source()).len(), 5);
}
