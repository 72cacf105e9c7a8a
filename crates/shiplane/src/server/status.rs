//! Shows a server to its operators over HTTP: figures for Prometheus, and a page for people.

mod http;
mod meters;
mod view;

use std::{
    net::{SocketAddr, TcpListener},
    sync::{Arc, Weak},
};

use shiplane_access::internals::AccessControl;
use shiplane_protocols::{TransferMetrics, internals::FileServer};
use shiplane_rpc::Router;
use tokio_util::sync::CancellationToken;

use self::{
    http::{Allowed, Answer, Page},
    meters::Meters,
};
use super::{
    Inner, Server, ServerBuilder,
    operating::{Status, StatusSettings},
};
use crate::error::{Cause, Error};

/// A server that is about to be shown.
pub(super) struct Observed {
    listener: TcpListener,
    addr: SocketAddr,
    settings: StatusSettings,
    meters: Arc<Meters>,
    stop: CancellationToken,
}

impl<S: Clone + Send + Sync + 'static> ServerBuilder<S> {
    /// Shows the server over HTTP at this address: figures for Prometheus at `/metrics`, a page for people at `/`, and
    /// `/healthz`, which answers 503 once the server shuts down. Nothing can be changed there. There is no password: use a
    /// loopback address, or let only those reach it who may see who is connected.
    ///
    /// It shows neither secrets nor names of files.
    pub fn metrics(mut self, addr: SocketAddr) -> Self {
        self.operating.status.addr = Some(addr);
        self
    }

    /// A host name that requests for it may have in their `Host` header. Without any it answers to its
    /// address and to loopback names alone, so that no other web page can read it by a name of its own that leads there.
    pub fn metrics_host(mut self, name: impl Into<String>) -> Self {
        self.operating.status.hosts.push(name.into());
        self
    }

    /// Whether names of files are shown there too. By default they are not.
    pub fn metrics_names(mut self, are_shown: bool) -> Self {
        self.operating.status.shows_names = are_shown;
        self
    }
}

impl Server {
    /// Where it is shown over HTTP, if it is.
    #[must_use]
    pub fn metrics_addr(&self) -> Option<SocketAddr> {
        self.inner.operated.status.as_ref().map(|status| status.addr)
    }
}

impl StatusSettings {
    /// Binds the address, and counts what happens from now on.
    pub(super) fn observe(
        &self,
        router: Router,
        files: &FileServer,
        access: &Arc<AccessControl>,
        metrics: &TransferMetrics,
    ) -> Result<(Router, Option<Observed>), Error> {
        let Some(addr) = self.addr else { return Ok((router, None)) };
        let bound = TcpListener::bind(addr).and_then(|listener| {
            listener.set_nonblocking(true)?;
            Ok((listener.local_addr()?, listener))
        });
        let (addr, listener) = bound.map_err(|why| Cause::Metrics { addr, why })?;
        let meters = Arc::new(Meters::new()?);
        metrics.record_to(meters.recorder());
        let (access, told) = (Arc::clone(access), Arc::clone(&meters));
        files.on_failure(Box::new(move |job, error| {
            told.failed(job, access.name_of(&job.peer), error);
        }));
        let told = Arc::clone(&meters);
        let router = router.observe(move |method, outcome, took| told.called(method, outcome, took));
        let (settings, stop) = (self.clone(), CancellationToken::new());
        Ok((router, Some(Observed { listener, addr, settings, meters, stop })))
    }
}

impl Observed {
    pub(super) fn status(&self) -> Status {
        Status { addr: self.addr, _stop: self.stop.clone().drop_guard() }
    }

    /// Serves until the server is dropped.
    pub(super) fn serve(self, server: &Server) {
        let Self { listener, addr, settings, meters, stop } = self;
        let allowed = Allowed::new(settings.hosts);
        let site = Site {
            server: Arc::downgrade(&server.inner),
            page: Page::new(),
            shows_names: settings.shows_names,
            meters: Arc::clone(&meters),
        };
        tokio::spawn(async move {
            let served = http::serve(listener, allowed, move |path: &str| site.answer(path));
            tokio::select! {
                error = served => tracing::error!(%addr, %error, "the status page cannot be served"),
                never = meters.upkeep() => match never {},
                () = stop.cancelled() => {}
            }
        });
    }
}

/// What there is to be read.
struct Site {
    server: Weak<Inner>,
    page: Page,
    shows_names: bool,
    meters: Arc<Meters>,
}

impl Site {
    /// `None`: there is no such thing.
    fn answer(&self, path: &str) -> Option<Answer> {
        if path == "/" {
            return Some(Answer::Page(self.page.clone()));
        }
        let server = Server { inner: self.server.upgrade()? };
        let is_draining = server.inner.stop.is_cancelled();
        Some(match path {
            "/metrics" => Answer::Figures(self.meters.render(&server)),
            "/status.json" => {
                let status = view::Status::of(&server, &self.meters, self.shows_names);
                Answer::Json(serde_json::to_vec(&status).unwrap_or_default())
            }
            "/healthz" if is_draining => Answer::Unavailable("draining\n"),
            "/healthz" => Answer::Well("ok\n"),
            _ => return None,
        })
    }
}
