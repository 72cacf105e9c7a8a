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
use shiplane_rpc::{Router, RpcClient};
use shiplane_transport::{
    ConnectError, Identity, PeerAddr, PeerId, QuicTransport, RateLimit, RateLimiter, TransportConfig, Trust,
    internals::LaneThreads,
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
    identity: PathBuf,
    pub(crate) id: PeerId,
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
    fn new(directory: PathBuf, identity: PathBuf, host: u8) -> Result<Self, Violation> {
        for part in ["files", "outside", "rules"] {
            fs::create_dir_all(directory.join(part))?;
        }
        fs::write(directory.join("outside/kept"), KEPT)?;
        let id = Identity::load_or_create(&identity).map_err(set_up)?.peer_id();
        let addr = SocketAddr::from(([10, 0, 0, host], 1000));
        Ok(Self { identity, id, directory, state: MachineState { addr, disks: Vec::new() }.into() })
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

    pub(crate) fn addr(&self) -> SocketAddr {
        self.state.lock().addr
    }

    fn move_to_port(&self, port: u16) -> SocketAddr {
        let mut state = self.state.lock();
        state.addr.set_port(port);
        state.addr
    }

    /// Nothing was written outside.
    pub(crate) fn check_outside(&self) -> Result<(), Violation> {
        let (found, own) = tree::read(&self.outside())?;
        let kept = found.get("kept").and_then(Option::as_ref).is_some_and(|content| content == KEPT);
        let mut beside = fs::read_dir(&self.directory)?;
        let strangers = beside.any(|entry| !entry.is_ok_and(|entry| is_known(&entry.path())));
        match kept && found.len() == 1 && own.is_empty() && !strangers {
            true => Ok(()),
            false => Err(Violation::Escaped),
        }
    }
}

fn is_known(path: &Path) -> bool {
    ["files", "outside", "state", "rules"].iter().any(|name| path.ends_with(name))
}

/// The serving program, as long as it runs.
pub(crate) struct Serving {
    transport: Arc<QuicTransport>,
    running: JoinHandle<()>,
}

/// The dialling program, as long as it runs.
pub(crate) struct Dialling {
    pub(crate) transport: Arc<QuicTransport>,
}

impl World {
    /// In a directory of its own, between two keys that were made before.
    pub(crate) fn new(scenario: Scenario, scratch: &Path, keys: &Path) -> Result<Self, Violation> {
        let mut rng = Rng::new(scenario.seed ^ WORLD);
        let network = Network::new(scenario.faults.clone(), rng.fork());
        let mut names = sorted_keys(keys)?;
        // Of two keys, which is the greater decides some things.
        if rng.chance(500_000) {
            names.reverse();
        }
        let [client, server] = names;
        let client: Arc<_> = Machine::new(scratch.join("client"), client, 1)?.into();
        let server: Arc<_> = Machine::new(scratch.join("server"), server, 2)?.into();
        for machine in [&client, &server].into_iter().filter(|_| scenario.holes) {
            tree::pass_on_group(&machine.files())?;
        }
        Ok(Self { client, server, rng: rng.into(), began: Instant::now(), network, scenario })
    }

    /// From now on the disks fail.
    pub(crate) fn begin_disk_faults(&self) -> Result<(), Violation> {
        let Scenario { client_disk, server_disk, ref faults, .. } = self.scenario;
        let client = self.rng().fork();
        let server = self.rng().fork();
        self.client.begin_faults(client_disk, faults.heal_at, client)?;
        self.server.begin_faults(server_disk, faults.heal_at, server)
    }

    /// Cuts the power of a machine and turns it on again.
    pub(crate) fn cut_power(&self, side: Side) -> Result<(), Violation> {
        let (machine, faults) = match side {
            Side::Client => (&self.client, self.scenario.client_disk),
            Side::Server => (&self.server, self.scenario.server_disk),
        };
        self.network.unplug(machine.addr());
        let heal_in = self.scenario.faults.heal_at.saturating_sub(self.began.elapsed());
        let rng = self.rng().fork();
        machine.cut_power(faults, heal_in, rng)
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

    pub(crate) fn is_healed(&self) -> bool {
        self.scenario.faults.is_healed(self.began.elapsed())
    }

    pub(crate) fn transfer_options(&self) -> TransferOptions {
        let Scenario { lanes, chunk_len_bytes, compression, limit, .. } = self.scenario;
        let rate = limit.map(|limit| RateLimiter::new(RateLimit::per_second(limit)));
        TransferOptions { lanes, chunk_len_bytes, compression, rate, ..TransferOptions::default() }
    }

    /// Starts the server's program: one that serves files, or one with these methods.
    pub(crate) fn serve(&self, methods: Option<Arc<Router>>) -> Result<Serving, Violation> {
        let peers = self.server.directory.join("rules/peers");
        let name = "client".parse().map_err(set_up)?;
        let grant = Grant { read: true, write: true, paths: Scope::everything() };
        let client = StandingPeer { name, id: self.client.id, grant, at: None };
        PeersFile::at(&peers).add(&client).map_err(set_up)?;
        let access = Arc::new(AccessControl::open(&peers));
        // The same port after a restart, as servers have it.
        let transport = Arc::new(self.bind(&self.server, AccessControl::trust(&access))?);
        let root = SourceRoot::open(&self.server.files()).map_err(set_up)?;
        let options = self.transfer_options();
        let limits = WriteLimits { attributes: self.scenario.attributes, ..WriteLimits::default() };
        let files = self.server.files();
        let server = FileServer::new(root, access, options).writable(limits);
        let server = Arc::new(server.syncing(&files, self.server.sync_state()));
        let serving = Arc::clone(&transport);
        let running = match methods {
            None => tokio::spawn(server.run(serving, CancellationToken::new())),
            Some(router) => tokio::spawn(async move {
                while let Ok((_addr, connection)) = serving.accept().await {
                    tokio::spawn(Arc::clone(&router).serve(connection));
                }
            }),
        };
        Ok(Serving { transport, running })
    }

    /// Starts the client's program, on a port that was not used before.
    pub(crate) fn dial_from(&self, run: u16) -> Result<Dialling, Violation> {
        self.client.move_to_port(1000 + run * 100);
        Ok(Dialling { transport: Arc::new(self.bind(&self.client, Trust::none())?) })
    }

    /// Ends the server's program without a word, as by a signal.
    pub(crate) fn kill_server(&self, server: &Serving) {
        self.network.unplug(self.server.addr());
        server.running.abort();
        server.transport.close();
    }

    /// The same of the client's.
    pub(crate) fn kill_client(&self, client: &Dialling) {
        self.network.unplug(self.client.addr());
        client.transport.close();
    }

    fn bind(&self, machine: &Machine, trust: Trust) -> Result<QuicTransport, Violation> {
        let mut seed = [0; 32];
        seed.copy_from_slice(&self.rng().bytes(32));
        QuicTransport::builder()
            .identity(Identity::load_or_create(&machine.identity).map_err(set_up)?)
            .trust(trust)
            .config(TransportConfig::default().lane_threads(LaneThreads::Runtime))
            .socket(self.network.bind(machine.addr()))
            .rng_seed(seed)
            .bind(machine.addr())
            .map_err(set_up)
    }

    /// Changes the client's address whenever the seed says so.
    pub(crate) fn move_the_client(&self) {
        let (network, bound) = (Arc::clone(&self.network), self.client.addr());
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
        let client = rng.chance(self.scenario.client_kills);
        let server = rng.chance(self.scenario.server_kills);
        let after = Duration::from_millis(rng.spread(1, 20_000));
        if self.is_healed() {
            return None;
        }
        match (client, server) {
            (true, _) => Some((Side::Client, after)),
            (false, true) => Some((Side::Server, after)),
            (false, false) => None,
        }
    }
}

/// One of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Server,
}

impl Dialling {
    pub(crate) async fn connect(&self, server: &Machine) -> Result<RpcClient, ConnectError> {
        let peer = PeerAddr { id: server.id, addr: server.addr() };
        Ok(RpcClient::new(self.transport.connect_to(peer).await?))
    }
}

/// Something that has to work in a simulation does not.
pub(crate) fn set_up(error: impl std::fmt::Display) -> Violation {
    Violation::SetUp(error.to_string())
}

/// Two key files, which are made if need be, the one of the smaller id first.
fn sorted_keys(keys: &Path) -> Result<[PathBuf; 2], Violation> {
    let mut files = [keys.join("one"), keys.join("other")];
    let id = |path: &PathBuf| Identity::load_or_create(path).map(|identity| identity.peer_id());
    let [one, other] = &files;
    if id(one).map_err(set_up)?.as_bytes() > id(other).map_err(set_up)?.as_bytes() {
        files.reverse();
    }
    Ok(files)
}

/// Reads a machine's files.
pub(crate) fn files_of(machine: &Machine) -> io::Result<(tree::Tree, Vec<String>)> {
    tree::read(&machine.files())
}

const KEPT: &[u8] = b"nobody may touch this";

/// So that what happens is drawn apart from what the scenario says.
const WORLD: u64 = 0x5745_4c54;
