//! A receiver, a sender, and attackers between them.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use shiplane_reach::internals::{
    Code, CodeEvent, CodeService, CodeState, CodeTerms, GUEST_METHODS, Moment, ProveError, Prover,
};
use shiplane_rpc::{CallError, Fault, FaultCode, Router, RpcClient};
use shiplane_transport::{Admission, Identity, PeerId, QuicTransport, Trust};
use tokio::sync::Notify;

const RIGHT: &str = "7-crossover-clockwork";
/// Far more than any story takes.
const AMPLE: Duration = Duration::from_secs(30);

const WRONG: &str = "7-crossover-clamshell";

/// A machine with a key of its own.
struct Machine {
    transport: Arc<QuicTransport>,
    addr: SocketAddr,
}

impl Machine {
    fn new(trust: impl FnOnce(PeerId) -> Trust) -> Self {
        let identity = Identity::generate().unwrap();
        let trust = trust(identity.peer_id());
        let transport = QuicTransport::builder()
            .identity(identity)
            .trust(trust)
            .bind("127.0.0.1:0".parse().unwrap())
            .unwrap();
        let addr = transport.local_addr().unwrap();
        Self { transport: Arc::new(transport), addr }
    }

    fn id(&self) -> PeerId {
        self.transport.peer_id()
    }

    fn serve(&self, router: Router) {
        let (transport, router) = (Arc::clone(&self.transport), Arc::new(router));
        tokio::spawn(async move {
            while let Ok((_, peer)) = transport.accept().await {
                tokio::spawn(Arc::clone(&router).serve(peer));
            }
        });
    }
}

/// A sender that waits with a code.
struct Sender {
    machine: Machine,
    code: CodeService,
    events: Arc<Mutex<Vec<CodeEvent>>>,
    changed: Arc<Notify>,
}

impl Sender {
    fn new(code: &str) -> Self {
        let events = Arc::new(Mutex::new(Vec::new()));
        let (heard, changed) = (Arc::clone(&events), Arc::new(Notify::new()));
        let told = Arc::clone(&changed);
        let mut service = None;
        let machine = Machine::new(|id| {
            let on_event = move |event| {
                heard.lock().unwrap().push(event);
                told.notify_one();
            };
            let code =
                CodeService::new(code.parse().unwrap(), id, CodeTerms::default(), Moment::now(), on_event);
            service = Some(code.clone());
            Trust::ask(
                move |_| if code.is_open(Moment::now()) { Admission::Guest } else { Admission::Refused },
            )
        });
        let code = service.unwrap();
        machine.serve(code.mount(Router::new()));
        Self { machine, code, events, changed }
    }

    fn events(&self) -> Vec<CodeEvent> {
        self.events.lock().unwrap().clone()
    }

    fn wrong_guesses(&self) -> usize {
        self.events().iter().filter(|event| matches!(event, CodeEvent::WrongGuess { .. })).count()
    }

    /// Waits until something happens.
    async fn next_event(&self) -> CodeEvent {
        loop {
            if let Some(event) = self.events().pop() {
                return event;
            }
            self.changed.notified().await;
        }
    }
}

fn receiver() -> Machine {
    Machine::new(|_| Trust::none())
}

fn prover(code: &str, machine: &Machine) -> Prover {
    Prover::new(code.parse().unwrap(), machine.id())
}

async fn prove(prover: &mut Prover, from: &Machine, to: SocketAddr) -> Result<PeerId, ProveError> {
    let connection = from.transport.connect_unproven(to).await.unwrap();
    prover.prove(&connection).await.map(|()| connection.peer_id())
}

/// Passes these methods on.
fn relay(upstream: &RpcClient, methods: &'static [&'static str]) -> Router {
    methods.iter().fold(Router::new(), |router, method| {
        let upstream = upstream.clone();
        router.method(*method, move |_, body| {
            let upstream = upstream.clone();
            async move {
                let answer = upstream.call(method, body, Duration::from_secs(5)).await;
                answer.map_err(|error| match error {
                    CallError::Fault(fault) => fault,
                    other => Fault::new(FaultCode::Internal, other.to_string()),
                })
            }
        })
    })
}

#[tokio::test]
async fn the_right_code_proves_each_to_the_other() {
    let (sender, receiver) = (Sender::new(RIGHT), receiver());
    let proven = prove(&mut prover(RIGHT, &receiver), &receiver, sender.machine.addr).await;
    assert_eq!(proven.unwrap(), sender.machine.id());
    let [CodeEvent::Admitted { receiver: admitted, .. }] = sender.events()[..] else {
        panic!("{:?}", sender.events())
    };
    assert_eq!((admitted, sender.code.state(Moment::now())), (receiver.id(), CodeState::Complete));
}

