//! What `serve --metrics` shows, to whom, and that no client makes it expensive.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};
use std::{fs, iter};

use rustix::process::Signal;
use serde_json::Value;

use crate::program::{Machine, Running, Server};

/// A server that is shown, on any port.
pub(crate) struct Shown {
    pub(crate) server: Server,
    pub(crate) addr: String,
    pub(crate) ticket: String,
}

impl Shown {
    pub(crate) fn new(machine: &Machine, args: &[&str]) -> Self {
        let fixed = ["--listen", "127.0.0.1:0", "--metrics", "0", "--json"];
        let server = machine.serve_with("src", &[&fixed, args].concat());
        let listening = server.listening();
        let text = |name: &str| listening[name].as_str().expect("text").to_owned();
        Self { addr: text("metrics"), ticket: text("ticket"), server }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.addr).expect("it listens");
        stream.set_read_timeout(Some(HANG)).expect("a limit");
        stream
    }

    /// What is answered to these bytes, whether all of them are taken or not.
    fn answer(&self, request: &[u8]) -> String {
        let mut stream = self.connect();
        // It may have heard enough before the end.
        let _ = stream.write_all(request).and_then(|()| stream.shutdown(Shutdown::Write));
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8(answer).expect("text")
    }

    /// A request with a method, a path, and further header lines.
    fn ask(&self, method: &str, path: &str, host: &str) -> String {
        self.answer(format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes())
    }

    fn code(&self, method: &str, path: &str, host: &str) -> u16 {
        code(&self.ask(method, path, host))
    }

    fn body(&self, path: &str) -> String {
        let answer = self.ask("GET", path, &self.addr);
        assert_eq!(code(&answer), 200, "{answer}");
        answer.split_once("\r\n\r\n").expect("a body").1.to_owned()
    }

    /// One figure, named with its labels.
    fn figure(&self, name: &str) -> f64 {
        let figures = self.body("/metrics");
        let line = figures.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in {figures}")).parse().expect("a number")
    }

    pub(crate) fn status(&self) -> Value {
        serde_json::from_str(&self.body("/status.json")).expect("JSON")
    }

    /// Asks until the status is as wanted.
    pub(crate) fn status_with(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        let ended = Instant::now() + HANG;
        let mut all = iter::repeat_with(|| self.status()).take_while(|_| Instant::now() < ended);
        all.find(wanted).expect("a status as wanted")
    }
}

fn code(answer: &str) -> u16 {
    let code = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
    code.unwrap_or_else(|| panic!("no answer: {answer:?}"))
}

#[test]
fn figures_move_with_a_get_and_a_push() {
    let (here, there) = (Machine::new(), Machine::new());
    there.write("src/file", vec![7; 3_000_000]);
    let shown = Shown::new(&there, &["--writable"]);
    assert_eq!(shown.figure("shiplane_transfers_total{direction=\"sent\",outcome=\"completed\"}"), 0.0);
    here.run(&["get", &shown.ticket, "copy"]).done();
    assert_eq!(shown.figure("shiplane_transfers_total{direction=\"sent\",outcome=\"completed\"}"), 1.0);
    assert_eq!(shown.figure("shiplane_transfer_bytes_total{direction=\"sent\"}"), 3e6);
    assert_eq!(shown.figure("shiplane_moved_bytes_total{direction=\"sent\"}"), 3e6);
    assert_eq!(shown.figure("shiplane_transfer_duration_seconds_count{direction=\"sent\"}"), 1.0);
    assert_eq!(shown.figure("shiplane_transfer_bytes_total{direction=\"received\"}"), 0.0);
    here.write("new", vec![1; 2_000_000]);
    here.run(&["push", "new", &shown.ticket]).done();
    assert_eq!(shown.figure("shiplane_transfers_total{direction=\"received\",outcome=\"completed\"}"), 1.0);
    assert_eq!(shown.figure("shiplane_moved_bytes_total{direction=\"received\"}"), 2e6);
    assert_eq!(shown.figure("shiplane_moved_bytes_total{direction=\"sent\"}"), 3e6);
    let settled = "shiplane_calls_total{method=\"push.settle\",outcome=\"ok\"}";
    assert!(shown.figure(settled) >= 1.0);
    assert!(shown.figure("shiplane_call_duration_seconds_count{method=\"push.settle\"}") >= 1.0);
    assert!(shown.figure("shiplane_memory_limit_bytes{budget=\"chunks\"}") > 0.0);
    shown.status_with(|status| status["peers_total"] == 0);
    assert_eq!(shown.figure("shiplane_peers"), 0.0);
}

