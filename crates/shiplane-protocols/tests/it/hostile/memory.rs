//! The memory that a peer's claims cost. Each test has a process of its own, to measure its memory.

use std::{
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use shiplane_files::internals::DestinationError;
use shiplane_protocols::internals::{
    Fetch, FetchRequest,
    transfer::{OutputStream, Target, TransferError, TransferOptions},
};
use shiplane_rpc::{CallError, FaultCode, RpcClient};
use shiplane_transport::internals::{BiStream, Claim};
use shiplane_wire::{
    Digest, DigestAlgorithm, Piece, ProviderRecord, ReceiverRecord, RecordReader, Span, TaggedChunk,
    TransferId, limits,
};
use tempfile::TempDir;

use super::{
    Claimed, IMPATIENT, PATIENT, TransferShape, directory, encode, file,
    liar::{Liar, end, fetch, fetch_with, script, small_chunks, transfer_error},
};
use crate::{
    harness::{World, transfer_lane},
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
                TransferShape::Contents,
                script(move |mut fixture| async move {
                    fixture.say(&manifest(sizes)).await;
                    fixture.linger().await;
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
        let world = World::writable(shiplane_protocols::internals::WriteLimits::default());
        let rpc = world.admitted_by(world.ticket_to_write("")).await;
        for (number, sizes) in (1u8..).zip(CLAIMS) {
            let before_bytes = resident_bytes("VmRSS:");
            let (_claim, mut records) = begin(&rpc, number).await;
            for record in manifest(sizes) {
                let _ = records.send.write(encode(&record)).await;
            }
            while let Ok(Some(_)) = records.recv.read().await {}
            assert_grown_little(before_bytes, sizes);
        }
    });
}

#[test]
fn a_pusher_that_lists_without_end_costs_a_server_little() {
    alone("hostile::memory::a_pusher_that_lists_without_end_costs_a_server_little", async {
        let world = World::writable(shiplane_protocols::internals::WriteLimits::default());
        let rpc = world.admitted_by(world.ticket_to_write("")).await;
        let before_bytes = resident_bytes("VmRSS:");
        let (_claim, BiStream { mut send, mut recv }) = begin(&rpc, 1).await;
        for record in endless(|path| file(path, 1)).take(20_000) {
            // It is sent more than it has admitted, and says so sooner or later.
            if send.write(encode(&record)).await.is_err() {
                break;
            }
        }
        while let Ok(Some(_)) = recv.read().await {}
        assert_grown_little(before_bytes, "a list that was not admitted");
    });
}

#[test]
fn a_crowd_of_pushers_that_list_what_is_admitted_and_stop_costs_a_server_little() {
    alone(
        "hostile::memory::a_crowd_of_pushers_that_list_what_is_admitted_and_stop_costs_a_server_little",
        async {
            let world = World::writable(shiplane_protocols::internals::WriteLimits::default());
            let peers = [world.ticket_to_write(""), world.ticket_to_write("")];
            let [first, second] = peers.map(|ticket| world.admitted_by(ticket));
            let peers = [first.await, second.await];
            let before_bytes = resident_bytes("VmRSS:");
            let crowd = futures::future::join_all((0..PUSHES).map(async |number| {
                let (claim, mut records) = begin(&peers[usize::from(number % 2)], number + 1).await;
                let mut admitted = Admitted::default();
                for record in endless(|path| file(path, 1)) {
                    if !admitted.send(&mut records, &record).await {
                        break;
                    }
                }
                (claim, records, admitted.sent_bytes)
            }))
            .await;
            let listed = crowd
                .iter()
                .filter(|(_, _, sent_bytes)| *sent_bytes >= limits::FIRST_ENTRY_BYTES / 2)
                .count();
            assert_eq!(listed, usize::from(PUSHES), "each lists something");
            assert_grown_little(before_bytes, "a crowd");
        },
    );
}

#[test]
fn directories_without_end_cost_a_fetch_little_and_all_of_them_arrive() {
    const COUNT: usize = 10_000;
    alone("hostile::memory::directories_without_end_cost_a_fetch_little_and_all_of_them_arrive", async {
        let liar = Liar::meet(
            PATIENT,
            TransferShape::Contents,
            script(|fixture| async move {
                let mut records = BiStream { send: fixture.send, recv: fixture.wants };
                let mut admitted = Admitted { patience: PATIENT, ..Admitted::default() };
                for record in endless(directory).take(COUNT) {
                    assert!(admitted.send(&mut records, &record).await, "the list is held back for ever");
                }
                records.send.write(encode(&end(COUNT as u64, 0))).await.unwrap();
                while let Ok(Some(_)) = records.recv.read().await {}
            }),
        )
        .await;
        let dir = TempDir::new().unwrap();
        let before_bytes = resident_bytes("VmRSS:");
        let error = fetch(&liar.rpc, dir.path()).await.unwrap_err();
        assert!(matches!(error, shiplane_protocols::internals::FetchError::Unconfirmed(_)), "{error}");
        assert_grown_little(before_bytes, "many directories");
    });
}

#[test]
fn offers_of_single_bytes_cost_a_fetch_little() {
    alone("hostile::memory::offers_of_single_bytes_cost_a_fetch_little", async {
        const SPANS: u64 = limits::MAX_SPANS_PER_CHUNK as u64;
        let len_bytes = 2 * limits::MAX_OFFERS * SPANS;
        let before_bytes = resident_bytes("VmRSS:");
        let liar = Liar::meet(
            PATIENT,
            TransferShape::Contents,
            script(move |mut fixture| async move {
                fixture.say(&[file("x", len_bytes)]).await;
                for number in 0..limits::MAX_OFFERS {
                    // Every second byte, so that each is a hole of its own.
                    let at = (number * SPANS..(number + 1) * SPANS).map(|at| 2 * at);
                    let span = |offset_bytes| Span { entry: 0, offset_bytes, len_bytes: 1 };
                    fixture.say(&[ProviderRecord::Offer { spans: at.map(span).collect() }]).await;
                }
                fixture.say(&[ProviderRecord::OffersEnd, end(1, len_bytes)]).await;
                // It is decided on them before anything is wanted.
                fixture.want().await;
            }),
        )
        .await;
        let dir = TempDir::new().unwrap();
        let began = std::time::Instant::now();
        let error = transfer_error(fetch_with(&liar.rpc, true, dir.path(), &small_chunks()).await);
        let is_expected = matches!(error, TransferError::Stream(_) | TransferError::Protocol(_));
        assert_grown_little(before_bytes, "offers of single bytes");
        assert!(began.elapsed() < PATIENT / 3, "it took {:?}", began.elapsed());
        assert!(is_expected, "{error}");
    });
}

#[test]
fn offers_with_holes_cost_a_fetch_into_a_stream_little() {
    alone("hostile::memory::offers_with_holes_cost_a_fetch_into_a_stream_little", async {
        const LEN_BYTES: u64 = 48 << 20;
        let before_bytes = resident_bytes("VmRSS:");
        let liar = Liar::meet(
            PATIENT,
            TransferShape::File { name: b"x".to_vec() },
            script(|mut fixture| async move {
                let span = |offset_bytes| Span { entry: 0, offset_bytes, len_bytes: 1 };
                fixture.say(&[file("x", LEN_BYTES)]).await;
                let offers = [0, 2].map(|at| ProviderRecord::Offer { spans: vec![span(at)] });
                fixture.say(&offers).await;
                fixture.say(&[ProviderRecord::OffersEnd, end(1, LEN_BYTES)]).await;
                let _ = tokio::join!(fixture.try_chunk(0, 1, &[0]), fixture.try_chunk(1, 1, &[0]));
                while let Some((index, spans)) = fixture.want_of_spans().await {
                    let piece = match spans[..] {
                        [span] => Piece::of_file(span.offset_bytes, span.len_bytes, LEN_BYTES),
                        _ => None,
                    };
                    let len_bytes: u64 = spans.iter().map(|span| span.len_bytes).sum();
                    let source = Claimed { len_bytes, data: vec![0; len_bytes as usize].into() };
                    let tag = TaggedChunk { transfer: fixture.transfer, index };
                    let lane = transfer_lane().piece(piece);
                    // The victim may hang up at any time.
                    let _ = fixture.connection.send_tagged_chunk(tag, source, &lane).await;
                }
                let _ = fixture.send.finish();
            }),
        )
        .await;
        let request = FetchRequest { path: b"x".to_vec(), is_new_here: true, ..FetchRequest::default() };
        let options = TransferOptions { lanes: 4, chunk_len_bytes: 1 << 20, ..TransferOptions::default() };
        let fetch = Fetch::open(&liar.rpc, request, &options).await.unwrap();
        let written = Arc::new(AtomicU64::new(0));
        let target = Target::stream(&OutputStream::new(Written(Arc::clone(&written))));
        let result = fetch.receive(target, &options, Arc::new(|_| ())).await;
        assert_grown_little(before_bytes, "offers with holes");
        let is_whole = written.load(Ordering::Relaxed) == LEN_BYTES;
        assert!(result.is_err() || is_whole, "{written:?} bytes were written: {result:?}");
    });
}

/// The journals of two interrupted pushes of a peer leave more than is in memory at a time.
#[tokio::test]
async fn a_push_whose_journal_finds_no_memory_gets_busy() {
    let world = World::writable(shiplane_protocols::internals::WriteLimits::default());
    let identity = world.identity();
    let peer = identity.peer_id();
    let rpc = world.admitted_as(identity, world.ticket_to_write("")).await;
    (1..=2).for_each(|number| leave_journal(&world.source(), peer.as_bytes(), number));
    let first = begin(&rpc, 1).await;
    let request = raw(2, b"in2", RawShape::Contents);
    let opened = open(&rpc, &request).await;
    assert!(is_busy(&opened), "{opened:?}");
    drop(first);
    // As the program asks again.
    let opened = loop {
        let opened = open(&rpc, &request).await;
        if !is_busy(&opened) {
            break opened;
        }
    };
    assert!(matches!(opened, Ok(RawOpened::Ready { .. })), "{opened:?}");
}

fn is_busy(opened: &Result<RawOpened, CallError>) -> bool {
    matches!(opened, Err(CallError::Fault(fault)) if fault.code == FaultCode::Busy)
}

/// What a push to `in{number}` leaves that was cut: 66,000 files that were begun.
fn leave_journal(root: &Path, peer: &[u8], number: u8) {
    let target = format!("in{number}");
    let parts: [&[u8]; 3] = [peer, &[0; 32], target.as_bytes()];
    let parts = parts.map(|part| [&(part.len() as u64).to_le_bytes(), part].concat());
    let key = Digest::blake3(&parts.concat());
    let header = [&b"shiplane-jrnl 2\n"[..], &[DigestAlgorithm::Blake3.bit()], key.as_bytes()];
    let mut journal = header.concat();
    let mut put = |body: &[u8]| {
        journal.extend((body.len() as u32).to_le_bytes());
        journal.extend(body);
        journal.extend(&Digest::blake3(body).as_bytes()[..8]);
    };
    for id in 0..66_000u64 {
        put(&[&[1][..], &id.to_le_bytes(), &[1; 8], &[0; 16], id.to_string().as_bytes()].concat());
    }
    std::fs::create_dir(root.join(&target)).unwrap();
    let name = format!(".shiplane-{}.journal", &key.to_string()[..16]);
    std::fs::write(root.join(target).join(name), journal).unwrap();
}

/// Counts what is written.
struct Written(Arc<AtomicU64>);

impl std::io::Write for Written {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        self.0.fetch_add(data.len() as u64, Ordering::Relaxed);
        Ok(data.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// As many as a server takes of two peers.
const PUSHES: u8 = 28;

/// Opens a push without offers, and waits until it may list.
async fn begin(rpc: &RpcClient, number: u8) -> (Claim, BiStream) {
    let request = raw(number, format!("in{number}").as_bytes(), RawShape::Contents);
    let mut claim = rpc.connection().claim(TransferId::from_bytes(request.transfer)).unwrap();
    let opened = open(rpc, &request).await.unwrap();
    let RawOpened::Ready { invites, .. } = opened else { panic!("{opened:?}") };
    let mut records = claim.records().await.unwrap();
    if invites {
        records.send.write(encode(&ProviderRecord::OffersEnd)).await.unwrap();
    }
    (claim, records)
}

/// What `make` makes in the deepest of some directories, with paths as long as they may be, which cannot be shown as
/// they are.
fn endless(make: fn(&str) -> ProviderRecord) -> impl Iterator<Item = ProviderRecord> {
    let parent = |depth| vec![NAME.repeat(250); depth].join("/");
    let parents = (1..=PARENTS).map(move |depth| directory(&parent(depth)));
    let others = (0..).map(move |number| format!("{}/{}{number:08}", parent(PARENTS), NAME.repeat(60)));
    parents.chain(others.map(move |path| make(&path)))
}

const NAME: &str = "\u{1}";
const PARENTS: usize = 16;

/// What a receiver has admitted, and a provider that keeps to it has sent.
struct Admitted {
    bytes: u64,
    sent_bytes: u64,
    reader: RecordReader<ReceiverRecord>,
    /// How long it waits for more.
    patience: std::time::Duration,
}

impl Default for Admitted {
    fn default() -> Self {
        let bytes = limits::FIRST_ENTRY_BYTES;
        Self { bytes, sent_bytes: 0, reader: RecordReader::new(), patience: IMPATIENT }
    }
}

impl Admitted {
    /// Sends an entry once that is admitted; `false` if it is not.
    async fn send(&mut self, records: &mut BiStream, record: &ProviderRecord) -> bool {
        let ProviderRecord::Entry(entry) = record else { unreachable!("only entries are counted") };
        while self.sent_bytes + entry.cost_bytes() > self.bytes {
            let read = tokio::time::timeout(self.patience, self.hear(records)).await;
            if read != Ok(true) {
                return false;
            }
        }
        self.sent_bytes += entry.cost_bytes();
        records.send.write(encode(record)).await.is_ok()
    }

    /// Waits until more is admitted; `false` if the receiver has hung up.
    async fn hear(&mut self, records: &mut BiStream) -> bool {
        loop {
            while let Some(record) = self.reader.poll().unwrap() {
                if let ReceiverRecord::Admit { bytes } = record {
                    self.bytes = bytes;
                    return true;
                }
            }
            let Ok(Some(bytes)) = records.recv.read().await else { return false };
            self.reader.push(bytes);
        }
    }
}

/// Files of these sizes.
fn manifest(sizes: &[u64]) -> Vec<ProviderRecord> {
    let files = sizes.iter().enumerate().map(|(number, &size)| file(&format!("f{number}"), size));
    let total_bytes = sizes.iter().fold(0u64, |sum, &size| sum.wrapping_add(size));
    files.chain([end(sizes.len() as u64, total_bytes)]).collect()
}

pub(super) fn assert_grown_little(before_bytes: u64, what: impl std::fmt::Debug) {
    let grown_bytes = resident_bytes("VmHWM:").saturating_sub(before_bytes);
    println!("{what:?} cost {grown_bytes} bytes");
    assert!(grown_bytes <= MAX_GROWTH_BYTES, "{what:?} cost {grown_bytes} bytes");
}

/// Runs `work` in another process, which has nothing else to do than the test of this name.
pub(super) fn alone(name: &str, work: impl Future<Output = ()>) {
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
pub(super) fn resident_bytes(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    let kib: u64 = line.trim().strip_suffix(" kB").unwrap().parse().unwrap();
    kib * 1024
}

const IS_ALONE: &str = "SHIPLANE_TEST_IS_ALONE";
