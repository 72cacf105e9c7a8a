//! The user's own `ssh`, as a process of this side.

use std::{
    io::{self, Cursor, Read, Write},
    process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio},
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use thiserror::Error;

use super::{
    address::SshAddress,
    greeting::{Greeting, GreetingError, SshRequest},
};

/// The program to start as `ssh`, and the command that it runs on the other machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshCommand {
    /// The program and its own arguments.
    words: Vec<String>,
    /// The name of the program there, as the shell there takes it.
    remote_program: Option<String>,
}

/// Why a text is no command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SshCommandError {
    /// Nothing is in it.
    #[error("the command for ssh is empty")]
    Empty,
    /// A quote begins and does not end.
    #[error("a quotation mark in the command for ssh is not closed")]
    QuoteOpen,
}

/// A running `ssh`. Dropped, it is killed, unless it was [released](Self::release).
#[derive(Debug)]
pub struct SshProcess {
    child: Mutex<Option<Child>>,
}

/// What goes to the other side's program, and what comes from it.
#[derive(Debug)]
pub struct SshPipes {
    write: ChildStdin,
    read: ChildStdout,
}

/// Why `ssh` leads to no program that answers. `ssh` itself has said more on standard error.
#[derive(Debug, Error)]
pub enum SshError {
    /// It cannot be started.
    #[error("cannot start {program}: {source}")]
    NotStarted {
        /// The program.
        program: String,
        /// The system's word.
        source: io::Error,
    },
    /// It did not get so far as to run anything.
    #[error("ssh could not log in")]
    NoLogin,
    /// The program is not installed there, or not where it was looked for.
    #[error("there is no program shiplane on that machine{}", looked_in(.0.as_deref()))]
    Missing(Option<String>),
    /// The program there does not know what it was asked.
    #[error("the program shiplane on that machine is too old")]
    TooOld,
    /// The program there is of another version.
    #[error("the program shiplane on that machine is of another version ({0})")]
    OtherVersion(String),
    /// Something else than the program has answered, or nothing.
    #[error("{error}{}", ended(*.status))]
    NoGreeting {
        /// What came.
        error: GreetingError,
        /// How it ended, if it has.
        status: Option<ExitStatus>,
    },
    /// The program there refuses it.
    #[error("{reason}")]
    Refused {
        /// The exit code that the failure would have there.
        class: u8,
        /// Why, escaped.
        reason: String,
    },
}

impl SshCommand {
    /// Parses a command with its arguments, as in `ssh -F "my config"`: words between blanks, where quotes keep blanks
    /// and a backslash keeps what follows it, except in single quotes.
    ///
    /// # Errors
    /// [`SshCommandError`].
    pub fn parse(text: &str) -> Result<Self, SshCommandError> {
        let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
        let mut symbols = text.chars();
        while let Some(symbol) = symbols.next() {
            match (symbol, quote) {
                (symbol, Some(open)) if symbol == open => quote = None,
                ('\'' | '"', None) => {
                    quote = Some(symbol);
                    word.get_or_insert_default();
                }
                // Of Windows' paths the backslashes are kept.
                ('\\', None | Some('"')) if !cfg!(windows) => {
                    word.get_or_insert_default().extend(symbols.next());
                }
                (symbol, None) if symbol.is_whitespace() => words.extend(word.take()),
                (symbol, _) => word.get_or_insert_default().push(symbol),
            }
        }
        words.extend(word);
        match quote {
            Some(_) => Err(SshCommandError::QuoteOpen),
            None if words.first().is_none_or(String::is_empty) => Err(SshCommandError::Empty),
            None => Ok(Self { words, remote_program: None }),
        }
    }

    /// Runs this program there, as the shell there takes it, and looks for no other.
    #[must_use]
    pub fn remote_program(mut self, program: impl Into<String>) -> Self {
        self.remote_program = Some(program.into());
        self
    }

