//! The table of calls in flight: ids, deadlines and bounds, without clock or IO.
//!
//! [`Calls`] is the caller's side. It gives out ids in sequence and knows what became of each, so that
//! an answer is classified as the awaited one, a late one, a second one, or one to nothing we asked:
//!
//! ```text
//! begin(now, deadline) -> id     the request is sent
//! answer(id, now)                the answer is here: who wins, it or the deadline, is decided here
//! expire(now)                    the clock says so: the overdue ids leave
//! cancel(id)                     the caller has lost interest
//! ```
//!
//! [`Inbound`] is the callee's side. The ids are the peer's choice there; it only sees to it that no
//! two calls in flight share one, and that there are not too many.

use std::{
    collections::{BTreeSet, HashSet},
    fmt,
    time::{Duration, Instant},
};

use rustc_hash::FxHashMap;
use thiserror::Error;

/// Names one call among all those of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(u64);

impl CallId {
    /// The id with this number.
    #[must_use]
    pub const fn from_u64(number: u64) -> Self {
        Self(number)
    }

    /// The number on the wire.
    #[must_use]
    pub const fn as_u64(self) -> u64 {
        self.0
    }
}

impl fmt::Display for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// The calls that this side has made and that are not settled.
#[derive(Debug)]
pub(crate) struct Calls {
    first: CallId,
    begun: u64,
    max_in_flight: usize,
    /// We choose the ids, so no peer can make them collide.
    in_flight: FxHashMap<CallId, Instant>,
    by_deadline: BTreeSet<(Instant, CallId)>,
    settled: History,
}

/// Why a call could not begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum BeginError {
    /// As many as allowed are waiting already.
    #[error("{max_in_flight} calls are already in flight")]
    Busy { max_in_flight: usize },
    /// There is no time left to begin it.
    #[error("the deadline has passed")]
    DeadlinePassed,
}

/// The reasons why an answer is invalid. None of these changes anything for any call that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum AnswerError {
    /// The call had ended already: by its deadline, by its caller, or too long ago to be remembered. The peer did
    /// nothing wrong.
    #[error("the answer came late")]
    Late,
    /// The call has its answer already; that one stands.
    #[error("the call was answered before")]
    Duplicate,
    /// No such call was ever made.
    #[error("no such call was made")]
    Unknown,
}

impl Calls {
    /// No calls yet; the ids will count from `first`.
    pub(crate) fn new(first: CallId, max_in_flight: usize) -> Self {
        Self {
            first,
            begun: 0,
            max_in_flight,
            in_flight: FxHashMap::default(),
            by_deadline: BTreeSet::new(),
            settled: History::default(),
        }
    }

    /// Begins a call that is to be settled before `deadline`.
    pub(crate) fn begin(&mut self, now: Instant, deadline: Instant) -> Result<CallId, BeginError> {
        if deadline <= now {
            return Err(BeginError::DeadlinePassed);
        }
        if self.in_flight.len() >= self.max_in_flight {
            return Err(BeginError::Busy { max_in_flight: self.max_in_flight });
        }
        let id = CallId(self.first.0.wrapping_add(self.begun));
        self.begun += 1;
        self.in_flight.insert(id, deadline);
        self.by_deadline.insert((deadline, id));
        Ok(id)
    }

    /// Records an answer to `id`. From its deadline on a call is over, even before [`expire`](Self::expire) is called.
    pub(crate) fn answer(&mut self, id: CallId, now: Instant) -> Result<(), AnswerError> {
        match self.in_flight.get(&id) {
            Some(&deadline) if now < deadline => {
                self.settle(id, Ending::Answered);
                Ok(())
            }
            Some(_) => {
                self.settle(id, Ending::GivenUp);
                Err(AnswerError::Late)
            }
            None => Err(match self.settled.ending(id) {
                Some(Ending::Answered) => AnswerError::Duplicate,
                Some(Ending::GivenUp) => AnswerError::Late,
                None if id.0.wrapping_sub(self.first.0) < self.begun => AnswerError::Late,
                None => AnswerError::Unknown,
            }),
        }
    }

