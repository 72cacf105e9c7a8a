//! Rules of the plan, and properties: both sides agree, end up equal, and lose nothing.

use proptest::prelude::*;
use shiplane_wire::{LinkTarget, Mtime};

use super::super::manifest::LinkState;
use super::*;

mod one_way;

const DIRECTORY: Node = Node::Directory(Stamp::UNKNOWN);

fn path(text: &str) -> RelPath {
    RelPath::parse(text.as_bytes()).unwrap()
}

/// A file whose content is `content`, written at that time.
fn file_at(content: &str, secs: i64) -> Node {
    let digest = Digest::blake3(content.as_bytes());
    let stamp = Stamp { mode: 0o644, mtime: Mtime { secs, nanos: 0 } };
    Node::File(FileState { size_bytes: content.len() as u64, digest, stamp })
}

fn link_at(target: &str, secs: i64) -> Node {
    let target = LinkTarget::parse(target.as_bytes()).unwrap();
    Node::Link(LinkState { target, mtime: Mtime { secs, nanos: 0 } })
}

fn with_mode(node: Node, mode: u8) -> Node {
    let Node::File(file) = node else { return node };
    // One of them is unknown.
    let mode = if mode == 2 { Stamp::UNKNOWN_MODE } else { 0o600 + u32::from(mode) };
    Node::File(FileState { stamp: Stamp { mode, ..file.stamp }, ..file })
}

fn leaves(manifest: &Manifest) -> impl Iterator<Item = (&RelPath, &Node)> {
    manifest.iter().filter(|(_, node)| !node.is_directory())
}

/// `path=content` is a file, `path/` a directory.
fn manifest(text: &str) -> Manifest {
    let mut manifest = Manifest::new();
    for item in text.split_whitespace() {
        let inserted = match item.split_once('=') {
            Some((name, content)) => manifest.insert(path(name), file_at(content, 0)),
            None => manifest.insert(path(item.trim_end_matches('/')), DIRECTORY),
        };
        assert!(inserted, "{item}");
    }
    manifest
}

fn agreed(base: &str, local: &str, remote: &str) -> Outcome {
    let consent = Consent { mass_deletion: true };
    let outcome = plan(&manifest(base), &manifest(local), &manifest(remote), consent).unwrap();
    check(&manifest(local), &manifest(remote), &outcome);
    outcome
}

/// Does what the plan says, step by step, and checks that each step can be done.
fn apply(side: Side, own: &Manifest, other: &Manifest, outcome: &Outcome) -> BTreeMap<RelPath, Node> {
    let mut now: BTreeMap<_, _> = own.iter().map(|(path, node)| (path.clone(), node.clone())).collect();
    for Action { path, change, .. } in outcome.actions.iter().filter(|action| action.side == side) {
        let is_directory = |node: Option<&Node>| node.is_some_and(Node::is_directory);
        let has_parent = path.parent().is_none_or(|parent| is_directory(now.get(&parent)));
        let merged = outcome.merged.get(path).cloned();
        match change {
            Change::KeepAs { from } => {
                assert!(has_parent && !now.contains_key(path), "{path}");
                now.insert(path.clone(), now[from].clone());
            }
            Change::RemoveFile => assert!(!now.remove(path).unwrap().is_directory(), "{path}"),
            Change::CreateLink => {
                assert!(has_parent, "{path}");
                let replaced = now.insert(path.clone(), merged.unwrap());
                assert!(!is_directory(replaced.as_ref()), "{path}");
            }
            Change::RemoveDirectory => {
                assert!(is_directory(now.remove(path).as_ref()), "{path}");
                assert!(!now.keys().any(|child| child.parent().as_ref() == Some(path)), "{path} is empty");
            }
            Change::CreateDirectory => {
                assert!(has_parent && now.insert(path.clone(), merged.unwrap()).is_none(), "{path}");
            }
            Change::Rename { .. } => panic!("only a side that folds names is told to"),
            Change::SetMetadata => {
                let merged = merged.unwrap();
                assert!(now[path].is_same(&merged) && now[path] != merged, "{path}");
                now.insert(path.clone(), merged);
            }
            Change::Take { from } => {
                assert!(has_parent, "{path}");
                assert!(other.get(from).unwrap().is_same(merged.as_ref().unwrap()), "{path}");
                let replaced = now.insert(path.clone(), merged.unwrap());
                assert!(!is_directory(replaced.as_ref()), "{path}");
            }
        }
    }
    now
}

