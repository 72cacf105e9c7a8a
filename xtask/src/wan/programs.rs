//! The programs that carry files over the link, and how each is started. What is not installed is named, with
//! what to install.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use super::link::{SENDER, missing_tcp};
use super::rows::{Must, Row, Verb, Workload};
use crate::bench::contenders::ssh::{HOST, Ssh, Sshd};
use crate::bench::contenders::{await_listening, version_line};
use crate::process::{self, Running, find_program};
use crate::scratch::Scratch;
use crate::shiplane::{Server, Shiplane};

/// One way to carry files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Program {
    /// The one of that number in [`Kit::shiplanes`].
    Shiplane(usize),
    RsyncBbr,
    RsyncCubic,
    Scp,
    CurlHttp,
    CurlHttps,
    Qcp,
}

/// What `--shiplane` takes: a program of ours and what the tables call it.
#[derive(Clone, Debug)]
pub(super) struct Labelled {
    pub(super) label: String,
    path: PathBuf,
}

/// All programs that are there.
#[derive(Debug)]
pub(super) struct Kit {
    pub(super) shiplanes: Vec<(String, Shiplane)>,
    ssh: Result<Ssh, String>,
    /// The directory of the certificate, for HTTPS.
    certificate: Result<PathBuf, String>,
    qcp: Option<PathBuf>,
    /// How the names of the other programs begin that are wanted; all if empty.
    beside: Vec<String>,
}

/// The directories of one run of one program.
#[derive(Debug)]
pub(super) struct RunPaths {
    /// Holds the item `data` and nothing else.
    pub(super) source: PathBuf,
    /// Empty at first; ends up with a copy of the item.
    pub(super) destination: PathBuf,
    /// For the server's files and the client's.
    pub(super) state: PathBuf,
    /// Holds the last two.
    _scratch: Scratch,
}

/// A server that listens.
#[derive(Debug)]
pub(super) enum Serving {
    Shiplane(Server),
    Ssh { _sshd: Sshd },
    Other { _running: Running },
}

impl std::str::FromStr for Labelled {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let Some((label, path)) = text.split_once('=') else { return Ok(Self::unnamed(text.into())) };
        Ok(Self { label: label.to_owned(), path: path.into() })
    }
}

impl Labelled {
    pub(super) fn unnamed(path: PathBuf) -> Self {
        Self { label: "shiplane".into(), path }
    }
}

impl RunPaths {
    /// Makes the directories of a run, in `scratch`.
    pub(super) fn new(source: PathBuf, scratch: &Scratch) -> Result<Self> {
        let own = Scratch::new("run-", Some(scratch.path()))?;
        let (destination, state) = (own.directory("copy")?, own.directory("state")?);
        Ok(Self { source, destination, state, _scratch: own })
    }
}

impl Program {
    /// TCP's congestion control, as the kernel calls it.
    pub(super) fn congestion_control(self) -> &'static str {
        match self {
            Self::RsyncCubic => "cubic",
            Self::Shiplane(_) | Self::RsyncBbr | Self::Scp | Self::CurlHttp | Self::CurlHttps | Self::Qcp => {
                "bbr"
            }
        }
    }

    pub(super) fn is_ours(self) -> bool {
        matches!(self, Self::Shiplane(_))
    }

    /// Whether a row has a figure of it.
    fn fits(self, row: &Row) -> bool {
        let is_get = row.verb == Verb::Get;
        match (self, row.workload) {
            (Self::Shiplane(_), _) => true,
            (Self::RsyncBbr, _) => is_get || row.must != Must::Nothing,
            (Self::RsyncCubic, Workload::Bulk { .. } | Workload::Tree) => is_get,
            (Self::Scp, Workload::Bulk { .. } | Workload::Small | Workload::Tree) => is_get,
            (Self::Qcp, Workload::Bulk { .. } | Workload::Small) => is_get,
            (Self::CurlHttp, Workload::Small | Workload::Cut) => true,
            (Self::CurlHttps, Workload::Small) => true,
            (Self::RsyncCubic | Self::Scp | Self::Qcp | Self::CurlHttp | Self::CurlHttps, _) => false,
        }
    }

    /// IP, UDP or TCP and, for QUIC, its own headers in a packet of data.
    pub(super) fn header_bytes(self) -> u64 {
        match self {
            Self::Shiplane(_) | Self::Qcp => 63,
            Self::RsyncBbr | Self::RsyncCubic | Self::Scp | Self::CurlHttp | Self::CurlHttps => 52,
        }
    }
}

