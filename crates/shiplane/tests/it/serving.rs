//! A running server: revocation, counters, shutdown.

use shiplane::{ErrorKind, KnownPeer, Peers, Server};

use crate::harness::Machine;

#[tokio::test]
async fn a_peer_that_is_removed_from_the_list_loses_its_connection() {
    let (here, there) = (Machine::new(), Machine::new());
    there.write("root/a", "a");
    let client = here.client().await;
    let peers = Peers::at(there.path("home/peers"));
    let laptop = KnownPeer::new("laptop", client.id()).unwrap();
    let laptop = laptop.read();
    peers.add(&laptop).unwrap();
    let running = there.serve().await;
    let peer = (running.server.id(), running.server.local_addr());
    let connection = client.connect(peer).await.unwrap();
    connection.get("a").to(here.path("a")).await.unwrap();
    peers.remove("laptop").unwrap();
    let revoked = loop {
        if let Err(error) = connection.get("a").to(here.path("a")).await {
            break error;
        }
    };
    assert_eq!(revoked.kind(), ErrorKind::Identity, "{revoked}");
    let again = client.connect(peer).await.unwrap().get("a").to(here.path("a")).await.unwrap_err();
    assert_eq!(again.kind(), ErrorKind::Identity, "{again}");
}

#[tokio::test]
async fn a_peer_that_is_added_to_the_list_is_let_in() {
    let (here, there) = (Machine::new(), Machine::new());
    there.write("root/a", "a");
    let client = here.client().await;
    let running = there.serve().await;
    let peer = (running.server.id(), running.server.local_addr());
    let laptop = KnownPeer::new("laptop", client.id()).unwrap().read().below("a").unwrap();
    Peers::at(there.path("home/peers")).add(&laptop).unwrap();
    loop {
        let connection = client.connect(peer).await.unwrap();
        match connection.get("a").to(here.path("a")).await {
            Ok(_) => break,
            Err(error) => assert_eq!(error.kind(), ErrorKind::Identity, "{error}"),
        }
    }
    assert_eq!(here.read("a"), b"a");
}

#[tokio::test]
async fn a_server_counts_moved_bytes_and_runs_once() {
    let (here, there) = (Machine::new(), Machine::new());
    there.write("root/a", "hello");
    here.write("b", "you");
    let running = there.serve_writable().await;
    let connection = running.connect_writing(&here.client().await).await;
    connection.get("a").to(here.path("a")).await.unwrap();
    connection.push([here.path("b")]).await.unwrap();
    running.server.shutdown();
    running.ended.await.unwrap().unwrap();
    let stats = running.server.stats();
    assert_eq!((stats.sent_transfers, stats.sent_bytes), (1, 5));
    assert_eq!((stats.received_transfers, stats.received_bytes, stats.received_failures), (1, 3, 0));
    assert!(stats.to_string().contains("1 completed"), "{stats}");
    assert_eq!(running.server.run().await.unwrap_err().kind(), ErrorKind::Usage);
}

#[tokio::test]
async fn tickets_name_the_host_that_is_advertised() {
    let there = Machine::new();
    let builder = || Server::builder(there.dir("root")).home(there.path("home"));
    let server = builder().advertise("nas.example").bind("127.0.0.1:0").await.unwrap();
    let ticket = server.ticket().read().below("photos/2026/").create().unwrap().to_string();
    let port = server.local_addr().port();
    assert!(ticket.contains(&format!("@nas.example:{port}/photos/2026#")), "{ticket}");
    let refused = builder().advertise("nas example").bind("127.0.0.1:0").await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Usage);
}