fn check(local: &Manifest, remote: &Manifest, outcome: &Outcome) {
    let conflicts: Vec<_> =
        outcome.actions.iter().filter(|action| matches!(action.change, Change::KeepAs { .. })).collect();
    for (side, own, other) in [(Side::Local, local, remote), (Side::Remote, remote, local)] {
        let now = apply(side, own, other, outcome);
        assert_eq!(now.len(), outcome.merged.len());
        for ((path, node), (expected_path, expected)) in now.iter().zip(outcome.merged.iter()) {
            assert!(path == expected_path && node.is_same(expected), "{path} {expected_path}");
            // Times of directories are set without a word; a copy gets what both are to have as it is made.
            let is_copy = conflicts.iter().any(|action| action.path == *path);
            match (node.file(), expected.file()) {
                (Some(file), Some(expected)) if !is_copy => {
                    let (found, wanted) = (file.stamp, expected.stamp);
                    assert!(!found.has_other_mode(wanted) && found.mtime == wanted.mtime, "{path}");
                }
                (Some(_), _) => {}
                (None, _) if !node.is_directory() => assert_eq!(node, expected, "{path}"),
                (None, _) => assert!(!node.stamp().has_other_mode(expected.stamp()), "{path}"),
            }
        }
    }
}

#[test]
fn what_one_side_has_done_is_done_on_the_other() {
    let outcome =
        agreed("kept=1 edited=1 deleted=1 d/", "kept=1 edited=2 new/file=1", "kept=1 edited=1 deleted=1 d/");
    assert_eq!(outcome.merged, manifest("kept=1 edited=2 new/file=1"));
    let told: Vec<_> = outcome.actions.iter().map(|a| (a.side, a.path.to_string(), a.why)).collect();
    let remote = |path: &str, why| (Side::Remote, path.to_owned(), why);
    let expected = [
        remote("deleted", Why::Deleted),
        remote("d", Why::Deleted),
        remote("new", Why::Created),
        remote("edited", Why::Edited),
        remote("new/file", Why::Created),
    ];
    assert_eq!(told, expected);
}

#[test]
fn equal_sides_have_nothing_to_do_whatever_was_before() {
    let outcome = agreed("a=1 b=1", "a=2 c/d=3", "a=2 c/d=3");
    assert_eq!(outcome.actions, []);
    assert_eq!(manifest("a=2 c/d=3").digest(), outcome.merged.digest());
}

#[test]
fn sides_that_never_met_lose_nothing() {
    let outcome = agreed("", "a=1 same=1", "b=1 same=1");
    assert_eq!(outcome.merged, manifest("a=1 b=1 same=1"));
}

#[test]
fn of_two_edits_both_stay_and_the_later_one_keeps_its_name() {
    let (base, mut local, mut remote) = (manifest("f.txt=1"), Manifest::new(), Manifest::new());
    local.insert(path("f.txt"), file_at("ours", 7));
    remote.insert(path("f.txt"), file_at("theirs", 9));
    let outcome = plan(&base, &local, &remote, Consent::default()).unwrap();
    check(&local, &remote, &outcome);
    assert_eq!(outcome.merged.get(&path("f.txt")), Some(&file_at("theirs", 9)));
    let name = format!("f.conflict-{}.txt", &Digest::blake3(b"ours").to_string()[..12]);
    assert_eq!(outcome.merged.get(&path(&name)), Some(&file_at("ours", 7)));
    let kept = Action {
        side: Side::Local,
        path: path(&name),
        change: Change::KeepAs { from: path("f.txt") },
        why: Why::BothEdited,
    };
    assert_eq!(outcome.actions[0], kept);
}

