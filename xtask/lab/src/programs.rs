//! The programs that shiplane is compared with: what each needs, how its server is started and its client run. Each
//! carries one item, a file or a directory, to another place.

mod ssh;

use std::fs;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use xtask::driver::Verb;
use xtask::interrupt;
use xtask::process::{self, Running, Signal, Usage, find_program};

use self::ssh::{HOST, Ssh, free_port};

/// A program that others have written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    Scp,
    RsyncSsh,
    RsyncDaemon,
    CurlHttp,
    CurlHttps,
    Sendme,
    Qcp,
}

/// All of them, as far as they are installed.
pub(crate) struct Programs {
    /// Where to look before `PATH`.
    directory: Option<PathBuf>,
    /// Where servers listen, and where their clients find them.
    listen: IpAddr,
    /// Or why there is none.
    ssh: Result<Ssh, String>,
    /// The directory of the certificate, for HTTPS.
    certificate: Result<PathBuf, String>,
}

/// What is carried, and between which directories.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Job<'a> {
    pub(crate) verb: Verb,
    /// Holds the item and nothing else.
    pub(crate) source: &'a Path,
    pub(crate) item: &'a str,
    pub(crate) is_file: bool,
    pub(crate) destination: &'a Path,
    /// For the programs' own files.
    pub(crate) state: &'a Path,
    /// Where the server is found.
    pub(crate) host: IpAddr,
    /// How rsync treats what is there already.
    pub(crate) present: Present,
    /// Mbit/s and milliseconds: qcp wants to be told.
    pub(crate) path: (f64, f64),
}

/// What rsync is to do with a file that is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Present {
    /// Not look for what is the same in it.
    Whole,
    /// Look for it.
    Compare,
    /// Go on behind it.
    Append,
}

/// A server that listens. Killed when dropped.
pub(crate) struct Serving {
    running: Running,
    port: u16,
    is_forking: bool,
    /// What a client of sendme needs, and how long it took to import.
    ticket: String,
    pub(crate) import: Duration,
}

impl Program {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Scp => "scp",
            Self::RsyncSsh => "rsync over ssh",
            Self::RsyncDaemon => "rsync daemon",
            Self::CurlHttp => "curl, HTTP",
            Self::CurlHttps => "curl from nginx",
            Self::Sendme => "sendme",
            Self::Qcp => "qcp",
        }
    }

    /// What it checks of what arrives.
    pub(crate) fn checks(self) -> &'static str {
        match self {
            Self::RsyncSsh | Self::RsyncDaemon => "xxHash or MD5",
            Self::Sendme => "BLAKE3",
            Self::Scp | Self::CurlHttp | Self::CurlHttps | Self::Qcp => "nothing",
        }
    }
}

impl Programs {
    /// Looks for them, and makes keys and a certificate in `state` for servers that listen at one address and are found
    /// at another.
    pub(crate) fn prepare(
        directory: Option<PathBuf>,
        state: &Path,
        listen: IpAddr,
        host: IpAddr,
    ) -> Result<Self> {
        let ssh = match Ssh::prepare(&state.join("ssh"), listen, host) {
            Ok(Some(ssh)) => Ok(ssh),
            Ok(None) => Err("install openssh-client and openssh-server".to_owned()),
            Err(failure) => Err(format!("{failure:#}")),
        };
        let certificate = certificate(state.join("certificate"), host)?;
        Ok(Self { directory, listen, ssh, certificate })
    }

    /// Why one cannot run, if so.
    pub(crate) fn missing(&self, program: Program) -> Option<String> {
        let ssh = self.ssh.as_ref().err().cloned();
        let needs = |name: &str, install: &str| self.find(name).is_none().then(|| install.to_owned());
        match program {
            Program::Scp => needs("scp", "install openssh-client").or(ssh),
            Program::RsyncSsh => needs("rsync", "install rsync").or(ssh),
            Program::RsyncDaemon => needs("rsync", "install rsync"),
            Program::CurlHttp | Program::CurlHttps => self.certificate.as_ref().err().cloned(),
            Program::Sendme => needs("sendme", "`cargo install --locked sendme`"),
            Program::Qcp => needs("qcp", "`cargo install --locked qcp`").or(ssh),
        }
    }

