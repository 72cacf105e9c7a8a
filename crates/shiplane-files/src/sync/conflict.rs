//! Names of conflict copies.

use shiplane_wire::{Digest, PathRefused, RelPath, limits};

/// `report.txt` becomes `report.conflict-0123456789ab.txt`: the same for both sides, since it is made of
/// the content, and still opened by the same program. `attempt` is for the case that the name is taken.
pub(super) fn name_of(path: &RelPath, digest: &Digest, attempt: u32) -> Result<RelPath, PathRefused> {
    let hex = digest.to_string();
    let mut mark = format!(".conflict-{}", &hex[..DIGITS]);
    if attempt > 0 {
        mark.push_str(&format!("-{attempt}"));
    }
    let name = path.file_name();
    // A leading dot hides a file, it does not end its name.
    let dot = name.iter().rposition(|byte| *byte == b'.').filter(|at| *at > 0);
    let (stem, extension) = name.split_at(dot.unwrap_or(name.len()));
    let extension = if extension.len() <= MAX_EXTENSION_LEN_BYTES { extension } else { &[] };
    let room = limits::MAX_COMPONENT_LEN_BYTES - mark.len() - extension.len();
    let stem = &stem[..cut_at(stem, room)];
    let name = [stem, mark.as_bytes(), extension].concat();
    match path.parent() {
        Some(parent) => parent.join(&name),
        None => RelPath::parse(&name),
    }
}

/// The longest start of `stem` within `room` that does not end within a character.
fn cut_at(stem: &[u8], room: usize) -> usize {
    if stem.len() <= room {
        return stem.len();
    }
    let is_start = |at: &usize| (stem[*at] as i8) >= -0x40;
    (room.saturating_sub(3)..=room).rev().find(is_start).unwrap_or(room)
}

/// 48 bits: enough that two versions of one file do not meet by chance; if they do, both are kept anyway.
const DIGITS: usize = 12;

/// What is longer is hardly an extension.
const MAX_EXTENSION_LEN_BYTES: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn named(path: &str, attempt: u32) -> String {
        let path = RelPath::parse(path.as_bytes()).unwrap();
        name_of(&path, &Digest::from_bytes([0xab; 32]), attempt).unwrap().to_string()
    }

    #[test]
    fn the_extension_stays_the_last_thing() {
        assert_eq!(named("a/report.txt", 0), "a/report.conflict-abababababab.txt");
        assert_eq!(named("a/report.txt", 2), "a/report.conflict-abababababab-2.txt");
        assert_eq!(named("Makefile", 0), "Makefile.conflict-abababababab");
        assert_eq!(named(".profile", 0), ".profile.conflict-abababababab");
    }

    #[test]
    fn a_long_name_stays_within_its_bounds_and_its_characters_whole() {
        for name in ["x".repeat(255), "ü".repeat(127), format!("{}.txt", "€".repeat(83))] {
            let renamed = named(&name, 7);
            assert!(renamed.len() <= 255 && !renamed.contains('\\'), "{renamed}");
        }
    }
}
