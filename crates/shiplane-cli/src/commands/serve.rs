//! `shiplane serve DIR`

use std::convert::Infallible;
use std::io::{self, IsTerminal, Write};
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::time::Duration;

use indicatif::BinaryBytes;
use shiplane::{Server, Stats};
use tokio_util::sync::CancellationToken;

use super::ticket;
#[cfg(feature = "status")]
use crate::args::MetricsArgs;
use crate::args::TicketUses;
use crate::board::SessionBoard;
use crate::events::{Event, Totals, seconds};
use crate::failure::Failure;
use crate::logging::{is_capable, print_line};
use crate::progress::count;
use crate::service::{self, Hangups, State};
use crate::settings::{OutputMode, ServeSettings};
use crate::units::show_duration;
use crate::{memory, qr, runtime, signals};

pub(super) fn run(settings: ServeSettings) -> Result<(), Failure> {
    memory::share_heaps();
    let stop =
        signals::watch("finishing running transfers; press Ctrl-C again to stop now", signals::DRAIN_LIMIT)
            .map_err(Failure::Runtime)?;
    runtime::run(serve(settings, stop)).map_err(Failure::Runtime)?
}

/// Serves what standard input asks for, until that ends. Signals end it at once, without a drain.
pub(super) fn over_ssh() -> Result<(), Failure> {
    runtime::run(async { Ok(shiplane::serve_over_ssh().await?) }).map_err(Failure::Runtime)?
}

async fn serve(settings: ServeSettings, stop: CancellationToken) -> Result<(), Failure> {
    let server = bind(&settings).await?;
    announce(&settings, &server)?;
    let hangups = Hangups::new();
    service::tell(State::Ready);
    let running = server.run_until(async {
        stop.cancelled().await;
        service::tell(State::Stopping);
    });
    let board = async {
        match settings.output_mode == OutputMode::Human && is_capable() {
            true => SessionBoard::new().watch(&server).await,
            false => std::future::pending().await,
        }
    };
    tokio::select! {
        ended = running => ended?,
        never = board => match never {},
        never = hangups.each(|| server.reload()) => match never {},
        never = stay_small(&server) => match never {},
    }
    sum_up(&server.stats(), settings.output_mode)
}

/// Gives back what is free whenever the server has nothing to do: else it would stay as large as it ever was.
async fn stay_small(server: &Server) -> Infallible {
    loop {
        server.rested().await;
        memory::give_back();
    }
}

/// Reports the totals: as an event, or on a terminal as text.
fn sum_up(stats: &Stats, output_mode: OutputMode) -> Result<(), Failure> {
    tracing::info!("{stats}");
    if output_mode == OutputMode::Json {
        let sent =
            Totals { completed: stats.sent_transfers, failed: stats.sent_failures, bytes: stats.sent_bytes };
        let received = Totals {
            completed: stats.received_transfers,
            failed: stats.received_failures,
            bytes: stats.received_bytes,
        };
        let event = Event::Stopped { seconds: seconds(stats.uptime), sent, received };
        return event.write_line(&mut io::stdout().lock()).map_err(Failure::Stdout);
    }
    if output_mode == OutputMode::Human && io::stderr().is_terminal() {
        print_line(&in_words(stats));
    }
    Ok(())
}

/// What a server has done, in one line.
fn in_words(stats: &Stats) -> String {
    let failures = stats.sent_failures + stats.received_failures;
    let failures = if failures == 0 { String::new() } else { format!(", {failures} ended early") };
    format!(
        "served for {}: {} sent in {}, {} received in {}{failures}",
        show_duration(stats.uptime),
        BinaryBytes(stats.sent_bytes),
        count(stats.sent_transfers, "transfer"),
        BinaryBytes(stats.received_bytes),
        count(stats.received_transfers, "transfer"),
    )
}