#[tokio::test]
async fn a_wrong_code_is_one_guess_and_three_make_it_void() {
    let (sender, receiver) = (Sender::new(RIGHT), receiver());
    let mut wrong = prover(WRONG, &receiver);
    for left in [2, 1, 0] {
        let failed = prove(&mut wrong, &receiver, sender.machine.addr).await;
        assert!(matches!(failed, Err(ProveError::WrongCode)), "{failed:?}");
        assert!(matches!(sender.events().last(), Some(CodeEvent::WrongGuess { left: n, .. }) if *n == left));
    }
    assert!(!wrong.may_try(), "a receiver stops too");
    assert_eq!(sender.code.state(Moment::now()), CodeState::Exhausted);
}

#[tokio::test]
async fn a_relay_in_the_middle_convinces_neither() {
    let (sender, receiver) = (Sender::new(RIGHT), receiver());
    // It does not know the code: it passes the messages on, over a connection of its own, with a key of its own.
    let onward = self::receiver();
    let (addr, transport) = (sender.machine.addr, Arc::clone(&onward.transport));
    let upstream = RpcClient::new(transport.connect_unproven(addr).await.unwrap());
    let middle = Machine::new(|_| Trust::ask(|_| Admission::Guest));
    middle.serve(relay(&upstream, GUEST_METHODS));
    let failed = prove(&mut prover(RIGHT, &receiver), &receiver, middle.addr).await;
    assert!(matches!(failed, Err(ProveError::WrongCode)), "{failed:?}");
    assert!(matches!(sender.events()[..], [CodeEvent::WrongGuess { left: 2, .. }]), "{:?}", sender.events());
}

#[tokio::test]
async fn false_senders_get_three_guesses_in_all() {
    let receiver = receiver();
    let false_senders: Vec<_> = (0..4).map(|_| Sender::new(WRONG)).collect();
    let mut honest = prover(RIGHT, &receiver);
    for (n, false_sender) in false_senders.iter().enumerate() {
        let failed = prove(&mut honest, &receiver, false_sender.machine.addr).await;
        assert!(matches!(failed, Err(ProveError::WrongCode)), "{failed:?}");
        let guesses = false_sender.wrong_guesses();
        assert_eq!(guesses, usize::from(n < 3), "the fourth gets no confirmation to check a guess with");
    }
}

#[tokio::test]
async fn parallel_guesses_from_many_keys_are_three_in_all() {
    let sender = Sender::new(RIGHT);
    let addr = sender.machine.addr;
    let guesses = (0..12).map(|_| async move {
        let guesser = receiver();
        let connection = guesser.transport.connect_unproven(addr).await;
        let mut wrong = prover(WRONG, &guesser);
        match connection {
            Ok(connection) => wrong.prove(&connection).await,
            Err(_) => Err(ProveError::Closed),
        }
    });
    let ended = futures::future::join_all(guesses).await;
    let wrong = ended.iter().filter(|ended| matches!(ended, Err(ProveError::WrongCode))).count();
    assert!(ended.iter().all(Result::is_err) && wrong <= 3, "{ended:?}");
    assert!(sender.events().len() <= 3);
    assert!(!sender.code.is_open(Moment::now()));
    let late = receiver();
    let connection = late.transport.connect_unproven(addr).await;
    let ended = match connection {
        Ok(connection) => prover(RIGHT, &late).prove(&connection).await,
        Err(_) => Err(ProveError::Closed),
    };
    assert!(ended.is_err());
}

#[tokio::test]
async fn a_guess_that_is_broken_off_is_one_and_the_sender_hears_of_it() {
    let (sender, receiver) = (Sender::new(RIGHT), receiver());
    let onward = self::receiver();
    let connection = onward.transport.connect_unproven(sender.machine.addr).await.unwrap();
    let middle = Machine::new(|_| Trust::ask(|_| Admission::Guest));
    // It passes the first message on, and keeps the second for itself.
    middle.serve(relay(&RpcClient::new(Arc::clone(&connection)), &GUEST_METHODS[..1]));
    let failed = prove(&mut prover(RIGHT, &receiver), &receiver, middle.addr).await;
    assert!(matches!(failed, Err(ProveError::Closed)), "{failed:?}");
    assert_eq!(sender.events(), [], "it may yet come");
    connection.close(shiplane_wire::Code::NoError);
    let told = tokio::time::timeout(AMPLE, sender.next_event()).await.expect("the sender hears of it");
    assert!(matches!(told, CodeEvent::BrokenOff { left: 2, .. }), "{told:?}");
}

#[tokio::test]
async fn a_sender_that_answers_nonsense_gets_no_confirmation() {
    let receiver = receiver();
    let liar = Machine::new(|_| Trust::ask(|_| Admission::Guest));
    let nonsense = |_, _| async { Ok(bytes::Bytes::from(vec![0xFF; 41])) };
    liar.serve(GUEST_METHODS.iter().fold(Router::new(), |router, method| router.method(*method, nonsense)));
    let mut honest = prover(RIGHT, &receiver);
    for _ in 0..5 {
        assert!(prove(&mut honest, &receiver, liar.addr).await.is_err());
    }
    assert!(honest.may_try(), "it has given nothing away");
}

#[test]
fn codes_are_compared_by_their_meaning() {
    assert_eq!("7 CROSSOVER clockwork".parse::<Code>(), RIGHT.parse());
}
