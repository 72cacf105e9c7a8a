//! Names that have broken file tools before, each allowed by SPEC 4.5 and by the file system.

use std::ffi::OsString;

/// File names.
pub(crate) fn odd() -> Vec<OsString> {
    let mut names: Vec<OsString> = EVERYWHERE.iter().map(OsString::from).collect();
    if !cfg!(windows) {
        names.extend(OUTSIDE_WINDOWS.iter().map(OsString::from));
    }
    names.push(longest());
    names.extend(linux_only());
    names
}

/// Directory names.
pub(crate) fn odd_directories() -> Vec<OsString> {
    ["-rf", "a b", "50%", "~"].map(OsString::from).to_vec()
}

/// A component of exactly the 255 bytes that are allowed: a temporary name made by appending to it
/// does not fit.
fn longest() -> OsString {
    let mut name = "n".repeat(251);
    name.push_str(".txt");
    OsString::from(name)
}

/// Other systems fold or refuse these.
#[cfg(target_os = "linux")]
fn linux_only() -> Vec<OsString> {
    use std::os::unix::ffi::OsStringExt as _;
    let bytes: [&[u8]; 5] = [
        b"not utf-8 \xff\xfe",
        // The same name twice to a reader, in two normal forms.
        "caf\u{e9}".as_bytes(),
        "cafe\u{301}".as_bytes(),
        b"Case",
        b"case",
    ];
    bytes.iter().map(|name| OsString::from_vec(name.to_vec())).collect()
}

#[cfg(not(target_os = "linux"))]
fn linux_only() -> Vec<OsString> {
    vec![OsString::from("caf\u{e9}")]
}

const EVERYWHERE: [&str; 10] = [
    "with some spaces.txt",
    " leading space",
    "-leading-dash",
    "--help",
    "it's quoted",
    "\u{1f6a2}\u{fe0f} ship \u{1f469}\u{200d}\u{1f680}.bin",
    // Decoded by mistake, these two are one.
    "%41",
    "A",
    ".hidden",
    "...",
];

const OUTSIDE_WINDOWS: [&str; 9] = [
    "\"double quotes\"",
    "back\\slash",
    "star*question?",
    "colon:name",
    "trailing space ",
    "tab\tbetween",
    "escape\u{1b}[31mred",
    // Shown with its end first.
    "\u{202e}gpj.exe",
    "$HOME `id` ;&|<>",
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_name_is_a_component_and_none_stands_twice() {
        let names = odd().into_iter().chain(odd_directories());
        let mut seen = BTreeSet::new();
        for name in names {
            let bytes = name.as_encoded_bytes();
            assert!(!bytes.is_empty() && bytes.len() <= 255, "{name:?}");
            assert!(!bytes.iter().any(|byte| matches!(byte, 0 | b'\r' | b'\n' | b'/')), "{name:?}");
            assert!(seen.insert(name.clone()), "{name:?} twice");
        }
        assert!(seen.iter().any(|name| name.len() == 255));
    }
}
