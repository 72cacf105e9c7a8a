//! A harness: a machine that is reached by a real sshd. Each session starts it anew, unless it is to listen.

use std::fs::{self, Permissions};
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::program::Machine;

/// The far side: the home directory of its user is the machine's place for files.
pub(crate) struct Far {
    pub(crate) machine: Machine,
    /// Keys, configurations, and the directory with the program.
    dir: TempDir,
    /// Of one that listens.
    pub(crate) port: u16,
    listening: Option<Child>,
}

/// What is special about a far side.
#[derive(Default)]
pub(crate) struct Setup<'a> {
    /// Runs in place of what was asked, which is `$SSH_ORIGINAL_COMMAND`.
    pub(crate) forced: Option<&'a str>,
    /// What comes before the program's own name, such as `unshare -n`.
    pub(crate) wrapper: &'a str,
    /// What comes before sshd, such as `ip netns exec NAME`.
    pub(crate) sshd_wrapper: &'a str,
    /// A script in place of the program.
    pub(crate) program: Option<&'a str>,
    /// Whether the program is not to be found.
    pub(crate) is_missing: bool,
    /// Where the program is below the home directory, if it is not in the PATH.
    pub(crate) place: Option<&'a str>,
    /// The address where it listens, as sshd takes it.
    pub(crate) listen: Option<&'a str>,
    /// What the user's key is protected with.
    pub(crate) passphrase: &'a str,
}

impl Far {
    /// `None` where there is no sshd.
    pub(crate) fn new() -> Option<Self> {
        Self::with(&Setup::default())
    }

    pub(crate) fn with(setup: &Setup<'_>) -> Option<Self> {
        let sshd =
            ["/usr/sbin/sshd", "/usr/local/sbin/sshd"].into_iter().find(|path| Path::new(path).exists());
        let (Some(sshd), true) = (sshd, is_there("ssh")) else {
            println!("skipped: there is no OpenSSH (openssh-server, openssh-client)");
            return None;
        };
        // Where sshd runs as root it wants this; elsewhere the attempt does no harm.
        let _ = fs::create_dir_all("/run/sshd");
        let mut far = Self {
            machine: Machine::new(),
            dir: TempDir::new().expect("a directory"),
            port: 0,
            listening: None,
        };
        for (key, passphrase) in [("host", ""), ("user", setup.passphrase)] {
            let path = far.path(key);
            let made = Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", passphrase, "-f"])
                .arg(path)
                .status()
                .expect("ssh-keygen runs");
            assert!(made.success());
        }
        far.install(setup);
        let forced = setup.forced.map_or_else(String::new, |command| format!("ForceCommand {command}\n"));
        far.write(
            "sshd_config",
            &format!(
                "HostKey {host}\nAuthorizedKeysFile {user}.pub\nStrictModes no\nUsePAM no\n\
                 PasswordAuthentication no\nPermitRootLogin yes\nPidFile none\n\
                 SetEnv HOME={home} SHIPLANE_HOME={state} PATH={bin}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin\n{forced}",
                host = far.path("host").display(),
                user = far.path("user").display(),
                home = far.machine.file("").display(),
                state = far.machine.path("").display(),
                bin = far.path("bin").display(),
            ),
        );
        let reached = match setup.listen {
            Some(address) => {
                far.listen(setup.sshd_wrapper, sshd, address);
                format!("Host *\nPort {}\n", far.port)
            }
            None => {
                let (config, wrapper) = (far.path("sshd_config"), setup.sshd_wrapper);
                let proxy = format!("{wrapper} {sshd} -i -f {}", config.display());
                format!("Host far localhost\nHostName localhost\nProxyCommand {proxy}\n")
            }
        };
        far.write(
            "ssh_config",
            &format!(
                "{reached}IdentityFile {}\nIdentitiesOnly yes\n\
                 StrictHostKeyChecking no\nUserKnownHostsFile {}\nLogLevel ERROR\n",
                far.path("user").display(),
                far.path("known").display(),
            ),
        );
        Some(far)
    }

