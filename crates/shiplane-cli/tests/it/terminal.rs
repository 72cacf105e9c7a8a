//! What a person sees at a terminal, whatever its width.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, Stdio};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::program::{Machine, interrupt};

/// A terminal of `columns`, and the end of it that a program gets.
fn terminal(columns: u16) -> (File, File) {
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
    grantpt(&terminal).expect("a terminal");
    unlockpt(&terminal).expect("a terminal");
    let size = Winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(&terminal, size).expect("a size");
    let name = ptsname(&terminal, Vec::new()).expect("a name").into_string().expect("text");
    let inside = File::options().read(true).write(true).open(name).expect("the other end");
    (File::from(terminal), inside)
}

/// Runs the program at a terminal of `columns`, and gives its exit code and the lines that it has drawn, without what
/// moves the cursor.
pub(crate) fn at_terminal(
    machine: &Machine,
    columns: u16,
    variables: &[(&str, &str)],
    args: &[&str],
) -> (i32, Vec<String>) {
    at_terminal_typing(machine, columns, variables, args, "")
}

/// The same, with `typed` on the keyboard before it asks.
pub(crate) fn at_terminal_typing(
    machine: &Machine,
    columns: u16,
    variables: &[(&str, &str)],
    args: &[&str],
    typed: &str,
) -> (i32, Vec<String>) {
    let (mut terminal, inside) = terminal(columns);
    let out = || Stdio::from(inside.try_clone().expect("a handle"));
    let mut command = machine.command(args);
    command.env("TERM", "xterm").env_remove("NO_COLOR").envs(variables.iter().copied());
    if !typed.is_empty() {
        command.stdin(out());
        (&terminal).write_all(typed.as_bytes()).expect("keys");
    }
    let mut child = command.stdout(out()).stderr(out()).spawn().expect("the program starts");
    drop((command, inside));
    let mut drawn = Vec::new();
    // Once the other end is closed, reading fails.
    let _ = terminal.read_to_end(&mut drawn);
    let code = child.wait().expect("it ends").code().expect("a code");
    let drawn = String::from_utf8(drawn).expect("text");
    let lines = drawn.split(['\r', '\n']).map(|line| line.replace("\u{1b}[2K", "").trim_end().to_owned());
    (code, lines.filter(|line| !line.is_empty()).collect())
}

#[test]
fn the_bar_fits_a_terminal_of_any_width_and_one_line_sums_up() {
    let (here, there) = (Machine::new(), Machine::new());
    there.write("src/large", testlink::Rng::new(1).bytes(3_000_000));
    let server = there.serve("src");
    for columns in [40, 60, 120] {
        let dest = format!("copy{columns}");
        let args = ["get", server.ticket(), &dest, "--rate", "6MB"];
        let (code, lines) = at_terminal(&here, columns, &[], &args);
        let (last, bars) = lines.split_last().expect("lines");
        assert!(code == 0 && last.starts_with("done: 1 file, 2.86 MiB received in "), "{lines:?}");
        assert!(bars.iter().any(|line| line.contains("/2.86 MiB")), "{bars:?}");
        let longest = bars.iter().map(|line| line.chars().count()).max();
        assert!(longest <= Some(columns.into()), "{longest:?} {bars:?}");
        let (_, lines) = at_terminal(&here, columns, &[], &args);
        assert!(lines.last().is_some_and(|line| line.starts_with("nothing to do: 1 file")), "{lines:?}");
    }
}

#[test]
fn no_color_and_dumb_terminals_get_neither_colours_nor_a_bar() {
    let (here, there) = (Machine::new(), Machine::new());
    there.write("src/file", "file");
    let server = there.serve("src");
    let is_plain = |variables: &[(&str, &str)]| {
        let (code, lines) = at_terminal(&here, 80, variables, &["get", "--nonsense"]);
        assert_eq!(code, 2);
        !lines.iter().any(|line| line.contains('\u{1b}'))
    };
    assert!(!is_plain(&[]));
    assert!(is_plain(&[("NO_COLOR", "1")]) && is_plain(&[("TERM", "dumb")]));
    let (code, lines) = at_terminal(&here, 80, &[("TERM", "dumb")], &["get", server.ticket(), "copy"]);
    assert!(code == 0 && lines.len() == 1 && lines[0].starts_with("done: 1 file"), "{lines:?}");
}

/// Starts a server whose standard error is a terminal of `columns`; gives its ticket, and what it draws there.
pub(crate) fn serve_at_terminal(
    there: &Machine,
    root: &str,
    columns: u16,
    args: &[&str],
) -> (Child, String, BufReader<File>) {
    start_at_terminal(there, columns, &[&["serve", root, "--listen", "127.0.0.1:0"], args].concat())
}

/// Starts the program so that its standard error is a terminal of `columns`; gives its first line, and what it draws
/// there.
pub(crate) fn start_at_terminal(
    machine: &Machine,
    columns: u16,
    args: &[&str],
) -> (Child, String, BufReader<File>) {
    let (terminal, inside) = terminal(columns);
    let mut command = machine.command(args);
    command.env("TERM", "xterm").stdout(Stdio::piped()).stderr(Stdio::from(inside));
    let mut child = command.spawn().expect("the program starts");
    let mut first = String::new();
    BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut first).expect("a line");
    (child, first.trim_end().to_owned(), BufReader::new(terminal))
}

/// Reads what is drawn until a line has all of these words.
pub(crate) fn drawn_line(drawn: &mut BufReader<File>, words: &[&str]) -> String {
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = drawn.read_until(b'\r', &mut line).expect("what is drawn");
        let text = String::from_utf8_lossy(&line).into_owned();
        assert!(read > 0, "the terminal is closed");
        if let Some(found) = text.lines().find(|found| words.iter().all(|word| found.contains(word))) {
            // Its line feed may not have come yet.
            return found.trim_end_matches('\r').to_owned();
        }
    }
}

#[test]
fn a_server_shows_who_is_connected_and_what_moves() {
    let (here, there) = (Machine::new(), Machine::new());
    there.write("src/d/large", testlink::Rng::new(1).bytes(12_000_000));
    let (mut child, ticket, mut drawn) = serve_at_terminal(&there, "src", 100, &[]);
    drawn_line(&mut drawn, &["no peer connected"]);
    let id = here.id();
    let mut get = here.command(&["get", &format!("{ticket}/d"), "copy", "--rate", "3MB", "--quiet"]);
    let mut get = get.spawn().unwrap();
    drawn_line(&mut drawn, &["1 peer connected"]);
    let line = drawn_line(&mut drawn, &[&id[..8], " get ", "MiB/s d"]);
    assert!(!line.contains("/0 B/s"), "{line}");
    assert!(get.wait().unwrap().success());
    drawn_line(&mut drawn, &["no peer connected"]);
    interrupt(&child);
    let drained = drawn_line(&mut drawn, &["served for "]);
    assert!(drained.contains("1 transfer"), "{drained}");
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_quiet_server_shows_nothing() {
    let (here, there) = (Machine::new(), Machine::new());
    there.write("src/file", "file");
    let (mut child, ticket, mut drawn) = serve_at_terminal(&there, "src", 100, &["--quiet"]);
    here.run(&["get", &ticket, "copy"]).done();
    interrupt(&child);
    assert!(child.wait().unwrap().success());
    let mut all = Vec::new();
    let _ = drawn.read_to_end(&mut all);
    let all = String::from_utf8_lossy(&all);
    // An idle server may end before this is printed, by another thread.
    assert!(
        ["", "finishing running transfers; press Ctrl-C again to stop now"].contains(&all.trim()),
        "{all}"
    );
}
