//! scp from an sshd of our own on loopback: temporary keys, a free port, nothing of the system's
//! configuration but the directory that sshd insists on.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::{Contender, Course, Sample, Used};
use crate::interrupt;
use crate::process::{self, Exit, Lines, Running, Signal};

/// scp, ready to run.
#[derive(Debug)]
pub(super) struct Scp {
    scp: PathBuf,
    sshd: PathBuf,
    /// Keys and configuration.
    directory: PathBuf,
    _separation: Separation,
}

impl Scp {
    /// Makes keys and configuration in `directory`. The inner error says what is not installed.
    pub(super) fn prepare(directory: &Path) -> Result<Result<Self, String>> {
        let programs = ["scp", "ssh-keygen", "sshd"].map(process::find_program);
        let [Some(scp), Some(keygen), Some(sshd)] = programs else {
            return Ok(Err("scp: install openssh-client and openssh-server".to_owned()));
        };
        let separation = match Separation::ensure() {
            Ok(separation) => separation,
            Err(failure) => return Ok(Err(format!("scp: {failure:#}"))),
        };
        for key in ["host", "user"] {
            let mut command = Command::new(&keygen);
            command.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(directory.join(key));
            process::run("ssh-keygen", command.stdin(Stdio::null()))?;
        }
        let text = |name: &str| fs::read_to_string(directory.join(name)).context("cannot read a key");
        let write = |name: &str, text: String| {
            fs::write(directory.join(name), text).context("cannot write sshd's configuration")
        };
        write("authorized_keys", text("user.pub")?)?;
        write("known_hosts", format!("{HOST_ALIAS} {}", text("host.pub")?))?;
        let directory = directory.to_path_buf();
        Ok(Ok(Self { scp, sshd, directory, _separation: separation }))
    }

    fn start_server(&self) -> Result<(Running, u16)> {
        // Given back before sshd takes it: a race, but only against programs that ask for it by number.
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port")?;
        let port = free.local_addr().context("no free port")?.port();
        drop(free);
        let config = self.directory.join("sshd_config");
        fs::write(&config, self.config(port)).context("cannot write sshd's configuration")?;
        // In the foreground, logging to standard error.
        let mut command = Command::new(&self.sshd);
        command.args(["-D", "-e", "-f"]).arg(&config);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut running = Running::start("sshd", &mut command)?;
        let log = running.take_stderr().context("sshd has no standard error")?;
        let log = Lines::of(log);
        let mut said = Vec::new();
        while let Some(line) = log.next_within(START_LIMIT)? {
            if line.starts_with("Server listening on") {
                return Ok((running, port));
            }
            said.push(line);
        }
        bail!("sshd did not start: {said:?}");
    }

    fn config(&self, port: u16) -> String {
        let path = |name: &str| self.directory.join(name).display().to_string();
        format!(
            "ListenAddress 127.0.0.1\nPort {port}\nHostKey \"{}\"\nAuthorizedKeysFile \"{}\"\n\
             PidFile none\nStrictModes no\nUsePAM no\nPasswordAuthentication no\n\
             KbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\n\
             Ciphers {CIPHER}\nCompression no\nSubsystem sftp internal-sftp\n",
            path("host"),
            path("authorized_keys"),
        )
    }

    fn receiver(&self, course: &Course, port: u16) -> Command {
        let option = |name: &str, value: &str| format!("{name}={value}");
        let path = |name: &str| self.directory.join(name).display().to_string();
        let mut command = Command::new(&self.scp);
        command.args(["-q", "-B", "-F", "none", "-c", CIPHER, "-P", &port.to_string()]);
        for option in [
            option("IdentityFile", &path("user")),
            option("IdentitiesOnly", "yes"),
            option("IdentityAgent", "none"),
            option("UserKnownHostsFile", &path("known_hosts")),
            option("HostKeyAlias", HOST_ALIAS),
            option("StrictHostKeyChecking", "yes"),
            option("Compression", "no"),
        ] {
            command.arg("-o").arg(option);
        }
        command.arg(format!("127.0.0.1:{}", course.file.display())).arg(course.copy());
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
    }
}

impl Contender for Scp {
    fn name(&self) -> &'static str {
        "scp, aes128-gcm"
    }

    fn is_optional(&self) -> bool {
        true
    }

    fn run(&mut self, course: &Course) -> Result<Sample> {
        fs::create_dir(&course.destination).context("cannot make scp's destination")?;
        let (server, port) = self.start_server()?;
        let mut command = self.receiver(course, port);
        let started = Instant::now();
        let receiver = Running::start("scp", &mut command)?.wait(LIMIT)?;
        let time = started.elapsed();
        receiver.expect_success("scp")?;
        let sender = stop_server(server)?;
        Ok(Sample { time, used: Used::Apart { sender: sender.used, receiver: receiver.used } })
    }
}

/// Ends sshd once it has reaped the process that served scp: only then does what that one used count
/// as its own.
fn stop_server(server: Running) -> Result<Exit> {
    let started = Instant::now();
    while has_children(server.pid()) && started.elapsed() < START_LIMIT {
        interrupt::check()?;
        std::thread::sleep(Duration::from_millis(1));
    }
    server.signal(Signal::Terminate)?;
    server.wait(START_LIMIT)
}

/// False too where the kernel does not say.
fn has_children(pid: u32) -> bool {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    children.is_ok_and(|children| !children.trim().is_empty())
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
fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[cfg(not(unix))]
fn is_root() -> bool {
    false
}

const CIPHER: &str = "aes128-gcm@openssh.com";

/// The name under which the host key is known, whatever the port.
const HOST_ALIAS: &str = "shiplane-bench";

/// sshd only binds a socket, and ends at once when asked.
const START_LIMIT: Duration = Duration::from_secs(10);

/// Only against a hang.
const LIMIT: Duration = Duration::from_secs(1800);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_children_are_seen() {
        if !cfg!(target_os = "linux") {
            return;
        }
        let mut command = Command::new("sh");
        // A background job's standard input is /dev/null unless it is given another.
        let script = "exec 3<&0; sh -c 'read line <&3' & echo ready; wait";
        command.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut shell = Running::start("sh", &mut command).unwrap();
        let lines = Lines::of(shell.take_stdout().unwrap());
        assert_eq!(lines.next_within(START_LIMIT).unwrap().as_deref(), Some("ready"));
        let pid = shell.pid();
        assert!(has_children(pid));
        drop(shell);
        assert!(!has_children(pid));
    }
}
