//! Two honest sides: offered chunks arrive, whatever the receiver has already.

use std::{
    fs,
    io::Write,
    path::Path,
    sync::{Arc, Mutex},
};

use shiplane_files::internals::{DestinationError, SourceRoot};
use shiplane_protocols::{
    Compression,
    internals::{
        Fetch, FetchError, FetchRequest, Push, PushRequest,
        transfer::{
            EventFn, FilesReport, MemoryBudget, OutputStream, Target, TransferError, TransferEvent,
            TransferOptions,
        },
    },
};
use shiplane_rpc::RpcClient;
use shiplane_wire::{DigestAlgorithm, limits};

use crate::{
    harness::{World, noise, options, tree},
    push,
};

/// Fetches as if nothing of it were here.
async fn fetch_new(
    world: &World,
    client: &RpcClient,
    path: &str,
    events: EventFn,
) -> Result<FilesReport, FetchError> {
    let request = FetchRequest { path: path.into(), is_new_here: true, ..FetchRequest::default() };
    let fetch = Fetch::open(client, request, &world.options).await?;
    let target = world.destination(&fetch).map_err(TransferError::from)?;
    fetch.receive(target, &world.options, events).await
}

fn silent() -> EventFn {
    Arc::new(|_| ())
}

fn small_tree(at: &Path) {
    fs::write(at.join("empty"), b"").unwrap();
    fs::write(at.join("hello"), b"hello").unwrap();
    fs::create_dir_all(at.join("a/b/void")).unwrap();
    fs::write(at.join("a/large"), noise(1, 300_000)).unwrap();
    fs::write(at.join("a/b/text"), "the same line\n".repeat(5000)).unwrap();
}

fn large_file(at: &Path) {
    fs::write(at.join("large"), noise(2, 5 * limits::MAX_OFFERED_BYTES as usize + 1)).unwrap();
}

fn nothing(_: &Path) {}

/// More than may be offered, in bytes and in chunks.
fn many_small_files(at: &Path) {
    for i in 0..300 {
        fs::write(at.join(format!("f{i}")), noise(i, 100 * i as usize % 9000)).unwrap();
    }
}

/// More than is listed before the receiver admits more.
fn many_empty_ones(at: &Path) {
    for i in 0..400 {
        fs::create_dir(at.join(format!("d{i}"))).unwrap();
        fs::write(at.join(format!("d{i}/empty")), b"").unwrap();
    }
    fs::write(at.join("last"), noise(3, 200_000)).unwrap();
}

/// Files that have chunks of their own and of which some do not fit any more.
fn middling_files(at: &Path) {
    for i in 0..12 {
        fs::write(at.join(format!("m{i}")), noise(i, 100_000 + 30_000 * i as usize)).unwrap();
    }
}

const FILLS: [fn(&Path); 6] =
    [small_tree, large_file, nothing, many_small_files, many_empty_ones, middling_files];

fn all_options() -> [TransferOptions; 5] {
    [
        options(),
        TransferOptions { lanes: 1, ..options() },
        TransferOptions { compression: Compression::Always, ..options() },
        TransferOptions { digest: DigestAlgorithm::Sha256, ..options() },
        TransferOptions { memory: Some(MemoryBudget::new(NARROW_BYTES)), ..options() },
    ]
}

/// Gives the client a budget beside the server's.
fn own_memory(world: &mut World) {
    if world.options.memory.is_some() {
        world.options.memory = Some(MemoryBudget::new(NARROW_BYTES));
    }
}

/// Less than two chunks count.
const NARROW_BYTES: u64 = 100_000;

#[tokio::test]
async fn what_is_fetched_for_the_first_time_arrives_equal() {
    for (number, fill) in FILLS.into_iter().enumerate() {
        for options in all_options() {
            let shown = format!("{number}: {options:?}");
            let mut world = World::with_options(options, fill);
            world.receive.digest = world.options.digest;
            own_memory(&mut world);
            let client = world.admitted().await;
            let report = fetch_new(&world, &client, "", silent()).await;
            let report = report.unwrap_or_else(|error| panic!("{shown}: {error}"));
            assert!(tree(&world.dest()) == tree(&world.source()), "{shown}");
            assert_eq!(report.received_bytes, report.total_bytes, "{shown}");
        }
    }
}

#[tokio::test]
async fn what_is_pushed_for_the_first_time_arrives_equal() {
    for (number, fill) in FILLS.into_iter().enumerate() {
        for options in all_options() {
            let shown = format!("{number}: {options:?}");
            let mut world = World::writable_with(options);
            own_memory(&mut world);
            fill(&world.dest());
            let client = world.admitted_by(world.ticket_to_write("")).await;
            let source = SourceRoot::open(&world.dest()).unwrap().resolve(b"").unwrap();
            let request = PushRequest { name: Some(b"new".to_vec()), ..push::request("") };
            let push = Push::open(&client, source, &request, &world.options).await.unwrap();
            let report = push.send(&world.options, silent()).await;
            let report = report.unwrap_or_else(|error| panic!("{shown}: {error}"));
            assert!(tree(&world.source().join("new")) == tree(&world.dest()), "{shown}");
            assert_eq!(report.sent_bytes, report.total_bytes, "{shown}");
        }
    }
}