    /// Starts it. Nothing is asked at the terminal if it `is_again`: a job is running.
    ///
    /// # Errors
    /// [`SshError::NotStarted`].
    pub fn start(&self, address: &SshAddress, is_again: bool) -> Result<(SshProcess, SshPipes), SshError> {
        let args = self.args(address, is_again);
        let program = self.words[0].clone();
        let mut command = Command::new(&program);
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped());
        let not_started = |source| SshError::NotStarted { program: program.clone(), source };
        let mut child = command.spawn().map_err(not_started)?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let process = SshProcess { child: Mutex::new(Some(child)) };
        let (write, read) = pipes.ok_or_else(|| not_started(io::ErrorKind::BrokenPipe.into()))?;
        Ok((process, SshPipes { write, read }))
    }

    fn args(&self, address: &SshAddress, is_again: bool) -> Vec<String> {
        let mut args: Vec<String> = self.words[1..].to_vec();
        if self.is_openssh() {
            args.extend(OPENSSH_OPTIONS.map(str::to_owned));
            if is_again {
                args.extend(["-o", "BatchMode=yes"].map(str::to_owned));
            }
        }
        if let Some(port) = address.port() {
            let option = if self.is_named(&["plink"]) { "-P" } else { "-p" };
            args.extend([option.to_owned(), port.to_string()]);
        }
        if self.is_openssh() {
            args.push("--".to_owned());
        }
        args.push(address.destination());
        args.push(match &self.remote_program {
            Some(program) => format!("{program} serve --stdio-ticket"),
            None => REMOTE_COMMAND.to_owned(),
        });
        args
    }

    fn is_openssh(&self) -> bool {
        self.is_named(&["ssh"])
    }

    /// Whether one of the words is this program: it may be the argument of another, as of `sudo`.
    fn is_named(&self, names: &[&str]) -> bool {
        self.words.iter().any(|word| {
            let name = word.rsplit(['/', '\\']).next().unwrap_or_default();
            names.contains(&name.strip_suffix(".exe").unwrap_or(name))
        })
    }
}

impl Default for SshCommand {
    fn default() -> Self {
        Self { words: vec!["ssh".to_owned()], remote_program: None }
    }
}

impl SshPipes {
    /// Asks the program there, and waits for its greeting: for as long as it takes to log in. Gives the ticket, and what
    /// comes after it. Blocking; it ends when the process is dropped.
    ///
    /// # Errors
    /// The greeting that is no ticket, or why there is none.
    pub fn greet(
        self,
        request: &SshRequest,
    ) -> Result<(String, impl Read + Send + 'static, impl Write + Send + 'static), NoTicket> {
        let Self { mut write, mut read } = self;
        // A program that has ended takes none. What it has said tells more.
        let _ = write.write_all(&request.encode()).and_then(|()| write.flush());
        let (mut came, mut buffer) = (Vec::new(), [0; 4096]);
        loop {
            match Greeting::find(&came) {
                Ok(Some((Greeting::Ticket(ticket), len))) => {
                    let rest = Cursor::new(came.split_off(len));
                    return Ok((ticket, rest.chain(read), write));
                }
                Ok(Some((other, _))) => return Err(NoTicket::Greeting(other)),
                Ok(None) => {}
                Err(error) => return Err(NoTicket::Error(error)),
            }
            match read.read(&mut buffer) {
                Ok(0) => return Err(NoTicket::Error(GreetingError::noise(&came))),
                Ok(read) => came.extend_from_slice(&buffer[..read]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Err(NoTicket::Error(GreetingError::noise(&came))),
            }
        }
    }
}

/// The output in place of a ticket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoTicket {
    /// Another greeting.
    Greeting(Greeting),
    /// None.
    Error(GreetingError),
}

