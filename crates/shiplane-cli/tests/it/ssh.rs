//! Over ssh, with a real sshd: what arrives, by which shell, and what is said where it cannot.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use serde_json::Value;

use crate::namespaces::Link;
use crate::program::{Machine, Run, Running, assert_same_tree, mixed_tree};
use crate::sshd::{Far, Setup, is_there};
use crate::terminal::at_terminal;

fn run(far: &Far, here: &Machine, args: &[&str]) -> Run {
    Run::of(&mut far.command(here, args))
}

/// A far side whose program has no network.
fn without_network() -> Option<Far> {
    let allowed = Command::new("unshare").args(["-n", "true"]).status();
    if !allowed.is_ok_and(|allowed| allowed.success()) {
        println!("skipped: a program without a network takes root and unshare");
        return None;
    }
    Far::with(&Setup { wrapper: "unshare -n", ..Setup::default() })
}

#[track_caller]
fn address(run: &Run) -> String {
    let events = run.events();
    let started = events.iter().find(|event| event["event"] == "started").expect("it has started");
    started["address"].as_str().expect("an address").to_owned()
}

/// Fetches, pushes, syncs and lists on `host`, and gives the addresses by which that was done.
fn everything(far: &Far, host: &str) -> Vec<String> {
    let here = Machine::new();
    let at = |path: &str| format!("{host}:{path}");
    mixed_tree(&far.machine);
    let get = || run(far, &here, &["get", &at("src"), "copy", "--json"]).done();
    let got = get();
    assert_same_tree(&here.file("copy"), &far.machine.file("src"));
    assert_eq!(get().last_event()["bytes_received"], 0);
    let pushed = run(far, &here, &["push", "copy", &at("new/deep"), "--json"]).done();
    assert_same_tree(&far.machine.file("new/deep/copy"), &far.machine.file("src"));
    here.write("copy/more", "more");
    let synced = run(far, &here, &["sync", "copy", &at("synced"), "--json"]).done();
    assert_same_tree(&far.machine.file("synced"), &here.file("copy"));
    // The second sync knows the first.
    fs::remove_file(far.machine.file("synced/more")).expect("a file");
    run(far, &here, &["sync", "copy", &at("synced")]).done();
    assert!(!here.file("copy/more").exists());
    let listed = run(far, &here, &["ls", &at("src")]).done();
    assert_eq!(listed.out, "big\nempty\nnothing/\nsmall/\nwith space/\n");
    far.is_at_rest();
    [got, pushed, synced].iter().map(address).collect()
}

#[test]
fn trees_arrive_both_ways_and_data_goes_by_udp() {
    let Some(far) = Far::new() else { return };
    for address in everything(&far, "localhost") {
        assert!(address.parse::<std::net::SocketAddr>().is_ok(), "{address}");
    }
}

#[test]
fn trees_arrive_both_ways_where_there_is_no_udp() {
    let Some(far) = without_network() else { return };
    assert_eq!(everything(&far, "far"), ["ssh far"; 3]);
    let pinged = run(&far, &Machine::new(), &["ping", "far:", "--count", "1"]).done();
    assert!(pinged.out.contains(" through ssh far\n"), "{}", pinged.out);
}

#[test]
fn both_sides_may_have_the_same_key() {
    let Some(far) = Far::new() else { return };
    far.machine.write("file", "file");
    let mut command = far.command(&far.machine, &["get", "far:file", "copy"]);
    Run::of(&mut command).done();
    assert_eq!(fs::read_to_string(far.machine.file("copy")).expect("a file"), "file");
}

/// Names that a shell would take apart.
const NAMES: [&str; 8] =
    ["a b", "$HOME", "it's \"quoted\"", "`id`", "~", "~root", "line\nbreak", "*; echo x & (y) | z > w !"];

#[test]
fn names_that_a_shell_would_take_apart_arrive_exactly() {
    let Some(far) = Far::new() else { return };
    let here = Machine::new();
    for name in NAMES {
        far.machine.write(&format!("./src/{name}"), name);
        gets_and_pushes(&far, &here, name);
    }
}

