//! Failures: their kind and their side.

use std::net::UdpSocket;

use shiplane::{Client, ErrorKind, KnownPeer, Peers, Server, Side, Target, TicketBuilder};

use crate::harness::Machine;

#[tokio::test]
async fn an_absent_server_is_unreachable() {
    let here = Machine::new();
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let client = here.client().await;
    let peer = (client.id(), silent.local_addr().unwrap());
    let error = client.connect(peer).await.unwrap_err();
    assert_eq!((error.kind(), error.side()), (ErrorKind::Unreachable, Side::Network));
    assert!(!error.hint().is_empty());
}

#[tokio::test]
async fn another_key_than_the_ticket_names_is_not_talked_to() {
    let (here, there) = (Machine::new(), Machine::new());
    let running = there.serve().await;
    let client = here.client().await;
    let peer = (client.id(), running.server.local_addr());
    let error = client.connect(peer).await.unwrap_err();
    assert_eq!((error.kind(), error.side()), (ErrorKind::Identity, Side::Peer));
}

#[tokio::test]
async fn a_ticket_is_for_as_many_keys_as_it_says() {
    let (here, second, third, there) = (Machine::new(), Machine::new(), Machine::new(), Machine::new());
    there.write("root/a", "a");
    let running = there.serve().await;
    let ticket = running.ticket(|ticket| ticket.read().uses(2));
    for place in [&here, &second, &here] {
        let connection = place.client().await.connect(&ticket).await.unwrap();
        connection.get("a").to(place.path("a")).await.unwrap();
    }
    let connection = third.client().await.connect(&ticket).await.unwrap();
    let error = connection.get("a").to(third.path("a")).await.unwrap_err();
    assert_eq!((error.kind(), error.side()), (ErrorKind::Identity, Side::Peer));
}

#[tokio::test]
async fn a_ticket_gives_its_rights_and_no_more() {
    let (here, there) = (Machine::new(), Machine::new());
    there.write("root/photos/a", "a");
    there.write("root/secret", "s");
    here.write("b", "b");
    let running = there.serve_writable().await;
    let client = here.client().await;
    let photos = client.connect(running.ticket(|ticket| ticket.read().below("photos"))).await.unwrap();
    photos.get("").to(here.path("copy")).await.unwrap();
    assert_eq!(here.read("copy/a"), b"a");
    let pushed = photos.push([here.path("b")]).await.unwrap_err();
    assert_eq!(pushed.kind(), ErrorKind::Identity);
    for outside in ["../secret", "/secret"] {
        assert_eq!(photos.get(outside).await.unwrap_err().kind(), ErrorKind::Usage, "{outside}");
    }
    let all = (running.server.id(), running.server.local_addr());
    let outside = client.connect(all).await.unwrap().get("secret").to(here.path("s")).await.unwrap_err();
    assert_eq!((outside.kind(), outside.side()), (ErrorKind::Identity, Side::Peer));

    let error = running.server.ticket().create().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Usage, "a ticket without any right");
    assert_eq!(running.server.ticket().read().below("..").create().unwrap_err().kind(), ErrorKind::Usage);
}

#[tokio::test]
async fn an_existing_file_with_other_content_is_refused_without_overwrite() {
    let (here, there) = (Machine::new(), Machine::new());
    there.write("root/a", "theirs");
    here.write("a", "mine");
    let running = there.serve_writable().await;
    let connection = running.connect_writing(&here.client().await).await;
    let got = connection.get("a").to(here.path("a")).await.unwrap_err();
    assert_eq!((got.kind(), got.side()), (ErrorKind::Refused, Side::ThisMachine));
    let pushed = connection.push([here.path("a")]).await.unwrap_err();
    assert_eq!((pushed.kind(), pushed.side()), (ErrorKind::Refused, Side::Peer));
    connection.push([here.path("a")]).overwrite(true).await.unwrap();
    assert_eq!(there.read("root/a"), b"mine");
}