#[test]
fn a_failure_is_counted_by_its_class_and_listed() {
    let (here, there) = (Machine::new(), Machine::new());
    there.write("src/much", vec![7; 20_000_000]);
    let shown = Shown::new(&there, &["--rate", "1MB"]);
    let get = Running::start(&mut here.command(&["get", &shown.ticket, "copy"]));
    shown.status_with(|status| status["peers"][0]["jobs"][0]["moved_bytes"].as_u64() > Some(0));
    get.interrupt();
    get.end();
    let status = shown.status_with(|status| status["failures"][0]["job"] == "get");
    let failure = &status["failures"][0];
    let class = failure["class"].as_str().unwrap();
    // A chunk that is under way may fail first.
    assert!(["interrupted", "other"].contains(&class), "{failure}");
    assert_eq!(failure["path"], Value::Null);
    let counted = format!("shiplane_failures_total{{job=\"get\",class=\"{class}\"}}");
    assert_eq!(shown.figure(&counted), 1.0);
    let refused = here.run(&["get", &shown.ticket.replace("/#", "/none#"), "copy"]);
    assert_eq!(refused.code, Some(6));
    let answered = shown.figure("shiplane_calls_total{method=\"ticket.redeem\",outcome=\"refused\"}");
    assert_eq!(answered, 1.0);
}

#[test]
fn every_figure_is_in_the_document_and_every_one_in_the_document_is_shown() {
    let (here, there) = (Machine::new(), Machine::new());
    there.write("src/file", "content");
    let shown = Shown::new(&there, &[]);
    here.run(&["get", &shown.ticket, "copy"]).done();
    let figures = shown.body("/metrics");
    let typed = figures.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let names: BTreeSet<String> = typed.filter_map(|line| Some(line.split_once(' ')?.0.to_owned())).collect();
    let document = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/operating.md");
    let document = fs::read_to_string(document).unwrap();
    let rows = document.lines().filter_map(|line| line.strip_prefix("| `shiplane_"));
    let told: BTreeSet<String> =
        rows.filter_map(|row| Some(format!("shiplane_{}", row.split_once('`')?.0))).collect();
    assert_eq!(names, told);
    assert!(
        figures.lines().all(|line| line.starts_with('#') || line.is_empty() || line.starts_with("shiplane_"))
    );
}

#[test]
fn only_a_host_of_its_own_is_answered() {
    let there = Machine::new();
    let shown = Shown::new(&there, &["--metrics-host", "files.example"]);
    let port = shown.addr.rsplit_once(':').unwrap().1.to_owned();
    for path in ["/", "/metrics", "/healthz", "/status.json", "/none"] {
        for host in
            ["evil.example", &format!("evil.example:{port}"), "192.0.2.1", "", "localhost.evil.example"]
        {
            let answer = shown.ask("GET", path, host);
            assert_eq!(code(&answer), 403, "{path} {host}");
            assert!(!answer.contains("sl1") && !answer.contains("shiplane_"), "{answer}");
        }
    }
    for host in
        ["localhost", &format!("LocalHost:{port}"), "127.0.0.1", "[::1]", "files.example", &shown.addr]
    {
        assert_eq!(shown.code("GET", "/metrics", host), 200, "{host}");
    }
    // As a proxy is asked, twice, and not at all.
    for request in [
        "GET http://evil.example/metrics HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET /metrics HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n",
        "GET /metrics HTTP/1.1\r\n\r\n",
        "GET /metrics HTTP/1.0\r\n\r\n",
    ] {
        assert_eq!(code(&shown.answer(request.as_bytes())), 403, "{request}");
    }
}

#[test]
fn only_existing_pages_can_be_read_and_nothing_else_is_answered() {
    let there = Machine::new();
    let shown = Shown::new(&there, &[]);
    for path in ["/none", "/metrics/", "//", "/../etc/passwd", "/favicon.ico", "/page.js"] {
        assert_eq!(shown.code("GET", path, "localhost"), 404, "{path}");
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "X"] {
        let answer = shown.ask(method, "/metrics", "localhost");
        assert!(matches!(code(&answer), 400..=499), "{method}: {answer}");
    }
    assert_eq!(shown.code("POST", "/status.json", "localhost"), 405);
    let head = shown.ask("HEAD", "/status.json", "localhost");
    assert_eq!(code(&head), 200);
    assert!(head.ends_with("\r\n\r\n"), "{head}");
    for path in ["/", "/metrics", "/status.json", "/healthz", "/none"] {
        let answer = shown.ask("GET", path, "localhost").to_lowercase();
        for header in [
            "content-security-policy: default-src 'none'",
            "x-content-type-options: nosniff",
            "cache-control: no-store",
            "referrer-policy: no-referrer",
        ] {
            assert!(answer.contains(header), "{path} has no {header}: {answer}");
        }
        assert!(!answer.contains("access-control-allow"), "{answer}");
    }
    let busy = there.run(&["serve", "src", "--listen", "127.0.0.1:0", "--metrics", &shown.addr]);
    busy.failed(7, "status page");
}

#[test]
fn requests_without_end_or_sense_are_dropped_and_others_answered() {
    let there = Machine::new();
    let shown = Shown::new(&there, &[]);
    let long = "x".repeat(20 << 10);
    for request in [
        format!("GET /{long} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: localhost\r\nX: {long}\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: localhost\r\n{}\r\n", "A: b\r\n".repeat(1000)),
        "\0\u{1}\u{2}".repeat(100),
        "GET".to_owned(),
    ] {
        let answer = shown.answer(request.as_bytes());
        assert!(answer.is_empty() || (400..=499).contains(&code(&answer)), "{answer}");
    }
    // A body that is announced and does not come.
    let announced = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n";
    assert_eq!(code(&shown.answer(announced.as_bytes())), 200);
    assert_eq!(shown.body("/healthz"), "ok\n");
}