    /// As it calls itself.
    pub(crate) fn version(&self, program: Program) -> String {
        let of = |name: &str, option| self.find(name).map_or_else(String::new, |path| version(&path, option));
        match program {
            Program::Scp => of("ssh", "-V"),
            Program::RsyncSsh => format!("{}, {}", of("rsync", "--version"), of("ssh", "-V")),
            Program::RsyncDaemon => format!("{}, no encryption", of("rsync", "--version")),
            Program::CurlHttp | Program::CurlHttps => {
                format!("{}, {}", of("curl", "--version"), of("nginx", "-v"))
            }
            Program::Sendme => format!("{}, its import included", of("sendme", "--version")),
            Program::Qcp => format!("{}, packets of 1,452 bytes", of("qcp", "--version")),
        }
    }

    /// Starts the server, from the thread whose network it is to run in.
    pub(crate) fn serve(&self, program: Program, job: &Job<'_>) -> Result<Serving> {
        match program {
            Program::Scp | Program::RsyncSsh | Program::Qcp => {
                Ok(Serving::new(self.ssh()?.start()?, 0, true))
            }
            Program::RsyncDaemon => self.rsync_daemon(job),
            Program::CurlHttp => self.nginx(job, false),
            Program::CurlHttps => self.nginx(job, true),
            Program::Sendme => self.sendme_send(job),
        }
    }

    /// The client, not yet started.
    pub(crate) fn client(&self, program: Program, serving: &Serving, job: &Job<'_>) -> Result<Command> {
        let item = job.source.join(job.item);
        let remote = format!("{HOST}:{}", item.display());
        let mut command = match program {
            Program::Scp => {
                let mut command = self.command("scp")?;
                command.args(["-q", "-B", "-r", "-F"]).arg(self.ssh()?.client_config()).arg(remote);
                command
            }
            Program::RsyncSsh => {
                let ssh = self.ssh()?;
                let shell = format!("'{}' -F '{}'", ssh.program().display(), ssh.client_config().display());
                let mut command = self.rsync(job)?;
                command.arg("-e").arg(shell).arg(remote);
                command
            }
            Program::RsyncDaemon => {
                let module = format!("rsync://{}:{}/{MODULE}", job.host, serving.port);
                let mut command = self.rsync(job)?;
                if job.verb != Verb::Get {
                    command.arg(item).arg(module);
                    return Ok(quiet(command));
                }
                command.arg(format!("{module}/{}", job.item));
                command
            }
            Program::CurlHttp => return self.curl("http", serving, job),
            Program::CurlHttps => {
                let mut command = self.curl("https", serving, job)?;
                command.args(["--tlsv1.3", "--tls13-ciphers", CIPHER, "--cacert"]);
                command.arg(self.certificate()?.join("certificate.pem"));
                return Ok(command);
            }
            Program::Sendme => {
                let mut command = self.sendme("receive")?;
                command.arg(&serving.ticket).current_dir(job.destination);
                return Ok(command);
            }
            Program::Qcp => {
                let (qcp, ssh) = (self.found("qcp")?, self.ssh()?);
                let (rate, rtt) = (format!("{}k", job.path.0 * 125.0), job.path.1.to_string());
                let mut command = Command::new(&qcp);
                command.args(["--quiet", "-4", "--tx", &rate, "--rx", &rate, "--rtt", &rtt]);
                command.arg("--remote-qcp-binary").arg(&qcp).arg("--ssh").arg(ssh.program());
                // Its own reading of the file finds the host, ssh's reading does the rest.
                command.arg("--ssh-config").arg(ssh.client_config());
                command.args(["-S", "-F", "-S"]).arg(ssh.client_config());
                command.args((!job.is_file).then_some("-r")).arg(remote);
                command
            }
        };
        command.arg(job.destination);
        Ok(quiet(command))
    }

