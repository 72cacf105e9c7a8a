//! Rules of the plan, and properties: both sides agree, end up equal, and lose nothing.

use proptest::prelude::*;
use shiplane_wire::Mtime;

use super::*;

fn path(text: &str) -> RelPath {
    RelPath::parse(text.as_bytes()).unwrap()
}

/// A file whose content is `content`, written at that time.
fn file_at(content: &str, secs: i64) -> Node {
    let digest = Digest::blake3(content.as_bytes());
    Node::File(FileState { size_bytes: content.len() as u64, digest, mtime: Mtime { secs, nanos: 0 } })
}

/// `path=content` is a file, `path/` a directory.
fn manifest(text: &str) -> Manifest {
    let mut manifest = Manifest::new();
    for item in text.split_whitespace() {
        let inserted = match item.split_once('=') {
            Some((name, content)) => manifest.insert(path(name), file_at(content, 0)),
            None => manifest.insert(path(item.trim_end_matches('/')), Node::Directory),
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
fn apply(side: Side, own: &Manifest, other: &Manifest, actions: &[Action]) -> BTreeMap<RelPath, Node> {
    let mut now: BTreeMap<_, _> = own.iter().map(|(path, node)| (path.clone(), *node)).collect();
    for Action { path, change, .. } in actions.iter().filter(|action| action.side == side) {
        let has_parent = path.parent().is_none_or(|parent| now.get(&parent) == Some(&Node::Directory));
        match change {
            Change::KeepAs { from } => {
                assert!(has_parent && !now.contains_key(path), "{path}");
                now.insert(path.clone(), now[from]);
            }
            Change::RemoveFile => assert!(now.remove(path).unwrap().file().is_some(), "{path}"),
            Change::RemoveDirectory => {
                assert_eq!(now.remove(path), Some(Node::Directory), "{path}");
                assert!(!now.keys().any(|child| child.parent().as_ref() == Some(path)), "{path} is empty");
            }
            Change::CreateDirectory => {
                assert!(has_parent && now.insert(path.clone(), Node::Directory).is_none(), "{path}");
            }
            Change::Take { from } => {
                assert!(has_parent, "{path}");
                let replaced = now.insert(path.clone(), Node::File(*other.file(from).unwrap()));
                assert_ne!(replaced, Some(Node::Directory), "{path}");
            }
        }
    }
    now
}

fn check(local: &Manifest, remote: &Manifest, outcome: &Outcome) {
    for (side, own, other) in [(Side::Local, local, remote), (Side::Remote, remote, local)] {
        let now = apply(side, own, other, &outcome.actions);
        assert_eq!(now.len(), outcome.merged.len());
        for ((path, node), (expected_path, expected)) in now.iter().zip(outcome.merged.iter()) {
            assert!(path == expected_path && node.is_same(expected), "{path} {expected_path}");
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
    prop::collection::vec((name, 0u8..5, 0i64..3), 0..8).prop_map(|items| {
        let mut manifest = Manifest::new();
        for (name, content, secs) in items {
            let node = match content {
                0 => Node::Directory,
                content => file_at(&content.to_string(), secs),
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
    Outcome { merged: outcome.merged.clone(), actions }
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
        let kept: HashSet<_> = outcome.merged.files().map(|(_, file)| file.digest).collect();
        for side in [&local, &remote] {
            for (path, file) in side.files() {
                let is_new = base.file(path).is_none_or(|was| was.digest != file.digest);
                prop_assert!(!is_new || kept.contains(&file.digest), "{} is lost", path);
            }
        }
        // And then there is nothing more to do.
        let merged = &outcome.merged;
        prop_assert_eq!(plan(merged, merged, merged, Consent::default()).unwrap().actions, []);
    }
}
