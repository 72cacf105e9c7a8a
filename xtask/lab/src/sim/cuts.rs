//! A transfer over a fault-free link, interrupted repeatedly; counts bytes that were sent more than once.

use std::{num::NonZeroU64, path::Path, sync::Arc, time::Duration};

use parking_lot::Mutex;
use shiplane_protocols::internals::{
    sync::SyncEvent,
    transfer::{Awaited, EventFn, TransferEvent, TransferOptions},
};
use testlink::Rng;
use tokio::time::{Instant, sleep, timeout};

use crate::sim::{
    job::{self, Stopped},
    network::Faults,
    oracle::{Violation, check_tidy},
    scenario::{Job, Scenario},
    tree::{self, Tree},
    world::{Program, Side, World},
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
    let scenario = Scenario {
        seed: 1,
        job: cuts.job,
        faults: Faults::none(cuts.bytes_per_second, cuts.queue_len_bytes, cuts.delay),
        lanes: TransferOptions::default().lanes,
        chunk_len_bytes: TransferOptions::default().chunk_len_bytes,
        limit: cuts.limit,
        ..Scenario::default()
    };
    let world = World::new(scenario, files, keys)?;
    let (from, to) = match cuts.job {
        Job::Get => (&world.server, &world.client),
        Job::Push | Job::Sync | Job::Deliver | Job::Call => (&world.client, &world.server),
    };
    let mut rng = Rng::new(1);
    let file = |number| (format!("file {number}"), Some(rng.bytes(cuts.file_len_bytes as usize)));
    let sent: Tree = (0..cuts.files).map(file).collect();
    tree::write(&sent, &from.files())?;
    let _server = world.start(Side::Server, 0, None)?;
    if let Some((after, bytes_per_second)) = cuts.change {
        let network = Arc::clone(&world.network);
        tokio::spawn(async move {
            sleep(after).await;
            network.set_rate(bytes_per_second);
        });
    }
    let mut runs = Vec::new();
    for number in 0..MAX_RUNS {
        let client = world.start(Side::Client, number, None)?;
        let (host, began) = (from.peer().addr.ip(), Instant::now());
        let carried_before = world.network.delivered_bytes(host);
        let seen = Arc::<Mutex<CutRun>>::default();
        let attempt = Box::pin(attempt(cuts.job, &world, &client, &seen));
        let ended = timeout(cuts.cut_after, attempt).await;
        let took = began.elapsed();
        world.kill(Side::Client, &client);
        let is_done = ended.is_ok();
        match ended {
            Ok(Ok(())) => {}
            Ok(Err(Stopped::Broken(violation))) => return Err(violation),
            Ok(Err(Stopped::Failed(last))) => return Err(Violation::NotLive { healed: took, last }),
            // What is on its way arrives; and the server finds out that its client has gone.
            Ok(Err(Stopped::Killed { .. })) | Err(_) => sleep(IDLE_TIMEOUT).await,
        }
        let carried_bytes = world.network.delivered_bytes(host) - carried_before;
        runs.push(CutRun { carried_bytes, took, ..seen.lock().clone() });
        if is_done {
            let (found, left) = to.read()?;
            if found != sent {
                return Err(Violation::Missing { path: "something".to_owned() });
            }
            return check_tidy(true, left).map(|()| runs);
        }
    }
    Err(Violation::NotLive { healed: world.began.elapsed(), last: format!("after {runs:?}") })
}

async fn attempt(
    job: Job,
    world: &World,
    client: &Program,
    seen: &Arc<Mutex<CutRun>>,
) -> Result<(), Stopped> {
    let client = job::connect(world, client).await?;
    let events = events(seen);
    if matches!(job, Job::Get | Job::Push) {
        return job::carry::carry(world, &client, events).await;
    }
    let events = Arc::new(move |event| {
        if let SyncEvent::Sending(event) | SyncEvent::Receiving(event) = event {
            events(event);
        }
    });
    job::sync::sync(world, &client, events).await.map(drop)
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

const MAX_RUNS: u16 = 40;

/// 35 s: more than the idle timeout of 30 s.
const IDLE_TIMEOUT: Duration = Duration::from_secs(35);