#[test]
fn any_shell_runs_the_command_and_none_sees_the_path() {
    let name = NAMES.concat();
    let mut shells = Vec::new();
    for shell in ["sh", "bash", "dash", "zsh", "fish", "csh", "tcsh", "ksh", "xonsh", "nu", "pwsh"] {
        // So sshd runs the shell of the account.
        let forced = format!("exec {shell} -c \"$SSH_ORIGINAL_COMMAND\"");
        let setup = Setup { forced: Some(&forced), ..Setup::default() };
        let Some(far) = is_there(shell).then(|| Far::with(&setup)).flatten() else { continue };
        far.machine.write(&format!("./src/{name}"), &name);
        gets_and_pushes(&far, &Machine::new(), &name);
        far.is_at_rest();
        shells.push(shell);
    }
    println!("with {shells:?}");
}

/// Of a file in `src` that has its name as its content.
#[track_caller]
fn gets_and_pushes(far: &Far, here: &Machine, name: &str) {
    run(far, here, &["get", &format!("far:src/{name}"), "in/"]).done();
    let file = here.file(&format!("in/{name}"));
    assert_eq!(fs::read_to_string(&file).expect("a file"), name);
    run(far, here, &["push", file.to_str().expect("text"), &format!("far:out/{name}")]).done();
    let there = far.machine.file(&format!("out/{name}/{name}"));
    assert_eq!(fs::read_to_string(there).expect("a file"), name);
}

#[test]
fn paths_begin_at_the_home_directory_as_with_scp() {
    let Some(far) = Far::new() else { return };
    let here = Machine::new();
    far.machine.write("dir/file", "file");
    far.machine.write("~odd", "odd");
    let absolute = format!("far:{}", far.machine.file("dir/file").display());
    let url = format!("ssh://far{}", far.machine.file("dir/file").display());
    for source in
        ["far:dir/file", "far:~/dir/file", "far:./dir/../dir/file", &absolute, &url, "ssh://far/~/dir/file"]
    {
        run(&far, &here, &["get", source, "copy", "--overwrite"]).done();
        assert_eq!(fs::read_to_string(here.file("copy")).expect("a file"), "file", "{source}");
        fs::remove_file(here.file("copy")).expect("a file");
    }
    run(&far, &here, &["get", "far:./~odd", "copy"]).done();
    assert_eq!(fs::read_to_string(here.file("copy")).expect("a file"), "odd");
    run(&far, &here, &["get", "far:~other/x", "other"]).failed(2, "~other is not looked up");
    run(&far, &here, &["get", "far:none", "other"]).failed(7, "none does not exist");
    // A directory by its name, and the home directory by its own.
    run(&far, &here, &["get", "far:dir/", "below/"]).done();
    assert!(here.file("below/dir/file").exists());
    let home = far.machine.file("");
    run(&far, &here, &["get", "far:", "below/"]).done();
    let name = home.file_name().expect("a name");
    assert!(here.file("below").join(name).join("dir/file").exists());
}

#[test]
fn names_that_are_no_text_arrive_exactly() {
    let Some(far) = Far::new() else { return };
    let here = Machine::new();
    let name = std::ffi::OsStr::from_bytes(b"\xff\xfe \x1b");
    fs::write(far.machine.file("").join(name), "odd").expect("a file");
    let mut source = std::ffi::OsString::from("far:");
    source.push(name);
    let mut command = far.command(&here, &["get"]);
    Run::of(command.arg(source).arg("copy")).done();
    assert_eq!(fs::read_to_string(here.file("copy")).expect("a file"), "odd");
}

#[test]
fn a_file_is_pushed_from_standard_input_and_got_to_standard_output() {
    let Some(far) = Far::new() else { return };
    let here = Machine::new();
    here.write("in", "content");
    let input = fs::File::open(here.file("in")).expect("a file");
    let mut command = far.command(&here, &["push", "-", "far:new/file"]);
    let pushed = command.stdin(input).status().expect("it ends");
    assert!(pushed.success());
    assert_eq!(run(&far, &here, &["get", "far:new/file", "-"]).done().out, "content");
}