#[test]
fn a_conflict_whose_name_is_taken_gets_another() {
    let hex = Digest::blake3(b"2").to_string();
    let taken = format!("f.conflict-{}=x", &hex[..12]);
    let (ours, theirs) = if Digest::blake3(b"2").as_bytes() < Digest::blake3(b"3").as_bytes() {
        ("2", "3")
    } else {
        ("3", "2")
    };
    let hex = Digest::blake3(ours.as_bytes()).to_string();
    let taken = if ours == "2" { taken } else { format!("f.conflict-{}=x", &hex[..12]) };
    let outcome =
        agreed(&format!("f=1 {taken}"), &format!("f={ours} {taken}"), &format!("f={theirs} {taken}"));
    let name = format!("f.conflict-{}-1", &hex[..12]);
    assert!(outcome.merged.get(&path(&name)).is_some_and(|node| node.is_same(&file_at(ours, 0))));
}

#[test]
fn a_conflict_that_was_cut_in_the_middle_is_not_kept_twice() {
    let (older, newer) = if Digest::blake3(b"2").as_bytes() < Digest::blake3(b"3").as_bytes() {
        ("2", "3")
    } else {
        ("3", "2")
    };
    let name = format!("f.conflict-{}", &Digest::blake3(older.as_bytes()).to_string()[..12]);
    let kept = format!("f={older} {name}={older}");
    let merged = manifest(&format!("f={newer} {name}={older}"));
    assert_eq!(agreed("f=1", &kept, &format!("f={newer}")).merged, merged);
    assert_eq!(agreed("f=1", &kept, &format!("f={newer} {name}={older}")).merged, merged);
    // Not if it is about to be deleted under that name.
    let outcome = agreed(&format!("f=1 {name}={older}"), &kept, &format!("f={newer}"));
    assert!(outcome.merged.files().any(|(_, file)| file.digest == Digest::blake3(older.as_bytes())));
}

#[test]
fn an_edit_outlives_a_deletion_and_keeps_the_directories_above_it() {
    let outcome = agreed("d/e/f=1 d/g=1", "", "d/e/f=2 d/g=1");
    assert_eq!(outcome.merged, manifest("d/e/f=2"));
    assert!(outcome.actions.iter().any(|action| action.why == Why::EditOutlivesDeletion));
}

#[test]
fn a_file_gives_way_to_a_directory_and_neither_is_lost() {
    let name = format!("x.conflict-{}", &Digest::blake3(b"mine").to_string()[..12]);
    let outcome = agreed("", "x=mine", "x/y=theirs");
    assert_eq!(outcome.merged, manifest(&format!("x/y=theirs {name}=mine")));
    // Only one side has turned it into the other kind: that is an edit like any other.
    assert_eq!(agreed("x=1", "x=1", "x/y=1").merged, manifest("x/y=1"));
    assert_eq!(agreed("x/y=1", "x=2", "x/y=1").merged, manifest("x=2"));
}

#[test]
fn a_file_gives_way_to_an_empty_directory_as_well() {
    let name = format!("a.conflict-{}", &Digest::blake3(b"2").to_string()[..12]);
    let outcome = agreed("a/", "a=2", "a/b/");
    assert_eq!(outcome.merged, manifest(&format!("a/b/ {name}=2")));
}