async fn bind(settings: &ServeSettings) -> Result<Server, Failure> {
    let bind = |addresses: Vec<SocketAddr>, socket: Option<UdpSocket>| async move {
        let mut builder = Server::builder(&settings.root).foreground(true);
        if settings.writable {
            let clean_after = Some(settings.clean_after).filter(|age| *age < Duration::MAX);
            builder = builder.writable().all_links(settings.all_links);
            builder = builder.attributes(settings.attributes).clean_after(clean_after);
        }
        if let Some(rate) = settings.rate {
            builder = builder.rate(rate.get());
        }
        if settings.announce {
            builder = builder.announce();
        }
        for address in &settings.advertise {
            builder = builder.advertise(address);
        }
        if settings.drain < Duration::MAX {
            builder = builder.drain_limit(settings.drain);
        }
        #[cfg(feature = "status")]
        {
            let MetricsArgs { metrics, metrics_host, metrics_names } = &settings.metrics;
            if let Some(addr) = metrics {
                let with_addr = builder.metrics(*addr).metrics_names(*metrics_names);
                builder = metrics_host.iter().fold(with_addr, |builder, host| builder.metrics_host(host));
            }
        }
        match socket {
            Some(socket) => builder.bind_socket(socket).await,
            None => builder.bind(&addresses[..]).await,
        }
    };
    if let Some(socket) = service::socket().map_err(Failure::Runtime)? {
        return Ok(bind(Vec::new(), Some(socket)).await?);
    }
    Ok(settings.listen.bind(|addresses| bind(addresses, None)).await?)
}

/// Where the server is shown over HTTP.
fn shown_at(server: &Server) -> Option<SocketAddr> {
    #[cfg(feature = "status")]
    return server.metrics_addr();
    #[cfg(not(feature = "status"))]
    return Some(server).and(None);
}

/// Says who can read what is shown, if that is not only this machine.
fn announce_metrics(settings: &ServeSettings, addr: SocketAddr) {
    tracing::info!(%addr, "status page");
    if !addr.ip().is_loopback() {
        print_line(&format!(
            "warning: the status page at {addr} has no password: anyone who can connect sees the peers and their transfers"
        ));
    } else if settings.output_mode != OutputMode::Quiet && io::stderr().is_terminal() {
        print_line(&format!(
            "hint: the status page is http://{addr}/, the figures for Prometheus are at /metrics"
        ));
    }
}

/// Writes the ticket to its file, then prints it: who reads the line finds the file.
fn announce(settings: &ServeSettings, server: &Server) -> Result<(), Failure> {
    let ticket =
        ticket::with_uses(server.ticket(), settings.ticket_uses).read().valid_for(settings.ticket_ttl);
    let ticket = if settings.writable { ticket.write() } else { ticket }.create()?;
    let address = server.local_addr();
    let url = ticket.to_string();
    if let Some(path) = &settings.ticket_file {
        write_private(path, &url).map_err(|source| Failure::TicketFile { path: path.clone(), source })?;
    }
    let mut out = io::stdout().lock();
    let told = if settings.output_mode == OutputMode::Json {
        let event = Event::Listening {
            ticket: url,
            peer_id: server.id().to_string(),
            address: address.to_string(),
            ticket_seconds: settings.ticket_ttl.as_secs(),
            writable: settings.writable,
            metrics: shown_at(server).map(|addr| addr.to_string()),
        };
        event.write_line(&mut out)
    } else {
        writeln!(out, "{url}").and_then(|()| out.flush())
    };
    told.map_err(Failure::Stdout)?;
    tracing::info!(%address, ticket = %ticket.redacted(), "listening");
    if settings.qr {
        qr::print(&ticket.to_string());
    }
    if settings.output_mode != OutputMode::Quiet && io::stderr().is_terminal() {
        let ttl = show_duration(settings.ticket_ttl);
        let push = if settings.writable { " (or push PATH... 'TICKET', or sync DIR 'TICKET')" } else { "" };
        let clients = match settings.ticket_uses {
            TicketUses::Clients(1) => "one client".to_owned(),
            TicketUses::Clients(clients) => format!("{clients} clients"),
            TicketUses::Any => "any client".to_owned(),
        };
        print_line(&format!(
            "hint: run on the other machine: shiplane get 'TICKET' [DEST]{push}. The ticket is for {clients} \
             and expires in {ttl}. Press Ctrl-C to stop."
        ));
    }
    if let Some(addr) = shown_at(server) {
        announce_metrics(settings, addr);
    }
    // Who names a loopback address knows.
    if ticket.is_for_this_machine_only() && address.ip().is_unspecified() && settings.advertise.is_empty() {
        print_line(
            "warning: this machine has no address but loopback, so the ticket is of use here only; give --advertise HOST",
        );
    }
    Ok(())
}

/// Writes `url` atomically to a file that only its owner can read, and replaces any file of that name.
fn write_private(path: &Path, url: &str) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let mut file = tempfile::NamedTempFile::new_in(directory.unwrap_or_else(|| Path::new(".")))?;
    writeln!(file, "{url}")?;
    file.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

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
