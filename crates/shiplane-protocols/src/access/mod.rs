//! Access control: who may connect, and what they may do.
//!
//! Two things let a key in (SPEC 6): a [`Ticket`] whose secret it redeemed, and a line in the
//! peers file. Nothing else does: the default is refusal, and a peers file that cannot be read or
//! understood refuses everyone until it is mended.
//!
//! A serving program holds one [`AccessControl`] and asks it three questions:
//!
//! 1. inside the TLS handshake, [`AccessControl::admit`]: trusted, a guest, or refused;
//! 2. when a guest sends a secret, [`TicketBook::redeem`]: does it own the ticket now;
//! 3. before each request for a path, [`AccessControl::may_read`] or `may_write`.
//!
//! Twice a second it calls [`AccessControl::reload_if_changed`] and closes the sessions of whoever
//! that names. Time is always an argument, so that tests of expiry need no waiting.
//!
//! What a grant covers is decided on path components, never on strings, and never on the disk: the
//! side that opens files must not follow symbolic links, or a link inside a scope would lead out
//! of it.

mod address;
mod control;
mod grant;
mod list;
mod peers;
mod ticket;
mod ticket_file;
mod tickets;

/// The fuzzer's entries.
pub(crate) mod fuzz {
    pub use super::address::fuzz_address;
    pub use super::peers::fuzz_peers;
    pub use super::ticket::fuzz_ticket;
    pub use super::ticket_file::fuzz_stored_ticket;
}

pub use address::{AddressError, DEFAULT_PORT, Host, HostName, HostPort};
pub use control::{AccessControl, Broken, Reload};
pub use grant::{Denied, Grant, Right, Scope};
pub use list::{AccessList, EditError, PeersError, PeersFile};
pub use peers::{LineFault, NameError, PeerName, StandingPeer};
pub use ticket::{NoRandomness, Redacted, SecretError, Ticket, TicketError, TicketSecret};
pub use ticket_file::{RootId, SecretHash, StoredTicket, TicketsError, TicketsFile};
pub use tickets::{IssueError, MAX_OWNERS, RedeemError, TicketBook};
