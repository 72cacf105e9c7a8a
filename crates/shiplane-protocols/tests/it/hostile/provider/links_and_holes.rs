//! Hard links and holes that lie.

use std::{fs, os::unix::fs::MetadataExt as _};

use shiplane_files::internals::DestinationError;
use shiplane_protocols::internals::{FetchError, transfer::TransferError};

use super::super::{
    TransferShape, directory, file, hole,
    liar::{end, fetch_from, published, script, transfer_error},
    link, named,
};

#[tokio::test]
async fn a_hard_link_to_anything_but_an_earlier_file_with_several_names_is_refused() {
    let manifests = [
        vec![file("x", 1), named("y", 1, 0), end(2, 2)],
        vec![directory("x"), named("y", 1, 0), end(2, 1)],
        vec![link("x", "y"), named("y", 1, 0), end(2, 1)],
        vec![named("x", 1, 1), named("y", 1, 1), end(2, 2)],
        vec![named("x", 1, 0), named("y", 1, u64::MAX), end(2, 2)],
        vec![named("x", 1, 0), named("y", 1, 0), named("z", 1, 1), end(3, 3)],
    ];
    for manifest in manifests {
        let told = format!("{manifest:?}");
        let (result, dir) = fetch_from(
            TransferShape::Contents,
            script(move |mut fixture| {
                let manifest = manifest.clone();
                async move {
                    fixture.say(&manifest).await;
                    fixture.linger().await;
                }
            }),
        )
        .await;
        let error = transfer_error(result);
        let is_expected = matches!(error, TransferError::Destination(DestinationError::NotRequested { .. }));
        assert!(is_expected, "{told}: {error}");
        assert!(!published(&dir).iter().any(|path| path.ends_with("y")), "{told}");
    }
}

#[tokio::test]
async fn a_hole_of_exabytes_takes_neither_space_nor_memory_and_harms_nothing_else() {
    let (result, dir) = fetch_from(
        TransferShape::Contents,
        script(|mut fixture| async move {
            let huge = (1 << 62) - 1;
            fixture.say(&[hole("a", huge), hole("b", huge), file("x", 1024), end(3, 2 * huge + 1024)]).await;
            let (index, len_bytes) = fixture.want().await.unwrap();
            fixture.chunk(index, len_bytes, &[b'x'; 1024]).await;
            fixture.linger().await;
        }),
    )
    .await;
    // No file system here holds such files: they are left out. Only the liar's confirmation is missing.
    assert!(matches!(result, Err(FetchError::Unconfirmed(_))), "{result:?}");
    assert_eq!(fs::read(dir.path().join("x")).unwrap(), [b'x'; 1024]);
    let allocated = |name: &str| fs::metadata(dir.path().join(name)).map_or(0, |found| found.blocks());
    assert!(allocated("a") + allocated("b") < 1024);
}
