//! scp, over an sshd of our own.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::Result;

use super::ssh::{HOST, Ssh};
use super::{Contender, Found, Sample, Tools, slug};
use crate::bench::workload::Workload;

pub(in crate::bench) const NAME: &str = "scp";

/// scp, ready to run.
#[derive(Debug)]
pub(super) struct Scp {
    scp: PathBuf,
    ssh: Ssh,
}

impl Scp {
    pub(super) fn find(tools: &Tools, workload: &Workload) -> Result<Found> {
        let Some(scp) = tools.find("scp") else { return Ok(Err("install openssh-client".to_owned())) };
        let ssh = Ssh::prepare(tools, workload.state("scp")?)?;
        Ok(ssh.map(|ssh| Box::new(Self { scp, ssh }) as Box<dyn Contender>))
    }
}

impl Contender for Scp {
    fn name(&self) -> &str {
        NAME
    }

    fn checks(&self) -> &'static str {
        "nothing"
    }

    fn version(&self) -> String {
        self.ssh.version()
    }

    fn run(&mut self, workload: &Workload) -> Result<Sample> {
        let destination = workload.destination(&slug(NAME))?;
        let server = self.ssh.start()?;
        let mut command = Command::new(&self.scp);
        command.args(["-q", "-B", "-r", "-F"]).arg(self.ssh.client_config());
        command.arg(format!("{HOST}:{}", workload.item.display())).arg(destination);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let received = workload.carry(NAME, &mut command)?;
        let sender = server.stop()?;
        Ok(received.served_by(sender))
    }
}
