//! An sshd of our own, for whatever travels over it: temporary keys, a free port, nothing of the system's configuration
//! but the directory that sshd insists on.

use std::fs;
use std::net::{IpAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use xtask::process::{self, Running, find_program};

use super::{START_LIMIT, is_root};

/// What `ssh_config` calls the server.
pub(super) const HOST: &str = "shiplane-bench";

/// Keys and programs, ready to be used.
#[derive(Debug)]
pub(super) struct Ssh {
    ssh: PathBuf,
    sshd: PathBuf,
    /// Keys and configuration.
    directory: PathBuf,
    listen: IpAddr,
    host: IpAddr,
    _separation: Separation,
}

impl Ssh {
    /// Makes keys in `directory`, for a server that listens at one address and is found at another. None if it is not
    /// installed.
    pub(super) fn prepare(directory: &Path, listen: IpAddr, host: IpAddr) -> Result<Option<Self>> {
        let programs = ["ssh", "ssh-keygen", "sshd"].map(find_program);
        let [Some(ssh), Some(keygen), Some(sshd)] = programs else { return Ok(None) };
        fs::create_dir_all(directory)?;
        let _separation = Separation::ensure()?;
        for key in ["host", "user"] {
            let mut command = Command::new(&keygen);
            command.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(directory.join(key));
            process::run("ssh-keygen", command.stdin(Stdio::null()))?;
        }
        let this = Self { ssh, sshd, directory: directory.to_path_buf(), listen, host, _separation };
        let text = |name: &str| fs::read_to_string(this.path(name)).context("cannot read a key");
        this.write("authorized_keys", &text("user.pub")?)?;
        this.write("known_hosts", &format!("{HOST} {}", text("host.pub")?))?;
        Ok(Some(this))
    }

    /// Starts the server and writes the [`client_config`](Self::client_config) that finds it.
    pub(super) fn start(&self) -> Result<Running> {
        let port = free_port(self.listen)?;
        self.write("sshd_config", &self.server_text(port))?;
        self.write("ssh_config", &self.client_text(port))?;
        // In the foreground, logging to standard error.
        let mut command = Command::new(&self.sshd);
        command.args(["-D", "-e", "-f"]).arg(self.path("sshd_config"));
        let running = Running::heard("sshd", &mut command)?;
        while let Some(line) = running.next_said(START_LIMIT)? {
            if line.starts_with("Server listening on") {
                return Ok(running);
            }
        }
        bail!("sshd did not start")
    }

    /// For `ssh -F`: knows the host [`HOST`].
    pub(super) fn client_config(&self) -> PathBuf {
        self.path("ssh_config")
    }

    pub(super) fn program(&self) -> &Path {
        &self.ssh
    }

    fn server_text(&self, port: u16) -> String {
        format!(
            "ListenAddress {}\nPort {port}\nHostKey \"{}\"\nAuthorizedKeysFile \"{}\"\n\
             PidFile none\nStrictModes no\nUsePAM no\nPasswordAuthentication no\n\
             KbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\n\
             Ciphers {CIPHER}\nCompression no\nSubsystem sftp internal-sftp\n",
            self.listen,
            self.path("host").display(),
            self.path("authorized_keys").display(),
        )
    }

    fn client_text(&self, port: u16) -> String {
        format!(
            "Host {HOST}\nHostName {}\nPort {port}\nHostKeyAlias {HOST}\nIdentityFile \"{}\"\n\
             UserKnownHostsFile \"{}\"\nIdentitiesOnly yes\nIdentityAgent none\n\
             StrictHostKeyChecking yes\nBatchMode yes\nCiphers {CIPHER}\nCompression no\n",
            self.host,
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

/// A port that nobody has now. It is given back before the server takes it: a race, but only against programs that ask
/// for it by number.
pub(super) fn free_port(listen: IpAddr) -> Result<u16> {
    let free = TcpListener::bind((listen, 0)).context("no free port")?;
    Ok(free.local_addr().context("no free port")?.port())
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

/// What the other programs encrypt with, too.
const CIPHER: &str = "aes128-gcm@openssh.com";
