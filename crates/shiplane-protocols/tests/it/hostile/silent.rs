//! Peers that send signs of life and little or no data.

use std::fs;

use bytes::Bytes;
use shiplane_protocols::internals::transfer::TransferError;
use shiplane_rpc::CallError;
use shiplane_transport::{
    StreamError,
    internals::{BiStream, RecvHalf},
};
use shiplane_wire::{Code, ProviderRecord, ReceiverRecord, TaggedChunk, TransferId};
use tokio::time::{Interval, interval};

use super::{
    FETCH_OPEN, IMPATIENT, PATIENT, TransferShape, encode, file,
    liar::{Fixture, end, fetch_within, script, transfer_error},
    receiver::{Begun, TRANSFER, all_of_it, begun_by, manifest_of},
    unread::encoded,
};
use crate::{
    harness::{World, options, quick},
    push::names::{RawOpened, RawShape, open, raw},
};

/// Several times in the deadline of any victim here.
fn often() -> Interval {
    interval(IMPATIENT / 8)
}

fn alive(scanned_entries: u64) -> ProviderRecord {
    ProviderRecord::Alive { scanned_entries, bytes_per_second: 0 }
}

/// Says that it lives, until the victim hangs up.
async fn live(mut fixture: Fixture, scanned_entries: impl Fn(u64) -> u64) {
    let mut often = often();
    for said in 0.. {
        often.tick().await;
        if fixture.send.write(encode(&alive(scanned_entries(said)))).await.is_err() {
            return;
        }
    }
}

#[tokio::test]
async fn a_provider_that_promises_chunks_and_only_lives_is_given_up() {
    let (result, _dir) = fetch_within(
        IMPATIENT,
        TransferShape::Contents,
        script(|mut fixture| async move {
            fixture.say(&[file("x", 5), end(1, 5)]).await;
            fixture.want().await.unwrap();
            live(fixture, |said| said).await;
        }),
    )
    .await;
    assert!(matches!(transfer_error(result), TransferError::Silent { .. }));
}

#[tokio::test]
async fn a_provider_that_lists_tiny_files_and_sends_none_is_given_up_as_soon() {
    const FILES: u64 = 256;
    let (result, _dir) = fetch_within(
        IMPATIENT,
        TransferShape::Contents,
        script(|mut fixture| async move {
            let files: Vec<_> = (0..FILES).map(|number| file(&number.to_string(), 1)).collect();
            while !matches!(fixture.hear().await, Some(ReceiverRecord::Admit { bytes }) if bytes > FILES << 10)
            {
            }
            fixture.say(&files).await;
            fixture.say(&[end(FILES, FILES)]).await;
            live(fixture, |_| FILES).await;
        }),
    )
    .await;
    assert!(matches!(transfer_error(result), TransferError::Silent { .. }));
}

#[tokio::test]
async fn a_provider_that_lists_nothing_and_only_lives_is_given_up() {
    // What it claims to have looked at does not help it for ever.
    for claims in [0, 10_000] {
        let (result, _dir) = fetch_within(
            IMPATIENT,
            TransferShape::Contents,
            script(move |fixture| live(fixture, move |said| said * claims)),
        )
        .await;
        assert!(matches!(transfer_error(result), TransferError::Silent { .. }), "{claims}");
    }
}

#[tokio::test]
async fn a_provider_that_looks_at_much_that_it_does_not_offer_is_waited_for() {
    let (result, dir) = fetch_within(
        IMPATIENT,
        TransferShape::Contents,
        script(|mut fixture| async move {
            let mut often = often();
            // Three times the deadline.
            for said in 0..24 {
                often.tick().await;
                fixture.say(&[alive(20 * said)]).await;
            }
            fixture.say(&[file("x", 0), end(1, 0)]).await;
            fixture.linger().await;
        }),
    )
    .await;
    // It does not confirm what it has sent; until then all is well.
    assert!(matches!(result, Err(shiplane_protocols::internals::FetchError::Unconfirmed(_))), "{result:?}");
    assert!(dir.path().join("x").exists());
}