impl Kit {
    /// Looks for all programs. Without a program of ours in `shiplanes`, that of this source is built.
    pub(super) fn gather(shiplanes: &[Labelled], beside: &[String], scratch: &Scratch) -> Result<Self> {
        let named = |one: &Labelled| Ok((one.label.clone(), Shiplane::built(Some(&one.path))?));
        let shiplanes = match shiplanes {
            [] => vec![("shiplane".to_owned(), Shiplane::built(None)?)],
            named_ones => named_ones.iter().map(named).collect::<Result<_>>()?,
        };
        let ssh = Ssh::prepare_at(&find_program, scratch.directory("ssh")?, "0.0.0.0", SENDER)?;
        let certificate = certificate(scratch.directory("certificate")?)?;
        Ok(Self { shiplanes, ssh, certificate, qcp: find_program("qcp"), beside: beside.to_vec() })
    }

    /// The programs that a row compares.
    pub(super) fn programs(&self, row: &Row) -> Vec<Program> {
        let ours = (0..self.shiplanes.len()).map(Program::Shiplane);
        let is_wanted = |program: &Program| {
            let name = self.name(*program);
            self.beside.is_empty() || self.beside.iter().any(|begin| name.starts_with(begin.as_str()))
        };
        let theirs = THEIRS.into_iter().filter(is_wanted);
        ours.chain(theirs).filter(|program| program.fits(row) && self.missing(*program).is_none()).collect()
    }

    /// What is not there, and why.
    pub(super) fn all_missing(&self) -> Vec<String> {
        let missing =
            |&program: &Program| Some(format!("{}: {}", self.name(program), self.missing(program)?));
        THEIRS.iter().filter_map(missing).collect()
    }

    /// As the tables call it.
    pub(super) fn name(&self, program: Program) -> &str {
        match program {
            Program::Shiplane(number) => self.shiplanes.get(number).map_or("shiplane", |(label, _)| label),
            Program::RsyncBbr => "rsync, BBR",
            Program::RsyncCubic => "rsync, Cubic",
            Program::Scp => "scp",
            Program::CurlHttp => "curl, HTTP",
            Program::CurlHttps => "curl, HTTPS",
            Program::Qcp => "qcp",
        }
    }

    /// The versions of the programs that are not ours.
    pub(super) fn versions(&self) -> String {
        let version = |(program, option): (&str, &str)| Some(version_line(&find_program(program)?, option));
        let programs = [("rsync", "--version"), ("ssh", "-V"), ("nginx", "-v"), ("curl", "--version")];
        programs.into_iter().filter_map(version).collect::<Vec<_>>().join("; ")
    }

    /// Starts the server; to be called in the namespace where it is to run.
    pub(super) fn serve(&self, program: Program, row: &Row, place: &RunPaths) -> Result<Serving> {
        match program {
            Program::Shiplane(number) => {
                let (_, shiplane) = self.shiplanes.get(number).context("no such program")?;
                let is_writable = row.verb != Verb::Get;
                let directory = if is_writable { &place.destination } else { &place.source };
                let home = place.state.join("server");
                fs::create_dir_all(&home)?;
                Ok(Serving::Shiplane(shiplane.serve_at("0.0.0.0:7514", directory, &home, is_writable)?))
            }
            Program::RsyncBbr | Program::RsyncCubic => rsync_daemon(row, place),
            Program::Scp | Program::Qcp => Ok(Serving::Ssh { _sshd: self.ssh()?.start()? }),
            Program::CurlHttp | Program::CurlHttps => self.nginx(place),
        }
    }

