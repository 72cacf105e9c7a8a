//! qcp: QUIC, with its server started over an sshd of our own.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::Result;

use super::ssh::{HOST, Ssh};
use super::{Contender, Found, Sample, Tools, slug, version_line};
use crate::bench::workload::Workload;

pub(super) const NAME: &str = "qcp";

#[derive(Debug)]
pub(super) struct Qcp {
    qcp: PathBuf,
    ssh: Ssh,
}

impl Qcp {
    pub(super) fn find(tools: &Tools, workload: &Workload) -> Result<Found> {
        let Some(qcp) = tools.find("qcp") else {
            return Ok(Err("`cargo install --locked qcp`".to_owned()));
        };
        let ssh = Ssh::prepare(tools, workload.state("qcp")?)?;
        Ok(ssh.map(|ssh| Box::new(Self { qcp, ssh }) as Box<dyn Contender>))
    }
}

impl Contender for Qcp {
    fn name(&self) -> &str {
        NAME
    }

    fn checks(&self) -> &'static str {
        "nothing"
    }

    fn version(&self) -> String {
        format!("{}, packets of 1,452 bytes", version_line(&self.qcp, "--version"))
    }

    fn run(&mut self, workload: &Workload) -> Result<Sample> {
        let destination = workload.destination(&slug(NAME))?;
        let server = self.ssh.start()?;
        let config = self.ssh.client_config();
        let mut command = Command::new(&self.qcp);
        command.args(["--quiet", "-4", "--tx", "1G", "--rx", "1G", "--rtt", "10", "--remote-qcp-binary"]);
        command.arg(&self.qcp).arg("--ssh").arg(self.ssh.program());
        // Its own reading of the file finds the host, ssh's reading does the rest.
        command.arg("--ssh-config").arg(&config);
        command.args(["-S", "-F", "-S"]).arg(&config);
        if !workload.scenario.is_file() {
            command.arg("-r");
        }
        command.arg(format!("{HOST}:{}", workload.item.display())).arg(destination);
        let received = workload.carry(NAME, command.stdin(Stdio::null()).stdout(Stdio::null()))?;
        let sender = server.stop()?;
        Ok(received.served_by(sender))
    }
}
