//! Receivers that ask without end and read nothing of what they are told.

use std::{fs, time::Duration};

use bytes::{Bytes, BytesMut};
use shiplane_transport::SendHalf;
use shiplane_wire::{ReceiverRecord, Span, limits};

use super::{
    memory::{alone, assert_grown_little, resident_bytes},
    receiver::{TRANSFER, all_of_it, begun_by, manifest_of},
};
use crate::harness::{PROGRESS_TIMEOUT, World};

/// Two lists of its signatures are more than one transfer may add to a process.
const FILE_LEN_BYTES: u64 = 2 << 30;

/// What a server may take to give it up, on a busy machine: half of what it gives a receiver that chooses.
const LIMIT: Duration = Duration::from_secs(5 * PROGRESS_TIMEOUT.as_secs());

#[test]
fn block_signatures_that_nobody_reads_cost_a_server_little() {
    alone("hostile::unread::block_signatures_that_nobody_reads_cost_a_server_little", async {
        let world = World::new(|source| {
            fs::File::create(source.join("x")).unwrap().set_len(FILE_LEN_BYTES).unwrap();
        });
        let rpc = world.admitted_with_narrow_windows().await;
        let mut begun = begun_by(world, rpc, all_of_it(TRANSFER)).await;
        manifest_of(&mut begun.records).await;
        let before_bytes = resident_bytes("VmRSS:");
        let span = Span { entry: 0, offset_bytes: 0, len_bytes: FILE_LEN_BYTES };
        let average_bytes = limits::MIN_CUT_AVERAGE_BYTES;
        let asks = encoded(&vec![ReceiverRecord::WantCuts { span, average_bytes }; 2]);
        begun.records.send.write(asks).await.unwrap();
        let is_given_up = is_given_up(&mut begun.records.send).await;
        assert_grown_little(before_bytes, "signatures that nobody reads");
        assert!(is_given_up, "the server goes on");
    });
}

/// Says that it lives, until the server ends the transfer; whether that is soon.
async fn is_given_up(send: &mut SendHalf) -> bool {
    let mut often = tokio::time::interval(PROGRESS_TIMEOUT / 8);
    let lives = async {
        while send.write(encoded(&[ReceiverRecord::Alive])).await.is_ok() {
            often.tick().await;
        }
    };
    tokio::time::timeout(LIMIT, lives).await.is_ok()
}

fn encoded(records: &[ReceiverRecord]) -> Bytes {
    let mut out = BytesMut::new();
    records.iter().for_each(|record| record.encode(&mut out).unwrap());
    out.freeze()
}
