//! `send` and `receive`: two programs that know only a code and, where these tests run, an address.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::local::completed;
use crate::program::{Machine, Run, Running, assert_same_tree, mixed_tree};
use crate::terminal::{at_terminal_typing, drawn_line, start_at_terminal};

/// A `send` that waits.
struct Sending {
    running: Running,
    code: String,
    at: String,
}

impl Sending {
    /// Sends these paths of a machine.
    fn start(machine: &Machine, args: &[&str]) -> Self {
        Self::listening(machine, "127.0.0.1:0", args)
    }

    fn listening(machine: &Machine, listen: &str, args: &[&str]) -> Self {
        let args = [&["send", "--json", "--listen", listen][..], args].concat();
        let mut running = Running::start(&mut machine.command(&args));
        let waiting = running.event(|event| event["event"] == "waiting");
        let text = |name: &str| waiting[name].as_str().expect("text").to_owned();
        // Nothing is announced of loopback, so the address is needed.
        let command = format!("shiplane receive {} --at {}", text("code"), text("address"));
        assert_eq!(text("command"), command);
        Self { code: text("code"), at: text("address"), running }
    }

    /// What `receive` needs.
    fn args<'a>(&'a self, code: &'a str, rest: &[&'a str]) -> Vec<&'a str> {
        [&["receive", code][..], rest, &["--at", &self.at, "--yes", "--give-up-after", "0s"]].concat()
    }

    fn receive(&self, machine: &Machine, rest: &[&str]) -> Run {
        machine.run(&self.args(&self.code, rest))
    }

    /// A code with the right number and wrong words.
    fn wrong(&self) -> String {
        let number = self.code.split('-').next().expect("a number");
        let wrong = format!("{number}-crossover-clockwork");
        if wrong == self.code { format!("{number}-crossover-clamshell") } else { wrong }
    }

    fn event(&mut self, change: &str) -> Value {
        self.running.event(|event| event["change"] == change)
    }
}

#[test]
fn a_tree_arrives_by_its_code_and_the_sender_ends() {
    let (here, there) = (Machine::new(), Machine::new());
    mixed_tree(&there);
    let mut sending = Sending::start(&there, &["src"]);
    let received = sending.receive(&here, &["--json"]).done();
    assert_same_tree(&there.file("src"), &here.file("src"));
    let offered = &received.events().into_iter().find(|event| event["event"] == "offered").expect("an offer");
    assert_eq!((&offered["names"][0], offered["counted"].as_bool()), (&"src".into(), Some(true)));
    assert_eq!(offered["peer_id"].as_str().map(str::to_owned), Some(there.id()));
    assert_eq!(sending.event("admitted")["peer"].as_str().map(str::to_owned), Some(here.id()));
    assert_eq!(sending.running.rest().done().last_event()["event"], "sent");
    assert_eq!(std::fs::read_dir(here.path("received")).expect("a directory").count(), 0);
}

#[cfg(target_os = "linux")]
#[test]
fn attributes_arrive_if_the_receiver_takes_them() {
    use rustix::fs::{XattrFlags, getxattr, setxattr};
    let (here, there) = (Machine::new(), Machine::new());
    let file = there.write("src/file", "content");
    setxattr(&file, "user.text", b"text", XattrFlags::empty()).expect("an attribute");
    let mut value = [0; 16];
    for (dest, rest, expected) in [("plain", &[][..], None), ("taken", &["--attributes"], Some(&b"text"[..]))]
    {
        let sending = Sending::start(&there, &["src"]);
        sending.receive(&here, &[&[dest][..], rest].concat()).done();
        let found = getxattr(here.file(dest).join("file"), "user.text", &mut value[..]);
        assert_eq!(found.ok().map(|len| &value[..len]), expected);
        sending.running.rest().done();
    }
}

