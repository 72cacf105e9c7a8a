//! What is offered to the server: a path, or standard input put aside.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use shiplane_files::{Shape, Source, SourceRoot};
use shiplane_protocols::PushRequest;

use crate::failure::Failure;
use crate::settings::{PushSettings, Pushed};

/// A source, and what the server is told of it.
pub(super) struct Offer {
    pub(super) source: Source,
    pub(super) request: PushRequest,
}

impl Offer {
    /// Opens what is to be pushed to `target`; of standard input, reads all there is.
    pub(super) async fn of(pushed: &Pushed, target: &[u8], settings: &PushSettings) -> Result<Self, Failure> {
        let (pushed, target) = (pushed.clone(), target.to_vec());
        let opening = tokio::task::spawn_blocking(move || match pushed {
            Pushed::Stdin => stdin(&target),
            Pushed::Path(ref path) => of_path(path, pushed.name().map(name_bytes), target),
        });
        let opened = opening.await.map_err(|_| Failure::Interrupted)??;
        let Opened { source, path, name, total_bytes, source_name } = opened;
        let request = PushRequest {
            path,
            name,
            total_bytes,
            overwrite: settings.overwrite,
            chunk_len_bytes: settings.chunk_len_bytes,
            promise: settings.durability.promise(),
            source_name,
        };
        Ok(Self { source, request })
    }
}

struct Opened {
    source: Source,
    path: Vec<u8>,
    name: Option<Vec<u8>>,
    total_bytes: Option<u64>,
    source_name: Vec<u8>,
}

/// Blocking. The absolute path names the source for a later run, wherever that is started from.
fn of_path(path: &Path, name: Option<Vec<u8>>, target: Vec<u8>) -> Result<Opened, Failure> {
    let source = SourceRoot::open(path).and_then(|root| root.resolve(b"")).map_err(Failure::Source)?;
    let total_bytes = match source.shape() {
        Shape::File { .. } => path.metadata().ok().map(|found| found.len()),
        // To know it, all would have to be listed first.
        Shape::Directory { .. } | Shape::Root => None,
    };
    let absolute = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let source_name = absolute.into_os_string().into_encoded_bytes();
    Ok(Opened { source, path: target, name, total_bytes, source_name })
}

/// Blocking. Its length must be known, and parts of it may have to be sent again: so all of it is put
/// into a file that has no name and goes away with this program.
fn stdin(target: &[u8]) -> Result<Opened, Failure> {
    let (path, name) = match target.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&target[..at], &target[at + 1..]),
        None => (&target[..0], target),
    };
    let (file, total_bytes) = spool(io::stdin().lock()).map_err(Failure::Spool)?;
    let source = Source::of_open_file(file, name).map_err(Failure::Source)?;
    let source_name = b"-".to_vec();
    Ok(Opened { source, path: path.to_vec(), name: None, total_bytes: Some(total_bytes), source_name })
}

fn spool(mut input: impl Read) -> io::Result<(File, u64)> {
    let mut file = tempfile::tempfile()?;
    let total_bytes = io::copy(&mut input, &mut file)?;
    Ok((file, total_bytes))
}

/// The wire's names are bytes; on platforms where they are not, they are UTF-8.
fn name_bytes(name: &std::ffi::OsStr) -> Vec<u8> {
    name.as_encoded_bytes().to_vec()
}
