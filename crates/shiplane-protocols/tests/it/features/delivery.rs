//! Exactly-once delivery by call or chunk, whatever is lost.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use shiplane_protocols::{
    Compression, DeliverError, Deliveries, Delivery, InboxOptions, RetryPolicy, SendOptions,
    internals::Jitter, send_again, send_with_retry, transfer_auto,
};
use shiplane_rpc::{CallError, FaultCode, RpcClient};
use shiplane_transport::{ChunkSource, LaneOptions, TransportConfig};
use shiplane_wire::TransferId;

use super::pair::{Pair, Relay, impatient, memory};
use crate::harness::noise;

/// Tries again at once; what `between` does happens between two attempts.
fn at_once(between: impl Fn(usize) + Send + Sync + 'static) -> RetryPolicy {
    let failures = AtomicUsize::new(0);
    let jitter = Jitter::by(move |_| {
        between(failures.fetch_add(1, Ordering::SeqCst) + 1);
        Duration::ZERO
    });
    RetryPolicy::default().max_attempts(4).jitter(jitter)
}

fn never() -> RetryPolicy {
    at_once(|_| panic!("it must not be tried again"))
}

/// Sends by lane, and calls `moved` with the bytes moved by the first attempt so far.
fn watching(moved: impl Fn(u64) + Send + Sync + 'static) -> SendOptions {
    let total = Mutex::new(0);
    let progress = Arc::new(move |step| {
        let mut total = total.lock().unwrap();
        *total += step;
        moved(*total);
    });
    let lane = LaneOptions::default().progress(progress);
    SendOptions::default().lane(lane).call_threshold_bytes(0)
}

/// The one delivery, and that there is no other waiting.
async fn the_only(deliveries: &mut Deliveries) -> Vec<u8> {
    let delivered = deliveries.next().await.unwrap();
    let another = tokio::time::timeout(Duration::from_millis(50), deliveries.next()).await;
    assert!(another.is_err(), "delivered twice");
    delivered.data.into()
}

