//! Fetches or pushes a tree: it arrives complete, or partly under its own names, never otherwise.

use std::{fs, os::unix::fs::symlink, path::PathBuf, sync::Arc};

use parking_lot::Mutex;
use shiplane_files::internals::{Destination, Existing, LinkPolicy, ReceiveOptions, SourceRoot};
use shiplane_protocols::internals::{
    Fetch, FetchRequest, Push, PushRequest,
    transfer::{EventFn, TransferEvent},
};
use shiplane_rpc::RpcClient;
use shiplane_transport::internals::blocking;
use shiplane_wire::Durability;
use testlink::Rng;

use super::{Job, Stopped, connect};
use crate::sim::{
    oracle::{Allowed, Violation, check_tidy},
    scenario::{self, Scenario},
    tree::{self, Tree},
    world::{Machine, Program, World, set_up},
};

/// A fetch or a push of everything.
pub(crate) struct Carry {
    from: Arc<Machine>,
    to: Arc<Machine>,
    allowed: Arc<Mutex<Allowed>>,
    /// Where a link leads outside.
    trap: Option<PathBuf>,
    /// How often it has succeeded.
    successes: u32,
    rng: Rng,
}

impl Carry {
    pub(crate) fn new(world: &World) -> Result<Self, Violation> {
        let mut rng = world.rng().fork();
        let mut tree = tree::draw(&mut rng);
        let [from, to] = match world.scenario.job {
            scenario::Job::Push => [&world.client, &world.server],
            _ => [&world.server, &world.client],
        };
        tree::write(&tree, &from.files())?;
        tree::add_names(&mut tree, &from.files(), &mut rng)?;
        if world.scenario.holes {
            tree::add_holes(&mut tree, &from.files(), &mut rng.clone())?;
        }
        let trap = match tree.iter().find(|(path, content)| content.is_none() && !path.contains('/')) {
            Some((directory, _)) if world.scenario.trap => Some(to.files().join(directory)),
            _ => None,
        };
        if let Some(trap) = &trap {
            symlink(to.outside(), trap)?;
        }
        let allowed = Arc::new(Mutex::new(Allowed::only(tree.clone())));
        change_later(world, Arc::clone(from), tree, &allowed, rng.fork());
        Ok(Self { from: Arc::clone(from), to: Arc::clone(to), allowed, trap, successes: 0, rng })
    }
}

impl Job for Carry {
    async fn attempt(&mut self, world: &World, client: &Program) -> Result<(), Stopped> {
        let outcome = carry(world, &connect(world, client).await?, Arc::new(|_| ())).await;
        match (outcome, &self.trap) {
            (Ok(()), Some(_)) => Err(Violation::TrapMissed.into()),
            // The code that has set it removes it on notice.
            (Err(Stopped::Failed(error)), Some(trap)) if NOTICED.iter().any(|word| error.contains(word)) => {
                fs::remove_file(trap).map_err(Violation::from)?;
                self.to.adopt()?;
                self.trap = None;
                Err(Stopped::Failed(error))
            }
            (outcome, _) => outcome,
        }
    }

    fn check(&self, _world: &World) -> Result<(), Violation> {
        let (mut found, _) = self.to.read()?;
        if let Some(name) = self.trap.as_ref().and_then(|trap| trap.file_name()) {
            found.remove(&*name.to_string_lossy());
        }
        self.allowed.lock().check(&found)
    }

    fn check_done(&mut self, world: &World, is_tidy: bool) -> Result<(), Violation> {
        self.successes += u32::from(is_tidy);
        let (found, left) = self.to.read()?;
        self.allowed.lock().check_whole(&found)?;
        let [from, to] = [self.from.files(), self.to.files()];
        tree::check_metadata(&from, &to, world.scenario.attributes)?;
        if let Some(names) = tree::linked(&from)?.symmetric_difference(&tree::linked(&to)?).next() {
            return Err(Violation::OtherNames { names: names.clone() });
        }
        check_tidy(is_tidy, left)
    }

    /// Once more: all of the content is there, and some of it has got another mode, time or attribute.
    fn goes_on(&mut self, _world: &World) -> Result<bool, Violation> {
        let changes = if self.successes < 2 { self.rng.between(0, 4) } else { 0 };
        for _ in 0..changes {
            tree::describe_any(&self.from.files(), &mut self.rng)?;
        }
        self.from.adopt()?;
        Ok(self.successes < 2)
    }
}

