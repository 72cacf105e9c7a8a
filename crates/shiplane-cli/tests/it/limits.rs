//! A job says what keeps it from being faster.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use testlink::{Link, Path, Rng};

use crate::program::{Machine, Run, Running};

/// What limited the job for longest.
fn limited_by(run: &Run) -> String {
    let done = run.last_event();
    done["limited_by"][0]["by"].as_str().unwrap_or_else(|| panic!("nothing: {done}")).to_owned()
}

fn machines(len_bytes: usize) -> (Machine, Machine) {
    let (here, there) = (Machine::new(), Machine::new());
    there.write("src/large", Rng::new(1).bytes(len_bytes));
    (here, there)
}

/// Carries the datagrams between one client and a server as a slow network would.
struct Relay {
    address: SocketAddr,
    ended: Arc<AtomicBool>,
    running: Option<JoinHandle<()>>,
}

impl Relay {
    fn start(server: SocketAddr, path: Path) -> Self {
        let bind = || UdpSocket::bind("127.0.0.1:0").unwrap();
        let (front, back) = (bind(), bind());
        back.connect(server).unwrap();
        let address = front.local_addr().unwrap();
        for socket in [&front, &back] {
            socket.set_nonblocking(true).unwrap();
        }
        let ended = Arc::new(AtomicBool::new(false));
        let running = thread::spawn({
            let ended = Arc::clone(&ended);
            move || carry(&front, &back, path, &ended)
        });
        Self { address, ended, running: Some(running) }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(running) = self.running.take() {
            running.join().unwrap();
        }
    }
}

fn carry(front: &UdpSocket, back: &UdpSocket, path: Path, ended: &AtomicBool) {
    let (mut there, mut here) = (Link::new(path.clone()), Link::new(path));
    let (began_at, mut client, mut buffer) = (Instant::now(), None, vec![0; 65_536]);
    while !ended.load(Ordering::Relaxed) {
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
        thread::park_timeout(Duration::from_micros(500));
    }
}

#[test]
fn a_rate_limit_is_named_in_the_progress_and_at_the_end() {
    let (here, there) = machines(4_000_000);
    let server = there.serve("src");
    let ticket = server.ticket().to_owned();
    let run = here.run(&["get", &ticket, "copy", "--rate", "1MB", "--json"]).done();
    assert_eq!(limited_by(&run), "rate limit");
    assert!(run.events().iter().any(|event| event["limited_by"] == "rate limit"), "{run:?}");
}

#[test]
fn a_slow_network_is_the_path() {
    let (here, there) = machines(2_000_000);
    there.run(&["peers", "add", "laptop", &here.id(), "--read"]).done();
    let server = there.serve("src");
    let relay = Relay::start(server.address().parse().unwrap(), Path::new(4.0, 20.0));
    let source = format!("{}@{}", there.id(), relay.address);
    let run = here.run(&["get", &source, "copy", "--json"]).done();
    assert_eq!(limited_by(&run), "path");
}

#[test]
fn what_others_take_of_a_servers_rate_is_other_transfers() {
    let (here, there) = machines(2_000_000);
    let server =
        there.serve_with("src", &["--listen", "127.0.0.1:0", "--ticket-uses", "any", "--rate", "1500KB"]);
    let ticket = server.ticket().to_owned();
    let get = |copy: &str| Running::start(&mut here.command(&["get", &ticket, copy, "--json"]));
    let running: Vec<Running> = ["a", "b", "c", "d"].map(get).into();
    let named = running.into_iter().map(|run| limited_by(&run.rest().done()));
    assert!(named.into_iter().any(|limit| limit == "other transfers"));
}
