//! `cargo xtask load --only hostile`: runs the real programs against peers that lie.
//!
//! A victim runs with a limit on its address space. It passes if its memory stays within its bound, it ends with the
//! exit code that fits the lie and soon enough, and where a lie has no end Ctrl-C ends it.

mod clients;
mod servers;

use std::time::Duration;

use anyhow::Result;
use xtask::units;

use super::Fixture;

/// Tells all lies to clients and to servers, prints both tables, and gives what has failed.
pub(super) fn run(fixture: &Fixture) -> Result<Vec<String>> {
    println!("  {NAME}: peers that lie, to `get` and to `serve --writable`");
    let (clients, servers) = std::thread::scope(|scope| {
        // Side by side if there is no time: the one is asleep for most of it, waiting for the other side's patience.
        let clients = scope.spawn(|| clients::run(fixture));
        if !fixture.short {
            let clients = joined(clients);
            return (clients, servers::run(fixture));
        }
        let servers = servers::run(fixture);
        (joined(clients), servers)
    });
    let (clients, servers) = (clients?, servers?);
    let mut failed = Vec::new();
    let mut rows = vec![clients::HEADING.map(str::to_owned).to_vec()];
    for (victim, outcome) in &clients {
        let verdict = outcome.verdict(victim);
        rows.push(outcome.row(victim, &verdict));
        failed.extend(verdict.err().map(|reason| format!("get, {}: {reason}", victim.lie)));
    }
    println!("\n{}", units::table(&rows));
    println!("bound {} for a client", units::bytes(CLIENT_BOUND_BYTES));
    let mut rows = vec![servers::HEADING.map(str::to_owned).to_vec()];
    for seen in &servers {
        let verdict = seen.verdict();
        rows.push(seen.row(&verdict));
        failed.extend(verdict.err().map(|reason| format!("serve, {}: {reason}", seen.name())));
    }
    println!("\n{}", units::table(&rows));
    println!("bound {} for a server; speed is only told", units::bytes(SERVER_BOUND_BYTES));
    Ok(failed)
}

fn joined<T>(thread: std::thread::ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// What `--only` calls all of it.
pub(super) const NAME: &str = "hostile";

/// Where each client and each server may be with its memory: 64 MiB, and 96 MiB with as many pushes as are taken.
const CLIENT_BOUND_BYTES: u64 = 64 << 20;
const SERVER_BOUND_BYTES: u64 = 96 << 20;

/// What a victim may map at most, so that one that is taken in harms nothing else here. Far more than its memory:
/// each thread has address space set aside.
const ADDRESS_SPACE_BYTES: u64 = 4 << 30;

/// The progress timeout of 30 s, the interval at which it is looked at, and some more.
const PATIENCE: Duration = Duration::from_secs(45);