    /// Settles every call whose deadline is at or before `now`; the earliest first.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<CallId> {
        let mut expired = Vec::new();
        while let Some(&(deadline, id)) = self.by_deadline.first() {
            if deadline > now {
                break;
            }
            self.settle(id, Ending::GivenUp);
            expired.push(id);
        }
        expired
    }

    /// Ends a call whose caller has gone; `false` if it had ended already.
    pub(crate) fn cancel(&mut self, id: CallId) -> bool {
        self.settle(id, Ending::GivenUp)
    }

    /// How many calls wait.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    fn settle(&mut self, id: CallId, ending: Ending) -> bool {
        let Some(deadline) = self.in_flight.remove(&id) else {
            return false;
        };
        self.by_deadline.remove(&(deadline, id));
        self.settled.remember(id, ending);
        true
    }
}

/// The calls that the peer has made and that are not answered.
#[derive(Debug)]
pub(crate) struct Inbound {
    ids: HashSet<CallId>,
    max_in_flight: usize,
}

/// Why a call of the peer's is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum AdmitError {
    /// SPEC 5.3: its id is that of another call in flight.
    #[error("a call with this id is already in flight")]
    InFlight,
    /// As many as allowed are being worked on already.
    #[error("{max_in_flight} calls are already being handled")]
    Busy { max_in_flight: usize },
}

impl Inbound {
    pub(crate) fn new(max_in_flight: usize) -> Self {
        Self { ids: HashSet::new(), max_in_flight }
    }

    /// Takes a call; it stays in flight until [`finish`](Self::finish).
    pub(crate) fn admit(&mut self, id: CallId) -> Result<(), AdmitError> {
        // A reused id breaks the protocol however busy we are, so that is looked at first.
        if self.ids.contains(&id) {
            return Err(AdmitError::InFlight);
        }
        if self.ids.len() >= self.max_in_flight {
            return Err(AdmitError::Busy { max_in_flight: self.max_in_flight });
        }
        self.ids.insert(id);
        Ok(())
    }

    /// The call is over and its id free again.
    pub(crate) fn finish(&mut self, id: CallId) {
        self.ids.remove(&id);
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    Answered,
    GivenUp,
}

/// How the last calls ended. Ids count up, so that each has its place, until one that came
/// [`MAX_REMEMBERED`] later takes it.
#[derive(Default)]
struct History {
    /// Empty before the first: most of many connections are only called.
    places: Vec<Option<(CallId, Ending)>>,
}

impl History {
    fn remember(&mut self, id: CallId, ending: Ending) {
        self.places.resize(MAX_REMEMBERED, None);
        self.places[Self::place(id)] = Some((id, ending));
    }

    fn ending(&self, id: CallId) -> Option<Ending> {
        let (settled, ending) = (*self.places.get(Self::place(id))?)?;
        (settled == id).then_some(ending)
    }

    fn place(id: CallId) -> usize {
        (id.0 % MAX_REMEMBERED as u64) as usize
    }
}

impl fmt::Debug for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("History").finish_non_exhaustive()
    }
}

/// A day: longer than any useful call. A longer budget, a peer's included, is cut
/// to this, so that no number makes a point in time that the clock cannot hold.
pub const MAX_BUDGET: Duration = Duration::from_secs(24 * 60 * 60);

/// 1,024 calls in flight of one connection: three times the streams that a peer may have open, so
/// that a burst queues here rather than fails, and little memory even when each waits with a body.
pub const MAX_IN_FLIGHT: usize = 1024;

