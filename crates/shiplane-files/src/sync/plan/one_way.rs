//! Computes the plan of a sync in one direction (SPEC 5.18).

use std::collections::{BTreeMap, BTreeSet};

use shiplane_wire::RelPath;

use super::{
    super::manifest::{FileState, LinkState, Manifest, Node, Stamp, side_by_side},
    Consent, Merge, Outcome, PlanError, Side, changed, check_deletions, describe, edited, merge_modes,
    with_parents,
};

/// What a sync in one direction leaves as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OneWay {
    /// The side that takes the other's changes. The other one is not changed.
    pub to: Side,
    /// What both have in common afterwards: the next base.
    pub common: Manifest,
    /// Where that side has a version of its own, which stays: what the other side has there, and beneath, is not taken.
    pub kept: BTreeSet<RelPath>,
}

/// Brings the changes of one side to the side `to`, which last had `base` in common with it.
///
/// What the side `to` has changed itself stays: files of its own, and also those that the other side has changed or
/// deleted too, which are named. What it has deleted comes again if the other side has it. Nothing is done on the other
/// side.
///
/// # Errors
/// [`PlanError::MassDeletion`] without consent.
pub fn plan_one_way(
    base: &Manifest,
    local: &Manifest,
    remote: &Manifest,
    to: Side,
    consent: Consent,
) -> Result<Outcome, PlanError> {
    let (from, at) = match to {
        Side::Remote => (local, remote),
        Side::Local => (remote, local),
    };
    let Wanted { merge, kept } = Wanted::of(base, from, at);
    if !consent.mass_deletion {
        check_deletions(to, at, &merge.merged)?;
    }
    let mut actions = Vec::new();
    merge.act(to, at, from, &mut actions);
    let common = common(base, from, &merge.merged);
    Ok(Outcome { merged: merge.merged, actions, one_way: Some(OneWay { to, common, kept }) })
}

/// What the side that takes is to have.
struct Wanted<'a> {
    merge: Merge<'a>,
    kept: BTreeSet<RelPath>,
}

/// What becomes of one file or link.
enum Chosen {
    Nothing,
    /// What is there stays, and nothing is amiss.
    Own(Node),
    /// What is there stays, in place of what the other side has.
    Kept(Node),
    Taken(Node),
}

impl<'a> Wanted<'a> {
    fn of(base: &'a Manifest, from: &Manifest, at: &Manifest) -> Self {
        let (mut leaves, mut directories) = (BTreeMap::<RelPath, Node>::new(), Vec::new());
        let (mut kept, mut outlived, mut restored) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        let merge = |[was, theirs, own]: [Option<Stamp>; 3]| match (theirs, own) {
            (Some(theirs), Some(own)) => stamp(was, theirs, own),
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => Stamp::UNKNOWN,
        };
        for (path, nodes) in side_by_side([base, from, at]) {
            // Beneath a file that stays there is no room.
            let mut above = std::iter::successors(path.parent(), RelPath::parent);
            if !kept.is_empty() && above.any(|above| kept.contains(&above) && leaves.contains_key(&above)) {
                continue;
            }
            let [was, theirs, own] = nodes.map(|node| node.filter(|node| !node.is_directory()));
            let [was_directory, is_there, is_here] = nodes.map(|node| node.is_some_and(Node::is_directory));
            let leaf = match choose(was, theirs, own, is_there) {
                Chosen::Nothing => None,
                Chosen::Own(leaf) => Some(leaf),
                Chosen::Kept(leaf) => {
                    kept.insert(path.clone());
                    Some(leaf)
                }
                Chosen::Taken(leaf) => {
                    if own.is_none() && !is_here && was.is_some() {
                        let is_edited = was.is_some_and(|was| !was.is_same(&leaf));
                        if is_edited { &mut outlived } else { &mut restored }.insert(path.clone());
                    }
                    Some(leaf)
                }
            };
            if let Some(leaf) = leaf {
                leaves.insert(path.clone(), leaf);
            }
            let is_kept = kept.contains(path);
            if !is_kept && (is_there || is_here && !was_directory) {
                directories.push((path.clone(), nodes));
            }
        }
        let above = with_parents([base, from, at], directories, &leaves, merge);
        // A file of the other side whose name a directory has that stays.
        let in_the_way: Vec<_> = leaves.keys().filter(|path| above.contains_key(path)).cloned().collect();
        for path in in_the_way {
            leaves.remove(&path);
            kept.insert(path);
        }
        let mut merged = Manifest::of_nodes(above.into_iter().chain(leaves), Vec::new());
        describe(&mut merged, [base, from, at], &BTreeMap::new());
        Self { merge: Merge { merged, renamed: BTreeMap::new(), outlived, restored, base }, kept }
    }
}

/// The rules for one file or link.
fn choose(was: Option<&Node>, theirs: Option<&Node>, own: Option<&Node>, is_directory_there: bool) -> Chosen {
    let is_unchanged = |own: &Node| was.is_some_and(|was| was.is_same(own));
    match (theirs, own) {
        (None, None) => Chosen::Nothing,
        (Some(theirs), None) => Chosen::Taken(theirs.clone()),
        // Deleted there.
        (None, Some(own)) if is_unchanged(own) => Chosen::Nothing,
        (None, Some(own)) if was.is_some() || is_directory_there => Chosen::Kept(own.clone()),
        (None, Some(own)) => Chosen::Own(own.clone()),
        (Some(theirs), Some(own)) if theirs.is_same(own) => Chosen::Taken(same(was, theirs, own)),
        (Some(theirs), Some(own)) if is_unchanged(own) => Chosen::Taken(edited(was, theirs, own)),
        (Some(_), Some(own)) => Chosen::Kept(own.clone()),
    }
}

/// What both have. Of mode and time, what only the side that takes has changed stays.
fn same(was: Option<&Node>, theirs: &Node, own: &Node) -> Node {
    let stamp = stamp(was.map(Node::stamp), theirs.stamp(), own.stamp());
    match own {
        Node::File(own) => Node::File(FileState { stamp, ..*own }),
        Node::Link(own) => Node::Link(LinkState { mtime: stamp.mtime, ..own.clone() }),
        Node::Directory(_) => Node::Directory(stamp),
    }
}

fn stamp(was: Option<Stamp>, theirs: Stamp, own: Stamp) -> Stamp {
    let mtime = changed(was.map(|was| was.mtime), theirs.mtime, own.mtime).unwrap_or(theirs.mtime);
    Stamp { mode: merge_modes(was, theirs, own, theirs.mode), mtime }
}

/// What both have as the side that is not changed has it; where the other one keeps its own, what was common before.
fn common(base: &Manifest, from: &Manifest, wanted: &Manifest) -> Manifest {
    let mut common = Manifest::new();
    for (path, node) in from.iter() {
        let is_common = wanted.get(path).is_some_and(|wanted| wanted.is_same(node));
        let (known, node) = if is_common { (from, Some(node)) } else { (base, base.leaf(path)) };
        // What contradicts itself is forgotten.
        if node.is_some_and(|node| common.insert(path.clone(), node.clone())) {
            common.describe(path, known.attributes(path).cloned());
        }
    }
    common
}
