//! Files edited during a sync: the edit stays, and the next sync includes it.

use std::{
    fs,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use shiplane_files::internals::sync::{Side, UnresolvedReason};
use shiplane_protocols::internals::sync::{
    LeftPath, SyncEvent, SyncEventFn, SyncJob, SyncReport, synchronise,
};
use shiplane_rpc::RpcClient;
use shiplane_wire::LeftOutReason;

use super::{admitted, contents, job, sync, write, written_at};
use crate::harness::{World, noise, tree};

/// Does `what` once, when both sides have been listed and nothing has been done.
fn once_planned(what: impl FnOnce() + Send + 'static) -> SyncEventFn {
    let what = Mutex::new(Some(what));
    Arc::new(move |event| {
        if let SyncEvent::Planned(_) = event {
            let what = what.lock().unwrap().take();
            what.into_iter().for_each(|what| what());
        }
    })
}

async fn sync_while(world: &World, client: &RpcClient, what: impl FnOnce() + Send + 'static) -> SyncReport {
    synchronise(client, &job(world), once_planned(what)).await.unwrap()
}

async fn base() -> (World, RpcClient) {
    let world = World::syncing();
    for name in ["a", "b", "c", "d/e", "d/f"] {
        write(&world.dest(), name, &noise(name.len() as u64, 3000));
    }
    let client = admitted(&world).await;
    sync(&world, &client).await;
    (world, client)
}

/// Both sides' paths, with the side that left them and its words; ours first.
fn left(report: &SyncReport) -> Vec<(String, Side, String)> {
    let told = |left: &LeftPath| (left.path.to_string(), left.side, left.why.to_string());
    let mut left: Vec<_> = report.left.iter().map(told).collect();
    left.sort_by(|one, other| one.0.cmp(&other.0));
    left
}

fn here(path: &str, why: UnresolvedReason) -> (String, Side, String) {
    (path.to_owned(), Side::Local, why.to_string())
}

fn there(path: &str) -> (String, Side, String) {
    (
        path.to_owned(),
        Side::Remote,
        UnresolvedReason::LeftThere(LeftOutReason::Changed, "".into()).to_string(),
    )
}

#[tokio::test]
async fn a_file_edited_during_a_sync_is_not_replaced_and_then_both_versions_stay() {
    let (world, client) = base().await;
    write(&world.source(), "a", b"theirs");
    let here = world.dest();
    let report = sync_while(&world, &client, move || write(&here, "a", b"ours, meanwhile")).await;
    assert_eq!(left(&report), [self::here("a", UnresolvedReason::Changed)]);
    assert_eq!(fs::read(world.dest().join("a")).unwrap(), b"ours, meanwhile");
    assert_eq!(fs::read(world.source().join("a")).unwrap(), b"theirs");
    sync(&world, &client).await;
    assert!(contents(&world.source()).contains(&b"theirs".to_vec()));
    assert!(contents(&world.source()).contains(&b"ours, meanwhile".to_vec()));
}

#[tokio::test]
async fn a_file_edited_during_a_sync_is_not_removed_and_outlives_the_deletion() {
    let (world, client) = base().await;
    fs::remove_file(world.dest().join("a")).unwrap();
    fs::remove_dir_all(world.dest().join("d")).unwrap();
    let there = world.source();
    let meanwhile = move || {
        write(&there, "a", b"edited");
        write(&there, "d/new", b"new");
    };
    let report = sync_while(&world, &client, meanwhile).await;
    let not_empty = UnresolvedReason::LeftThere(LeftOutReason::NotEmpty, "".into()).to_string();
    assert_eq!(left(&report), [self::there("a"), ("d".to_owned(), Side::Remote, not_empty)]);
    sync(&world, &client).await;
    assert_eq!(fs::read(world.dest().join("a")).unwrap(), b"edited");
    assert_eq!(fs::read(world.dest().join("d/new")).unwrap(), b"new");
    assert!(!world.source().join("d/e").exists());
}

/// The server has nothing to give then, and says that.
#[tokio::test]
async fn all_that_a_reader_takes_may_change_at_its_source() {
    let world = World::syncing();
    write(&world.source(), "a", b"theirs");
    let client = world.admitted_by(world.ticket()).await;
    let there = world.source();
    let meanwhile = once_planned(move || write(&there, "a", b"theirs, later"));
    let job = SyncJob { only_to: Some(Side::Local), ..job(&world) };
    let report = synchronise(&client, &job, meanwhile).await.unwrap();
    assert!(left(&report).contains(&self::there("a")), "{:?}", report.left);
    assert!(!world.dest().join("a").exists());
    synchronise(&client, &job, once_planned(|| ())).await.unwrap();
    assert_eq!(fs::read(world.dest().join("a")).unwrap(), b"theirs, later");
}

#[tokio::test]
async fn a_file_that_changes_at_its_source_is_taken_by_the_next_sync() {
    let (world, client) = base().await;
    write(&world.dest(), "a", b"mine");
    write(&world.source(), "b", b"theirs");
    write(&world.source(), "new/c", b"theirs");
    let (here, there) = (world.dest(), world.source());
    let meanwhile = move || {
        write(&here, "a", b"mine, later");
        fs::remove_file(there.join("b")).unwrap();
        write(&there, "new/c", b"theirs, later");
    };
    let report = sync_while(&world, &client, meanwhile).await;
    let expected = [
        self::here("a", UnresolvedReason::Changed),
        self::there("a"),
        self::here("b", UnresolvedReason::NotOffered),
        self::there("b"),
        self::here("new/c", UnresolvedReason::NotOffered),
        self::there("new/c"),
    ];
    assert_eq!(left(&report), expected, "told by both sides");
    sync(&world, &client).await;
    assert_eq!(fs::read(world.source().join("a")).unwrap(), b"mine, later");
    assert_eq!(fs::read(world.dest().join("new/c")).unwrap(), b"theirs, later");
}

#[tokio::test]
async fn a_file_that_takes_a_free_name_meanwhile_stays() {
    let (world, client) = base().await;
    write(&world.source(), "new", b"theirs");
    write(&world.source(), "dir/x", b"theirs");
    let here = world.dest();
    let meanwhile = move || {
        write(&here, "new", b"ours");
        write(&here, "dir", b"a file");
    };
    sync_while(&world, &client, meanwhile).await;
    assert_eq!(fs::read(world.dest().join("new")).unwrap(), b"ours");
    assert_eq!(fs::read(world.dest().join("dir")).unwrap(), b"a file");
    sync(&world, &client).await;
    let all = contents(&world.dest());
    for content in [&b"ours"[..], b"theirs", b"a file"] {
        assert!(all.contains(&content.to_vec()));
    }
}

#[tokio::test]
async fn a_version_in_conflict_that_changes_meanwhile_is_neither_kept_aside_nor_replaced() {
    let (world, client) = base().await;
    write(&world.dest(), "a", b"ours");
    written_at(world.dest().join("a"), 1_000_000_000);
    write(&world.source(), "a", b"theirs");
    let here = world.dest();
    let report = sync_while(&world, &client, move || write(&here, "a", b"ours, meanwhile")).await;
    assert!(report.left.iter().any(|left| left.side == Side::Local && left.path.to_string() == "a"));
    assert_eq!(fs::read(world.dest().join("a")).unwrap(), b"ours, meanwhile");
    sync(&world, &client).await;
    for content in [&b"ours, meanwhile"[..], b"theirs"] {
        assert!(contents(&world.dest()).contains(&content.to_vec()));
    }
}

#[tokio::test]
async fn a_directory_turned_into_a_link_meanwhile_is_not_followed() {
    let (world, client) = base().await;
    write(&world.source(), "d/e", b"theirs");
    fs::remove_file(world.source().join("d/f")).unwrap();
    let (here, outside): (PathBuf, PathBuf) = (world.dest(), world.outside().join("precious"));
    write(&outside, "e", b"not yours");
    write(&outside, "f", b"not yours");
    let meanwhile = {
        let outside = outside.clone();
        move || {
            fs::rename(here.join("d"), here.join("moved")).unwrap();
            std::os::unix::fs::symlink(&outside, here.join("d")).unwrap();
        }
    };
    sync_while(&world, &client, meanwhile).await;
    assert_eq!(tree(&outside).len(), 2);
    assert_eq!(fs::read(outside.join("e")).unwrap(), b"not yours");
    assert_eq!(fs::read(outside.join("f")).unwrap(), b"not yours");
}

/// As [`base`], and both sides have a file with the names `first`, `second` and `d/third`.
async fn base_with_a_file_of_three_names() -> (World, RpcClient) {
    let (world, client) = base().await;
    write(&world.source(), "first", b"of three names");
    for name in ["second", "d/third"] {
        fs::hard_link(world.source().join("first"), world.source().join(name)).unwrap();
    }
    sync(&world, &client).await;
    (world, client)
}

#[tokio::test]
async fn a_changed_time_and_mode_of_a_file_with_several_names_arrive() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let (world, client) = base_with_a_file_of_three_names().await;
    assert_eq!(fs::metadata(world.dest().join("first")).unwrap().nlink(), 3);
    fs::set_permissions(world.source().join("first"), fs::Permissions::from_mode(0o640)).unwrap();
    written_at(world.source().join("first"), 1_000_000_000);
    sync(&world, &client).await;
    let found = fs::metadata(world.dest().join("d/third")).unwrap();
    assert_eq!((found.nlink(), found.permissions().mode() & 0o777), (3, 0o640));
}

