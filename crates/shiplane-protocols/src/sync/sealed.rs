//! Files of our own state: sealed by a digest, replaced whole.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use shiplane_wire::Digest;

/// What says which file it is, and of which version.
pub(super) type Magic = [u8; 16];

/// Puts `magic` before the content and SHA-256 of both behind it.
pub(super) fn seal(magic: &Magic, content: &[&[u8]]) -> Vec<u8> {
    let mut bytes = magic.to_vec();
    content.iter().for_each(|part| bytes.extend_from_slice(part));
    let check = Digest::of(&bytes);
    bytes.extend_from_slice(check.as_bytes());
    bytes
}

/// The content of what [`seal`] made, if it is that.
pub(super) fn unseal<'a>(magic: &Magic, bytes: &'a [u8]) -> Option<&'a [u8]> {
    let (sealed, check) = bytes.split_last_chunk::<{ Digest::LEN_BYTES }>()?;
    let content = sealed.strip_prefix(magic)?;
    (Digest::of(sealed).as_bytes() == check).then_some(content)
}

/// Reads a file, and not more than one byte over `max_len_bytes` of it.
pub(super) fn read(path: &Path, max_len_bytes: u64) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let mut bytes = Vec::new();
    file.take(max_len_bytes.saturating_add(1)).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Puts `bytes` in the place of the file at `path`, whose directory is created when it is missing. Whoever
/// reads sees the old content or the new one, whole; when this returns, the new one is durable.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory =
        path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    create_private_dir(directory)?;
    // Others may be saving the same file, in this process or another.
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let temporary = path.with_extension(format!("{}-{number}.tmp", std::process::id()));
    let written = write_new(&temporary, bytes).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // The first error is the one to report.
        let _ = fs::remove_file(&temporary);
    }
    written?;
    sync_directory(directory)
}

static NEXT: AtomicU64 = AtomicU64::new(0);

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = create_private(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Names and digests of files are nobody else's business.
#[cfg(unix)]
fn create_private(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)
}

#[cfg(not(unix))]
fn create_private(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).open(path)
}

#[cfg(unix)]
fn create_private_dir(directory: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)
}

#[cfg(not(unix))]
fn create_private_dir(directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)
}

#[cfg(unix)]
fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

// Directories cannot be synced there.
#[cfg(not(unix))]
fn sync_directory(_directory: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAGIC: &Magic = b"shiplane-test 1\n";

    #[test]
    fn a_file_is_replaced_whole_and_nothing_is_left_beside_it() {
        let dir = tempfile::TempDir::new().unwrap();
        let path = dir.path().join("deep/state/x.y");
        for content in [&b"one"[..], b"", b"longer than before"] {
            replace(&path, content).unwrap();
            assert_eq!(read(&path, 1000).unwrap(), content);
        }
        assert_eq!(read(&path, 3).unwrap(), b"long", "one byte tells that it is too long");
        let directory = path.parent().unwrap();
        assert_eq!(fs::read_dir(directory).unwrap().count(), 1);
        // A directory is in the way: the temporary file goes, too.
        fs::create_dir(directory.join("taken")).unwrap();
        assert!(replace(&directory.join("taken"), b"x").is_err());
        assert_eq!(fs::read_dir(directory).unwrap().count(), 2);
    }

    #[cfg(unix)]
    #[test]
    fn nobody_else_may_read_it() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::TempDir::new().unwrap();
        let path = dir.path().join("state/x");
        replace(&path, b"x").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
    }

    proptest! {
        #[test]
        fn any_flipped_bit_breaks_the_seal(content: Vec<u8>, at: prop::sample::Index, bit in 0..8) {
            let sealed = seal(MAGIC, &[&content]);
            prop_assert_eq!(unseal(MAGIC, &sealed), Some(&content[..]));
            let mut broken = sealed.clone();
            broken[at.index(sealed.len())] ^= 1_u8 << bit;
            prop_assert_eq!(unseal(MAGIC, &broken), None);
            prop_assert_eq!(unseal(MAGIC, &sealed[..at.index(sealed.len())]), None);
            prop_assert_eq!(unseal(b"shiplane-test 2\n", &sealed), None);
        }

        #[test]
        fn soup_is_not_sealed(soup: Vec<u8>) {
            prop_assert_eq!(unseal(MAGIC, &soup), None);
        }
    }
}
