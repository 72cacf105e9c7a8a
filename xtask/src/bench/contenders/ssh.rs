//! An sshd of our own on loopback, for whatever travels over it: temporary keys, a free port, nothing of
//! the system's configuration but the directory that sshd insists on.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use super::{START_LIMIT, Tools, free_port, stop_forking, version_line};
use crate::process::{self, Exit, Lines, Running};

/// What `ssh_config` calls the server.
pub(crate) const HOST: &str = "shiplane-bench";

/// Keys and programs, ready to be used.
#[derive(Debug)]
pub(crate) struct Ssh {
    ssh: PathBuf,
    sshd: PathBuf,
    /// Keys and configuration.
    directory: PathBuf,
    /// Where the server listens, and where the client finds it.
    addresses: (&'static str, &'static str),
    _separation: Separation,
}

impl Ssh {
    /// Makes keys in `directory`, for loopback. The inner error says what is not installed.
    pub(super) fn prepare(tools: &Tools, directory: PathBuf) -> Result<Result<Self, String>> {
        Self::prepare_at(&|program| tools.find(program), directory, "127.0.0.1", "127.0.0.1")
    }

    /// As `prepare`, for a server that listens at one address and is found at another.
    pub(crate) fn prepare_at(
        find: &dyn Fn(&str) -> Option<PathBuf>,
        directory: PathBuf,
        listen: &'static str,
        host: &'static str,
    ) -> Result<Result<Self, String>> {
        let programs = ["ssh", "ssh-keygen", "sshd"].map(find);
        let [Some(ssh), Some(keygen), Some(sshd)] = programs else {
            return Ok(Err("install openssh-client and openssh-server".to_owned()));
        };
        let separation = match Separation::ensure() {
            Ok(separation) => separation,
            Err(failure) => return Ok(Err(format!("{failure:#}"))),
        };
        for key in ["host", "user"] {
            let mut command = Command::new(&keygen);
            command.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(directory.join(key));
            process::run("ssh-keygen", command.stdin(Stdio::null()))?;
        }
        let addresses = (listen, host);
        let this = Self { ssh, sshd, directory, addresses, _separation: separation };
        let text = |name: &str| fs::read_to_string(this.path(name)).context("cannot read a key");
        this.write("authorized_keys", &text("user.pub")?)?;
        this.write("known_hosts", &format!("{HOST} {}", text("host.pub")?))?;
        Ok(Ok(this))
    }

    /// Starts the server and writes the [`client_config`](Self::client_config) that finds it.
    pub(crate) fn start(&self) -> Result<Sshd> {
        let port = free_port()?;
        self.write("sshd_config", &self.server_text(port))?;
        self.write("ssh_config", &self.client_text(port))?;
        // In the foreground, logging to standard error.
        let mut command = Command::new(&self.sshd);
        command.args(["-D", "-e", "-f"]).arg(self.path("sshd_config"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut running = Running::start("sshd", &mut command)?;
        let log = Lines::of(running.take_stderr().context("sshd has no standard error")?);
        let mut said = Vec::new();
        while let Some(line) = log.next_within(START_LIMIT)? {
            if line.starts_with("Server listening on") {
                return Ok(Sshd { running, _log: log });
            }
            said.push(line);
        }
        bail!("sshd did not start: {said:?}");
    }

    /// For `ssh -F`: knows the host [`HOST`].
    pub(crate) fn client_config(&self) -> PathBuf {
        self.path("ssh_config")
    }

    pub(crate) fn program(&self) -> &Path {
        &self.ssh
    }

    pub(super) fn version(&self) -> String {
        version_line(&self.ssh, "-V")
    }

    fn server_text(&self, port: u16) -> String {
        format!(
            "ListenAddress {}\nPort {port}\nHostKey \"{}\"\nAuthorizedKeysFile \"{}\"\n\
             PidFile none\nStrictModes no\nUsePAM no\nPasswordAuthentication no\n\
             KbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\n\
             Ciphers {CIPHER}\nCompression no\nSubsystem sftp internal-sftp\n",
            self.addresses.0,
            self.path("host").display(),
            self.path("authorized_keys").display(),
        )
    }

    fn client_text(&self, port: u16) -> String {
        format!(
            "Host {HOST}\nHostName {}\nPort {port}\nHostKeyAlias {HOST}\nIdentityFile \"{}\"\n\
             UserKnownHostsFile \"{}\"\nIdentitiesOnly yes\nIdentityAgent none\n\
             StrictHostKeyChecking yes\nBatchMode yes\nCiphers {CIPHER}\nCompression no\n",
            self.addresses.1,
            self.path("user").display(),
            self.path("known_hosts").display(),
        )
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        fs::write(self.path(name), text).with_context(|| format!("cannot write ssh's {name}"))
    }
}

/// The server, listening.
#[derive(Debug)]
pub(crate) struct Sshd {
    running: Running,
    /// Read on, or sshd would block on it.
    _log: Lines,
}

impl Sshd {
    /// Ends it once it has reaped what served.
    pub(super) fn stop(self) -> Result<Exit> {
        stop_forking(self.running)
    }
}

/// The directory that sshd, as root, refuses to start without. The system's own service makes it;
/// where that never ran, we do, and remove it again.
#[derive(Debug)]
struct Separation {
    made: Option<PathBuf>,
}

impl Separation {
    fn ensure() -> Result<Self> {
        let directory = Path::new("/run/sshd");
        if !is_root() || directory.is_dir() {
            return Ok(Self { made: None });
        }
        fs::create_dir(directory).context("sshd needs /run/sshd")?;
        Ok(Self { made: Some(directory.to_path_buf()) })
    }
}

impl Drop for Separation {
    fn drop(&mut self) {
        if let Some(made) = &self.made {
            // Not empty: then somebody else uses it by now.
            let _in_use = fs::remove_dir(made);
        }
    }
}

#[cfg(unix)]
pub(super) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[cfg(not(unix))]
pub(super) fn is_root() -> bool {
    false
}

/// What the other contenders encrypt with, too.
const CIPHER: &str = "aes128-gcm@openssh.com";
