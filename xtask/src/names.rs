//! Names that have broken file tools before, each allowed by SPEC 4.5 and by the file system.

use std::ffi::OsString;

/// File names.
pub(crate) fn odd() -> Vec<OsString> {
    let outside_windows = OUTSIDE_WINDOWS.iter().filter(|_| !cfg!(windows));
    let mut names: Vec<OsString> = EVERYWHERE.iter().chain(outside_windows).map(OsString::from).collect();
    // Exactly the 255 bytes that are allowed: a temporary name made by appending to it does not fit.
    names.push(OsString::from("n".repeat(251) + ".txt"));
    names.push(OsString::from("caf\u{e9}"));
    // Other systems fold or refuse these.
    #[cfg(target_os = "linux")]
    {
        use std::os::unix::ffi::OsStringExt as _;
        names.push(OsString::from_vec(b"not utf-8 \xff\xfe".to_vec()));
        // The one above to a reader, in another normal form.
        names.extend(["cafe\u{301}", "Case", "case"].map(OsString::from));
    }
    names
}

/// Directory names.
pub(crate) fn odd_directories() -> Vec<OsString> {
    ["-rf", "a b", "50%", "~"].map(OsString::from).to_vec()
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