#[tokio::test]
async fn a_provider_that_sends_a_byte_before_each_deadline_is_given_up() {
    let (result, _dir) = fetch_within(
        IMPATIENT,
        TransferShape::Contents,
        script(|mut fixture| async move {
            fixture.say(&[file("x", 1024), end(1, 1024)]).await;
            let (index, len_bytes) = fixture.want().await.unwrap();
            let tag = TaggedChunk { transfer: fixture.transfer, index };
            let opening = [&tag.encode()[..], &len_bytes.to_le_bytes()].concat();
            let mut chunk = fixture.connection.open_stream(opening.into()).await.unwrap();
            let mut often = often();
            loop {
                often.tick().await;
                if chunk.send.write(Bytes::from_static(b"x")).await.is_err() {
                    return;
                }
            }
        }),
    )
    .await;
    assert!(matches!(transfer_error(result), TransferError::Silent { .. }));
}

#[tokio::test]
async fn a_pusher_that_promises_chunks_and_only_lives_is_given_up() {
    let world = World::writable(shiplane_protocols::internals::WriteLimits::default());
    let rpc = world.admitted_by(world.ticket_to_write("")).await;
    let request = raw(1, b"in", RawShape::Contents);
    let mut claim = rpc.connection().claim(TransferId::from_bytes(request.transfer)).unwrap();
    assert!(matches!(open(&rpc, &request).await.unwrap(), RawOpened::Ready { .. }));
    let BiStream { mut send, mut recv } = claim.records().await.unwrap();
    for record in [file("x", 5), ProviderRecord::OffersEnd, end(1, 5)] {
        send.write(encode(&record)).await.unwrap();
    }
    let lives = async {
        let mut often = often();
        while send.write(encode(&alive(1))).await.is_ok() {
            often.tick().await;
        }
    };
    let (ended, ()) = tokio::join!(
        tokio::time::timeout(4 * crate::harness::PROGRESS_TIMEOUT, async {
            while let Ok(Some(_)) = recv.read().await {}
        }),
        async { drop(tokio::time::timeout(5 * crate::harness::PROGRESS_TIMEOUT, lives).await) },
    );
    ended.expect("the server gives it up");
}

#[tokio::test]
async fn a_receiver_that_wants_nothing_and_is_silent_is_given_up() {
    let mut begun = begun_impatiently().await;
    assert_eq!(tokio::time::timeout(PATIENT, reset_of(&mut begun.records.recv)).await, Ok(Code::Timeout));
}

#[tokio::test]
async fn a_receiver_that_wants_nothing_is_given_up_whatever_else_its_connection_carries() {
    let Begun { world: _world, rpc, claim: _claim, records } = begun_impatiently().await;
    let BiStream { mut send, mut recv } = records;
    let lives = async {
        let mut often = often();
        while send.write(encoded(&[ReceiverRecord::Alive])).await.is_ok() {
            often.tick().await;
        }
        std::future::pending::<()>().await
    };
    let calls = async {
        loop {
            // The answer, that this transfer is under way, is all that the server sends.
            let taken = rpc.call_typed(FETCH_OPEN, &all_of_it(TRANSFER), PATIENT).await;
            assert!(matches!(taken, Err(CallError::Fault(_)) | Ok(_)), "{taken:?}");
        }
    };
    let given_up = async {
        tokio::select! {
            code = reset_of(&mut recv) => code,
            () = lives => unreachable!("it lives on"),
            () = calls => unreachable!("it calls on"),
        }
    };
    assert_eq!(tokio::time::timeout(PATIENT, given_up).await, Ok(Code::Timeout));
}

/// A fetch by hand of a file of five bytes, of which the manifest was read.
async fn begun_impatiently() -> Begun {
    let config = quick().progress_timeout(IMPATIENT);
    let world =
        World::with_config(config, options(), |source| fs::write(source.join("x"), b"hello").unwrap());
    let rpc = world.admitted().await;
    let mut begun = begun_by(world, rpc, all_of_it(TRANSFER)).await;
    manifest_of(&mut begun.records).await;
    begun
}

/// The code with which the server resets its records.
async fn reset_of(recv: &mut RecvHalf) -> Code {
    loop {
        match recv.read().await {
            Ok(Some(_)) => {}
            Err(StreamError::Reset(code)) => return code,
            other => panic!("the server goes on: {other:?}"),
        }
    }
}
