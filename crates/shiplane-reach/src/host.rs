//! The sender's code: how many may still guess, who has been admitted, and when it ends. No clock, no IO.

use std::time::{Duration, Instant, SystemTime};

use shiplane_transport::PeerId;

use crate::{
    code::Code,
    exchange::{Binding, Confirmation, ExchangeFault, Message, SenderExchange},
};

/// A moment, by the clock that only runs forward and by the one that also runs while the machine sleeps.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// Monotonic.
    pub instant: Instant,
    /// What a calendar says.
    pub wall: SystemTime,
}

/// How long a code waits, and for whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CodeTerms {
    /// How long it waits for its next receiver; `None`: until it is taken.
    pub ttl: Option<Duration>,
    /// How many receivers it is for; `None`: any number.
    pub receivers: Option<u32>,
}

/// What a code is good for at present.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CodeState {
    /// It waits for a receiver.
    Open,
    /// As many receivers as it is for have proven that they know it.
    Complete,
    /// Its time is over.
    Expired,
    /// It was guessed at so often that it is void.
    Exhausted,
}

/// Why the sender's side refuses a step. The receiver may be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// It does not wait for a receiver any more.
    #[error("the code has been used, has expired, or is void after wrong guesses")]
    Closed,
    /// The confirmation is wrong, or of another connection.
    #[error("the code is wrong")]
    WrongCode,
    /// The message is malformed.
    #[error("the key exchange message is malformed")]
    Malformed,
}

/// The sender's side of all exchanges by one code.
pub(crate) struct CodeHost {
    code: Code,
    sender: PeerId,
    terms: CodeTerms,
    opened: Moment,
    guesses_left: usize,
    pending: Vec<Pending>,
    /// How many exchanges have begun.
    begun: u64,
    admitted: Vec<PeerId>,
}

/// An exchange that was answered and is not confirmed yet. Its guess is charged.
struct Pending {
    receiver: PeerId,
    binding: Binding,
    exchange: SenderExchange,
    since: Instant,
    serial: u64,
}

/// An exchange that has begun.
#[derive(Debug)]
pub(crate) struct Begun {
    pub(crate) answer: Message,
    /// Whether an earlier one on its connection is given up for it.
    pub(crate) is_anew: bool,
    serial: u64,
}

impl Moment {
    /// Now.
    #[must_use]
    pub fn now() -> Self {
        Self { instant: Instant::now(), wall: SystemTime::now() }
    }

    /// By whichever clock says more: one stands still while the machine sleeps, the other can be set.
    fn since(&self, earlier: &Self) -> Duration {
        let wall = self.wall.duration_since(earlier.wall).unwrap_or_default();
        wall.max(self.instant.saturating_duration_since(earlier.instant))
    }
}

impl Default for CodeTerms {
    fn default() -> Self {
        Self { ttl: Some(CODE_TTL), receivers: Some(1) }
    }
}

impl CodeHost {
    pub(crate) fn new(code: Code, sender: PeerId, terms: CodeTerms, now: Moment) -> Self {
        let (pending, admitted) = (Vec::new(), Vec::new());
        Self { code, sender, terms, opened: now, guesses_left: MAX_GUESSES, pending, begun: 0, admitted }
    }

    pub(crate) fn code(&self) -> &Code {
        &self.code
    }

    /// Whether an unknown key may try.
    pub(crate) fn is_open(&self, now: Moment) -> bool {
        self.guesses_left > 0 && self.state(now) == CodeState::Open
    }

    pub(crate) fn state(&self, now: Moment) -> CodeState {
        if self.terms.receivers.is_some_and(|receivers| self.admitted.len() >= receivers as usize) {
            return CodeState::Complete;
        }
        if self.terms.ttl.is_some_and(|ttl| now.since(&self.opened) >= ttl) {
            return CodeState::Expired;
        }
        let is_under_way =
            |pending: &Pending| now.instant.saturating_duration_since(pending.since) < CONFIRM_TIMEOUT;
        match self.guesses_left == 0 && !self.pending.iter().any(is_under_way) {
            true => CodeState::Exhausted,
            false => CodeState::Open,
        }
    }

    /// The guesses that are left.
    pub(crate) fn guesses_left(&self) -> usize {
        self.guesses_left
    }

