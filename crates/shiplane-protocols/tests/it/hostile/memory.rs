//! What a peer's claims cost in memory. Each test has a process of its own, since memory is counted by process.

use std::process::Command;

use shiplane_protocols::{files::DestinationError, transfer::TransferError};
use shiplane_transport::TransferStream;
use shiplane_wire::{ProviderRecord, TransferId};
use tempfile::TempDir;

use super::{
    FetchOpened, PATIENT, encode, file,
    provider::{Liar, end, fetch, script, transfer_error},
};
use crate::{
    harness::World,
    push::names::{RawOpened, RawShape, open, raw},
};

/// What one hostile transfer may add to a process that has both sides of it.
const MAX_GROWTH_BYTES: u64 = 32 << 20;

/// 2^46 bytes are four million chunks; the others are as large as a size can be, alone and beyond any sum.
const CLAIMS: [&[u64]; 3] = [&[1 << 46], &[(1 << 62) - 1], &[(1 << 62) - 1; 5]];

#[test]
fn sizes_that_a_server_claims_cost_a_fetch_no_memory() {
    alone("hostile::memory::sizes_that_a_server_claims_cost_a_fetch_no_memory", async {
        for sizes in CLAIMS {
            let before_bytes = resident_bytes("VmRSS:");
            let liar = Liar::meet(
                PATIENT,
                FetchOpened::Root,
                script(move |mut stage| async move {
                    stage.say(&manifest(sizes)).await;
                    stage.linger().await;
                }),
            )
            .await;
            let dir = TempDir::new().unwrap();
            let error = transfer_error(fetch(&liar.rpc, dir.path()).await);
            let is_no_space = matches!(error, TransferError::Destination(DestinationError::NoSpace { .. }));
            assert!(is_no_space || matches!(error, TransferError::Protocol(_)), "{sizes:?}: {error}");
            assert_grown_little(before_bytes, sizes);
        }
    });
}

#[test]
fn sizes_that_a_pusher_claims_cost_a_server_no_memory() {
    alone("hostile::memory::sizes_that_a_pusher_claims_cost_a_server_no_memory", async {
        let world = World::writable(shiplane_protocols::WriteLimits::default());
        let rpc = world.admitted_by(world.ticket_to_write("")).await;
        for (number, sizes) in (1u8..).zip(CLAIMS) {
            let before_bytes = resident_bytes("VmRSS:");
            let request = raw(number, b"in", RawShape::Root);
            let mut claim = rpc.connection().claim(TransferId::from_bytes(request.transfer)).unwrap();
            assert!(matches!(open(&rpc, &request).await.unwrap(), RawOpened::Ready { .. }));
            let Some(TransferStream::Records(mut records)) = claim.next().await else {
                panic!("no records stream");
            };
            for record in manifest(sizes) {
                let _ = records.send.write(encode(&record)).await;
            }
            while let Ok(Some(_)) = records.recv.read().await {}
            assert_grown_little(before_bytes, sizes);
        }
    });
}

/// Files of these sizes.
fn manifest(sizes: &[u64]) -> Vec<ProviderRecord> {
    let files = sizes.iter().enumerate().map(|(number, &size)| file(&format!("f{number}"), size));
    let total_bytes = sizes.iter().fold(0u64, |sum, &size| sum.wrapping_add(size));
    files.chain([end(sizes.len() as u64, total_bytes)]).collect()
}

fn assert_grown_little(before_bytes: u64, what: impl std::fmt::Debug) {
    let grown_bytes = resident_bytes("VmHWM:").saturating_sub(before_bytes);
    assert!(grown_bytes <= MAX_GROWTH_BYTES, "{what:?} cost {grown_bytes} bytes");
}

/// Runs `work` in another process, which has nothing else to do than the test of this name.
fn alone(name: &str, work: impl Future<Output = ()>) {
    if std::env::var_os(IS_ALONE).is_some() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        return runtime.block_on(work);
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    let output = command.args(["--exact", name, "--nocapture"]).env(IS_ALONE, "1").output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
}

/// A line of `/proc/self/status`, in bytes: what is in memory now, or was at most.
fn resident_bytes(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    let kib: u64 = line.trim().strip_suffix(" kB").unwrap().parse().unwrap();
    kib * 1024
}

const IS_ALONE: &str = "SHIPLANE_TEST_IS_ALONE";