#[tokio::test]
async fn a_missing_path_is_named_with_its_side() {
    let (here, there) = (Machine::new(), Machine::new());
    let running = there.serve_writable().await;
    let connection = running.connect_writing(&here.client().await).await;
    let got = connection.get("missing").to(here.path("x")).await.unwrap_err();
    assert_eq!((got.kind(), got.side()), (ErrorKind::Refused, Side::Peer));
    let pushed = connection.push([here.path("missing")]).await.unwrap_err();
    assert_eq!((pushed.kind(), pushed.side()), (ErrorKind::LocalIo, Side::ThisMachine));
    let nothing = connection.push(Vec::<&str>::new()).await.unwrap_err();
    assert_eq!(nothing.kind(), ErrorKind::Usage);
    let unnamed = connection.push_file(std::fs::File::open(here.dir("d")).unwrap()).await.unwrap_err();
    assert_eq!(unnamed.kind(), ErrorKind::Usage);
    std::fs::write(here.path("file"), "").unwrap();
    let unplaced = connection.get("").to(here.path("file/copy")).await.unwrap_err();
    assert_eq!((unplaced.kind(), unplaced.side()), (ErrorKind::Refused, Side::ThisMachine));
}

#[tokio::test]
async fn a_target_that_is_none_is_refused_before_anything_is_dialled() {
    let here = Machine::new();
    let client = here.client().await;
    for target in ["", "photos", "shiplane://x#SECRETSECRET", "nas@h", "unknown@127.0.0.1", "-o:x"] {
        let error = client.connect(target).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage, "{target}: {error}");
        assert!(!error.to_string().contains("SECRETSECRET"));
    }
    assert!("nas@h:1/a".parse::<Target>().is_ok());
}

#[tokio::test]
async fn a_peer_is_found_by_its_name() {
    let (here, there) = (Machine::new(), Machine::new());
    there.write("root/a", "a");
    let client = here.client().await;
    let laptop = KnownPeer::new("laptop", client.id()).unwrap();
    let laptop = laptop.read().below("/a/").unwrap();
    assert_eq!(Peers::at(there.path("home/peers")).add(&laptop).unwrap(), None);
    let running = there.serve().await;
    let nas = KnownPeer::new("nas", running.server.id()).unwrap();
    assert!(nas.is_name_only());
    Peers::at(here.path("home/peers")).add(&nas).unwrap();
    let connection = client.connect(format!("nas@{}/a", running.server.local_addr())).await.unwrap();
    connection.get("").to(here.path("copy")).await.unwrap();
    assert_eq!(here.read("copy"), b"a");
    assert_eq!(KnownPeer::new("sl1x", client.id()).unwrap_err().kind(), ErrorKind::Usage);
}

#[tokio::test]
async fn a_server_that_cannot_be_says_why() {
    let there = Machine::new();
    let file = there.write("file", "x");
    let bind = async |path, is_writable| {
        let builder = Server::builder(path).home(there.path("home"));
        let builder = if is_writable { builder.writable() } else { builder };
        builder.bind("127.0.0.1:0").await.map(drop).map_err(|error| error.kind())
    };
    assert_eq!(bind(there.path("none"), false).await, Err(ErrorKind::LocalIo));
    assert_eq!(bind(file.clone(), true).await, Err(ErrorKind::Usage));
    assert_eq!(bind(file, false).await, Ok(()));
    there.write("home/peers", "what is this\n");
    assert_eq!(bind(there.dir("root"), false).await, Err(ErrorKind::Identity));
}

#[tokio::test]
async fn a_fresh_key_is_stored_nowhere() {
    let (here, there) = (Machine::new(), Machine::new());
    there.write("root/a", "a");
    let running = there.serve().await;
    let client = Client::builder().home(here.path("home")).fresh_key().build().await.unwrap();
    let connection = client.connect(running.ticket(TicketBuilder::read)).await.unwrap();
    connection.get("a").to(here.path("a")).await.unwrap();
    assert!(!crate::harness::exists(&here.path("home/identity")));
    client.close().await;
    assert!(connection.is_closed());
}
