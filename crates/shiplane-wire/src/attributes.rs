//! Owners, access lists and extended attributes of an entry (SPEC 4.31).

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use crate::EntryKind;
use crate::limits::MAX_ATTRIBUTES_LEN_BYTES;

/// Owner, group, access lists and extended attributes of a file, directory or link, in wire format. Clones share them.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attributes(Arc<[u8]>);

/// A user or group: the number, and the name if it has one there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Principal<'a> {
    /// The number; [`UNKNOWN`](Self::UNKNOWN) has none.
    pub id: u32,
    /// The name; empty if there is none.
    pub name: &'a [u8],
}

/// What one entry of a POSIX access list is about. The values are those of the kernel's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AccessTag<'a> {
    /// The owner of the file.
    Owner,
    /// A user.
    User(Principal<'a>),
    /// The group of the file.
    OwnGroup,
    /// A group.
    Group(Principal<'a>),
    /// The most that users and groups get.
    Mask,
    /// Everybody else.
    Other,
}

/// Who, and the permissions: 4 reading, 2 writing, 1 executing.
pub type AccessEntry<'a> = (AccessTag<'a>, u8);

/// Bytes are no attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttributesRefused;

impl Principal<'_> {
    /// One that is not to be set.
    pub const UNKNOWN: Self = Self { id: u32::MAX, name: b"" };

    /// Whether it is to be set.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.id != u32::MAX
    }
}

impl Attributes {
    /// Checks bytes in wire format. Whatever is accepted has no other encoding.
    ///
    /// # Errors
    /// If they break a rule of SPEC 4.31.
    pub fn parse(bytes: &[u8]) -> Result<Self, AttributesRefused> {
        let mut parts = Parts(bytes);
        for _ in 0..2 {
            let Principal { id, name } = parts.principal().ok_or(AttributesRefused)?;
            if name.contains(&0) || id == u32::MAX && !name.is_empty() {
                return Err(AttributesRefused);
            }
        }
        for _ in 0..2 {
            parts.checked_access_list().ok_or(AttributesRefused)?;
        }
        let mut last = &b""[..];
        while !parts.0.is_empty() {
            let (name, _) = parts.extended().ok_or(AttributesRefused)?;
            if name <= last || !Self::is_carried(name) {
                return Err(AttributesRefused);
            }
            last = name;
        }
        if bytes.len() > MAX_ATTRIBUTES_LEN_BYTES { Err(AttributesRefused) } else { Ok(Self(bytes.into())) }
    }

    /// Puts them together. Access lists and extended attributes are in order already; `None` if a rule of SPEC 4.31 is
    /// broken, such as that they are too long together.
    #[must_use]
    pub fn new<'a>(
        owners: [Principal<'_>; 2],
        access_lists: [&[AccessEntry<'_>]; 2],
        extended: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    ) -> Option<Self> {
        let mut bytes = Vec::new();
        owners.iter().try_for_each(|owner| put_principal(&mut bytes, owner))?;
        for list in access_lists {
            bytes.extend_from_slice(&u16::try_from(list.len()).ok()?.to_le_bytes());
            for (tag, permissions) in list {
                bytes.extend_from_slice(&[tag.value(), *permissions]);
                if let AccessTag::User(who) | AccessTag::Group(who) = tag {
                    put_principal(&mut bytes, who)?;
                }
            }
        }
        for (name, value) in extended {
            bytes.push(u8::try_from(name.len()).ok()?);
            bytes.extend_from_slice(name);
            bytes.extend_from_slice(&u16::try_from(value.len()).ok()?.to_le_bytes());
            bytes.extend_from_slice(value);
        }
        Self::parse(&bytes).ok()
    }

    /// Whether an extended attribute of this name is carried: not those by which a system decides what a file may do,
    /// nor those that redirect an overlay mount.
    #[must_use]
    pub fn is_carried(name: &[u8]) -> bool {
        let is_in = |space: &[u8]| name.strip_prefix(space).is_some_and(|rest| !rest.is_empty());
        let is_overlay = is_in(b"trusted.overlay.") || is_in(b"user.overlay.");
        (is_in(b"user.") || is_in(b"trusted.")) && !is_overlay && !name.contains(&0)
    }

    /// The user and the group that it belongs to.
    #[must_use]
    pub fn owners(&self) -> [Principal<'_>; 2] {
        let mut parts = Parts(&self.0);
        [(); 2].map(|()| parts.principal().unwrap_or(Principal::UNKNOWN))
    }

    /// The access list, and that which new files in a directory get. Without entries there is none.
    pub fn access_lists(&self) -> [impl Iterator<Item = AccessEntry<'_>>; 2] {
        let mut parts = Parts(&self.0);
        let _owners = (parts.principal(), parts.principal());
        let access = parts.clone();
        let count = parts.skip_access_list();
        [access.access_list(count), parts.clone().access_list(parts.skip_access_list())]
    }

    /// The extended attributes, in order of their names.
    pub fn extended(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let mut parts = Parts(&self.0);
        let _owners = (parts.principal(), parts.principal());
        let _lists = (parts.skip_access_list(), parts.skip_access_list());
        core::iter::from_fn(move || parts.extended())
    }

    /// The same with other owners.
    #[must_use]
    pub fn with_owners(&self, owners: [Principal<'_>; 2]) -> Self {
        let mut parts = Parts(&self.0);
        let _owners = (parts.principal(), parts.principal());
        let mut bytes = Vec::with_capacity(self.0.len());
        let put = owners.iter().try_for_each(|owner| put_principal(&mut bytes, owner));
        bytes.extend_from_slice(parts.0);
        put.and_then(|()| Self::parse(&bytes).ok()).unwrap_or_else(|| self.clone())
    }

    /// In wire format.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether such an entry may have them: only a directory has a list for new files, a link its owners alone.
    #[must_use]
    pub fn may_be_of(&self, kind: EntryKind) -> bool {
        let mut parts = Parts(&self.0);
        let _owners = (parts.principal(), parts.principal());
        match kind {
            EntryKind::Directory => true,
            EntryKind::File => {
                parts.skip_access_list();
                parts.skip_access_list() == 0
            }
            EntryKind::Symlink => parts.0 == [0; 4],
        }
    }
}

impl fmt::Debug for Attributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.extended().map(|(name, value)| (crate::escape(name), value.len()));
        f.debug_struct("Attributes")
            .field("owners", &self.owners())
            .field("access_lists", &self.access_lists().map(Vec::from_iter))
            .field("extended", &Vec::from_iter(names.map(|(name, len)| alloc::format!("{name}: {len}"))))
            .finish()
    }
}

impl AccessTag<'_> {
    fn value(&self) -> u8 {
        match self {
            Self::Owner => 0x01,
            Self::User(_) => 0x02,
            Self::OwnGroup => 0x04,
            Self::Group(_) => 0x08,
            Self::Mask => 0x10,
            Self::Other => 0x20,
        }
    }
}