/// As many as can be in flight: a stray answer belongs to one of the last calls or is very odd.
const MAX_REMEMBERED: usize = MAX_IN_FLIGHT;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn table(max_in_flight: usize) -> (Calls, Instant) {
        (Calls::new(CallId(7), max_in_flight), Instant::now())
    }

    #[test]
    fn an_answer_before_the_deadline_settles_the_call() {
        let (mut calls, now) = table(8);
        let id = calls.begin(now, now + SECOND).unwrap();
        assert_eq!(calls.answer(id, now + SECOND / 2), Ok(()));
        assert_eq!(calls.in_flight(), 0);
        assert_eq!(calls.expire(now + SECOND * 2), [], "an answered call has no deadline left");
    }

    #[test]
    fn late_duplicate_and_unknown_answers_are_told_apart() {
        let (mut calls, now) = table(8);
        let answered = calls.begin(now, now + SECOND).unwrap();
        let expired = calls.begin(now, now + SECOND).unwrap();
        let cancelled = calls.begin(now, now + SECOND * 9).unwrap();
        let waiting = calls.begin(now, now + SECOND * 9).unwrap();

        assert_eq!(calls.answer(answered, now), Ok(()));
        assert_eq!(calls.expire(now + SECOND), [expired]);
        assert!(calls.cancel(cancelled));

        assert_eq!(calls.answer(answered, now), Err(AnswerError::Duplicate));
        assert_eq!(calls.answer(expired, now), Err(AnswerError::Late));
        assert_eq!(calls.answer(cancelled, now), Err(AnswerError::Late));
        assert_eq!(calls.answer(CallId(6), now), Err(AnswerError::Unknown));
        assert_eq!(calls.answer(CallId(11), now), Err(AnswerError::Unknown));
        assert_eq!(calls.in_flight(), 1, "none of them disturbs the one that waits");
        assert_eq!(calls.answer(waiting, now), Ok(()));
    }

    #[test]
    fn the_deadline_itself_is_too_late_even_before_the_clock_was_asked() {
        let (mut calls, now) = table(8);
        let id = calls.begin(now, now + SECOND).unwrap();
        assert_eq!(calls.answer(id, now + SECOND), Err(AnswerError::Late));
        assert_eq!(calls.in_flight(), 0);
        assert_eq!(calls.begin(now, now), Err(BeginError::DeadlinePassed));
    }

    #[test]
    fn one_call_too_many_is_refused_until_another_ends() {
        let (mut calls, now) = table(2);
        let first = calls.begin(now, now + SECOND).unwrap();
        calls.begin(now, now + SECOND).unwrap();
        let busy = Err(BeginError::Busy { max_in_flight: 2 });
        assert_eq!(calls.begin(now, now + SECOND), busy);
        assert!(calls.cancel(first));
        assert!(calls.begin(now, now + SECOND).is_ok());
    }

    #[test]
    fn ids_wrap_around_without_confusion() {
        let now = Instant::now();
        let mut calls = Calls::new(CallId(u64::MAX), 8);
        let last = calls.begin(now, now + SECOND).unwrap();
        let wrapped = calls.begin(now, now + SECOND).unwrap();
        assert_eq!((last, wrapped), (CallId(u64::MAX), CallId(0)));
        assert_eq!(calls.answer(wrapped, now), Ok(()));
        assert_eq!(calls.answer(CallId(1), now), Err(AnswerError::Unknown));
        assert_eq!(calls.answer(last, now), Ok(()));
    }

    #[test]
    fn an_answer_to_a_forgotten_call_is_late_and_memory_is_bounded() {
        let (mut calls, now) = table(1);
        for _ in 0..3 * MAX_REMEMBERED {
            let id = calls.begin(now, now + SECOND).unwrap();
            calls.answer(id, now).unwrap();
        }
        assert_eq!(calls.answer(CallId(7), now), Err(AnswerError::Late));
        let newest = CallId(7 + 3 * MAX_REMEMBERED as u64 - 1);
        assert_eq!(calls.answer(newest, now), Err(AnswerError::Duplicate));
        assert_eq!(calls.settled.places.len(), MAX_REMEMBERED);
    }

    #[test]
    fn a_peers_id_is_refused_while_in_flight_and_welcome_after() {
        let mut inbound = Inbound::new(2);
        inbound.admit(CallId(1)).unwrap();
        inbound.admit(CallId(2)).unwrap();
        assert_eq!(inbound.admit(CallId(1)), Err(AdmitError::InFlight));
        assert_eq!(inbound.admit(CallId(3)), Err(AdmitError::Busy { max_in_flight: 2 }));
        inbound.finish(CallId(1));
        assert_eq!(inbound.admit(CallId(1)), Ok(()));
    }

    #[derive(Debug, Clone)]
    enum Op {
        Begin { budget_ms: u64 },
        Answer { id: u64 },
        Cancel { id: u64 },
        Wait { ms: u64 },
        Expire,
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            3 => (0..50_u64).prop_map(|budget_ms| Op::Begin { budget_ms }),
            3 => (0..40_u64).prop_map(|id| Op::Answer { id }),
            1 => (0..40_u64).prop_map(|id| Op::Cancel { id }),
            2 => (0..30_u64).prop_map(|ms| Op::Wait { ms }),
            1 => Just(Op::Expire),
        ]
    }

    /// What became of a call, as a reader of the documentation would write it down.
    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Fate {
        Waits { deadline_ms: u64 },
        Answered,
        GivenUp,
    }

    proptest! {
        #[test]
        fn the_table_does_as_a_plain_list_would(ops in proptest::collection::vec(op(), 1..120)) {
            const MAX: usize = 4;
            let start = Instant::now();
            let at = |ms| start + Duration::from_millis(ms);
            let mut now_ms = 0;
            let mut calls = Calls::new(CallId(0), MAX);
            let mut model: BTreeMap<u64, Fate> = BTreeMap::new();
            let waiting = |model: &BTreeMap<u64, Fate>| {
                model.values().filter(|fate| matches!(fate, Fate::Waits { .. })).count()
            };

            for op in ops {
                match op {
                    Op::Begin { budget_ms } => {
                        let deadline_ms = now_ms + budget_ms;
                        let expected = if budget_ms == 0 {
                            Err(BeginError::DeadlinePassed)
                        } else if waiting(&model) == MAX {
                            Err(BeginError::Busy { max_in_flight: MAX })
                        } else {
                            let id = model.len() as u64;
                            model.insert(id, Fate::Waits { deadline_ms });
                            Ok(CallId(id))
                        };
                        prop_assert_eq!(calls.begin(at(now_ms), at(deadline_ms)), expected);
                    }
                    Op::Answer { id } => {
                        let (expected, fate) = match model.get(&id) {
                            Some(Fate::Waits { deadline_ms }) if now_ms < *deadline_ms => {
                                (Ok(()), Fate::Answered)
                            }
                            Some(Fate::Waits { .. } | Fate::GivenUp) => {
                                (Err(AnswerError::Late), Fate::GivenUp)
                            }
                            Some(Fate::Answered) => (Err(AnswerError::Duplicate), Fate::Answered),
                            None => (Err(AnswerError::Unknown), Fate::GivenUp),
                        };
                        model.entry(id).and_modify(|f| *f = fate);
                        prop_assert_eq!(calls.answer(CallId(id), at(now_ms)), expected);
                    }
                    Op::Cancel { id } => {
                        let waits = matches!(model.get(&id), Some(Fate::Waits { .. }));
                        if waits {
                            model.insert(id, Fate::GivenUp);
                        }
                        prop_assert_eq!(calls.cancel(CallId(id)), waits);
                    }
                    Op::Wait { ms } => now_ms += ms,
                    Op::Expire => {
                        let mut due = Vec::new();
                        for (id, fate) in &mut model {
                            if let Fate::Waits { deadline_ms } = *fate
                                && deadline_ms <= now_ms
                            {
                                due.push((deadline_ms, CallId(*id)));
                                *fate = Fate::GivenUp;
                            }
                        }
                        due.sort();
                        let due: Vec<_> = due.into_iter().map(|(_, id)| id).collect();
                        prop_assert_eq!(calls.expire(at(now_ms)), due);
                    }
                }
                prop_assert_eq!(calls.in_flight(), waiting(&model));
                prop_assert_eq!(calls.by_deadline.len(), calls.in_flight.len());
            }
        }
    }
}
