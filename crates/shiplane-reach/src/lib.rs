//! Finds a peer: by a code that a person has said, which both then prove to know, or by ssh.
//!
//! 1. `code`: a number and words of the PGP list. It corrects mistyped words.
//! 2. `exchange`: SPAKE2 with confirmation, bound to both ids and to the TLS connection. No IO.
//! 3. `host`: the sender's code: guesses, receivers, expiry. No IO.
//! 4. `service`: both over RPC, on the one stream that a guest has.
//! 5. `ssh`: the other machine's program, started by the user's own ssh.
//! 6. `nearby`: multicast DNS. `candidates`: which announced addresses are dialled. `seek`: from a number to a sender.
//!
//! All of it is public with the feature `internals` alone: a program sends and receives by the crate `shiplane`.
//!
//! Not here: files, tickets, the terminal.

#![forbid(unsafe_code)]
#![cfg_attr(
    not(feature = "internals"),
    expect(
        dead_code,
        unreachable_pub,
        reason = "the engine's parts are public with the feature `internals` alone"
    )
)]

mod candidates;
mod code;
mod exchange;
mod host;
mod nearby;
mod seek;
mod service;
mod ssh;
mod words;

/// What the other crates of this workspace are built from. It may change at any time.
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod internals {
    pub use crate::{
        code::{Code, CodeError, Correction, MAX_WORDS, MIN_WORDS, NoRandomness},
        host::{CODE_TTL, CodeState, CodeTerms, Moment},
        nearby::{Announced, Announcement, MAX_ADDRESSES, Nearby, NearbyError, Search},
        seek::{SeekError, meet_seekers, seek},
        service::{CodeEvent, CodeService, GUEST_METHODS, ProveError, Prover},
        ssh::{
            address::{SshAddress, SshAddressError},
            greeting::{Greeting, GreetingError, Rights, SshRequest, SshRequestError},
            process::{NoTicket, SshCommand, SshCommandError, SshError, SshPipes, SshProcess},
        },
    };
}

/// The fuzz entries. Each takes any bytes and panics if an invariant of the crate is broken.
#[doc(hidden)]
pub mod fuzz {
    pub use crate::{
        code::fuzz_code,
        exchange::fuzz_exchange,
        service::fuzz_bodies,
        ssh::{address::fuzz_ssh_address, greeting::fuzz_greeting},
    };
}
