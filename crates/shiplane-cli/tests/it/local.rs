//! Commands that use no network.

use std::fs;

use crate::program::{Machine, Run};

#[test]
fn help_goes_to_standard_output() {
    let machine = Machine::new();
    let help = machine.run(&["--help"]).done();
    assert_eq!(help.err, "");
    let version = machine.run(&["--version"]).done();
    assert!(version.out.starts_with("shiplane 0."), "{version:?}");
}

#[test]
fn no_arguments_are_a_usage_error() {
    let machine = Machine::new();
    // Without arguments there is nothing wrong and nothing to do: the help, as an error.
    let run = machine.run(&[]);
    assert_eq!((run.code, run.out.as_str()), (Some(2), ""));
    assert!(run.err.contains("Usage: shiplane"), "{run:?}");
}

#[test]
fn the_key_is_made_once_and_private() {
    let machine = Machine::new();
    let first = machine.id();
    assert!(first.starts_with("sl1") && first.len() == 61, "{first}");
    assert_eq!(machine.id(), first);
    assert_ne!(Machine::new().id(), first);
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(machine.path("identity")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        fs::set_permissions(machine.path("identity"), fs::Permissions::from_mode(0o644)).unwrap();
        machine.run(&["id"]).failed(4, "others may read");
    }
}

#[test]
fn a_home_that_cannot_be_made_is_a_local_error() {
    let machine = Machine::new();
    fs::write(machine.path("file"), "").unwrap();
    let mut command = machine.command(&["id"]);
    command.env("SHIPLANE_HOME", machine.path("file/home"));
    Run::of(&mut command).failed(7, "file/home");
}

#[test]
fn peers_are_added_listed_and_removed() {
    let machine = Machine::new();
    let (one, two) = (Machine::new().id(), Machine::new().id());
    assert_eq!(machine.run(&["peers", "list"]).done().out, "");

    let added = machine.run(&["peers", "add", "laptop", &one, "--read"]).done();
    assert_eq!((added.out.as_str(), added.err.as_str()), ("", "added laptop\n"));
    let paths = ["--read", "--path", "/photos/", "--path", "a b"];
    machine.run(&[&["peers", "add", "nas", &two][..], &paths].concat()).done();
    let expected = format!("laptop {one} read /\nnas {two} read /photos /a%20b\n");
    assert_eq!(machine.run(&["peers", "list"]).done().out, expected);

    let changed = machine.run(&["peers", "add", "laptop", &one]).done();
    assert!(changed.err.contains("changed laptop"), "{changed:?}");
    assert!(changed.err.contains("hint: "), "{changed:?}");
    machine.run(&["peers", "remove", "nas"]).done();
    assert_eq!(machine.run(&["peers", "list"]).done().out, format!("laptop {one} none\n"));
    machine.run(&["peers", "remove", "nas"]).failed(2, "no peer nas");
}

#[test]
fn another_key_for_a_name_is_an_identity_error_and_never_a_question() {
    let machine = Machine::new();
    let (one, two) = (Machine::new().id(), Machine::new().id());
    machine.run(&["peers", "add", "laptop", &one, "--read"]).done();
    machine.run(&["peers", "add", "laptop", &two, "--read"]).failed(4, &one);
    machine.run(&["peers", "add", "other", &one, "--read"]).failed(2, "already has the name");
    assert_eq!(machine.run(&["peers", "list"]).done().out, format!("laptop {one} read /\n"));
}

#[test]
fn a_mistyped_peer_id_or_name_is_detected_locally() {
    let machine = Machine::new();
    let id = machine.id();
    let last = if id.ends_with('q') { 'p' } else { 'q' };
    let mistyped = format!("{}{last}", &id[..60]);
    machine.run(&["peers", "add", "laptop", &mistyped, "--read"]).failed(2, "mistyped");
    machine.run(&["peers", "add", "laptop", &id[..59], "--read"]).failed(2, "61 characters");
    machine.run(&["peers", "add", "lap top", &id, "--read"]).failed(2, "name");
    machine.run(&["peers", "add", "laptop", &id, "--path", "x"]).failed(2, "--read");
    let climbs = ["peers", "add", "laptop", &id, "--read", "--path", "../x"];
    machine.run(&climbs).failed(2, "invalid path");
    assert!(!machine.path("peers").exists());
}