#[tokio::test]
async fn a_single_file_arrives_equal_on_disk_and_in_a_stream() {
    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);
    impl Write for Shared {
        fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(data);
            Ok(data.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    for len in [0, 1, 65_536, 65_537, 1 << 20, (1 << 20) + 1, 3_000_000] {
        let content = noise(4, len);
        let world = World::new(|source| fs::write(source.join("x"), &content).unwrap());
        let client = world.admitted().await;
        fetch_new(&world, &client, "x", silent()).await.unwrap();
        assert!(fs::read(world.dest().join("x")).unwrap() == content, "{len}");
        let request = FetchRequest { path: b"x".to_vec(), is_new_here: true, ..FetchRequest::default() };
        let fetch = Fetch::open(&client, request, &world.options).await.unwrap();
        let out = Shared::default();
        fetch
            .receive(Target::stream(&OutputStream::new(out.clone())), &world.options, silent())
            .await
            .unwrap();
        assert!(*out.0.lock().unwrap() == content, "{len}");
    }
}

#[tokio::test]
async fn a_stale_guess_costs_no_more_than_what_is_offered() {
    for fill in FILLS {
        // Whatever comes first: what is declined, or what declines it.
        for _ in 0..5 {
            let world = World::with_options(options(), fill);
            let client = world.admitted().await;
            fetch_new(&world, &client, "", silent()).await.unwrap();
            let again = fetch_new(&world, &client, "", silent()).await.unwrap();
            assert_eq!((again.received_bytes, again.summary.published_files), (0, 0));
            assert_eq!(again.entries, again.summary.identical_files + again.summary.directories);
            assert!(tree(&world.dest()) == tree(&world.source()));
        }
    }
}

#[tokio::test]
async fn a_stale_guess_where_files_are_compared_ends_well() {
    let mut world = World::with_options(options(), middling_files);
    let client = world.admitted().await;
    fetch_new(&world, &client, "", silent()).await.unwrap();
    world.receive.verify = true;
    let again = fetch_new(&world, &client, "", silent()).await.unwrap();
    assert_eq!((again.received_bytes, again.summary.identical_files), (0, 12));
}

#[tokio::test]
async fn a_stale_guess_where_a_part_is_here_brings_the_rest() {
    for fill in FILLS {
        let mut world = World::with_options(options(), fill);
        world.receive.existing = shiplane_files::internals::Existing::Replace;
        let client = world.admitted().await;
        fetch_new(&world, &client, "", silent()).await.unwrap();
        // Of each three files one is as it was, one is gone, and one is something else.
        let files = tree(&world.dest()).into_iter().filter(|(_, content)| content.is_some());
        for (number, (path, content)) in files.enumerate() {
            let path = world.dest().join(path);
            match number % 3 {
                0 => fs::remove_file(path).unwrap(),
                1 => fs::write(path, [b"another ", &content.unwrap()[..]].concat()).unwrap(),
                _ => {}
            }
        }
        fetch_new(&world, &client, "", silent()).await.unwrap();
        assert!(tree(&world.dest()) == tree(&world.source()));
    }
}

#[tokio::test]
async fn an_interrupted_run_goes_on_though_it_is_said_to_be_new() {
    let world = World::new(|source| fs::write(source.join("large"), noise(7, 4_000_000)).unwrap());
    let client = world.admitted().await;
    let (half, reached) = tokio::sync::oneshot::channel();
    let half = Mutex::new((0, Some(half)));
    let run = fetch_new(
        &world,
        &client,
        "large",
        Arc::new(move |event| {
            if let TransferEvent::Moved { len_bytes } = event {
                let mut half = half.lock().unwrap();
                half.0 += len_bytes;
                if half.0 > 2_000_000
                    && let Some(tell) = half.1.take()
                {
                    tell.send(()).unwrap();
                }
            }
        }),
    );
    tokio::select! {
        result = run => panic!("it was to be interrupted: {result:?}"),
        _ = reached => {}
    }
    let report = loop {
        // The first run's threads may hold the journal a moment longer.
        match fetch_new(&world, &client, "large", silent()).await {
            Err(FetchError::Transfer(TransferError::Destination(DestinationError::Busy { .. }))) => {
                tokio::task::yield_now().await;
            }
            other => break other.unwrap(),
        }
    };
    assert!(tree(&world.dest()) == tree(&world.source()));
    let in_flight = world.options.lanes as u64 * world.options.chunk_len_bytes;
    assert!(report.received_bytes <= 4_000_000 - 2_000_000 + 2 * in_flight, "{report:?}");
    assert!(report.summary.resumed_bytes > 0, "{report:?}");
}

#[tokio::test]
async fn a_stale_guess_that_finds_another_file_leaves_it_as_it_is() {
    let world = World::new(small_tree);
    let client = world.admitted().await;
    fs::write(world.dest().join("hello"), b"mine").unwrap();
    let error = fetch_new(&world, &client, "", silent()).await.unwrap_err();
    assert!(matches!(error, FetchError::Transfer(TransferError::Destination(_))), "{error}");
    assert_eq!(fs::read(world.dest().join("hello")).unwrap(), b"mine");
    assert!(!world.dest().join("a/large").exists(), "nothing is written");
}
