//! `push -`: standard input, which has no length and can be read once.

use std::fs;
use std::io::Write as _;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread;

use crate::program::{Machine, Run, Running, Server};

/// More than is held in memory.
const LEN_BYTES: usize = 60_000_000;

/// Slow enough that there is a middle.
const RATE: &str = "20MB";

/// What has arrived when something happens.
const MIDDLE_BYTES: u64 = 30_000_000;

/// A server that is known to `here`, and its address.
fn machines() -> (Machine, Machine, Server, String) {
    let (here, there) = (Machine::new(), Machine::new());
    there.run(&["peers", "add", "laptop", &here.id(), "--read", "--write"]).done();
    here.run(&["peers", "add", "nas", &there.id()]).done();
    let server = serve(&there, "127.0.0.1:0");
    let at = server.address();
    (here, there, server, at)
}

fn serve(there: &Machine, at: &str) -> Server {
    there.serve_with("inbox", &["--writable", "--listen", at])
}

/// A push of standard input, and what fills it.
fn push(here: &Machine, args: &[&str]) -> (Child, ChildStdin) {
    let mut push = here.command(&[&["push", "-"], args].concat());
    let mut push = push.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let input = push.stdin.take().unwrap();
    (push, input)
}

/// Feeds it from a thread, whatever becomes of the program.
fn feed(mut input: ChildStdin, content: Vec<u8>) {
    thread::spawn(move || _ = input.write_all(&content));
}

/// Starts a push and waits for its middle.
fn in_the_middle(here: &Machine, target: &str, content: &[u8]) -> Running {
    let (push, input) = push(here, &[target, "--rate", RATE, "--json"]);
    feed(input, content.to_vec());
    let mut push = Running::from(push);
    push.event(|event| event["bytes_done"].as_u64() >= Some(MIDDLE_BYTES));
    push
}

fn shell(here: &Machine, script: &str, target: &str) -> Run {
    let program = here.command(&[]);
    let mut command = Command::new("sh");
    command.args(["-c", script]).arg(program.get_program()).arg(target).current_dir(here.file(""));
    for (name, value) in program.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    Run::of(&mut command)
}

#[test]
fn standard_input_is_sent_without_a_copy_on_disk_and_in_bounded_memory() {
    let (here, there) = (Machine::within(BOUND_KIB), Machine::within(BOUND_KIB));
    let server = serve(&there, "127.0.0.1:0");
    let content = testlink::Rng::new(1).bytes(LEN_BYTES);
    let mut push = here.command(&["push", "-", &server.ticket_for("in/f"), "--rate", "60MB"]);
    let mut push = push.env("TMPDIR", "/nonexistent").stdin(Stdio::piped()).spawn().unwrap();
    push.stdin.take().unwrap().write_all(&content).unwrap();
    assert!(push.wait().unwrap().success());
    assert!(fs::read(there.file("inbox/in/f")).unwrap() == content, "other bytes");
    assert_eq!(fs::read_dir(there.file("inbox/in")).unwrap().count(), 1, "nothing else is there");
}

#[test]
fn standard_input_resumes_when_the_server_was_killed_and_started_again() {
    let (here, there, server, at) = machines();
    let content = testlink::Rng::new(2).bytes(LEN_BYTES);
    let push = in_the_middle(&here, &format!("nas@{at}/f"), &content);
    drop(server);
    assert!(!there.file("inbox/f").exists());
    let _server = serve(&there, &at);
    let run = push.rest().done();
    assert!(run.events().iter().any(|event| event["event"] == "connection_lost"), "{run:?}");
    assert!(fs::read(there.file("inbox/f")).unwrap() == content, "other bytes");
    let done = run.last_event();
    let total = LEN_BYTES as u64;
    assert_eq!((&done["files"], &done["bytes_total"]), (&1.into(), &total.into()), "{done}");
    let sent = done["bytes_sent"].as_u64().unwrap();
    assert!(sent >= MIDDLE_BYTES && sent < total + MIDDLE_BYTES, "{done}");
    assert_eq!(fs::read_dir(there.file("inbox")).unwrap().count(), 1, "nothing else is there");
}

#[test]
fn standard_input_cannot_be_resumed_when_the_server_has_lost_its_part() {
    let (here, there, server, at) = machines();
    let push = in_the_middle(&here, &format!("nas@{at}/f"), &testlink::Rng::new(3).bytes(LEN_BYTES));
    drop(server);
    for left in fs::read_dir(there.file("inbox")).unwrap() {
        fs::remove_file(left.unwrap().path()).unwrap();
    }
    let _server = serve(&there, &at);
    let run = push.rest();
    let error = run.last_event();
    assert_eq!((run.code, &error["event"]), (Some(1), &"error".into()), "{run:?}");
    let says = |field: &str, words| error[field].as_str().is_some_and(|text| text.contains(words));
    assert!(says("message", "cannot be resumed") && says("hint", WHOLE_INPUT), "{run:?}");
    assert!(!there.file("inbox/f").exists());
}

