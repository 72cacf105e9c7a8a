//! `shiplane serve DIR`

use std::fs::{self, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use shiplane_files::SourceRoot;
use shiplane_protocols::access::{AccessControl, Grant, HostPort, PeersFile, Scope, Ticket};
use shiplane_protocols::sync::SyncState;
use shiplane_protocols::transfer::TransferOptions;
use shiplane_protocols::{Compression, FileServer, TransferMetrics, WriteLimits};
use shiplane_transport::{
    BindError, Identity, QuicTransport, RECEIVE_CREDIT_BYTES, SEND_CREDIT_BYTES, TransportConfig,
};
use tokio_util::sync::CancellationToken;

use crate::advertise;
use crate::dial::transport_config;
use crate::events::Event;
use crate::failure::Failure;
use crate::home::Home;
use crate::logging::print_line;
use crate::progress::seconds;
use crate::settings::{ServeSettings, limiter};
use crate::units::show_duration;
use crate::{runtime, signals};

pub(super) fn run(settings: ServeSettings, home: &Home) -> Result<(), Failure> {
    // A broken list would refuse everyone: better said here than found out by every peer.
    PeersFile::at(home.peers_path()).read()?;
    let access = Arc::new(AccessControl::open(&home.peers_path()));
    let root = SourceRoot::open(&settings.root).map_err(Failure::Serve)?;
    if settings.writable && !root.is_directory() {
        return Err(Failure::WritableFile);
    }
    let stop =
        signals::watch("finishing what is under way; Ctrl-C again ends at once").map_err(Failure::Runtime)?;
    runtime::run(serve(settings, home, access, root, stop))
}

async fn serve(
    settings: ServeSettings,
    home: &Home,
    access: Arc<AccessControl>,
    root: SourceRoot,
    stop: CancellationToken,
) -> Result<(), Failure> {
    let transport = Arc::new(bind(&settings, home, &access)?);
    let address = transport.local_addr().map_err(Failure::Runtime)?;
    let ticket = issue(&settings, &access, &transport, address)?;
    announce(&settings, &ticket, address)?;
    let metrics = Arc::new(TransferMetrics::new());
    let options = TransferOptions {
        rate: limiter(settings.rate),
        // As whoever asks would have it.
        compression: Compression::Always,
        metrics: Some(Arc::clone(&metrics)),
        ..TransferOptions::default()
    };
    let server = match settings.writable {
        true => {
            let state = SyncState::at(home.sync_path());
            FileServer::syncing(root, &settings.root, access, options, WriteLimits::default(), state)
        }
        false => FileServer::new(root, access, options),
    };
    server.run(transport, stop).await;
    sum_up(&metrics, settings.json)
}

/// The last word: for a program an event, for a person the report.
fn sum_up(metrics: &TransferMetrics, json: bool) -> Result<(), Failure> {
    let all = metrics.snapshot();
    tracing::info!("{all}");
    if json {
        let seconds = seconds(all.uptime);
        let event = Event::Stopped { seconds, sent: (&all.sent).into(), received: (&all.received).into() };
        return event.write_line(&mut io::stdout().lock()).map_err(Failure::Stdout);
    }
    if io::stderr().is_terminal() {
        print_line(all.to_string().trim_end());
    }
    Ok(())
}

/// Binds the port that was asked for; the default one, if that is taken, gives way to any other.
fn bind(
    settings: &ServeSettings,
    home: &Home,
    access: &Arc<AccessControl>,
) -> Result<QuicTransport, Failure> {
    let bind = |addr| -> Result<QuicTransport, Failure> {
        let identity = Identity::load_or_create(&home.identity_path())?;
        let trust = AccessControl::trust(access);
        // Whatever comes is read at once, so that no window has to be large before it is used.
        let config = TransportConfig {
            receive_budget_bytes: Some(RECEIVE_CREDIT_BYTES),
            send_budget_bytes: Some(SEND_CREDIT_BYTES),
            ..transport_config()
        };
        Ok(QuicTransport::builder().identity(identity).trust(trust).config(config).bind(addr)?)
    };
    match bind(settings.listen) {
        Err(Failure::Bind(BindError::Socket { source, .. }))
            if settings.may_change_port && source.kind() == io::ErrorKind::AddrInUse =>
        {
            bind(SocketAddr::new(settings.listen.ip(), 0))
        }
        bound => bound,
    }
}

/// Makes the ticket for all that is served.
fn issue(
    settings: &ServeSettings,
    access: &AccessControl,
    transport: &QuicTransport,
    address: SocketAddr,
) -> Result<Ticket, Failure> {
    let grant = Grant { read: true, write: settings.writable, roots: Scope::everything() };
    let secret = access.tickets().issue(grant, settings.ticket_ttl, Instant::now())?;
    let host = settings.advertise.clone().unwrap_or_else(|| advertise::host_for(address));
    let at = HostPort { host, port: address.port() };
    Ok(Ticket::for_everything(transport.peer_id(), at, secret))
}

/// Hands the ticket out: the file first, so that it is there once the line is.
fn announce(settings: &ServeSettings, ticket: &Ticket, address: SocketAddr) -> Result<(), Failure> {
    let url = ticket.to_string();
    if let Some(path) = &settings.ticket_file {
        write_private(path, &url).map_err(|source| Failure::TicketFile { path: path.clone(), source })?;
    }
    let mut out = io::stdout().lock();
    let told = if settings.json {
        let event = Event::Listening {
            ticket: url,
            peer_id: ticket.server().to_string(),
            address: address.to_string(),
            ticket_seconds: settings.ticket_ttl.as_secs(),
            writable: settings.writable,
        };
        event.write_line(&mut out)
    } else {
        writeln!(out, "{url}").and_then(|()| out.flush())
    };
    told.map_err(Failure::Stdout)?;
    tracing::info!(%address, ticket = %ticket.redacted(), "listening");
    if io::stderr().is_terminal() {
        let ttl = show_duration(settings.ticket_ttl);
        let push = if settings.writable {
            ", or shiplane push PATH... 'TICKET', or shiplane sync DIR 'TICKET'"
        } else {
            ""
        };
        print_line(&format!(
            "hint: on the other machine: shiplane get 'TICKET' [DEST]{push}; the first key to use \
             the ticket within {ttl} owns it. Ctrl-C ends."
        ));
    }
    Ok(())
}

/// Writes `url` to a file that only its owner can read, whole or not at all, in place of whatever
/// has that name.
fn write_private(path: &Path, url: &str) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = PathBuf::from(name);
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    let written = options
        .open(&temporary)
        .and_then(|mut file| writeln!(file, "{url}"))
        .and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // The first error is the one to report.
        let _ = fs::remove_file(&temporary);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_file_is_private_whatever_was_there() {
        let dir = tempfile::TempDir::new().unwrap();
        let path = dir.path().join("ticket");
        fs::write(&path, "old and much longer than the new one").unwrap();
        write_private(&path, "shiplane://x").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "shiplane://x\n");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert!(write_private(&dir.path().join("none/ticket"), "x").is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
