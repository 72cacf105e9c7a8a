//! Renames that change the case of a name only, on a file system that takes both for the same.
//!
//! To such a file system the new name is there already, and to remove the old one is to remove both. So a file or
//! directory whose other spelling both sides are to have is renamed first, and planned anew as what it is then.

use std::collections::BTreeMap;
use std::sync::Arc;

use shiplane_wire::RelPath;

use super::dataset::Agreed;
use super::error::DatasetError;
use super::left::UnresolvedReason;
use super::manifest::Manifest;
use super::plan::{Action, Change, Consent, Side, Why, plan};
use super::policy::Shared;
use crate::plan::fold;

impl Agreed {
    /// Plans this side's part anew, with what is only to be spelled in another way renamed before everything else.
    pub(super) fn respell(&mut self, base: &Manifest, other: &Manifest, consent: Consent) {
        let respelled = respelled(&self.own, &self.outcome.merged);
        if respelled.is_empty() {
            return;
        }
        // What one has edited under its new name was both sides' under the old one.
        let [base, own] = [base, &self.own].map(|manifest| {
            let mut manifest = manifest.clone();
            respelled.iter().for_each(|(from, to)| manifest.respell(from, to));
            manifest
        });
        let Ok(again) = plan(&base, &own, other, consent) else { return };
        // What both are to have, and what the other side does, is agreed on.
        if again.merged != self.outcome.merged {
            return;
        }
        let renames = respelled.into_iter().map(|(from, path)| Action {
            side: Side::Local,
            path,
            change: Change::Rename { from },
            why: Why::Created,
        });
        let is_ours = |action: &Action| action.side == Side::Local;
        let theirs = std::mem::take(&mut self.outcome.actions).into_iter().filter(|action| !is_ours(action));
        self.outcome.actions =
            renames.chain(again.actions.into_iter().filter(is_ours)).chain(theirs).collect();
        self.own = own;
    }
}

/// Renames what is only spelled in another way on the other side, if it is still what was listed.
pub(super) fn rename(shared: &mut Shared, actions: &[Action]) -> Result<(), DatasetError> {
    for Action { path, change, .. } in actions {
        let Change::Rename { from } = change else { continue };
        if !shared.is_untouched(from) {
            // Neither may be removed or replaced.
            shared.left.note(path, UnresolvedReason::Changed);
            continue;
        }
        match shared.destination.respell(from, path) {
            Ok(()) => Arc::make_mut(&mut shared.seen).respell(&shared.root, from, path),
            Err(error) => {
                let why = UnresolvedReason::after(error)?;
                shared.left.note(from, why.clone());
                shared.left.note(path, why);
            }
        }
    }
    Ok(())
}

/// What of `own` the `merged` manifest has in another spelling alone, by the path that it has when those before it are
/// renamed, and its new one.
fn respelled(own: &Manifest, merged: &Manifest) -> Vec<(RelPath, RelPath)> {
    let new = merged.iter().filter(|(path, _)| own.get(path).is_none());
    let new: BTreeMap<_, _> = new.map(|(path, node)| (fold(path), (path, node))).collect();
    let mut respelled: Vec<(RelPath, RelPath)> = Vec::new();
    for (path, node) in own.iter().filter(|(path, _)| merged.get(path).is_none()) {
        let Some((to, wanted)) = new.get(&fold(path)) else { continue };
        let at = respelled.iter().fold(path.clone(), |at, (from, to)| at.moved(from, to).unwrap_or(at));
        if wanted.kind() == node.kind() && at != **to && at.parent() == to.parent() {
            respelled.push((at, (*to).clone()));
        }
    }
    respelled
}

#[cfg(test)]
mod tests {
    use std::fs;

    use shiplane_wire::{Digest, DigestAlgorithm, Mtime};
    use tempfile::TempDir;

    use super::super::base::SyncState;
    use super::super::dataset::{Dataset, Site, SiteOptions};
    use super::super::manifest::{FileState, Node, Stamp};
    use super::super::scan::ScanOptions;
    use super::super::work::Prepared;
    use super::*;
    use crate::{buffers::SharedMemory, policy::LinkPolicy, source::SourceRoot};

    fn path(path: &str) -> RelPath {
        RelPath::parse(path.as_bytes()).unwrap()
    }

