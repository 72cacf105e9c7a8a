//! Rules of a sync in one direction.

use super::*;

const CONSENT: Consent = Consent { mass_deletion: true };

/// In both roles, which come to the same.
fn pushed(base: &Manifest, from: &Manifest, at: &Manifest) -> Outcome {
    let outcome = plan_one_way(base, from, at, Side::Remote, CONSENT).unwrap();
    let got = plan_one_way(base, at, from, Side::Local, CONSENT).unwrap();
    let mirrored = OneWay { to: Side::Local, ..outcome.one_way.clone().unwrap() };
    assert_eq!((&got.merged, got.one_way.unwrap()), (&outcome.merged, mirrored));
    assert!(outcome.actions.iter().all(|action| action.side == Side::Remote), "{:?}", outcome.actions);
    let now = apply(Side::Remote, at, from, &outcome);
    assert_eq!(now.len(), outcome.merged.len());
    for (path, node) in outcome.merged.iter() {
        assert!(now[path].is_same(node), "{path}");
        assert!(node.is_directory() || !now[path].stamp().has_other_mode(node.stamp()), "{path}");
    }
    outcome
}

fn kept(outcome: &Outcome) -> Vec<String> {
    outcome.one_way.iter().flat_map(|one_way| &one_way.kept).map(ToString::to_string).collect()
}

#[test]
fn changes_go_one_way_and_what_the_other_side_has_of_its_own_stays() {
    let outcome = pushed(
        &manifest("edited=1 deleted=1 same=1 gone=1 d/x=1 theirs=1"),
        &manifest("edited=2 new/file=1 same=1 gone=1 theirs=1"),
        &manifest("edited=1 deleted=1 same=1 own=1 d/x=1 d/own=1 theirs=2"),
    );
    let expected = "edited=2 new/file=1 same=1 own=1 gone=1 d/own=1 theirs=2";
    assert_eq!(outcome.merged, manifest(expected));
    assert_eq!(kept(&outcome), ["theirs"]);
    let told: Vec<_> = outcome.actions.iter().map(|action| (action.path.to_string(), action.why)).collect();
    let told = |path: &str| told.iter().find(|(told, _)| told == path).map(|(_, why)| *why);
    assert_eq!(told("gone"), Some(Why::Restored));
    assert_eq!(told("deleted"), Some(Why::Deleted));
    assert_eq!(told("new/file"), Some(Why::Created));
    let common = &outcome.one_way.as_ref().unwrap().common;
    assert_eq!(*common, manifest("edited=2 new/file=1 same=1 gone=1 theirs=1"));
}

#[test]
fn a_conflict_keeps_the_version_of_the_side_that_takes() {
    for (base, from, at) in [
        ("f=1", "f=2", "f=3"),
        // They never met.
        ("", "f=2", "f=3"),
        // Deleted there, edited here.
        ("f=1", "", "f=3"),
    ] {
        let outcome = pushed(&manifest(base), &manifest(from), &manifest(at));
        assert_eq!(outcome.merged, manifest("f=3"), "{base} {from} {at}");
        assert_eq!((kept(&outcome), outcome.actions), (vec!["f".to_owned()], Vec::new()));
    }
}

#[test]
fn what_is_of_another_kind_and_its_own_is_in_the_way_and_named() {
    // A file of its own where the other side has a directory: nothing of that comes.
    let outcome = pushed(&manifest("y=1"), &manifest("x/a=1 x/b/c=1 y=2"), &manifest("x=own y=1"));
    assert_eq!((kept(&outcome), &outcome.merged), (vec!["x".to_owned()], &manifest("x=own y=2")));
    // A directory with something of its own where the other side has a file.
    let outcome = pushed(&manifest("x/a=1"), &manifest("x=2"), &manifest("x/a=1 x/own=1"));
    assert_eq!((kept(&outcome), &outcome.merged), (vec!["x".to_owned()], &manifest("x/own=1")));
    // Nothing of its own: it follows.
    let outcome = pushed(&manifest("x/a=1 y=1"), &manifest("x=2 y/b=1"), &manifest("x/a=1 y=1"));
    assert_eq!((kept(&outcome), &outcome.merged), (vec![], &manifest("x=2 y/b=1")));
}

#[test]
fn a_mass_deletion_in_one_direction_needs_consent() {
    let (all, none) = (manifest("a=1 b=2 c=3"), Manifest::new());
    let refused = plan_one_way(&all, &none, &all, Side::Remote, Consent::default()).unwrap_err();
    assert_eq!(refused, PlanError::MassDeletion { side: Side::Remote, deleted: 3, files: 3 });
    // What is gone at the side that takes comes again: nothing is lost.
    let outcome = plan_one_way(&all, &all, &none, Side::Remote, Consent::default()).unwrap();
    assert_eq!(outcome.merged, all);
}

proptest! {
    #[test]
    fn one_direction_loses_nothing_of_the_side_that_takes_and_settles(
        base in any_manifest(),
        from in any_manifest(),
        at in any_manifest(),
    ) {
        let outcome = pushed(&base, &from, &at);
        let one_way = outcome.one_way.as_ref().unwrap();
        for (path, leaf) in leaves(&at) {
            let is_own = base.leaf(path).is_none_or(|was| !was.is_same(leaf));
            let is_there = outcome.merged.get(path).is_some_and(|node| node.is_same(leaf));
            prop_assert!(!is_own || is_there, "{} is lost", path);
        }
        // What does not come is named, or in something that is.
        for (path, leaf) in leaves(&from) {
            let mut above = std::iter::successors(Some(path.clone()), RelPath::parent);
            let is_there = outcome.merged.get(path).is_some_and(|node| node.is_same(leaf));
            prop_assert!(is_there || above.any(|path| one_way.kept.contains(&path)), "{} is not told", path);
        }
        // And then there is nothing more to do.
        let again = pushed(&one_way.common, &from, &outcome.merged);
        prop_assert_eq!(&again.actions, &[]);
        let forgets = |path: &&RelPath| from.get(path).is_none();
        let still: Vec<_> = one_way.kept.iter().filter(|path| !forgets(path)).collect();
        let kept_again = again.one_way.unwrap().kept;
        prop_assert_eq!(kept_again.iter().collect::<Vec<_>>(), still);
    }
}
