//! File names: reserved ones, and ones that a platform refuses.

use shiplane_wire::Digest;
use thiserror::Error;

/// Identifies "the same command again": a run that has the same key may resume what an earlier one left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct JobKey(Digest);

impl JobKey {
    /// The key of fetching `source_path` from the peer `peer_id`.
    pub fn new(peer_id: &[u8], source_path: &[u8]) -> Self {
        Self::of_parts(&[peer_id, source_path])
    }

    /// The key of a push: what the peer `peer_id` calls `source` goes to `target`.
    pub fn of_push(peer_id: &[u8], source: &[u8], target: &[u8]) -> Self {
        Self::of_parts(&[peer_id, source, target])
    }

    /// The key of this job for one file of several that may land in the same directory.
    pub fn for_file(self, name: &[u8]) -> Self {
        Self::of_parts(&[self.0.as_bytes(), name])
    }

    /// The key itself.
    pub fn as_bytes(&self) -> &[u8; Digest::LEN_BYTES] {
        self.0.as_bytes()
    }

    /// What its journal is called.
    pub fn journal_name(&self) -> String {
        format!("{OWN_PREFIX}{}{JOURNAL_SUFFIX}", self.hex(JOURNAL_HEX_LEN))
    }

    /// Where a journal that cannot be trusted is moved; `attempt` tells several apart.
    pub fn aside_name(&self, attempt: u32) -> String {
        format!("{}{ASIDE_SUFFIX}{attempt}", self.journal_name())
    }

    /// What its temporary file of this number is called.
    pub fn temp_name(&self, id: u64) -> String {
        format!("{}{id}{TEMP_SUFFIX}", self.temp_prefix())
    }

    /// What every temporary name of this job starts with.
    pub fn temp_prefix(&self) -> String {
        format!("{OWN_PREFIX}{}-", self.hex(TEMP_HEX_LEN))
    }

    /// Lengths go in front, so that no two lists of parts run together to the same bytes.
    fn of_parts(parts: &[&[u8]]) -> Self {
        let mut bytes = Vec::new();
        for part in parts {
            bytes.extend_from_slice(&(part.len() as u64).to_le_bytes());
            bytes.extend_from_slice(part);
        }
        Self(Digest::blake3(&bytes))
    }

    fn hex(&self, len: usize) -> String {
        let mut hex = self.0.to_string();
        hex.truncate(len);
        hex
    }
}

/// Whether `component` is a name that this program gives its own files: never listed by a provider, never
/// accepted from one (a peer that could name our journal could replace it).
pub fn is_own(component: &[u8]) -> bool {
    own_kind(component).is_some()
}

/// What a file of this program's own is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnName {
    /// A journal.
    Journal,
    /// A journal that could not be trusted.
    Aside,
    /// A temporary file.
    Temp,
}

/// Which of its own files this program gives the name; `None` if it is none.
pub fn own_kind(component: &[u8]) -> Option<OwnName> {
    // A folding file system would take another case for the same file.
    let lower = component.to_ascii_lowercase();
    let rest = lower.strip_prefix(OWN_PREFIX.as_bytes())?;
    let hex_len = rest.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let (hex, rest) = rest.split_at(hex_len);
    if hex.len() == JOURNAL_HEX_LEN
        && let Some(rest) = rest.strip_prefix(JOURNAL_SUFFIX.as_bytes())
    {
        let is_aside = rest.strip_prefix(ASIDE_SUFFIX.as_bytes()).is_some_and(is_number);
        return if rest.is_empty() { Some(OwnName::Journal) } else { is_aside.then_some(OwnName::Aside) };
    }
    let number = rest.strip_prefix(b"-").and_then(|rest| rest.strip_suffix(TEMP_SUFFIX.as_bytes()));
    (hex.len() == TEMP_HEX_LEN && number.is_some_and(is_number)).then_some(OwnName::Temp)
}

/// What the names of a job's files have in common, of such a name.
pub fn job_prefix(own: &[u8]) -> &[u8] {
    own.get(..OWN_PREFIX.len() + TEMP_HEX_LEN).unwrap_or(own)
}

fn is_number(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(u8::is_ascii_digit)
}

/// Why a name cannot be used on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NameRefused {
    /// The name has the form of shiplane's own temporary files.
    #[error("the name is reserved for shiplane's own files")]
    Own,
    /// A name that is hidden, where the receiver has not said where it may land.
    #[error("names that begin with a dot are accepted only with an explicit destination")]
    Hidden,
    /// The name breaks a rule of SPEC 4.5.
    #[error(transparent)]
    Path(#[from] shiplane_wire::PathRefused),
    /// The name has several components where one is required.
    #[error("it must be one name, and neither empty nor . or ..")]
    NotOneName,
    /// The file system does not take the name.
    #[error("the file system does not take the name")]
    FileSystem,
    /// Windows names are Unicode.
    #[error("the name is not valid UTF-8, which this platform requires")]
    NotUnicode,
    /// A character that Windows reserves: a separator, a stream or a wildcard.
    #[error("the name contains the byte 0x{byte:02x}, which this platform does not allow")]
    ReservedByte {
        /// The byte.
        byte: u8,
    },
    /// Windows removes a final dot or space, so the name would become another.
    #[error("the name ends in a dot or a space, which this platform removes")]
    TrailingDotOrSpace,
    /// A name under which Windows opens a device.
    #[error("the name belongs to a device on this platform")]
    Device,
}

