//! Chunks between two transports: concurrent, bounded in memory, from changing files, cancelled.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use shiplane_transport::{
    BUFFER_LEN_BYTES, ChunkExpectation, ChunkSource, LaneOptions, QuicTransport, RecvChunkError,
    SendChunkError, StreamError, TransportConfig,
    internals::{ChunkRead, ChunkSink, SourceError, StepClock, TransferStream},
};
use shiplane_wire::{Code, Durability, Stored, TaggedChunk, Verified};
use tokio::task::JoinSet;

use crate::{
    harness::{
        AMPLE, End, Pair, RawPair, addr_of, everybody, localhost, memory, noise, soon, transfer_id, transport,
    },
    wire::Wire,
};

fn file(dir: &Path, name: &str, data: &[u8]) -> PathBuf {
    let path = dir.join(name);
    fs::write(&path, data).unwrap();
    path
}

/// The source document's first example: 10 MB from memory, then a file, over one connection.
#[tokio::test]
async fn the_basic_example_works_as_it_is_written() {
    async fn send_file(transport: &QuicTransport, peer_addr: std::net::SocketAddr, path: PathBuf) {
        let peer = transport.connect(peer_addr).await.unwrap();
        let chunk = ChunkSource::Memory(Bytes::from(vec![0u8; 10_000_000]));
        assert_eq!(peer.send_chunk_verified(&chunk).await.unwrap(), 10_000_000);
        let chunk = ChunkSource::File(path);
        assert_eq!(peer.send_chunk_verified(&chunk.clone()).await.unwrap(), 300_000);
        assert!(format!("{chunk:?}").contains("large_file.dat"));
        peer.close(Code::NoError);
    }

    async fn receive_file(transport: &QuicTransport) -> Vec<usize> {
        let (_peer_addr, peer) = transport.accept().await.unwrap();
        let mut lens = Vec::new();
        while let Some(data) = peer.recv_chunk_verified().await.unwrap() {
            lens.push(data.len());
        }
        lens
    }

    let dir = tempfile::tempdir().unwrap();
    let path = file(dir.path(), "large_file.dat", &noise(1, 300_000));
    let (sender, receiver) = (transport(TransportConfig::default()), transport(TransportConfig::default()));
    let addr = receiver.local_addr().unwrap();
    let ((), lens) =
        soon(async { tokio::join!(send_file(&sender, addr, path), receive_file(&receiver)) }).await;
    assert_eq!(lens, [10_000_000, 300_000]);
    assert_eq!(sender.open_connections(), 0);
}

#[tokio::test]
async fn bytes_go_from_one_socket_to_the_other_and_nowhere_else() {
    let (here, there) = (Wire::new(), Wire::new());
    let on = |wire: &Arc<Wire>| {
        let builder = QuicTransport::builder().trust(everybody()).quinn_socket(Arc::clone(wire) as _);
        builder.bind(localhost()).unwrap()
    };
    let pair = Pair::of(on(&here), on(&there)).await;
    let source = memory(&noise(1, 100_000));
    let (sent, received) = soon(async {
        tokio::join!(pair.to_bob.send_chunk_verified(&source), pair.to_alice.recv_chunk_verified())
    })
    .await;
    assert_eq!((sent.unwrap(), received.unwrap().unwrap()), (100_000, noise(1, 100_000).into()));
    assert_eq!(here.destinations(), [pair.bob.local_addr().unwrap()].into());
    assert_eq!(there.destinations(), [pair.alice.local_addr().unwrap()].into());
    assert!(here.sent().len() > 100_000);
}

