//! The client's job, retried until it succeeds.

mod call;
pub(crate) mod carry;
mod deliver;
pub(crate) mod sync;

use std::time::Duration;

use shiplane_rpc::{Router, RpcClient};
use tokio::time::timeout;

use self::{call::Calls, carry::Carry, deliver::Deliver, sync::Sync};
use crate::sim::{
    oracle::{PATIENCE, Violation, check_error},
    run::Summary,
    scenario,
    world::{Dialling, Serving, Side, World},
};

/// Runs the seed's job to its end, and checks it all the way.
pub(crate) async fn run(world: &World) -> Result<Summary, Violation> {
    let mut job = Job::new(world)?;
    let mut programs = Programs::start(world, &job)?;
    world.begin_disk_faults()?;
    world.move_the_client();
    let (mut done, mut cut_at_the_end) = (Summary::default(), world.scenario.cut_at_the_end);
    loop {
        let ended = attempt(world, &mut job, &programs.client).await;
        done.attempts += 1;
        let last = match ended {
            Ended::Reported(Ok(())) => {
                job.check(world)?;
                job.check_done(world, true)?;
                if std::mem::take(&mut cut_at_the_end) {
                    for side in [Side::Client, Side::Server] {
                        programs.cut_power(world, &job, side)?;
                        done.cuts += 1;
                    }
                    job.check_done(world, false)?;
                }
                if !job.goes_on(world)? {
                    break;
                }
                "none".to_owned()
            }
            Ended::Reported(Err(Stopped::Broken(violation))) => return Err(violation),
            Ended::Reported(Err(Stopped::Failed(error))) => error,
            Ended::Hangs => "the attempt hangs".to_owned(),
            Ended::Killed(side) => {
                programs.kill(world, &job, side)?;
                done.kills += 1;
                format!("the {side:?} was killed")
            }
            Ended::Cut(side) => {
                programs.cut_power(world, &job, side)?;
                done.cuts += 1;
                format!("the power of the {side:?} was cut")
            }
        };
        tracing::debug!(at = ?world.began.elapsed(), attempt = done.attempts, last);
        job.check(world)?;
        let healed = world.began.elapsed().saturating_sub(world.scenario.faults.heal_at);
        if healed > PATIENCE {
            return Err(Violation::NotLive { healed, last });
        }
        let pause_ms = world.rng().spread(1, 4_000);
        tokio::time::sleep(Duration::from_millis(pause_ms)).await;
    }
    done.took = world.began.elapsed();
    Ok(done)
}

/// How an attempt ended.
enum Ended {
    /// It told how.
    Reported(Result<(), Stopped>),
    Hangs,
    Killed(Side),
    Cut(Side),
}

async fn attempt(world: &World, job: &mut Job, client: &Dialling) -> Ended {
    let kill = world.next_kill();
    let patience = kill.map_or(PATIENCE, |(_, after)| after);
    tokio::select! {
        biased;
        () = world.client.power_is_cut() => Ended::Cut(Side::Client),
        () = world.server.power_is_cut() => Ended::Cut(Side::Server),
        told = timeout(patience, job.attempt(world, client)) => match (told, kill) {
            (Ok(told), _) => Ended::Reported(told),
            (Err(_), Some((side, _))) => Ended::Killed(side),
            (Err(_), None) => Ended::Hangs,
        },
    }
}

/// Why an attempt did not succeed.
pub(crate) enum Stopped {
    /// An error that may be.
    Failed(String),
    Broken(Violation),
}

impl Stopped {
    /// An error of the stack.
    pub(crate) fn by(error: &impl std::fmt::Debug) -> Self {
        match check_error(error) {
            Ok(()) => Self::Failed(format!("{error:?}")),
            Err(violation) => Self::Broken(violation),
        }
    }
}

impl From<Violation> for Stopped {
    fn from(violation: Violation) -> Self {
        Self::Broken(violation)
    }
}

enum Job {
    Carry(Carry),
    Sync(Sync),
    Deliver(Deliver),
    Calls(Calls),
}

impl Job {
    fn new(world: &World) -> Result<Self, Violation> {
        Ok(match world.scenario.job {
            scenario::Job::Get | scenario::Job::Push => Self::Carry(Carry::new(world)?),
            scenario::Job::Sync => Self::Sync(Sync::new(world)?),
            scenario::Job::Deliver => Self::Deliver(Deliver::new(world)),
            scenario::Job::Call => Self::Calls(Calls::new(world)),
        })
    }

    async fn attempt(&mut self, world: &World, client: &Dialling) -> Result<(), Stopped> {
        match self {
            Self::Carry(carry) => carry.attempt(world, &connect(world, client).await?).await,
            Self::Sync(sync) => sync.attempt(world, &connect(world, client).await?).await,
            Self::Deliver(deliver) => deliver.attempt(world, client).await,
            Self::Calls(calls) => calls.attempt(&connect(world, client).await?).await,
        }
    }

    /// What holds at any time.
    fn check(&mut self, world: &World) -> Result<(), Violation> {
        world.client.check_outside()?;
        world.server.check_outside()?;
        match self {
            Self::Carry(carry) => carry.check(world),
            Self::Sync(sync) => sync.check(world),
            Self::Deliver(deliver) => deliver.check(),
            Self::Calls(calls) => calls.check(),
        }
    }

    /// What holds once success was told, also on the disks of machines whose power was cut then; but that nothing
    /// of ours is left is for those that were not.
    fn check_done(&mut self, world: &World, is_tidy: bool) -> Result<(), Violation> {
        match self {
            Self::Carry(carry) => carry.check_done(world, is_tidy),
            Self::Sync(sync) => sync.check_done(world, is_tidy),
            Self::Deliver(deliver) => deliver.check_done(),
            Self::Calls(_) => Ok(()),
        }
    }

    /// Whether there is more to do.
    fn goes_on(&mut self, world: &World) -> Result<bool, Violation> {
        match self {
            Self::Carry(carry) => carry.goes_on(world),
            Self::Sync(sync) => sync.goes_on(world),
            Self::Deliver(_) | Self::Calls(_) => Ok(false),
        }
    }
}

pub(crate) async fn connect(world: &World, client: &Dialling) -> Result<RpcClient, Stopped> {
    client.connect(&world.server).await.map_err(|error| Stopped::by(&error))
}

/// The two programs, started again when they were killed.
struct Programs {
    client: Dialling,
    server: Serving,
    runs: u16,
}

impl Programs {
    fn start(world: &World, job: &Job) -> Result<Self, Violation> {
        let server = serve(world, job)?;
        Ok(Self { client: world.dial_from(0)?, server, runs: 0 })
    }

    /// The power goes, and comes back.
    fn cut_power(&mut self, world: &World, job: &Job, side: Side) -> Result<(), Violation> {
        world.cut_power(side)?;
        self.kill(world, job, side)
    }

    fn kill(&mut self, world: &World, job: &Job, side: Side) -> Result<(), Violation> {
        self.runs += 1;
        match side {
            Side::Client => {
                world.kill_client(&self.client);
                self.client = world.dial_from(self.runs)?;
            }
            Side::Server => {
                world.kill_server(&self.server);
                self.server = serve(world, job)?;
            }
        }
        Ok(())
    }
}

fn serve(world: &World, job: &Job) -> Result<Serving, Violation> {
    match job {
        Job::Deliver(deliver) => world.serve(Some(deliver.inbox().methods(Router::new()).into())),
        Job::Calls(calls) => world.serve(Some(calls.router())),
        Job::Carry(_) | Job::Sync(_) => world.serve(None),
    }
}
