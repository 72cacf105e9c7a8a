//! `shiplane peers add|list|remove`

use std::io::{self, Write};

use shiplane::{KnownPeer, Peers};

use crate::args::{PeersAdd, PeersCommand};
use crate::failure::Failure;
use crate::logging::print_line;

pub(super) fn run(command: PeersCommand) -> Result<(), Failure> {
    let peers = Peers::open()?;
    match command {
        PeersCommand::Add(args) => add(&peers, &args),
        PeersCommand::List => list(&peers),
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

fn remove(peers: &Peers, name: &str) -> Result<(), Failure> {
    let peer = peers.remove(name)?;
    print_line(&format!("removed {name} ({})", peer.id()));
    Ok(())
}
