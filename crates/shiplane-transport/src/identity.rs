//! The identity of a peer: its key, its id and its address.

mod key_file;
mod peer_id;

use std::{fmt, io, net::SocketAddr, path::PathBuf};

use ring::{
    hmac,
    rand::{SecureRandom, SystemRandom},
    signature::{Ed25519KeyPair, KeyPair},
};
use thiserror::Error;
use zeroize::Zeroizing;

pub use key_file::fuzz_key_file;
pub use peer_id::fuzz_peer_id;
pub use peer_id::{PeerId, PeerIdError};

/// The Ed25519 key pair that this process is known by.
///
/// There is no way to read the private key out of it but [`Identity::load_or_create`]'s file. Its
/// bytes are wiped when the identity is dropped, those of each clone with that clone. (The TLS stack makes signing keys of its own from
/// them; those live as long as the endpoint and are not wiped.)
#[derive(Clone)]
pub struct Identity {
    private: PrivateKey,
    id: PeerId,
}

impl Identity {
    /// Makes a new identity that lives in memory only.
    ///
    /// # Errors
    ///
    /// [`IdentityError::NoRandomness`] if the operating system has no random bytes to give; try
    /// again later.
    pub fn generate() -> Result<Self, IdentityError> {
        let mut private = PrivateKey::blank();
        SystemRandom::new().fill(private.seed_mut()).map_err(|_| IdentityError::NoRandomness)?;
        Ok(Self::from_private(private))
    }

    /// The id by which others know, trust and pin this identity.
    pub fn peer_id(&self) -> PeerId {
        self.id
    }

    /// The private key as a PKCS#8 document. A caller that copies it has to wipe the copy.
    pub(crate) fn pkcs8(&self) -> &[u8] {
        self.private.pkcs8()
    }

    /// The key of the tokens by which this peer, restarted at `addr`, tells others that it has lost
    /// their connections (SPEC 1.10, RFC 9000 section 10.3.2). Two programs of one identity must not share it: one
    /// could be made to end the other's connections.
    pub(crate) fn reset_key(&self, addr: SocketAddr) -> hmac::Key {
        let seed = hmac::Key::new(hmac::HMAC_SHA256, &self.private.0[PKCS8_PREFIX.len()..]);
        let label = format!("shiplane stateless reset {addr}");
        hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&seed, label.as_bytes()).as_ref())
    }

    fn from_private(private: PrivateKey) -> Self {
        let id = private.peer_id();
        Self { private, id }
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Identity").field(&self.id).finish()
    }
}

/// Where a peer is and who must answer there.
///
/// Its text form is `sl1…@host:port`, with the whole id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PeerAddr {
    /// The key that must answer.
    pub id: PeerId,
    /// The UDP address it answers at.
    pub addr: SocketAddr,
}

impl fmt::Display for PeerAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.id, self.addr)
    }
}

/// Why there is no identity to use.
#[derive(Debug, Error)]
#[cfg_attr(not(feature = "internals"), non_exhaustive)]
pub enum IdentityError {
    /// Others may read the key file, so that the key may be known to them.
    #[error(
        "others may read the key file {path} (mode {mode:04o}): chmod 600 '{path}', \
         or remove it to get a new identity",
        path = .path.display()
    )]
    NotPrivate {
        /// The key file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file is not a key file, or only a part of one. Restore it, or remove it to get a new
    /// identity, which peers have to be told of.
    #[error(
        "{} is not a key file (one PEM block PRIVATE KEY with an Ed25519 key): \
         restore it, or remove it to get a new identity",
        .path.display()
    )]
    Malformed {
        /// The file.
        path: PathBuf,
    },
    /// The key is not the one of the id in the file's comment line. Restore the file, or remove
    /// it to get a new identity, which peers have to be told of.
    #[error(
        "the key file {} does not hold the key of the id that it names: \
         restore it, or remove it to get a new identity",
        .path.display()
    )]
    Damaged {
        /// The key file.
        path: PathBuf,
    },
    /// The disk or its permissions stood in the way; `source` says how.
    #[error("cannot {step} the key file {}: {source}", .path.display())]
    Io {
        /// What was being done.
        step: KeyFileStep,
        /// The key file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The operating system gave no random bytes. Try again later.
    #[error("the operating system's random generator failed")]
    NoRandomness,
}

/// What was being done to a key file when it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyFileStep {
    /// Reading an existing one.
    Read,
    /// Creating the directories above it.
    CreateDirectory,
    /// Writing a new one under a temporary name.
    Write,
    /// Giving a new one its name and making that durable.
    Publish,
}

impl fmt::Display for KeyFileStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::CreateDirectory => "create the directory of",
            Self::Write => "write",
            Self::Publish => "publish",
        })
    }
}