#[test]
fn a_mass_deletion_needs_consent() {
    let many = |files: std::ops::Range<u32>| {
        let mut manifest = Manifest::new();
        for i in files {
            manifest.insert(path(&format!("d/{i}")), file_at(&i.to_string(), 0));
        }
        manifest
    };
    let refuse = |base: &Manifest, local: &Manifest| plan(base, local, base, Consent::default()).unwrap_err();
    let (all, most) = (many(0..10), many(0..4));
    let refused = PlanError::MassDeletion { side: Side::Remote, deleted: 6, files: 10 };
    assert_eq!(refuse(&all, &most), refused);
    assert!(plan(&all, &many(0..5), &all, Consent::default()).is_ok(), "a half is not more than a half");
    let consented = plan(&all, &most, &all, Consent { mass_deletion: true }).unwrap();
    check(&most, &all, &consented);
    let all = many(0..5000);
    let refused = PlanError::MassDeletion { side: Side::Remote, deleted: 1001, files: 5000 };
    assert_eq!(refuse(&all, &many(0..3999)), refused);
    assert!(plan(&all, &many(0..4000), &all, Consent::default()).is_ok());
}

#[test]
fn a_renamed_directory_is_no_mass_deletion() {
    let (before, after) = (manifest("old/a=1 old/b=2"), manifest("new/a=1 new/b=2"));
    let outcome = plan(&before, &after, &before, Consent::default()).unwrap();
    assert_eq!(outcome.merged, after);
}

/// Few names and contents, so that all kinds of collisions happen.
fn any_manifest() -> impl Strategy<Value = Manifest> {
    let name = "[ab](/[ab]){0,2}";
    prop::collection::vec((name, 0u8..5, 0i64..3, 0u8..3), 0..8).prop_map(|items| {
        let mut manifest = Manifest::new();
        for (name, content, secs, mode) in items {
            let node = match content {
                0 => Node::Directory(Stamp { mode: 0o700 + u32::from(mode), ..Stamp::UNKNOWN }),
                4 => link_at(if mode == 0 { "x" } else { "y" }, secs),
                content => with_mode(file_at(&content.to_string(), secs), mode),
            };
            manifest.insert(path(&name), node);
        }
        manifest
    })
}

fn mirrored(outcome: &Outcome) -> Outcome {
    let (there, here): (Vec<_>, Vec<_>) =
        outcome.actions.iter().cloned().partition(|action| action.side == Side::Local);
    let mut actions = here;
    actions.extend(there);
    actions.iter_mut().for_each(|action| action.side = action.side.other());
    Outcome { merged: outcome.merged.clone(), actions, one_way: None }
}

proptest! {
    #[test]
    fn both_sides_agree_become_equal_and_lose_nothing(
        base in any_manifest(),
        local in any_manifest(),
        remote in any_manifest(),
    ) {
        let consent = Consent { mass_deletion: true };
        let outcome = plan(&base, &local, &remote, consent).unwrap();
        check(&local, &remote, &outcome);
        prop_assert_eq!(&mirrored(&plan(&base, &remote, &local, consent).unwrap()), &outcome);
        // Whatever was written since the base is somewhere.
        let content = |node: &Node| (node.kind(), node.content_digest());
        let kept: HashSet<_> = leaves(&outcome.merged).map(|(_, leaf)| content(leaf)).collect();
        for side in [&local, &remote] {
            for (path, leaf) in leaves(side) {
                let is_new = base.get(path).is_none_or(|was| !was.is_same(leaf));
                prop_assert!(!is_new || kept.contains(&content(leaf)), "{} is lost", path);
            }
        }
        // And then there is nothing more to do.
        let merged = &outcome.merged;
        prop_assert_eq!(plan(merged, merged, merged, Consent::default()).unwrap().actions, []);
    }
}

/// The owner, and an extended attribute with that value.
fn described(text: &str, user: u32, value: &str) -> Manifest {
    let mut manifest = manifest(text);
    let owners = [Principal { id: user, name: b"" }; 2];
    let extended = [(&b"user.x"[..], value.as_bytes())];
    let attributes = Attributes::new(owners, [&[], &[]], extended.into_iter());
    let paths: Vec<_> = manifest.iter().map(|(path, _)| path.clone()).collect();
    paths.iter().for_each(|path| manifest.describe(path, attributes.clone()));
    manifest
}