/// Checks what this platform refuses beyond SPEC 4.5.
pub fn check_component(component: &[u8]) -> Result<(), NameRefused> {
    if is_own(component) {
        return Err(NameRefused::Own);
    }
    if cfg!(windows) { check_windows(component) } else { Ok(()) }
}

fn check_windows(component: &[u8]) -> Result<(), NameRefused> {
    let name = std::str::from_utf8(component).map_err(|_| NameRefused::NotUnicode)?;
    let reserved = |byte: &u8| *byte < b' ' || br#"<>:"/\|?*"#.contains(byte);
    if let Some(&byte) = component.iter().find(|byte| reserved(byte)) {
        return Err(NameRefused::ReservedByte { byte });
    }
    if name.ends_with(['.', ' ']) {
        return Err(NameRefused::TrailingDotOrSpace);
    }
    // `NUL.txt` and `NUL .txt` are the device, too.
    let stem = name.split('.').next().unwrap_or_default().trim_end_matches(' ').to_ascii_uppercase();
    let numbered = |prefix| {
        stem.strip_prefix(prefix).is_some_and(|rest| {
            let mut chars = rest.chars();
            matches!((chars.next(), chars.next()), (Some('0'..='9' | '¹' | '²' | '³'), None))
        })
    };
    if DEVICES.contains(&stem.as_str()) || numbered("COM") || numbered("LPT") {
        return Err(NameRefused::Device);
    }
    Ok(())
}

const OWN_PREFIX: &str = ".shiplane-";
const JOURNAL_SUFFIX: &str = ".journal";
const ASIDE_SUFFIX: &str = ".aside-";
const TEMP_SUFFIX: &str = ".part";

/// 64 bits: no two jobs in one directory meet by chance.
const JOURNAL_HEX_LEN: usize = 16;

/// 32 bits: temporary files are short-lived and few jobs share a directory; names stay short.
const TEMP_HEX_LEN: usize = 8;

const DEVICES: [&str; 6] = ["CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_names_are_recognised() {
        let key = JobKey::new(b"peer", b"a/b");
        for name in [key.journal_name(), key.aside_name(3), key.temp_name(0), key.temp_name(u64::MAX)] {
            assert!(is_own(name.as_bytes()), "{name}");
            assert!(is_own(name.to_ascii_uppercase().as_bytes()), "{name} in upper case");
            assert!(check_component(name.as_bytes()) == Err(NameRefused::Own));
        }
    }

    #[test]
    fn names_that_only_look_like_ours_are_not_ours() {
        for name in [
            ".shiplane-",
            ".shiplane-notes",
            ".shiplane-0123456789abcdef.journal.txt",
            ".shiplane-0123456789abcde.journal",
            ".shiplane-01234567-.part",
            ".shiplane-01234567-1x.part",
            "x.shiplane-01234567-1.part",
        ] {
            assert!(!is_own(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn keys_differ_by_peer_path_and_file() {
        let keys = [
            JobKey::new(b"ab", b"c"),
            JobKey::new(b"a", b"bc"),
            JobKey::new(b"ab", b"c").for_file(b"c"),
            JobKey::new(b"ab", b"c").for_file(b"d"),
        ];
        for (at, key) in keys.iter().enumerate() {
            assert!(keys[at + 1..].iter().all(|other| other != key));
        }
    }

    #[test]
    fn windows_refuses_what_it_would_misread() {
        let refused = |name: &str| check_windows(name.as_bytes()).unwrap_err();
        for device in ["CON", "con", "nul.txt", "NUL .txt", "COM1", "COM¹", "lpt9.log", "COM0", "conin$"] {
            assert_eq!(refused(device), NameRefused::Device, "{device}");
        }
        assert_eq!(refused("x:ads"), NameRefused::ReservedByte { byte: b':' });
        assert_eq!(refused(r"a\b"), NameRefused::ReservedByte { byte: b'\\' });
        assert_eq!(refused("a\u{1b}"), NameRefused::ReservedByte { byte: 0x1b });
        assert_eq!(refused("a."), NameRefused::TrailingDotOrSpace);
        assert_eq!(refused("a "), NameRefused::TrailingDotOrSpace);
        assert_eq!(check_windows(b"\xff"), Err(NameRefused::NotUnicode));
        for fine in ["a.b", "console", "COM", "COM10", "nul-1", ".x"] {
            assert_eq!(check_windows(fine.as_bytes()), Ok(()), "{fine}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn unix_takes_windows_names_literally() {
        for name in ["CON", "x:ads", r"a\b", "COM¹", "a."] {
            assert_eq!(check_component(name.as_bytes()), Ok(()), "{name}");
        }
    }
}