    fn rsync(&self, job: &Job<'_>) -> Result<Command> {
        let mut command = self.command("rsync")?;
        command.arg("-a").args(match job.present {
            Present::Whole => Some("-W"),
            Present::Compare => None,
            Present::Append => Some("--append"),
        });
        Ok(command)
    }

    fn rsync_daemon(&self, job: &Job<'_>) -> Result<Serving> {
        let port = free_port(self.listen)?;
        let (config, log) = (job.state.join("rsyncd.conf"), job.state.join("rsyncd.log"));
        // Without these it gives up root for `nobody`, who may not enter our directory.
        let user = if is_root() { "uid = root\ngid = root\n" } else { "" };
        let directory = if job.verb == Verb::Get { job.source } else { job.destination };
        let text = format!(
            "address = {}\nport = {port}\nuse chroot = no\n{user}log file = {}\n[{MODULE}]\npath = {}\nread only = no\n",
            self.listen,
            log.display(),
            directory.display(),
        );
        fs::write(&config, text).context("cannot write rsyncd.conf")?;
        let mut command = self.command("rsync")?;
        command.args(["--daemon", "--no-detach", "--config"]).arg(config);
        self.listening("rsync --daemon", command, port, true)
    }

    fn nginx(&self, job: &Job<'_>, is_https: bool) -> Result<Serving> {
        let port = free_port(self.listen)?;
        let directory = job.state.join("nginx");
        fs::create_dir_all(&directory)?;
        // Without it the worker gives up root for a user who may not enter our directory.
        let user = if is_root() { "user root root;\n" } else { "" };
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path temporary;\n"))
            .concat();
        let certificate = self.certificate()?.display();
        let ssl = format!(
            "ssl_certificate \"{certificate}/certificate.pem\";\nssl_certificate_key \"{certificate}/key.pem\";\n\
             ssl_protocols TLSv1.3;\nssl_conf_command Ciphersuites {CIPHER};\n"
        );
        let (kind, ssl) = if is_https { (" ssl", ssl) } else { ("", String::new()) };
        let text = format!(
            "{user}daemon off;\nworker_processes 1;\npid nginx.pid;\nevents {{ }}\nhttp {{\naccess_log off;\n\
             sendfile on;\n{temporary}server {{\nlisten {}:{port}{kind};\n{ssl}root \"{}\";\n}}\n}}\n",
            self.listen,
            job.source.display(),
        );
        let config = directory.join("nginx.conf");
        fs::write(&config, text).context("cannot write nginx.conf")?;
        let mut command = self.command("nginx")?;
        command.args(["-e", "stderr", "-p"]).arg(&directory).arg("-c").arg(config);
        self.listening("nginx", command, port, false)
    }

    fn curl(&self, scheme: &str, serving: &Serving, job: &Job<'_>) -> Result<Command> {
        let mut command = self.command("curl")?;
        command.args(["-q", "-sS", "--fail", "--noproxy", "*", "-C", "-", "-o"]);
        command.arg(job.destination.join(job.item));
        command.arg(format!("{scheme}://{}:{}/{}", job.host, serving.port, job.item));
        Ok(quiet(command))
    }

    /// It hashes before it serves, so its import counts.
    fn sendme_send(&self, job: &Job<'_>) -> Result<Serving> {
        let started = Instant::now();
        let mut command = self.sendme("send")?;
        command.args(["--ticket-type", "addresses"]).arg(job.source.join(job.item)).current_dir(job.state);
        let running = Running::start("sendme", command.stdout(Stdio::piped()))?;
        while let Some(line) = running.next_line(IMPORT_LIMIT)? {
            if let Some(ticket) = line.strip_prefix("sendme receive ") {
                let ticket = ticket.trim().to_owned();
                return Ok(Serving { ticket, import: started.elapsed(), ..Serving::new(running, 0, false) });
            }
        }
        bail!("sendme printed no ticket")
    }

    /// No relays: both sides are here.
    fn sendme(&self, verb: &str) -> Result<Command> {
        let mut command = self.command("sendme")?;
        command.args([verb, "--relay", "disabled", "--magic-ipv4-addr", "127.0.0.1:0", "--no-progress"]);
        Ok(quiet(command))
    }

