//! Trees arrive as they are: modes and times.

use std::{
    collections::BTreeMap,
    fs::{self, File, Permissions},
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use shiplane_wire::LeftOutReason;

use crate::{
    harness::{World, tree},
    push::{push, request, source},
    sync::{admitted, job, sync},
};
use shiplane_files::internals::{
    LinkPolicy,
    sync::{Change, Side},
};
use shiplane_protocols::internals::{
    PushRequest, WriteLimits,
    sync::{SyncJob, synchronise},
};

/// Mode and time of everything beneath `root`, and of itself.
pub(crate) fn stamps(root: &Path) -> BTreeMap<PathBuf, (u32, i64, i64)> {
    let stamp = |path: &Path| {
        let found = fs::symlink_metadata(path).unwrap();
        (found.mode() & 0o7777, found.mtime(), found.mtime_nsec())
    };
    let names = tree(root).into_keys().chain([PathBuf::new()]);
    names.map(|name| (name.clone(), stamp(&root.join(name)))).collect()
}

/// Without what it itself has: two datasets may be different there.
pub(crate) fn stamps_below(root: &Path) -> BTreeMap<PathBuf, (u32, i64, i64)> {
    let mut stamps = stamps(root);
    stamps.remove(Path::new(""));
    stamps
}

pub(crate) fn set(path: &Path, mode: u32, seconds: u64) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    let time = SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000 + seconds, 123_456_789);
    File::open(path).unwrap().set_modified(time).unwrap();
}

/// Private, read-only, open and empty directories; files that are run, private or shared.
pub(crate) fn fill(at: &Path) {
    fs::create_dir_all(at.join("private/read-only/open")).unwrap();
    fs::create_dir_all(at.join("empty")).unwrap();
    for (name, content) in
        [("private/key", "secret"), ("private/read-only/run", "#!"), ("shared", ""), ("f", "f")]
    {
        fs::write(at.join(name), content).unwrap();
    }
    for (number, (name, mode)) in (0..).zip([
        ("private/key", 0o600),
        ("private/read-only/run", 0o755),
        ("shared", 0o666),
        ("f", 0o444),
        ("private/read-only/open", 0o777),
        ("private/read-only", 0o555),
        ("private", 0o700),
        ("empty", 0o1777),
        ("", 0o711),
    ]) {
        set(&at.join(name), mode, number);
    }
}

#[tokio::test]
async fn a_fetched_tree_has_the_modes_and_times_of_everything_and_changes_of_them_arrive() {
    let world = World::new(fill);
    let client = world.admitted().await;
    world.fetch(&client, "").await.unwrap();
    assert_eq!(stamps(&world.dest()), stamps(&world.source()));
    set(&world.source().join("private/key"), 0o400, 77);
    set(&world.source().join("f"), 0o777, 3);
    set(&world.source().join("empty"), 0o500, 78);
    set(&world.source(), 0o750, 79);
    let report = world.fetch(&client, "").await.unwrap();
    assert_eq!((report.received_bytes, report.summary.identical_files), (0, 4));
    assert_eq!(stamps(&world.dest()), stamps(&world.source()));
}

#[tokio::test]
async fn a_pushed_directory_has_the_modes_and_times_of_everything_and_the_served_one_keeps_its_own() {
    let world = World::writable(WriteLimits::default());
    fill(&world.dest());
    set(&world.source(), 0o705, 1);
    let client = world.admitted_by(world.ticket_to_write("")).await;
    let named = PushRequest { name: Some(b"top".to_vec()), ..request("new") };
    for (request, lands) in [(named, "new/top"), (request("contents"), "contents"), (request(""), "")] {
        for mode in [0o700, 0o751] {
            set(&world.dest().join("f"), mode, 3);
            set(&world.dest(), mode, 9);
            let report = push(&world, &client, source(&world.dest()), &request).await.unwrap();
            assert!(mode == 0o700 || report.sent_bytes == 0);
            let (mut there, mut sent) = (stamps(&world.source().join(lands)), stamps(&world.dest()));
            if lands.is_empty() {
                there.retain(|path, _| !path.starts_with("new") && !path.starts_with("contents"));
                assert_eq!(there.remove(Path::new("")).unwrap().0, 0o705);
                sent.remove(Path::new(""));
            }
            assert_eq!(there, sent, "{lands:?}");
        }
    }
}

/// Where each link beneath `root` leads.
fn links(root: &Path) -> BTreeMap<PathBuf, PathBuf> {
    let names = stamps(root)
        .into_keys()
        .filter_map(|name| Some((name.clone(), fs::read_link(root.join(name)).ok()?)));
    names.collect()
}