/// A PKCS#8 (RFC 5958, version 1) document with an Ed25519 private key (RFC 8410).
///
/// On the heap, so that to move it leaves no copy behind.
#[derive(Clone)]
struct PrivateKey(Box<Zeroizing<[u8; PKCS8_LEN_BYTES]>>);

impl PrivateKey {
    /// A document whose key is still to be filled in.
    fn blank() -> Self {
        let mut document = Box::new(Zeroizing::new([0; PKCS8_LEN_BYTES]));
        for (byte, prefix) in document.iter_mut().zip(PKCS8_PREFIX) {
            *byte = prefix;
        }
        Self(document)
    }

    fn seed_mut(&mut self) -> &mut [u8] {
        &mut self.0[PKCS8_PREFIX.len()..]
    }

    fn pkcs8(&self) -> &[u8] {
        self.0.as_slice()
    }

    #[expect(
        clippy::expect_used,
        reason = "any 32 bytes are an Ed25519 seed, and its public key has 32 bytes"
    )]
    fn peer_id(&self) -> PeerId {
        let pair =
            Ed25519KeyPair::from_seed_unchecked(&self.0[PKCS8_PREFIX.len()..]).expect("a seed has 32 bytes");
        let public = pair.public_key().as_ref().try_into();
        PeerId::from_bytes(public.expect("a public key has 32 bytes"))
    }
}

const SEED_LEN_BYTES: usize = 32;

/// Everything of the document before the 32 bytes of the key (RFC 8410 section 7, the first
/// example). Nothing in it varies: optional attributes are not accepted.
const PKCS8_PREFIX: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

const PKCS8_LEN_BYTES: usize = PKCS8_PREFIX.len() + SEED_LEN_BYTES;

#[cfg(test)]
mod tests {
    use std::{fs, path::Path, sync::Barrier, thread};

    use proptest::prelude::*;
    use tempfile::TempDir;

    use super::*;

    struct Home(TempDir);

    impl Home {
        fn new() -> Self {
            Self(TempDir::new().expect("a temporary directory"))
        }

        fn key(&self) -> PathBuf {
            self.0.path().join("state/shiplane/identity")
        }

        fn load(&self) -> Result<Identity, IdentityError> {
            Identity::load_or_create(&self.key())
        }

        fn created() -> Self {
            let home = Self::new();
            home.load().expect("makes an identity");
            home
        }

        fn text(&self) -> String {
            fs::read_to_string(self.key()).expect("a key file")
        }

        /// Overwrites the content of the key file; its mode stays.
        fn overwrite(&self, text: impl AsRef<[u8]>) {
            fs::write(self.key(), text).expect("writes");
        }
    }

    #[test]
    fn the_second_start_finds_the_first_ones_key() {
        let home = Home::new();
        let first = home.load().expect("makes an identity");
        let second = home.load().expect("loads it");
        assert_eq!(first.peer_id(), second.peer_id());
        assert_eq!(first.pkcs8(), second.pkcs8());
        assert_ne!(first.peer_id(), Identity::generate().expect("random").peer_id());
    }

