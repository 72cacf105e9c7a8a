//! Completes words of the command line: names of peers, and paths on their servers.
//!
//! A shell asks the program itself: it runs it with the variable [`VARIABLE`] and the words that were typed.

use std::ffi::OsStr;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clap::Command;
use clap_complete::engine::{CompletionCandidate, PathCompleter, ValueCompleter};
use clap_complete::env::{Bash, Elvish, EnvCompleter, Fish, Powershell, Zsh};
use clap_complete::{CompleteEnv, Shell};
use shiplane::{Client, EventKind, Peers};

use crate::runtime;

/// Answers a shell that asks, and ends the program then. `command` describes the command line.
pub(crate) fn answer(command: fn() -> Command) {
    CompleteEnv::with_factory(command).var(VARIABLE).complete();
}

/// The script that makes a shell ask.
pub(crate) fn script(shell: Shell) -> io::Result<Vec<u8>> {
    let shell: &dyn EnvCompleter = match shell {
        Shell::Bash => &Bash,
        Shell::Elvish => &Elvish,
        Shell::Fish => &Fish,
        Shell::PowerShell => &Powershell,
        Shell::Zsh => &Zsh,
        _ => return Err(io::ErrorKind::Unsupported.into()),
    };
    let mut script = Vec::new();
    shell.write_registration(VARIABLE, PROGRAM, PROGRAM, PROGRAM, &mut script)?;
    Ok(script)
}

/// Names of peers.
pub(crate) fn names(typed: &OsStr) -> Vec<CompletionCandidate> {
    matching(known().into_iter().map(|(name, _)| name), typed)
}

/// Codes, by their next word.
pub(crate) fn codes(typed: &OsStr) -> Vec<CompletionCandidate> {
    matching(shiplane::complete_code(typed.to_str().unwrap_or_default()).into_iter(), typed)
}

/// Servers: names of peers whose address is known, and paths on them.
pub(crate) fn servers(typed: &OsStr) -> Vec<CompletionCandidate> {
    if let Some((directory, _)) = typed.to_str().and_then(|typed| typed.rsplit_once('/')) {
        return matching(remote(directory).into_iter(), typed);
    }
    let servers = known().into_iter().filter(|(_, has_address)| *has_address);
    matching(servers.map(|(name, _)| format!("{name}/")), typed)
}

/// The same, and local paths.
pub(crate) fn servers_and_files(typed: &OsStr) -> Vec<CompletionCandidate> {
    let mut all = servers(typed);
    all.extend(PathCompleter::any().complete(typed));
    all
}

/// All peers, and whether each has an address; none where there is no list.
fn known() -> Vec<(String, bool)> {
    let peers = Peers::open().and_then(|peers| peers.list()).unwrap_or_default();
    peers.iter().map(|peer| (peer.name().to_owned(), peer.has_address())).collect()
}

/// What the server of `NAME/PATH` has there, below the same words; nothing if it does not answer soon.
fn remote(directory: &str) -> Vec<String> {
    let name = directory.split('/').next().unwrap_or_default();
    if !known().iter().any(|(known, has_address)| known == name && *has_address) {
        return Vec::new();
    }
    let found = Arc::new(Mutex::new(Vec::new()));
    let (finding, below) = (Arc::clone(&found), directory.to_owned());
    let listing = async {
        let client = Client::builder().build().await?;
        let server = client.connect(directory).await?;
        let listed = server.list("").on_progress(move |event| {
            if let (EventKind::Listed { what, .. }, Some(path)) = (&event.kind, &event.path) {
                let slash = if *what == "directory" { "/" } else { "" };
                let mut found = finding.lock().unwrap_or_else(PoisonError::into_inner);
                if found.len() < MAX_CANDIDATES {
                    found.push(format!("{below}/{path}{slash}"));
                }
            }
        });
        let listed = listed.await;
        client.close().await;
        listed
    };
    // A shell shows no error of a completion.
    let _ = runtime::run(async { tokio::time::timeout(PATIENCE, listing).await });
    let found = std::mem::take(&mut *found.lock().unwrap_or_else(PoisonError::into_inner));
    // An escaped name would not be found under what it is completed to.
    found.into_iter().filter(|path| !path.contains('\\')).collect()
}

fn matching(words: impl Iterator<Item = String>, typed: &OsStr) -> Vec<CompletionCandidate> {
    let Some(typed) = typed.to_str() else { return Vec::new() };
    let mut words: Vec<String> = words.filter(|word| word.starts_with(typed)).collect();
    words.sort_unstable();
    words.into_iter().map(CompletionCandidate::new).collect()
}

const PROGRAM: &str = "shiplane";

/// Set by the shell's script.
const VARIABLE: &str = "SHIPLANE_COMPLETE";

/// 1.5 s: longer, and a person thinks that the shell hangs.
const PATIENCE: Duration = Duration::from_millis(1500);

/// More than a person would choose from.
const MAX_CANDIDATES: usize = 1000;
