//! Which paths filters exclude.

use std::fs;

use tempfile::TempDir;

use super::*;
use crate::{
    scan::Scanned,
    source::{Source, SourceRoot},
};

fn rules(patterns: &[&str]) -> FilterRules {
    FilterRules { patterns: patterns.iter().map(ToString::to_string).collect(), ..FilterRules::default() }
}

fn listed(paths: &[&str]) -> FilterRules {
    FilterRules {
        listed: Some(paths.iter().map(|path| path.as_bytes().to_vec()).collect()),
        ..FilterRules::default()
    }
}

/// A tree of empty files.
fn tree(paths: &[&str]) -> TempDir {
    let temp = TempDir::new().unwrap();
    for path in paths {
        write(&temp, path, "");
    }
    temp
}

fn write(temp: &TempDir, path: &str, text: &str) {
    let path = temp.path().join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn source(temp: &TempDir, rules: FilterRules) -> Source {
    let source = SourceRoot::open(temp.path()).unwrap().resolve(b"").unwrap();
    source.with_filters(Filters::new(rules).unwrap().into())
}

/// What is listed, sorted; directories end in a slash, what is left out begins with `!`.
fn found(temp: &TempDir, rules: FilterRules) -> Vec<String> {
    let scanned = source(temp, rules).scan().filter_map(|scanned| match scanned.unwrap() {
        Scanned::Top(_) => None,
        Scanned::Entry(entry) if entry.kind == shiplane_wire::EntryKind::Directory => {
            Some(format!("{}/", entry.path))
        }
        Scanned::Entry(entry) => Some(entry.path.to_string()),
        Scanned::LeftOut { path, .. } => Some(format!("!{path}")),
    });
    let mut found: Vec<_> = scanned.collect();
    found.sort();
    found
}

#[test]
fn the_last_pattern_that_matches_decides() {
    let temp = tree(&["a.o", "a.c", "d/b.o", "d/keep.o", "logs/x", "src/logs/y"]);
    for (patterns, expected) in [
        (&["*.o"][..], &["a.c", "d/", "logs/", "logs/x", "src/", "src/logs/", "src/logs/y"][..]),
        (&["*.o", "!keep.o", "/logs"], &["a.c", "d/", "d/keep.o", "src/", "src/logs/", "src/logs/y"]),
        (&["!keep.o", "*.o", "logs/"], &["a.c", "d/", "src/"]),
        (&["*", "!*/", "!*.c"], &["a.c", "d/", "logs/", "src/", "src/logs/"]),
        (&["d/*", "!d/b.o", "logs", "src"], &["a.c", "a.o", "d/", "d/b.o"]),
        (&["d", "!d/b.o", "logs", "src"], &["a.c", "a.o"]),
    ] {
        assert_eq!(found(&temp, rules(patterns)), expected, "{patterns:?}");
    }
}

#[test]
fn an_excluded_directory_is_not_read() {
    use std::os::unix::fs::PermissionsExt;
    let temp = tree(&["a", "secret/x"]);
    fs::set_permissions(temp.path().join("secret"), fs::Permissions::from_mode(0o0)).unwrap();
    assert_eq!(found(&temp, rules(&["secret"])), ["a"]);
    fs::set_permissions(temp.path().join("secret"), fs::Permissions::from_mode(0o700)).unwrap();
}

#[test]
fn only_what_is_listed_takes_part_and_what_is_missing_is_left_out() {
    let temp = tree(&["a", "d/b", "d/c", "d/e/f", "d-x", "z/y"]);
    for (paths, expected) in [
        (&["a", "./d/b", "d/e/"][..], &["a", "d/", "d/b", "d/e/", "d/e/f"][..]),
        (&["d"], &["d/", "d/b", "d/c", "d/e/", "d/e/f"]),
        (&["d/none", "none/x"], &["!d/none", "!none/x", "d/"]),
        (&[], &[]),
        (&[".", "none"], &["a", "d-x", "d/", "d/b", "d/c", "d/e/", "d/e/f", "z/", "z/y"]),
    ] {
        assert_eq!(found(&temp, listed(paths)), expected, "{paths:?}");
    }
    let both = FilterRules { patterns: vec!["d/e".into()], ..listed(&["d/b", "d/e/f"]) };
    assert_eq!(found(&temp, both), ["d/", "d/b"], "what is excluded is not missing");
}

#[test]
fn ignore_files_count_where_no_pattern_decides_and_the_nearest_first() {
    let temp = tree(&["a.o", "b.tmp", "d/a.o", "d/b.tmp", "d/e/a.o", "build/x", "d/build/y"]);
    write(&temp, ".gitignore", "*.o\n/build\n*.tmp\n");
    write(&temp, ".shiplaneignore", "!b.tmp\n");
    write(&temp, "d/.gitignore", "!a.o\nb.tmp\n[broken\n");
    let ignoring = |patterns| FilterRules { ignore_files: true, ..rules(patterns) };
    assert_eq!(
        found(&temp, ignoring(&["/.gitignore"])),
        [
            ".shiplaneignore",
            "b.tmp",
            "d/",
            "d/.gitignore",
            "d/a.o",
            "d/build/",
            "d/build/y",
            "d/e/",
            "d/e/a.o"
        ]
    );
    let overruled = found(&temp, ignoring(&["d", "!build"]));
    assert_eq!(overruled, [".gitignore", ".shiplaneignore", "b.tmp", "build/", "build/x"]);
    assert_eq!(found(&temp, rules(&[])).len(), 14, "without the option they are files like any other");

    let mut scan = source(&temp, ignoring(&["d"])).scan();
    scan.note_own();
    while scan.next().is_some() {}
    let mut excluded: Vec<_> = scan.take_excluded().iter().map(ToString::to_string).collect();
    excluded.sort();
    assert_eq!(excluded, ["a.o", "build"], "what only this side can know");
}

#[test]
fn a_broken_or_endless_rule_is_refused() {
    for broken in ["[", "a[!]", "a[[:alpha:]", "a[z-a]", "a\\", "/", &"*a".repeat(61)] {
        assert!(matches!(Filters::new(rules(&["x", broken])), Err(FiltersError::Pattern { .. })), "{broken}");
        assert!(matches!(Filters::excluding(broken), Err(FiltersError::Pattern { .. })), "{broken}");
        assert!(matches!(Filters::including(broken), Err(FiltersError::Pattern { .. })), "{broken}");
    }
    for good in ["[]]", "[!]a]", "[a-]", "[[:alpha:]_]", "a\\[", "{a,b}", "\\\\"] {
        assert!(Filters::excluding(good).is_ok(), "{good}");
    }
    assert!(matches!(Filters::excluding(""), Err(FiltersError::Pattern { .. })));
    for path in ["/a", "a/../b", "a//b"] {
        assert!(matches!(Filters::new(listed(&[path])), Err(FiltersError::Path { .. })), "{path}");
    }
    let many = rules(&["x"; 10_000]);
    assert!(matches!(Filters::new(many), Err(FiltersError::TooManyPatterns { .. })));
    let long = listed(&["x"; 100_000]);
    assert!(matches!(Filters::new(long), Err(FiltersError::ListTooLong { .. })));
}

#[test]
fn names_that_are_no_text_and_spaces_that_are_escaped_match() {
    let excludes = |pattern: &str, path: &[u8]| {
        let filters = Filters::new(rules(&[pattern])).unwrap();
        filters.excludes(&RelPath::parse(path).unwrap(), false)
    };
    assert!(excludes("a?b", b"a\xffb"));
    assert!(excludes("*", b"\xff\xfe"));
    assert!(excludes("a  ", b"a"));
    assert!(excludes("a\\ ", b"a "));
    assert!(!excludes("a\\ ", b"a"));
    assert!(excludes("**/x/*.o", b"x/a.o") && excludes("**/x/*.o", b"d/x/a.o"));
    assert!(!excludes("x/*.o", b"x/y/a.o"));
    assert!(excludes("[[:digit:]]x", b"7x"));
}

#[test]
fn a_hostile_pattern_takes_little_time_and_memory() {
    let (stars, name) = ("*a".repeat(60) + "b", "a".repeat(255));
    let filters = Filters::new(rules(&[&stars])).unwrap();
    let path = [name.as_str(); 15].join("/");
    assert!(!filters.excludes(&RelPath::parse(path.as_bytes()).unwrap(), false));
    let across = Filters::new(rules(&[&("**/a*/".repeat(20) + "b")])).unwrap();
    assert!(!across.excludes(&RelPath::parse(path.as_bytes()).unwrap(), false));
}

#[test]
fn ignore_files_of_all_directories_above_are_bounded_together() {
    let temp = TempDir::new().unwrap();
    let many = "x\n".repeat(15_000);
    let mut path = String::new();
    for _ in 0..3 {
        write(&temp, &format!("{path}.gitignore"), &many);
        path.push_str("d/");
    }
    write(&temp, &format!("{path}a"), "");
    let ignoring = FilterRules { ignore_files: true, ..rules(&[]) };
    assert_eq!(found(&temp, ignoring), ["!d", ".gitignore"].map(str::to_owned));
}

#[test]
fn a_pattern_from_the_command_line_is_no_comment() {
    let filters = Filters::new(rules(&[&Filters::excluding("#x").unwrap()])).unwrap();
    assert!(filters.excludes(&RelPath::parse(b"#x").unwrap(), false));
}

#[test]
fn other_filters_have_another_digest_and_the_same_list_has_one() {
    let digest = |rules| Filters::new(rules).unwrap().digest();
    assert_eq!(digest(listed(&["a", "b"])), digest(listed(&["./b", "a/", "a"])));
    let all = [
        rules(&[]),
        rules(&["a", "b"]),
        rules(&["b", "a"]),
        rules(&["ab"]),
        listed(&[]),
        listed(&["a"]),
        FilterRules { ignore_files: true, ..rules(&[]) },
        FilterRules { one_file_system: true, ..rules(&[]) },
    ];
    let digests: BTreeSet<_> = all.iter().cloned().map(digest).collect();
    assert_eq!(digests.len(), all.len());
    assert!(Filters::new(all[0].clone()).unwrap().is_none());
    assert!(!Filters::new(all[4].clone()).unwrap().is_none());
}