#[test]
fn links_and_attributes_are_taken_from_a_peer_that_logged_in() {
    let Some(far) = Far::new() else { return };
    let here = Machine::new();
    here.write("src/file", "file");
    std::os::unix::fs::symlink("/elsewhere", here.file("src/link")).expect("a link");
    run(&far, &here, &["push", "src", "far:", "--attributes"]).done();
    let link = fs::read_link(far.machine.file("src/link")).expect("a link");
    assert_eq!(link, std::path::Path::new("/elsewhere"));
}

#[test]
fn output_of_login_scripts_is_ignored() {
    let noise = "printf 'Welcome!\\033[2J\\r\\nshiplane-ssh/ is great'; exec sh -c \"$SSH_ORIGINAL_COMMAND\"";
    let Some(far) = Far::with(&Setup { forced: Some(noise), ..Setup::default() }) else { return };
    let here = Machine::new();
    far.machine.write("file", "file");
    run(&far, &here, &["get", "far:file"]).done();
    assert_eq!(fs::read_to_string(here.file("file")).expect("a file"), "file");
}

#[test]
fn output_of_the_login_files_of_any_shell_is_ignored() {
    // Each shell reads its own, also where it only runs a command.
    let files = [
        ("bash", ".bashrc"),
        ("zsh", ".zshenv"),
        ("fish", ".config/fish/config.fish"),
        ("csh", ".cshrc"),
        ("tcsh", ".tcshrc"),
    ];
    for (shell, file) in files {
        // Of bash, sshd says that it was started over the network.
        let forced = format!("exec {shell} -c \"$SSH_ORIGINAL_COMMAND\"");
        let setup = Setup { forced: Some(&forced), ..Setup::default() };
        let Some(far) = is_there(shell).then(|| Far::with(&setup)).flatten() else { continue };
        far.machine.write(file, "echo Welcome; echo hello > $HOME/seen");
        far.machine.write("file", "file");
        let here = Machine::new();
        run(&far, &here, &["get", "far:file"]).done();
        assert_eq!(fs::read_to_string(here.file("file")).expect("a file"), "file", "{shell}");
        // Not every bash is built to look.
        assert!(shell == "bash" || far.machine.file("seen").exists(), "{shell} has read its file");
        far.is_at_rest();
    }
}

#[test]
fn the_program_is_found_in_the_usual_places_below_the_home_directory() {
    for place in [".local/bin", ".cargo/bin"] {
        let Some(far) = Far::with(&Setup { place: Some(place), ..Setup::default() }) else { return };
        let here = Machine::new();
        far.machine.write("file", "file");
        run(&far, &here, &["get", "far:file"]).done();
        assert_eq!(fs::read_to_string(here.file("file")).expect("a file"), "file");
    }
}

#[test]
fn a_command_that_is_forced_may_be_this_one() {
    let forced = "shiplane serve --stdio-ticket";
    let Some(far) = Far::with(&Setup { forced: Some(forced), ..Setup::default() }) else { return };
    let here = Machine::new();
    far.machine.write("file", "file");
    run(&far, &here, &["get", "far:file"]).done();
    assert_eq!(fs::read_to_string(here.file("file")).expect("a file"), "file");
}

#[test]
fn output_in_place_of_an_answer_is_quoted() {
    let forced = "printf 'only \\033[31mgit\\n'; exit 1";
    let Some(far) = Far::with(&Setup { forced: Some(forced), ..Setup::default() }) else { return };
    let failed = run(&far, &Machine::new(), &["get", "far:file"]);
    let failed = failed.failed(1, "but this: only \\x1b[31mgit (exit status: 1)");
    assert!(failed.err.contains("it must be shiplane serve --stdio-ticket"), "{}", failed.err);
}

#[test]
fn a_program_that_is_missing_or_too_old_is_named_with_what_to_do() {
    let here = Machine::new();
    let Some(far) = Far::with(&Setup { is_missing: true, ..Setup::default() }) else { return };
    let failed =
        run(&far, &here, &["get", "far:x"]).failed(1, "there is no program shiplane on that machine in ");
    assert!(failed.err.contains("/.local/bin:") && failed.err.contains("--remote-path"), "{}", failed.err);
    let failed = run(&far, &here, &["get", "far:x", "--remote-path", "/nonexistent/shiplane"]);
    failed.failed(1, "there is no program shiplane on that machine");
    let too_old = "echo \"error: unexpected argument '--stdio-ticket' found\" >&2; exit 2";
    let Some(far) = Far::with(&Setup { program: Some(too_old), ..Setup::default() }) else { return };
    let failed = run(&far, &here, &["get", "far:x"]).failed(1, "is too old");
    assert!(failed.err.contains("install the same version"), "{}", failed.err);
    let newer = "echo shiplane-ssh/2 hello";
    let Some(far) = Far::with(&Setup { program: Some(newer), ..Setup::default() }) else { return };
    run(&far, &here, &["get", "far:x"]).failed(1, "another version (2)");
}