    /// Starts a server and waits until it takes connections.
    fn listening(&self, name: &str, command: Command, port: u16, is_forking: bool) -> Result<Serving> {
        let running = Running::start(name, &mut quiet(command))?;
        let local = if self.listen.is_unspecified() { IpAddr::from([127, 0, 0, 1]) } else { self.listen };
        let started = Instant::now();
        while TcpStream::connect(SocketAddr::new(local, port)).is_err() {
            interrupt::check()?;
            ensure!(!running.has_ended()?, "{name} has ended");
            ensure!(started.elapsed() < START_LIMIT, "{name} does not listen");
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(Serving::new(running, port, is_forking))
    }

    fn ssh(&self) -> Result<&Ssh> {
        self.ssh.as_ref().map_err(|reason| anyhow!("no ssh: {reason}"))
    }

    fn certificate(&self) -> Result<&Path> {
        self.certificate.as_deref().map_err(|reason| anyhow!("no HTTPS: {reason}"))
    }

    fn command(&self, program: &str) -> Result<Command> {
        self.found(program).map(Command::new)
    }

    fn found(&self, program: &str) -> Result<PathBuf> {
        self.find(program).with_context(|| format!("{program} is not installed"))
    }

    fn find(&self, program: &str) -> Option<PathBuf> {
        let ours = self.directory.as_ref().map(|directory| directory.join(program));
        ours.filter(|path| path.is_file()).or_else(|| find_program(program))
    }
}

impl Serving {
    fn new(running: Running, port: u16, is_forking: bool) -> Self {
        Self { running, port, is_forking, ticket: String::new(), import: Duration::ZERO }
    }

    /// Ends it, and says what it used. One that forks has reaped by then what served: only then does what that used
    /// count as its own.
    pub(crate) fn stop(self) -> Result<Usage> {
        let started = Instant::now();
        while self.is_forking && has_children(self.running.pid()) && started.elapsed() < START_LIMIT {
            interrupt::check()?;
            std::thread::sleep(Duration::from_millis(1));
        }
        let signal = if self.ticket.is_empty() { Signal::Terminate } else { Signal::Interrupt };
        self.running.signal(signal)?;
        Ok(self.running.wait(START_LIMIT)?.used)
    }
}

/// The first line that a program prints with `option`, on whichever output.
pub(crate) fn version(program: &Path, option: &str) -> String {
    let output = Command::new(program).arg(option).stdin(Stdio::null()).output();
    let Ok(output) = output else { return String::new() };
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().next().unwrap_or_default();
    // What else it was built with is of no interest.
    line.split(['(', ',']).next().unwrap_or_default().trim().chars().take(60).collect()
}

/// Makes a certificate in `directory`. The inner error says what is not installed.
fn certificate(directory: PathBuf, host: IpAddr) -> Result<Result<PathBuf, String>> {
    if ["nginx", "curl", "openssl"].iter().any(|program| find_program(program).is_none()) {
        return Ok(Err("install nginx-light, curl and openssl".to_owned()));
    }
    fs::create_dir_all(&directory)?;
    let mut command = Command::new("openssl");
    command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]);
    command.args(["-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext"]);
    command.arg(format!("subjectAltName=IP:{host}")).arg("-keyout").arg(directory.join("key.pem"));
    command.arg("-out").arg(directory.join("certificate.pem"));
    process::run("openssl", &mut quiet(command))?;
    Ok(Ok(directory))
}

fn quiet(mut command: Command) -> Command {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// False too where the kernel does not say.
fn has_children(pid: u32) -> bool {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    children.is_ok_and(|children| !children.trim().is_empty())
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

const MODULE: &str = "files";

/// What the other programs encrypt with, too.
const CIPHER: &str = "TLS_AES_128_GCM_SHA256";

/// A server only reads its configuration and binds a socket, and ends at once when asked.
const START_LIMIT: Duration = Duration::from_secs(10);

/// It hashes everything before.
const IMPORT_LIMIT: Duration = Duration::from_secs(120);
