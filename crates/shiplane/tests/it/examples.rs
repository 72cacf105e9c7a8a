//! Runs every example, and checks that the README shows all of them.

use std::{collections::BTreeSet, fs};

use shiplane::TicketBuilder;
use tokio_util::sync::CancellationToken;

use crate::harness::Machine;

#[path = "../../examples/call.rs"]
#[expect(dead_code, reason = "its main is for people")]
mod call;
#[path = "../../examples/get.rs"]
#[expect(dead_code, reason = "its main is for people")]
mod get;
#[path = "../../examples/push.rs"]
#[expect(dead_code, reason = "its main is for people")]
mod push;
#[path = "../../examples/serve.rs"]
#[expect(dead_code, reason = "its main is for people")]
mod serve;
#[path = "../../examples/sync.rs"]
#[expect(dead_code, reason = "its main is for people")]
mod sync;

#[tokio::test]
async fn get_fetches_from_the_server_that_the_ticket_names() {
    let (here, there) = (Machine::new(), Machine::new());
    there.write("root/2026/summer/beach", "sand");
    let running = there.serve().await;
    let ticket = running.ticket(TicketBuilder::read).to_string();
    let report = get::get(&here.client().await, &ticket, &here.text("copy")).await.unwrap();
    assert_eq!((report.files, report.bytes_received), (1, 4));
    assert_eq!(here.read("copy/beach"), b"sand");
}

#[tokio::test]
async fn serve_push_and_sync_work_together() {
    let (here, there) = (Machine::new(), Machine::new());
    let root = there.dir("root");
    let builder = serve::photos(root.to_str().unwrap()).home(there.path("home"));
    let server = builder.bind("127.0.0.1:0").await.unwrap();
    let stop = CancellationToken::new();
    let serving = {
        let (server, stop) = (server.clone(), stop.clone());
        tokio::spawn(async move { serve::serve(&server, stop.cancelled()).await })
    };
    let client = here.client().await;
    let ticket = server.ticket().read().write().create().unwrap().to_string();

    here.write("a.txt", "a");
    let pushed = push::push(&client, &ticket, vec![here.text("a.txt")]).await.unwrap();
    assert_eq!((pushed.files, pushed.bytes_sent), (1, 1));
    assert_eq!(there.read("root/inbox/a.txt"), b"a");

    here.write("dir/mine", "mine");
    let synced = sync::sync(&client, &ticket, &here.text("dir")).await.unwrap();
    assert_eq!(synced.files, 2);
    assert_eq!((here.read("dir/inbox/a.txt"), there.read("root/mine")), (b"a".to_vec(), b"mine".to_vec()));

    stop.cancel();
    serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn call_answers_over_the_same_connection() {
    let (here, there) = (Machine::new(), Machine::new());
    there.write("root/a", "a");
    let running = there.run(call::calculator(&there.text("root"))).await;
    let connection = running.connect(&here.client().await).await;
    assert_eq!(connection.call(call::Add(1, 2)).await.unwrap(), 103);
    connection.get("a").to(here.path("a")).await.unwrap();
    assert_eq!(here.read("a"), b"a");
}

#[test]
fn the_readme_shows_every_example_and_no_other_code() {
    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../README.md")).unwrap();
    let blocks = readme.split("```rust\n").skip(1).map(|block| block.split("```").next().unwrap());
    let mut shown = BTreeSet::new();
    for block in blocks {
        let of = EXAMPLES.iter().find(|(_, source)| source.contains(block));
        shown.insert(of.unwrap_or_else(|| panic!("no example has what the README shows:\n{block}")).0);
    }
    assert_eq!(shown, EXAMPLES.iter().map(|(name, _)| *name).collect());
}

#[test]
fn the_first_page_of_the_crate_has_every_example_and_none_has_more_than_30_lines() {
    let page = include_str!("../../src/lib.rs");
    for (name, source) in EXAMPLES {
        assert!(page.contains(&format!("include_str!(\"../examples/{name}.rs\")")), "{name}");
        assert!(source.lines().count() <= 30, "{name}");
    }
}

const EXAMPLES: [(&str, &str); 5] = [
    ("get", include_str!("../../examples/get.rs")),
    ("push", include_str!("../../examples/push.rs")),
    ("sync", include_str!("../../examples/sync.rs")),
    ("serve", include_str!("../../examples/serve.rs")),
    ("call", include_str!("../../examples/call.rs")),
];
