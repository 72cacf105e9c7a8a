//! A transfer over a fault-free link, interrupted repeatedly; counts bytes that were sent more than once.

use std::{num::NonZeroU64, path::Path, sync::Arc, time::Duration};

use parking_lot::Mutex;
use shiplane_protocols::{
    Compression,
    internals::{
        sync::{SyncEvent, synchronise},
        transfer::{Awaited, EventFn, TransferEvent, TransferOptions},
    },
};
use testlink::Rng;
use tokio::time::{Instant, sleep, timeout};

use crate::sim::{
    disk::DiskFaults,
    job::{self, Stopped},
    network::Faults,
    oracle::Violation,
    scenario::{Job, Scenario},
    tree::{self, Tree},
    world::{Dialling, Machine, World, files_of},
};

/// What is transferred, over what, and when it is cut off.
#[derive(Debug, Clone)]
pub struct CutSeries {
    /// A get, a push or a sync.
    pub job: Job,
    /// The number of files ...
    pub files: u64,
    /// ... and the size of each.
    pub file_len_bytes: u64,
    /// What the link carries, each way.
    pub bytes_per_second: u64,
    /// How long a packet takes, each way.
    pub delay: Duration,
    /// After so much time of the first run it carries this.
    pub change: Option<(Duration, u64)>,
    /// What waits for the link at most.
    pub queue_len_bytes: u64,
    /// To which both sides limit themselves.
    pub limit: Option<NonZeroU64>,
    /// The client dies after so much time of each run; the last one is done before that.
    pub cut_after: Duration,
}

/// One run.
#[derive(Debug, Clone, Default)]
pub struct CutRun {
    /// What the link has carried towards the receiver, all of the packets.
    pub carried_bytes: u64,
    /// What was said to be kept.
    pub kept_bytes: u64,
    /// When it was first said that chunks are waited for, ...
    pub awaits_chunks: Option<Duration>,
    /// ... that something has arrived, ...
    pub arrives: Option<Duration>,
    /// ... and that something is kept.
    pub keeps: Option<Duration>,
    /// How long it took.
    pub took: Duration,
}

/// Runs it until it is done, and checks that everything has arrived.
pub(crate) async fn run(cuts: &CutSeries, files: &Path, keys: &Path) -> Result<Vec<CutRun>, Violation> {
    let world = World::new(cuts.scenario(), files, keys)?;
    let (from, to) = match cuts.job {
        Job::Get => (&world.server, &world.client),
        Job::Push | Job::Sync | Job::Deliver | Job::Call => (&world.client, &world.server),
    };
    let sent = cuts.tree();
    tree::write(&sent, &from.files())?;
    let _server = world.serve(None)?;
    change_later(cuts, &world);
    let mut runs = Vec::new();
    for number in 0..MAX_RUNS {
        let client = world.dial_from(number)?;
        let (run, is_done) = one(cuts, &world, &client, from).await?;
        world.kill_client(&client);
        runs.push(run);
        if is_done {
            let (found, left) = files_of(to)?;
            if found != sent {
                return Err(Violation::Missing { path: "something".to_owned() });
            }
            if !left.is_empty() {
                return Err(Violation::LeftOver { names: left });
            }
            return Ok(runs);
        }
    }
    Err(Violation::NotLive { healed: world.began.elapsed(), last: format!("after {runs:?}") })
}

/// A run, and whether it was done before it was cut off.
async fn one(
    cuts: &CutSeries,
    world: &World,
    client: &Dialling,
    from: &Machine,
) -> Result<(CutRun, bool), Violation> {
    let host = from.addr().ip();
    let (began, carried_before) = (Instant::now(), world.network.delivered_bytes(host));
    let seen = Arc::<Mutex<CutRun>>::default();
    let ended = timeout(cuts.cut_after, attempt(cuts.job, world, client, &seen)).await;
    let is_done = match ended {
        Ok(Ok(())) => true,
        Ok(Err(Stopped::Broken(violation))) => return Err(violation),
        Ok(Err(Stopped::Failed(last))) => return Err(Violation::NotLive { healed: began.elapsed(), last }),
        Err(_) => false,
    };
    let took = began.elapsed();
    if !is_done {
        world.kill_client(client);
        // What is on its way arrives; and the server finds out that its client has gone.
        sleep(IDLE_TIMEOUT).await;
    }
    let carried_bytes = world.network.delivered_bytes(host) - carried_before;
    let run = CutRun { carried_bytes, took, ..seen.lock().clone() };
    Ok((run, is_done))
}

async fn attempt(
    job: Job,
    world: &World,
    client: &Dialling,
    seen: &Arc<Mutex<CutRun>>,
) -> Result<(), Stopped> {
    let client = job::connect(world, client).await?;
    let events = events(seen);
    match job {
        Job::Get => job::carry::get(world, &client, events).await,
        Job::Push => job::carry::push(world, &client, events).await,
        Job::Sync | Job::Deliver | Job::Call => {
            let events = Arc::new(move |event| match event {
                SyncEvent::Sending(event) | SyncEvent::Receiving(event) => events(event),
                SyncEvent::Waiting
                | SyncEvent::Scanning
                | SyncEvent::Comparing
                | SyncEvent::Planned(_)
                | SyncEvent::Settling => {}
            });
            let synced = synchronise(&client, &job::sync::job(world), events).await;
            synced.map(drop).map_err(|error| Stopped::by(&error))
        }
    }
}

/// Notes what a run says: of most things only the first time counts.
fn events(seen: &Arc<Mutex<CutRun>>) -> EventFn {
    let (seen, began) = (Arc::clone(seen), Instant::now());
    Arc::new(move |event| {
        let mut seen = seen.lock();
        let first = match event {
            TransferEvent::Kept { len_bytes } => {
                seen.kept_bytes += len_bytes;
                &mut seen.keeps
            }
            TransferEvent::Moved { .. } => {
                // From then on chunks are awaited, and that is not reported besides.
                seen.awaits_chunks.get_or_insert_with(|| began.elapsed());
                &mut seen.arrives
            }
            TransferEvent::Awaits(Awaited::Chunks) => &mut seen.awaits_chunks,
            _ => return,
        };
        first.get_or_insert_with(|| began.elapsed());
    })
}

impl CutSeries {
    fn tree(&self) -> Tree {
        let mut rng = Rng::new(1);
        let file = |number| (format!("file {number}"), Some(rng.bytes(self.file_len_bytes as usize)));
        (0..self.files).map(file).collect()
    }

    fn scenario(&self) -> Scenario {
        let disk = DiskFaults::default();
        Scenario {
            seed: 1,
            job: self.job,
            faults: Faults::none(self.bytes_per_second, self.queue_len_bytes, self.delay),
            lanes: TransferOptions::default().lanes,
            chunk_len_bytes: TransferOptions::default().chunk_len_bytes,
            compression: Compression::Never,
            limit: self.limit,
            client_kills: 0,
            server_kills: 0,
            client_disk: disk,
            server_disk: disk,
            cut_at_the_end: false,
            trap: false,
            attributes: false,
            holes: false,
            source_changes_at: None,
            lie: None,
        }
    }
}

fn change_later(cuts: &CutSeries, world: &World) {
    let Some((after, bytes_per_second)) = cuts.change else { return };
    let network = Arc::clone(&world.network);
    tokio::spawn(async move {
        sleep(after).await;
        network.set_rate(bytes_per_second);
    });
}

const MAX_RUNS: u16 = 40;

/// 35 s: more than the idle timeout of 30 s.
const IDLE_TIMEOUT: Duration = Duration::from_secs(35);
