//! Imports go one way inside a crate, as they do between crates: no two of its top-level modules use each other, be it
//! by way of others.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::Result;
use quote::ToTokens as _;
use syn::Item;

use super::Violation;
use super::model::{Crate, Meaning, is_test, leaves};

/// Modules by name, with those that each uses.
type Uses = BTreeMap<String, BTreeSet<String>>;

/// One violation for each circle of modules.
pub(super) fn check<'a>(root: &Path, crates: impl Iterator<Item = &'a str>) -> Result<Vec<Violation>> {
    let mut violations = Vec::new();
    for name in crates {
        for circle in circles(&uses(&Crate::load(root, name, is_test)?)) {
            let names: Vec<_> = circle.iter().map(String::as_str).collect();
            let what = format!("the modules {} use each other: let imports go one way", names.join(", "));
            violations.push(Violation { path: format!("crates/{name}/src/lib.rs").into(), line: 0, what });
        }
    }
    Ok(violations)
}

fn uses(krate: &Crate) -> Uses {
    let mut uses = Uses::new();
    for (at, (_, item)) in krate.items().filter(|(_, (_, item))| !matches!(item, Item::Mod(_))) {
        let path = &krate.modules[at].path;
        let Some(own) = path.first() else { continue };
        // Each path of a `use` by itself; elsewhere a path goes on with one name.
        let text = match item {
            Item::Use(item) => {
                leaves(&item.tree).into_iter().map(|(path, _)| path.join(" :: ") + " , ").collect()
            }
            item => item.to_token_stream().to_string(),
        };
        let text = text.replace(&"super :: ".repeat(path.len()), "crate :: ");
        let named = text
            .split("crate :: ")
            .skip(1)
            .filter_map(|rest| rest.split(|c: char| !(c.is_alphanumeric() || c == '_')).next());
        let meanings = named.flat_map(|name| krate.meanings_of(0, &[name.to_owned()]));
        let used = meanings.filter_map(|meaning| match meaning {
            Meaning::Module(found) | Meaning::Item(found, _) => krate.modules[found].path.first(),
            Meaning::Elsewhere(_) => None,
        });
        let used = used.filter(|used| *used != own && *used != TOOLS).cloned();
        uses.entry(own.clone()).or_default().extend(used);
    }
    uses
}

/// Sets of modules of which each reaches all others.
fn circles(uses: &Uses) -> BTreeSet<BTreeSet<String>> {
    let mut reached = uses.clone();
    for _ in uses {
        for (module, direct) in uses {
            let beyond: BTreeSet<_> =
                direct.iter().flat_map(|next| reached.get(next).cloned().unwrap_or_default()).collect();
            reached.entry(module.clone()).or_default().extend(beyond);
        }
    }
    let circle = |module: &String| {
        let back = |other: &&String| reached.get(*other).is_some_and(|back| back.contains(module));
        reached[module].iter().filter(back).cloned().collect::<BTreeSet<_>>()
    };
    uses.keys().map(circle).filter(|circle| circle.len() > 1).collect()
}

/// Entries for the fuzzer stand beside the code and share drivers, which know all of that code, as tests do.
const TOOLS: &str = "fuzz";

#[cfg(test)]
mod tests {
    use super::super::surface::tests::crate_of;
    use super::*;

    /// Violations of a crate with these files.
    fn violations(files: &[(&str, &str)]) -> usize {
        check(crate_of(files).path(), ["a"].into_iter()).unwrap().len()
    }

    const LIB: (&str, &str) =
        ("lib.rs", "mod a;\npub mod b;\nmod c;\n\npub use a::{A, sub::Deep};\npub use c::C;\n");

    const SUB: &str = "pub mod sub;\npub struct A;\nuse crate::b::B;\n";

    #[test]
    fn one_way_is_no_circle() {
        let files = [LIB, ("a.rs", SUB), ("a/sub.rs", ""), ("b.rs", "use crate::{c::C};\n"), ("c.rs", "")];
        assert_eq!(violations(&files), 0);
    }

    #[test]
    fn a_circle_is_found_however_it_is_written() {
        for back in [
            "use crate::a::A;\n",
            "use crate::{\n    c::{self, X},\n    a::{\n        A,\n    },\n};\n",
            "use super::a::A;\n",
            "use crate::A;\n",
            "fn f() { crate::Deep::new() }\n",
        ] {
            let files =
                [LIB, ("a.rs", SUB), ("a/sub.rs", "pub struct Deep;\n"), ("b.rs", back), ("c.rs", "")];
            assert_eq!(violations(&files), 1, "{back}");
        }
        let deep = [
            LIB,
            ("a.rs", "mod sub;"),
            ("a/sub.rs", "use super::super::c::C;\n"),
            ("b.rs", ""),
            ("c.rs", "use super::a;\n"),
        ];
        assert_eq!(violations(&deep), 1);
        let c = "pub struct C;\nuse crate::a::A;\n";
        let three = [LIB, ("a.rs", SUB), ("a/sub.rs", ""), ("b.rs", "use crate::C;\n"), ("c.rs", c)];
        assert_eq!(violations(&three), 1);
    }

    #[test]
    fn what_a_module_keeps_to_itself_and_its_tests_do_not_count() {
        let tests = "#[cfg(test)]\nmod tests {\n    use crate::a::A;\n}\n";
        let files = [
            LIB,
            ("a.rs", SUB),
            ("a/sub.rs", "use super::A;\nuse crate::a::A;\npub(crate) struct C;\n"),
            ("b.rs", tests),
            ("c.rs", ""),
        ];
        assert_eq!(violations(&files), 0);
    }
}
