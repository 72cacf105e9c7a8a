//! `shiplane ticket new|list|revoke`

use std::io::{self, Write};

use shiplane::{TicketBuilder, Tickets};

use crate::args::{TicketCommand, TicketNew, TicketUses};
use crate::failure::Failure;
use crate::logging::print_line;
use crate::qr;
use crate::settings::{DEFAULT_LISTEN, check_ttl};

pub(super) fn run(command: TicketCommand) -> Result<(), Failure> {
    let tickets = Tickets::open()?;
    match command {
        TicketCommand::New(args) => new(&tickets, args),
        TicketCommand::List => list(&tickets),
        TicketCommand::Revoke { id } => {
            let revoked = tickets.revoke(&id)?;
            print_line(&format!("revoked {revoked}"));
            Ok(())
        }
    }
}

/// How many clients may use it, as the library takes it.
pub(super) fn with_uses(ticket: TicketBuilder, uses: TicketUses) -> TicketBuilder {
    match uses {
        TicketUses::Clients(clients) => ticket.uses(clients),
        TicketUses::Any => ticket.any_uses(),
    }
}

fn new(tickets: &Tickets, args: TicketNew) -> Result<(), Failure> {
    check_ttl(args.ticket_ttl)?;
    let ticket = tickets.create(&args.root, &args.at, DEFAULT_LISTEN[0])?;
    let ticket = ticket.read().valid_for(args.ticket_ttl);
    let ticket = if args.writable { ticket.write() } else { ticket };
    let ticket = match &args.path {
        Some(path) => ticket.below(path.as_encoded_bytes()),
        None => ticket,
    };
    let ticket = with_uses(ticket, args.ticket_uses).create()?;
    writeln!(io::stdout().lock(), "{ticket}").map_err(Failure::Stdout)?;
    if args.qr {
        qr::print(&ticket.to_string());
    }
    Ok(())
}

fn list(tickets: &Tickets) -> Result<(), Failure> {
    let valid = tickets.list()?;
    if valid.is_empty() {
        print_line("no tickets are valid; hint: shiplane serve prints one, and shiplane ticket new DIR");
    }
    let mut out = io::stdout().lock();
    for ticket in &valid {
        writeln!(out, "{ticket}").map_err(Failure::Stdout)?;
    }
    Ok(())
}