#[test]
fn several_paths_arrive_by_their_names_and_nothing_beside_them() {
    let (here, there) = (Machine::new(), Machine::new());
    for name in ["a/file", "b/inner/deep", "b/secret", "c/one", "c/two/three"] {
        there.write(name, name);
    }
    let sending = Sending::start(&there, &["a/file", "b/inner", "c/."]);
    sending.receive(&here, &["out"]).done();
    there.write("expected/file", "a/file");
    there.write("expected/inner/deep", "b/inner/deep");
    there.write("expected/one", "c/one");
    there.write("expected/two/three", "c/two/three");
    assert_same_tree(&there.file("expected"), &here.file("out"));
    sending.running.rest().done();

    there.write("d/file", "other");
    for same in [&["a/file", "d/file"][..], &["a/.", "d/."], &["a/file", "a/."]] {
        let args = [&["send"][..], same].concat();
        there.run(&args).failed(2, "two of the paths have the name file");
    }
    there.run(&["send", "nothing"]).failed(7, "cannot serve this");
}

#[test]
fn a_used_code_is_refused() {
    let (here, other, there) = (Machine::new(), Machine::new(), Machine::new());
    there.write("file", testlink::Rng::new(1).bytes(600_000));
    let mut sending = Sending::start(&there, &["file"]);
    let slow = [&sending.args(&sending.code, &["--rate", "100KB"])[..], &["--json"]].concat();
    let mut receiving = Running::start(&mut here.command(&slow));
    sending.running.event(|event| event["change"] == "admitted");
    sending.receive(&other, &[]).failed(4, "the code has been used");
    receiving.event(|event| event["event"] == "done");
    receiving.rest().done();
    sending.running.rest().done();
    assert!(here.file("file").exists() && !other.file("file").exists());
}

#[test]
fn three_wrong_codes_make_it_void_and_the_sender_says_so() {
    let (here, there) = (Machine::new(), Machine::new());
    there.write("file", "file");
    let mut sending = Sending::start(&there, &["file"]);
    let wrong = sending.wrong();
    for left in ["2 more make the code void", "one more makes the code void", "the code is void"] {
        here.run(&sending.args(&wrong, &[])).failed(4, "the code is wrong");
        let told = sending.event("guessed")["message"].as_str().map(str::to_owned).expect("text");
        assert!(told.contains(left), "{told}");
    }
    let ended = sending.running.rest();
    assert_eq!(ended.code, Some(4), "{ended:?}");
    assert_eq!(ended.last_event()["class"], "identity");
    assert!(!here.file("file").exists());
}

#[test]
fn a_right_code_after_a_wrong_one_is_good() {
    let (here, there) = (Machine::new(), Machine::new());
    there.write("file", "file");
    let sending = Sending::start(&there, &["file"]);
    here.run(&sending.args(&sending.wrong(), &[])).failed(4, "the code is wrong");
    sending.receive(&here, &[]).done();
    sending.running.rest().done();
}

#[test]
fn a_mistyped_code_is_corrected_and_an_invalid_one_spends_no_guess() {
    let (here, there) = (Machine::new(), Machine::new());
    there.write("file", "file");
    let sending = Sending::start(&there, &["file"]);
    for (code, cause) in [
        ("7-crossover", "number and 2 to 8 words"),
        ("crossover-clockwork", "begins with a number"),
        ("7-clockwork-crossover", "another order"),
        ("7-crossover-xyzzy", "is in no code"),
    ] {
        for _ in 0..3 {
            here.run(&sending.args(code, &[])).failed(2, cause);
        }
    }
    let blanks = format!("  {} ", sending.code.replace('-', " ").to_uppercase());
    here.run(&sending.args(&blanks, &[])).done();
    sending.running.rest().done();
}

#[test]
fn a_code_may_be_typed_with_blanks_and_without_quotation_marks() {
    let (here, there) = (Machine::new(), Machine::new());
    there.write("file", "file");
    let sending = Sending::start(&there, &["file"]);
    let parts: Vec<&str> = sending.code.split('-').collect();
    let args = [&["receive"], &parts[..], &["./out", "--at", &sending.at, "--yes"]].concat();
    here.run(&args).done();
    assert!(here.file("out").exists());
    sending.running.rest().done();
    let args = ["receive", "7-crossover-clockwork", "out", "more", "--yes"];
    here.run(&args).failed(2, "there is more than a code and a place: more");
}

