//! Owners, access lists and extended attributes (SPEC 4.31): reads them, and gives them to files.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Mutex, PoisonError};

use cap_std::fs::Dir;
use shiplane_wire::{AccessEntry, AccessTag, Attributes, Principal};

use crate::calls::{self as platform, Opened, Owner, Stat};

/// Whether this system has any that can be carried.
pub const HAS_OWNERS: bool = platform::HAS_OWNERS;

/// Reads those of a source. Remembers the names of owners.
#[derive(Debug, Default)]
pub struct AttributesReader {
    names: HashMap<(Owner, u32), Box<[u8]>>,
    /// The first path of which not all can be carried.
    stripped: Option<Vec<u8>>,
}

impl AttributesReader {
    /// Those of an open file or directory.
    pub fn of_open(&mut self, file: &impl Opened, found: &Stat, path: &[u8]) -> Option<Attributes> {
        let mut is_stripped = false;
        let mut lists = [Vec::new(), Vec::new()];
        let mut extended = Vec::new();
        for name in platform::extended_names(file).unwrap_or_else(|_| {
            is_stripped = true;
            Vec::new()
        }) {
            let list = ACCESS_LISTS.iter().position(|list| **list == name[..]);
            if list.is_none() && !Attributes::is_carried(&name) {
                is_stripped |= !is_of_the_machine(&name);
                continue;
            }
            match (list, platform::extended(file, &name)) {
                (Some(list), Ok(Some(value))) => lists[list] = parse_access_list(&value),
                (None, Ok(Some(value))) => extended.push((name, value)),
                // It is gone.
                (_, Ok(None)) => {}
                (_, Err(_)) => is_stripped = true,
            }
        }
        extended.sort_unstable();
        let owners = self.owners(found);
        for (tag, _, id) in lists.iter().flatten() {
            if let Some(owner) = owner_of_tag(*tag) {
                self.know(owner, *id);
            }
        }
        let [access, default] = &lists.map(|list| self.access_list(&list));
        let extended = || extended.iter().map(|(name, value)| (&name[..], &value[..]));
        let attributes = Attributes::new(owners.as_principals(), [access, default], extended());
        let attributes = attributes.or_else(|| {
            // They are too long. Whom it belongs to, and who may use it, comes first.
            is_stripped = true;
            Attributes::new(owners.as_principals(), [access, default], std::iter::empty())
        });
        if is_stripped && self.stripped.is_none() {
            self.stripped = Some(path.to_vec());
        }
        attributes
    }

    /// Those of the file `name`, as far as it can be opened, if it is still what was `found`.
    pub fn of_file(&mut self, dir: &Dir, name: &[u8], found: &Stat, path: &[u8]) -> Option<Attributes> {
        let file = platform::open_file(dir, name).ok()?;
        let is_it = platform::stat_open(&file).is_ok_and(|opened| opened.version() == found.version());
        if is_it { self.of_open(&file, found, path) } else { None }
    }

    /// Those of a symbolic link: whom it belongs to.
    pub fn of_link(&mut self, found: &Stat) -> Option<Attributes> {
        let owners = self.owners(found);
        Attributes::new(owners.as_principals(), [&[], &[]], std::iter::empty())
    }

    /// The first path of which not all can be carried, once.
    pub fn take_stripped(&mut self) -> Option<Vec<u8>> {
        self.stripped.take()
    }

    fn know(&mut self, owner: Owner, id: u32) {
        if self.names.len() >= MAX_NAMES {
            self.names.clear();
        }
        let name = || platform::name_of_owner(owner, id).filter(|name| name.len() <= 255);
        self.names.entry((owner, id)).or_insert_with(|| name().unwrap_or_default().into());
    }

    fn owners(&mut self, found: &Stat) -> Owners {
        let mut of = |owner, id| {
            self.know(owner, id);
            (id, self.names.get(&(owner, id)).cloned().unwrap_or_default())
        };
        Owners([of(Owner::User, found.user), of(Owner::Group, found.group)])
    }

    fn access_list(&self, list: &[RawAccess]) -> Vec<AccessEntry<'_>> {
        let name = |owner, id: u32| self.names.get(&(owner, id)).map(|name| &name[..]).unwrap_or_default();
        let principal = |owner, id| Principal { id, name: name(owner, id) };
        let entry = |&(tag, permissions, id): &RawAccess| {
            let tag = match tag {
                0x01 => AccessTag::Owner,
                0x02 => AccessTag::User(principal(Owner::User, id)),
                0x04 => AccessTag::OwnGroup,
                0x08 => AccessTag::Group(principal(Owner::Group, id)),
                0x10 => AccessTag::Mask,
                _ => AccessTag::Other,
            };
            (tag, permissions)
        };
        list.iter().map(entry).collect()
    }
}

