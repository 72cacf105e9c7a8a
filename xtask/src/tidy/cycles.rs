//! Imports go one way inside a crate, as they do between crates: no two of its files name each other's items, be it by
//! way of others. What a file only passes on, with a `pub use`, it does not name.

use std::{collections::BTreeSet, path::Path};

use anyhow::Result;
use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens as _;
use syn::Item;

use super::Violation;
use super::model::{Crate, Meaning, Module, is_test};

/// One violation for each module in a circle.
pub(super) fn check<'a>(root: &Path, crates: impl Iterator<Item = &'a str>) -> Result<Vec<Violation>> {
    let mut violations = Vec::new();
    for name in crates {
        let krate = Crate::load(root, name, is_test)?;
        let uses: Vec<_> = (0..krate.modules.len()).map(|own| used(&krate, own)).collect();
        let is_in_circle = |own: &usize| reach(&uses, *own, BTreeSet::new()).contains(own);
        let circle: BTreeSet<_> = (0..uses.len()).filter(is_in_circle).collect();
        let name_of = |at: &usize| format!("`{}`", krate.modules[*at].path.join("::"));
        violations.extend(circle.iter().map(|own| {
            let used: Vec<_> = uses[*own].intersection(&circle).map(name_of).collect();
            let what = format!("{} is in a circle of imports with {}", name_of(own), used.join(", "));
            Violation { path: format!("crates/{name}/src").into(), line: 0, what }
        }));
    }
    Ok(violations)
}

/// What has been reached, and all that is reached from a module.
fn reach(uses: &[BTreeSet<usize>], from: usize, mut reached: BTreeSet<usize>) -> BTreeSet<usize> {
    for next in &uses[from] {
        if reached.insert(*next) {
            reached = reach(uses, *next, reached);
        }
    }
    reached
}

/// The modules whose items a module names.
fn used(krate: &Crate, own: usize) -> BTreeSet<usize> {
    let paths = paths(&krate.modules[own]);
    let parts = paths.iter().flat_map(|path| (1..=path.len()).map(|end| &path[..end]));
    let found = parts.flat_map(|path| krate.meanings_of(own, path)).filter_map(|meaning| match meaning {
        Meaning::Item(found, _) => Some(found),
        Meaning::Module(_) | Meaning::Elsewhere(_) => None,
    });
    found.filter(|at| *at != own && krate.modules[*at].path.first().is_none_or(|top| top != TOOLS)).collect()
}

/// The paths in a module's code, and in those of its `use`s that bring in what it names or are its own.
fn paths(module: &Module) -> BTreeSet<Vec<String>> {
    let code = module.items.iter().filter(|(_, item)| !matches!(item, Item::Mod(_) | Item::Use(_)));
    let code: String = code.map(|(_, item)| names(item.to_token_stream())).collect();
    let words = || code.split_whitespace().map(|path| Vec::from_iter(path.split("::").map(str::to_owned)));
    let named: BTreeSet<_> = words().map(|path| path[..1].concat()).collect();
    let is_named = |name: &Option<String>| name.as_ref().is_some_and(|name| named.contains(name));
    let brought = module.uses.iter().filter(|(is_own, (_, name))| *is_own || is_named(name));
    words().filter(|path| path.len() > 1).chain(brought.map(|(_, (path, _))| path.clone())).collect()
}

/// Names in code, with those of a path joined.
fn names(code: TokenStream) -> String {
    let name = |token| match token {
        TokenTree::Group(group) => format!(" {} ", names(group.stream())),
        TokenTree::Ident(name) => format!(" {name}"),
        TokenTree::Punct(punct) if punct.as_char() == ':' => ":".to_owned(),
        TokenTree::Punct(_) | TokenTree::Literal(_) => " ".to_owned(),
    };
    code.into_iter().map(name).collect::<String>().replace(":: ", "::")
}

/// Entries for the fuzzer stand beside the code and share drivers, which know all of that code, as tests do.
const TOOLS: &str = "fuzz";

#[cfg(test)]
mod tests {
    use super::super::surface::tests::crate_of;
    use super::*;

    /// Whether a crate with these in its modules `a`, `a::sub`, `b` and `c` has a circle. `a` uses `b`.
    fn has_circle(a: &str, sub: &str, b: &str, c: &str) -> bool {
        let lib = "mod a;\npub mod b;\nmod c;\n\npub use a::{A, sub::Deep};\npub use c::C;\n";
        let a = format!("pub mod sub;\npub struct A;\nuse crate::b::B;\n{a}");
        let [sub, b, c] = [("Deep", sub), ("B", b), ("C", c)]
            .map(|(name, text)| format!("pub struct {name};\nimpl {name} {{ pub fn new() {{}} }}\n{text}"));
        let files = [("lib.rs", lib), ("a.rs", &a), ("a/sub.rs", &sub), ("b.rs", &b), ("c.rs", &c)];
        !check(crate_of(&files).path(), ["a"].into_iter()).unwrap().is_empty()
    }

    #[test]
    fn one_way_is_no_circle() {
        assert!(!has_circle("", "use super::A;\n", "use crate::{c::C};\n", ""));
        assert!(!has_circle("use self::sub::Deep;\n", "use crate::b;\nfn f(b: b::B) {}\n", "", ""));
    }

    #[test]
    fn a_circle_is_found_however_it_is_written() {
        for back in [
            "use crate::a::A;\n",
            "use crate::{\n    c::{self, X},\n    a::{\n        A,\n    },\n};\n",
            "use super::a::A;\n",
            "use crate::A;\n",
            "use crate::a;\nfn f() { vec![a::A::new()]; }\n",
            "use crate::a::*;\nfn f() { A::new() }\n",
            "fn f() { crate::Deep::new() }\n",
        ] {
            assert!(has_circle("", "use super::A;\n", back, ""), "{back}");
        }
        assert!(has_circle("", "use super::super::c::C;\n", "", "fn f(deep: super::a::sub::Deep) {}\n"));
        assert!(has_circle("", "", "use crate::C;\n", "use crate::a::A;\n"), "of three");
    }

    #[test]
    fn a_parent_and_its_child_are_a_circle_unless_the_parent_only_passes_on() {
        let sub = "impl super::A {}\n";
        for a in ["use self::sub::Deep;\n", "struct X(sub::Deep);\n", "pub use sub::Deep;\nstruct X(Deep);\n"]
        {
            assert!(has_circle(a, sub, "", ""), "{a}");
        }
        assert!(!has_circle("/// Of [`Deep`](sub::Deep).\npub use sub::Deep;\n", sub, "", ""));
        assert!(!has_circle("/// Of `Deep` or `sub::Deep`.\nstruct X;\npub use sub::Deep;\n", sub, "", ""));
    }

    #[test]
    fn tests_do_not_count() {
        let tests = "#[cfg(test)]\nmod tests {\n    use crate::a::A;\n}\n";
        assert!(!has_circle("", "", tests, ""));
    }
}
