//! The arguments of `serve`.

use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::common::{TicketUses, parse_limit, parse_patience, parse_uses};
use crate::units::parse_duration;

#[derive(Debug, Args)]
#[command(override_usage = "shiplane serve [OPTIONS] <DIR>")]
pub(crate) struct ServeArgs {
    /// Directory or file to serve; read-only without --writable
    #[arg(value_name = "DIR", required_unless_present = "stdio_ticket")]
    pub(crate) root: Option<PathBuf>,
    /// Serve the path that standard input asks for; for `shiplane` on another machine, which starts this by ssh
    #[arg(long, exclusive = true, hide = true)]
    pub(crate) stdio_ticket: bool,
    /// Accept push and sync; the ticket then permits writing too
    #[arg(long)]
    pub(crate) writable: bool,
    /// Create all symbolic links that peers push, even those that lead out of the pushed tree
    #[arg(long, requires = "writable")]
    pub(crate) all_links: bool,
    /// Accept owners, access lists and extended attributes from peers that push or sync with --attributes
    #[arg(long, requires = "writable")]
    pub(crate) attributes: bool,
    /// Remove temporary files of interrupted pushes after TIME without a change, e.g. 12h, or `never`
    #[arg(long, value_name = "TIME", requires = "writable", default_value = "7d", value_parser = parse_patience)]
    pub(crate) clean_after: Duration,
    /// UDP address to listen on [default: [::]:7514, IPv4 and IPv6, or any free port if that is taken]
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Option<SocketAddr>,
    /// HOST or HOST:PORT in the ticket; repeat for several, which clients try in this order [default: up to four
    /// addresses of this machine]
    #[arg(long, value_name = "HOST")]
    pub(crate) advertise: Vec<String>,
    /// Ticket lifetime, e.g. 90s, 1h or 7d
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = parse_duration)]
    pub(crate) ticket_ttl: Duration,
    /// How many clients may use the ticket, each any number of times, or `any`
    #[arg(long, value_name = "N", default_value = "1", value_parser = parse_uses)]
    pub(crate) ticket_uses: TicketUses,
    /// Also write the ticket to FILE, readable only by its owner
    #[arg(long, value_name = "FILE")]
    pub(crate) ticket_file: Option<PathBuf>,
    /// Also show the ticket as a QR code
    #[arg(long)]
    pub(crate) qr: bool,
    /// Let `shiplane peers nearby` on the local network see this server's key and addresses
    #[arg(long)]
    pub(crate) announce: bool,
    /// Bandwidth limit per direction, e.g. 10MB or 80Mbit [default: no limit]
    #[arg(long, value_name = "RATE", value_parser = parse_limit)]
    pub(crate) rate: Option<NonZeroU64>,
    /// Cut off transfers that have not ended TIME after SIGTERM or Ctrl-C, e.g. 10m, or `never`
    #[arg(long, value_name = "TIME", default_value = "never", value_parser = parse_patience)]
    pub(crate) drain: Duration,
    #[cfg(feature = "status")]
    #[command(flatten)]
    pub(crate) metrics: MetricsArgs,
    /// Send DIR, which must be a file, to every Octopii node that connects; WITHOUT AUTHENTICATION
    #[cfg(feature = "octopii")]
    #[arg(long, conflicts_with_all = ["writable", "advertise", "ticket_ttl", "ticket_file", "rate", "drain", "json"])]
    pub(crate) insecure_octopii: bool,
    /// Print one JSON event per line; the first contains the ticket
    #[arg(long, conflicts_with = "quiet")]
    pub(crate) json: bool,
    /// Print the ticket and errors only; do not show connections and jobs
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// What is shown over HTTP.
#[cfg(feature = "status")]
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(crate) struct MetricsArgs {
    /// Offer metrics for Prometheus (/metrics), a status page (/) and /healthz over HTTP at PORT of 127.0.0.1, or at ADDR:PORT
    #[arg(long, value_name = "PORT", value_parser = parse_metrics)]
    #[cfg_attr(feature = "octopii", arg(conflicts_with = "insecure_octopii"))]
    pub(crate) metrics: Option<SocketAddr>,
    /// Further host name that a request for --metrics may contain; repeat for several
    #[arg(long, value_name = "HOST", requires = "metrics")]
    pub(crate) metrics_host: Vec<String>,
    /// Show file names on the status page too
    #[arg(long, requires = "metrics")]
    pub(crate) metrics_names: bool,
}

/// A port alone is one of loopback: an address that others reach must be given in full.
#[cfg(feature = "status")]
fn parse_metrics(text: &str) -> Result<SocketAddr, String> {
    let text = text.strip_prefix("localhost:").unwrap_or(text);
    if let Ok(port) = text.parse::<u16>() {
        return Ok(SocketAddr::from(([127, 0, 0, 1], port)));
    }
    text.parse()
        .map_err(|_| "give a port, as in 9514, or an IP address and a port, as in 192.0.2.7:9514".to_owned())
}

#[cfg(all(test, feature = "status"))]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_on_loopback_unless_an_address_is_given() {
        for (typed, expected) in [
            ("9514", "127.0.0.1:9514"),
            ("localhost:0", "127.0.0.1:0"),
            ("[::1]:9514", "[::1]:9514"),
            ("0.0.0.0:80", "0.0.0.0:80"),
        ] {
            assert_eq!(parse_metrics(typed).unwrap().to_string(), expected);
        }
        for typed in ["", "example.org:80", "70000", "127.0.0.1", ":80"] {
            assert!(parse_metrics(typed).is_err(), "{typed}");
        }
    }
}