#[tokio::test]
async fn a_kilobyte_goes_by_call_and_a_megabyte_by_lane() {
    let pair = Pair::new();
    let (mut deliveries, accepted) = pair.bob_takes(InboxOptions::default());
    let client = RpcClient::new(pair.alice.connect_to(pair.bob_addr()).await.unwrap());
    let options = SendOptions::default();
    for (len, by_call) in
        [(0, true), (1024, true), (64 * 1024, true), (64 * 1024 + 1, false), (1 << 20, false)]
    {
        let data = noise(len as u64, len);
        let carried = transfer_auto(&client, &memory(data.clone()), &options).await.unwrap();
        assert_eq!((carried.by_call, carried.result.bytes_transferred), (by_call, len as u64));
        let delivered = deliveries.next().await.unwrap();
        assert_eq!(delivered.data, data);
        assert_eq!(delivered.peer, pair.alice.peer_id());
    }
    let options = SendOptions::default().call_threshold_bytes(10);
    let carried = transfer_auto(&client, &memory(vec![7; 11]), &options).await.unwrap();
    assert!(!carried.by_call, "the threshold is the caller's");
    assert_eq!(accepted.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn ten_megabytes_of_text_cost_less_than_half() {
    let pair = Pair::new();
    let (mut deliveries, _) = pair.bob_takes(InboxOptions::default());
    let client = RpcClient::new(pair.alice.connect_to(pair.bob_addr()).await.unwrap());
    let text: Vec<u8> =
        (0..).flat_map(|n: u64| format!("{n}: {} went by\n", n * n).into_bytes()).take(10_000_000).collect();
    let options = SendOptions::default().compression(Compression::Auto);
    let before = client.connection().stats().sent_bytes;
    let carried = transfer_auto(&client, &memory(text.clone()), &options).await.unwrap();
    let on_the_wire = client.connection().stats().sent_bytes - before;
    assert_eq!(carried.result.bytes_transferred, 10_000_000);
    assert!(carried.wire_bytes < 5_000_000, "{carried:?}");
    assert!(on_the_wire < 5_000_000, "{on_the_wire}");
    assert_eq!(deliveries.next().await.unwrap().data, text);

    let random = noise(1, 1_000_000);
    let carried = transfer_auto(&client, &memory(random.clone()), &options).await.unwrap();
    assert!((1_000_000..1_000_100).contains(&carried.wire_bytes), "stored as it is: {carried:?}");
    assert_eq!(deliveries.next().await.unwrap().data, random);
}

#[tokio::test]
async fn unread_deliveries_stay_within_the_limit() {
    let pair = Pair::new();
    let small = InboxOptions::default().max_len_bytes(60_000).max_held_bytes(100_000);
    let (mut deliveries, _) = pair.bob_takes(small);
    let client = RpcClient::new(pair.alice.connect_to(pair.bob_addr()).await.unwrap());
    for threshold_bytes in [0, 100_000] {
        let options = SendOptions::default().call_threshold_bytes(threshold_bytes);
        let send = async |len: usize| transfer_auto(&client, &memory(noise(len as u64, len)), &options).await;
        send(60_000).await.unwrap();
        let full = send(60_000).await.unwrap_err();
        assert!(
            matches!(&full, DeliverError::Call(CallError::Fault(fault)) | DeliverError::Put(CallError::Fault(fault))
                if fault.code == FaultCode::Busy),
            "{full}"
        );
        send(30_000).await.unwrap();
        assert_eq!(deliveries.next().await.unwrap().data.len(), 60_000);
        send(60_000).await.unwrap();
        for len in [30_000, 60_000] {
            assert_eq!(deliveries.next().await.unwrap().data.len(), len);
        }
    }
}

#[tokio::test]
async fn a_lost_acknowledgement_delivers_once() {
    let pair = Pair::with(impatient());
    let (mut deliveries, _) = pair.bob_takes(InboxOptions::default());
    let relay = Relay::to(pair.bob_addr()).await;
    let (lose, find) = (relay.lose(), relay.lose());
    // All of it is on its way, and from now on nothing comes back, the status least of all.
    let options = watching(move |moved| lose.to_alice(moved == 5000));
    let policy = at_once(move |_| find.to_alice(false));
    let data = noise(1, 5000);
    let report =
        send_with_retry(&pair.alice, pair.bob_behind(&relay), &memory(data.clone()), &policy, &options).await;
    let report = report.unwrap();
    assert_eq!((report.attempts, report.delivery), (2, Delivery::Verified));
    assert_eq!((report.result.bytes_transferred, report.wire_bytes), (5000, 0), "not even sent again");
    assert_eq!(the_only(&mut deliveries).await, data);
}

#[tokio::test]
async fn without_another_attempt_a_lost_acknowledgement_is_unknown_and_can_be_settled_later() {
    let pair = Pair::with(impatient());
    let (mut deliveries, _) = pair.bob_takes(InboxOptions::default());
    let relay = Relay::to(pair.bob_addr()).await;
    let (lose, peer) = (relay.lose(), pair.bob_behind(&relay));
    let options = watching(move |moved| lose.to_alice(moved == 5000));
    let once = RetryPolicy::default().max_attempts(1);
    let source = memory(noise(1, 5000));
    let failed = send_with_retry(&pair.alice, peer, &source, &once, &options).await.unwrap_err();
    assert_eq!(failed.report.delivery, Delivery::Unknown);
    assert!(!failed.report.result.success && !failed.report.result.checksum_verified);

    relay.lose().to_alice(false);
    let plain = SendOptions::default();
    let again = send_again(&pair.alice, peer, failed.transfer, &source, &once, &plain).await.unwrap();
    assert_eq!(again.delivery, Delivery::Verified);
    let other = memory(noise(2, 5000));
    let conflict = send_again(&pair.alice, peer, failed.transfer, &other, &once, &plain).await.unwrap_err();
    assert!(matches!(conflict.error, DeliverError::Conflict), "{conflict}");
    the_only(&mut deliveries).await;
}

#[tokio::test]
async fn a_transfer_that_is_cut_midway_is_begun_anew_under_the_same_id() {
    let pair = Pair::with(impatient());
    let (mut deliveries, _) = pair.bob_takes(InboxOptions::default());
    let relay = Relay::to(pair.bob_addr()).await;
    let (lose, find) = (relay.lose(), relay.lose());
    let furthest = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&furthest);
    let cut = std::sync::Once::new();
    let options = watching(move |moved| {
        seen.lock().unwrap().push(moved);
        cut.call_once(|| lose.to_bob(true));
    });
    let policy = at_once(move |_| find.to_bob(false));
    let data = noise(1, 8_000_000);
    let peer = pair.bob_behind(&relay);
    let report = send_with_retry(&pair.alice, peer, &memory(data.clone()), &policy, &options).await.unwrap();
    assert_eq!((report.attempts, report.delivery), (2, Delivery::Verified));
    assert_eq!(report.wire_bytes, 8_000_000);
    assert_eq!(furthest.lock().unwrap().last(), Some(&8_000_000), "no step back, no byte counted twice");
    assert_eq!(the_only(&mut deliveries).await, data);
}

#[tokio::test]
async fn dialling_is_part_of_the_attempt() {
    let pair = Pair::with(impatient());
    let (mut deliveries, _) = pair.bob_takes(InboxOptions::default());
    let relay = Relay::to(pair.bob_addr()).await;
    let find = relay.lose();
    relay.lose().to_bob(true);
    let policy = at_once(move |failures| find.to_bob(failures < 2));
    let peer = pair.bob_behind(&relay);
    let options = SendOptions::default();
    let report = send_with_retry(&pair.alice, peer, &memory(vec![7; 100]), &policy, &options).await.unwrap();
    assert_eq!(report.attempts, 3);
    assert_eq!(the_only(&mut deliveries).await, [7; 100]);
}

#[tokio::test]
async fn a_missing_file_is_not_tried_again() {
    let pair = Pair::new();
    let source = ChunkSource::File("/there/is/no/such/file".into());
    let options = SendOptions::default();
    let failed =
        send_with_retry(&pair.alice, pair.bob_addr(), &source, &never(), &options).await.unwrap_err();
    assert_eq!((failed.report.attempts, failed.report.delivery), (1, Delivery::Rejected));
}

#[tokio::test]
async fn a_delivery_over_the_inbox_limit_is_refused_before_its_first_byte() {
    let pair = Pair::new();
    let options = InboxOptions::default().max_len_bytes(100_000);
    let (_deliveries, _) = pair.bob_takes(options);
    let send = watching(|_| panic!("a byte was sent"));
    let source = memory(vec![7; 100_001]);
    let failed = send_with_retry(&pair.alice, pair.bob_addr(), &source, &never(), &send).await.unwrap_err();
    let DeliverError::Call(CallError::Fault(fault)) = &failed.error else { panic!("{failed}") };
    assert_eq!(fault.code, FaultCode::TooLarge);
}

#[tokio::test]
async fn a_full_inbox_is_tried_again_until_it_has_room() {
    let pair = Pair::new();
    let options = InboxOptions::default().max_waiting(1);
    let (deliveries, _) = pair.bob_takes(options);
    let (peer, options) = (pair.bob_addr(), SendOptions::default());
    send_with_retry(&pair.alice, peer, &memory(vec![1]), &never(), &options).await.unwrap();

    let deliveries = Arc::new(Mutex::new(deliveries));
    let emptied = Arc::clone(&deliveries);
    let policy = at_once(move |_| {
        let first = futures::FutureExt::now_or_never(emptied.lock().unwrap().next()).flatten().unwrap();
        assert_eq!(&first.data[..], [1]);
    });
    let report = send_with_retry(&pair.alice, peer, &memory(vec![2]), &policy, &options).await.unwrap();
    assert_eq!(report.attempts, 2);
}

#[tokio::test]
async fn a_connection_that_was_closed_is_dialled_anew() {
    let pair = Pair::new();
    let (mut deliveries, accepted) = pair.bob_takes(InboxOptions::default());
    let (peer, options) = (pair.bob_addr(), SendOptions::default());
    for number in 1..=2_u8 {
        let source = memory(vec![number]);
        let policy = at_once(|_| ());
        send_with_retry(&pair.alice, peer, &source, &policy, &options).await.unwrap();
        assert_eq!(&deliveries.next().await.unwrap().data[..], [number]);
        assert_eq!(accepted.load(Ordering::SeqCst), usize::from(number));
        pair.bob.close_peer(pair.alice.peer_id(), shiplane_wire::Code::NoError);
    }
}

#[tokio::test]
async fn a_hundred_sends_share_one_handshake() {
    let pair = Pair::with(TransportConfig::default());
    let (mut deliveries, accepted) = pair.bob_takes(InboxOptions::default());
    for number in 0..100_u8 {
        let options = SendOptions::default();
        let source = memory(vec![number]);
        send_with_retry(&pair.alice, pair.bob_addr(), &source, &never(), &options).await.unwrap();
        assert_eq!(&deliveries.next().await.unwrap().data[..], [number]);
    }
    assert_eq!(accepted.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn the_id_alone_tells_deliveries_apart() {
    let pair = Pair::new();
    let (mut deliveries, _) = pair.bob_takes(InboxOptions::default());
    let (transfer, options) = (TransferId::from_bytes([7; 16]), SendOptions::default());
    let peer = pair.bob_addr();
    for _ in 0..2 {
        let sent = send_again(&pair.alice, peer, transfer, &memory(vec![1]), &never(), &options).await;
        sent.unwrap();
    }
    assert_eq!(the_only(&mut deliveries).await, [1]);
    let fresh = TransferId::from_bytes([8; 16]);
    send_again(&pair.alice, peer, fresh, &memory(vec![1]), &never(), &options).await.unwrap();
    assert_eq!(the_only(&mut deliveries).await, [1], "the same content under another id is another delivery");
}
