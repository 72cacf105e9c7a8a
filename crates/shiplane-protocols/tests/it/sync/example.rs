//! The example, run.

#[path = "../../../examples/two_way.rs"]
#[expect(dead_code, reason = "its `main` is for the command line")]
mod sync;

use shiplane_files::internals::sync::{Change, Side};
#[tokio::test]
async fn the_example_does_what_it_says() {
    let home = tempfile::TempDir::new().unwrap();
    let [first, second] = sync::sync_twice(home.path()).await.unwrap();
    assert_eq!((first.sent_bytes, first.received_bytes), (15, 15));
    let done: Vec<_> = second.actions.iter().map(|action| (action.side, action.path.to_string())).collect();
    assert_eq!(done, [(Side::Local, "notes.txt".to_owned()), (Side::Remote, "photo.jpg".to_owned())]);
    assert_eq!(second.actions[1].change, Change::RemoveFile);
    assert_eq!(std::fs::read(home.path().join("laptop/notes.txt")).unwrap(), b"edited on the server");
    assert!(!home.path().join("server/photo.jpg").exists());
}
