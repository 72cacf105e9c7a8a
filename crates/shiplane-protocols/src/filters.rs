//! Filters as calls carry them (SPEC 5.23).

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use shiplane_files::internals::{CountedMemory, FilterRules, Filters, FiltersError, MAX_IGNORE_FILES_BYTES};
use shiplane_rpc::{Fault, FaultCode};
use shiplane_transport::PeerId;

use crate::{off_thread, transfer::MemoryBudget};

/// What is excluded from a transfer or a sync.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct OpenFilters {
    /// Lines as in a `.gitignore` at the top of the tree.
    pub patterns: Vec<String>,
    /// Only these paths, what is below them, and the directories above them.
    pub listed: Option<Vec<Vec<u8>>>,
    /// Whether the tree's own ignore files count.
    pub ignore_files: bool,
    /// Whether other file systems are excluded.
    pub one_file_system: bool,
}

/// Filters that a caller has opened with, and the memory that they take.
#[derive(Debug)]
pub(crate) struct AgreedFilters {
    pub(crate) filters: Arc<Filters>,
    /// Given back when this is dropped.
    pub(crate) memory: Box<dyn CountedMemory>,
}

impl OpenFilters {
    pub(crate) fn of(filters: &Filters) -> Self {
        let FilterRules { patterns, listed, ignore_files, one_file_system } = filters.rules().clone();
        Self { patterns, listed, ignore_files, one_file_system }
    }

    /// Takes what `peer` has opened with, before anything is looked at: pays for it, then compiles it.
    ///
    /// # Errors
    /// `TooLarge`, `Busy`, or `InvalidRequest` for a pattern or a path that is none.
    pub(crate) async fn agree(self, memory: &MemoryBudget, peer: PeerId) -> Result<AgreedFilters, Fault> {
        let mut reserved = memory.of_requests(peer);
        if self == Self::default() {
            return Ok(AgreedFilters { filters: Arc::default(), memory: reserved });
        }
        if !reserved.resize(self.cost_bytes()) {
            return Err(Fault::new(FaultCode::Busy, "no memory for these filters; try again later"));
        }
        let Self { patterns, listed, ignore_files, one_file_system } = self;
        let rules = FilterRules { patterns, listed, ignore_files, one_file_system };
        let filters = off_thread(move || Filters::new(rules)).await?.map_err(|error| {
            let code = match error {
                FiltersError::Pattern { .. } | FiltersError::Path { .. } => FaultCode::InvalidRequest,
                FiltersError::TooManyPatterns { .. } | FiltersError::ListTooLong { .. } => {
                    FaultCode::TooLarge
                }
            };
            Fault::new(code, error.to_string())
        })?;
        Ok(AgreedFilters { filters: filters.into(), memory: reserved })
    }

    /// What they count as, compiled and on their way through a tree.
    fn cost_bytes(&self) -> u64 {
        let listed = self.listed.iter().flatten().map(|path| (path.len() + LISTED_COST_BYTES) as u64);
        let patterns = self.patterns.iter().map(|pattern| 2 * pattern.len() as u64 + PATTERN_COST_BYTES);
        let ignore_files = if self.ignore_files { IGNORE_FILES_COST_BYTES } else { 0 };
        listed.sum::<u64>() * LISTED_COPIES + patterns.sum::<u64>() + ignore_files
    }
}

/// What a path takes in addition to its bytes.
const LISTED_COST_BYTES: usize = 48;

/// As it came, sorted, and those that were not found yet.
const LISTED_COPIES: u64 = 3;

/// What a pattern takes in addition to its bytes, as text and parsed.
const PATTERN_COST_BYTES: u64 = 128;

/// What the tree's own ignore files may take at a time.
const IGNORE_FILES_COST_BYTES: u64 = MAX_IGNORE_FILES_BYTES as u64;