#[test]
fn a_failed_login_is_not_reported_as_a_failed_program() {
    let Some(far) = Far::new() else { return };
    let here = Machine::new();
    // No such key is known there.
    let mut command = far.command(&here, &["get", "far:x"]);
    command.env("SHIPLANE_SSH", "ssh -F none -o BatchMode=yes -o ProxyCommand=false");
    Run::of(&mut command).failed(3, "ssh could not log in");
    let mut command = far.command(&here, &["get", "far:x", "--ssh", "/nonexistent/ssh"]);
    Run::of(&mut command).failed(7, "cannot start /nonexistent/ssh");
    let mut command = far.command(&here, &["get", "far:x", "--ssh", "ssh 'x"]);
    Run::of(&mut command).failed(2, "quotation mark");
}

#[test]
fn a_passphrase_without_a_terminal_to_ask_on_fails_at_once() {
    let Some(far) = Far::with(&Setup { passphrase: "secret", ..Setup::default() }) else { return };
    let here = Machine::new();
    // Without a terminal, an agent and a display.
    let program = far.command(&here, &["get", "far:x", "--json"]);
    let mut command = Command::new("setsid");
    command.arg("--wait").arg(program.get_program()).args(program.get_args()).current_dir(here.file(""));
    program.get_envs().for_each(|(name, value)| match value {
        Some(value) => drop(command.env(name, value)),
        None => drop(command.env_remove(name)),
    });
    command.env_remove("SSH_AUTH_SOCK").env_remove("DISPLAY").env_remove("SSH_ASKPASS");
    let failed = Run::of(&mut command).told(3, "ssh could not log in");
    assert!(!failed.events().iter().any(|event| event["event"] == "connection_lost"), "{failed:?}");
    assert_eq!(far.processes().len(), 0);
}

#[test]
fn an_address_of_ipv6_reaches_ssh_whole() {
    let here = Machine::new();
    let script = here.write("bin/ssh", "#!/bin/sh\nprintf '%s\\n' \"$@\" > args\nexit 255\n");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("a mode");
    let ssh = format!("'{}'", script.display());
    for (target, destination) in [
        ("root@[2001:db8::3:0]:data/", "root@2001:db8::3:0"),
        ("[2001:db8::3:0]:data/", "2001:db8::3:0"),
        ("root@[fe80::1%eth0]:data/", "root@fe80::1%eth0"),
        ("ssh://root@[fe80::1%25eth0]:2222/data", "root@fe80::1%eth0"),
    ] {
        here.run(&["get", target, "--ssh", &ssh]).failed(3, "ssh could not log in");
        let args = fs::read_to_string(here.file("args")).expect("what ssh was given");
        let args: Vec<&str> = args.lines().collect();
        assert!(args.windows(2).any(|pair| pair == ["--", destination]), "{target}: {args:?}");
        assert_eq!(args.windows(2).any(|pair| pair == ["-p", "2222"]), target.contains("2222"), "{args:?}");
    }
}

#[test]
fn an_sshd_that_listens_is_reached_by_its_address() {
    let Some(far) = Far::with(&Setup { listen: Some("::1"), ..Setup::default() }) else { return };
    let here = Machine::new();
    mixed_tree(&far.machine);
    let url = format!("ssh://[::1]:{}/~/src", far.port);
    for source in ["[::1]:src", "root@[::1]:src", &url] {
        let got = run(&far, &here, &["get", source, "copy", "--json"]).done();
        let reached = address(&got).parse::<std::net::SocketAddr>().expect("UDP answers");
        assert!(reached.ip().is_loopback(), "{reached}");
        assert_same_tree(&here.file("copy"), &far.machine.file("src"));
        fs::remove_dir_all(here.file("copy")).expect("a directory");
    }
    far.is_at_rest();
}

