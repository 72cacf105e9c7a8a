//! What operators of servers choose: a socket of the system's, how long to drain, and a status page.

use std::{net::UdpSocket, sync::Arc, time::Duration};

use tokio::sync::Notify;

/// What is chosen before a server is bound.
#[derive(Debug, Default)]
pub(super) struct Operating {
    pub(super) drain_limit: Option<Duration>,
    /// Bound already.
    pub(super) socket: Option<UdpSocket>,
    #[cfg(feature = "status")]
    pub(super) status: StatusSettings,
}

/// What is kept of it while the server runs.
#[derive(Debug)]
pub(super) struct Operated {
    /// That the rules are to be read again.
    pub(super) reload: Arc<Notify>,
    pub(super) drain_limit: Option<Duration>,
    #[cfg(feature = "status")]
    pub(super) status: Option<Status>,
}

/// What is shown, and to whom.
#[cfg(feature = "status")]
#[derive(Debug, Clone, Default)]
pub(super) struct StatusSettings {
    /// `None`: nothing is.
    pub(super) addr: Option<std::net::SocketAddr>,
    pub(super) hosts: Vec<String>,
    pub(super) shows_names: bool,
}

/// That a server is shown; no more when this is dropped.
#[cfg(feature = "status")]
#[derive(Debug)]
pub(super) struct Status {
    pub(super) addr: std::net::SocketAddr,
    pub(super) _stop: tokio_util::sync::DropGuard,
}
