//! The program's help, errors and events as a reader sees them: reviewed text in `snapshots/`. `INSTA_UPDATE=always
//! cargo test -p shiplane-cli --test it snapshots` writes it anew.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::program::Machine;

#[test]
fn help_of_every_command() {
    let machine = Machine::new();
    let mut text = String::new();
    for command in COMMANDS {
        let mut args: Vec<_> = command.split_whitespace().collect();
        args.push("--help");
        text += &format!("$ shiplane {}\n{}\n", args.join(" "), machine.run(&args).done().out);
    }
    insta::assert_snapshot!(text);
}

#[test]
fn errors_name_cause_side_and_next_step() {
    let machine = Machine::new();
    machine.write("file", "");
    let id = machine.id();
    let peer = format!("{id}@127.0.0.1:1/x");
    let other = Machine::new().id();
    let mut text = String::new();
    for args in [
        &["id", "--loud"][..],
        &["teleport"],
        &["peers", "add", "x"],
        &["peers", "add", "x", "sl1qqqq"],
        &["peers", "add", "x", &id, "--path", "../x", "--read"],
        &["get", "./dir", &peer],
        &["peers", "remove", "nobody"],
        &["get"],
        &["get", "shiplane://nonsense"],
        &["get", "nobody@127.0.0.1/x"],
        &["get", "--", "-oProxyCommand=x:y"],
        &["get", "host:a", "other:b"],
        &["get", &peer, "--rate", "0"],
        &["get", &peer, "--chunk", "1"],
        &["push", "missing", &peer],
        &["push", "file"],
        &["sync", "file", &peer],
        &["serve", "missing"],
        &["serve", ".", "--listen", "nowhere"],
        &["serve", ".", "--ticket-ttl", "1x"],
        &["man", "teleport"],
    ] {
        let run = machine.run(args);
        let err = run.err.replace(&machine.file("").to_string_lossy().into_owned(), "DIR/");
        let code = run.code.map_or_else(|| "a signal".to_owned(), |code| code.to_string());
        text += &format!("$ shiplane {}\n{}{err}exit code {code}\n\n", args.join(" "), run.out);
    }
    insta::assert_snapshot!(text.replace(&id, "PEERID").replace(&other, "OTHER"));
}

/// Names and types of fields; values differ from run to run.
#[test]
fn events_have_these_fields() {
    let (here, there) = (Machine::new(), Machine::new());
    here.write("src/hello", "hello");
    there.write("inbox/theirs", "theirs");
    let _socket = std::os::unix::net::UnixListener::bind(here.file("src/socket")).unwrap();
    let server = there.serve_with("inbox", &["--writable", "--json", "--listen", "127.0.0.1:0"]);
    let listening: Value = serde_json::from_str(&server.first_line).unwrap();
    let ticket = listening["ticket"].as_str().unwrap();
    let mut text = format!("serve\n  {}\n", fields(&listening));
    for args in [&["push", "src", ticket][..], &["get", ticket, "copy"], &["sync", "mine", ticket]] {
        here.dir("mine");
        let run = here.run(&[args, &["--json"]].concat());
        // The socket is left out.
        assert!(matches!(run.code, Some(0 | 9)), "{run:?}");
        text += &format!("{}\n", args[0]);
        // By name: which phases are told, and when a total is known, depends on the time.
        let kinds: BTreeMap<String, String> = (run.events().into_iter())
            .map(|mut event| {
                if event["event"] == "progress" {
                    event.as_object_mut().unwrap().remove("bytes_total");
                }
                (event["event"].to_string(), fields(&event))
            })
            .collect();
        kinds.into_values().for_each(|fields| text += &format!("  {fields}\n"));
    }
    let failed = here.run(&["get", &ticket.replace("/#", "/none#"), "copy", "--json"]);
    text += &format!("a failure\n  {}\n", fields(&failed.last_event()));
    insta::assert_snapshot!(text);
}

fn fields(event: &Value) -> String {
    let fields = event.as_object().into_iter().flatten().map(|(name, value)| match value {
        Value::String(text) if name == "event" => format!("{name}={text}"),
        Value::Null => format!("{name}: null"),
        Value::Bool(_) => format!("{name}: bool"),
        Value::Number(_) => format!("{name}: number"),
        Value::String(_) => format!("{name}: text"),
        Value::Array(_) | Value::Object(_) => format!("{name}: list"),
    });
    fields.collect::<Vec<_>>().join(", ")
}

const COMMANDS: [&str; 23] = [
    "",
    "send",
    "receive",
    "serve",
    "get",
    "push",
    "sync",
    "ls",
    "ping",
    "doctor",
    "clean",
    "id",
    "peers",
    "peers add",
    "peers list",
    "peers nearby",
    "peers remove",
    "ticket",
    "ticket new",
    "ticket list",
    "ticket revoke",
    "completions",
    "man",
];
