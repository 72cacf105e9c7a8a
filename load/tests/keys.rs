//! The keys that the load goes by. That `cargo test` builds the program for it lets `cargo xtask ci` use that one.

use std::fs;
use std::process::Command;

use shiplane_protocols::internals::access::PeersFile;
use tempfile::TempDir;

#[test]
fn as_many_keys_as_are_asked_for_are_made_once_and_known_to_the_server() {
    let dir = TempDir::new().unwrap();
    let (home, keys) = (dir.path().join("home"), dir.path().join("keys"));
    fs::create_dir(&home).unwrap();
    let make = |count: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_shiplane-load"));
        command.arg("keys").arg("--home").arg(&home).arg("--keys").arg(&keys).args(["--count", count]);
        assert!(command.status().unwrap().success());
        let known = fs::read_to_string(home.join("peers")).unwrap();
        assert!(PeersFile::at(home.join("peers")).read().is_ok(), "{known}");
        known
    };
    let three = make("3");
    assert_eq!(fs::read_dir(&keys).unwrap().count(), 3);
    assert_eq!(make("3"), three);
}
