//! One key exchange by a code: SPAKE2, then a confirmation by each side, the receiver first. No clock, no IO.
//!
//! ```text
//! receiver                                   sender
//!   ├── SPAKE2 message ──────────────────────►│ charges a guess, then answers
//!   │◄────────────────────── SPAKE2 message ──┤
//!   ├── confirmation ────────────────────────►│ right: gives the guess back
//!   │◄──────────────────────── confirmation ──┤
//! ```
//!
//! The password is the code, the identities are the two peer ids that TLS has proven, and the confirmations are bound to
//! the TLS connection. An attacker that relays the messages to another connection has other ids and another binding, so its
//! confirmation is wrong.

use shiplane_transport::PeerId;
use spake2::{Ed25519Group, Identity, Password, Spake2};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::code::Code;

/// A SPAKE2 message: the role, and a point of the curve.
pub(crate) const MESSAGE_LEN_BYTES: usize = 33;

/// A side's message.
pub(crate) type Message = [u8; MESSAGE_LEN_BYTES];

/// A side's proof that it has the same key.
pub(crate) type Confirmation = [u8; 32];

/// A value that only the two ends of one TLS connection know.
pub(crate) type Binding = [u8; 32];

/// Why an exchange ends. It says nothing about the code but that the guess was wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ExchangeFault {
    /// The message is none of the other role, or no point.
    #[error("the key exchange message is malformed")]
    Malformed,
    /// The other side has another code, other ids, or another connection.
    #[error("the code is wrong")]
    WrongCode,
}

/// The receiver's side, until the sender has answered.
pub(crate) struct ReceiverExchange(Spake2<Ed25519Group>);

/// The receiver's side, until the sender has confirmed.
pub(crate) struct ReceiverConfirmed {
    expected: Confirmation,
}

/// The sender's side, until the receiver has confirmed.
pub(crate) struct SenderExchange {
    key: Key,
}

impl ReceiverExchange {
    /// Begins, with the message to send.
    pub(crate) fn start(
        code: &Code,
        receiver: &PeerId,
        sender: &PeerId,
    ) -> Result<(Self, Message), ExchangeFault> {
        let (password, [receiver, sender]) = inputs(code, receiver, sender);
        let (state, message) = Spake2::start_a(&password, &receiver, &sender);
        Ok((Self(state), to_message(&message)?))
    }

    /// Takes the sender's message, and gives the confirmation to send.
    pub(crate) fn confirm(
        self,
        message: &Message,
        binding: &Binding,
    ) -> Result<(ReceiverConfirmed, Confirmation), ExchangeFault> {
        let key = finish(self.0, message)?;
        let expected = confirmation(SENDER, &key, binding);
        Ok((ReceiverConfirmed { expected }, confirmation(RECEIVER, &key, binding)))
    }
}

impl ReceiverConfirmed {
    /// Checks the sender's confirmation.
    pub(crate) fn check(&self, confirmation: &Confirmation) -> Result<(), ExchangeFault> {
        match bool::from(self.expected.ct_eq(confirmation)) {
            true => Ok(()),
            false => Err(ExchangeFault::WrongCode),
        }
    }
}

impl SenderExchange {
    /// Takes the receiver's message, and gives the one to answer with.
    pub(crate) fn answer(
        code: &Code,
        receiver: &PeerId,
        sender: &PeerId,
        message: &Message,
    ) -> Result<(Self, Message), ExchangeFault> {
        let (password, [receiver, sender]) = inputs(code, receiver, sender);
        let (state, answer) = Spake2::start_b(&password, &receiver, &sender);
        Ok((Self { key: finish(state, message)? }, to_message(&answer)?))
    }

    /// Checks the receiver's confirmation. The one to answer with exists only if it is right.
    pub(crate) fn check(
        &self,
        theirs: &Confirmation,
        binding: &Binding,
    ) -> Result<Confirmation, ExchangeFault> {
        match bool::from(confirmation(RECEIVER, &self.key, binding).ct_eq(theirs)) {
            true => Ok(confirmation(SENDER, &self.key, binding)),
            false => Err(ExchangeFault::WrongCode),
        }
    }
}

type Key = Zeroizing<[u8; 32]>;

fn inputs(code: &Code, receiver: &PeerId, sender: &PeerId) -> (Password, [Identity; 2]) {
    let ids = [receiver, sender].map(|id| Identity::new(id.as_bytes()));
    (Password::new(code.to_text().as_bytes()), ids)
}

fn finish(state: Spake2<Ed25519Group>, message: &Message) -> Result<Key, ExchangeFault> {
    let key = Zeroizing::new(state.finish(message).map_err(|_| ExchangeFault::Malformed)?);
    let key = <[u8; 32]>::try_from(&key[..]).map_err(|_| ExchangeFault::Malformed)?;
    Ok(Zeroizing::new(key))
}

fn to_message(bytes: &[u8]) -> Result<Message, ExchangeFault> {
    Message::try_from(bytes).map_err(|_| ExchangeFault::Malformed)
}

/// SPEC 6.7: both parts have a fixed length, so that no two pairs are the same bytes.
fn confirmation(role: &str, key: &Key, binding: &Binding) -> Confirmation {
    let mut material = Zeroizing::new([0; 64]);
    material[..32].copy_from_slice(&key[..]);
    material[32..].copy_from_slice(binding);
    blake3::derive_key(role, &material[..])
}