#[test]
fn an_address_with_a_zone_is_reached_on_its_link() {
    let Some(link) = Link::new("zone", false) else { return };
    let shown = Command::new("ip")
        .args(["netns", "exec", link.name(0), "ip", "-6", "-o", "addr", "show", "dev", "eth0"])
        .output()
        .expect("ip runs");
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    let ip = shown.split_whitespace().find(|word| word.starts_with("fe80::")).expect("a link-local address");
    let ip = ip.split('/').next().expect("an address");
    let (prefix, listen) = (link.prefix(0), format!("{ip}%eth0"));
    let setup = Setup { sshd_wrapper: &prefix, listen: Some(&listen), ..Setup::default() };
    let Some(far) = Far::with(&setup) else { return };
    let here = Machine::new();
    far.machine.write("file", "file");
    let source = format!("[{ip}%eth0]:file");
    let got = Running::start(&mut link.enter(1, &far.command(&here, &["get", &source, "--json"]))).rest();
    let got = got.done();
    assert!(address(&got).starts_with(&format!("[{ip}%")), "data goes by UDP: {got:?}");
    assert_eq!(fs::read_to_string(here.file("file")).expect("a file"), "file");
}

#[test]
fn a_link_that_is_cut_in_the_middle_and_comes_back_costs_only_time() {
    let Some(link) = Link::new("cut", true) else { return };
    let prefix = link.prefix(0);
    let setup = Setup { sshd_wrapper: &prefix, listen: Some("10.77.0.1"), ..Setup::default() };
    let Some(far) = Far::with(&setup) else { return };
    let here = Machine::new();
    large(&here, "src/large");
    for is_udp in [true, false] {
        // The program there, too, then has no way but ssh.
        if !is_udp && !link.add_firewall(0, "") {
            return;
        }
        if !is_udp {
            assert!(link.run(0, &["nft", "add rule inet f in tcp dport 1024-65535 accept"]));
        }
        let dest = format!("10.77.0.1:new{is_udp}");
        let args = ["push", "src", &dest, "--rate", RATE, "--chunk", "64K", "--json"];
        let mut running = Running::start(&mut link.enter(1, &far.command(&here, &args)));
        let started = running.event(|event| event["event"] == "started");
        assert_eq!(started["address"] != "ssh 10.77.0.1", is_udp, "{started}");
        running.event(|event| event["bytes_done"].as_u64() >= Some(KEPT_BYTES));
        link.plug(false);
        running.event(|event| event["event"] == "connection_lost" || event["bytes_per_second"] == 0);
        link.plug(true);
        running.rest().done();
        assert_same_tree(&here.file("src"), &far.machine.file(&format!("new{is_udp}/src")));
        far.is_at_rest();
    }
}

#[test]
fn an_address_that_ssh_would_take_for_an_option_is_refused() {
    let here = Machine::new();
    let sources = [
        "-oProxyCommand=touch${IFS}x:y",
        "x@-oProxyCommand=x:y",
        "ssh://-oProxyCommand=x/y",
        "a b:x",
        "2001:db8::1:x",
    ];
    for source in sources {
        here.run(&["get", "--", source, "out"]).failed(2, "invalid address for ssh");
    }
    assert_eq!(fs::read_dir(here.file("")).expect("a directory").count(), 0);
}

#[test]
fn copying_between_two_other_machines_is_refused_with_the_way_to_do_it() {
    let here = Machine::new();
    here.write("file:x", "");
    let get = here.run(&["get", "one:a", "two:b"]).failed(2, "it is not clear whether two:b is a source");
    assert!(get.err.contains("add a local DEST"), "{}", get.err);
    let push = here.run(&["push", "one:a", "two:b"]).failed(2, "one:a is on another machine");
    assert!(push.err.contains("shiplane push PATH OTHER:PATH"), "{}", push.err);
    here.run(&["sync", "one:a", "two:b"]).failed(2, "one:a is on another machine");
    // A local file of that name is one.
    here.run(&["push", "file:x", "two:b", "--ssh", "/nonexistent/ssh"]).failed(7, "cannot start");
}