fn fill_with_links(at: &Path) {
    fs::create_dir_all(at.join("d/e")).unwrap();
    fs::write(at.join("d/f"), "content").unwrap();
    for (name, target) in [
        ("d/e/up", "../f"),
        ("to-file", "d/f"),
        ("to-directory", "d"),
        ("dangling", "nowhere"),
        ("d/e/out", "../../../f"),
        ("absolute", "/etc/passwd"),
        ("around", "d/../f"),
    ] {
        symlink(target, at.join(name)).unwrap();
    }
}

#[tokio::test]
async fn a_fetched_tree_has_all_links_as_they_are() {
    let world = World::new(fill_with_links);
    let client = world.admitted().await;
    for _ in 0..2 {
        let report = world.fetch(&client, "").await.unwrap();
        assert_eq!((report.summary.links, report.left_out()), (7, 0));
        assert_eq!(links(&world.dest()), links(&world.source()));
        assert_eq!(links(&world.dest()).len(), 7);
        assert_eq!(stamps(&world.dest()), stamps(&world.source()));
    }
}

#[tokio::test]
async fn a_server_creates_only_links_that_stay_inside_unless_it_says_otherwise() {
    for (links_taken, left_out) in [(LinkPolicy::Inside, 3), (LinkPolicy::All, 0), (LinkPolicy::Skip, 7)] {
        let world = World::writable(WriteLimits { links: links_taken, ..WriteLimits::default() });
        fill_with_links(&world.dest());
        let client = world.admitted_by(world.ticket_to_write("")).await;
        let report = push(&world, &client, source(&world.dest()), &request("in")).await.unwrap();
        assert_eq!((report.left_out_there, report.left_out_here), (left_out, 0));
        let (mut sent, there) = (links(&world.dest()), links(&world.source().join("in")));
        match links_taken {
            LinkPolicy::All => {}
            LinkPolicy::Inside => {
                ["d/e/out", "absolute", "around"].iter().for_each(|name| _ = sent.remove(Path::new(name)))
            }
            LinkPolicy::Skip => sent.clear(),
        }
        assert_eq!(there, sent);
    }
}

#[tokio::test]
async fn a_pusher_that_wants_no_links_offers_none_and_names_them() {
    let mut world = World::writable(WriteLimits::default());
    fill_with_links(&world.dest());
    world.options.links = LinkPolicy::Skip;
    let client = world.admitted_by(world.ticket_to_write("")).await;
    let report = push(&world, &client, source(&world.dest()), &request("in")).await.unwrap();
    assert_eq!((report.left_out_there, report.left_out_here), (0, 7));
    assert!(links(&world.source().join("in")).is_empty());
}

#[tokio::test]
async fn a_sync_carries_the_modes_and_times_of_everything_and_changes_of_them_without_content() {
    let world = World::syncing();
    fill(&world.dest());
    let client = admitted(&world).await;
    let first = sync(&world, &client).await;
    assert_eq!(first.files, 4);
    let again = sync(&world, &client).await;
    assert!(again.actions.is_empty());
    assert_eq!(again.digest, first.digest);
    set(&world.dest().join("private/key"), 0o400, 77);
    set(&world.dest().join("private"), 0o500, 78);
    set(&world.source().join("f"), 0o755, 79);
    set(&world.source().join("private/read-only"), 0o555, 80);
    let report = sync(&world, &client).await;
    assert_eq!((report.sent_bytes, report.received_bytes), (0, 0));
    let told: Vec<_> = report.actions.iter().map(|action| (action.side, action.path.to_string())).collect();
    assert!(report.actions.iter().all(|action| action.change == Change::SetMetadata));
    let expected = [(Side::Local, "f"), (Side::Remote, "private"), (Side::Remote, "private/key")];
    assert_eq!(told, expected.map(|(side, path)| (side, path.to_owned())));
    assert!(sync(&world, &client).await.actions.is_empty());
}

#[tokio::test]
async fn a_sync_writes_and_removes_in_a_directory_that_is_read_only() {
    let world = World::syncing();
    fill(&world.dest());
    let client = admitted(&world).await;
    sync(&world, &client).await;
    fs::write(world.dest().join("private/read-only/new"), "new").unwrap();
    fs::remove_file(world.dest().join("private/read-only/run")).unwrap();
    fs::create_dir(world.source().join("private/read-only/open/deep")).unwrap();
    set(&world.dest().join("private/read-only"), 0o511, 90);
    let report = sync(&world, &client).await;
    assert_eq!(report.sent_bytes, 3);
    assert_eq!(stamps(&world.source())[Path::new("private/read-only")].0, 0o511);
    assert!(sync(&world, &client).await.actions.is_empty());
}

