//! A small crate, and what of it is listed.

use super::super::model::{Crate, is_conditional};
use super::{
    listing::{Entry, counts, entries, written},
    rules,
};

/// The listing of a crate that is made of these files.
fn listed(files: &[(&str, &str)]) -> Vec<Entry> {
    entries(&Crate::load(crate_of(files).path(), "a", is_conditional).unwrap())
}

#[test]
fn what_can_be_named_without_a_feature_is_listed() {
    let listing = listed(&[
        (
            "lib.rs",
            "mod b;\npub mod c { pub const LEN: usize = 1; }\nuse b::Private;\npub use b::{Shown, Renamed as Other};\n\
             pub use other_crate::Theirs;\n#[cfg(feature = \"internals\")]\npub mod internals { pub use crate::b::Hidden; }\n\
             #[doc(hidden)]\npub use b::Hidden;\n#[cfg(test)]\npub struct Test;\n",
        ),
        (
            "b.rs",
            "mod deeper;\npub use self::deeper::Shown;\npub struct Renamed;\npub struct Private;\npub struct Hidden;\n",
        ),
        ("b/deeper.rs", "/// Docs.\n#[derive(Debug)]\npub enum Shown { A { b: u8 }, C(String) }\n"),
    ]);
    let paths: Vec<_> = listing.iter().map(|entry| entry.path.as_str()).collect();
    assert_eq!(paths, ["Other", "Shown", "Theirs", "c::LEN"]);
    assert_eq!(counts(&listing), (3, 2));
    let text = written(&listing);
    let shown = "// Shown\n#[derive(Debug)]\npub enum Shown {\n    A { b: u8 },\n    C(String),\n}\n";
    assert!(text.contains(shown), "{text}");
    assert!(text.contains("// c::LEN\npub const LEN: usize = 1;\n"), "{text}");
}

#[test]
fn methods_are_those_of_the_type_and_of_macros_in_its_impls() {
    let listing = listed(&[
        (
            "lib.rs",
            "mod b;\nmod c;\npub use b::Job;\nmacro_rules! setters {\n    () => {\n        pub fn rate(self) -> $crate::Job {\n\
             self\n        }\n    };\n}\n",
        ),
        (
            "b.rs",
            "/// One.\npub struct Job {\n    len: u8,\n}\nimpl Job {\n    pub fn new(\n        len: u8,\n    ) -> Self {\n\
             Self { len }\n    }\n    fn own(&self) {}\n    #[doc(hidden)]\n    pub fn hidden(&self) {}\n    setters!();\n}\n\
             impl Clone for Job {}\n#[doc(hidden)]\nimpl Job {\n    pub fn engine(&self) {}\n}\nimpl From<Private> for Job {}\nstruct Private;\n",
        ),
        ("c.rs", "struct Job;\nimpl Job {\n    pub fn not_this(&self) {}\n}\n"),
    ]);
    let text = written(&listing);
    let expected = "pub struct Job {}\nimpl Job {\n    pub fn new(len: u8) -> Self {}\n    pub fn rate(self) -> crate::Job {}\n}\n\
                    impl Clone for Job {}\n";
    assert!(text.ends_with(expected), "{text}");
}

#[test]
fn a_future_says_what_dropping_it_leaves_and_what_grows_is_not_exhaustive() {
    let listing = listed(&[(
        "lib.rs",
        "pub async fn says_nothing() {}\n/// Cancel-safe.\npub async fn says_it() {}\n\
         pub enum OpenError { A }\n#[non_exhaustive]\npub enum ReadError { A }\n\
         pub struct SendOptions { pub a: u8 }\npub struct RecvOptions { a: u8 }\n\
         #[cfg_attr(not(feature = \"internals\"), non_exhaustive)]\npub struct Options { pub a: u8 }\n",
    )]);
    let found: Vec<String> =
        listing.iter().flat_map(|entry| rules("a", entry)).map(|violation| violation.what).collect();
    let about: Vec<&str> = found.iter().filter_map(|what| what.split(':').next()).collect();
    assert_eq!(about, ["OpenError", "SendOptions", "says_nothing"], "{found:?}");
}

/// A directory with the crate `a`, which is made of these files.
pub(in super::super) fn crate_of(files: &[(&str, &str)]) -> tempfile::TempDir {
    let root = tempfile::TempDir::new().unwrap();
    let src = root.path().join("crates/a/src");
    for (path, text) in files {
        let path = src.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    root
}