    /// `path=content` is a file, `path/` a directory.
    fn manifest(text: &str) -> Manifest {
        let mut manifest = Manifest::new();
        for item in text.split_whitespace() {
            let stamp = Stamp { mode: 0o644, mtime: Mtime { secs: 1, nanos: 0 } };
            let (name, node) = match item.split_once('=') {
                Some((name, content)) => {
                    let digest = Digest::blake3(content.as_bytes());
                    let size_bytes = content.len() as u64;
                    (name, Node::File(FileState { size_bytes, digest, stamp }))
                }
                None => (item.trim_end_matches('/'), Node::Directory(Stamp { mode: 0o755, ..stamp })),
            };
            assert!(manifest.insert(path(name), node), "{item}");
        }
        manifest
    }

    fn agreed(base: &str, own: &str, other: &str) -> Agreed {
        let consent = Consent { mass_deletion: true };
        let [base, own, other] = [base, own, other].map(manifest);
        Agreed::on(&base, &own, &other, std::iter::empty(), None, consent, true).unwrap()
    }

    fn ours(agreed: &Agreed) -> Vec<String> {
        let ours = agreed.actions().iter().filter(|action| action.side == Side::Local);
        ours.map(|Action { path, change, .. }| format!("{path}: {change:?}")).collect()
    }

    #[test]
    fn a_name_in_another_case_is_a_rename_and_nothing_is_removed_or_taken() {
        let was = "File=x Dir/ Dir/Sub/ Dir/Sub/a=a Dir/b=b";
        let agreed = agreed(was, was, "file=x dir/ dir/Sub/ dir/Sub/a=a dir/B=b");
        assert_eq!(
            ours(&agreed),
            [
                "dir: Rename { from: \"Dir\" }",
                "dir/B: Rename { from: \"dir/b\" }",
                "file: Rename { from: \"File\" }",
            ]
        );
        assert_eq!(agreed.merged(), &manifest("file=x dir/ dir/Sub/ dir/Sub/a=a dir/B=b"));
    }

    #[test]
    fn one_that_was_edited_as_well_is_renamed_and_then_taken() {
        let agreed = agreed("File=x", "File=x", "file=y");
        assert_eq!(ours(&agreed), ["file: Rename { from: \"File\" }", "file: Take { from: \"file\" }",]);
    }

    #[test]
    fn names_that_both_sides_have_in_two_spellings_or_kinds_are_not_renamed() {
        for (base, own, other) in [
            ("", "File=x", "file=y"),
            ("File=x", "File=edited", "file=x"),
            ("File=x", "File=x", "file/"),
            ("a=x", "a=x", "b=x"),
        ] {
            assert!(
                !ours(&agreed(base, own, other)).iter().any(|ours| ours.contains("Rename")),
                "{own} {other}"
            );
        }
    }

    #[test]
    fn the_rename_is_made_before_everything_else_and_loses_nothing() {
        let (temp, state) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        let at = |name: &str| temp.path().join(name);
        fs::create_dir_all(at("Dir/Sub")).unwrap();
        fs::write(at("Dir/Sub/a"), "a").unwrap();
        fs::write(at("File"), "x").unwrap();
        let root = SourceRoot::open(temp.path()).unwrap();
        let options = SiteOptions {
            digest: DigestAlgorithm::Blake3,
            links: LinkPolicy::All,
            attributes: false,
            chunk_len_bytes: 1000,
        };
        let site =
            Site::to_change(&root, b"", &[1; 32], options, SharedMemory::default(), &|_| true).unwrap();
        let state = SyncState::at(state.path().to_owned());
        let dataset =
            Dataset::open(Some(site), b"here", &[1; 32], &state, &ScanOptions::default(), None).unwrap();
        let view = dataset.view().unwrap();
        let own = (*view.manifest).clone();
        let mut other = own.clone();
        other.respell(&path("Dir"), &path("dir"));
        other.respell(&path("File"), &path("file"));
        let unlisted = std::iter::empty;
        let agreed = Agreed::on(&own, &own, &other, unlisted(), None, Consent::default(), true).unwrap();
        let prepared = Prepared::new(view, agreed).unwrap();
        assert!(prepared.destination().is_none(), "nothing is to come");
        let (left, _) = prepared.finish(Vec::new()).unwrap();
        assert!(left.is_empty(), "{left:?}");
        assert_eq!(fs::read_to_string(at("dir/Sub/a")).unwrap(), "a");
        assert_eq!(fs::read_to_string(at("file")).unwrap(), "x");
        assert!(!at("Dir").exists() && !at("File").exists());
    }
}
