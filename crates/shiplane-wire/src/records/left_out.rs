//! Why a path is left out of a transfer (SPEC 4.3, 4.4).

use core::fmt;

use bytes::{BufMut, BytesMut};

use super::RecordError;
use super::fields::{Fields, put_text, read_text};
use crate::EscapedPath;

/// Why a path is left out, whichever side says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum LeftOutReason {
    /// It is a symbolic link, and links are not wanted or not possible.
    Symlink = 0,
    /// It is a device, a FIFO or a socket.
    SpecialFile = 1,
    /// Its name or path cannot be sent, or cannot be used on the other side's file system.
    Name = 2,
    /// The side that has it may not or cannot read it.
    Unreadable = 3,
    /// It changed while it was listed, read or replaced.
    Changed = 4,
    /// It was deleted after it was listed, or was never there though it was asked for by its path.
    Vanished = 5,
    /// The receiver's file system takes its name for that of another path of the transfer.
    NameTaken = 6,
    /// The receiver's system does not permit it.
    NotPermitted = 7,
    /// Something of another kind has its name at the receiver.
    InTheWay = 8,
    /// A system call failed at the receiver.
    Failed = 9,
    /// It is a directory to be removed, and something in it is left out.
    NotEmpty = 10,
    /// It is a symbolic link that leads out of the tree, and the receiver takes only others.
    LinkLeadsOut = 11,
    /// It is one of several names of a file, and there are more such files than one side can keep track of: from it on,
    /// names are sent as files of their own.
    HardLink = 12,
    /// It is there, but not its owner, its access list or one of its attributes: they cannot be carried, or not be set.
    Attributes = 13,
}

impl LeftOutReason {
    /// All reasons, in the order of their values on the wire.
    pub const ALL: [Self; 14] = [
        Self::Symlink,
        Self::SpecialFile,
        Self::Name,
        Self::Unreadable,
        Self::Changed,
        Self::Vanished,
        Self::NameTaken,
        Self::NotPermitted,
        Self::InTheWay,
        Self::Failed,
        Self::NotEmpty,
        Self::LinkLeadsOut,
        Self::HardLink,
        Self::Attributes,
    ];

    /// The reason that has this value on the wire.
    #[must_use]
    pub fn from_wire(value: u8) -> Option<Self> {
        Self::ALL.get(usize::from(value)).copied()
    }

    pub(super) fn read(fields: &mut Fields<'_>) -> Result<Self, RecordError> {
        let value = fields.u8()?;
        Self::from_wire(value).ok_or(RecordError::UnknownValue { field: "reason", value })
    }
}

impl fmt::Display for LeftOutReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Symlink => "symbolic link",
            Self::SpecialFile => "special file",
            Self::Name => "the name cannot be used",
            Self::Unreadable => "unreadable",
            Self::Changed => "changed while it was read",
            Self::Vanished => "not found",
            Self::NameTaken => "the file system takes the name for another one",
            Self::NotPermitted => "not permitted",
            Self::InTheWay => "something else has the name",
            Self::Failed => "input/output error",
            Self::NotEmpty => "something in it is left out",
            Self::LinkLeadsOut => "a symbolic link that leads out of the tree",
            Self::HardLink => "too many hard links; from here on each name is a separate file",
            Self::Attributes => "without its owner, access list or an attribute",
        })
    }
}

pub(super) fn put_left_out(reason: LeftOutReason, path: &EscapedPath, out: &mut BytesMut) {
    out.put_u8(reason as u8);
    put_text(out, path.as_str().as_bytes());
}

pub(super) fn read_left_out(fields: &mut Fields<'_>) -> Result<(LeftOutReason, EscapedPath), RecordError> {
    let reason = LeftOutReason::read(fields)?;
    let path = EscapedPath::from_wire(read_text(fields)?).ok_or(RecordError::NotEscaped)?;
    Ok((reason, path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_is_its_own_value() {
        for (value, reason) in (0..).zip(LeftOutReason::ALL) {
            assert_eq!((reason as u8, LeftOutReason::from_wire(value)), (value, Some(reason)));
        }
        assert_eq!(LeftOutReason::from_wire(14), None);
    }
}