#[test]
fn a_broken_list_of_peers_is_shown_with_its_line_and_left_alone() {
    let machine = Machine::new();
    let id = machine.id();
    machine.run(&["peers", "add", "laptop", &id, "--read"]).done();
    let broken = format!("laptop {id} read /\nnas \u{1b}[2J oops\n");
    fs::write(machine.path("peers"), &broken).unwrap();
    machine.run(&["peers", "list"]).failed(4, "line 2");
    machine.run(&["peers", "add", "nas", &id]).failed(4, "line 2");
    machine.run(&["peers", "remove", "laptop"]).failed(4, "line 2");
    assert_eq!(fs::read_to_string(machine.path("peers")).unwrap(), broken);
}

#[test]
fn completions_and_manual_pages_are_made() {
    let machine = Machine::new();
    for (shell, mark) in [("bash", "complete -o"), ("zsh", "#compdef shiplane"), ("fish", "complete ")] {
        let script = machine.run(&["completions", shell]).done().out;
        assert!(script.contains(mark) && script.contains("SHIPLANE_COMPLETE"), "{shell}: {script}");
    }
    machine.run(&["completions", "cmd.exe"]).failed(2, "cmd.exe");

    let page = machine.run(&["man"]).done().out;
    assert!(page.contains(".TH shiplane 1") && page.contains("EXTRA"), "{page}");
    let page = machine.run(&["man", "peers"]).done().out;
    assert!(page.contains(".TH shiplane-peers 1"), "{page}");
    let page = machine.run(&["man", "peers", "add"]).done().out;
    assert!(page.contains(".TH shiplane-peers-add 1"), "{page}");
    machine.run(&["man", "teleport"]).failed(2, "teleport");
}

/// What the program offers to bash for the last of the words, options left out.
pub(crate) fn completed(machine: &Machine, words: &[&str]) -> Vec<String> {
    let mut command = machine.command(&[&["--", "shiplane"], words].concat());
    command.env("SHIPLANE_COMPLETE", "bash").env("_CLAP_COMPLETE_INDEX", words.len().to_string());
    command.env("_CLAP_COMPLETE_COMP_TYPE", "9").env("_CLAP_COMPLETE_SPACE", "true").env("_CLAP_IFS", "\n");
    let offered = Run::of(&mut command).done().out;
    offered.lines().filter(|word| !word.starts_with("--")).map(str::to_owned).collect()
}

#[test]
fn peers_and_paths_on_their_servers_are_completed() {
    let (here, there) = (Machine::new(), Machine::new());
    there.write("src/photos/2026/a", "a");
    there.write("src/plan", "plan");
    there.run(&["peers", "add", "laptop", &here.id(), "--read"]).done();
    let server = there.serve("src");
    here.run(&["peers", "add", "nas", &there.id(), "--at", &server.address()]).done();
    here.run(&["peers", "add", "other", &here.id()]).done();
    here.write("local", "");
    assert_eq!(completed(&here, &["ls", ""]), ["nas/"], "only it has an address");
    let first = completed(&here, &["get", ""]);
    assert!(first.contains(&"nas/".to_owned()) && first.contains(&"local".to_owned()), "{first:?}");
    assert_eq!(completed(&here, &["peers", "remove", "o"]), ["other"]);
    assert_eq!(completed(&here, &["ls", "nas/"]), ["nas/photos/", "nas/plan"]);
    assert_eq!(completed(&here, &["get", "nas/photos/2"]), ["nas/photos/2026/"]);
    assert_eq!(completed(&here, &["ls", "none/"]), [""; 0]);
}