    /// The client, not yet started. A later run continues what an earlier one left.
    pub(super) fn client(
        &self,
        program: Program,
        row: &Row,
        serving: &Serving,
        place: &RunPaths,
    ) -> Result<Command> {
        let item = place.source.join(ITEM);
        let mut command = match (program, serving) {
            (Program::Shiplane(number), Serving::Shiplane(server)) => {
                let (_, shiplane) = self.shiplanes.get(number).context("no such program")?;
                let home = place.state.join("client");
                let mut command = match row.verb {
                    Verb::Get => shiplane.get(server, &place.destination, &home),
                    Verb::Push => shiplane.push(&item, server, &home),
                    Verb::Sync => shiplane.sync(&place.source, server, &home),
                };
                command.arg("--json");
                command
            }
            (Program::Shiplane(_), _) => bail!("shiplane has no server"),
            (Program::RsyncBbr | Program::RsyncCubic, _) => rsync_client(row, place),
            (Program::Scp, _) => {
                let mut command = Command::new("scp");
                command.args(["-q", "-B", "-r", "-F"]).arg(self.ssh()?.client_config());
                command.arg(format!("{HOST}:{}", item.display())).arg(&place.destination);
                command
            }
            (Program::Qcp, _) => self.qcp_client(row, &item, place)?,
            (Program::CurlHttp, _) => curl(&format!("http://{SENDER}/{ITEM}"), place),
            (Program::CurlHttps, _) => {
                let mut command = curl(&format!("https://{SENDER}/{ITEM}"), place);
                command.args(["--tlsv1.3", "--cacert"]).arg(self.certificate()?.join("certificate.pem"));
                command
            }
        };
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(place.state.join("client.log"))?);
        Ok(command)
    }

    fn qcp_client(&self, row: &Row, item: &Path, place: &RunPaths) -> Result<Command> {
        let qcp = self.qcp.as_deref().context("qcp is not installed")?;
        let (ssh, config) = (self.ssh()?, self.ssh()?.client_config());
        let (rate, rtt) = (format!("{}k", row.link.rate_mbit * 125.0), row.link.rtt_ms.to_string());
        let mut command = Command::new(qcp);
        command.args(["--quiet", "-4", "--tx", &rate, "--rx", &rate, "--rtt", &rtt]);
        command.arg("--remote-qcp-binary").arg(qcp).arg("--ssh").arg(ssh.program());
        command.arg("--ssh-config").arg(&config).args(["-S", "-F", "-S"]).arg(&config);
        command.arg(format!("{HOST}:{}", item.display())).arg(&place.destination);
        Ok(command)
    }

    fn nginx(&self, place: &RunPaths) -> Result<Serving> {
        let directory = place.state.join("nginx");
        fs::create_dir_all(&directory)?;
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path temporary;\n"))
            .concat();
        let certificate = self.certificate()?.display();
        // As root, since a user without rights may not enter our directory.
        let text = format!(
            "user root root;\ndaemon off;\nworker_processes 1;\npid nginx.pid;\nevents {{ }}\n\
             http {{\naccess_log off;\nsendfile on;\n{temporary}server {{\nlisten 80;\nlisten 443 ssl;\nssl_protocols TLSv1.3;\n\
             ssl_certificate \"{certificate}/certificate.pem\";\nssl_certificate_key \"{certificate}/key.pem\";\n\
             root \"{}\";\n}}\n}}\n",
            place.source.display(),
        );
        let config = directory.join("nginx.conf");
        fs::write(&config, text).context("cannot write nginx.conf")?;
        let mut command = Command::new(find_program("nginx").context("nginx is gone")?);
        command.args(["-e", "stderr", "-p"]).arg(&directory).arg("-c").arg(config);
        listening("nginx", &mut command, 80)
    }

    fn ssh(&self) -> Result<&Ssh> {
        self.ssh.as_ref().map_err(|reason| anyhow::anyhow!("no ssh: {reason}"))
    }

    fn certificate(&self) -> Result<&Path> {
        self.certificate.as_deref().map_err(|reason| anyhow::anyhow!("no HTTPS: {reason}"))
    }

    /// Why a program cannot run here, if so.
    fn missing(&self, program: Program) -> Option<String> {
        if !program.is_ours()
            && let Some(reason) = missing_tcp(program.congestion_control())
        {
            return Some(reason);
        }
        let ssh = || self.ssh.as_ref().err().cloned();
        match program {
            Program::Shiplane(_) => None,
            Program::RsyncBbr | Program::RsyncCubic => {
                find_program("rsync").is_none().then(|| "install rsync".to_owned())
            }
            Program::Scp => ssh(),
            Program::CurlHttp | Program::CurlHttps => self.certificate.as_ref().err().cloned(),
            Program::Qcp if self.qcp.is_none() => Some("`cargo install --locked qcp`".to_owned()),
            Program::Qcp => ssh(),
        }
    }
}