#[test]
fn the_printed_command_works_as_it_is() {
    let (here, there) = (Machine::new(), Machine::new());
    there.write("file", "file");
    for listen in ["127.0.0.1:0", "[::1]:0"] {
        let mut sending = Running::start(&mut there.command(&["send", "file", "--listen", listen]));
        let printed = sending.out_line();
        let program = std::path::Path::new(env!("CARGO_BIN_EXE_shiplane")).parent().expect("a directory");
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", &format!("PATH={}; {printed} --yes", program.display())]);
        shell.env("SHIPLANE_HOME", here.path("")).current_dir(here.file(""));
        Run::of(&mut shell).done();
        assert!(here.file("file").exists(), "{printed}");
        std::fs::remove_file(here.file("file")).expect("it");
        sending.rest().done();
    }
}

#[test]
fn a_machine_that_was_cloned_with_its_key_receives_from_the_other() {
    let (here, there) = (Machine::new(), Machine::new());
    there.write("src/file", "file");
    there.id();
    let copied = std::process::Command::new("cp").arg("-r").arg(there.path(".")).arg(here.path("")).status();
    assert!(copied.expect("cp runs").success());
    assert_eq!(here.id(), there.id());
    let sending = Sending::start(&there, &["src"]);
    sending.receive(&here, &[]).done();
    sending.running.rest().done();
    let server = there.serve("src");
    here.run(&["get", server.ticket(), "got"]).done();
    assert_same_tree(&here.file("src"), &there.file("src"));
    assert_same_tree(&here.file("got"), &there.file("src"));
}

#[test]
fn a_sender_suspended_until_its_code_expired_says_so_when_it_wakes() {
    let there = Machine::new();
    there.write("file", "file");
    let sending = Sending::start(&there, &["file", "--code-ttl", "1s"]);
    sending.running.send(Signal::STOP);
    let until = Instant::now() + Duration::from_secs(2);
    while Instant::now() < until {
        std::thread::park_timeout(until - Instant::now());
    }
    sending.running.send(Signal::CONT);
    let woken = sending.running.rest();
    assert_eq!(woken.code, Some(3), "{woken:?}");
    assert!(woken.err.contains("expired"), "{woken:?}");
}

#[test]
fn a_sender_that_was_killed_and_started_again_has_another_code_and_the_receiver_resumes() {
    let (here, there) = (Machine::new(), Machine::new());
    there.write("file", testlink::Rng::new(1).bytes(3_000_000));
    let killed = Sending::start(&there, &["file"]);
    let args = [&killed.args(&killed.code, &["--rate", "1MB"])[..], &["--json"]].concat();
    let mut receiving = Running::start(&mut here.command(&args));
    receiving.event(|event| event["event"] == "progress" && event["bytes_done"].as_u64() > Some(500_000));
    drop(killed.running);
    assert_eq!(receiving.rest().code, Some(3));
    let again = Sending::start(&there, &["file"]);
    assert_ne!(again.code, killed.code);
    let resumed = again.receive(&here, &["--json"]).done().last_event();
    assert!(resumed["bytes_resumed"].as_u64() >= Some(500_000), "{resumed}");
    again.running.rest().done();
}

#[test]
fn a_sender_at_a_terminal_shows_a_bar_and_says_what_was_sent() {
    let (here, there) = (Machine::new(), Machine::new());
    there.write("file", testlink::Rng::new(1).bytes(12_000_000));
    let args = ["send", "file", "--listen", "127.0.0.1:0"];
    let (mut child, command, mut drawn) = start_at_terminal(&there, 100, &args);
    drawn_line(&mut drawn, &["The code is for one receiver, within ten minutes."]);
    let words: Vec<&str> = command.split_whitespace().skip(1).collect();
    let args = [&words[..], &["--yes", "--rate", "6MB", "--quiet"]].concat();
    let mut receiving = here.command(&args).spawn().expect("it starts");
    drawn_line(&mut drawn, &["/11.44 MiB", "sending"]);
    drawn_line(&mut drawn, &["done: 11.44 MiB sent to 1 receiver in "]);
    assert!(child.wait().expect("it ends").success() && receiving.wait().expect("it ends").success());
}

#[test]
fn the_code_may_come_from_standard_input_or_the_environment() {
    let (here, there) = (Machine::new(), Machine::new());
    there.write("file", "file");
    let sending = Sending::start(&there, &["file", "--to", "2"]);
    let code = here.feed(&sending.args("-", &[]), format!("{}\n", sending.code).as_bytes());
    assert_eq!(code, Some(0));
    let other = Machine::new();
    let args = ["receive", "--at", &sending.at, "--yes", "out"];
    let mut command = other.command(&args);
    Run::of(command.env("SHIPLANE_CODE", &sending.code)).done();
    assert!(other.file("out").exists());
    sending.running.rest().done();
    here.run(&["receive", "--yes", "--at", "127.0.0.1:9"]).failed(2, "there is no code");
}

