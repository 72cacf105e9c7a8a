//! Carries the datagrams of real sockets over modelled links.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::{Link, Path};

/// An address on loopback at which one client reaches a server as it would over a [`Path`]. It ends when this is dropped.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    has_ended: Arc<AtomicBool>,
    running: Option<JoinHandle<()>>,
}

impl Relay {
    /// To the server at this address. Both directions have the same path.
    ///
    /// # Errors
    /// What the system said of the sockets.
    pub fn start(server: SocketAddr, path: Path) -> io::Result<Self> {
        let [front, back] = [UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?];
        back.connect(server)?;
        let address = front.local_addr()?;
        front.set_nonblocking(true)?;
        back.set_nonblocking(true)?;
        let has_ended = Arc::new(AtomicBool::new(false));
        let running = thread::spawn({
            let has_ended = Arc::clone(&has_ended);
            move || carry(&front, &back, path, &has_ended)
        });
        Ok(Self { address, has_ended, running: Some(running) })
    }

    /// What the client is to dial.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.has_ended.store(true, Ordering::Relaxed);
        if let Some(running) = self.running.take() {
            // It has nothing to tell.
            let _ = running.join();
        }
    }
}

fn carry(front: &UdpSocket, back: &UdpSocket, path: Path, has_ended: &AtomicBool) {
    let (mut there, mut here) = (Link::new(path.clone()), Link::new(path));
    let (began_at, mut client, mut buffer) = (Instant::now(), None, vec![0; 65_536]);
    while !has_ended.load(Ordering::Relaxed) {
        while let Ok((len, from)) = front.recv_from(&mut buffer) {
            client = Some(from);
            there.send(began_at.elapsed(), len, buffer[..len].to_vec());
        }
        while let Ok(len) = back.recv(&mut buffer) {
            here.send(began_at.elapsed(), len, buffer[..len].to_vec());
        }
        while let Some(packet) = there.receive(began_at.elapsed()) {
            let _ = back.send(&packet);
        }
        while let (Some(client), Some(packet)) = (client, here.receive(began_at.elapsed())) {
            let _ = front.send_to(&packet, client);
        }
        thread::park_timeout(PAUSE);
    }
}

/// 500 us: little beside the delays of a network.
const PAUSE: Duration = Duration::from_micros(500);
