//! Imports go one way inside a crate, as they do between crates: no two of its top-level modules use each other, be it
//! by way of others.

use std::collections::{BTreeMap, BTreeSet};

use super::Violation;
use super::source::{SourceFile, code};

/// Modules by name, with those that each uses.
type Uses = BTreeMap<String, BTreeSet<String>>;

/// One violation for each circle of modules.
pub(super) fn check(files: &[SourceFile]) -> Vec<Violation> {
    let crates: BTreeSet<_> = files.iter().filter_map(SourceFile::crate_name).collect();
    crates.into_iter().flat_map(|name| check_crate(name, files)).collect()
}

fn check_crate(name: &str, files: &[SourceFile]) -> Vec<Violation> {
    let root = format!("crates/{name}/src");
    let within = |file: &&SourceFile| file.path.starts_with(&root);
    let Some(lib) = files.iter().find(|file| file.path.ends_with(format!("{root}/lib.rs"))) else {
        return Vec::new();
    };
    let modules = modules(lib);
    let mut uses = Uses::new();
    for file in files.iter().filter(within) {
        let relative = file.path.strip_prefix(&root).unwrap_or(&file.path);
        let parts: Vec<_> = relative.iter().map(|part| part.to_string_lossy()).collect();
        let Some(own) = parts.first().map(|part| part.trim_end_matches(".rs")) else { continue };
        // How many `super` lead to the crate's root.
        let depth = parts.len() - usize::from(parts.last().is_some_and(|last| last == "mod.rs"));
        let text = text(file);
        let root = "super::".repeat(depth);
        let named = first_names(&text, "crate::").into_iter().chain(first_names(&text, &root));
        let used = named.filter_map(|name| modules.get(&name).cloned());
        let used = used.filter(|used| used != own && used != TOOLS);
        uses.entry(own.to_owned()).or_default().extend(used);
    }
    let names = |circle: &BTreeSet<String>| circle.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
    let named = |circle| format!("the modules {} use each other: let imports go one way", names(circle));
    circles(&uses).iter().map(|circle| lib.violation_of_all(named(circle))).collect()
}

/// The module that a name at the crate's root stands for: its own, or that which it is re-exported from.
fn modules(lib: &SourceFile) -> BTreeMap<String, String> {
    let text = text(lib);
    let mut modules = BTreeMap::new();
    for line in text.lines() {
        if let Some((_, name)) = line.split_once("mod ")
            && let Some(name) = name.strip_suffix(';')
            && !line.starts_with(' ')
        {
            modules.insert(name.to_owned(), name.to_owned());
        }
    }
    let mut exported = BTreeMap::new();
    for module in modules.keys() {
        for name in last_names(&text, &format!("pub use {module}::")) {
            exported.insert(name, module.clone());
        }
    }
    exported.extend(modules);
    exported
}

/// The code of a file, without its tests.
fn text(file: &SourceFile) -> String {
    let lines = file.lines.iter().enumerate().filter(|(at, _)| !file.is_test(*at));
    lines.flat_map(|(_, line)| [code(line), "\n"]).collect()
}

/// The first name of each path that follows `prefix`, of which there are several in braces.
fn first_names(text: &str, prefix: &str) -> Vec<String> {
    let names = trees(text, prefix).into_iter().map(word);
    names.filter(|name| !name.is_empty()).collect()
}

/// The last name of each path that follows `prefix`.
fn last_names(text: &str, prefix: &str) -> Vec<String> {
    let last = |path: &str| word(path.rsplit("::").next().unwrap_or(path));
    // The comma before a closing brace leaves nothing after it.
    let names = trees(text, prefix).into_iter().map(last);
    names.filter(|name| !name.is_empty()).collect()
}

fn word(path: &str) -> String {
    path.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

fn trees<'a>(text: &'a str, prefix: &str) -> Vec<&'a str> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices(prefix) {
        // `super::super::` is not what is meant by `super::`.
        if text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':') {
            continue;
        }
        let rest = &text[at + prefix.len()..];
        match rest.strip_prefix('{') {
            Some(inner) => found.extend(parts(inner)),
            None => found.push(&rest[..rest.find([';', ' ', '\n', '(', ')', ',']).unwrap_or(rest.len())]),
        }
    }
    found
}

/// What stands between the commas up to the brace that closes.
fn parts(inner: &str) -> Vec<&str> {
    let (mut found, mut depth, mut from) = (Vec::new(), 0, 0);
    for (at, c) in inner.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                found.push(&inner[from..at]);
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                found.push(&inner[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    found
}

/// Sets of modules of which each reaches all others.
fn circles(uses: &Uses) -> BTreeSet<BTreeSet<String>> {
    let reach: BTreeMap<_, _> = uses.keys().map(|module| (module, reached(uses, module))).collect();
    let circle = |module: &String| {
        let back = |other: &&String| reach.get(other).is_some_and(|reached| reached.contains(module));
        reach[module].iter().filter(back).cloned().collect::<BTreeSet<_>>()
    };
    uses.keys().map(circle).filter(|circle| circle.len() > 1).collect()
}

fn reached(uses: &Uses, from: &str) -> BTreeSet<String> {
    let (mut reached, mut open) = (BTreeSet::new(), vec![from]);
    while let Some(module) = open.pop() {
        for next in uses.get(module).into_iter().flatten() {
            if reached.insert(next.clone()) {
                open.push(next);
            }
        }
    }
    reached
}

/// Entries for the fuzzer stand beside the code and share drivers, which know all of that code, as tests do.
const TOOLS: &str = "fuzz";

#[cfg(test)]
mod tests {
    use super::*;

    /// Violations of a crate with these files.
    fn violations(files: &[(&str, &str)]) -> usize {
        let file = |(path, text): &(&str, &str)| SourceFile::new(format!("crates/a/src/{path}"), text);
        check(&files.iter().map(file).collect::<Vec<_>>()).len()
    }

    const LIB: (&str, &str) =
        ("lib.rs", "mod a;\npub mod b;\nmod c;\n\npub use a::{A, sub::Deep};\npub use c::C;\n");

    #[test]
    fn one_way_is_no_circle() {
        let files = [LIB, ("a.rs", "use crate::b::B;\n"), ("b.rs", "use crate::{c::C};\n"), ("c.rs", "")];
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
            assert_eq!(violations(&[LIB, ("a.rs", "use crate::b::B;\n"), ("b.rs", back)]), 1, "{back}");
        }
        let deep = [LIB, ("a/sub.rs", "use super::super::c::C;\n"), ("c/mod.rs", "use super::a;\n")];
        assert_eq!(violations(&deep), 1);
        let three =
            [("a.rs", "use crate::b;\n"), ("b.rs", "use crate::C;\n"), ("c.rs", "use crate::a::A;\n")];
        assert_eq!(violations(&[&[LIB], &three[..]].concat()), 1);
    }

    #[test]
    fn what_a_module_keeps_to_itself_and_its_tests_do_not_count() {
        let files = [
            LIB,
            ("a.rs", "mod sub;\nuse crate::b::B;\n"),
            ("a/sub.rs", "use super::A;\nuse crate::a::A;\n"),
            ("b.rs", "fn f() {}\n\n#[cfg(test)]\nmod tests {\n    use crate::a::A;\n}\n"),
            ("b/tests.rs", "use crate::a::A;\n"),
        ];
        assert_eq!(violations(&files), 0);
    }
}
