//! Rate limits, compression and totals.

use crate::program::Machine;

fn log() -> String {
    (0..40_000).map(|at| format!("request {at} was answered with status {}\n", at % 5)).collect()
}

#[test]
fn compressed_files_arrive_unchanged_in_both_directions() {
    let (here, there) = (Machine::new(), Machine::new());
    let log = log();
    there.write("src/log", &log);
    let server = there.serve_with("src", &["--writable", "--listen", "127.0.0.1:0"]);
    for (at, flag) in ["--compress", "--compress=always", "--compress=auto"].into_iter().enumerate() {
        let name = format!("log{at}");
        let source = server.ticket_for("log");
        let got = here.run(&["get", flag, &source, &name, "--json"]).done().last_event();
        assert!(got["bytes_wire"].as_u64() < Some(log.len() as u64 / 2), "{got}");
        assert_eq!(std::fs::read_to_string(here.file(&name)).unwrap(), log);
        let pushed = here.run(&["push", flag, &name, server.ticket(), "--json"]).done().last_event();
        assert!(pushed["bytes_wire"].as_u64() < Some(log.len() as u64 / 2), "{pushed}");
        assert_eq!(std::fs::read_to_string(there.file(&format!("src/{name}"))).unwrap(), log);
    }
    let plain = here.run(&["get", &server.ticket_for("log"), "plain", "--json"]).done().last_event();
    assert_eq!((&plain["bytes_wire"], &plain["bytes_received"]), (&log.len().into(), &log.len().into()));
}

#[test]
fn a_sync_is_compressed_limited_and_counted_as_well() {
    let (here, there) = (Machine::new(), Machine::new());
    let log = log();
    there.write("src/theirs", &log);
    here.write("data/ours", &log[9..]);
    let server = there.serve_with("src", &["--writable", "--json", "--listen", "127.0.0.1:0"]);
    let listening: serde_json::Value = serde_json::from_str(&server.first_line).unwrap();
    let ticket = listening["ticket"].as_str().unwrap();
    let args = ["sync", "--compress", "--rate", "1Gbit", "data", ticket, "--json"];
    let synced = here.run(&args).done().last_event();
    assert_eq!(
        (&synced["bytes_received"], &synced["bytes_sent"]),
        (&log.len().into(), &(log.len() - 9).into())
    );
    assert!(synced["bytes_wire"].as_u64() < Some(log.len() as u64 / 2), "{synced}");
    assert_eq!(std::fs::read_to_string(there.file("src/ours")).unwrap(), log[9..]);
    let stopped = server.stop().last_event();
    let totals = |bytes: usize| serde_json::json!({ "completed": 1, "failed": 0, "bytes": bytes });
    assert_eq!((&stopped["sent"], &stopped["received"]), (&totals(log.len()), &totals(log.len() - 9)));
}

#[test]
fn a_rate_is_understood_by_all_three_and_refused_if_it_is_none() {
    let (here, there) = (Machine::new(), Machine::new());
    there.write("src/hello", "hello");
    let args = ["--writable", "--rate", "1Gbit", "--listen", "127.0.0.1:0"];
    let server = there.serve_with("src", &args);
    here.run(&["get", "--rate", "100MB/s", &server.ticket_for("hello")]).done();
    here.write("other", "other");
    here.run(&["push", "--rate", "800Mbit", "other", server.ticket()]).done();
    for rate in ["0", "10", "fast", "10MB/m"] {
        here.run(&["get", "--rate", rate, server.ticket(), "out"]).failed(2, "--rate <RATE>");
    }
}

#[test]
fn a_server_prints_its_totals_at_the_end() {
    let (here, there) = (Machine::new(), Machine::new());
    there.write("src/hello", "hello");
    let server = there.serve_with("src", &["--writable", "--json", "--listen", "127.0.0.1:0"]);
    let listening: serde_json::Value = serde_json::from_str(&server.first_line).unwrap();
    let ticket = listening["ticket"].as_str().unwrap();
    here.run(&["get", ticket, "copy"]).done();
    here.write("news", "good news");
    here.run(&["push", "news", ticket]).done();
    here.write("other/hello", "not the same");
    let other = here.file("other/hello");
    here.run(&["push", other.to_str().unwrap(), ticket]).failed(6, "hello");
    let stopped = server.stop().last_event();
    assert_eq!(stopped["event"], "stopped");
    let totals = |completed: u64, failed: u64, bytes: u64| serde_json::json!({ "completed": completed, "failed": failed, "bytes": bytes });
    assert_eq!((&stopped["sent"], &stopped["received"]), (&totals(1, 0, 5), &totals(1, 1, 9)));
}