#[tokio::test]
async fn twenty_chunks_side_by_side_use_one_connection_and_are_not_mixed_up() {
    let pair = Pair::new().await;
    let mut tasks = JoinSet::new();
    for seed in 0..20 {
        let (to_bob, to_alice) = (Arc::clone(&pair.to_bob), Arc::clone(&pair.to_alice));
        tasks.spawn(async move {
            let sent = to_bob.send_chunk_verified(&memory(&noise(seed, 2_000_000))).await.unwrap();
            (sent, None)
        });
        // Any receiver may get any chunk; each gets one, whole.
        tasks.spawn(async move {
            let data = to_alice.recv_chunk_verified().await.unwrap().unwrap();
            (data.len() as u64, Some(data))
        });
    }
    let mut received = Vec::new();
    while let Some(done) = soon(tasks.join_next()).await {
        let (len, data) = done.unwrap();
        assert_eq!(len, 2_000_000);
        received.extend(data);
    }
    let mut expected: Vec<Bytes> = (0..20).map(|seed| noise(seed, 2_000_000).into()).collect();
    expected.sort_unstable();
    received.sort_unstable();
    assert!(received == expected);
    assert_eq!((pair.alice.open_connections(), pair.bob.open_connections()), (1, 1));
}

#[tokio::test]
async fn progress_comes_in_steps_of_at_most_a_buffer_and_adds_up() {
    assert_eq!(BUFFER_LEN_BYTES, 64 * 1024);
    let dir = tempfile::tempdir().unwrap();
    let data = noise(1, 1_000_000);
    let path = file(dir.path(), "file", &data);
    for buffer_len_bytes in [16 * 1024, 64 * 1024, 256 * 1024] {
        let config = TransportConfig::default().buffer_len_bytes(buffer_len_bytes);
        let pair = Pair::with(config).await;
        for source in [ChunkSource::File(path.clone()), memory(&data)] {
            let (sending, sent_steps) = steps();
            let (receiving, received_steps) = steps();
            let receive = async {
                let chunk = pair.to_alice.next_chunk().await.unwrap().unwrap();
                chunk.receive_to_memory(&ChunkExpectation::default(), &receiving).await
            };
            let (sent, received) =
                soon(async { tokio::join!(pair.to_bob.send_chunk_with(&source, &sending), receive) }).await;
            assert_eq!(sent.unwrap(), 1_000_000);
            assert!(received.unwrap() == data);
            for steps in [sent_steps, received_steps] {
                let steps = steps.lock().unwrap();
                assert!(steps.iter().all(|step| *step <= buffer_len_bytes as u64), "{steps:?}");
                assert_eq!(steps.iter().sum::<u64>(), 1_000_000);
            }
        }
    }
}

fn steps() -> (LaneOptions, Arc<Mutex<Vec<u64>>>) {
    let steps = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&steps);
    let progress = Arc::new(move |step| told.lock().unwrap().push(step));
    (LaneOptions::default().progress(progress), steps)
}