#[test]
fn a_push_of_standard_input_that_gives_up_asks_for_the_whole_input() {
    let (here, _there, server, at) = machines();
    let (push, mut input) = push(&here, &[&format!("nas@{at}/f"), "--json", "--give-up-after", "1s"]);
    let mut push = Running::from(push);
    input.write_all(b"begins").unwrap();
    push.event(|event| event["bytes_done"].as_u64() >= Some(1));
    drop(server);
    let run = push.rest();
    let error = run.last_event();
    assert_eq!((run.code, &error["class"]), (Some(3), &"unreachable".into()), "{run:?}");
    let hint = error["hint"].as_str().unwrap();
    assert!(hint.contains(WHOLE_INPUT) && !hint.contains("resume"), "{hint}");
}

#[test]
fn a_killed_push_of_standard_input_publishes_nothing_and_the_next_one_begins_anew() {
    let (here, there, _server, at) = machines();
    let target = format!("nas@{at}/f");
    let content = testlink::Rng::new(4).bytes(LEN_BYTES);
    drop(in_the_middle(&here, &target, &content));
    assert!(!there.file("inbox/f").exists());
    assert_eq!(here.feed(&["push", "-", &target], &content[1..]), Some(0));
    assert!(fs::read(there.file("inbox/f")).unwrap() == content[1..], "other bytes");
    assert_eq!(fs::read_dir(there.file("inbox")).unwrap().count(), 1, "nothing else is there");
}

#[test]
fn ctrl_c_ends_a_push_whose_standard_input_is_silent() {
    let (here, there, _server, at) = machines();
    for begun in [false, true] {
        let (child, mut input) = push(&here, &[&format!("nas@{at}/f"), "--json"]);
        let mut running = Running::from(child);
        if begun {
            input.write_all(b"begins").unwrap();
            running.event(|event| event["bytes_done"].as_u64() >= Some(1));
        }
        // In the second after that, nothing else limits it.
        running.event(|event| event["phase"] == "awaiting_input" && event["limited_by"] == "input");
        running.interrupt();
        let run = running.rest();
        assert_eq!(run.code, Some(130), "{run:?}");
        assert!(run.last_event()["hint"].as_str().unwrap().ends_with(WHOLE_INPUT), "{run:?}");
        assert!(!there.file("inbox/f").exists());
        drop(input);
    }
}

#[test]
fn a_program_that_is_killed_while_it_writes_is_the_end_of_the_input() {
    let (here, there, _server, at) = machines();
    let target = format!("nas@{at}/f");
    let script = r#"sh -c 'printf "as far as this"; kill -9 $$' | "$0" push - "$1""#;
    shell(&here, script, &target).done();
    assert_eq!(fs::read(there.file("inbox/f")).unwrap(), b"as far as this");
}

#[test]
fn a_file_as_standard_input_is_read_on_from_where_it_is() {
    let (here, there, _server, at) = machines();
    here.write("src", "first line\nall the rest\n");
    let read_on = r#"(read -r line; exec "$0" push - "$1") < src"#;
    shell(&here, read_on, &format!("nas@{at}/rest")).done();
    assert_eq!(fs::read(there.file("inbox/rest")).unwrap(), b"all the rest\n");
    shell(&here, r#"exec "$0" push - "$1" < src"#, &format!("nas@{at}/all")).done();
    assert_eq!(fs::read(there.file("inbox/all")).unwrap(), b"first line\nall the rest\n");
    // Its size is said to be 0.
    shell(&here, r#"exec "$0" push - "$1" < /proc/version"#, &format!("nas@{at}/version")).done();
    assert_eq!(fs::read(there.file("inbox/version")).unwrap(), fs::read("/proc/version").unwrap());
    shell(&here, r#"exec "$0" push - "$1" < /dev/null"#, &format!("nas@{at}/empty")).done();
    assert_eq!(fs::read(there.file("inbox/empty")).unwrap(), b"");
    let refused = shell(&here, r#"exec "$0" push - "$1" < ."#, &format!("nas@{at}/directory"));
    refused.failed(6, "directory");
    let failed = shell(&here, r#"exec "$0" push - "$1" 0> /dev/null"#, &format!("nas@{at}/error"));
    failed.failed(7, "Bad file descriptor");
    assert_eq!(fs::read_dir(there.file("inbox")).unwrap().count(), 4);
}

#[test]
fn an_existing_file_is_kept_backed_up_or_refused_when_standard_input_is_pushed() {
    let (here, there, _server, at) = machines();
    let target = format!("nas@{at}/f");
    there.write("inbox/f", "theirs");
    let feed = |args: &[&str]| here.feed(&[&["push", "-", &target], args].concat(), b"theirs, and more");
    assert_eq!(feed(&[]), Some(6), "a longer one that begins with it is another file");
    assert_eq!(feed(&["--keep-existing"]), Some(0));
    assert_eq!(fs::read(there.file("inbox/f")).unwrap(), b"theirs");
    assert_eq!(feed(&["--backup"]), Some(0));
    assert_eq!(fs::read(there.file("inbox/f")).unwrap(), b"theirs, and more");
    assert_eq!(fs::read(there.file("inbox/f~")).unwrap(), b"theirs");
    assert_eq!(here.feed(&["push", "-", &target], b"theirs"), Some(6), "and so is a shorter one");
    assert_eq!(fs::read_dir(there.file("inbox")).unwrap().count(), 2);
}

/// What a hint asks for: nothing that was read can be read again.
const WHOLE_INPUT: &str = "with the whole input";

/// 64 MiB: what is held of the input, and what any push takes.
const BOUND_KIB: u64 = 64 << 10;
