//! A running job connects again by itself: the server is killed in the middle and started again.

use std::fs;
use std::io::Read as _;

use serde_json::Value;

use crate::program::{Machine, Run, Running, Server, assert_same_tree};

const LEN_BYTES: usize = 12_000_000;

/// Slow enough that there is a middle.
const RATE: &str = "6MB";

/// When the server is killed.
const KEPT_BYTES: u64 = 2_000_000;

/// A server that is known to `here`, with a large file in `src` and the same in `mine` of `here`.
fn machines() -> (Machine, Machine) {
    let (here, there) = (Machine::new(), Machine::new());
    there.run(&["peers", "add", "laptop", &here.id(), "--read", "--write"]).done();
    here.run(&["peers", "add", "nas", &there.id()]).done();
    let bytes = testlink::Rng::new(1).bytes(LEN_BYTES);
    there.write("src/large", &bytes);
    there.write("src/small", "small");
    here.write("mine/large", &bytes);
    here.write("mine/small", "small");
    (here, there)
}

fn serve(there: &Machine, root: &str, at: &str) -> Server {
    there.serve_with(root, &["--writable", "--listen", at, "--json"])
}

fn address(server: &Server) -> String {
    let listening: Value = serde_json::from_str(&server.first_line).expect("an event");
    listening["address"].as_str().expect("an address").to_owned()
}

/// Runs a job and meanwhile kills the server and starts it again; gives the events from then on, and how much was kept
/// by then.
fn run_over_a_restart(here: &Machine, there: &Machine, root: &str, args: &[&str]) -> (Run, u64) {
    let server = serve(there, root, "127.0.0.1:0");
    let at = address(&server);
    let target = format!("nas@{at}");
    let args: Vec<&str> = args.iter().map(|arg| if *arg == "TARGET" { &target } else { *arg }).collect();
    let mut run = Running::start(
        &mut here.command(&[&args, &["--rate", RATE, "--json", "--chunk", "64K"][..]].concat()),
    );
    let kept = run.event(|event| event["bytes_done"].as_u64() >= Some(KEPT_BYTES));
    drop(server);
    let server = serve(there, root, &at);
    let run = run.rest().done();
    let lost = run.events().iter().filter(|event| event["event"] == "connection_lost").count();
    assert!(lost > 0, "{run:?}");
    assert_eq!(server.stop().code, Some(0));
    (run, kept["bytes_done"].as_u64().expect("a number"))
}

/// What the server that was started last has sent or received.
fn moved(run: &Run, done: &str) -> u64 {
    run.last_event()[done].as_u64().expect("a number")
}

#[test]
fn a_get_goes_on_when_the_server_was_killed_and_started_again() {
    let (here, there) = machines();
    let (run, _) = run_over_a_restart(&here, &there, "src", &["get", "TARGET", "copy"]);
    assert_same_tree(&here.file("copy"), &there.file("src"));
    let done = run.last_event();
    assert_eq!((&done["event"], &done["files"]), (&"done".into(), &2.into()));
    assert_eq!(done["bytes_total"], LEN_BYTES as u64 + 5, "{done}");
    // What was stored just as the server died counts as resumed.
    let (received, resumed) = (moved(&run, "bytes_received"), moved(&run, "bytes_resumed"));
    assert_eq!(received + resumed, LEN_BYTES as u64 + 5, "no byte that was kept has come again: {done}");
    assert!(resumed < KEPT_BYTES, "{done}");
}

#[test]
fn a_push_goes_on_when_the_server_was_killed_and_started_again() {
    let (here, there) = machines();
    let (run, kept) = run_over_a_restart(&here, &there, "other", &["push", "mine", "TARGET"]);
    assert_same_tree(&here.file("mine"), &there.file("other/mine"));
    let sent = moved(&run, "bytes_sent");
    assert!(sent >= kept && sent <= LEN_BYTES as u64 + 5, "{run:?}");
}

#[test]
fn a_sync_goes_on_when_the_server_was_killed_and_started_again() {
    let (here, there) = machines();
    fs::remove_file(there.file("src/large")).unwrap();
    let (run, _) = run_over_a_restart(&here, &there, "src", &["sync", "mine", "TARGET"]);
    assert_same_tree(&here.file("mine"), &there.file("src"));
    let taken = |event: &Value| event["event"] == "action" && event["path"] == "large";
    assert_eq!(
        run.events().iter().filter(|event| taken(event)).count(),
        1,
        "planned twice, told once: {run:?}"
    );
}

#[test]
fn a_stream_goes_on_with_its_next_byte() {
    let (here, there) = machines();
    let server = there.serve_with("src", &["--listen", "127.0.0.1:0"]);
    let at = server.address();
    let source = format!("nas@{at}/large");
    let mut get = here.command(&["get", &source, "-", "--rate", RATE, "--quiet"]);
    let mut get = get.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut out = get.stdout.take().unwrap();
    let mut received = vec![0; KEPT_BYTES as usize];
    out.read_exact(&mut received).unwrap();
    drop(server);
    let _server = there.serve_with("src", &["--listen", &at]);
    out.read_to_end(&mut received).unwrap();
    assert!(get.wait().unwrap().success());
    assert!(received == fs::read(there.file("src/large")).unwrap());
}

#[test]
fn a_job_gives_up_when_it_was_told_to() {
    let (here, there) = machines();
    for (patience, words) in [("0s", "no longer knows"), ("1s", "no connection for 1s")] {
        let server = serve(&there, "src", "127.0.0.1:0");
        let source = format!("nas@{}", address(&server));
        let args = ["get", &source, patience, "--rate", RATE, "--json", "--give-up-after", patience];
        let mut run = Running::start(&mut here.command(&args));
        run.event(|event| event["bytes_done"].as_u64() > Some(0));
        let at = address(&server);
        drop(server);
        // What answers there now knows nothing of the connection; if it is to be given up, there is nothing.
        let server = (patience == "0s").then(|| serve(&there, "src", &at));
        run.rest().told(3, words);
        drop(server);
    }
}