/// What is sent and not yet written is bounded by the windows and the pipelines, not by the chunk.
#[tokio::test]
async fn a_slow_receiver_holds_the_sender_back() {
    const LEN: u64 = 48 << 20;
    let config = TransportConfig::default().stream_receive_window_bytes(1 << 20);
    let pair = Pair::with(config).await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sparse");
    File::create(&path).unwrap().set_len(LEN).unwrap();

    let (sent, written, most_ahead) =
        (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let sending = LaneOptions::default().progress(Arc::new({
        let (sent, written, most_ahead) = (sent.clone(), written.clone(), most_ahead.clone());
        move |step| {
            let sent_bytes = sent.fetch_add(step, Ordering::SeqCst) + step;
            let ahead_bytes = sent_bytes.saturating_sub(written.load(Ordering::SeqCst));
            most_ahead.fetch_max(ahead_bytes, Ordering::SeqCst);
        }
    }));
    let source = ChunkSource::File(path);
    let sink = Counting { written: Arc::clone(&written), sent: Arc::clone(&sent) };
    let (outcome, received) = soon(async {
        tokio::join!(pair.to_bob.send_chunk_with(&source, &sending), pair.to_alice.recv_chunk_to_writer(sink))
    })
    .await;
    assert_eq!(outcome.unwrap(), LEN);
    assert!(received.unwrap().is_some());
    assert_eq!(written.load(Ordering::SeqCst), LEN);
    let most_ahead = most_ahead.load(Ordering::SeqCst);
    // The window, and what lies between the stream and either thread: some batches that a read may overfill.
    assert!(most_ahead <= 4 << 20, "{most_ahead}");
    assert!(most_ahead >= 1 << 19, "the receiver was not slow: {most_ahead}");
}

/// Lets the sender get as far ahead as it can at first.
struct Counting {
    written: Arc<AtomicU64>,
    sent: Arc<AtomicU64>,
}

impl Write for Counting {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        if self.written.load(Ordering::SeqCst) == 0 {
            let began = std::time::Instant::now();
            while self.sent.load(Ordering::SeqCst) < 1 << 20 && began.elapsed() < AMPLE {
                std::thread::yield_now();
            }
        }
        self.written.fetch_add(data.len() as u64, Ordering::SeqCst);
        Ok(data.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn two_thousand_sends_queue_for_the_streams_there_are() {
    let config = TransportConfig::default().max_concurrent_streams(128);
    let pair = Pair::with(config).await;
    let mut sends = JoinSet::new();
    for seed in 0..2000_u64 {
        let to_bob = Arc::clone(&pair.to_bob);
        sends.spawn(async move { to_bob.send_chunk_verified(&memory(&seed.to_le_bytes())).await });
    }
    let receive = async {
        let mut seen = vec![false; 2000];
        for _ in 0..2000 {
            let data = pair.to_alice.recv_chunk_verified().await.unwrap().unwrap();
            let seed = u64::from_le_bytes(data[..].try_into().unwrap());
            assert!(!std::mem::replace(&mut seen[seed as usize], true), "{seed} came twice");
        }
    };
    let all_sent = async {
        while let Some(sent) = sends.join_next().await {
            assert_eq!(sent.unwrap().unwrap(), 8);
        }
    };
    soon(async { tokio::join!(receive, all_sent) }).await;
}

/// What waits costs no memory: of two thousand sources no more are read than there are streams.
#[tokio::test]
async fn a_send_that_queues_for_a_stream_has_read_nothing() {
    const STREAMS: u32 = 128;
    let config = TransportConfig::default().max_concurrent_streams(STREAMS);
    let pair = Pair::with(config).await;
    let mut claim = pair.to_alice.claim(transfer_id(1)).unwrap();
    let read = Arc::new(Read::default());
    let mut sends = JoinSet::new();
    for index in 0..2000 {
        let (to_bob, source) =
            (Arc::clone(&pair.to_bob), Counted { read: Arc::clone(&read), is_read: false });
        let tag = TaggedChunk { transfer: transfer_id(1), index };
        sends.spawn(async move { to_bob.send_tagged_chunk(tag, source, &LaneOptions::default()).await });
    }
    let receive = async {
        for _ in 0..2000 {
            let Some(TransferStream::Chunk(chunk)) = claim.next().await else { panic!("no chunk") };
            let (expected, options) = (ChunkExpectation::default(), LaneOptions::default());
            assert_eq!(chunk.receive_to_memory(&expected, &options).await.unwrap().len(), 16);
        }
    };
    let all_sent = async {
        while let Some(sent) = sends.join_next().await {
            assert_eq!(sent.unwrap().unwrap().len_bytes, 16);
        }
    };
    soon(async { tokio::join!(receive, all_sent) }).await;
    let most = read.most.load(Ordering::SeqCst);
    assert!((1..=STREAMS).contains(&most), "{most}");
}

/// How many sources have been read and not been dropped, now and at most.
#[derive(Default)]
struct Read {
    now: AtomicU32,
    most: AtomicU32,
}

struct Counted {
    read: Arc<Read>,
    is_read: bool,
}

impl ChunkRead for Counted {
    fn len_bytes(&self) -> u64 {
        16
    }

    fn read(&mut self, _: usize) -> Result<Bytes, SourceError> {
        self.is_read = true;
        let now = self.read.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.read.most.fetch_max(now, Ordering::SeqCst);
        Ok(Bytes::from_static(&[7; 16]))
    }

    fn check_unchanged(&mut self) -> Result<(), SourceError> {
        Ok(())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if self.is_read {
            self.read.now.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

#[tokio::test]
async fn a_slow_source_and_a_slow_sink_are_measured() {
    let pair = Pair::new().await;
    let mut claim = pair.to_alice.claim(transfer_id(1)).unwrap();
    let (sending, receiving) = (StepClock::new(), StepClock::new());
    let tag = TaggedChunk { transfer: transfer_id(1), index: 0 };
    let send_options = LaneOptions::default().steps(sending.clone());
    let send = pair.to_bob.send_tagged_chunk(tag, Slow(0), &send_options);
    let receive = async {
        let Some(TransferStream::Chunk(chunk)) = claim.next().await else { panic!("no chunk") };
        let options = LaneOptions::default().buffer_len_bytes(SLOW_STEP_BYTES).steps(receiving.clone());
        chunk.receive(Slow::LEN_BYTES, Slow(0), &options).await.unwrap();
    };
    soon(async { tokio::join!(receive, async { send.await.unwrap() }) }).await;
    let slept = SLOW_STEP * (Slow::LEN_BYTES / SLOW_STEP_BYTES as u64) as u32;
    for clock in [sending, receiving] {
        let [disk, digest, limit, network] = clock.spent();
        assert!(disk >= slept && !digest.is_zero() && limit.is_zero() && !network.is_zero(), "{clock:?}");
    }
}

/// Takes its time for each piece, however much it has given or taken.
struct Slow(u64);

const SLOW_STEP: Duration = Duration::from_millis(10);

const SLOW_STEP_BYTES: usize = 1000;

impl Slow {
    const LEN_BYTES: u64 = 20 * SLOW_STEP_BYTES as u64;
}

fn take_time(steps: u32) {
    let began_at = std::time::Instant::now();
    while began_at.elapsed() < SLOW_STEP * steps {
        std::thread::park_timeout(SLOW_STEP);
    }
}

impl ChunkRead for Slow {
    fn len_bytes(&self) -> u64 {
        Self::LEN_BYTES
    }

    fn read(&mut self, _: usize) -> Result<Bytes, SourceError> {
        take_time(1);
        self.0 += SLOW_STEP_BYTES as u64;
        Ok(Bytes::from_static(&[7; SLOW_STEP_BYTES]))
    }

    fn check_unchanged(&mut self) -> Result<(), SourceError> {
        Ok(())
    }
}

impl ChunkSink for Slow {
    type Output = u64;
    type Error = std::io::Error;

    fn write(&mut self, data: &[u8]) -> Result<(), std::io::Error> {
        take_time(data.len().div_ceil(SLOW_STEP_BYTES) as u32);
        self.0 += data.len() as u64;
        Ok(())
    }

    fn commit(self, verified: Verified) -> Result<(Stored, u64), std::io::Error> {
        Ok((verified.stored(Durability::Verified), self.0))
    }
}

#[tokio::test]
async fn a_sender_that_goes_away_says_cancelled_and_not_end() {
    let pair = Pair::new().await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    let source = memory(&noise(1, 8 << 20));
    let mut sending = Box::pin(pair.to_bob.send_chunk_verified(&source));
    let chunk = tokio::select! {
        sent = &mut sending => panic!("{sent:?}"),
        chunk = soon(pair.to_alice.next_chunk()) => chunk.unwrap().unwrap(),
    };
    let (expected, options) = (ChunkExpectation::default(), LaneOptions::default());
    let mut receiving = Box::pin(chunk.receive_to_path(&path, &expected, &options));
    // Until a file has been begun.
    let begun = async {
        while fs::read_dir(dir.path()).unwrap().next().is_none() {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        sent = &mut sending => panic!("{sent:?}"),
        received = &mut receiving => panic!("{received:?}"),
        () = soon(begun) => {}
    }
    drop(sending);
    let outcome = soon(receiving).await;
    let cancelled = matches!(outcome, Err(RecvChunkError::Stream(StreamError::Reset(Code::Cancelled))));
    assert!(cancelled, "{outcome:?}");
    assert!(fs::read_dir(dir.path()).unwrap().next().is_none(), "nothing is left");
    pair.expect_works().await;
}

/// Whatever happens to a file between the first byte and the last, no digest is sent.
#[tokio::test]
async fn a_file_that_changes_while_it_is_sent_is_never_accepted() {
    let raw_pair = RawPair::new().await;
    let dir = tempfile::tempdir().unwrap();
    let data = noise(1, 8 << 20);
    type Change = fn(&Path, &[u8]);
    let changes: [(&str, Change); 5] = [
        ("grows", |path, _| File::options().append(true).open(path).unwrap().write_all(b"!").unwrap()),
        ("shrinks", |path, _| File::options().write(true).open(path).unwrap().set_len(7 << 20).unwrap()),
        ("is replaced by another", |path, data| {
            let other = path.with_extension("new");
            fs::write(&other, data).unwrap();
            fs::rename(other, path).unwrap();
        }),
        ("vanishes", |path, _| fs::remove_file(path).unwrap()),
        ("is written over, its time set back", |path, data| {
            let before = fs::metadata(path).unwrap().modified().unwrap();
            fs::write(path, vec![1; data.len()]).unwrap();
            File::options().write(true).open(path).unwrap().set_modified(before).unwrap();
        }),
    ];
    for (name, change) in changes {
        let path = file(dir.path(), "file", &data);
        let source = ChunkSource::File(path.clone());
        let play = async {
            let mut stream = raw_pair.accept().await;
            change(&path, &data);
            stream.answer().await
        };
        let (sent, (received, end)) =
            soon(async { tokio::join!(raw_pair.peer.send_chunk_verified(&source), play) }).await;
        assert!(matches!(sent, Err(SendChunkError::Source(SourceError::Changed))), "{name}: {sent:?}");
        assert_eq!(end, End::Reset(Code::SourceChanged), "{name}");
        assert!(received.len() < 8 + data.len() + 32, "{name}");
    }
}

#[tokio::test]
async fn what_is_no_file_is_an_error_before_a_stream_is_opened() {
    let raw_pair = RawPair::new().await;
    let dir = tempfile::tempdir().unwrap();
    let mut paths = vec![dir.path().join("missing"), dir.path().to_owned()];
    #[cfg(unix)]
    {
        let pipe = dir.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR).unwrap();
        paths.push(pipe);
    }
    for path in paths {
        let outcome = soon(raw_pair.peer.send_chunk_verified(&ChunkSource::File(path.clone()))).await;
        let refused = matches!(outcome, Err(SendChunkError::Source(SourceError::Io(_))));
        assert!(refused, "{path:?}: {outcome:?}");
    }
    let probe = raw_pair.peer.open_stream(Bytes::from_static(b"x")).await.unwrap();
    assert_eq!(raw_pair.accept().await.recv.id().index(), 0, "the first stream of all");
    drop(probe);
}

/// The stream that was opened with the dial serves the first use; giving that up loses nothing.
#[tokio::test]
async fn a_first_use_that_is_given_up_leaves_the_next_one_its_streams() {
    let pair = Pair::new().await;
    let begun = pair.to_bob.open_stream(Bytes::from_static(b"half a hea")).await.unwrap();
    drop(begun);
    pair.expect_works().await;
    assert!(Arc::ptr_eq(&soon(pair.alice.connect_to(addr_of(&pair.bob))).await.unwrap(), &pair.to_bob));
}
