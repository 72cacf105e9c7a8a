//! `doctor`, and `--explain`: what limits a transfer, before and after it.

use serde_json::Value;

use crate::program::{Machine, Run};

fn findings(run: &Run) -> Vec<Value> {
    run.events().into_iter().filter(|event| event["event"] == "finding").collect()
}

/// Whether all that is bad here is what this machine may well have. Then 1 is right, too.
fn ended(run: &Run) {
    let is_bad = findings(run).iter().any(|finding| finding["grade"] == "bad");
    assert_eq!(run.code, Some(i32::from(is_bad)), "{run:?}");
}

fn of<'a>(findings: &'a [Value], check: &str) -> &'a Value {
    findings
        .iter()
        .find(|finding| finding["check"] == check)
        .unwrap_or_else(|| panic!("{check}: {findings:?}"))
}

#[test]
fn a_machine_is_looked_at_as_a_whole_and_nothing_is_left_on_its_disk() {
    let here = Machine::new();
    here.dir("disk");
    let run = here.run(&["doctor", "--dir", "disk", "--json"]);
    ended(&run);
    let found = findings(&run);
    for check in [
        "socket_receive_buffer",
        "socket_send_buffer",
        "clock",
        "disk_write",
        "disk_read",
        "disk_sync",
        "digest",
        "digest_sha256",
        "encryption",
    ] {
        assert!(of(&found, check)["value"].as_f64() > Some(0.0), "{check}: {found:?}");
    }
    #[cfg(target_os = "linux")]
    assert!(of(&found, "open_files")["value"].as_f64() > Some(0.0));
    assert!(std::fs::read_dir(here.file("disk")).unwrap().next().is_none());
    // For people.
    let text = here.run(&["doctor", "--dir", "disk"]);
    assert!(text.out.lines().any(|line| line.contains("BLAKE3: ")), "{text:?}");
    assert!(
        text.out.lines().all(|line| ["fine ", "poor ", "bad  ", "     "].contains(&&line[..5])),
        "{text:?}"
    );
}

#[test]
fn something_bad_is_named_and_the_exit_code_says_so() {
    let run = Machine::new().run(&["doctor", "--dir", "missing", "--json"]).told(1, "found something bad");
    let found = findings(&run);
    let disk = of(&found, "disk_write");
    assert_eq!(disk["grade"], "bad");
    assert!(disk["message"].as_str().unwrap().contains("cannot be written"), "{disk}");
}

#[test]
fn a_path_is_measured_both_ways_and_the_ceiling_names_its_reason() {
    let (here, there) = (Machine::new(), Machine::new());
    there.write("data/file", "x");
    let server = there.serve("data");
    let run = here.run(&["doctor", server.ticket(), "--json"]);
    ended(&run);
    let found = findings(&run);
    for check in ["round_trip", "path_to_here", "path_to_server", "path_packets"] {
        assert!(of(&found, check)["value"].as_f64() > Some(0.0), "{check}: {found:?}");
    }
    let predicted: Vec<_> = run.events().into_iter().filter(|event| event["event"] == "predicted").collect();
    let commands: Vec<_> = predicted.iter().map(|event| event["command"].as_str().unwrap()).collect();
    assert_eq!(commands, ["get", "push"]);
    assert!(predicted.iter().all(|event| event["bytes_per_second"].as_u64() > Some(0)), "{predicted:?}");
    here.run(&["doctor", &format!("{}@127.0.0.1:1", there.id())]).told(3, "127.0.0.1:1");
}

#[test]
fn a_limit_of_the_server_is_the_ceiling_of_the_path() {
    let (here, there) = (Machine::new(), Machine::new());
    there.write("data/file", "x");
    let server = there.serve_with("data", &["--listen", "127.0.0.1:0", "--rate", "1MB"]);
    let run = here.run(&["doctor", server.ticket(), "--json"]);
    let found = findings(&run);
    let rate = of(&found, "path_to_here")["value"].as_f64().unwrap();
    assert!(rate > 0.0 && rate < 3_000_000.0, "{rate}");
    let events = run.events();
    let get = events.iter().find(|event| event["command"] == "get").unwrap();
    assert_eq!(get["limited_by"], "path");
}

#[test]
fn a_run_is_compared_with_the_measurement_before_it() {
    let (here, there) = (Machine::new(), Machine::new());
    here.write("mine/large", testlink::Rng::new(1).bytes(9_000_000));
    there.dir("data");
    let server = there.serve_with("data", &["--writable", "--listen", "127.0.0.1:0", "--ticket-uses", "any"]);
    for (args, limit) in [
        (&["push", "mine", server.ticket()][..], None),
        (&["get", server.ticket(), "copy"], None),
        (&["sync", "mine/.", &server.ticket_for("synced")], None),
        (&["get", server.ticket(), "slow", "--rate", "6MB"], Some("--rate")),
    ] {
        let run = here.run(&[args, &["--explain", "--json"]].concat()).done();
        let events = run.events();
        let explained = events.iter().find(|event| event["event"] == "explained").expect("it is explained");
        assert_eq!(explained["comparable"], true, "{explained}");
        let [actual, predicted] =
            ["bytes_per_second", "predicted_bytes_per_second"].map(|name| explained[name].as_f64().unwrap());
        assert!(actual > 0.0 && predicted > 0.0, "{explained}");
        assert!((explained["ratio"].as_f64().unwrap() - actual / predicted).abs() < 0.01, "{explained}");
        if let Some(limit) = limit {
            assert_eq!(explained["limited_by"], limit);
        }
    }
    here.run(&["sync", "mine", server.ticket(), "--watch", "--explain"]).told(2, "cannot be used with");
}