/// Makes a certificate in `directory`. The inner error says what is not installed.
fn certificate(directory: PathBuf) -> Result<Result<PathBuf, String>> {
    if ["nginx", "curl", "openssl"].iter().any(|program| find_program(program).is_none()) {
        return Ok(Err("install nginx-light, curl and openssl".to_owned()));
    }
    let mut command = Command::new("openssl");
    command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]);
    command.args(["-nodes", "-days", "2", "-subj", "/CN=localhost"]);
    command
        .args(["-addext", &format!("subjectAltName=IP:{SENDER}"), "-keyout"])
        .arg(directory.join("key.pem"));
    command.arg("-out").arg(directory.join("certificate.pem"));
    process::run("openssl", command.stdin(Stdio::null()).stderr(Stdio::null()))?;
    Ok(Ok(directory))
}

fn rsync_daemon(row: &Row, place: &RunPaths) -> Result<Serving> {
    let directory = if row.verb == Verb::Get { &place.source } else { &place.destination };
    let config = place.state.join("rsyncd.conf");
    let text = format!(
        "use chroot = no\nuid = root\ngid = root\nlog file = {}\n[{MODULE}]\npath = {}\nread only = no\n",
        place.state.join("rsyncd.log").display(),
        directory.display(),
    );
    fs::write(&config, text).context("cannot write rsyncd.conf")?;
    let mut command = Command::new("rsync");
    command.args(["--daemon", "--no-detach", "--config"]).arg(config);
    listening("rsync --daemon", &mut command, RSYNC_PORT)
}

fn rsync_client(row: &Row, place: &RunPaths) -> Command {
    let mut command = Command::new("rsync");
    // Either no comparing of blocks with what is not there, or going on behind what is there.
    command.args(["-a", if row.workload == Workload::Cut { "--append" } else { "-W" }]);
    let host = if row.verb == Verb::Get { SENDER } else { super::link::RECEIVER };
    let module = format!("rsync://{host}/{MODULE}");
    match row.verb {
        Verb::Get => command.arg(format!("{module}/{ITEM}")).arg(&place.destination),
        Verb::Push | Verb::Sync => command.arg(place.source.join(ITEM)).arg(module),
    };
    command
}

fn curl(url: &str, place: &RunPaths) -> Command {
    let mut command = Command::new("curl");
    command
        .args(["-q", "-sS", "--fail", "--noproxy", "*", "-C", "-", "-o"])
        .arg(place.destination.join(ITEM));
    command.arg(OsStr::new(url));
    command
}

/// Starts a server and waits until it takes connections.
fn listening(name: &str, command: &mut Command, port: u16) -> Result<Serving> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut running = Running::start(name, command)?;
    await_listening(&mut running, name, port)?;
    Ok(Serving::Other { _running: running })
}

/// What is carried: a file or a directory.
pub(super) const ITEM: &str = "data";

const THEIRS: [Program; 6] = [
    Program::RsyncBbr,
    Program::RsyncCubic,
    Program::Scp,
    Program::CurlHttp,
    Program::CurlHttps,
    Program::Qcp,
];

const MODULE: &str = "wan";

const RSYNC_PORT: u16 = 873;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_stands_before_the_path() {
        let read = |text: &str| {
            let Labelled { label, path } = text.parse().unwrap();
            (label, path.display().to_string())
        };
        assert_eq!(read("old=/a/b"), ("old".to_owned(), "/a/b".to_owned()));
        assert_eq!(read("/a/b"), ("shiplane".to_owned(), "/a/b".to_owned()));
    }
}
