//! Probes: only readers may measure the path, and only a few at a time.

use shiplane_protocols::internals::measure_rate;
use shiplane_rpc::{CallError, FaultCode, RpcClient};

use crate::harness::World;

async fn refused(client: &RpcClient, path: &[u8]) -> FaultCode {
    match measure_rate(client, path, false).await {
        Err(CallError::Fault(fault)) => fault.code,
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test]
async fn both_directions_have_a_rate_and_the_connection_is_as_before() {
    let world = World::new(|root| std::fs::write(root.join("f"), "x").unwrap());
    let client = world.admitted().await;
    for upwards in [false, true, false] {
        assert!(measure_rate(&client, b"", upwards).await.unwrap() > 0);
    }
    world.fetch(&client, "f").await.unwrap();
}

#[tokio::test]
async fn only_readers_may_probe_and_each_peer_at_most_twice_at_a_time() {
    let world = World::new(|root| std::fs::create_dir(root.join("d")).unwrap());
    let below = world.admitted_by(world.ticket_below("d")).await;
    assert_eq!(refused(&below, b"").await, FaultCode::Unauthorised);
    assert_eq!(refused(&below, b"../d").await, FaultCode::PathRefused);
    assert!(measure_rate(&below, b"d", false).await.unwrap() > 0);

    let client = world.admitted().await;
    let measures = [false, true, false].map(|upwards| measure_rate(&client, b"", upwards));
    let measured = futures::future::join_all(measures).await;
    let is_busy = |measured: &Result<u64, CallError>| matches!(measured, Err(CallError::Fault(fault)) if fault.code == FaultCode::Busy);
    assert_eq!(measured.iter().filter(|measured| is_busy(measured)).count(), 1, "{measured:?}");
}
