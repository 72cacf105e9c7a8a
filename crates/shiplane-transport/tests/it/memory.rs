//! What a large chunk costs each side in memory. Each side is a process of its own, as what a process holds is
//! what the kernel can tell.

use std::{
    fs::File,
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use shiplane_transport::{ChunkSource, PeerAddr, TransportConfig};

use crate::harness::{addr_of, memory, transport};

const LEN_BYTES: u64 = 1 << 30;

/// What a side may come to hold beyond what it held when it was connected and idle.
const MAX_GROWTH_BYTES: u64 = 16 << 20;

#[test]
fn a_gibibyte_from_file_to_file_costs_each_side_no_more_than_16_mib() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    match std::env::var(SIDE).as_deref() {
        Ok("receiver") => runtime().block_on(receive()),
        Ok("sender") => runtime().block_on(send()),
        _ => compare(),
    }
}

/// Starts this very test twice and looks at what the two say.
fn compare() {
    let dir = tempfile::tempdir().unwrap();
    File::create(dir.path().join("from")).unwrap().set_len(LEN_BYTES).unwrap();
    let mut receiver = Side::start("receiver", dir.path().join("to"), "");
    let addr = receiver.hear(ADDR);
    let mut sender = Side::start("sender", dir.path().join("from"), &addr);
    let growth = [sender.hear(GROWTH), receiver.hear(GROWTH)];
    for growth in &growth {
        let growth_bytes: u64 = growth.parse().unwrap();
        assert!(growth_bytes <= MAX_GROWTH_BYTES, "sender and receiver grew by {growth:?} bytes");
    }
    assert_eq!(dir.path().join("to").metadata().unwrap().len(), LEN_BYTES);
}

/// One side, killed when the test is over.
struct Side {
    child: Child,
    told: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Side {
    fn start(side: &str, path: PathBuf, peer: &str) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        let name = "memory::a_gibibyte_from_file_to_file_costs_each_side_no_more_than_16_mib";
        command.args(["--exact", name, "--nocapture"]);
        command.env(SIDE, side).env(PATH, path).env(PEER, peer);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let told = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, told }
    }

    /// What follows on a line that has this mark, which need not begin it: the harness prints as well.
    fn hear(&mut self, mark: &str) -> String {
        let mut lines = self.told.by_ref().map(Result::unwrap);
        let line = lines.find_map(|line| line.split_once(mark).map(|(_, rest)| rest.to_owned()));
        line.expect("it failed, and says above why")
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn receive() {
    let ours = transport(TransportConfig::default());
    tell(ADDR, &format!("{} {}", addr_of(&ours).id, addr_of(&ours).addr));
    let (_, peer) = ours.accept().await.unwrap();
    let path = PathBuf::from(std::env::var_os(PATH).unwrap());
    peer.recv_chunk_verified().await.unwrap().unwrap();
    let idle_bytes = resident_bytes("VmRSS:");
    assert!(peer.recv_chunk_to_path(&path).await.unwrap());
    tell(GROWTH, &(resident_bytes("VmHWM:") - idle_bytes).to_string());
    peer.closed().await;
}

async fn send() {
    let peer = std::env::var(PEER).unwrap();
    let (id, addr) = peer.split_once(' ').unwrap();
    let bob = PeerAddr { id: id.parse().unwrap(), addr: addr.parse().unwrap() };
    let ours = transport(TransportConfig::default());
    let to_bob = ours.connect_to(bob).await.unwrap();
    to_bob.send_chunk_verified(&memory(b"so that all there is has been used")).await.unwrap();
    let idle_bytes = resident_bytes("VmRSS:");
    let source = ChunkSource::File(std::env::var_os(PATH).unwrap().into());
    assert_eq!(to_bob.send_chunk_verified(&source).await.unwrap(), LEN_BYTES);
    tell(GROWTH, &(resident_bytes("VmHWM:") - idle_bytes).to_string());
}

fn tell(mark: &str, what: &str) {
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{mark}{what}").unwrap();
    stdout.flush().unwrap();
}

/// A line of `/proc/self/status`, in bytes: what is in memory now, or was at most.
fn resident_bytes(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    let kib: u64 = line.trim().strip_suffix(" kB").unwrap().parse().unwrap();
    kib * 1024
}

const SIDE: &str = "SHIPLANE_TEST_SIDE";
const PATH: &str = "SHIPLANE_TEST_PATH";
const PEER: &str = "SHIPLANE_TEST_PEER";
const ADDR: &str = "listening at ";
const GROWTH: &str = "grew by ";