#[test]
fn attributes_that_one_side_has_changed_count_and_take_no_content() {
    const UNKNOWN: u32 = Principal::UNKNOWN.id;
    let was = described("f=x d/", 1, "old");
    for (ours, theirs, user, value, sides) in [
        (described("f=x d/", 1, "new"), was.clone(), 1, "new", &[Side::Remote][..]),
        (was.clone(), described("f=x d/", 2, "old"), 2, "old", &[Side::Local]),
        // Of two that changed at once the longer one.
        (described("f=x d/", 1, "longer"), described("f=x d/", 1, "short"), 1, "longer", &[Side::Remote]),
        // Who may not give files away has no say of owners, and is not asked to.
        (described("f=x d/", UNKNOWN, "new"), described("f=x d/", 3, "old"), 3, "new", &[Side::Remote]),
        (described("f=x d/", UNKNOWN, "old"), was.clone(), 1, "old", &[]),
        // Where they are not known they do not count.
        (manifest("f=x d/"), described("f=x d/", 1, "new"), 1, "new", &[]),
    ] {
        let outcome = plan(&was, &ours, &theirs, Consent::default()).unwrap();
        let mirrored_too = plan(&was, &theirs, &ours, Consent::default()).unwrap();
        assert_eq!(mirrored(&mirrored_too), outcome);
        assert_eq!(outcome.merged, described("f=x d/", user, value));
        let changes: Vec<_> = outcome.actions.iter().map(|action| (action.side, &action.change)).collect();
        let expected: Vec<_> = sides.iter().flat_map(|side| [(*side, &Change::SetMetadata); 2]).collect();
        assert_eq!(changes, expected, "{user} {value}");
    }
}

#[test]
fn both_versions_of_a_conflict_keep_their_attributes() {
    for [of_ours, of_theirs] in [["short", "much longer"], ["much longer", "short"]] {
        let (ours, theirs) = (described("f=ours", 1, of_ours), described("f=theirs", 2, of_theirs));
        let merged = plan(&Manifest::new(), &ours, &theirs, Consent::default()).unwrap().merged;
        assert_eq!(leaves(&merged).count(), 2);
        for (path, leaf) in leaves(&merged) {
            let is_ours = leaf.content_digest() == Digest::blake3(b"ours");
            let expected = if is_ours { &ours } else { &theirs };
            let (_, expected) =
                expected.iter().map(|(path, _)| (path, expected.attributes(path))).next().unwrap();
            assert_eq!(merged.attributes(path), expected, "{path}");
        }
    }
}

fn with(mode: u32, secs: i64) -> Node {
    let Node::File(file) = file_at("content", secs) else { panic!("a file") };
    Node::File(FileState { stamp: Stamp { mode, mtime: Mtime { secs, nanos: 0 } }, ..file })
}

fn one(node: Node) -> Manifest {
    let mut manifest = Manifest::new();
    manifest.insert(path("x"), node);
    manifest
}

#[test]
fn a_mode_or_time_that_one_side_has_changed_is_set_on_the_other_and_no_content_goes() {
    const NONE: u32 = Stamp::UNKNOWN_MODE;
    for (base, local, remote, merged) in [
        ((0o644, 1), (0o755, 1), (0o644, 1), (0o755, 1)),
        ((0o644, 1), (0o644, 5), (0o644, 1), (0o644, 5)),
        // Backwards as well.
        ((0o644, 9), (0o644, 5), (0o600, 9), (0o600, 5)),
        // Both: the later one counts.
        ((0o644, 1), (0o600, 2), (0o640, 3), (0o640, 3)),
        ((0o644, 1), (0o640, 1), (0o600, 1), (0o600, 1)),
        // A file system without modes has no say in them.
        ((0o644, 1), (NONE, 1), (0o755, 1), (0o755, 1)),
        ((0o644, 1), (NONE, 2), (0o644, 1), (0o644, 2)),
    ] {
        let [base, local, remote, merged] =
            [base, local, remote, merged].map(|(mode, secs)| one(with(mode, secs)));
        let outcome = plan(&base, &local, &remote, Consent::default()).unwrap();
        check(&local, &remote, &outcome);
        assert_eq!(outcome.merged, merged);
        let is_metadata = |action: &Action| action.change == Change::SetMetadata;
        assert!(outcome.actions.iter().all(is_metadata), "{:?}", outcome.actions);
    }
}

