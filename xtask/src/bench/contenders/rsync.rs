//! rsync, over ssh and from its own daemon, which does not encrypt.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};

use super::ssh::{HOST, Ssh, is_root};
use super::{Contender, Found, Sample, Tools, await_listening, free_port, slug};
use super::{stop_forking, version_line};
use crate::bench::workload::{Scenario, Workload};
use crate::process::Running;

pub(super) const OVER_SSH: &str = "rsync over ssh";
pub(in crate::bench) const DAEMON: &str = "rsync daemon";

/// Over an sshd of our own.
pub(super) fn over_ssh(tools: &Tools, workload: &Workload) -> Result<Found> {
    let Some(rsync) = tools.find("rsync") else { return Ok(Err(INSTALL.to_owned())) };
    let ssh = Ssh::prepare(tools, workload.state("rsync-ssh")?)?;
    Ok(ssh.map(|ssh| Box::new(OverSsh { rsync, ssh }) as Box<dyn Contender>))
}

/// From a daemon of our own.
pub(super) fn daemon(tools: &Tools, workload: &Workload) -> Result<Found> {
    let Some(rsync) = tools.find("rsync") else { return Ok(Err(INSTALL.to_owned())) };
    Ok(Ok(Box::new(Daemon { rsync, directory: workload.state("rsyncd")? })))
}

#[derive(Debug)]
struct OverSsh {
    rsync: PathBuf,
    ssh: Ssh,
}

impl Contender for OverSsh {
    fn name(&self) -> &str {
        OVER_SSH
    }

    fn checks(&self) -> &'static str {
        CHECKS
    }

    fn version(&self) -> String {
        format!("{}, {}", version_line(&self.rsync, "--version"), self.ssh.version())
    }

    fn run(&mut self, workload: &Workload) -> Result<Sample> {
        let destination = workload.destination(&slug(OVER_SSH))?;
        let server = self.ssh.start()?;
        let shell = format!("'{}' -F '{}'", self.ssh.program().display(), self.ssh.client_config().display());
        let mut command = receiver(&self.rsync, workload);
        command.arg("-e").arg(shell);
        command.arg(format!("{HOST}:{}", workload.item.display())).arg(destination);
        let received = workload.carry(OVER_SSH, &mut command)?;
        let sender = server.stop()?;
        Ok(received.served_by(sender))
    }
}

#[derive(Debug)]
struct Daemon {
    rsync: PathBuf,
    directory: PathBuf,
}

impl Daemon {
    fn start(&self, workload: &Workload) -> Result<(Running, u16)> {
        let port = free_port()?;
        let config = self.directory.join("rsyncd.conf");
        // Without these it gives up root for `nobody`, who may not enter our directory.
        let user = if is_root() { "uid = root\ngid = root\n" } else { "" };
        let text = format!(
            "address = 127.0.0.1\nport = {port}\nuse chroot = no\n{user}log file = {}\n\
             [{MODULE}]\npath = {}\nread only = yes\n",
            self.directory.join("log").display(),
            workload.source.display(),
        );
        fs::write(&config, text).context("cannot write rsyncd.conf")?;
        let mut command = Command::new(&self.rsync);
        command.arg("--daemon").arg("--no-detach").arg("--config").arg(config);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let mut running = Running::start(DAEMON, &mut command)?;
        await_listening(&mut running, DAEMON, port)?;
        Ok((running, port))
    }
}

impl Contender for Daemon {
    fn name(&self) -> &str {
        DAEMON
    }

    fn checks(&self) -> &'static str {
        CHECKS
    }

    fn version(&self) -> String {
        format!("{}, no encryption", version_line(&self.rsync, "--version"))
    }

    fn run(&mut self, workload: &Workload) -> Result<Sample> {
        let destination = workload.destination(&slug(DAEMON))?;
        let (server, port) = self.start(workload)?;
        let name = workload.item.file_name().unwrap_or_default().to_string_lossy();
        let mut command = receiver(&self.rsync, workload);
        command.arg(format!("rsync://127.0.0.1:{port}/{MODULE}/{name}")).arg(destination);
        let received = workload.carry(DAEMON, &mut command)?;
        let sender = stop_forking(server)?;
        Ok(received.served_by(sender))
    }
}

fn receiver(rsync: &Path, workload: &Workload) -> Command {
    let mut command = Command::new(rsync);
    command.arg("-a");
    if workload.scenario != Scenario::Edited {
        // No comparing of blocks with what is not there.
        command.arg("-W");
    }
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command
}

const MODULE: &str = "bench";

/// A checksum of each whole file, without a key.
const CHECKS: &str = "xxHash or MD5";

const INSTALL: &str = "install rsync";
