//! A server that is started over ssh: what stands for ssh runs this test's own program.

use std::{fs, os::unix::fs::PermissionsExt as _, time::Duration};

use shiplane::{Client, ErrorKind, serve_over_ssh};

use crate::harness::Machine;

/// Not a test of its own: the program on the other machine, when it is started by [`ssh`].
#[tokio::test]
async fn the_server_over_ssh() {
    if std::env::var_os(MARK).is_some() {
        serve_over_ssh().await.unwrap();
        // What the test runner would print is no packet.
        std::process::exit(0);
    }
}

/// A command that takes the arguments of ssh and runs the program above, whose home is this machine.
fn ssh(there: &Machine) -> String {
    let program = std::env::current_exe().unwrap();
    let script = format!(
        "#!/bin/sh\nprintf '%s\\n' \"$@\" > '{args}'\nexport {MARK}=1 HOME='{home}' SHIPLANE_HOME='{state}'\n\
         exec '{}' --exact ssh::the_server_over_ssh --nocapture\n",
        program.display(),
        args = there.text("args"),
        home = there.dir("files").display(),
        state = there.text("home"),
    );
    let path = there.write("bin/ssh", script);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    format!("'{}'", path.display())
}

async fn client(here: &Machine, there: &Machine) -> Client {
    Client::builder().home(here.path("home")).ssh(ssh(there)).build().await.unwrap()
}

#[tokio::test]
async fn a_client_connects_to_a_host_and_a_path() {
    let (here, there) = (Machine::new(), Machine::new());
    there.write("files/photos/a b", "sand");
    let client = client(&here, &there).await;
    let photos = client.connect("me@nas:photos").await.unwrap();
    let got = photos.get("").to(here.path("copy")).await.unwrap();
    assert_eq!((got.files, here.read("copy/a b")), (1, b"sand".to_vec()));
    client.close().await;
    let args = there.read("args");
    let args = String::from_utf8(args).unwrap();
    assert!(args.contains("\nme@nas\n") && !args.contains("photos"), "{args}");

    let new = client.connect("ssh://nas/~/new").await.unwrap();
    new.push([here.write("mine", "mine")]).await.unwrap();
    assert_eq!(there.read("files/new/mine"), b"mine");
    let outside = new.get("../photos").to(here.path("outside")).await.unwrap_err();
    assert_eq!(outside.kind(), ErrorKind::Usage, "{outside}");
    client.close().await;
}

#[tokio::test]
async fn missing_paths_and_invalid_ssh_addresses_are_told_apart() {
    let (here, there) = (Machine::new(), Machine::new());
    let client = client(&here, &there).await;
    for (target, kind) in [
        ("nas:none", ErrorKind::Refused),
        ("nas:~other/x", ErrorKind::Usage),
        ("-oProxyCommand=x:y", ErrorKind::Usage),
        ("2001:db8::1:x", ErrorKind::Usage),
    ] {
        let connected = async { client.connect(target).await?.list("").await };
        let failed = tokio::time::timeout(AMPLE, connected).await.unwrap().unwrap_err();
        assert_eq!(failed.kind(), kind, "{target}: {failed}");
    }
}

const MARK: &str = "SHIPLANE_TEST_SERVER_OVER_SSH";

/// Far more than any story takes.
const AMPLE: Duration = Duration::from_secs(60);
