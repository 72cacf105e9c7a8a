//! Jobs that run while the network fails: the client gets another address, or the link is cut for longer than a connection
//! lives.

use serde_json::Value;

use crate::namespaces::Link;
use crate::program::{Machine, Running, assert_same_tree};

const LEN_BYTES: usize = 8_000_000;

/// Slow enough to be interrupted in the middle.
const RATE: &str = "2MB";

const KEPT_BYTES: u64 = 2_000_000;

/// A get, a push and a sync at once, and what happens to the network when each has moved something.
fn goes_on(tag: &str, outage: impl FnOnce(&Link, &mut [Running])) {
    let Some(link) = Link::new(tag, true) else { return };
    let (here, there) = (Machine::new(), Machine::new());
    let bytes = testlink::Rng::new(1).bytes(LEN_BYTES);
    for name in ["src/get/large", "src/sync/large"] {
        there.write(name, &bytes);
    }
    here.write("push/large", &bytes);
    here.dir("sync");
    let serve = ["serve", "src", "--writable", "--ticket-uses", "any", "--json"];
    let mut serving = Running::start(&mut link.command(0, &there, &serve));
    let listening = serving.event(|event| event["event"] == "listening");
    let ticket = listening["ticket"].as_str().expect("a ticket");
    let at = |path: &str| format!("{ticket}/{path}");
    let (get, push, sync) = (at("get"), at("in"), at("sync"));
    let jobs: [&[&str]; 3] = [&["get", &get, "copy"], &["push", "push", &push], &["sync", "sync", &sync]];
    let start = |args: &[&str]| {
        let args = [args, &["--rate", RATE, "--chunk", "64K", "--json"]].concat();
        Running::start(&mut link.command(1, &here, &args))
    };
    let mut running = jobs.map(start);
    let kept: Vec<u64> = running
        .iter_mut()
        .map(|run| run.event(|event| event["bytes_done"].as_u64() >= Some(KEPT_BYTES)))
        .map(|event| event["bytes_done"].as_u64().expect("a number"))
        .collect();
    outage(&link, &mut running);
    let ended = running.map(|run| {
        let run = run.rest().done();
        assert!(!run.err.contains("quinn"), "what is told is told in our words: {run:?}");
        run.last_event()
    });
    assert_same_tree(&here.file("copy"), &there.file("src/get"));
    assert_same_tree(&here.file("push"), &there.file("src/in/push"));
    assert_same_tree(&here.file("sync"), &there.file("src/sync"));
    // What was kept has not moved again; of a push, the last of what it has sent may have been on its way.
    let moved = |done: &Value, field: &str| done[field].as_u64().expect("a number");
    let [get, push, sync] = ended;
    assert_eq!(moved(&get, "bytes_received"), LEN_BYTES as u64, "{get}");
    assert_eq!(moved(&sync, "bytes_received"), LEN_BYTES as u64, "{sync}");
    let sent = moved(&push, "bytes_sent");
    assert!(sent >= kept[1] && sent <= LEN_BYTES as u64, "{push}");
}

#[test]
fn jobs_go_on_when_the_clients_address_changes() {
    goes_on("move", |link, _| link.renumber("10.77.0.2/24", "10.77.0.3/24"));
}

#[test]
fn jobs_go_on_when_the_link_was_cut_for_longer_than_a_connection_lives() {
    goes_on("cut", |link, running| {
        link.plug(false);
        // The idle timeout, and several attempts to dial.
        for run in running {
            for _ in 0..ATTEMPTS {
                run.event(|event| event["event"] == "connection_lost");
            }
        }
        link.plug(true);
    });
}

/// About a minute.
const ATTEMPTS: usize = 5;