impl SshProcess {
    /// Why there is no ticket, as far as the way in which the process ends tells. Blocking, for a second.
    #[must_use]
    pub fn explain(&self, came: NoTicket) -> SshError {
        let error = match came {
            NoTicket::Greeting(Greeting::Refused { class, reason }) => {
                return SshError::Refused { class, reason };
            }
            NoTicket::Greeting(Greeting::Missing(path)) => return SshError::Missing(Some(path)),
            NoTicket::Greeting(Greeting::Ticket(_)) => GreetingError::Noise(String::new()),
            NoTicket::Error(GreetingError::OtherVersion(version)) => return SshError::OtherVersion(version),
            NoTicket::Error(error) => error,
        };
        let status = self.wait(STATUS_TIMEOUT);
        let is_silent = matches!(&error, GreetingError::Noise(came) if came.is_empty());
        match status.and_then(|status| status.code()) {
            Some(255) if is_silent => SshError::NoLogin,
            Some(126 | 127) => SshError::Missing(None),
            // So the argument parser of an older one ends, and says why on standard error.
            Some(2) if is_silent => SshError::TooOld,
            _ => SshError::NoGreeting { error, status },
        }
    }

    /// Waits for the process to end, at most so long. Blocking.
    pub fn wait(&self, timeout: Duration) -> Option<ExitStatus> {
        let until = Instant::now() + timeout;
        loop {
            let ended = self.child.lock().unwrap_or_else(PoisonError::into_inner).as_mut()?.try_wait();
            match ended {
                Ok(None) if Instant::now() < until => thread::sleep(WAIT_STEP),
                ended => return ended.ok().flatten(),
            }
        }
    }

    /// Lets it end by itself, as it does after its pipes were closed. It may carry other sessions of the user, which
    /// would end with it.
    pub fn release(self) {
        let child = self.child.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut child) = child else { return };
        // An error means that the system keeps it in its list until this program ends.
        let _ = thread::Builder::new().name("ssh-end".to_owned()).spawn(move || child.wait());
    }
}

impl Drop for SshProcess {
    fn drop(&mut self) {
        let Some(child) = self.child.get_mut().unwrap_or_else(PoisonError::into_inner) else { return };
        if let Ok(None) = child.try_wait() {
            // An error means that it has ended.
            let _ = child.kill();
        }
        let _ = child.wait();
    }
}

fn looked_in(path: Option<&str>) -> String {
    path.map_or_else(String::new, |path| format!(" in {path}"))
}

fn ended(status: Option<ExitStatus>) -> String {
    status.map_or_else(String::new, |status| format!(" ({status})"))
}

/// What every shell runs alike: sh, bash, zsh, fish, csh and others. It looks in the usual places too, since a shell that is
/// no login shell often does not know them.
const REMOTE_COMMAND: &str = "sh -c '\
PATH=$PATH:$HOME/.local/bin:$HOME/.cargo/bin:/usr/local/bin:/opt/homebrew/bin:/home/linuxbrew/.linuxbrew/bin; \
export PATH; \
command -v shiplane >/dev/null || { echo; echo shiplane-ssh/1 missing $PATH; exit 127; }; \
exec shiplane serve --stdio-ticket'";

/// No terminal, and nothing of the configuration that is meant for interactive sessions alone: as scp has it.
const OPENSSH_OPTIONS: [&str; 8] =
    ["-T", "-x", "-o", "RemoteCommand=none", "-o", "ClearAllForwardings=yes", "-o", "PermitLocalCommand=no"];

/// 1 s: `ssh` ends right after its pipes.
const STATUS_TIMEOUT: Duration = Duration::from_secs(1);