    #[test]
    fn the_file_is_as_documented() {
        let home = Home::new();
        let id = home.load().expect("makes an identity").peer_id();
        let text = home.text();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 4);
        assert_eq!(lines[0], format!("# shiplane identity {id}"));
        assert_eq!(lines[1], "-----BEGIN PRIVATE KEY-----");
        assert!(lines[2].starts_with("MC4CAQAwBQYDK2VwBCIEI"));
        assert_eq!(lines[3], "-----END PRIVATE KEY-----");
    }

    // The key pair of RFC 8032 section 7.1, test 1, in the form that `openssl genpkey` writes.
    #[test]
    fn a_plain_pem_key_is_an_identity_too() {
        let home = Home::created();
        home.overwrite(
            "-----BEGIN PRIVATE KEY-----\r\n\
             MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\r\n\
             -----END PRIVATE KEY-----\r\n\r\n",
        );
        let id = home.load().expect("loads").peer_id();
        let public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
        assert_eq!(data_encoding::HEXLOWER.encode(id.as_bytes()), public);
    }

    #[test]
    fn a_key_of_another_kind_is_no_identity() {
        let home = Home::created();
        // X25519: the same but for the last byte of the object identifier.
        home.overwrite(home.text().replace("MC4CAQAwBQYDK2Vw", "MC4CAQAwBQYDK2Vu"));
        assert!(matches!(home.load(), Err(IdentityError::Malformed { .. })));
    }

    #[test]
    fn a_file_that_is_no_key_stays_as_it_is() {
        let home = Home::created();
        let whole = home.text();
        let no_comment = whole.trim_start_matches('#');
        let padded = format!("{}{whole}", "# padding\n".repeat(500));
        let trailed = format!("{whole}{}", "\n".repeat(5000));
        let doubled = whole.repeat(2);
        for text in ["", "hello\n", no_comment, &padded, &trailed, &doubled] {
            home.overwrite(text);
            assert!(matches!(home.load(), Err(IdentityError::Malformed { .. })), "{text}");
            assert_eq!(home.text(), text);
        }
    }

    #[test]
    fn every_part_of_a_key_file_is_malformed() {
        let home = Home::created();
        let whole = home.text();
        // Only the last newline is not needed.
        for len_bytes in 0..whole.len() - 1 {
            home.overwrite(&whole[..len_bytes]);
            assert!(matches!(home.load(), Err(IdentityError::Malformed { .. })));
        }
    }

    #[test]
    fn another_files_key_below_this_ones_comment_is_noticed() {
        let (home, other) = (Home::created(), Home::created());
        let comment = home.text().lines().next().expect("a line").to_owned();
        let other_key = other.text().split_once('\n').expect("lines").1.to_owned();
        home.overwrite(format!("{comment}\n{other_key}"));
        assert!(matches!(home.load(), Err(IdentityError::Damaged { .. })));
    }

    #[test]
    fn processes_that_race_end_with_one_key() {
        const RACERS: usize = 16;
        let home = Home::new();
        let start = Barrier::new(RACERS);
        let ids: Vec<_> = thread::scope(|scope| {
            let racers: Vec<_> = (0..RACERS)
                .map(|_| {
                    scope.spawn(|| {
                        start.wait();
                        home.load().expect("an identity").peer_id()
                    })
                })
                .collect();
            racers.into_iter().map(|racer| racer.join().expect("no panic")).collect()
        });
        assert!(ids.iter().all(|id| *id == ids[0]));
        let directory = home.key().parent().expect("a parent").to_owned();
        assert_eq!(fs::read_dir(directory).expect("lists").count(), 1, "no temporary is left");
    }

    #[cfg(unix)]
    #[test]
    fn only_the_owner_may_read_the_key() {
        use std::os::unix::fs::PermissionsExt;

        let home = Home::created();
        let mode = |path: &Path| fs::metadata(path).expect("stat").permissions().mode() & 0o7777;
        let key = home.key();
        assert_eq!(mode(&key), 0o600);
        assert_eq!(mode(&home.0.path().join("state")), 0o700);
        assert_eq!(mode(&home.0.path().join("state/shiplane")), 0o700);

        for shared in [0o640, 0o604, 0o620, 0o601, 0o777] {
            fs::set_permissions(&key, PermissionsExt::from_mode(shared)).expect("chmod");
            let error = home.load().expect_err("refuses");
            assert!(matches!(error, IdentityError::NotPrivate { mode, .. } if mode == shared));
            assert!(error.to_string().contains("chmod 600"), "{error}");
        }
        for private in [0o600, 0o400] {
            fs::set_permissions(&key, PermissionsExt::from_mode(private)).expect("chmod");
            assert!(home.load().is_ok());
        }
    }

    #[test]
    fn a_directory_in_the_keys_place_is_not_a_key() {
        let home = Home::created();
        fs::remove_file(home.key()).expect("removes");
        fs::create_dir(home.key()).expect("creates");
        home.load().expect_err("is no file");
        assert!(home.key().is_dir());
    }

    #[test]
    fn a_file_in_a_directorys_place_names_the_step() {
        let home = Home::new();
        fs::write(home.0.path().join("state"), "").expect("writes");
        let error = home.load().expect_err("cannot create");
        assert!(matches!(error, IdentityError::Io { .. }), "{error:?}");
        assert!(error.to_string().contains("identity"), "{error}");
    }

    #[test]
    fn debug_shows_no_key() {
        let identity = Identity::generate().expect("random");
        assert_eq!(format!("{identity:?}"), format!("Identity({})", identity.peer_id()));
    }

    #[test]
    fn an_address_is_shown_with_the_whole_id() {
        let id = PeerId::from_bytes([7; 32]);
        let addr = "[::1]:4433".parse().expect("an address");
        assert_eq!(PeerAddr { id, addr }.to_string(), format!("{id}@[::1]:4433"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn no_changed_byte_yields_another_identity(at in 0..200_usize, byte in any::<u8>()) {
            let home = Home::created();
            let whole = home.text();
            let id = home.load().expect("loads").peer_id();
            let mut text = whole.into_bytes();
            text[at] = byte;
            home.overwrite(&text);
            // A change in the comment may do no harm; one in the key may not go unnoticed.
            if let Ok(loaded) = home.load() {
                prop_assert_eq!(loaded.peer_id(), id);
            }
        }
    }
}
