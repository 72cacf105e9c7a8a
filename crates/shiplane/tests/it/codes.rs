//! Sending and receiving by a code, in one process.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use shiplane::{Client, ErrorKind};

use crate::harness::Machine;

async fn client(machine: &Machine) -> Client {
    machine.client().await
}

#[tokio::test]
async fn a_code_leads_from_one_client_to_another() {
    let (here, there) = (Machine::new(), Machine::new());
    there.write("photos/beach.jpg", "sand");
    let note = there.write("note", "hello");
    let told = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&told);
    let builder = client(&there).await.send([there.path("photos"), note]);
    let builder = builder.on_code(move |action| heard.lock().unwrap().push(action.change));
    let server = builder.bind("127.0.0.1:0").await.unwrap();
    let (code, at) = (server.code().unwrap(), server.local_addr().to_string());
    let running = server.clone();
    let sending = tokio::spawn(async move { running.run().await });

    let receiver = client(&here).await;
    let refused = receiver.receive_at("7-crossover", &at, Duration::ZERO).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Usage);
    let connection = receiver.receive_at(&code, &at, Duration::ZERO).await.unwrap();
    let offer = connection.offer().unwrap();
    let names: Vec<_> = offer.actions.iter().map(|action| action.path.as_str()).collect();
    assert_eq!((offer.files, offer.bytes_total, names), (2, 9, vec!["photos", "note"]));
    assert!(connection.is_offer_counted() && connection.text().is_none());
    let report = connection.get("").to(here.path("copy")).await.unwrap();
    assert_eq!(report.files, 2);
    assert_eq!(
        (here.read("copy/photos/beach.jpg"), here.read("copy/note")),
        (b"sand".to_vec(), b"hello".to_vec())
    );
    sending.await.unwrap().unwrap();
    assert_eq!(*told.lock().unwrap(), ["admitted", "taken"]);
}

#[tokio::test]
async fn a_receiver_may_read_only_the_sent_files_and_nothing_afterwards() {
    let (here, there) = (Machine::new(), Machine::new());
    let file = there.write("file", "file");
    there.write("secret", "secret");
    let server = client(&there).await.send([file]).receivers(2).bind("127.0.0.1:0").await.unwrap();
    let (code, at) = (server.code().unwrap(), server.local_addr().to_string());
    let running = server.clone();
    let sending = tokio::spawn(async move { running.run().await });
    let receiver = client(&here).await;
    let connection = receiver.receive_at(&code, &at, Duration::ZERO).await.unwrap();
    let secret = connection.get("secret").to(here.path("secret")).await.unwrap_err();
    assert_eq!(secret.kind(), ErrorKind::Refused, "{secret}");
    let pushed = connection.push([here.write("mine", "mine")]).await.unwrap_err();
    assert_eq!(pushed.kind(), ErrorKind::Identity, "{pushed}");
    connection.get("").to(here.path("file")).await.unwrap();
    let again = connection.get("").to(here.path("again")).await.unwrap_err();
    assert_eq!(again.kind(), ErrorKind::Identity, "{again}");
    server.shutdown();
    assert_eq!(sending.await.unwrap().unwrap_err().kind(), ErrorKind::Interrupted);
}