/// For the fuzzer: any message is answered or refused, and no confirmation is right by chance.
pub fn fuzz_exchange(data: &[u8]) {
    let Some((message, rest)) = data.split_first_chunk::<MESSAGE_LEN_BYTES>() else { return };
    let (receiver, sender) = (PeerId::from_bytes([1; 32]), PeerId::from_bytes([2; 32]));
    let Ok(code) = "7-crossover-clockwork".parse::<Code>() else { return };
    let binding = [3; 32];
    let theirs: Confirmation = std::array::from_fn(|at| rest.get(at).copied().unwrap_or_default());
    if let Ok((exchange, _)) = SenderExchange::answer(&code, &receiver, &sender, message) {
        assert_eq!(exchange.check(&theirs, &binding), Err(ExchangeFault::WrongCode));
    }
    if let Ok((exchange, _)) = ReceiverExchange::start(&code, &receiver, &sender)
        && let Ok((confirmed, ours)) = exchange.confirm(message, &binding)
    {
        assert_eq!(confirmed.check(&theirs), Err(ExchangeFault::WrongCode));
        assert_eq!(confirmed.check(&ours), Err(ExchangeFault::WrongCode), "a reflected confirmation");
    }
}

const RECEIVER: &str = "shiplane 1 code confirmation of the receiver";

const SENDER: &str = "shiplane 1 code confirmation of the sender";

#[cfg(test)]
mod tests {
    use super::*;

    const RECEIVER_ID: PeerId = PeerId::from_bytes([1; 32]);
    const SENDER_ID: PeerId = PeerId::from_bytes([2; 32]);
    const OTHER_ID: PeerId = PeerId::from_bytes([9; 32]);
    const BINDING: Binding = [7; 32];

    fn code(text: &str) -> Code {
        text.parse().unwrap()
    }

    /// What one side believes: its code, the two ids, and its connection.
    struct View {
        code: Code,
        receiver: PeerId,
        sender: PeerId,
        binding: Binding,
    }

    impl View {
        fn new() -> Self {
            let code = code("7-crossover-clockwork");
            Self { code, receiver: RECEIVER_ID, sender: SENDER_ID, binding: BINDING }
        }
    }

    /// Whether the sender and then the receiver is convinced.
    fn exchange(receiver: &View, sender: &View) -> (bool, bool) {
        let (state, hello) =
            ReceiverExchange::start(&receiver.code, &receiver.receiver, &receiver.sender).unwrap();
        let (answering, answer) =
            SenderExchange::answer(&sender.code, &sender.receiver, &sender.sender, &hello).unwrap();
        let (confirmed, ours) = state.confirm(&answer, &receiver.binding).unwrap();
        match answering.check(&ours, &sender.binding) {
            Ok(theirs) => (true, confirmed.check(&theirs).is_ok()),
            Err(fault) => {
                assert_eq!(fault, ExchangeFault::WrongCode);
                (false, false)
            }
        }
    }

    #[test]
    fn the_same_code_ids_and_connection_convince_both() {
        assert_eq!(exchange(&View::new(), &View::new()), (true, true));
    }

    #[test]
    fn a_changed_confirmation_is_refused() {
        for other in [
            View { code: code("7-crossover-clamshell"), ..View::new() },
            View { code: code("8-crossover-clockwork"), ..View::new() },
            View { receiver: OTHER_ID, ..View::new() },
            View { sender: OTHER_ID, ..View::new() },
            View { binding: [8; 32], ..View::new() },
        ] {
            assert_eq!(exchange(&View::new(), &other), (false, false));
            assert_eq!(exchange(&other, &View::new()), (false, false));
        }
    }

    #[test]
    fn a_message_of_ones_own_role_or_of_no_point_is_refused() {
        let code = code("7-crossover-clockwork");
        let (state, hello) = ReceiverExchange::start(&code, &RECEIVER_ID, &SENDER_ID).unwrap();
        assert_eq!(state.confirm(&hello, &BINDING).err(), Some(ExchangeFault::Malformed));
        for message in [[0; MESSAGE_LEN_BYTES], [0xFF; MESSAGE_LEN_BYTES]] {
            let answered = SenderExchange::answer(&code, &RECEIVER_ID, &SENDER_ID, &message);
            assert_eq!(answered.err(), Some(ExchangeFault::Malformed));
        }
    }

    #[test]
    fn the_confirmations_are_the_documented_ones() {
        let key = Zeroizing::new([5; 32]);
        let hex = |bytes: [u8; 32]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let golden = [RECEIVER, SENDER].map(|role| hex(confirmation(role, &key, &BINDING)));
        assert_eq!(
            golden,
            [
                "a972de17730c7ed01dc4b94fa62b38b5807813ad80805a3c493d12357015211e",
                "9b2a4878bf31322f75098798c9d1e2b1c8519e6495f9cea98e18ba3b8bd9bcfa",
            ]
        );
    }

    #[test]
    fn a_message_is_the_role_and_a_point() {
        let code = code("7-crossover-clockwork");
        let (_, hello) = ReceiverExchange::start(&code, &RECEIVER_ID, &SENDER_ID).unwrap();
        let (_, answer) = SenderExchange::answer(&code, &RECEIVER_ID, &SENDER_ID, &hello).unwrap();
        assert_eq!((hello[0], answer[0]), (b'A', b'B'));
    }

    #[test]
    fn the_fuzz_entry_survives_an_honest_message() {
        let code = code("7-crossover-clockwork");
        let (_, hello) = ReceiverExchange::start(&code, &RECEIVER_ID, &SENDER_ID).unwrap();
        fuzz_exchange(&[&hello[..], &[0; 32]].concat());
    }
}
