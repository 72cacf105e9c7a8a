//! Options of commands that reach a server by ssh.

use clap::Args;
use shiplane::ClientBuilder;

/// How ssh is run, and what it runs.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(crate) struct SshArgs {
    /// Command to use as ssh for HOST:PATH, e.g. "ssh -J gateway" [default: ssh]
    #[arg(long, value_name = "CMD", env = "SHIPLANE_SSH", hide_env_values = true)]
    pub(crate) ssh: Option<String>,
    /// Program to run on HOST, as the shell there takes it [default: shiplane, also in the usual places]
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) remote_path: Option<String>,
}

impl SshArgs {
    /// Sets what was given.
    pub(crate) fn apply(self, mut builder: ClientBuilder) -> ClientBuilder {
        if let Some(command) = self.ssh.filter(|command| !command.is_empty()) {
            builder = builder.ssh(command);
        }
        match self.remote_path {
            Some(program) => builder.remote_program(program),
            None => builder,
        }
    }
}