    /// Begins an exchange. The guess is charged before there is an answer, and stays charged if nothing follows. A
    /// receiver that was admitted before may repeat its exchange: it can win nothing.
    pub(crate) fn begin(
        &mut self,
        receiver: PeerId,
        binding: Binding,
        message: &Message,
        now: Moment,
    ) -> Result<Begun, Refusal> {
        if !self.admitted.contains(&receiver) {
            if !self.is_open(now) {
                return Err(Refusal::Closed);
            }
            self.guesses_left -= 1;
        }
        // One at a time on a connection; the earlier one stays charged.
        let before = self.pending.len();
        self.pending.retain(|pending| (pending.receiver, pending.binding) != (receiver, binding));
        let is_anew = self.pending.len() < before && !self.admitted.contains(&receiver);
        if self.pending.len() >= MAX_PENDING {
            return Err(Refusal::Closed);
        }
        let answered = SenderExchange::answer(&self.code, &receiver, &self.sender, message);
        let (exchange, answer) = answered.map_err(Refusal::from)?;
        self.begun += 1;
        let serial = self.begun;
        self.pending.push(Pending { receiver, binding, exchange, since: now.instant, serial });
        Ok(Begun { answer, is_anew, serial })
    }

    /// Gives up an exchange that was not confirmed; `true` if it was one, and a guess.
    pub(crate) fn give_up(&mut self, begun: &Begun) -> bool {
        let found = self.pending.iter().position(|pending| pending.serial == begun.serial);
        let given_up = found.map(|found| self.pending.swap_remove(found));
        given_up.is_some_and(|pending| !self.admitted.contains(&pending.receiver))
    }

    /// Checks a confirmation. Right, it gives the guess back and admits the receiver; `true`: for the first time.
    pub(crate) fn confirm(
        &mut self,
        receiver: PeerId,
        binding: Binding,
        confirmation: &Confirmation,
        now: Moment,
    ) -> Result<(Confirmation, bool), Refusal> {
        let found = self
            .pending
            .iter()
            .position(|pending| pending.receiver == receiver && pending.binding == binding)
            .ok_or(Refusal::Closed)?;
        let pending = self.pending.swap_remove(found);
        let ours = pending.exchange.check(confirmation, &binding).map_err(Refusal::from)?;
        if self.admitted.contains(&receiver) {
            return Ok((ours, false));
        }
        self.guesses_left = (self.guesses_left + 1).min(MAX_GUESSES);
        // Another receiver may have been faster.
        if self.state(now) != CodeState::Open || self.admitted.len() >= MAX_ADMITTED {
            return Err(Refusal::Closed);
        }
        self.admitted.push(receiver);
        self.opened = now;
        Ok((ours, true))
    }
}

impl From<ExchangeFault> for Refusal {
    fn from(fault: ExchangeFault) -> Self {
        match fault {
            ExchangeFault::Malformed => Self::Malformed,
            ExchangeFault::WrongCode => Self::WrongCode,
        }
    }
}

/// Ten minutes: time to say the code, and to install the program on the other machine.
pub const CODE_TTL: Duration = Duration::from_secs(600);

/// Three guesses at 65,536 possibilities: a person may mistype, a program finds nothing.
pub(crate) const MAX_GUESSES: usize = 3;

/// Exchanges that wait for a confirmation: those that are charged, and repeated ones of admitted receivers.
const MAX_PENDING: usize = 2 * MAX_GUESSES;

/// Ten seconds: many round trips. An exchange that was not confirmed by then is given up.
pub(crate) const CONFIRM_TIMEOUT: Duration = Duration::from_secs(10);

