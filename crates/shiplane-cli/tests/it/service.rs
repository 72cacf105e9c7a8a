//! The program as a service: a manager's socket and messages, reloading, draining, logs for programs.

use std::fs;
use std::io::Read as _;
use std::net::UdpSocket;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::program::{Machine, Running, Server};

/// The next message of a service to its manager.
fn next(manager: &UnixDatagram) -> String {
    let mut message = [0; 512];
    let len = manager.recv(&mut message).expect("a message before long");
    String::from_utf8(message[..len].to_vec()).expect("text")
}

fn manager(machine: &Machine) -> UnixDatagram {
    let manager = UnixDatagram::bind(machine.path("notify")).unwrap();
    manager.set_read_timeout(Some(Duration::from_secs(90))).unwrap();
    manager
}

#[test]
fn a_service_manager_learns_of_ready_reload_and_stop() {
    let there = Machine::new();
    there.dir("src");
    let manager = manager(&there);
    let mut command = there.command(&["serve", "src", "--listen", "127.0.0.1:0", "-v"]);
    command.env("NOTIFY_SOCKET", there.path("notify"));
    let mut server = Server::start(&mut command);
    assert_eq!(next(&manager).trim(), "READY=1");
    server.send(Signal::HUP);
    assert_eq!(next(&manager).trim(), "RELOADING=1");
    assert_eq!(next(&manager).trim(), "READY=1");
    server.send(Signal::TERM);
    assert_eq!(next(&manager).trim(), "STOPPING=1");
    let mut err = String::new();
    server.stderr().read_to_string(&mut err).unwrap();
    assert!(err.contains("reading the peers and tickets again"), "{err}");
    assert_eq!(server.wait().code(), Some(0), "{err}");
}

#[test]
fn a_socket_of_the_managers_is_served_on() {
    let (here, there) = (Machine::new(), Machine::new());
    there.write("src/file", "content");
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    // The shell moves it to where managers put it, and becomes the program.
    let plain = there.command(&[]);
    let mut command = Command::new("sh");
    let script = "LISTEN_PID=$$ LISTEN_FDS=1 exec \"$@\" 3<&0 </dev/null";
    command.args(["-c", script, "sh"]).arg(plain.get_program()).args(["serve", "src"]);
    command.current_dir(plain.get_current_dir().unwrap());
    for (name, value) in plain.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.stdin(Stdio::from(OwnedFd::from(socket)));
    let server = Server::start(&mut command);
    drop(command);
    assert_eq!(server.address(), format!("127.0.0.1:{port}"));
    here.run(&["get", server.ticket(), "copy"]).done();
    assert_eq!(fs::read_to_string(here.file("copy/file")).unwrap(), "content");
    assert_eq!(server.stop().code, Some(0));
}

#[test]
fn jobs_that_run_after_the_drain_are_cut_off_and_the_server_ends_well() {
    let (here, there) = (Machine::new(), Machine::new());
    there.write("src/much", vec![7; 192 << 20]);
    let server = there.serve_with("src", &["--listen", "127.0.0.1:0", "--drain", "1s"]);
    let ticket = server.ticket_for("much");
    let mut get = Running::start(&mut here.command(&["get", &ticket, "-", "--give-up-after", "0s"]));
    get.first_byte();
    server.send(Signal::TERM);
    assert_eq!(server.wait().code(), Some(0));
    get.stop_reading();
    get.end();
}

#[test]
fn with_log_format_json_every_line_on_standard_error_is_an_object() {
    let (here, there) = (Machine::new(), Machine::new());
    there.write("src/file", "content");
    let args = ["--listen", "127.0.0.1:0", "--log-format", "json", "-vv"];
    let server = there.serve_with("src", &args);
    let secret = server.ticket().split_once('#').unwrap().1.to_owned();
    let get = here.run(&["get", server.ticket(), "copy", "--log-format", "json", "-v"]).done();
    let missing = here.run(&["get", &server.ticket_for("none"), "copy", "--log-format", "json"]);
    assert_eq!(missing.code, Some(6));
    let served = server.stop();
    for run in [&get, &missing, &served] {
        for line in run.err.lines() {
            let line: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"));
            assert!(line["level"].is_string() && line["timestamp"].is_string(), "{line}");
        }
    }
    let lines = missing.err.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let levels: Vec<_> = lines.map(|line| (line["level"].clone(), line["target"].clone())).collect();
    assert_eq!(levels[0], ("ERROR".into(), "shiplane::message".into()), "{levels:?}");
    assert!(served.err.contains("\"message\":\"listening\""), "{served:?}");
    assert!(!served.err.contains(&secret), "{served:?}");
}