const WAIT_STEP: Duration = Duration::from_millis(5);

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SshAddress {
        SshAddress::parse(text.as_bytes()).unwrap().unwrap()
    }

    fn command(text: &str) -> SshCommand {
        SshCommand::parse(text).unwrap()
    }

    #[test]
    fn a_command_is_cut_into_words_as_a_shell_would() {
        for (text, words) in [
            ("ssh", &["ssh"][..]),
            ("  ssh  -F\t\"my config\" ", &["ssh", "-F", "my config"]),
            ("'/opt/my ssh' -o 'a=\"b\"'", &["/opt/my ssh", "-o", "a=\"b\""]),
            ("ssh a''b \"\"", &["ssh", "ab", ""]),
        ] {
            assert_eq!(command(text).words, words, "{text}");
        }
        assert_eq!(cfg!(windows), command("a\\ b").words.len() == 2);
        for (text, error) in [
            ("", SshCommandError::Empty),
            (" ", SshCommandError::Empty),
            ("''", SshCommandError::Empty),
            ("ssh 'x", SshCommandError::QuoteOpen),
            ("ssh \"x", SshCommandError::QuoteOpen),
        ] {
            assert_eq!(SshCommand::parse(text), Err(error), "{text:?}");
        }
    }

    #[test]
    fn the_command_there_is_constant_whatever_the_path() {
        let (plain, hostile) = (address("me@nas:x"), address("me@nas:$(reboot) '\"`x`"));
        let args = command("ssh -F config").args(&hostile, false);
        assert_eq!(args, command("ssh -F config").args(&plain, false));
        assert_eq!(args[..2], ["-F", "config"]);
        assert_eq!(args[args.len() - 3..], ["--", "me@nas", REMOTE_COMMAND]);
        let args = command("ssh").remote_program("/opt/shiplane").args(&plain, true);
        assert!(args.contains(&"BatchMode=yes".to_owned()));
        assert_eq!(args.last().unwrap(), "/opt/shiplane serve --stdio-ticket");
    }

    #[test]
    fn other_programs_get_the_port_in_their_own_way_and_no_option_that_they_lack() {
        let target = address("ssh://me@nas:2222/x");
        for (program, before) in
            [("plink", &["-P", "2222", "me@nas"][..]), ("/opt/dbclient", &["-p", "2222", "me@nas"])]
        {
            let args = command(program).args(&target, true);
            assert_eq!(args[..args.len() - 1], *before, "{program}");
        }
        assert!(command("sudo -u x /usr/bin/ssh").is_openssh());
    }

    #[cfg(unix)]
    #[test]
    fn how_the_process_ends_says_why_there_is_no_ticket() {
        let request = SshRequest {
            rights: super::super::greeting::Rights { read: true, write: false },
            path: Vec::new(),
        };
        // Stands for ssh: what comes after the words is never looked at.
        let explained = |script: &str| {
            let (process, pipes) =
                command(&format!("sh -c \"{script}\"")).start(&address("nas:"), false).unwrap();
            let came = pipes.greet(&request).err().unwrap();
            process.explain(came)
        };
        assert!(matches!(explained("exit 255"), SshError::NoLogin));
        assert!(matches!(explained("exit 127"), SshError::Missing(None)));
        assert!(matches!(explained("exit 2"), SshError::TooOld));
        let missing = explained("echo hello; echo shiplane-ssh/1 missing /bin; exit 127").to_string();
        assert_eq!(missing, "there is no program shiplane on that machine in /bin");
        let forced = explained("echo only git here; exit 1").to_string();
        assert_eq!(forced, "there was no answer from shiplane, but this: only git here (exit status: 1)");
        let refused = explained("echo shiplane-ssh/1 refused 7 no file");
        assert!(matches!(refused, SshError::Refused { class: 7, reason } if reason == "no file"));
        assert!(matches!(
            command("/nonexistent/ssh").start(&address("nas:"), false),
            Err(SshError::NotStarted { .. })
        ));
    }

    #[cfg(unix)]
    #[test]
    fn a_dropped_process_is_gone_and_its_waiter_wakes() {
        let (process, pipes) = command("sh -c \"exec sleep 1000\"").start(&address("nas:"), false).unwrap();
        let request = SshRequest {
            rights: super::super::greeting::Rights { read: true, write: false },
            path: Vec::new(),
        };
        let waiting = thread::spawn(move || pipes.greet(&request).err());
        drop(process);
        let nothing = NoTicket::Error(GreetingError::Noise(String::new()));
        assert_eq!(waiting.join().unwrap(), Some(nothing));
    }
}