/// As many as one ticket may have owners.
const MAX_ADMITTED: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::ReceiverExchange;

    const SENDER: PeerId = PeerId::from_bytes([100; 32]);
    const SECOND: Duration = Duration::from_secs(1);

    /// A sender at a moment that the story sets.
    struct Sender {
        host: CodeHost,
        now: Moment,
    }

    /// A receiver that has sent its confirmation or could.
    struct Receiver {
        id: PeerId,
        binding: Binding,
        confirmation: Confirmation,
        begun: Begun,
    }

    impl Sender {
        fn new(terms: CodeTerms) -> Self {
            let now = Moment::now();
            Self { host: CodeHost::new(code("7-crossover-clockwork"), SENDER, terms, now), now }
        }

        /// The receiver with this id begins on a connection of its own.
        fn begins(&mut self, byte: u8, guess: &str) -> Result<Receiver, Refusal> {
            let (id, binding) = (PeerId::from_bytes([byte; 32]), [byte; 32]);
            let (state, hello) = ReceiverExchange::start(&code(guess), &id, &SENDER).unwrap();
            let begun = self.host.begin(id, binding, &hello, self.now)?;
            let (_, confirmation) = state.confirm(&begun.answer, &binding).unwrap();
            Ok(Receiver { id, binding, confirmation, begun })
        }

        fn confirms(&mut self, receiver: &Receiver) -> Result<bool, Refusal> {
            let Receiver { id, binding, confirmation, .. } = receiver;
            self.host.confirm(*id, *binding, confirmation, self.now).map(|(_, is_new)| is_new)
        }

        fn tries(&mut self, byte: u8, guess: &str) -> Result<bool, Refusal> {
            let receiver = self.begins(byte, guess)?;
            self.confirms(&receiver)
        }

        fn sleeps(&mut self, time: Duration) {
            // The monotonic clock stands still.
            self.now.wall += time;
        }

        fn waits(&mut self, time: Duration) {
            self.now = Moment { instant: self.now.instant + time, wall: self.now.wall + time };
        }

        fn state(&self) -> CodeState {
            self.host.state(self.now)
        }
    }

    fn code(text: &str) -> Code {
        text.parse().unwrap()
    }

    const RIGHT: &str = "7-crossover-clockwork";
    const WRONG: &str = "7-crossover-clamshell";

    #[test]
    fn the_right_code_admits_one_receiver_only() {
        let mut sender = Sender::new(CodeTerms::default());
        assert_eq!(sender.tries(1, RIGHT), Ok(true));
        assert_eq!(sender.state(), CodeState::Complete);
        assert_eq!(sender.tries(2, RIGHT), Err(Refusal::Closed));
        assert_eq!(sender.tries(1, RIGHT), Ok(false), "the same receiver again");
    }

    #[test]
    fn three_wrong_guesses_make_it_void_for_everyone() {
        let mut sender = Sender::new(CodeTerms::default());
        for (byte, left) in [(1, 2), (1, 1), (2, 0)] {
            assert_eq!(sender.state(), CodeState::Open);
            assert_eq!(sender.tries(byte, WRONG), Err(Refusal::WrongCode));
            assert_eq!(sender.host.guesses_left(), left);
        }
        assert_eq!(sender.state(), CodeState::Exhausted);
        assert_eq!(sender.tries(3, RIGHT), Err(Refusal::Closed));
    }

    #[test]
    fn a_right_guess_between_wrong_ones_gives_only_its_own_back() {
        let terms = CodeTerms { receivers: None, ..CodeTerms::default() };
        let mut sender = Sender::new(terms);
        assert_eq!(sender.tries(1, WRONG), Err(Refusal::WrongCode));
        assert_eq!(sender.tries(2, RIGHT), Ok(true));
        assert_eq!(sender.tries(3, RIGHT), Ok(true));
        assert_eq!(sender.host.guesses_left(), 2);
        assert_eq!(sender.tries(1, WRONG), Err(Refusal::WrongCode));
        assert_eq!(sender.tries(1, WRONG), Err(Refusal::WrongCode));
        assert_eq!(sender.tries(4, RIGHT), Err(Refusal::Closed));
        assert_eq!(sender.tries(2, RIGHT), Ok(false), "who was admitted stays so");
    }

    #[test]
    fn parallel_and_broken_off_attempts_are_charged() {
        let mut sender = Sender::new(CodeTerms::default());
        let parallel: Vec<_> = (1..=3).map(|byte| sender.begins(byte, WRONG).unwrap()).collect();
        assert_eq!(sender.begins(4, RIGHT).err(), Some(Refusal::Closed));
        assert_eq!(sender.state(), CodeState::Open, "one of them may yet be right");
        drop(parallel);
        sender.waits(CONFIRM_TIMEOUT);
        assert_eq!(sender.state(), CodeState::Exhausted);
        assert_eq!(sender.begins(4, RIGHT).err(), Some(Refusal::Closed));
    }

    #[test]
    fn an_exchange_that_was_given_up_stays_charged_and_cannot_be_confirmed() {
        let mut sender = Sender::new(CodeTerms { receivers: Some(2), ..CodeTerms::default() });
        let gone = sender.begins(1, RIGHT).unwrap();
        assert!(sender.host.give_up(&gone.begun) && !sender.host.give_up(&gone.begun), "told once");
        assert_eq!(sender.confirms(&gone), Err(Refusal::Closed));
        assert_eq!((sender.host.guesses_left(), sender.state()), (2, CodeState::Open));
        assert_eq!(sender.tries(2, RIGHT), Ok(true));
        let again = sender.begins(2, RIGHT).unwrap();
        assert!(!sender.host.give_up(&again.begun), "that of an admitted receiver is no guess");
        for byte in [3, 4] {
            let last = sender.begins(byte, WRONG).unwrap();
            assert!(sender.host.give_up(&last.begun));
        }
        assert_eq!(sender.state(), CodeState::Exhausted, "nothing is under way");
    }

    #[test]
    fn an_answer_can_be_confirmed_once_and_only_on_its_connection() {
        let mut sender = Sender::new(CodeTerms::default());
        let receiver = sender.begins(1, RIGHT).unwrap();
        let elsewhere = Receiver { binding: [8; 32], ..receiver };
        assert_eq!(sender.confirms(&elsewhere), Err(Refusal::Closed));
        let other = Receiver { id: PeerId::from_bytes([8; 32]), binding: receiver.binding, ..elsewhere };
        assert_eq!(sender.confirms(&other), Err(Refusal::Closed));

        let wrong = sender.begins(2, WRONG).unwrap();
        assert_eq!(sender.confirms(&wrong), Err(Refusal::WrongCode));
        assert_eq!(sender.confirms(&wrong), Err(Refusal::Closed), "a second confirmation is a second guess");
        assert_eq!(sender.host.guesses_left(), 1);
        let again = Receiver { binding: [1; 32], id: PeerId::from_bytes([1; 32]), ..other };
        assert_eq!(sender.confirms(&again), Ok(true));
    }

    #[test]
    fn beginning_anew_on_a_connection_charges_again() {
        let mut sender = Sender::new(CodeTerms::default());
        for left in [2, 1, 0] {
            assert!(sender.begins(1, RIGHT).is_ok());
            assert_eq!(sender.host.guesses_left(), left);
        }
        assert_eq!(sender.begins(1, RIGHT).err(), Some(Refusal::Closed));
    }

    #[test]
    fn of_two_receivers_at_once_the_first_to_confirm_has_it() {
        let mut sender = Sender::new(CodeTerms::default());
        let (one, two) = (sender.begins(1, RIGHT).unwrap(), sender.begins(2, RIGHT).unwrap());
        assert_eq!(sender.confirms(&two), Ok(true));
        assert_eq!(sender.confirms(&one), Err(Refusal::Closed));
        assert_eq!(sender.state(), CodeState::Complete);
    }

    #[test]
    fn a_code_waits_ten_minutes_also_while_the_machine_sleeps() {
        for passes in [Sender::waits, Sender::sleeps] {
            let mut sender = Sender::new(CodeTerms::default());
            passes(&mut sender, CODE_TTL - SECOND);
            let receiver = sender.begins(1, RIGHT).unwrap();
            passes(&mut sender, SECOND);
            assert_eq!(sender.state(), CodeState::Expired);
            assert_eq!(sender.tries(2, RIGHT), Err(Refusal::Closed));
            assert_eq!(sender.confirms(&receiver), Err(Refusal::Closed));
        }
    }

    #[test]
    fn a_clock_that_is_set_back_does_not_prolong_it() {
        let mut sender = Sender::new(CodeTerms::default());
        sender.now.wall -= Duration::from_secs(3600);
        sender.now.instant += CODE_TTL;
        assert_eq!(sender.state(), CodeState::Expired);
    }

    #[test]
    fn each_receiver_renews_the_time_of_a_code_for_several() {
        let mut sender = Sender::new(CodeTerms { receivers: Some(2), ..CodeTerms::default() });
        sender.waits(CODE_TTL - SECOND);
        assert_eq!(sender.tries(1, RIGHT), Ok(true));
        sender.waits(CODE_TTL - SECOND);
        assert_eq!(sender.state(), CodeState::Open);
        assert_eq!(sender.tries(2, RIGHT), Ok(true));
        assert_eq!(sender.state(), CodeState::Complete);
    }

    #[test]
    fn the_last_guess_may_be_the_right_one() {
        let mut sender = Sender::new(CodeTerms::default());
        assert_eq!(sender.tries(1, WRONG), Err(Refusal::WrongCode));
        assert_eq!(sender.tries(1, WRONG), Err(Refusal::WrongCode));
        assert_eq!(sender.tries(1, RIGHT), Ok(true));
    }

    #[test]
    fn a_malformed_message_is_charged_too() {
        let mut sender = Sender::new(CodeTerms::default());
        let id = PeerId::from_bytes([1; 32]);
        let refused = sender.host.begin(id, [1; 32], &[0; 33], sender.now).map(|_| ());
        assert_eq!((refused, sender.host.guesses_left()), (Err(Refusal::Malformed), 2));
    }
}