#[test]
fn a_mode_is_kept_when_the_other_side_edits_the_content() {
    let (base, local) = (one(with(0o644, 1)), one(with(0o700, 1)));
    let Node::File(edited) = file_at("edited", 7) else { panic!("a file") };
    let outcome = plan(&base, &local, &one(Node::File(edited)), Consent::default()).unwrap();
    let expected = FileState { stamp: Stamp { mode: 0o700, ..edited.stamp }, ..edited };
    assert_eq!(outcome.merged.file(&path("x")), Some(&expected));
    // A deletion does not yield to another mode.
    let outcome = plan(&base, &local, &Manifest::new(), Consent { mass_deletion: true }).unwrap();
    assert!(outcome.merged.is_empty());
}

#[test]
fn directories_have_modes_and_times_too_and_a_cut_sync_does_not_make_them_later() {
    let directory = |mode, secs| one(Node::Directory(Stamp { mode, mtime: Mtime { secs, nanos: 0 } }));
    let merged = |base: &Manifest, local, remote| plan(base, &local, &remote, Consent::default()).unwrap();
    let outcome = merged(&directory(0o755, 1), directory(0o700, 1), directory(0o755, 8));
    assert_eq!(outcome.merged, directory(0o700, 8));
    let told: Vec<_> = outcome.actions.iter().map(|action| (action.side, action.change.clone())).collect();
    assert_eq!(told, [(Side::Remote, Change::SetMetadata)]);
    // A bit that gives no right does not make a mode the looser one.
    for (one, other, both) in [(0o2700, 0o755, 0o2700), (0o1770, 0o2707, 0o3700)] {
        for (local, remote) in [(one, other), (other, one)] {
            let outcome = merged(&Manifest::new(), directory(local, 5), directory(remote, 5));
            assert_eq!(outcome.merged, directory(both, 5));
        }
    }
    let outcome = merged(&Manifest::new(), directory(0o755, 5), directory(0o755, 100));
    assert_eq!((outcome.merged, outcome.actions), (directory(0o755, 5), Vec::new()));
}

#[test]
fn links_are_merged_like_files_and_no_content_goes() {
    let name = format!("x.conflict-{}", &Digest::blake3(b"ours").to_string()[..12]);
    let outcome = plan(
        &one(link_at("was", 0)),
        &one(link_at("ours", 1)),
        &one(link_at("theirs", 2)),
        Consent::default(),
    );
    let outcome = outcome.unwrap();
    let mut merged = one(link_at("theirs", 2));
    merged.insert(path(&name), link_at("ours", 1));
    assert_eq!(outcome.merged, merged);
    let is_take = |action: &Action| matches!(action.change, Change::Take { .. });
    assert!(!outcome.actions.iter().any(is_take));
    assert_eq!(outcome.actions[0].change, Change::KeepAs { from: path("x") });
    check(&one(link_at("ours", 1)), &one(link_at("theirs", 2)), &outcome);
    // A deletion, a link in place of a file, and a directory in place of a link.
    let file = || one(file_at("content", 0));
    for (base, local, remote, merged) in [
        (one(link_at("a", 0)), Manifest::new(), one(link_at("a", 0)), Manifest::new()),
        (file(), one(link_at("a", 1)), file(), one(link_at("a", 1))),
        (one(link_at("a", 0)), one(DIRECTORY), one(link_at("a", 0)), one(DIRECTORY)),
    ] {
        let outcome = plan(&base, &local, &remote, Consent { mass_deletion: true }).unwrap();
        check(&local, &remote, &outcome);
        assert_eq!(outcome.merged, merged);
    }
}