fn put_principal(bytes: &mut Vec<u8>, Principal { id, name }: &Principal<'_>) -> Option<()> {
    bytes.extend_from_slice(&id.to_le_bytes());
    bytes.push(u8::try_from(name.len()).ok()?);
    bytes.extend_from_slice(name);
    Some(())
}

/// What is left to be read.
#[derive(Clone)]
struct Parts<'a>(&'a [u8]);

impl<'a> Parts<'a> {
    fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(bytes)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*array)
    }

    fn principal(&mut self) -> Option<Principal<'a>> {
        let id = u32::from_le_bytes(self.array()?);
        let [len] = self.array()?;
        Some(Principal { id, name: self.bytes(len.into())? })
    }

    fn access_entry(&mut self) -> Option<AccessEntry<'a>> {
        let [tag, permissions] = self.array()?;
        let tag = match tag {
            0x01 => AccessTag::Owner,
            0x02 => AccessTag::User(self.principal()?),
            0x04 => AccessTag::OwnGroup,
            0x08 => AccessTag::Group(self.principal()?),
            0x10 => AccessTag::Mask,
            0x20 => AccessTag::Other,
            _ => return None,
        };
        Some((tag, permissions))
    }

    /// A list that says of the owner, the group and everybody else what they may, in order, each once; with a mask if
    /// it says so of anybody else.
    fn checked_access_list(&mut self) -> Option<()> {
        let count = u16::from_le_bytes(self.array()?);
        let mut last = None;
        let (mut seen, mut names) = (0_u8, false);
        for _ in 0..count {
            let (tag, permissions) = self.access_entry()?;
            let key = match tag {
                AccessTag::User(who) | AccessTag::Group(who) => {
                    names = true;
                    if !who.is_known() || who.name.contains(&0) {
                        return None;
                    }
                    (tag.value(), who.id)
                }
                AccessTag::Owner | AccessTag::OwnGroup | AccessTag::Mask | AccessTag::Other => {
                    (tag.value(), 0)
                }
            };
            if permissions > 7 || last.is_some_and(|last| last >= key) {
                return None;
            }
            last = Some(key);
            seen |= tag.value();
        }
        let needed = if names { 0x35 } else { 0x25 };
        (count == 0 || seen & needed == needed).then_some(())
    }

    /// How many entries it has.
    fn skip_access_list(&mut self) -> u16 {
        let count = self.array().map_or(0, u16::from_le_bytes);
        (0..count).for_each(|_| _ = self.access_entry());
        count
    }

    fn access_list(mut self, count: u16) -> impl Iterator<Item = AccessEntry<'a>> + use<'a> {
        let _count = self.array::<2>();
        (0..count).map_while(move |_| self.access_entry())
    }

    fn extended(&mut self) -> Option<(&'a [u8], &'a [u8])> {
        let [len] = self.array()?;
        let name = self.bytes(len.into())?;
        let len = u16::from_le_bytes(self.array()?);
        Some((name, self.bytes(len.into())?))
    }
}

