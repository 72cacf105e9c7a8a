//! What a sender offers to a receiver that knows its code.

use serde::{Deserialize, Serialize};
use shiplane_wire::{DigestAlgorithm, escape};

use crate::{
    event::{Action, Side},
    report::Report,
    request::Request,
};

/// Asks what there is.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct OfferRequest;

/// What there is, as the sender says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Offer {
    /// A text in place of files.
    pub(crate) text: Option<String>,
    /// The names at the top.
    pub(crate) items: Vec<Item>,
    /// How many more there are.
    pub(crate) unnamed: u64,
    pub(crate) files: u64,
    pub(crate) bytes: u64,
    /// Whether all was counted. If not, there is more.
    pub(crate) is_counted: bool,
}

/// A file or a directory at the top of what is offered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Item {
    /// Its name; `.` for the content of a directory.
    pub(crate) name: Vec<u8>,
    pub(crate) is_directory: bool,
}

/// Tells the sender that the receiver has it, or does not want it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Conclusion {
    pub(crate) is_taken: bool,
}

impl Request for OfferRequest {
    const METHOD: &'static str = "send.offer";
    type Response = Offer;
}

impl Request for Conclusion {
    const METHOD: &'static str = "send.conclude";
    type Response = ();
}

impl Offer {
    /// As what a dry run says: the names at the top are its actions.
    pub(crate) fn report(&self) -> Report {
        let action = |item: &Item| Action {
            side: Side::ThisMachine,
            change: if item.is_directory { "create_directory" } else { "take" },
            path: escape(&item.name).to_string(),
            from: None,
            why: "offered".into(),
        };
        Report {
            files: self.files,
            bytes_total: self.bytes,
            actions: self.items.iter().map(action).collect(),
            actions_unnamed: self.unnamed,
            ..Report::new(DigestAlgorithm::Blake3)
        }
    }

    /// Whether a path of this name at the top was offered.
    pub(crate) fn has(&self, name: &[u8]) -> bool {
        self.unnamed > 0 || self.items.iter().any(|item| item.name == name || item.name == CONTENT)
    }
}

/// The name of what has none: the content of a directory.
pub(crate) const CONTENT: &[u8] = b".";

/// A thousand names: more than a person reads, and far below the 1 MiB of an answer.
pub(crate) const MAX_ITEMS: usize = 1000;

/// 64 KiB of text: pages of it. What is longer is a file.
pub(crate) const MAX_TEXT_LEN_BYTES: usize = 64 << 10;
