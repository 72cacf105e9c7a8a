//! `shiplane peers add|list|remove`

use std::io::{self, Write};

use shiplane_protocols::access::{Grant, PeerName, PeersFile, Scope, StandingPeer};

use crate::args::{PeersAdd, PeersCommand};
use crate::failure::Failure;
use crate::home::Home;
use crate::logging::print_line;

pub(super) fn run(command: PeersCommand, home: &Home) -> Result<(), Failure> {
    let file = PeersFile::at(home.peers_path());
    match command {
        PeersCommand::Add(args) => add(&file, args),
        PeersCommand::List => list(&file),
        PeersCommand::Remove { name } => remove(&file, &name),
    }
}

fn add(file: &PeersFile, args: PeersAdd) -> Result<(), Failure> {
    let peer = StandingPeer { grant: grant(&args)?, name: args.name, id: args.id };
    let before = file.add(&peer)?;
    let name = &peer.name;
    print_line(&match before {
        None => format!("added {name}"),
        Some(before) if before != peer => format!("changed the rights of {name}"),
        Some(_) => format!("{name} is there already, with these rights"),
    });
    if peer.grant.is_none() {
        print_line(&format!(
            "hint: {name} may be dialled by name and has no rights here; to let it fetch: \
             shiplane peers add {name} PEERID --read; to let it push: --write"
        ));
    }
    Ok(())
}

fn grant(args: &PeersAdd) -> Result<Grant, Failure> {
    let (read, write) = (args.read, args.write);
    if !(read || write) {
        return Ok(Grant::none());
    }
    if args.roots.is_empty() {
        return Ok(Grant { read, write, roots: Scope::everything() });
    }
    let roots: Result<_, Failure> = args.roots.iter().try_fold(Scope::nothing(), |roots, typed| {
        // `/photos/`, `photos` and `/photos` are one thing to a person.
        let path = typed.as_encoded_bytes();
        let path = path.strip_prefix(b"/").unwrap_or(path);
        let path = path.strip_suffix(b"/").unwrap_or(path);
        Ok(roots.and(Scope::below(path).map_err(Failure::Root)?))
    });
    roots.map(|roots| Grant { read, write, roots })
}

fn list(file: &PeersFile) -> Result<(), Failure> {
    let peers = file.read()?;
    if peers.is_empty() {
        print_line("no peers yet; hint: shiplane peers add NAME PEERID --read");
    }
    let mut out = io::stdout().lock();
    for peer in &peers {
        // The lines of the file itself: what is shown can be pasted there.
        writeln!(out, "{peer}").map_err(Failure::Stdout)?;
    }
    Ok(())
}

fn remove(file: &PeersFile, name: &PeerName) -> Result<(), Failure> {
    let peer = file.remove(name)?;
    print_line(&format!("removed {name} ({})", peer.id));
    Ok(())
}