#[tokio::test]
async fn a_directory_that_a_sync_creates_is_as_private_as_ours() {
    let world = World::syncing();
    fill(&world.dest());
    let client = admitted(&world).await;
    for (mode, name) in [(0o700, "private"), (0o755, "open")] {
        set(&world.dest(), mode, 1);
        let job = SyncJob { remote_path: format!("new/{name}").into_bytes(), ..job(&world) };
        synchronise(&client, &job, std::sync::Arc::new(|_| ())).await.unwrap();
        let there = world.source().join("new").join(name);
        assert_eq!(stamps(&there)[Path::new("")].0, mode);
        assert_eq!(stamps_below(&there), stamps_below(&world.dest()));
    }
}

#[tokio::test]
async fn a_sync_carries_links_and_their_changes() {
    let world = World::syncing();
    fill_with_links(&world.source());
    let client = admitted(&world).await;
    sync(&world, &client).await;
    assert_eq!((links(&world.dest()), links(&world.dest()).len()), (links(&world.source()), 7));
    assert!(sync(&world, &client).await.actions.is_empty());
    // Changed, removed, made, and in place of a file, either way.
    let relink = |at: PathBuf, target: &str| {
        fs::remove_file(&at).unwrap();
        symlink(target, at).unwrap();
    };
    relink(world.dest().join("to-file"), "d");
    relink(world.source().join("around"), "elsewhere");
    fs::remove_file(world.source().join("dangling")).unwrap();
    fs::remove_file(world.dest().join("absolute")).unwrap();
    symlink("e", world.dest().join("d/new")).unwrap();
    relink(world.dest().join("d/f"), "e");
    fs::remove_file(world.source().join("to-directory")).unwrap();
    fs::write(world.source().join("to-directory"), "a file now").unwrap();
    let report = sync(&world, &client).await;
    assert_eq!((report.sent_bytes, report.received_bytes), (0, 10));
    let found = links(&world.source());
    let leads = |name: &str| found.get(Path::new(name)).map(|target| target.to_str().unwrap());
    let expected = [
        ("to-file", Some("d")),
        ("around", Some("elsewhere")),
        ("dangling", None),
        ("absolute", None),
        ("d/new", Some("e")),
        ("d/f", Some("e")),
        ("to-directory", None),
        ("d/e/out", Some("../../../f")),
    ];
    assert_eq!(expected.map(|(name, _)| (name, leads(name))), expected);
    assert!(sync(&world, &client).await.actions.is_empty());
}

#[tokio::test]
async fn of_two_links_that_were_changed_both_stay() {
    let world = World::syncing();
    symlink("was", world.dest().join("l")).unwrap();
    let client = admitted(&world).await;
    sync(&world, &client).await;
    for (at, target) in [(world.dest(), "ours"), (world.source(), "theirs")] {
        fs::remove_file(at.join("l")).unwrap();
        symlink(target, at.join("l")).unwrap();
    }
    sync(&world, &client).await;
    let targets: Vec<_> = links(&world.source()).into_values().collect();
    assert_eq!(targets.len(), 2);
    assert!(targets.contains(&"ours".into()) && targets.contains(&"theirs".into()));
    assert_eq!(links(&world.source()), links(&world.dest()));
}

#[tokio::test]
async fn a_server_that_is_synced_with_creates_only_links_that_stay_inside_and_the_others_stay_here() {
    let world = World::syncing();
    fill_with_links(&world.dest());
    let client = admitted(&world).await;
    for _ in 0..2 {
        let report = synchronise(&client, &job(&world), std::sync::Arc::new(|_| ())).await.unwrap();
        let left: Vec<_> =
            report.left.iter().map(|left| (left.side, left.path.to_string(), left.why.reason())).collect();
        let out = |path: &str| (Side::Remote, path.to_owned(), LeftOutReason::LinkLeadsOut);
        assert_eq!(left, [out("absolute"), out("around"), out("d/e/out")]);
        assert_eq!((links(&world.dest()).len(), links(&world.source()).len()), (7, 4));
    }
    // Where they are not wanted, they are neither sent nor deleted.
    let mut job = job(&world);
    job.transfer.links = LinkPolicy::Skip;
    let report = synchronise(&client, &job, std::sync::Arc::new(|_| ())).await.unwrap();
    assert!(report.left.is_empty() && report.unlisted.len() == 7, "{:?} {:?}", report.left, report.unlisted);
    assert_eq!((links(&world.dest()).len(), links(&world.source()).len()), (7, 4));
}
