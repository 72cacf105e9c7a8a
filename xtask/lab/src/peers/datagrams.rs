//! Datagrams that belong to no connection.

use std::net::{Ipv4Addr, SocketAddr};

use testlink::Rng;
use tokio::net::UdpSocket;

use crate::peers::Failure;
use crate::peers::report::flood;

/// Noise, short headers of unknown connections, versions that nobody speaks, and first packets that no key opens,
/// in turn. `count` before it is ready.
pub(crate) async fn garbage(server: SocketAddr, count: u64) -> Result<(), Failure> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let mut noise = Rng::new(1);
    flood("datagrams", count, async |number: u64| {
        // A flood that is faster than the kernel loses some of itself.
        let _lost = socket.try_send_to(&datagram(number, &mut noise), server);
        if number.is_multiple_of(BURST) {
            socket.writable().await?;
        }
        tokio::task::yield_now().await;
        Ok(())
    })
    .await
}

fn datagram(number: u64, noise: &mut Rng) -> Vec<u8> {
    let mut datagram = noise.bytes(1200);
    match number % 4 {
        // RFC 9000 section 17.3: a short header, fixed bit set.
        1 => datagram[0] = 0x40 | (datagram[0] & 0x3f),
        // Section 17.2.1: a version that is kept free for asking.
        2 => {
            datagram[0] |= 0xc0;
            datagram[1..5].copy_from_slice(&0x1a2a_3a4a_u32.to_be_bytes());
            (datagram[5], datagram[14]) = (8, 8);
        }
        // Section 17.2.2: an Initial packet of version 1, its ids 8 bytes each, no token, its length to the end.
        3 => {
            datagram[0] = 0xc0 | (datagram[0] & 0x0f);
            datagram[1..5].copy_from_slice(&1u32.to_be_bytes());
            (datagram[5], datagram[14], datagram[23]) = (8, 8, 0);
            let rest = (datagram.len() - 26) as u16;
            datagram[24..26].copy_from_slice(&(0x4000 | rest).to_be_bytes());
        }
        _ => {}
    }
    datagram
}

/// How many may be lost before we wait for room.
const BURST: u64 = 64;