/// Fetches or pushes everything.
pub(crate) async fn carry(world: &World, client: &RpcClient, events: EventFn) -> Result<(), Stopped> {
    let left_out = Arc::<Mutex<Vec<String>>>::default();
    let noted = Arc::clone(&left_out);
    let noting = Arc::new(move |event| {
        if let TransferEvent::LeftOut { .. } = &event {
            noted.lock().push(format!("{event:?}"));
        }
        events(event);
    });
    let number = match world.scenario.job {
        scenario::Job::Push => push(world, client, noting).await?,
        _ => get(world, client, noting).await?,
    };
    // Whatever is left out may arrive with another attempt.
    if number == 0 { Ok(()) } else { Err(Stopped::Failed(left_out.lock().join(", "))) }
}

async fn get(world: &World, client: &RpcClient, events: EventFn) -> Result<u64, Stopped> {
    let options = world.transfer_options();
    // A guess that is wrong as soon as an attempt has left something.
    let Scenario { seed, attributes, .. } = world.scenario;
    let request = FetchRequest { is_new_here: seed.is_multiple_of(2), attributes, ..FetchRequest::of(b"") };
    let fetch = Fetch::open(client, request, &options).await.map_err(|error| Stopped::by(&error))?;
    let receive = ReceiveOptions {
        existing: existing(world),
        durability: Durability::Durable,
        verify: false,
        links: LinkPolicy::All,
        attributes,
        digest: fetch.digest(),
        chunk_len_bytes: options.chunk_len_bytes,
    };
    let (shape, job, files) = (fetch.shape().clone(), fetch.job(), world.client.files());
    let opening = blocking::spawn(move || Destination::open(&files, &shape, job, receive));
    let target = opening.await.map_err(set_up)?.map_err(|error| Stopped::by(&error))?;
    let fetched = fetch.receive(target, &options, events).await;
    Ok(fetched.map_err(|error| Stopped::by(&error))?.left_out())
}

/// A source that changes meanwhile has replaced what an earlier attempt brought.
fn existing(world: &World) -> Existing {
    if world.scenario.source_changes_at.is_some() { Existing::Replace } else { Existing::Refuse }
}

async fn push(world: &World, client: &RpcClient, events: EventFn) -> Result<u64, Stopped> {
    let options = world.transfer_options();
    let files = world.client.files();
    let opening = blocking::spawn(move || SourceRoot::open(&files)?.resolve(b""));
    let source = opening.await.map_err(set_up)?.map_err(|error| Stopped::by(&error))?;
    let request = PushRequest {
        path: Vec::new(),
        name: None,
        total_bytes: None,
        existing: existing(world),
        delete: None,
        chunk_len_bytes: options.chunk_len_bytes,
        durability: Durability::Durable,
        filters: Arc::default(),
        attributes: world.scenario.attributes,
        source_name: b"the files of the client".to_vec(),
    };
    let push = Push::open(client, source, &request, &options).await.map_err(|error| Stopped::by(&error))?;
    let pushed = push.send(&options, events).await;
    Ok(pushed.map_err(|error| Stopped::by(&error))?.left_out())
}

/// Replaces a file of the source in the middle of it all.
fn change_later(
    world: &World,
    from: Arc<Machine>,
    mut tree: Tree,
    allowed: &Arc<Mutex<Allowed>>,
    mut rng: Rng,
) {
    let Some(at) = world.scenario.source_changes_at else { return };
    let (began, allowed) = (world.began, Arc::clone(allowed));
    tokio::spawn(async move {
        tokio::time::sleep_until(began + at).await;
        let files = tree.iter().filter(|(path, content)| tree::is_single(path, content.as_deref()));
        let files: Vec<_> = files.collect();
        let path = files[rng.between(0, files.len() as u64) as usize].0.clone();
        let len_bytes = rng.spread(1, 100_000) as usize;
        let content = tree::content(&mut rng, len_bytes);
        tree.insert(path.clone(), Some(content.clone()));
        allowed.lock().add(tree);
        // If it fails, the old version stays, which is allowed as well.
        let _ = tree::write_file(&from.files().join(path), &content);
        let _ = from.adopt();
    });
}

/// What an error says that has found the link, on either side.
const NOTICED: [&str; 3] = ["WrongKind", "PathRefused", "InTheWay"];