/// Fuzz entry: attributes, which have one encoding.
pub fn fuzz_attributes(data: &[u8]) {
    let Ok(attributes) = Attributes::parse(data) else { return };
    assert!(attributes.as_bytes() == data, "one encoding only");
    let [access, default] = attributes.access_lists().map(Vec::from_iter);
    let again = Attributes::new(attributes.owners(), [&access, &default], attributes.extended());
    assert!(again.as_ref() == Some(&attributes), "the parts are all of it");
    assert!(attributes.with_owners(attributes.owners()) == attributes);
}

#[cfg(test)]
mod tests {
    use std::vec;

    use super::*;

    const ME: Principal<'static> = Principal { id: 1000, name: b"me" };

    fn access() -> Vec<AccessEntry<'static>> {
        vec![
            (AccessTag::Owner, 6),
            (AccessTag::User(Principal { id: 7, name: b"" }), 4),
            (AccessTag::OwnGroup, 4),
            (AccessTag::Mask, 4),
            (AccessTag::Other, 0),
        ]
    }

    fn extended() -> [(&'static [u8], &'static [u8]); 2] {
        [(b"trusted.t", b""), (b"user.u", b"\xff\0")]
    }

    #[test]
    fn attributes_have_these_bytes() {
        let owners = [ME, Principal { id: 0x0102, name: b"" }];
        let attributes = Attributes::new(owners, [&access(), &[]], extended().into_iter()).unwrap();
        let bytes = b"\xe8\x03\0\0\x02me\x02\x01\0\0\0\
              \x05\0\x01\x06\x02\x04\x07\0\0\0\0\x04\x04\x10\x04\x20\0\0\0\
              \x09trusted.t\0\0\x06user.u\x02\0\xff\0";
        assert_eq!(attributes.as_bytes(), bytes);
        fuzz_attributes(bytes);
        assert_eq!(attributes.owners(), owners);
        assert_eq!(attributes.access_lists().map(Vec::from_iter), [access(), vec![]]);
        assert!(attributes.extended().eq(extended()));
        let [file, directory, link] = [EntryKind::File, EntryKind::Directory, EntryKind::Symlink];
        assert!(attributes.may_be_of(file) && attributes.may_be_of(directory) && !attributes.may_be_of(link));
        let unknown = attributes.with_owners([Principal::UNKNOWN; 2]);
        assert!(unknown.owners().iter().all(|owner| !owner.is_known()) && unknown.extended().eq(extended()));
        let of_a_link = Attributes::new([ME; 2], [&[], &[]], core::iter::empty()).unwrap();
        assert!(of_a_link.may_be_of(link) && of_a_link.may_be_of(file));
        let default = Attributes::new([ME; 2], [&[], &access()], core::iter::empty()).unwrap();
        assert!(default.may_be_of(directory) && !default.may_be_of(link) && !default.may_be_of(file));
        for cut in 0..bytes.len() {
            // What is cut after a whole attribute is whole.
            let is_whole = [31, 43].contains(&cut);
            assert_eq!(Attributes::parse(&bytes[..cut]).is_ok(), is_whole, "{cut}");
        }
    }

    #[test]
    fn what_would_raise_a_privilege_or_breaks_a_rule_is_no_attribute() {
        let with = |name: &[u8], value: &[u8]| {
            Attributes::new([ME; 2], [&[], &[]], [(name, value)].into_iter()).is_some()
        };
        assert!(with(b"user.x", &[0; 60_000]) && with(b"trusted.x", b""));
        let long = [&b"user."[..], &[b'x'; 251]].concat();
        for name in [
            &b"security.capability"[..],
            b"security.selinux",
            b"system.posix_acl_access",
            b"trusted.overlay.redirect",
            b"user.overlay.opaque",
            b"user.",
            b"user",
            b"",
            b"user.\0",
            &long,
        ] {
            assert!(!with(name, b""), "{name:?}");
        }
        assert!(!with(b"user.x", &[0; MAX_ATTRIBUTES_LEN_BYTES]));
        let twice = [(&b"user.x"[..], &b""[..]); 2];
        assert!(Attributes::new([ME; 2], [&[], &[]], twice.into_iter()).is_none());
        let listed =
            |list: &[AccessEntry<'_>]| Attributes::new([ME; 2], [list, &[]], core::iter::empty()).is_some();
        assert!(listed(&access()) && listed(&[]));
        for without in 0..5 {
            let mut list = access();
            let (tag, _) = list.remove(without);
            assert_eq!(listed(&list), matches!(tag, AccessTag::User(_)), "{tag:?}");
        }
        let changed = |change: fn(&mut Vec<AccessEntry<'static>>)| {
            let mut list = access();
            change(&mut list);
            listed(&list)
        };
        assert!(!changed(|list| list.swap(0, 1)) && !changed(|list| list[0].1 = 8));
        assert!(!changed(|list| list.insert(1, list[1])));
        assert!(!changed(|list| list[1].0 = AccessTag::User(Principal::UNKNOWN)));
    }
}