#[test]
fn a_known_peer_is_never_taken_for_a_user() {
    let (here, there) = (Machine::new(), Machine::new());
    here.run(&["peers", "add", "nas", &there.id()]).done();
    let direct =
        here.run(&["get", "nas@127.0.0.1:1/x", "--give-up-after", "0s", "--ssh", "/nonexistent/ssh"]);
    assert!(!direct.err.contains("/nonexistent/ssh"), "{}", direct.err);
    here.run(&["get", "nas@host:photos", "--ssh", "/nonexistent/ssh"]).failed(2, "the address is wrong");
    here.run(&["get", "me@127.0.0.1:1/x", "--ssh", "/nonexistent/ssh"]).failed(7, "cannot start");
}

const LEN_BYTES: usize = 12_000_000;

/// Slow enough to be interrupted in the middle.
const RATE: &str = "4MB";

/// So slow that the other route is tried in the middle.
const SLOW_RATE: &str = "1500KB";

/// When something happens to a job.
const KEPT_BYTES: u64 = 2_000_000;

/// A run that has kept some of a large file by now.
fn in_the_middle(far: &Far, here: &Machine, args: &[&str]) -> Running {
    let args = [args, &["--rate", RATE, "--chunk", "64K", "--json"]].concat();
    let mut running = Running::start(&mut far.command(here, &args));
    running.event(|event| event["bytes_done"].as_u64() >= Some(KEPT_BYTES));
    running
}

fn large(machine: &Machine, name: &str) {
    machine.write(name, testlink::Rng::new(1).bytes(LEN_BYTES));
}

#[test]
fn a_job_whose_far_side_is_killed_starts_it_again_and_goes_on() {
    for far in [Far::new(), without_network()].into_iter().flatten() {
        let here = Machine::new();
        large(&far.machine, "src/large");
        let running = in_the_middle(&far, &here, &["get", "far:src", "copy"]);
        far.kill();
        let done = running.rest().done();
        assert!(done.events().iter().any(|event| event["event"] == "connection_lost"), "{done:?}");
        let received = done.last_event()["bytes_received"].as_u64();
        assert!(received <= Some(LEN_BYTES as u64), "no byte that was kept has come again: {received:?}");
        assert_same_tree(&here.file("copy"), &far.machine.file("src"));
        assert_eq!(far.processes().len(), 2);
        far.is_at_rest();
    }
}

#[test]
fn a_run_that_was_cut_is_resumed_by_the_same_command() {
    for far in [Far::new(), without_network()].into_iter().flatten() {
        let here = Machine::new();
        large(&here, "src/large");
        let args = ["push", "src", "far:new", "--give-up-after", "0s"];
        let running = in_the_middle(&far, &here, &args);
        far.kill();
        let cut = running.rest();
        assert_eq!(cut.code, Some(3), "{cut:?}");
        assert!(cut.err.contains("the ssh session to far has ended"), "{cut:?}");
        let again = run(&far, &here, &[&args[..], &["--json"]].concat()).done();
        assert!(again.last_event()["bytes_resumed"].as_u64() >= Some(KEPT_BYTES / 2), "{again:?}");
        assert_same_tree(&here.file("src"), &far.machine.file("new/src"));
    }
}

#[test]
fn the_far_side_ends_when_this_one_is_killed_or_interrupted() {
    for far in [Far::new(), without_network()].into_iter().flatten() {
        let here = Machine::new();
        large(&here, "src/large");
        for is_killed in [true, false] {
            let running = in_the_middle(&far, &here, &["push", "src", "far:new"]);
            if is_killed {
                // SIGKILL: nothing can be said to the other side.
                drop(running);
            } else {
                running.interrupt();
                assert_eq!(running.rest().code, Some(130));
            }
            far.is_at_rest();
        }
        run(&far, &here, &["push", "src", "far:new"]).done();
        assert_same_tree(&here.file("src"), &far.machine.file("new/src"));
    }
}