/// The document of the workspace at this path.
fn document(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)).unwrap()
}

#[test]
#[cfg(feature = "status")]
fn the_unit_starts_the_program_and_the_program_starts_as_it_says() {
    let there = Machine::new();
    there.dir("srv");
    let manager = manager(&there);
    let unit = document("dist/systemd/shiplane.service");
    let line = unit.lines().find_map(|line| line.strip_prefix("ExecStart=/usr/bin/shiplane ")).unwrap();
    let ticket = there.path("ticket").display().to_string();
    let line = line.replace("%t/shiplane/ticket", &ticket).replace("/srv/shiplane", "srv");
    let line = line.replace("--metrics 9514", "--metrics 0 --listen 127.0.0.1:0");
    assert!(!line.contains('%') && line.contains(&ticket), "{line}");
    let args: Vec<&str> = line.split(' ').collect();
    let mut command = there.command(&args);
    command.env("NOTIFY_SOCKET", there.path("notify"));
    let server = Server::start(&mut command);
    assert_eq!(next(&manager).trim(), "READY=1");
    assert_eq!(fs::read_to_string(&ticket).unwrap().trim(), server.ticket());
    server.send(Signal::TERM);
    assert_eq!(server.wait().code(), Some(0));
}

/// systemd 252 gives 1.2 of 10; more than 2 would mean that something was lost.
const MAX_EXPOSURE: &str = "--threshold=20";

#[test]
fn systemd_accepts_the_units_and_finds_them_hardened() {
    let machine = Machine::new();
    let unit = document("dist/systemd/shiplane.service")
        .replace("/usr/bin/shiplane", env!("CARGO_BIN_EXE_shiplane"));
    let service = machine.write("shiplane.service", unit);
    let socket = machine.write("shiplane.socket", document("dist/systemd/shiplane.socket"));
    let analyze = |args: &[&str], paths: &[&Path]| {
        Command::new("systemd-analyze").args(args).args(paths).env("SYSTEMD_LOG_LEVEL", "warning").output()
    };
    let Ok(verified) = analyze(&["verify"], &[&service, &socket]) else {
        eprintln!("skipped: systemd-analyze is needed (Debian: systemd)");
        return;
    };
    assert!(verified.status.success() && verified.stderr.is_empty(), "{verified:?}");
    let judged = analyze(&["security", "--offline=true", "--no-pager", MAX_EXPOSURE], &[&service]).unwrap();
    assert!(judged.status.success(), "{}", String::from_utf8_lossy(&judged.stdout));
}

#[test]
fn the_container_file_builds_the_program_and_runs_unprivileged() {
    let file = document("dist/container/Containerfile");
    let of = |word: &'static str| file.lines().filter_map(move |line| line.strip_prefix(word)).map(str::trim);
    // The compiler is at least as new as the workspace needs.
    let version = |text: &str| {
        let mut parts = text.split('.').map(|part| part.parse::<u32>().unwrap());
        (parts.next().unwrap(), parts.next().unwrap())
    };
    let compiler = of("FROM ").find_map(|image| image.strip_prefix("docker.io/library/rust:")).unwrap();
    let manifest = document("Cargo.toml");
    let needed = manifest.lines().find_map(|line| line.strip_prefix("rust-version = \"")).unwrap();
    assert!(version(compiler.split('-').next().unwrap()) >= version(needed.trim_end_matches('"')));
    assert!(of("RUN ").any(|command| command == "cargo build --release --locked --package shiplane-cli"));
    assert!(
        of("COPY ").any(|copied| copied == "--from=build /src/target/release/shiplane /usr/bin/shiplane")
    );
    assert_eq!(of("USER ").next_back(), Some("65534:65534"));
    // Its arguments are the program's.
    let list =
        |word: &'static str| serde_json::from_str::<Vec<String>>(of(word).next_back().unwrap()).unwrap();
    assert_eq!(list("ENTRYPOINT "), ["/usr/bin/shiplane"]);
    let there = Machine::new();
    there.dir("data");
    let args: Vec<String> = list("CMD ").iter().map(|arg| arg.replace("9514", "0")).collect();
    let args = args.iter().map(|arg| arg.strip_prefix('/').unwrap_or(arg));
    let args: Vec<&str> = args.chain(["--listen", "127.0.0.1:0"]).collect();
    if cfg!(feature = "status") {
        let server = Server::start(&mut there.command(&args));
        assert!(server.ticket().starts_with("shiplane://"));
        assert_eq!(server.stop().code, Some(0));
    }
}
