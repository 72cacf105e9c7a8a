//! Records when each call was handled and how it ended, across both sides.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use parking_lot::Mutex;
use shiplane_rpc::RequestContext;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::SLACK;
use crate::sim::oracle::Violation;

/// Kept by both sides together.
#[derive(Debug, Default)]
pub(super) struct Book(Mutex<Pages>);

#[derive(Debug, Default)]
struct Pages {
    handled: Vec<Handled>,
    /// By question and attempt, how many have come in their order.
    pieces: BTreeMap<(u64, u64), u64>,
    /// A question of which one has not.
    disordered: Option<u64>,
}

#[derive(Debug)]
struct Handled {
    number: u64,
    attempt: u64,
    deadline: Instant,
    ended: Option<Instant>,
    is_finished: bool,
    cancelled: CancellationToken,
}

/// A handler at work, until it is dropped.
pub(super) struct Handling {
    book: Arc<Book>,
    at: usize,
}

impl Book {
    pub(super) fn begins(self: &Arc<Self>, number: u64, attempt: u64, context: &RequestContext) -> Handling {
        let mut pages = self.0.lock();
        let (deadline, cancelled) = (context.deadline, context.cancelled.clone());
        let handled = Handled { number, attempt, deadline, ended: None, is_finished: false, cancelled };
        pages.handled.push(handled);
        Handling { book: Arc::clone(self), at: pages.handled.len() - 1 }
    }

    pub(super) fn has_finished(&self, number: u64) -> bool {
        self.0.lock().handled.iter().any(|handled| handled.number == number && handled.is_finished)
    }

    /// The caller gets a piece of an answer.
    pub(super) fn takes(&self, number: u64, attempt: u64, piece: u64) {
        let mut pages = self.0.lock();
        let taken = pages.pieces.entry((number, attempt)).or_default();
        match *taken == piece {
            true => *taken += 1,
            false => pages.disordered = Some(number),
        }
    }

    /// Of a whole answer, all pieces have come, each once, in their order.
    pub(super) fn check_pieces(&self, number: u64, attempt: u64, count: u64) -> Result<(), Violation> {
        let taken = self.0.lock().pieces.get(&(number, attempt)).copied().unwrap_or_default();
        if taken == count { Ok(()) } else { Err(Violation::WrongAnswer { number }) }
    }

    pub(super) fn last_deadline(&self) -> Instant {
        self.0.lock().handled.iter().map(|handled| handled.deadline).max().unwrap_or_else(Instant::now)
    }

    /// What holds at any time.
    pub(super) fn check(&self, now: Instant) -> Result<(), Violation> {
        let pages = self.0.lock();
        let mut seen = BTreeSet::new();
        for Handled { number, attempt, deadline, ended, is_finished, cancelled } in &pages.handled {
            let number = *number;
            if !seen.insert((number, *attempt)) {
                return Err(Violation::HandledAgain { number });
            }
            let over = ended.unwrap_or(now).saturating_duration_since(*deadline);
            if over > SLACK {
                return Err(Violation::Overrun { number, over });
            }
            if ended.is_some() && !is_finished && !cancelled.is_cancelled() {
                return Err(Violation::NotCancelled { number });
            }
        }
        pages.disordered.map_or(Ok(()), |number| Err(Violation::WrongAnswer { number }))
    }
}

impl Handling {
    /// It has come to its end by itself.
    pub(super) fn finish(self) {
        if let Some(handled) = self.book.0.lock().handled.get_mut(self.at) {
            handled.is_finished = true;
        }
    }
}

impl Drop for Handling {
    fn drop(&mut self) {
        if let Some(handled) = self.book.0.lock().handled.get_mut(self.at) {
            handled.ended = Some(Instant::now());
        }
    }
}
