//! A cache of digests of unchanged files.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use shiplane_wire::{Digest, Mtime, RelPath, Version};

use super::codec::MAX_ENTRIES;
use crate::own_file::{read_file, replace_file};
use crate::platform::sealed::{self, Magic};

/// Knows the content of a file by its metadata: device, inode, size, and when it and its metadata were last
/// changed, so that an untouched file is looked at and not read. Keep one for each
/// dataset.
///
/// It is nothing but a cache: a file that is missing, damaged, or of another version of this program is an
/// empty one.
///
/// # When the metadata is not enough
///
/// A system stamps a file with a clock that ticks every few milliseconds, on some file systems every two
/// seconds. A file that is read and then written again within the same tick looks as it did before. So what
/// was hashed is not kept here if the file had changed less than two seconds before it was read, or later
/// than that by its own account; it is read again next time. Git's index has the same rule for what it calls
/// *racily clean* entries. What remains is a program that writes through a memory map, which some systems
/// stamp late, a clock set back to the very tick, and on Windows, where the time of the last
/// change can be set at will, a program that puts it back.
#[derive(Debug)]
pub struct StatCache {
    path: PathBuf,
    digests: HashMap<StatKey, Digest>,
    /// Whether it is not what the file has.
    is_changed: bool,
}

impl StatCache {
    /// Reads the cache at `path`, or begins one. Blocks.
    pub fn load(path: &Path) -> Self {
        let digests = match read_file(path, MAX_FILE_LEN_BYTES).map(|file| decode(&file.bytes)) {
            Ok(Some(digests)) => digests,
            Ok(None) => {
                tracing::warn!(path = %path.display(), "a damaged cache: all files are read again");
                HashMap::new()
            }
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::warn!(path = %path.display(), %error, "no cache: all files are read again");
                }
                HashMap::new()
            }
        };
        Self { path: path.into(), digests, is_changed: false }
    }

    /// Writes it back, if there is anything new. A reader sees the old cache or the new one,
    /// whole. Its directory is created when it is missing. Blocks.
    ///
    /// # Errors
    /// What the system said; the old file stays then. No harm is done: files are read again next time.
    pub fn save(&self) -> io::Result<()> {
        if self.is_changed { replace_file(&self.path, &encode(&self.digests)) } else { Ok(()) }
    }

    #[cfg(test)]
    pub(super) fn sorted(&self) -> Vec<(StatKey, Digest)> {
        let mut digests: Vec<_> = self.digests.iter().map(|(key, digest)| (*key, *digest)).collect();
        digests.sort_unstable();
        digests
    }

    pub(super) fn get(&self, key: &StatKey) -> Option<Digest> {
        self.digests.get(key).copied()
    }

    /// Adds what a scan has read; if it saw the whole dataset, in place of what it did not see.
    pub(super) fn learn(&mut self, seen: HashMap<StatKey, Digest>, is_whole: bool) {
        let is_news = |(key, digest)| self.digests.get(key) != Some(digest);
        let is_less = is_whole && self.digests.keys().any(|key| !seen.contains_key(key));
        self.is_changed |= is_less || seen.iter().any(is_news);
        if is_whole {
            self.digests = seen;
        } else {
            self.digests.extend(seen);
        }
    }
}

/// One state of one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct StatKey([u8; 16]);

impl StatKey {
    pub(super) fn new(path: &RelPath, version: Version) -> Self {
        if HAS_INODES {
            // A file is known again wherever it is moved.
            return Self(*version.as_bytes());
        }
        let digest = Digest::blake3(&[version.as_bytes(), path.as_bytes()].concat());
        let mut key = [0; 16];
        key.copy_from_slice(&digest.as_bytes()[..16]);
        Self(key)
    }
}

/// Whether a file that was last changed at `changed` and read at `read_at` may be written again without
/// looking any different.
pub(super) fn is_racy(changed: Mtime, read_at: SystemTime) -> bool {
    let settled = read_at.checked_sub(COARSEST_TICK).and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    // A clock before 1970 is no clock.
    settled.is_none_or(|settled| (changed.secs, changed.nanos) >= (seconds(settled), settled.subsec_nanos()))
}

fn seconds(since: Duration) -> i64 {
    since.as_secs().try_into().unwrap_or(i64::MAX)
}

/// Elsewhere a version says nothing of which file it is.
const HAS_INODES: bool = cfg!(unix);

/// 2 s: FAT keeps even seconds; all others are finer.
const COARSEST_TICK: Duration = Duration::from_secs(2);

const MAGIC: &Magic = b"shiplane-stat 3\n";

const ENTRY_LEN_BYTES: usize = 48;

/// As many entries as a dataset may have, and what is around them.
const MAX_FILE_LEN_BYTES: u64 = (MAX_ENTRIES * ENTRY_LEN_BYTES + 64) as u64;

/// For each file the key and the digest, in order of the keys, sealed.
fn encode(digests: &HashMap<StatKey, Digest>) -> Vec<u8> {
    let mut entries: Vec<_> = digests.iter().collect();
    entries.sort_unstable();
    let mut content = Vec::with_capacity(entries.len() * ENTRY_LEN_BYTES);
    for (key, digest) in entries {
        content.extend_from_slice(&key.0);
        content.extend_from_slice(digest.as_bytes());
    }
    sealed::seal(MAGIC, &[&content])
}

