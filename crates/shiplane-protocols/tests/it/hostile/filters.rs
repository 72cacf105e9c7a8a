//! Peers that pass over filters, and filters without end.

use std::{fs, sync::Arc, time::Duration};

use shiplane_files::internals::{Destination, DestinationError, FilterRules, Filters};
use shiplane_protocols::internals::{
    Fetch, FetchRequest, OpenFilters,
    sync::{SyncDirection, SyncRequest},
    transfer::TransferError,
};
use shiplane_rpc::{CallError, FaultCode, Method, RpcClient};
use tempfile::TempDir;

use super::{
    FETCH_OPEN, FetchOpen, PATIENT, RawFilters, TransferShape, directory, file,
    liar::{Liar, end, published, receive_options, script, small_chunks, transfer_error},
    receiver::all_of_it,
};
use crate::{
    harness::{World, tree},
    push::names::{RawOpened, RawShape, open, raw},
};

fn excluding(pattern: &str) -> Arc<Filters> {
    let rules = FilterRules { patterns: vec![pattern.to_owned()], ..FilterRules::default() };
    Filters::new(rules).unwrap().into()
}

#[tokio::test]
async fn a_provider_that_sends_what_the_receiver_excludes_breaks_the_protocol() {
    for (manifest, total_bytes) in
        [(vec![file("a.o", 1)], 1), (vec![directory("d"), directory("d/x.o")], 0), (vec![file("z", 1)], 1)]
    {
        let told = format!("{manifest:?}");
        let entries = manifest.len() as u64;
        let lie = script(move |mut fixture| {
            let manifest = manifest.clone();
            async move {
                fixture.say(&manifest).await;
                fixture.say(&[end(entries, total_bytes)]).await;
                fixture.linger().await;
            }
        });
        let liar = Liar::meet(PATIENT, TransferShape::Contents, lie).await;
        let listed = Some(vec![b"a.o".to_vec(), b"d".to_vec()]);
        let rules = FilterRules { patterns: vec!["*.o".to_owned()], listed, ..FilterRules::default() };
        let filters = Filters::new(rules).unwrap().into();
        let request = FetchRequest { path: b"it".to_vec(), filters, ..FetchRequest::default() };
        let options = small_chunks();
        let fetch = Fetch::open(&liar.rpc, request, &options).await.unwrap();
        let dir = TempDir::new().unwrap();
        let target = Destination::open(dir.path(), fetch.shape(), fetch.job(), receive_options()).unwrap();
        let fetched =
            tokio::time::timeout(PATIENT / 2, fetch.receive(target, &options, Arc::new(|_| ()))).await;
        let error = transfer_error(fetched.expect("no liar holds a get up for long"));
        let is_told = matches!(error, TransferError::Destination(DestinationError::NotRequested { .. }));
        assert!(is_told, "{told}: {error}");
        assert!(published(&dir).iter().all(|name| name == "d"), "{told}");
    }
}

#[tokio::test]
async fn an_honest_provider_does_not_send_what_is_excluded() {
    let world = World::new(|source| {
        for path in ["a.c", "a.o", "d/b.o"] {
            fs::create_dir_all(source.join(path).parent().unwrap()).unwrap();
            fs::write(source.join(path), path).unwrap();
        }
    });
    let client = world.admitted().await;
    let request = FetchRequest { filters: excluding("*.o"), ..FetchRequest::of(b"") };
    let fetch = Fetch::open(&client, request, &world.options).await.unwrap();
    let target = world.destination(&fetch).unwrap();
    fetch.receive(target, &world.options, Arc::new(|_| ())).await.unwrap();
    let found: Vec<_> = tree(&world.dest()).into_keys().collect();
    assert_eq!(found, ["a.c".as_ref() as &std::path::Path, "d".as_ref()]);
}

/// Filters that no server may take, and what it answers.
fn absurd() -> Vec<(RawFilters, FaultCode)> {
    let many = |pattern: &str, count: usize| vec![pattern.to_owned(); count];
    let list = |path: &str, count: usize| Some(vec![path.as_bytes().to_vec(); count]);
    let none = RawFilters::default;
    vec![
        (RawFilters { patterns: many("x", 40_000), ..none() }, FaultCode::TooLarge),
        (RawFilters { patterns: many(&"x".repeat(40_000), 1), ..none() }, FaultCode::TooLarge),
        (RawFilters { patterns: many("[a-b]*[c-d]**", 3000), ..none() }, FaultCode::TooLarge),
        (RawFilters { listed: list("x", 90_000), ..none() }, FaultCode::TooLarge),
        (RawFilters { listed: list(&"x/".repeat(500_000), 1), ..none() }, FaultCode::TooLarge),
        (RawFilters { patterns: many("a[b", 1), ..none() }, FaultCode::InvalidRequest),
        (RawFilters { listed: list("../x", 1), ..none() }, FaultCode::InvalidRequest),
        (RawFilters { listed: list("/x", 1), ..none() }, FaultCode::InvalidRequest),
    ]
}

#[tokio::test]
async fn filters_without_end_or_sense_are_refused_by_every_call_that_opens() {
    let world = World::syncing();
    let client = world.admitted_by(world.ticket_to_write("")).await;
    for (filters, code) in absurd() {
        let fetch = FetchOpen { filters: filters.clone(), ..all_of_it([1; 16]) };
        assert_eq!(refusal(&client, FETCH_OPEN, &fetch).await, code, "fetch");
        let mut push = raw(2, b"new", RawShape::Contents);
        push.filters = filters.clone();
        match open(&client, &push).await {
            Err(CallError::Fault(fault)) => assert_eq!(fault.code, code, "push"),
            other => panic!("{other:?}"),
        }
        let RawFilters { patterns, listed, ignore_files, one_file_system } = filters;
        let sync = SyncRequest {
            sync: [3; 16],
            path: b"new".to_vec(),
            list: None,
            dry_run: false,
            source: [0; 32],
            digest: 2,
            mode: None,
            filters: OpenFilters { patterns, listed, ignore_files, one_file_system },
            attributes: false,
            watch: None,
            direction: SyncDirection::Both,
        };
        const SYNC_OPEN: Method<SyncRequest, ()> = Method::new("sync.open");
        assert_eq!(refusal(&client, SYNC_OPEN, &sync).await, code, "sync");
    }
    assert!(tree(&world.source()).is_empty(), "nothing was made");
    // The refused ids are not taken.
    let sane = RawFilters { patterns: vec!["*.o".to_owned()], ..RawFilters::default() };
    let mut push = raw(2, b"new", RawShape::Contents);
    push.filters = sane;
    assert!(matches!(open(&client, &push).await, Ok(RawOpened::Ready { .. })));
}

async fn refusal<Req: serde::Serialize, Resp: serde::de::DeserializeOwned>(
    client: &RpcClient,
    method: Method<Req, Resp>,
    request: &Req,
) -> FaultCode {
    match client.call_typed(method, request, Duration::from_secs(10)).await {
        Err(CallError::Fault(fault)) => fault.code,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("not refused"),
    }
}
