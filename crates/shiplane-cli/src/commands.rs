//! One module per command.

mod clean;
mod completions;
mod doctor;
mod get;
mod id;
mod ls;
mod man;
#[cfg(feature = "octopii")]
mod octopii;
mod peers;
mod ping;
mod push;
mod receive;
mod send;
mod serve;
mod sync;
mod ticket;
mod transfer;

use std::{env, io};

use crate::args::{Cli, Command};
use crate::failure::Failure;
use crate::settings::{
    DoctorSettings, GetSettings, LsSettings, PingSettings, PushSettings, ReceiveSettings, SendSettings,
    ServeSettings, SyncSettings,
};

/// Does what was asked.
pub(crate) fn run(cli: Cli) -> Result<(), Failure> {
    match cli.command {
        #[cfg(feature = "octopii")]
        Command::Serve(args) if args.insecure_octopii => octopii::serve(args),
        #[cfg(feature = "octopii")]
        Command::Get(args) if args.insecure_octopii => octopii::get(args),
        #[cfg(feature = "octopii")]
        Command::Push(args) if args.insecure_octopii => octopii::push(args),
        Command::Send(args) => send::run(SendSettings::from_args(args)),
        Command::Receive(args) => {
            let code = env::var_os("SHIPLANE_CODE");
            receive::run(ReceiveSettings::from_args(args, code, io::stdin().lock())?)
        }
        Command::Serve(args) if args.stdio_ticket => serve::over_ssh(),
        Command::Serve(args) => serve::run(ServeSettings::from_args(args)?),
        Command::Get(args) => {
            let ticket = env::var_os("SHIPLANE_TICKET");
            get::run(GetSettings::from_args(args, ticket, io::stdin())?)
        }
        Command::Push(args) => {
            let ticket = env::var_os("SHIPLANE_TICKET");
            push::run(PushSettings::from_args(args, ticket, io::stdin())?)
        }
        Command::Sync(args) => {
            let ticket = env::var_os("SHIPLANE_TICKET");
            sync::run(SyncSettings::from_args(args, ticket, io::stdin())?)
        }
        Command::Ls(args) => {
            let ticket = env::var_os("SHIPLANE_TICKET");
            ls::run(LsSettings::from_args(args, ticket, io::stdin())?)
        }
        Command::Ping(args) => {
            let ticket = env::var_os("SHIPLANE_TICKET");
            ping::run(PingSettings::from_args(args, ticket, io::stdin())?)
        }
        Command::Doctor(args) => {
            let ticket = env::var_os("SHIPLANE_TICKET");
            doctor::run(DoctorSettings::from_args(args, ticket, io::stdin())?)
        }
        Command::Clean(args) => clean::run(args),
        Command::Id => id::run(),
        Command::Peers(command) => peers::run(command),
        Command::Ticket(command) => ticket::run(command),
        Command::Completions { shell } => completions::run(shell),
        Command::Man { command } => man::run(&command),
    }
}