#[tokio::test]
async fn a_name_that_became_a_file_of_its_own_takes_its_mode_and_time_from_no_other_name() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let (world, client) = base_with_a_file_of_three_names().await;
    fs::remove_file(world.dest().join("second")).unwrap();
    write(&world.dest(), "second", b"of three names");
    fs::set_permissions(world.dest().join("second"), fs::Permissions::from_mode(0o600)).unwrap();
    written_at(world.dest().join("second"), 1_000_000_000);
    sync(&world, &client).await;
    for name in ["first", "second", "d/third"] {
        let [here, there] = [world.dest(), world.source()].map(|side| fs::metadata(side.join(name)).unwrap());
        assert_eq!(
            (here.mode(), here.mtime(), here.nlink()),
            (there.mode(), there.mtime(), there.nlink()),
            "{name}"
        );
        assert_eq!(here.mode() & 0o777 == 0o600, name == "second");
    }
    assert_eq!(sync(&world, &client).await.actions.len(), 0);
}

/// One word: as most systems type it, and as file systems that normalise names store it.
const FORMS: [&str; 2] = ["d/\u{e9}", "d/e\u{301}"];

#[tokio::test]
async fn a_file_that_comes_back_in_another_unicode_form_of_its_name_stays_one_file() {
    let (world, client) = base().await;
    let [composed, decomposed] = FORMS;
    write(&world.dest(), composed, b"content");
    sync(&world, &client).await;
    // A file system that normalises lists what it was given by another name.
    fs::rename(world.source().join(composed), world.source().join(decomposed)).unwrap();
    sync(&world, &client).await;
    assert_eq!(fs::read(world.dest().join(decomposed)).unwrap(), b"content");
    assert!(!world.dest().join(composed).exists());
    write(&world.dest(), decomposed, b"edited");
    sync(&world, &client).await;
    assert_eq!(fs::read(world.source().join(decomposed)).unwrap(), b"edited");
}

#[tokio::test]
async fn of_two_unicode_forms_of_a_name_the_one_that_a_side_cannot_hold_stays_on_the_other() {
    let (world, client) = base().await;
    for form in FORMS {
        write(&world.dest(), form, form.as_bytes());
    }
    let taken = world.source().join(FORMS[1]);
    for _ in 0..3 {
        // To a file system that normalises, the second name is there as soon as the first is; it lists one of them.
        let appears = taken.clone();
        let report = sync_while(&world, &client, move || _ = fs::File::create_new(appears).unwrap()).await;
        assert_eq!(left(&report), [there(FORMS[1])]);
        fs::remove_file(&taken).unwrap();
        for form in FORMS {
            assert_eq!(fs::read(world.dest().join(form)).unwrap(), form.as_bytes());
        }
        assert_eq!(fs::read(world.source().join(FORMS[0])).unwrap(), FORMS[0].as_bytes());
    }
}