#[test]
fn a_job_moves_to_udp_as_soon_as_that_answers() {
    let Some(link) = Link::new("ssh", true) else { return };
    let prefix = link.prefix(0);
    let Some(far) = Far::with(&Setup { sshd_wrapper: &prefix, ..Setup::default() }) else { return };
    let here = Machine::new();
    large(&far.machine, "src/large");
    large(&here, "mine/large");
    for args in [["get", "far:src", "copy"], ["push", "mine", "far:new"], ["sync", "mine", "far:synced"]] {
        link.plug(false);
        let args = [&args[..], &["--rate", SLOW_RATE, "--chunk", "64K", "--json"]].concat();
        let mut running = Running::start(&mut link.enter(1, &far.command(&here, &args)));
        let started = running.event(|event| event["event"] == "started");
        assert_eq!(started["address"], "ssh far");
        running.event(|event| event["bytes_done"].as_u64() >= Some(KEPT_BYTES));
        link.plug(true);
        let done = running.rest().done();
        let events = done.events();
        let is_move = |event: &Value| {
            event["event"] == "route"
                && event["address"].as_str().is_some_and(|at| at.starts_with("10.77.0.1:"))
        };
        assert!(events.iter().any(is_move), "{args:?}: {done:?}");
        assert!(!events.iter().any(|event| event["event"] == "connection_lost"), "{args:?}: {done:?}");
        far.is_at_rest();
    }
    assert_same_tree(&here.file("copy"), &far.machine.file("src"));
    assert_same_tree(&here.file("mine"), &far.machine.file("new/mine"));
    assert_same_tree(&here.file("mine"), &far.machine.file("synced"));
}

/// Asks at the terminal before it runs ssh, and takes its time.
const ASKING: &str = "#!/bin/sh\nprintf 'password: ' >&2\nsleep 1\necho thanks >&2\nexec ssh \"$@\"\n";

#[test]
fn nothing_is_drawn_before_ssh_has_logged_in() {
    let Some(far) = Far::new() else { return };
    let here = Machine::new();
    large(&far.machine, "src/large");
    let script = here.write("asking/ssh", ASKING);
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("a mode");
    let asking = far.ssh().replacen("ssh", &format!("'{}'", script.display()), 1);
    let args = ["get", "far:src", "copy", "--rate", "6MB"];
    let (code, lines) = at_terminal(&here, 80, &[("SHIPLANE_SSH", &asking)], &args);
    assert_eq!((code, lines[0].as_str()), (0, "password: thanks"), "{lines:?}");
    assert!(lines[1..].iter().any(|line| line.contains("/11.4")), "then there is a bar: {lines:?}");
}

#[test]
fn ctrl_c_at_a_terminal_reaches_ssh_too_and_starts_no_other() {
    for far in [Far::new(), without_network()].into_iter().flatten() {
        let here = Machine::new();
        large(&here, "src/large");
        let args = ["push", "src", "far:new", "--rate", RATE, "--chunk", "64K", "--json"];
        let mut running = Running::start(far.command(&here, &args).process_group(0));
        running.event(|event| event["bytes_done"].as_u64() >= Some(KEPT_BYTES));
        running.interrupt_group();
        assert_eq!(running.rest().code, Some(130));
        far.is_at_rest();
        assert_eq!(far.processes().len(), 1);
    }
}

#[test]
fn text_in_the_middle_of_a_session_ends_it_with_the_reason() {
    // What a background process of a login script may do.
    let forced = "(while [ ! -e \"$HOME/now\" ]; do read -t 1 x </dev/null; done; echo hello) & exec sh -c \"$SSH_ORIGINAL_COMMAND\"";
    let allowed = Command::new("unshare").args(["-n", "true"]).status();
    if !allowed.is_ok_and(|allowed| allowed.success()) {
        println!("skipped: a program without a network takes root and unshare");
        return;
    }
    let setup = Setup { forced: Some(forced), wrapper: "unshare -n", ..Setup::default() };
    let Some(far) = Far::with(&setup) else { return };
    let here = Machine::new();
    large(&far.machine, "src/large");
    let running = in_the_middle(&far, &here, &["get", "far:src", "copy", "--give-up-after", "0s"]);
    far.machine.write("now", "");
    let cut = running.rest();
    assert_eq!(cut.code, Some(1), "{cut:?}");
    assert!(cut.err.contains("another program has written"), "{cut:?}");
}