/// User and group: number and name.
struct Owners([(u32, Box<[u8]>); 2]);

impl Owners {
    fn as_principals(&self) -> [Principal<'_>; 2] {
        let [user, group] = &self.0;
        [user, group].map(|(id, name)| Principal { id: *id, name })
    }
}

/// Gives attributes to what is received, as far as that is permitted.
#[derive(Debug, Default)]
pub struct AttributesWriter {
    ids: Mutex<Ids>,
    /// The kinds that could not be set and are named already, a bit each.
    named: AtomicU8,
    names_each: AtomicBool,
}

/// The numbers of users and groups by their names, as far as there are such.
type Ids = HashMap<(Owner, Box<[u8]>), Option<u32>>;

/// What of attributes could not be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttributeKind {
    /// The user or the group that it belongs to.
    Owner,
    /// An access list.
    AccessList,
    /// An extended attribute.
    Extended,
}

impl std::fmt::Display for AttributeKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Owner => "owner or group",
            Self::AccessList => "access list",
            Self::Extended => "extended attributes",
        })
    }
}

/// The result of setting attributes.
#[derive(Debug, Default)]
pub struct Given {
    /// Whether anything was set.
    pub has_changed: bool,
    /// The first failure of each kind.
    pub refused: Vec<(AttributeKind, io::Error)>,
}

impl Given {
    fn note(&mut self, kind: AttributeKind, set: io::Result<()>) {
        match set {
            Ok(()) => self.has_changed = true,
            Err(_) if self.refused.iter().any(|(refused, _)| *refused == kind) => {}
            Err(error) => self.refused.push((kind, error)),
        }
    }
}

impl AttributesWriter {
    /// From now on each path is named of which something cannot be set, and not only the first for each kind.
    pub fn name_each(&self) {
        self.names_each.store(true, Ordering::Relaxed);
    }

    /// Whether each is.
    pub fn names_each(&self) -> bool {
        self.names_each.load(Ordering::Relaxed)
    }

    /// Whether a path is to be named of which this could not be set.
    pub fn is_to_be_named(&self, kind: AttributeKind) -> bool {
        let bit = 1 << kind as u8;
        self.named.fetch_or(bit, Ordering::Relaxed) & bit == 0 || self.names_each()
    }

    /// Gives an open file or directory these attributes and no others, where it has not got them.
    pub fn give(&self, file: &impl Opened, found: &Stat, wanted: &Attributes) -> Given {
        let mut given = Given::default();
        let set = |user, group| platform::set_owners(file, user, group);
        self.give_owners(found, wanted, set, &mut given);
        let has = match platform::extended_names(file) {
            Ok(names) => names,
            Err(error) => {
                given.note(AttributeKind::Extended, Err(error));
                return given;
            }
        };
        let mut set = |name: &[u8], value: Option<&[u8]>| {
            let is_list = ACCESS_LISTS.contains(&name);
            let is_there = has.iter().any(|has| has == name);
            let is_so = match value {
                Some(value) => {
                    is_there && platform::extended(file, name).is_ok_and(|is| is.as_deref() == Some(value))
                }
                None => !is_there,
            };
            if !is_so {
                let kind = if is_list { AttributeKind::AccessList } else { AttributeKind::Extended };
                given.note(kind, self.set_writable(file, found, name, value));
            }
        };
        for name in has.iter().filter(|name| Attributes::is_carried(name)) {
            if !wanted.extended().any(|(wanted, _)| wanted == name) {
                set(name, None);
            }
        }
        wanted.extended().for_each(|(name, value)| set(name, Some(value)));
        for (name, list) in ACCESS_LISTS.iter().zip(wanted.access_lists()) {
            let list = self.encode_access_list(list);
            set(name, list.as_deref());
        }
        given
    }

    /// Gives the link `name` its owners.
    pub fn give_link(&self, dir: &Dir, name: &[u8], found: &Stat, wanted: &Attributes) -> Given {
        let mut given = Given::default();
        let set = |user, group| platform::set_link_owners(dir, name, user, group);
        self.give_owners(found, wanted, set, &mut given);
        given
    }

    fn give_owners(
        &self,
        found: &Stat,
        wanted: &Attributes,
        set: impl Fn(Option<u32>, Option<u32>) -> io::Result<()>,
        given: &mut Given,
    ) {
        let [user, group] = wanted.owners();
        let user = self.id_of(Owner::User, user).filter(|user| *user != found.user);
        let group = self.id_of(Owner::Group, group).filter(|group| *group != found.group);
        // Each by itself where both are not permitted: the group may be one of ours.
        match (user, group) {
            (None, None) => {}
            (Some(_), Some(_)) => match set(user, group) {
                Ok(()) => given.has_changed = true,
                Err(_) => {
                    given.note(AttributeKind::Owner, set(None, group));
                    given.note(AttributeKind::Owner, set(user, None));
                }
            },
            _ => given.note(AttributeKind::Owner, set(user, group)),
        }
    }