fn decode(bytes: &[u8]) -> Option<HashMap<StatKey, Digest>> {
    let content = sealed::unseal(MAGIC, bytes)?;
    let (entries, rest) = content.as_chunks::<ENTRY_LEN_BYTES>();
    if !rest.is_empty() || entries.len() > MAX_ENTRIES || !entries.is_sorted_by(|a, b| a[..16] < b[..16]) {
        return None;
    }
    let split = |entry: &[u8; ENTRY_LEN_BYTES]| {
        let (key, digest) = entry.split_first_chunk()?;
        Some((StatKey(*key), Digest::from_bytes(digest.try_into().ok()?)))
    };
    entries.iter().map(split).collect()
}

/// Fuzz entry: a file of a cache, as it is and sealed. The fuzzer rarely finds a seal of its own.
pub fn fuzz_stat_cache(data: &[u8]) {
    for bytes in [data, &sealed::seal(MAGIC, &[data])] {
        if let Some(digests) = decode(bytes) {
            assert_eq!(encode(&digests), bytes, "one encoding only");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;

    fn of(entries: impl IntoIterator<Item = ([u8; 16], [u8; 32])>) -> HashMap<StatKey, Digest> {
        entries.into_iter().map(|(key, digest)| (StatKey(key), Digest::from_bytes(digest))).collect()
    }

    #[test]
    fn the_bytes_of_a_cache_are_these() {
        let two = of([([2; 16], [0xbb; 32]), ([1; 16], [0xaa; 32])]);
        let content = [&[1; 16][..], &[0xaa; 32], &[2; 16], &[0xbb; 32]].concat();
        let sealed = [&b"shiplane-stat 3\n"[..], &content].concat();
        let check = Digest::blake3(&sealed);
        assert_eq!(encode(&two), [&sealed[..], check.as_bytes()].concat());
        assert_eq!(decode(&encode(&two)), Some(two));
    }

    #[test]
    fn keys_out_of_order_or_twice_and_half_entries_are_not_ours() {
        let entry = |key: u8| [&[key; 16][..], &[7; 32]].concat();
        for (content, is_ours) in [
            (vec![], true),
            ([entry(1), entry(2)].concat(), true),
            ([entry(2), entry(1)].concat(), false),
            ([entry(1), entry(1)].concat(), false),
            (entry(1)[..47].to_vec(), false),
        ] {
            assert_eq!(decode(&sealed::seal(MAGIC, &[&content])).is_some(), is_ours, "{content:?}");
        }
    }

    #[test]
    fn a_cache_is_kept_and_a_damaged_one_is_empty() {
        let dir = tempfile::TempDir::new().unwrap();
        let path = dir.path().join("state/cache");
        let mut cache = StatCache::load(&path);
        cache.learn(of([([1; 16], [1; 32]), ([2; 16], [2; 32])]), true);
        cache.save().unwrap();
        assert_eq!(StatCache::load(&path).digests, cache.digests);

        let mut bytes = fs::read(&path).unwrap();
        bytes[20] ^= 1;
        fs::write(&path, bytes).unwrap();
        assert!(StatCache::load(&path).digests.is_empty());
        fs::write(&path, b"").unwrap();
        assert!(StatCache::load(&path).digests.is_empty());
    }

    #[test]
    fn a_whole_scan_replaces_what_is_known_and_half_a_one_adds_to_it() {
        let dir = tempfile::TempDir::new().unwrap();
        let mut cache = StatCache::load(&dir.path().join("cache"));
        cache.learn(of([([1; 16], [1; 32]), ([2; 16], [2; 32])]), true);
        cache.learn(of([([3; 16], [3; 32])]), false);
        assert_eq!(cache.digests.len(), 3);
        cache.learn(of([([2; 16], [2; 32])]), true);
        assert_eq!(cache.digests, of([([2; 16], [2; 32])]));
    }

    #[test]
    fn only_news_is_written() {
        let dir = tempfile::TempDir::new().unwrap();
        let path = dir.path().join("cache");
        let known = || of([([1; 16], [1; 32]), ([2; 16], [2; 32])]);
        let mut cache = StatCache::load(&path);
        cache.learn(HashMap::new(), true);
        cache.save().unwrap();
        assert!(!path.exists());
        cache.learn(known(), true);
        cache.save().unwrap();
        for (seen, is_news) in [
            (known(), false),
            (of([([1; 16], [1; 32])]), true),
            (of([([1; 16], [1; 32]), ([2; 16], [9; 32])]), true),
        ] {
            let mut cache = StatCache::load(&path);
            cache.learn(seen, true);
            assert_eq!(cache.is_changed, is_news);
        }
    }

    #[test]
    fn what_changed_within_two_seconds_before_it_was_read_is_not_trusted() {
        let read_at = UNIX_EPOCH + Duration::new(1_000_000, 500);
        let changed = |secs, nanos| is_racy(Mtime { secs, nanos }, read_at);
        assert!(!changed(999_998, 499));
        assert!(changed(999_998, 500), "the very tick");
        assert!(changed(1_000_000, 500) && changed(2_000_000, 0), "nor what is from the future");
        assert!(!changed(-1, 0));
        assert!(is_racy(Mtime { secs: -5, nanos: 0 }, UNIX_EPOCH), "without a clock nothing is");
    }

    proptest! {
        #[test]
        fn any_cache_comes_back(entries in prop::collection::vec(any::<([u8; 16], [u8; 32])>(), 0..20)) {
            let digests = of(entries);
            prop_assert_eq!(decode(&encode(&digests)), Some(digests));
        }

        #[test]
        fn soup_is_no_cache(soup: Vec<u8>) {
            prop_assert_eq!(decode(&soup), None);
            fuzz_stat_cache(&soup);
        }
    }
}
