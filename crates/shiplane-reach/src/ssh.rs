//! The other machine's program, started by the user's own `ssh`.
//!
//! `address` is what a user types, `greeting` what the two programs say before the first packet, `process` the `ssh` of
//! this side. No path is ever part of a command, so that no shell has to quote it.

mod address;
mod greeting;
mod process;

pub use self::{
    address::{SshAddress, SshAddressError, fuzz_ssh_address},
    greeting::{Greeting, GreetingError, Rights, SshRequest, SshRequestError, fuzz_greeting},
    process::{NoTicket, SshCommand, SshCommandError, SshError, SshPipes, SshProcess},
};