#[test]
fn without_a_terminal_nothing_is_received_unless_that_was_said() {
    let (here, there) = (Machine::new(), Machine::new());
    there.write("file", "file");
    let sending = Sending::start(&there, &["file"]);
    here.run(&["receive", &sending.code, "--at", &sending.at]).failed(2, "standard input is not a terminal");
    assert!(!here.file("file").exists());
    sending.receive(&here, &[]).done();
    sending.running.rest().done();
}

#[test]
fn a_receive_that_was_killed_is_resumed_by_the_same_command() {
    let (here, there) = (Machine::new(), Machine::new());
    there.write("file", testlink::Rng::new(1).bytes(3_000_000));
    let sending = Sending::start(&there, &["file"]);
    let args = [&sending.args(&sending.code, &["--rate", "1MB"])[..], &["--json"]].concat();
    let mut receiving = Running::start(&mut here.command(&args));
    receiving.event(|event| event["event"] == "progress" && event["bytes_done"].as_u64() > Some(500_000));
    drop(receiving);
    let resumed = sending.receive(&here, &["--json"]).done().last_event();
    assert!(resumed["bytes_resumed"].as_u64() >= Some(500_000), "{resumed}");
    assert_eq!(std::fs::read(here.file("file")).expect("it"), std::fs::read(there.file("file")).expect("it"));
    sending.running.rest().done();
}

#[test]
fn a_code_for_two_serves_two_at_once_and_no_third() {
    let (one, two, there) = (Machine::new(), Machine::new(), Machine::new());
    there.write("file", testlink::Rng::new(1).bytes(500_000));
    let sending = Sending::start(&there, &["file", "--to", "2", "--code-words", "4"]);
    assert_eq!(sending.code.split('-').count(), 5);
    let args = sending.args(&sending.code, &["--rate", "500KB"]);
    let first = Running::start(&mut one.command(&args));
    sending.receive(&two, &[]).done();
    first.rest().done();
    assert!(one.file("file").exists() && two.file("file").exists());
    sending.running.rest().done();
}

#[test]
fn the_receiver_may_be_first() {
    let (here, there) = (Machine::new(), Machine::new());
    there.write("file", "file");
    // A code can be known before only if the sender was there before.
    let before = Sending::start(&there, &["file"]);
    before.receive(&here, &[]).done();
    let address = before.at.clone();
    before.running.rest().done();
    let socket = UdpSocket::bind(&address).expect("the port is free again");
    let args = ["receive", "7-crossover-clockwork", "out", "--at", &address, "--yes", "-v"];
    let mut waiting = Running::start(&mut here.command(&args));
    waiting.err_line("the sender is not there yet");
    drop(socket);
    let mut sending = Sending::listening(&there, &address, &["file"]);
    // It was waiting for another code.
    sending.event("guessed");
    assert_eq!(waiting.rest().code, Some(4));
}

#[test]
fn a_text_is_printed_and_nothing_is_written() {
    let (here, there) = (Machine::new(), Machine::new());
    let text = "two lines\nand \u{1b}[31mred";
    let sending = Sending::start(&there, &["--text", text]);
    let received = sending.receive(&here, &[]).done();
    assert_eq!(received.out, text);
    sending.running.rest().done();
    assert_eq!(std::fs::read_dir(here.file("")).expect("a directory").count(), 0);
    let long = "x".repeat(70_000);
    there.run(&["send", "--text", &long]).failed(2, "the text has more than 65536 bytes");
}

#[test]
fn hidden_names_land_only_where_the_receiver_says() {
    let (here, there) = (Machine::new(), Machine::new());
    there.write(".profile", "evil");
    there.write("dir/.hidden", "evil");
    there.write("dir/shown", "good");
    there.write("dir/inner/.deep", "good");
    let sending = Sending::start(&there, &[".profile"]);
    sending.receive(&here, &[]).told(6, "begin with a dot");
    assert!(!here.file(".profile").exists());
    sending.receive(&here, &["named"]).done();
    assert!(here.file("named").exists());
    sending.running.rest().done();

    let sending = Sending::start(&there, &["dir/."]);
    sending.receive(&here, &[]).told(6, "begin with a dot");
    assert!(!here.file(".hidden").exists());
    sending.receive(&here, &["out"]).done();
    assert_same_tree(&there.file("dir"), &here.file("out"));
    sending.running.rest().done();
}