    /// Starts an sshd that listens on a port that was free a moment ago.
    fn listen(&mut self, wrapper: &str, sshd: &str, address: &str) {
        for _ in 0..MAX_PORTS {
            let free = TcpListener::bind("[::]:0").expect("a port").local_addr().expect("an address");
            let words = wrapper.split_whitespace().chain([sshd, "-D", "-e", "-o", "LogLevel=INFO", "-f"]);
            let mut words = words.map(std::ffi::OsString::from).collect::<Vec<_>>();
            words.push(self.path("sshd_config").into());
            words.extend(
                [format!("-oPort={}", free.port()), format!("-oListenAddress={address}")].map(Into::into),
            );
            let mut command = Command::new(&words[0]);
            let mut child = command.args(&words[1..]).stderr(Stdio::piped()).spawn().expect("sshd starts");
            let mut said = BufReader::new(child.stderr.take().expect("a pipe")).lines();
            if said.any(|line| line.is_ok_and(|line| line.contains("Server listening on"))) {
                // It goes on to write there.
                std::thread::spawn(move || said.for_each(drop));
                (self.port, self.listening) = (free.port(), Some(child));
                return;
            }
            let _ = child.wait();
        }
        panic!("sshd does not listen on {address}");
    }

    fn install(&self, setup: &Setup<'_>) {
        fs::create_dir_all(self.path("bin")).expect("a directory");
        if setup.is_missing {
            return;
        }
        let program = env!("CARGO_BIN_EXE_shiplane");
        let script = match setup.program {
            Some(script) => format!("#!/bin/sh\n{script}\n"),
            None => format!(
                "#!/bin/sh\necho $$ >> '{}'\nexec {} {program} \"$@\"\n",
                self.path("ids").display(),
                setup.wrapper
            ),
        };
        let place = match setup.place {
            Some(place) => self.machine.file(place),
            None => self.path("bin"),
        };
        fs::create_dir_all(&place).expect("a directory");
        fs::write(place.join("shiplane"), &script).expect("a file");
        fs::set_permissions(place.join("shiplane"), Permissions::from_mode(0o755)).expect("a mode");
    }

    /// A run of the program on this side.
    pub(crate) fn command(&self, here: &Machine, args: &[&str]) -> Command {
        let mut command = here.command(args);
        command.env("SHIPLANE_SSH", self.ssh());
        command
    }

    /// The command that leads here.
    pub(crate) fn ssh(&self) -> String {
        format!("ssh -F '{}'", self.path("ssh_config").display())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("a file");
    }

    /// The processes of the far side's program, in the order in which they were started.
    pub(crate) fn processes(&self) -> Vec<u32> {
        let ids = fs::read_to_string(self.path("ids")).unwrap_or_default();
        ids.lines().map(|id| id.parse().expect("a process id")).collect()
    }

    /// Ends the last one of them.
    pub(crate) fn kill(&self) {
        let id = self.processes().pop().expect("a process");
        assert!(Command::new("kill").args(["-KILL", &id.to_string()]).status().expect("kill runs").success());
    }

    /// Waits until none of them is left.
    #[track_caller]
    pub(crate) fn is_at_rest(&self) {
        let until = Instant::now() + LIMIT;
        let processes = self.processes();
        assert!(!processes.is_empty(), "none was started");
        while let Some(left) = processes.iter().find(|id| is_running(**id)) {
            assert!(Instant::now() < until, "process {left} is left");
            std::thread::park_timeout(STEP);
        }
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        if let Some(listening) = &mut self.listening {
            let _ = listening.kill();
            let _ = listening.wait();
        }
    }
}

pub(crate) fn is_there(program: &str) -> bool {
    let found =
        Command::new("sh").args(["-c", &format!("command -v {program}")]).stdout(Stdio::null()).status();
    found.is_ok_and(|found| found.success())
}

/// One that has ended may still be listed, as a child whose parent has not collected its exit code.
fn is_running(id: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|state| !state.is_empty() && !state.starts_with('Z'))
}

/// How often the list of processes is looked at.
const STEP: Duration = Duration::from_millis(20);

/// Others may take the free port first.
const MAX_PORTS: usize = 10;

/// Far above any deadline of the program.
const LIMIT: Duration = Duration::from_secs(60);
