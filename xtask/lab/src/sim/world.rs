//! Two machines: one dials, one serves.

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use parking_lot::{Mutex, MutexGuard};
use shiplane_access::internals::{AccessControl, Grant, PeersFile, Scope, StandingPeer};
use shiplane_files::internals::{SourceRoot, sync::SyncState};
use shiplane_protocols::internals::{FileServer, WriteLimits, transfer::TransferOptions};
use shiplane_rpc::Router;
use shiplane_transport::{
    Identity, PeerAddr, QuicTransport, RateLimit, RateLimiter, TransportConfig, Trust, internals::LaneThreads,
};
use testlink::Rng;
use tokio::{task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::sim::{
    disk::{Disk, DiskFaults},
    network::Network,
    oracle::Violation,
    scenario::Scenario,
    tree,
};

/// All that there is in one run of a seed.
pub(crate) struct World {
    pub(crate) scenario: Scenario,
    pub(crate) network: Arc<Network>,
    pub(crate) began: Instant,
    rng: Mutex<Rng>,
    pub(crate) client: Arc<Machine>,
    pub(crate) server: Arc<Machine>,
}

/// One of the two: what is on its disk, and where it is reached.
pub(crate) struct Machine {
    identity: Identity,
    directory: PathBuf,
    state: Mutex<MachineState>,
}

struct MachineState {
    /// What it was bound to last.
    addr: SocketAddr,
    /// The last is the one that it has now; before that, those whose power was cut.
    disks: Vec<Arc<Disk>>,
}

impl Machine {
    fn new(directory: PathBuf, identity: Identity, host: u8) -> Result<Arc<Self>, Violation> {
        for part in ["files", "outside", "rules"] {
            fs::create_dir_all(directory.join(part))?;
        }
        fs::write(directory.join("outside/kept"), KEPT)?;
        let addr = SocketAddr::from(([10, 0, 0, host], 1000));
        Ok(Self { identity, directory, state: MachineState { addr, disks: Vec::new() }.into() }.into())
    }

    fn disk(&self) -> Option<Arc<Disk>> {
        self.state.lock().disks.last().map(Arc::clone)
    }

    pub(crate) fn files(&self) -> PathBuf {
        self.directory.join("files")
    }

    pub(crate) fn sync_state(&self) -> SyncState {
        SyncState::at(self.directory.join("state"))
    }

    /// From now on its disk fails, for that long.
    fn begin_faults(&self, faults: DiskFaults, heal_in: Duration, rng: Rng) -> Result<(), Violation> {
        let disk = Disk::new(&self.directory, faults, heal_in, rng)?;
        self.state.lock().disks.push(disk);
        Ok(())
    }

    /// Takes for durable what others than shiplane have written.
    pub(crate) fn adopt(&self) -> Result<(), Violation> {
        Ok(self.disk().map_or(Ok(()), |disk| disk.adopt())?)
    }

    /// Waits until the power is cut.
    pub(crate) async fn power_is_cut(&self) {
        match self.disk() {
            Some(disk) => disk.cut.notified().await,
            None => std::future::pending().await,
        }
    }

    /// Cuts the power, and has it start with what is left on its disk, at the same place: by that it is known what a
    /// dataset had in common with another.
    fn cut_power(&self, faults: DiskFaults, heal_in: Duration, rng: Rng) -> Result<(), Violation> {
        let (directory, cuts) = (&self.directory, self.state.lock().disks.len());
        if let Some(disk) = self.disk() {
            let left = directory.with_extension(cuts.to_string());
            disk.cut_power();
            disk.leave_at(&left)?;
            disk.retire();
            fs::rename(directory, directory.with_extension(format!("{cuts}-before")))?;
            fs::rename(&left, directory)?;
        }
        self.begin_faults(DiskFaults { crash_at: None, ..faults }, heal_in, rng)
    }

    /// Beside the files: nothing may ever be written there.
    pub(crate) fn outside(&self) -> PathBuf {
        self.directory.join("outside")
    }

    pub(crate) fn peer(&self) -> PeerAddr {
        PeerAddr { id: self.identity.peer_id(), addr: self.state.lock().addr }
    }

    /// Its files, and what goes by a name of shiplane's own.
    pub(crate) fn read(&self) -> io::Result<(tree::Tree, Vec<String>)> {
        tree::read(&self.files())
    }

    /// Nothing was written outside.
    pub(crate) fn check_outside(&self) -> Result<(), Violation> {
        let kept = tree::Tree::from([("kept".to_owned(), Some(KEPT.to_vec()))]);
        let is_known =
            |path: &Path| ["files", "outside", "state", "rules"].iter().any(|name| path.ends_with(name));
        let mut beside = fs::read_dir(&self.directory)?;
        let is_alone = beside.all(|entry| entry.is_ok_and(|entry| is_known(&entry.path())));
        match is_alone && tree::read(&self.outside())? == (kept, Vec::new()) {
            true => Ok(()),
            false => Err(Violation::Escaped),
        }
    }
}

/// The program of a machine, as long as it runs.
pub(crate) struct Program {
    pub(crate) transport: Arc<QuicTransport>,
    /// What a server does.
    serving: Option<JoinHandle<()>>,
}

impl World {
    /// In a directory of its own, between two keys that were made before.
    pub(crate) fn new(scenario: Scenario, scratch: &Path, keys: &Path) -> Result<Self, Violation> {
        let mut rng = Rng::new(scenario.seed ^ WORLD);
        let network = Network::new(scenario.faults.clone(), rng.fork());
        let load = |name| Identity::load_or_create(&keys.join(name)).map_err(set_up);
        let mut identities = [load("one")?, load("other")?];
        identities.sort_by_key(Identity::peer_id);
        // Of two keys, which is the greater decides some things.
        if rng.chance(500_000) {
            identities.reverse();
        }
        let [client, server] = identities;
        let client = Machine::new(scratch.join("client"), client, 1)?;
        let server = Machine::new(scratch.join("server"), server, 2)?;
        for machine in [&client, &server].into_iter().filter(|_| scenario.holes) {
            tree::pass_on_group(&machine.files())?;
        }
        Ok(Self { client, server, rng: rng.into(), began: Instant::now(), network, scenario })
    }

    fn machine(&self, side: Side) -> &Arc<Machine> {
        match side {
            Side::Client => &self.client,
            Side::Server => &self.server,
        }
    }

    /// From now on the disks fail.
    pub(crate) fn begin_disk_faults(&self) -> Result<(), Violation> {
        Side::BOTH.into_iter().try_for_each(|side| {
            let (faults, heal_at) = (self.scenario.disks[side as usize], self.scenario.faults.heal_at);
            let rng = self.rng().fork();
            self.machine(side).begin_faults(faults, heal_at, rng)
        })
    }

    /// Cuts the power of a machine and turns it on again.
    pub(crate) fn cut_power(&self, side: Side) -> Result<(), Violation> {
        let machine = self.machine(side);
        self.network.unplug(machine.peer().addr);
        let heal_in = self.scenario.faults.heal_at.saturating_sub(self.began.elapsed());
        let rng = self.rng().fork();
        machine.cut_power(self.scenario.disks[side as usize], heal_in, rng)
    }

    /// Nothing fails any more.
    pub(crate) fn end(&self) {
        for machine in [&self.client, &self.server] {
            machine.state.lock().disks.iter().for_each(|disk| disk.retire());
        }
    }

    pub(crate) fn rng(&self) -> MutexGuard<'_, Rng> {
        self.rng.lock()
    }

    pub(crate) fn transfer_options(&self) -> TransferOptions {
        let Scenario { lanes, chunk_len_bytes, compression, limit, .. } = self.scenario;
        let rate = limit.map(|limit| RateLimiter::new(RateLimit::per_second(limit)));
        TransferOptions { lanes, chunk_len_bytes, compression, rate, ..TransferOptions::default() }
    }

    /// Starts a program: a client, on a port that none of the `runs` before has used, or a server of files or of these
    /// methods, on the same port after a restart, as servers have it.
    pub(crate) fn start(
        &self,
        side: Side,
        runs: u16,
        methods: Option<Arc<Router>>,
    ) -> Result<Program, Violation> {
        if side == Side::Client {
            self.client.state.lock().addr.set_port(1000 + runs * 100);
            return Ok(Program { transport: self.bind(side, Trust::none())?, serving: None });
        }
        let peers = self.server.directory.join("rules/peers");
        let name = "client".parse().map_err(set_up)?;
        let grant = Grant { read: true, write: true, paths: Scope::everything() };
        let client = StandingPeer { name, id: self.client.peer().id, grant, at: None };
        PeersFile::at(&peers).add(&client).map_err(set_up)?;
        let access = Arc::new(AccessControl::open(&peers));
        let transport = self.bind(side, AccessControl::trust(&access))?;
        let root = SourceRoot::open(&self.server.files()).map_err(set_up)?;
        let options = self.transfer_options();
        let limits = WriteLimits { attributes: self.scenario.attributes, ..WriteLimits::default() };
        let files = self.server.files();
        let server = FileServer::new(root, access, options).writable(limits);
        let server = Arc::new(server.syncing(&files, self.server.sync_state()));
        let accepting = Arc::clone(&transport);
        let serving = Some(match methods {
            None => tokio::spawn(server.run(accepting, CancellationToken::new())),
            Some(router) => tokio::spawn(async move {
                while let Ok((_addr, connection)) = accepting.accept().await {
                    tokio::spawn(Arc::clone(&router).serve(connection));
                }
            }),
        });
        Ok(Program { transport, serving })
    }

    /// Ends a program without a word, as by a signal.
    pub(crate) fn kill(&self, side: Side, program: &Program) {
        self.network.unplug(self.machine(side).peer().addr);
        program.serving.iter().for_each(JoinHandle::abort);
        program.transport.close();
    }

    fn bind(&self, side: Side, trust: Trust) -> Result<Arc<QuicTransport>, Violation> {
        let (machine, mut seed) = (self.machine(side), [0; 32]);
        self.rng().fill(&mut seed);
        let addr = machine.peer().addr;
        let transport = QuicTransport::builder()
            .identity(machine.identity.clone())
            .trust(trust)
            .config(TransportConfig::default().lane_threads(LaneThreads::Runtime))
            .socket(self.network.bind(addr))
            .rng_seed(seed)
            .bind(addr);
        Ok(Arc::new(transport.map_err(set_up)?))
    }

    /// Changes the client's address whenever the seed says so.
    pub(crate) fn move_the_client(&self) {
        let (network, bound) = (Arc::clone(&self.network), self.client.peer().addr);
        let (began, heal_at) = (self.began, self.scenario.faults.heal_at);
        for at in self.scenario.faults.address_changes.clone() {
            let network = Arc::clone(&network);
            tokio::spawn(async move {
                tokio::time::sleep_until(began + at).await;
                if at < heal_at {
                    network.change_address(bound);
                }
            });
        }
    }

    /// The time that one attempt is given before somebody is killed in it, if anybody is.
    pub(crate) fn next_kill(&self) -> Option<(Side, Duration)> {
        let mut rng = self.rng();
        let is_killed = self.scenario.kills.map(|chance| rng.chance(chance));
        let after = Duration::from_millis(rng.spread(1, 20_000));
        if self.scenario.faults.is_healed(self.began.elapsed()) {
            return None;
        }
        Side::BOTH.into_iter().find(|side| is_killed[*side as usize]).map(|side| (side, after))
    }
}

/// One of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Server,
}

impl Side {
    pub(crate) const BOTH: [Self; 2] = [Self::Client, Self::Server];
}

/// Something that has to work in a simulation does not.
pub(crate) fn set_up(error: impl std::fmt::Display) -> Violation {
    Violation::SetUp(error.to_string())
}

const KEPT: &[u8] = b"nobody may touch this";

/// So that what happens is drawn apart from what the scenario says.
const WORLD: u64 = 0x5745_4c54;
