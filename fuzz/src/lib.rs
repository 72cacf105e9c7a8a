//! The fuzz targets: a name, the crate with its corpus, and the entry.
//!
//! `cargo xtask fuzz` runs them. A decoder that is new gets an entry, a directory of seeds and a line here.

use shiplane_access::fuzz as access;
use shiplane_files::fuzz as files;
use shiplane_octopii::fuzz as octopii;
use shiplane_protocols::fuzz as protocols;
use shiplane_reach::fuzz as reach;
use shiplane_rpc::fuzz as rpc;
use shiplane_transport::fuzz as transport;
use shiplane_wire::fuzz as wire;

/// A decoder, or a machine and what drives it.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// The crate; its seeds are in `crates/PACKAGE/corpus/NAME`.
    pub package: &'static str,
    /// The name.
    pub name: &'static str,
    /// Takes any bytes and panics if a law is broken.
    pub run: fn(&[u8]),
}

/// All of them.
pub const TARGETS: &[Target] = &[
    target("shiplane-wire", "attributes", wire::fuzz_attributes),
    target("shiplane-wire", "opening", wire::fuzz_opening),
    target("shiplane-wire", "path", wire::fuzz_path),
    target("shiplane-wire", "records_provider", wire::fuzz_records_provider),
    target("shiplane-wire", "records_receiver", wire::fuzz_records_receiver),
    target("shiplane-wire", "recv", wire::fuzz_recv),
    target("shiplane-wire", "send", wire::fuzz_send),
    target("shiplane-wire", "session", wire::fuzz_session),
    target("shiplane-wire", "status", wire::fuzz_status),
    target("shiplane-transport", "frames", transport::fuzz_frames),
    target("shiplane-transport", "key_file", transport::fuzz_key_file),
    target("shiplane-transport", "peer_id", transport::fuzz_peer_id),
    target("shiplane-files", "base", files::fuzz_base),
    target("shiplane-files", "changes", files::fuzz_changes),
    target("shiplane-files", "journal", files::fuzz_journal),
    target("shiplane-files", "manifest", files::fuzz_manifest),
    target("shiplane-files", "stat_cache", files::fuzz_stat_cache),
    target("shiplane-rpc", "answer_stream", rpc::fuzz_answer_stream),
    target("shiplane-rpc", "body", rpc::fuzz_body),
    target("shiplane-rpc", "envelopes", rpc::fuzz_envelopes),
    target("shiplane-access", "address", access::fuzz_address),
    target("shiplane-access", "peers", access::fuzz_peers),
    target("shiplane-access", "stored_ticket", access::fuzz_stored_ticket),
    target("shiplane-access", "ticket", access::fuzz_ticket),
    target("shiplane-protocols", "encoded", protocols::fuzz_encoded),
    target("shiplane-protocols", "methods", protocols::fuzz_methods),
    target("shiplane-reach", "bodies", reach::fuzz_bodies),
    target("shiplane-reach", "code", reach::fuzz_code),
    target("shiplane-reach", "exchange", reach::fuzz_exchange),
    target("shiplane-reach", "greeting", reach::fuzz_greeting),
    target("shiplane-reach", "ssh_address", reach::fuzz_ssh_address),
    target("shiplane-octopii", "octopii", octopii::fuzz_octopii),
];

const fn target(package: &'static str, name: &'static str, run: fn(&[u8])) -> Target {
    Target { package, name, run }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use super::*;

    #[test]
    fn the_corpus_is_survived() {
        let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("crates");
        for target in TARGETS {
            for file in fs::read_dir(crates.join(target.package).join("corpus").join(target.name)).unwrap() {
                (target.run)(&fs::read(file.unwrap().path()).unwrap());
            }
        }
    }

    #[test]
    fn every_target_has_seeds_and_every_corpus_a_target() {
        let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("crates");
        let mut found = BTreeSet::new();
        for package in fs::read_dir(crates).unwrap() {
            let package = package.unwrap();
            let Ok(corpora) = fs::read_dir(package.path().join("corpus")) else { continue };
            for corpus in corpora {
                let corpus = corpus.unwrap();
                assert!(fs::read_dir(corpus.path()).unwrap().next().is_some(), "{corpus:?} is empty");
                found.insert((package.file_name(), corpus.file_name()));
            }
        }
        let known: BTreeSet<_> =
            TARGETS.iter().map(|target| (target.package.into(), target.name.into())).collect();
        assert_eq!(found, known);
    }
}
