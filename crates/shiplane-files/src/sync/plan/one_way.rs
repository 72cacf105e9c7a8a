//! Computes the plan of a sync in one direction (SPEC 5.18).

use std::collections::{BTreeMap, BTreeSet};

use shiplane_wire::RelPath;

use super::{
    super::manifest::{Manifest, Node, Stamp, side_by_side},
    Consent, Merge, OneWay, Outcome, PlanError, Side, Why, changed, check_deletions, described, edited,
    merge_modes, with_parents,
};

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
    let (merge, kept) = wanted(base, from, at);
    if !consent.mass_deletion {
        check_deletions(to, at, &merge.merged)?;
    }
    let mut actions = Vec::new();
    merge.act(to, at, from, &mut actions);
    let common = common(base, from, &merge.merged);
    Ok(Outcome { merged: merge.merged, actions, one_way: Some(OneWay { to, common, kept }) })
}

/// What the side that takes is to have, and where it keeps a version of its own.
fn wanted<'a>(base: &'a Manifest, from: &Manifest, at: &Manifest) -> (Merge<'a>, BTreeSet<RelPath>) {
    let (mut leaves, mut directories) = (BTreeMap::<RelPath, Node>::new(), Vec::new());
    let (mut kept, mut deleted) = (BTreeSet::new(), BTreeMap::new());
    let sides = [base, from, at];
    for (path, nodes) in side_by_side(sides) {
        // Beneath a file that stays there is no room.
        let mut above = std::iter::successors(path.parent(), RelPath::parent);
        if !kept.is_empty() && above.any(|above| kept.contains(&above) && leaves.contains_key(&above)) {
            continue;
        }
        let [was, theirs, own] = nodes.map(|node| node.filter(|node| !node.is_directory()));
        let [was_directory, is_there, is_here] = nodes.map(|node| node.is_some_and(Node::is_directory));
        let (leaf, is_kept) = choose(was, theirs, own, is_there);
        if is_kept {
            kept.insert(path.clone());
        } else if is_there || is_here && !was_directory {
            directories.push((path.clone(), nodes));
        }
        let Some(leaf) = leaf else { continue };
        if let Some(was) = was.filter(|_| own.is_none() && !is_here) {
            let why = if was.is_same(&leaf) { Why::Restored } else { Why::EditOutlivesDeletion };
            deleted.insert(path.clone(), why);
        }
        leaves.insert(path.clone(), leaf);
    }
    let (above, leaves, in_the_way) = with_parents(sides, directories, leaves, stamp);
    // Files of the other side whose names directories have that stay.
    kept.extend(in_the_way.into_keys());
    let renamed = BTreeMap::new();
    (Merge { merged: described(above, leaves, sides, &renamed), renamed, deleted, base }, kept)
}

/// The rules for one file or link: what the side that takes is to have, and whether that is its own in place of the other's.
fn choose(
    was: Option<&Node>,
    theirs: Option<&Node>,
    own: Option<&Node>,
    is_directory_there: bool,
) -> (Option<Node>, bool) {
    let is_unchanged = |own: &Node| was.is_some_and(|was| was.is_same(own));
    match (theirs, own) {
        (None, None) => (None, false),
        (Some(theirs), None) => (Some(theirs.clone()), false),
        // Deleted there.
        (None, Some(own)) if is_unchanged(own) => (None, false),
        (None, Some(own)) => (Some(own.clone()), was.is_some() || is_directory_there),
        // Of mode and time, what only this side has changed stays.
        (Some(theirs), Some(own)) if theirs.is_same(own) => {
            (Some(own.with_stamp(stamp(was.map(Node::stamp), theirs.stamp(), own.stamp()))), false)
        }
        (Some(theirs), Some(own)) if is_unchanged(own) => (Some(edited(was, theirs, own)), false),
        (Some(_), Some(own)) => (Some(own.clone()), true),
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
