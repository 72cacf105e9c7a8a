//! `shiplane peers add|list|nearby|remove`

use std::io::{self, Write};
use std::time::Duration;

use shiplane::{KnownPeer, Peers};

use crate::args::{PeersAdd, PeersCommand};
use crate::failure::Failure;
use crate::logging::print_line;
use crate::runtime;

pub(super) fn run(command: PeersCommand) -> Result<(), Failure> {
    let peers = Peers::open()?;
    match command {
        PeersCommand::Add(args) => add(&peers, &args),
        PeersCommand::List => list(&peers),
        PeersCommand::Nearby { wait } => nearby(&peers, wait),
        PeersCommand::Remove { name } => remove(&peers, &name),
    }
}

fn add(peers: &Peers, args: &PeersAdd) -> Result<(), Failure> {
    let name = &args.name;
    let mut peer = KnownPeer::new(name, args.id)?;
    if args.read {
        peer = peer.read();
    }
    if args.write {
        peer = peer.write();
    }
    for path in &args.paths {
        peer = peer.below(path.as_encoded_bytes())?;
    }
    for at in &args.at {
        peer = peer.at(at)?;
    }
    let before = peers.add(&peer)?;
    print_line(&match before {
        None => format!("added {name}"),
        Some(before) if before != peer => format!("changed {name}"),
        Some(_) => format!("{name} is in the list already"),
    });
    if peer.is_name_only() && args.at.is_empty() {
        print_line(&format!(
            "hint: {name} has no permissions here yet; run shiplane peers add {name} PEERID --read to permit \
             get, with --write to permit push"
        ));
    }
    Ok(())
}

fn list(peers: &Peers) -> Result<(), Failure> {
    let known = peers.list()?;
    if known.is_empty() {
        print_line("no peers yet; hint: run shiplane peers add NAME PEERID --read");
    }
    let mut out = io::stdout().lock();
    for peer in &known {
        // The lines of the file itself: what is shown can be pasted there.
        writeln!(out, "{peer}").map_err(Failure::Stdout)?;
    }
    Ok(())
}

/// A line for each server: its id, its addresses, and its name if it is a known peer.
fn nearby(peers: &Peers, wait: Duration) -> Result<(), Failure> {
    let found = runtime::run(Peers::nearby(wait)).map_err(Failure::Runtime)??;
    if found.is_empty() {
        print_line(
            "no servers found; hint: run shiplane serve DIR --announce there, and check that multicast passes",
        );
    }
    let known = peers.list()?;
    let mut out = io::stdout().lock();
    for (id, addresses) in &found {
        let name = known.iter().find(|peer| peer.id() == *id).map_or("-", |peer| peer.name());
        writeln!(out, "{id} {addresses} {name}").map_err(Failure::Stdout)?;
    }
    Ok(())
}

fn remove(peers: &Peers, name: &str) -> Result<(), Failure> {
    let peer = peers.remove(name)?;
    print_line(&format!("removed {name} ({})", peer.id()));
    Ok(())
}
