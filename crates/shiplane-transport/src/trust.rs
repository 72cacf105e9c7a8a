//! Decides which keys may connect.

use std::{collections::HashSet, fmt, sync::Arc};

use crate::PeerId;

/// What a key is let in as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Admission {
    /// As a peer: it may do what the services above allow it.
    Trusted,
    /// As a stranger who has to authorise itself first (SPEC 6.2). Its connection is kept small
    /// (SPEC 1.7). Only a server has guests: who connects as a client trusts the server's key or
    /// does not connect.
    Guest,
    /// Not at all: the handshake fails.
    Refused,
}

/// The keys that a transport deals with, when it accepts and when it connects without a pinned key.
///
/// Clones share one set or callback. The key has proved in the handshake that it is the peer's
/// before it is asked for, so that a peer cannot find out by guessing which keys are trusted.
///
/// Connections that are open already are not touched when an answer changes: a caller that revokes a
/// key closes its connections.
#[derive(Clone)]
pub struct Trust(Rule);

impl Trust {
    /// Refuses every key. A transport with it can dial pinned keys only and accepts no connection.
    pub fn none() -> Self {
        Self::only([])
    }

    /// Trusts these keys and refuses all others.
    pub fn only(ids: impl IntoIterator<Item = PeerId>) -> Self {
        Self(Rule::Only(Arc::new(ids.into_iter().collect())))
    }

    /// Asks `callback` at every handshake, for rules that change while the transport runs.
    ///
    /// The callback runs inside the TLS handshake, on the task that drives the connection: it must
    /// not block, on a disk or a contended lock for instance, and must not panic. It may be asked
    /// more than once for one connection. If in doubt it answers [`Admission::Refused`].
    pub fn ask(callback: impl Fn(&PeerId) -> Admission + Send + Sync + 'static) -> Self {
        Self(Rule::Ask(Arc::new(callback)))
    }

    /// What this key is let in as now.
    pub fn admit(&self, id: &PeerId) -> Admission {
        match &self.0 {
            Rule::Only(ids) if ids.contains(id) => Admission::Trusted,
            Rule::Only(_) => Admission::Refused,
            Rule::Ask(callback) => callback(id),
        }
    }
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Rule::Only(ids) => write!(f, "Trust::only({} keys)", ids.len()),
            Rule::Ask(_) => f.write_str("Trust::ask(..)"),
        }
    }
}

#[derive(Clone)]
enum Rule {
    Only(Arc<HashSet<PeerId>>),
    Ask(Arc<dyn Fn(&PeerId) -> Admission + Send + Sync>),
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    const ALICE: PeerId = PeerId::from_bytes([1; 32]);
    const BOB: PeerId = PeerId::from_bytes([2; 32]);

    #[test]
    fn only_named_peers_are_trusted() {
        assert_eq!(Trust::none().admit(&ALICE), Admission::Refused);
        let trust = Trust::only([ALICE]);
        assert_eq!(trust.admit(&ALICE), Admission::Trusted);
        assert_eq!(trust.admit(&BOB), Admission::Refused);
    }

    #[test]
    fn clones_ask_the_same_callback_every_time() {
        let open = Arc::new(AtomicBool::new(true));
        let asked = Arc::clone(&open);
        let trust = Trust::ask(move |id| match *id {
            ALICE => Admission::Trusted,
            _ if asked.load(Ordering::Relaxed) => Admission::Guest,
            _ => Admission::Refused,
        });
        let clone = trust.clone();
        assert_eq!(clone.admit(&ALICE), Admission::Trusted);
        assert_eq!(clone.admit(&BOB), Admission::Guest);
        open.store(false, Ordering::Relaxed);
        assert_eq!(clone.admit(&BOB), Admission::Refused);
        assert_eq!(trust.admit(&BOB), Admission::Refused);
    }

    #[test]
    fn debug_lists_no_keys() {
        assert_eq!(format!("{:?}", Trust::only([ALICE, BOB])), "Trust::only(2 keys)");
    }
}
