//! The servers of the programs that others have written.

use std::fs;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use xtask::interrupt;
use xtask::process::{self, Running, Signal, Usage, find_program};

use super::ssh::free_port;
use super::{CIPHER, ITEM, Job, MODULE, Programs, START_LIMIT, found, is_root, quiet, sendme};

/// A server of another program.
pub(crate) struct Other {
    pub(super) running: Running,
    pub(super) port: u16,
    is_forking: bool,
    /// What a client of sendme needs, and how long it took to import.
    pub(super) ticket: String,
    pub(super) import: Duration,
}

impl Other {
    pub(super) fn new(running: Running, port: u16, is_forking: bool) -> Self {
        Self { running, port, is_forking, ticket: String::new(), import: Duration::ZERO }
    }

    /// One that forks has reaped by then what served: only then does what that used count as its own.
    pub(super) fn stop(self) -> Result<Usage> {
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

impl Programs {
    pub(super) fn rsync_daemon(&self, served: &Path, job: &Job<'_>) -> Result<Other> {
        let port = free_port(self.listen)?;
        let (config, log) = (job.paths.state.join("rsyncd.conf"), job.paths.state.join("rsyncd.log"));
        // Without these it gives up root for `nobody`, who may not enter our directory.
        let user = if is_root() { "uid = root\ngid = root\n" } else { "" };
        let text = format!(
            "address = {}\nport = {port}\nuse chroot = no\n{user}log file = {}\n[{MODULE}]\npath = {}\nread only = no\n",
            self.listen,
            log.display(),
            served.display(),
        );
        fs::write(&config, text).context("cannot write rsyncd.conf")?;
        let mut command = found("rsync")?;
        command.args(["--daemon", "--no-detach", "--config"]).arg(config);
        self.listening("rsync --daemon", command, port, true)
    }

    pub(super) fn nginx(&self, job: &Job<'_>, is_https: bool) -> Result<Other> {
        let port = free_port(self.listen)?;
        let directory = job.paths.state.join("nginx");
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
        let mut command = found("nginx")?;
        command.args(["-e", "stderr", "-p"]).arg(&directory).arg("-c").arg(config);
        self.listening("nginx", command, port, false)
    }

    /// It hashes before it serves, so its import counts.
    pub(super) fn sendme_send(&self, job: &Job<'_>) -> Result<Other> {
        let started = Instant::now();
        let mut command = sendme("send")?;
        command.args(["--ticket-type", "addresses"]).arg(job.source.join(ITEM)).current_dir(&job.paths.state);
        let running = Running::start("sendme", command.stdout(Stdio::piped()))?;
        while let Some(line) = running.next_line(IMPORT_LIMIT)? {
            if let Some(ticket) = line.strip_prefix("sendme receive ") {
                let ticket = ticket.trim().to_owned();
                return Ok(Other { ticket, import: started.elapsed(), ..Other::new(running, 0, false) });
            }
        }
        bail!("sendme printed no ticket")
    }

    /// Starts a server and waits until it takes connections.
    fn listening(&self, name: &str, command: Command, port: u16, is_forking: bool) -> Result<Other> {
        let running = Running::start(name, &mut quiet(command))?;
        let local = if self.listen.is_unspecified() { IpAddr::from([127, 0, 0, 1]) } else { self.listen };
        let started = Instant::now();
        while TcpStream::connect(SocketAddr::new(local, port)).is_err() {
            interrupt::check()?;
            ensure!(!running.has_ended()?, "{name} has ended");
            ensure!(started.elapsed() < START_LIMIT, "{name} does not listen");
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(Other::new(running, port, is_forking))
    }
}

/// Makes a certificate in `directory`. The inner error says what is not installed.
pub(super) fn certificate(directory: PathBuf, host: IpAddr) -> Result<Result<PathBuf, String>> {
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

/// False too where the kernel does not say.
fn has_children(pid: u32) -> bool {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    children.is_ok_and(|children| !children.trim().is_empty())
}

/// It hashes everything before.
const IMPORT_LIMIT: Duration = Duration::from_secs(120);