#[cfg(unix)]
#[test]
fn links_that_lead_out_are_left_out_by_default() {
    use std::os::unix::fs::symlink;
    let (here, there) = (Machine::new(), Machine::new());
    there.write("dir/file", "file");
    symlink("file", there.file("dir/inside")).expect("a link");
    symlink("../../etc/passwd", there.file("dir/outside")).expect("a link");
    let sending = Sending::start(&there, &["dir", "--to", "2"]);
    sending.receive(&here, &[]).told(9, "1 path was left out");
    assert!(here.file("dir/inside").is_symlink() && !here.file("dir/outside").is_symlink());
    let other = Machine::new();
    sending.receive(&other, &["--links", "all"]).done();
    assert!(other.file("dir/outside").is_symlink());
    sending.running.rest().done();
}

#[test]
fn ctrl_c_ends_a_sender_without_a_receiver() {
    let there = Machine::new();
    there.write("file", "file");
    let sending = Sending::start(&there, &["file"]);
    sending.running.interrupt();
    assert_eq!(sending.running.rest().code, Some(130));
    let sending = Sending::start(&there, &["file", "--stay"]);
    sending.running.interrupt();
    assert_eq!(sending.running.rest().code, Some(0));
}

#[test]
fn at_a_terminal_a_receiver_shows_the_offer_and_asks() {
    let (here, there) = (Machine::new(), Machine::new());
    let path = "dir/evil\u{202e}name";
    there.write(path, "x".repeat(2048));
    for (answer, code) in [("n\n", 6), ("\u{4}", 6), ("y\n", 0)] {
        let sending = Sending::start(&there, &[path]);
        let args = ["receive", &sending.code, "out", "--at", &sending.at];
        let (ended, lines) = at_terminal_typing(&here, 120, &[], &args, answer);
        let shown = lines.join("\n");
        assert_eq!(ended, code, "{shown}");
        assert!(shown.contains("1 file of 2.00 KiB from sl1"), "{shown}");
        assert!(shown.contains(&format!("at {}", sending.at)), "{shown}");
        assert!(shown.contains(r"evil\u{202e}name"), "{shown}");
        assert!(shown.contains("receive into out? [y/N]"), "{shown}");
        assert_eq!(here.file("out").exists(), code == 0);
        let told = sending.running.rest();
        assert_eq!(told.code, Some(code), "the sender hears of it: {told:?}");
    }
}

#[test]
fn a_text_at_a_terminal_is_shown_without_control_sequences() {
    let (here, there) = (Machine::new(), Machine::new());
    let sending = Sending::start(&there, &["--text", "one\n\u{1b}]52;c;x\u{7}two"]);
    let args = ["receive", &sending.code, "--at", &sending.at];
    let (code, lines) = at_terminal_typing(&here, 120, &[], &args, "\n");
    let shown = lines.join("\n");
    assert!(code == 0 && shown.contains("one") && shown.contains("two"), "{shown}");
    assert!(!shown.contains("\u{1b}]52"), "{shown}");
    sending.running.rest().done();
}

#[test]
fn a_shell_completes_the_words_of_a_code() {
    let machine = Machine::new();
    for (typed, offered) in [("7-crosso", "7-crossover"), ("7-crossover-clock", "7-crossover-clockwork")] {
        assert_eq!(completed(&machine, &["receive", typed]), [offered]);
    }
}

#[test]
fn a_code_is_shown_as_a_qr_code_beside_the_first_line() {
    let machine = Machine::new();
    machine.write("file", "file");
    let args = ["send", "file", "--listen", "127.0.0.1:0", "--qr"];
    let mut sending = Running::start(&mut machine.command(&args));
    sending.err_line("▀");
    sending.interrupt();
    let sent = sending.rest();
    assert!(sent.out.lines().count() == 1 && sent.out.starts_with("shiplane receive "), "{sent:?}");
}