    /// Sets an extended attribute, which needs the permission to write even of the owner.
    fn set_writable(
        &self,
        file: &impl Opened,
        found: &Stat,
        name: &[u8],
        value: Option<&[u8]>,
    ) -> io::Result<()> {
        match platform::set_extended(file, name, value) {
            Err(error)
                if error.kind() == io::ErrorKind::PermissionDenied && found.mode & OWNER_WRITES == 0 =>
            {
                platform::set_mode(file, found.mode | OWNER_WRITES)?;
                let set = platform::set_extended(file, name, value);
                // A list may have changed it.
                platform::set_mode(file, found.mode)?;
                set
            }
            set => set,
        }
    }

    /// The number that an owner has here: that of the name, as far as there is one. The superuser is the same everywhere.
    fn id_of(&self, owner: Owner, principal: Principal<'_>) -> Option<u32> {
        if !principal.is_known() || principal.id == 0 || principal.name.is_empty() {
            return principal.is_known().then_some(principal.id);
        }
        let mut ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
        if ids.len() >= MAX_NAMES {
            ids.clear();
        }
        let known = ids.entry((owner, principal.name.into()));
        let id = *known.or_insert_with(|| platform::owner_of_name(owner, principal.name));
        Some(id.unwrap_or(principal.id))
    }

    /// As the kernel takes it; `None` for no list.
    fn encode_access_list<'a>(&self, list: impl Iterator<Item = AccessEntry<'a>>) -> Option<Vec<u8>> {
        let mut bytes = ACCESS_LIST_VERSION.to_le_bytes().to_vec();
        for (tag, permissions) in list {
            let (tag, id) = match tag {
                AccessTag::Owner => (0x01_u16, None),
                AccessTag::User(user) => (0x02, self.id_of(Owner::User, user)),
                AccessTag::OwnGroup => (0x04, None),
                AccessTag::Group(group) => (0x08, self.id_of(Owner::Group, group)),
                AccessTag::Mask => (0x10, None),
                AccessTag::Other => (0x20, None),
            };
            bytes.extend_from_slice(&tag.to_le_bytes());
            bytes.extend_from_slice(&u16::from(permissions).to_le_bytes());
            bytes.extend_from_slice(&id.unwrap_or(u32::MAX).to_le_bytes());
        }
        (bytes.len() > 4).then_some(bytes)
    }
}

/// Tag, permissions and number of an entry of an access list, as the kernel has them.
type RawAccess = (u16, u8, u32);

/// In order of tags and numbers. One that this program does not know is none.
fn parse_access_list(value: &[u8]) -> Vec<RawAccess> {
    let Some((version, entries)) = value.split_first_chunk() else { return Vec::new() };
    if u32::from_le_bytes(*version) != ACCESS_LIST_VERSION {
        return Vec::new();
    }
    let entry = |entry: &[u8; 8]| {
        let [tag0, tag1, permissions, _, id @ ..] = *entry;
        (u16::from_le_bytes([tag0, tag1]), permissions & 7, u32::from_le_bytes(id))
    };
    let mut list: Vec<_> = entries.as_chunks().0.iter().map(entry).collect();
    list.sort_unstable_by_key(|(tag, _, id)| (*tag, *id));
    list
}

fn owner_of_tag(tag: u16) -> Option<Owner> {
    match tag {
        0x02 => Some(Owner::User),
        0x08 => Some(Owner::Group),
        _ => None,
    }
}

/// What says how this machine treats a file, and is the machine's to say: labels, signatures of them, and what file systems tell in
/// this way. That these are not carried is no news.
fn is_of_the_machine(name: &[u8]) -> bool {
    let labels = [&b"security.selinux"[..], b"security.ima", b"security.evm", b"security.apparmor"];
    labels.contains(&name)
        || !(name.starts_with(b"security.") || name.starts_with(b"trusted.") || name.starts_with(b"user."))
}

/// The lists of a file, and of what is created in a directory.
const ACCESS_LISTS: [&[u8]; 2] = [b"system.posix_acl_access", b"system.posix_acl_default"];

/// Of linux/posix_acl_xattr.h.
const ACCESS_LIST_VERSION: u32 = 2;

/// 1,024 users and groups: more than most machines have.
const MAX_NAMES: usize = 1 << 10;

/// Writing, for the owner.
const OWNER_WRITES: u32 = 0o200;
