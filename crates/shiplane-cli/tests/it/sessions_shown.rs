//! docs/terminal.md: what a person sees, as the program really prints it. `INSTA_UPDATE=always cargo test -p shiplane-cli
//! --test it sessions_shown` writes it anew.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::{env, fs};

use crate::program::{Machine, Run};
use crate::terminal::{at_terminal, drawn_line, serve_at_terminal};

/// A document that grows by what is run.
struct Document(String);

impl Document {
    fn chapter(&mut self, title: &str, text: &str) {
        write!(self.0, "\n## {title}\n\n{text}\n").expect("text");
    }

    /// What a machine prints at a terminal of 80 columns, without the bar.
    fn show(&mut self, prompt: &str, machine: &Machine, ticket: &str, args: &[&str]) {
        let (code, lines) = at_terminal(machine, 80, &[], args);
        let lines = lines.into_iter().filter(|line| !is_of_the_bar(line));
        self.block(prompt, &args.join(" ").replace(ticket, "'TICKET'"), lines, code);
    }

    fn block(&mut self, prompt: &str, command: &str, lines: impl Iterator<Item = String>, code: i32) {
        let mut text = format!("{prompt}$ shiplane {command}\n");
        lines.for_each(|line| text += &format!("{}\n", settled(&line)));
        if code != 0 {
            text += &format!("{prompt}$ echo $?\n{code}\n");
        }
        write!(self.0, "\n```console\n{text}```\n").expect("text");
    }
}

/// The bar and the spinner, which are drawn again and again.
fn is_of_the_bar(line: &str) -> bool {
    let first = line.trim_start_matches('\u{1b}').chars().next();
    first.is_none_or(|first| first == '[' || ('\u{2800}'..='\u{28ff}').contains(&first))
}

/// The same with what changes from run to run made constant.
fn settled(line: &str) -> String {
    let mut words: Vec<String> = line.split(' ').map(str::to_owned).collect();
    for at in 0..words.len() {
        let is_rate = words.get(at + 1).is_some_and(|unit| unit.trim_end_matches(',').ends_with("/s)"));
        let word = &mut words[at];
        if let Some(id) = word.find("sl1") {
            let end = word[id..].find(|symbol: char| !symbol.is_ascii_alphanumeric());
            word.replace_range(id + 3..end.map_or(word.len(), |end| id + end), "…");
        }
        if let Some(secret) = word.find('#') {
            word.truncate(secret);
            word.push_str("#…");
        }
        if let Some(host) = word.find("127.0.0.1:") {
            let port = host + "127.0.0.1:".len();
            let end = word[port..].find(|symbol: char| !symbol.is_ascii_digit());
            word.replace_range(host..end.map_or(word.len(), |end| port + end), "192.0.2.7:7514");
        }
        if is_rate {
            *word = "(…".to_owned();
        }
        let bare = word.trim_matches(['(', ')', ',', ';', '.']);
        if bare.starts_with(|symbol: char| symbol.is_ascii_digit())
            && ["µs", "ms", "s"]
                .iter()
                .any(|unit| bare.strip_suffix(unit).is_some_and(|number| number.parse::<f64>().is_ok()))
        {
            *word = word.replace(bare, "…s");
        }
    }
    words.join(" ")
}

fn machines() -> (Machine, Machine) {
    let (here, there) = (Machine::new(), Machine::new());
    there.write_old("photos/summer/beach.jpg", testlink::Rng::new(1).bytes(3_000_000));
    there.write_old("photos/summer/notes.txt", "sunny\n");
    there.write_old("photos/summer.txt", "index\n");
    let dated =
        Command::new("touch").args(["-d", "2026-08-01T12:00:00Z"]).arg(there.file("photos/summer")).status();
    assert!(dated.expect("touch").success());
    (here, there)
}

#[test]
fn the_document_shows_the_printed_output() {
    let mut document = Document(HEAD.to_owned());
    let (here, there) = machines();

    document.chapter("A directory", "The other machine serves a directory and prints a ticket.");
    let (mut child, ticket, mut drawn) = serve_at_terminal(&there, "photos", 200, &["--ticket-uses", "any"]);
    let hint = drawn_line(&mut drawn, &["hint: "]);
    document.block("there", "serve photos --ticket-uses any", [ticket.clone(), hint].into_iter(), 0);
    document.show("here", &here, &ticket, &["get", &ticket]);
    document.0 += "\nThe same command again has nothing to do. After an interruption it resumes.\n";
    document.show("here", &here, &ticket, &["get", &ticket]);

    document.chapter("Looking first", "`ls` lists what `get` would fetch. A dry run shows what it would do.");
    document.show("here", &here, &ticket, &["ls", "-R", "-l", &ticket]);
    document.show("here", &here, &ticket, &["get", "--dry-run", &ticket, "elsewhere"]);

    document.chapter("An existing file that differs", "It is replaced only if you ask for it.");
    here.write("photos/summer.txt", "my own index\n");
    document.show("here", &here, &ticket, &["get", &ticket]);
    document.show("here", &here, &ticket, &["get", "--backup", &ticket]);

    document.chapter("A path that does not arrive", "It is printed with the reason, and the exit code is 9.");
    let made = Command::new("mkfifo").arg(there.file("photos/pipe")).status();
    assert!(made.expect("mkfifo").success());
    document.show("here", &here, &ticket, &["get", &ticket]);

    document.chapter(
        "No permission",
        "A ticket permits only reading, unless the server was started with `--writable`.",
    );
    document.show("here", &here, &ticket, &["push", "photos", &ticket]);
    child.kill().expect("it runs");
    child.wait().expect("it ends");

    document.chapter("Both directions", "If both sides have changed a file, both versions are kept.");
    let server =
        there.serve_with("photos", &["--listen", "127.0.0.1:0", "--writable", "--ticket-uses", "any"]);
    let ticket = server.ticket().to_owned();
    here.run(&["sync", "photos", &ticket]).done_or_left_out();
    here.write_old("photos/summer.txt", "mine\n");
    there.write_old("photos/summer.txt", "theirs\n");
    document.show("here", &here, &ticket, &["sync", "photos", &ticket, "--skip", "special"]);

    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/terminal.md");
    if env::var("INSTA_UPDATE").is_ok_and(|update| update == "always") {
        fs::write(&path, &document.0).expect("docs/terminal.md");
    }
    let shown = fs::read_to_string(path).unwrap_or_default();
    assert_eq!(shown, document.0, "run this test with INSTA_UPDATE=always");
}

impl Run {
    fn done_or_left_out(self) {
        assert!(matches!(self.code, Some(0 | 9)), "{self:?}");
    }
}

const HEAD: &str = "\
# Sessions at the terminal

The output of the program, as a test (`cli/tests/it/sessions_shown.rs`) has recorded it. Keys, secrets, addresses and times
are replaced. During a transfer, the program draws a progress bar, and removes it at the end:

```text
[====>     ] 1.25 MiB/2.86 MiB 5.72 MiB/s, 1 second left, receiving, limited by path
```
";
