//! Service managers such as systemd: the socket that they pass, and the states that a server reports.

use std::convert::Infallible;
use std::io;
use std::net::UdpSocket;

/// The socket that the manager holds for this program (`LISTEN_FDS`), so that nothing is lost while it is restarted.
#[cfg(unix)]
pub(crate) fn socket() -> io::Result<Option<UdpSocket>> {
    let Some(socket) = listenfd::ListenFd::from_env().take_udp_socket(0)? else { return Ok(None) };
    socket.set_nonblocking(true)?;
    Ok(Some(socket))
}

#[cfg(not(unix))]
pub(crate) fn socket() -> io::Result<Option<UdpSocket>> {
    Ok(None)
}

/// Tells the manager, if there is one, how far the program is (`NOTIFY_SOCKET`).
pub(crate) fn tell(state: State) {
    #[cfg(unix)]
    {
        use sd_notify::NotifyState;
        let state = match state {
            State::Ready => NotifyState::Ready,
            State::Reloading => NotifyState::Reloading,
            State::Stopping => NotifyState::Stopping,
        };
        // It is no reason to stop that the manager does not listen.
        if let Err(error) = sd_notify::notify(&[state]) {
            tracing::debug!(%error, "the service manager was not told");
        }
    }
    #[cfg(not(unix))]
    let _ = state;
}

/// How far a service is.
#[derive(Debug, Clone, Copy)]
pub(crate) enum State {
    Ready,
    Reloading,
    Stopping,
}

/// SIGHUP, from now on. With a terminal the signal means that it was closed, and ends the program as ever.
pub(crate) struct Hangups {
    #[cfg(unix)]
    signal: Option<tokio::signal::unix::Signal>,
}

impl Hangups {
    #[cfg(unix)]
    pub(crate) fn new() -> Self {
        use std::io::IsTerminal as _;
        use tokio::signal::unix::{SignalKind, signal};
        let has_terminal =
            io::stdin().is_terminal() || io::stdout().is_terminal() || io::stderr().is_terminal();
        Self { signal: if has_terminal { None } else { signal(SignalKind::hangup()).ok() } }
    }

    #[cfg(not(unix))]
    pub(crate) fn new() -> Self {
        Self {}
    }

    /// Calls `reload` at each.
    pub(crate) async fn each(self, reload: impl Fn()) -> Infallible {
        #[cfg(unix)]
        if let Some(mut signal) = self.signal {
            while signal.recv().await.is_some() {
                tell(State::Reloading);
                tracing::info!("reading the peers and tickets again");
                reload();
                tell(State::Ready);
            }
        }
        #[cfg(not(unix))]
        drop(reload);
        std::future::pending().await
    }
}
