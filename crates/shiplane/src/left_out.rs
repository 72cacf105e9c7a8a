//! The kinds of paths that a job leaves out.

use shiplane_wire::LeftOutReason;

/// The kind of a reason, as in [`Action::change`](crate::Action::change).
pub(crate) fn kind_of(reason: LeftOutReason) -> &'static str {
    match reason {
        LeftOutReason::Symlink | LeftOutReason::LinkLeadsOut | LeftOutReason::HardLink => LINKS,
        LeftOutReason::SpecialFile => SPECIAL,
        LeftOutReason::Name | LeftOutReason::NameTaken => NAMES,
        LeftOutReason::Unreadable => UNREADABLE,
        LeftOutReason::Changed | LeftOutReason::Vanished => CHANGED,
        LeftOutReason::Attributes => ATTRIBUTES,
        LeftOutReason::NotPermitted
        | LeftOutReason::InTheWay
        | LeftOutReason::Failed
        | LeftOutReason::NotEmpty => REFUSED,
    }
}

/// The kind of this name, if a caller may say that it is not wanted. That a receiver refuses something is never expected.
pub(crate) fn skippable(name: &str) -> Option<&'static str> {
    [LINKS, SPECIAL, NAMES, UNREADABLE, CHANGED, ATTRIBUTES].into_iter().find(|kind| *kind == name)
}

pub(crate) const LINKS: &str = "links";
const SPECIAL: &str = "special";
const NAMES: &str = "names";
const UNREADABLE: &str = "unreadable";
const CHANGED: &str = "changed";
const ATTRIBUTES: &str = "attributes";
const REFUSED: &str = "refused";

/// What a sync in one direction does not replace.
pub(crate) const CONFLICT: &str = "conflict";
