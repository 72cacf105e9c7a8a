//! Removes what the destination has and the peer does not: `--delete`.

use std::io;

use shiplane_wire::{EntryKind, LeftOutReason, RelPath, limits::MAX_ESCAPED_PATH_LEN_BYTES};

use crate::{
    deletion::Deletion,
    destination::Destination,
    error::{DestinationError, Operation},
    existing::Existing,
    policy::FileEvent,
    scan::{Scan, Scanned},
};

/// What is to be removed.
#[derive(Debug, Default)]
struct Surplus {
    /// Directories before what is in them.
    paths: Vec<(RelPath, bool)>,
    files: u64,
    /// All files that are there.
    of: u64,
}

/// Whether the removal of `count` files, of the total, needs the user's consent.
pub fn is_mass_deletion(files: u64, of: u64) -> bool {
    files > MAX_DELETED_FILES || files.saturating_mul(2) > of
}

impl Destination {
    /// Something of the transfer is left out: at the peer if its path, escaped, is given. As a rule nothing is to be
    /// removed then. But of what lacks only its attributes or its other names all else is here; and a link that the peer
    /// does not send, because none are wanted, is known to be there, so that what has its name here stays.
    pub fn is_left_out(&self, reason: LeftOutReason, there: Option<&str>) {
        let Some(deletion) = self.deletion() else { return };
        // A path that is shown as it is.
        let is_plain = |path: &&str| !path.contains('\\') && path.len() < MAX_ESCAPED_PATH_LEN_BYTES / 2;
        let plain = there.filter(is_plain).and_then(|path| RelPath::parse(path.as_bytes()).ok());
        match (reason, plain) {
            (LeftOutReason::Attributes | LeftOutReason::HardLink, _) => {}
            // It has arrived, so its path is known.
            (LeftOutReason::Symlink, None) if there.is_none() => {}
            (LeftOutReason::Symlink, Some(path)) => deletion.sent(&path, self.parts.site.folds),
            _ => deletion.withhold(),
        }
    }

    /// Removes what the peer has not sent, once everything it has sent is here.
    pub(super) fn remove_surplus(&self, deletion: &Deletion) -> Result<(), DestinationError> {
        let site = &self.parts.site;
        // A single file has nothing beside it that is its own.
        if site.file.is_some() {
            return Ok(());
        }
        if deletion.is_withheld() {
            site.count(|summary| summary.is_deletion_withheld = true);
            return Ok(());
        }
        let surplus = self.surplus(deletion)?;
        if !deletion.has_consent() && is_mass_deletion(surplus.files, surplus.of) {
            let (files, of) = (surplus.files, surplus.of);
            return Err(DestinationError::MassDeletion { files, of });
        }
        for (path, is_directory) in surplus.paths.iter().rev() {
            match self.remove_one(path, *is_directory) {
                Ok(()) => {}
                // What filters exclude is in it.
                Err(DestinationError::Io { source, .. })
                    if *is_directory && source.kind() == io::ErrorKind::DirectoryNotEmpty => {}
                Err(error) => {
                    site.leave_out(None, path, error)?;
                }
            }
        }
        Ok(())
    }

    fn surplus(&self, deletion: &Deletion) -> Result<Surplus, DestinationError> {
        let site = &self.parts.site;
        deletion.check_complete()?;
        let suffix = match site.options.existing {
            Existing::BackUp(suffix) => Some(suffix),
            Existing::Refuse | Existing::Keep | Existing::Replace => None,
        };
        let mut surplus = Surplus::default();
        let mut scan = Scan::tree(&site.root().dir, self.filters.as_ref(), None);
        scan.note_own();
        while let Some(scanned) = scan.next() {
            let scanned = scanned
                .map_err(|error| site.failed_at_root(Operation::Read, io::Error::other(error.to_string())))?;
            let (path, is_directory) = match scanned {
                Scanned::Entry(entry) => (entry.path, entry.kind == EntryKind::Directory),
                Scanned::LeftOut { reason: LeftOutReason::Symlink | LeftOutReason::SpecialFile, .. } => {
                    match RelPath::parse(scan.raw_path()) {
                        Ok(path) => (path, false),
                        Err(_) => continue,
                    }
                }
                // Its content is unknown.
                Scanned::Top(_) | Scanned::LeftOut { .. } => continue,
            };
            surplus.of += u64::from(!is_directory);
            let is_backup = suffix.is_some_and(|suffix| is_backup(path.file_name(), suffix.as_bytes()));
            // A folding file system may show other names than those it was given.
            let is_foreign = site.folds && !path.as_bytes().is_ascii();
            if is_foreign || (is_backup && !is_directory) || deletion.was_sent(&path, site.folds) {
                continue;
            }
            surplus.files += u64::from(!is_directory);
            surplus.paths.push((path, is_directory));
            if surplus.paths.len() > MAX_SURPLUS_PATHS {
                return Err(DestinationError::TooManyToDelete { max: MAX_SURPLUS_PATHS });
            }
        }
        Ok(surplus)
    }

    fn remove_one(&self, path: &RelPath, is_directory: bool) -> Result<(), DestinationError> {
        let site = &self.parts.site;
        if is_directory {
            self.remove_directory(path)?;
        } else {
            if let Existing::BackUp(suffix) = site.options.existing {
                let parent = site.parent_of(path)?;
                self.parts.publisher.back_up(path, &parent, suffix)?;
            }
            // Where there are no hard links, the backup has its name instead.
            match self.remove_file(path) {
                Err(DestinationError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
                removed => removed?,
            }
            site.count(|summary| summary.deleted_files += 1);
        }
        self.on_file(path, 0, FileEvent::Removed { is_directory })
    }
}

/// Whether a name is that of a backup: it ends in the suffix, or in the suffix and a number.
fn is_backup(name: &[u8], suffix: &[u8]) -> bool {
    let digits = name.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    name.ends_with(suffix) || name[..name.len() - digits].ends_with(suffix)
}

/// 1,000: as for a sync, more than a person removes by hand.
const MAX_DELETED_FILES: u64 = 1000;

/// 100,000: some 10 MiB of usual paths.
const MAX_SURPLUS_PATHS: usize = 100_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn most_files_go_with_consent_only() {
        for (files, of, needs) in [
            (0, 0, false),
            (1, 1, true),
            (1, 2, false),
            (2, 3, true),
            (1000, 5000, false),
            (1001, 5000, true),
        ] {
            assert_eq!(is_mass_deletion(files, of), needs, "{files} of {of}");
        }
    }

    #[test]
    fn backups_are_told_by_their_names() {
        for (name, is_one) in [("a~", true), ("a~2", true), ("a", false), ("a2", false), ("~a", false)] {
            assert_eq!(is_backup(name.as_bytes(), b"~"), is_one, "{name}");
        }
    }
}
