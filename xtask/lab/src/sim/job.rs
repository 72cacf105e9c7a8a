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
    world::{Program, Side, World},
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
    async fn attempt(&mut self, world: &World, client: &Program) -> Result<(), Stopped>;

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
    let (methods, runs, done) = (job.methods(), 0, Summary::default());
    let server = world.start(Side::Server, runs, methods.clone())?;
    let client = world.start(Side::Client, runs, None)?;
    let mut programs = Programs { client, server, methods, runs, done };
    world.begin_disk_faults()?;
    world.move_the_client();
    let mut cut_at_the_end = world.scenario.cut_at_the_end;
    loop {
        let ended = attempt(world, &mut job, &programs.client).await;
        programs.done.attempts += 1;
        let last = match ended {
            Ok(()) => {
                check(world, &job)?;
                job.check_done(world, true)?;
                if std::mem::take(&mut cut_at_the_end) {
                    for side in Side::BOTH {
                        programs.restart(world, side, true)?;
                    }
                    job.check_done(world, false)?;
                }
                if !job.goes_on(world)? {
                    break;
                }
                "none".to_owned()
            }
            Err(Stopped::Broken(violation)) => return Err(violation),
            Err(Stopped::Failed(error)) => error,
            Err(Stopped::Killed { side, by_power_cut }) => {
                programs.restart(world, side, by_power_cut)?;
                format!("the {side:?} was killed, by a power cut: {by_power_cut}")
            }
        };
        tracing::debug!(at = ?world.began.elapsed(), attempt = programs.done.attempts, last);
        check(world, &job)?;
        let healed = world.began.elapsed().saturating_sub(world.scenario.faults.heal_at);
        if healed > PATIENCE {
            return Err(Violation::NotLive { healed, last });
        }
        let pause_ms = world.rng().spread(1, 4_000);
        tokio::time::sleep(Duration::from_millis(pause_ms)).await;
    }
    Ok(Summary { took: world.began.elapsed(), ..programs.done })
}

async fn attempt(world: &World, job: &mut impl Job, client: &Program) -> Result<(), Stopped> {
    let kill = world.next_kill();
    let patience = kill.map_or(PATIENCE, |(_, after)| after);
    // Not on the stack, for which it is too large where nothing is optimised.
    let attempt = Box::pin(job.attempt(world, client));
    tokio::select! {
        biased;
        () = world.client.power_is_cut() => Err(Stopped::Killed { side: Side::Client, by_power_cut: true }),
        () = world.server.power_is_cut() => Err(Stopped::Killed { side: Side::Server, by_power_cut: true }),
        told = timeout(patience, attempt) => match (told, kill) {
            (Ok(told), _) => told,
            (Err(_), Some((side, _))) => Err(Stopped::Killed { side, by_power_cut: false }),
            (Err(_), None) => Err(Stopped::Failed("the attempt hangs".to_owned())),
        },
    }
}

/// Why an attempt did not succeed.
pub(crate) enum Stopped {
    /// An error that may be.
    Failed(String),
    Broken(Violation),
    Killed {
        side: Side,
        by_power_cut: bool,
    },
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

pub(crate) async fn connect(world: &World, client: &Program) -> Result<RpcClient, Stopped> {
    let connection = client.transport.connect_to(world.server.peer()).await;
    connection.map(RpcClient::new).map_err(|error| Stopped::by(&error))
}

/// The two programs, started again when they were killed.
struct Programs {
    client: Program,
    server: Program,
    methods: Option<Arc<Router>>,
    runs: u16,
    done: Summary,
}

impl Programs {
    /// Kills a program, or cuts the power of its machine, and starts it again.
    fn restart(&mut self, world: &World, side: Side, by_power_cut: bool) -> Result<(), Violation> {
        if by_power_cut {
            world.cut_power(side)?;
        }
        *(if by_power_cut { &mut self.done.cuts } else { &mut self.done.kills }) += 1;
        self.runs += 1;
        let program = if side == Side::Client { &mut self.client } else { &mut self.server };
        world.kill(side, program);
        *program = world.start(side, self.runs, self.methods.clone())?;
        Ok(())
    }
}
