//! Draws a scenario from a seed.

use std::{num::NonZeroU64, time::Duration};

use shiplane_protocols::Compression;
use testlink::Rng;

use crate::sim::{disk::DiskFaults, network::Faults};

/// All that is drawn before anything happens.
#[derive(Debug, Clone, Default)]
pub struct Scenario {
    /// What it was drawn from.
    pub seed: u64,
    /// What the dialling side wants.
    pub job: Job,
    /// What goes wrong on the way.
    pub faults: Faults,
    /// Chunks under way at a time.
    pub lanes: usize,
    /// Payload of a chunk.
    pub chunk_len_bytes: u64,
    /// Of chunks.
    pub compression: Compression,
    /// To which either side limits itself.
    pub limit: Option<NonZeroU64>,
    /// The chance of each attempt that the dialling program is killed in it, of a million; and the same of the serving one.
    pub kills: [u32; 2],
    /// What goes wrong on the disk of the dialling machine, and on that of the serving one.
    pub disks: [DiskFaults; 2],
    /// The power of both is cut right after success was told: it must be durable by then.
    pub cut_at_the_end: bool,
    /// A link that leads outside stands where a directory is to be written, until it is found.
    pub trap: bool,
    /// Owners and extended attributes are carried as well.
    pub attributes: bool,
    /// Some files have holes, and some directories pass on their group.
    pub holes: bool,
    /// A file of the source changes meanwhile.
    pub source_changes_at: Option<Duration>,
    /// Calls are not answered as they should be: a bug that the oracle has to find.
    pub lie: Option<Lie>,
}

/// What is done over and over until it has succeeded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Job {
    /// A tree is fetched.
    #[default]
    Get,
    /// A tree is pushed.
    Push,
    /// Two trees are synced, and edited, and synced again.
    Sync,
    /// Messages are delivered, each once.
    Deliver,
    /// Questions are asked by RPC.
    Call,
}

/// What may be wrong with calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    /// The answer is that of another question.
    Mixes,
    /// A call is handled twice.
    Twice,
    /// A handler goes on after its deadline.
    Overruns,
    /// The caller waits for longer than its budget.
    Late,
}

impl Scenario {
    /// What the seed says.
    pub fn draw(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let job = rng.pick(&[Job::Get, Job::Get, Job::Push, Job::Push, Job::Sync, Job::Deliver]);
        let job = match job {
            // By itself, so that the other seeds stay what they were.
            Job::Deliver if Rng::new(seed ^ CALLS).chance(500_000) => Job::Call,
            job => job,
        };
        let faults = Faults::draw(&mut rng);
        let is_one_way = matches!(job, Job::Get | Job::Push);
        let changes = is_one_way && rng.chance(150_000);
        Self {
            seed,
            job,
            lanes: rng.spread(1, 13) as usize,
            chunk_len_bytes: rng.spread(4 << 10, 2 << 20),
            compression: rng.pick(&[Compression::Never, Compression::Auto, Compression::Always]),
            limit: None,
            kills: [(); 2].map(|()| if rng.chance(300_000) { 400_000 } else { 0 }),
            disks: [(); 2].map(|()| DiskFaults::draw(&mut rng)),
            cut_at_the_end: !matches!(job, Job::Deliver | Job::Call) && rng.chance(300_000),
            trap: is_one_way && rng.chance(100_000),
            attributes: !seed.is_multiple_of(3),
            // Not in the seeds of REGRESSIONS that are older than this, so that they stay what they were.
            holes: matches!(seed % 11, 2 | 5 | 7),
            source_changes_at: changes.then(|| Duration::from_millis(rng.spread(1, 10_000))),
            lie: None,
            faults,
        }
    }
}

/// So that it is drawn apart from all else.
const CALLS: u64 = 0x4341_4c4c;
