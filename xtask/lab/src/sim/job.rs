//! The client's job, retried until it succeeds.

mod call;
pub(crate) mod carry;
mod deliver;
pub(crate) mod sync;

use std::{sync::Arc, time::Duration};

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
    match world.scenario.job {
        scenario::Job::Get | scenario::Job::Push => repeat(world, Carry::new(world)?).await,
        scenario::Job::Sync => repeat(world, Sync::new(world)?).await,
        scenario::Job::Deliver => repeat(world, Deliver::new(world)).await,
        scenario::Job::Call => repeat(world, Calls::new(world)).await,
    }
}

/// Something that the client does over and over until it has succeeded.
trait Job {
    async fn attempt(&mut self, world: &World, client: &Dialling) -> Result<(), Stopped>;

    /// Checks what holds at any time.
    fn check(&self, world: &World) -> Result<(), Violation>;

    /// Checks what holds once success was told, also on the disks of machines whose power was cut then; but that nothing
    /// of ours is left is for those that were not.
    fn check_done(&mut self, _world: &World, _is_tidy: bool) -> Result<(), Violation> {
        Ok(())
    }

    /// Whether there is more to do.
    fn goes_on(&mut self, _world: &World) -> Result<bool, Violation> {
        Ok(false)
    }

    /// What the server offers, if not its files.
    fn methods(&self) -> Option<Arc<Router>> {
        None
    }
}

async fn repeat(world: &World, mut job: impl Job) -> Result<Summary, Violation> {
    let mut programs = Programs::start(world, job.methods())?;
    world.begin_disk_faults()?;
    world.move_the_client();
    let (mut done, mut cut_at_the_end) = (Summary::default(), world.scenario.cut_at_the_end);
    loop {
        let ended = attempt(world, &mut job, &programs.client).await;
        done.attempts += 1;
        let last = match ended {
            Ended::Reported(Ok(())) => {
                check(world, &job)?;
                job.check_done(world, true)?;
                if std::mem::take(&mut cut_at_the_end) {
                    for side in [Side::Client, Side::Server] {
                        programs.cut_power(world, side)?;
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
                programs.kill(world, side)?;
                done.kills += 1;
                format!("the {side:?} was killed")
            }
            Ended::Cut(side) => {
                programs.cut_power(world, side)?;
                done.cuts += 1;
                format!("the power of the {side:?} was cut")
            }
        };
        tracing::debug!(at = ?world.began.elapsed(), attempt = done.attempts, last);
        check(world, &job)?;
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

async fn attempt(world: &World, job: &mut impl Job, client: &Dialling) -> Ended {
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

fn check(world: &World, job: &impl Job) -> Result<(), Violation> {
    world.client.check_outside()?;
    world.server.check_outside()?;
    job.check(world)
}

pub(crate) async fn connect(world: &World, client: &Dialling) -> Result<RpcClient, Stopped> {
    client.connect(&world.server).await.map_err(|error| Stopped::by(&error))
}

/// The two programs, started again when they were killed.
struct Programs {
    client: Dialling,
    server: Serving,
    methods: Option<Arc<Router>>,
    runs: u16,
}

impl Programs {
    fn start(world: &World, methods: Option<Arc<Router>>) -> Result<Self, Violation> {
        let server = world.serve(methods.clone())?;
        Ok(Self { client: world.dial_from(0)?, server, methods, runs: 0 })
    }

    /// The power goes, and comes back.
    fn cut_power(&mut self, world: &World, side: Side) -> Result<(), Violation> {
        world.cut_power(side)?;
        self.kill(world, side)
    }

    fn kill(&mut self, world: &World, side: Side) -> Result<(), Violation> {
        self.runs += 1;
        match side {
            Side::Client => {
                world.kill_client(&self.client);
                self.client = world.dial_from(self.runs)?;
            }
            Side::Server => {
                world.kill_server(&self.server);
                self.server = world.serve(self.methods.clone())?;
            }
        }
        Ok(())
    }
}
