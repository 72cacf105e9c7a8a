//! Access control: who may connect to a server, and what they may do there.
//!
//! Two things let a key in (SPEC 6): a [`Ticket`] whose secret it redeemed, and a line in the
//! peers file. Nothing else does: the default is refusal, and a peers file that cannot be read or
//! understood refuses everyone until it is mended.
//!
//! A serving program holds one `AccessControl` and asks it three questions:
//!
//! 1. inside the TLS handshake, `AccessControl::admit`: trusted, a guest, or refused;
//! 2. when a guest sends a secret, `TicketBook::redeem`: does it own the ticket now;
//! 3. before each request for a path, `AccessControl::may_read` or `may_write`.
//!
//! `AccessControl::watch` says when the files have changed. The program then calls
//! `AccessControl::reload_if_changed`, and closes the sessions that it names. Time is always an argument, so that tests of expiry need no waiting.
//!
//! What a grant covers is decided on path components, never on strings, and never on the disk: the
//! side that opens files must not follow symbolic links, or a link inside a scope would lead out
//! of it.
//!
//! All but [`Ticket`] is part of the engine of the crate `shiplane`, and public with the feature `internals` alone.
//!
//! Not here: calls, the transfer of files, tokio.

#![forbid(unsafe_code)]
#![cfg_attr(
    not(feature = "internals"),
    expect(
        dead_code,
        unreachable_pub,
        reason = "the engine's parts are public with the feature `internals` alone"
    )
)]

mod address;
mod control;
mod grant;
mod list;
mod peers;
mod ticket;
mod ticket_file;
mod tickets;

pub use ticket::Ticket;

/// What the other crates of this workspace are built from. It may change at any time.
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod internals {
    pub use crate::{
        address::{AddressError, Addresses, DEFAULT_PORT, Host, HostName, HostPort, MAX_ADDRESSES, Zone},
        control::{AccessControl, Broken, Reload},
        grant::{Denied, Grant, Right, Scope},
        list::{AccessList, EditError, PeersError, PeersFile},
        peers::{LineFault, NameError, PeerName, StandingPeer},
        ticket::{NoRandomness, Redacted, SecretError, Ticket, TicketError, TicketSecret},
        ticket_file::{RootId, SecretHash, StoredTicket, TicketsError, TicketsFile},
        tickets::{IssueError, MAX_OWNERS, RedeemError, TicketBook},
    };
}

/// The fuzzer's entries. Each takes any bytes and panics if a law of the crate is broken.
#[doc(hidden)]
pub mod fuzz {
    pub use crate::{
        address::fuzz_address, peers::fuzz_peers, ticket::fuzz_ticket, ticket_file::fuzz_stored_ticket,
    };
}
