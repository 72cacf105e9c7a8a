//! For operators of servers: a socket of the system's, reloading, draining, and a status page.

use std::{
    net::{SocketAddr, UdpSocket},
    sync::Arc,
    time::Duration,
};

use shiplane_rpc::Router;
use shiplane_transport::internals::blocking;
use tokio::sync::Notify;

#[cfg(feature = "status")]
use super::status::{Observed, Status, StatusSettings};
use super::{Opened, Server, ServerBuilder};
use crate::error::{Cause, Error};

/// What is chosen before a server is bound.
#[derive(Debug, Default)]
pub(super) struct Operating {
    drain_limit: Option<Duration>,
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
    drain_limit: Option<Duration>,
    #[cfg(feature = "status")]
    pub(super) status: Option<Status>,
}

/// What watches a server, until there is one.
pub(super) struct Observers {
    #[cfg(feature = "status")]
    status: Option<Observed>,
}

impl Operating {
    /// Lets what is asked for watch the parts of a server.
    pub(super) fn observe(&self, router: Router, _opened: &Opened) -> Result<(Router, Observers), Error> {
        #[cfg(feature = "status")]
        let (router, status) = self.status.observe(router, _opened)?;
        let observers = Observers {
            #[cfg(feature = "status")]
            status,
        };
        Ok((router, observers))
    }

    pub(super) fn operated(&self, _observers: &mut Observers) -> Operated {
        Operated {
            reload: Arc::default(),
            drain_limit: self.drain_limit,
            #[cfg(feature = "status")]
            status: _observers.status.as_mut().map(Observed::status),
        }
    }
}

impl Observers {
    /// Begins to show the server.
    pub(super) fn watch(self, _server: &Server) {
        #[cfg(feature = "status")]
        if let Some(observed) = self.status {
            observed.serve(_server);
        }
    }
}

impl Server {
    /// Reads the list of peers and the tickets again, now. [`run`](Self::run) does so by itself within a second after
    /// they have changed.
    pub fn reload(&self) {
        self.inner.operated.reload.notify_one();
    }

    /// Ready when what is under way has had the time that it is given after a [`shutdown`](Self::shutdown).
    pub(super) async fn drained_long_enough(&self) {
        self.inner.stop.cancelled().await;
        match self.inner.operated.drain_limit {
            Some(limit) => tokio::time::sleep(limit).await,
            None => std::future::pending().await,
        }
    }
}

impl<S: Clone + Send + Sync + 'static> ServerBuilder<S> {
    /// How long transfers and calls may continue after a [`shutdown`](Server::shutdown). Those that have not ended by then
    /// are cut off; their peers resume with the next server. By default there is no limit: a transfer that does not move
    /// ends by itself.
    pub fn drain_limit(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.operating.drain_limit = limit.into();
        self
    }

    /// Like [`bind`](Self::bind), but on a socket that is bound already, such as one that a service manager holds while the
    /// server is restarted.
    ///
    /// Cancel-safe: dropping the future leaves at most a new key file.
    ///
    /// # Errors
    /// As [`bind`](Self::bind).
    pub async fn bind_socket(mut self, socket: UdpSocket) -> Result<Server, Error> {
        let addr: SocketAddr = socket.local_addr().map_err(Cause::Listen)?;
        self.operating.socket = Some(socket);
        let opening = blocking::spawn(move || self.open());
        let (opened, builder) = opening.await.map_err(|_| Cause::Abandoned)??;
        builder.serve(opened, &[addr])
    }
}