#[test]
fn silent_slow_and_idle_connections_end_by_themselves_and_leave_room() {
    let there = Machine::new();
    let shown = Shown::new(&there, &[]);
    // Twice as many as are served at a time; half of them have begun to ask.
    let mut held: Vec<TcpStream> = iter::repeat_with(|| shown.connect()).take(64).collect();
    for stream in held.iter_mut().step_by(2) {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: loc").unwrap();
    }
    assert_eq!(shown.body("/healthz"), "ok\n");
    for mut stream in held {
        let mut rest = Vec::new();
        // Reset or closed: it ends.
        let ended = stream.read_to_end(&mut rest).map_err(|error| error.kind());
        assert_ne!(ended, Err(std::io::ErrorKind::WouldBlock), "it is held open");
    }
}

#[test]
fn names_of_files_are_shown_on_request_only_and_secrets_never() {
    let (here, there) = (Machine::new(), Machine::new());
    let name = "<img src=x onerror=alert(1)>\"'&\u{1b}[2J\u{202e}";
    here.write(name, vec![7; 20_000_000]);
    for names in [false, true] {
        let args: &[&str] = if names { &["--metrics-names"] } else { &[] };
        let shown = Shown::new(&there, &[&["--writable", "--rate", "1MB"], args].concat());
        let secret = shown.ticket.split_once('#').unwrap().1.to_owned();
        let key = fs::read_to_string(there.path("identity")).unwrap();
        let key: Vec<&str> = key.lines().filter(|line| !line.starts_with(['#', '-'])).collect();
        assert!(!key.is_empty() && secret.len() > 16);
        let mut push = Running::start(&mut here.command(&["push", name, &shown.ticket, "--json"]));
        push.event(|event| event["event"] == "progress");
        let status = shown.status_with(|status| {
            let job = &status["peers"][0]["jobs"][0];
            // Before that it may still be opened, and then it has not failed when it is given up.
            job["job"] == "push" && job["moved_bytes"].as_u64() > Some(0)
        });
        let path = &status["peers"][0]["jobs"][0]["path"];
        match names {
            // The one is JSON's escaping, the other ours.
            true => assert_eq!(path, "<img src=x onerror=alert(1)>\"'&\\x1b[2J\\u{202e}"),
            false => assert_eq!(path, &Value::Null),
        }
        push.interrupt();
        push.end();
        shown.status_with(|status| status["failures"][0]["job"] == "push");
        for path in ["/", "/metrics", "/status.json", "/healthz"] {
            let answer = shown.ask("GET", path, "localhost");
            assert!(!answer.contains(&secret), "{answer}");
            assert!(!key.iter().any(|line| answer.contains(line)), "{answer}");
            assert_eq!(answer.contains("onerror"), names && path == "/status.json", "{answer}");
            assert!(!answer.contains('\u{1b}') && !answer.contains('\u{202e}'), "{answer}");
        }
    }
}

#[test]
fn an_address_that_others_reach_is_said_aloud() {
    let there = Machine::new();
    let serve = |addr: &str| {
        let fixed = ["--listen", "127.0.0.1:0", "--quiet", "--metrics", addr];
        there.serve_with("src", &fixed).stop()
    };
    assert!(serve("0.0.0.0:0").err.contains("warning: the status page at 0.0.0.0:"));
    assert!(!serve("127.0.0.1:0").err.contains("warning: the status page"));
}

#[test]
fn a_draining_server_says_so_admits_no_peer_and_ends_with_success() {
    let (here, there) = (Machine::new(), Machine::new());
    there.write("src/much", vec![7; 192 << 20]);
    let shown = Shown::new(&there, &["--ticket-uses", "any"]);
    let mut get = Running::start(&mut here.command(&["get", &shown.ticket.replace("/#", "/much#"), "-"]));
    get.first_byte();
    shown.server.send(Signal::TERM);
    let ended = Instant::now() + HANG;
    let answers = iter::repeat_with(|| shown.ask("GET", "/healthz", "localhost"));
    let mut answers = answers.take_while(|_| Instant::now() < ended);
    let draining = answers.find(|answer| code(answer) == 503 && answer.ends_with("\r\n\r\ndraining\n"));
    assert!(draining.is_some());
    assert_eq!(shown.figure("shiplane_draining"), 1.0);
    let other = Machine::new();
    let refused = other.run(&["get", &shown.ticket, "copy", "--give-up-after", "0s"]);
    assert_eq!(refused.code, Some(3), "{refused:?}");
    get.stop_reading();
    get.end();
    assert_eq!(shown.server.wait().code(), Some(0));
}

/// Far above the deadlines of a connection, and what any wait takes: a hang guard.
const HANG: Duration = Duration::from_secs(90);
