//! A job shows what limits its speed.

use std::process::{Child, Command, Stdio};

use testlink::{Path, Relay, Rng};

use crate::program::{Machine, Run, Running, Server};

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
    let relay = Relay::start(server.address().parse().unwrap(), Path::new(4.0, 20.0)).unwrap();
    let source = format!("{}@{}", there.id(), relay.address());
    let run = here.run(&["get", &source, "copy", "--json"]).done();
    assert_eq!(limited_by(&run), "path");
}

#[test]
fn a_rate_shared_with_others_is_reported_as_other_transfers() {
    let (here, there) = machines(2_000_000);
    let server =
        there.serve_with("src", &["--listen", "127.0.0.1:0", "--ticket-uses", "any", "--rate", "1500KB"]);
    let ticket = server.ticket().to_owned();
    let get = |copy: &str| Running::start(&mut here.command(&["get", &ticket, copy, "--json"]));
    let running: Vec<Running> = ["a", "b", "c", "d"].map(get).into();
    let named = running.into_iter().map(|run| limited_by(&run.rest().done()));
    assert!(named.into_iter().any(|limit| limit == "other transfers"));
}

/// The command as it is run by another program, if that can be run here.
fn run_by(runner: &[&str], command: &Command) -> Option<Command> {
    let by = |program: &std::ffi::OsStr| {
        let mut by = Command::new(runner[0]);
        by.args(&runner[1..]).arg(program);
        by
    };
    let trial = by("true".as_ref()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !trial.is_ok_and(|trial| trial.success()) {
        eprintln!("skipped: {} cannot be run here", runner[0]);
        return None;
    }
    let mut by = by(command.get_program());
    by.args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => by.env(name, value),
            None => by.env_remove(name),
        };
    }
    by.current_dir(command.get_current_dir().unwrap()).stdin(Stdio::null());
    Some(by)
}

/// Holds up each of some system calls of a program, half a second each time. Of what is in the page cache, nothing is.
fn slow_disk(calls: &'static str) -> Vec<String> {
    let delay = format!("inject={calls}:delay_enter=500000");
    let traced = format!("trace={calls},preadv2");
    let strace = ["strace", "-D", "-f", "-qq", "-o", "/dev/null", "-e", &traced, "-e", &delay];
    let uncached = ["-e", "inject=preadv2:error=EAGAIN"];
    strace.into_iter().chain(uncached).map(str::to_owned).collect()
}

fn slowed(command: &Command, calls: &'static str) -> Option<Command> {
    let strace = slow_disk(calls);
    run_by(&strace.iter().map(String::as_str).collect::<Vec<_>>(), command)
}

const SERVE: [&str; 4] = ["serve", "src", "--listen", "127.0.0.1:0"];

#[cfg(target_os = "linux")]
#[test]
fn a_slow_disk_of_the_source_is_the_source_disk() {
    let (here, there) = machines(12_000_000);
    let Some(mut serve) = slowed(&there.command(&SERVE), "pread64") else { return };
    let server = Server::start(&mut serve);
    let run = here.run(&["get", server.ticket(), "copy", "--json"]).done();
    assert_eq!(limited_by(&run), "source disk");
}

#[cfg(target_os = "linux")]
#[test]
fn a_slow_disk_of_the_receiver_is_the_receiver_disk() {
    let (here, there) = machines(2_000_000);
    let server = there.serve("src");
    let Some(mut get) = slowed(&here.command(&["get", server.ticket(), "copy", "--json"]), "pwrite64") else {
        return;
    };
    assert_eq!(limited_by(&Run::of(&mut get).done()), "receiver disk");
}

/// Keeps a core busy.
struct Spinning(Child);

impl Drop for Spinning {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_source_without_a_processor_is_the_source_cpu() {
    // Its turns come often enough for a short transfer.
    let (here, there) = machines(30_000_000);
    let allowed = std::fs::read_to_string("/proc/self/status").unwrap();
    let allowed = allowed.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap();
    let core = allowed.trim().split([',', '-']).next().unwrap().to_owned();
    let behind = ["taskset", "-c", &core, "nice", "-n", "15"];
    let Some(mut serve) = run_by(&behind, &there.command(&SERVE)) else { return };
    let server = Server::start(&mut serve);
    let spinning = Command::new("taskset").args(["-c", &core, "sh", "-c", "while :; do :; done"]).spawn();
    let spinning = Spinning(spinning.unwrap());
    let run = here.run(&["get", server.ticket(), "copy", "--json"]).done();
    drop(spinning);
    assert_eq!(limited_by(&run), "source CPU");
}
