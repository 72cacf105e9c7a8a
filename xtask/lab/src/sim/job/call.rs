//! Questions are asked by RPC, many at a time: each gets its own answer or an error by its deadline, and is handled
//! once at most.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;
use shiplane_rpc::{CallError, Fault, FaultCode, RequestContext, Router, RpcClient};
use shiplane_transport::PeerConnection;
use shiplane_wire::Digest;
use testlink::Rng;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::{Job, Stopped, connect};
use crate::sim::{
    oracle::Violation,
    scenario::Lie,
    world::{Program, World},
};

/// Questions, asked until each has what it is to have.
pub(crate) struct Calls {
    questions: Vec<Question>,
    /// Which of them need not be asked again.
    done: BTreeSet<u64>,
    attempts: u64,
    /// What both sides have seen.
    book: Arc<Book>,
    lie: Option<Lie>,
    /// The one that the callee may call back by, and is served on.
    served: Option<Arc<PeerConnection>>,
}

#[derive(Debug, Clone)]
struct Question {
    number: u64,
    kind: Kind,
    budget: Duration,
    /// How long the handler takes.
    think_ms: u64,
    pieces: u64,
    reply_len_bytes: u64,
    padding: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// It is answered.
    Ask,
    /// It is answered by a fault.
    Refuse,
    /// It is answered piece by piece, by calls back, and then as a whole.
    Stream,
    /// It has no answer.
    Tell,
    /// The caller gives it up after so long.
    Leave(Duration),
    /// The handler takes longer than the caller waits.
    Slow,
}

impl Calls {
    pub(crate) fn new(world: &World) -> Self {
        let mut rng = world.rng().fork();
        let questions = (0..rng.spread(1, 40)).map(|number| Question::draw(&mut rng, number)).collect();
        let (done, lie) = (BTreeSet::new(), world.scenario.lie);
        Self { questions, done, attempts: 0, book: Arc::default(), lie, served: None }
    }
}

impl Job for Calls {
    /// What the server answers.
    fn methods(&self) -> Option<Arc<Router>> {
        let (book, lie) = (Arc::clone(&self.book), self.lie);
        let handle = move |context, body| answer(context, body, Arc::clone(&book), lie);
        Some(Arc::new(Router::new().method(ASK, handle)))
    }

    async fn attempt(&mut self, world: &World, client: &Program) -> Result<(), Stopped> {
        let client = &connect(world, client).await?;
        self.attempts += 1;
        self.serve(client.connection());
        let left = self.questions.iter().filter(|question| !self.done.contains(&question.number));
        let ask = async |question: &Question| (question.number, self.ask(question, client).await);
        let asked = futures::future::join_all(left.map(ask)).await;
        let mut last = None;
        for (number, ended) in asked {
            match ended {
                Ok(()) => drop(self.done.insert(number)),
                Err(Stopped::Failed(error)) => last = Some(error),
                Err(broken) => return Err(broken),
            }
        }
        // Of notices the caller does not know when they are over.
        let notices = self.questions.iter().filter(|question| question.kind == Kind::Tell).count();
        if client.in_flight() > notices {
            return Err(Violation::StillInFlight { calls: client.in_flight() }.into());
        }
        match last {
            Some(error) => Err(Stopped::Failed(error)),
            None => {
                // By then whatever was left has to be over.
                sleep_until(self.book.last_deadline() + SLACK * 2).await;
                Ok(())
            }
        }
    }

    fn check(&self, _world: &World) -> Result<(), Violation> {
        self.book.check(Instant::now())
    }
}

impl Calls {
    /// Asks one question, once.
    async fn ask(&self, question: &Question, client: &RpcClient) -> Result<(), Stopped> {
        let Question { number, kind, .. } = *question;
        // Whatever the path is like, it is enough at last.
        let budget = question.budget * u32::try_from(self.attempts).unwrap_or(u32::MAX).min(MAX_GROWTH);
        let began = Instant::now();
        let body = question.body(self.attempts);
        let given = if self.lie == Some(Lie::Late) { budget + SLACK * 100 } else { budget };
        let outcome = match kind {
            Kind::Tell => client.notify(ASK, body.clone(), given).await.map(|()| None),
            Kind::Leave(after) => match timeout(after, client.call(ASK, body.clone(), given)).await {
                Ok(answered) => answered.map(Some),
                Err(_) => return Ok(()),
            },
            Kind::Ask | Kind::Refuse | Kind::Stream | Kind::Slow => {
                client.call(ASK, body.clone(), given).await.map(Some)
            }
        };
        let over = began.elapsed().saturating_sub(budget);
        if over > SLACK {
            return Err(Violation::Overrun { number, over }.into());
        }
        match outcome {
            Ok(None) => self.was_told(number, began + budget).await,
            Ok(Some(answer)) => {
                let is_its = answer == answer_to(&body, question.reply_len_bytes);
                if !is_its || matches!(kind, Kind::Refuse | Kind::Slow) {
                    return Err(Violation::WrongAnswer { number }.into());
                }
                Ok(self.book.check_pieces(number, self.attempts, question.pieces)?)
            }
            // Too many at a time, or too late, is said in the same way.
            Err(CallError::Fault(fault)) if kind == Kind::Refuse => {
                match fault.code != FaultCode::InvalidRequest || fault.message() == number.to_string() {
                    true => Ok(()),
                    false => Err(Violation::WrongAnswer { number }.into()),
                }
            }
            // That it ends was all that it was for.
            Err(CallError::DeadlineExceeded { .. }) if kind == Kind::Slow => Ok(()),
            Err(error) => Err(Stopped::by(&error)),
        }
    }

    /// Looks into the other side's book whether it has arrived; nothing else would say so.
    async fn was_told(&self, number: u64, by: Instant) -> Result<(), Stopped> {
        while !self.book.has_finished(number) {
            if Instant::now() >= by {
                return Err(Stopped::Failed("what was told has not arrived".to_owned()));
            }
            sleep(LOOK_INTERVAL).await;
        }
        Ok(())
    }

    /// Lets the callee call back.
    fn serve(&mut self, connection: &Arc<PeerConnection>) {
        if self.served.as_ref().is_some_and(|served| Arc::ptr_eq(served, connection)) {
            return;
        }
        self.served = Some(Arc::clone(connection));
        let book = Arc::clone(&self.book);
        let router = Router::new().method(PIECE, move |_context, body| {
            let taken = head_of(&body).map(|[number, attempt, piece]| book.takes(number, attempt, piece));
            async move { taken.map(|()| Bytes::new()) }
        });
        tokio::spawn(Arc::new(router).serve(Arc::clone(connection)));
    }
}

impl Question {
    fn draw(rng: &mut Rng, number: u64) -> Self {
        let budget = Duration::from_millis(rng.spread(500, 10_000));
        let kind = match rng.between(0, 12) {
            0 => Kind::Refuse,
            1 | 2 => Kind::Stream,
            3 | 4 => Kind::Tell,
            5 | 6 => Kind::Leave(budget / 2),
            7 => Kind::Slow,
            _ => Kind::Ask,
        };
        let think_ms =
            if kind == Kind::Slow { MAX_THINK_MS * 1000 } else { 0 } + rng.between(0, MAX_THINK_MS);
        let pieces = if kind == Kind::Stream { 1 + number % 5 } else { 0 };
        let reply_len_bytes = rng.spread(1, 20_000);
        let padding_len_bytes = rng.spread(1, 20_000) as usize;
        let padding = rng.bytes(padding_len_bytes);
        Self { number, kind, budget, think_ms, pieces, reply_len_bytes, padding }
    }

    fn body(&self, attempt: u64) -> Bytes {
        let is_refused = u64::from(self.kind == Kind::Refuse);
        let head = [self.number, attempt, self.think_ms, self.pieces, is_refused, self.reply_len_bytes];
        let head = head.iter().flat_map(|number| number.to_le_bytes());
        head.chain(self.padding.iter().copied()).collect()
    }
}

/// Records when each call was handled and how it ended, across both sides.
#[derive(Debug, Default)]
struct Book(Mutex<Pages>);

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
struct Handling {
    book: Arc<Book>,
    at: usize,
}

impl Book {
    fn begins(self: &Arc<Self>, number: u64, attempt: u64, context: &RequestContext) -> Handling {
        let mut pages = self.0.lock();
        let (deadline, cancelled) = (context.deadline, context.cancelled.clone());
        let handled = Handled { number, attempt, deadline, ended: None, is_finished: false, cancelled };
        pages.handled.push(handled);
        Handling { book: Arc::clone(self), at: pages.handled.len() - 1 }
    }

    fn has_finished(&self, number: u64) -> bool {
        self.0.lock().handled.iter().any(|handled| handled.number == number && handled.is_finished)
    }

    /// The caller gets a piece of an answer.
    fn takes(&self, number: u64, attempt: u64, piece: u64) {
        let mut pages = self.0.lock();
        let taken = pages.pieces.entry((number, attempt)).or_default();
        match *taken == piece {
            true => *taken += 1,
            false => pages.disordered = Some(number),
        }
    }

    /// Of a whole answer, all pieces have come, each once, in their order.
    fn check_pieces(&self, number: u64, attempt: u64, count: u64) -> Result<(), Violation> {
        let taken = self.0.lock().pieces.get(&(number, attempt)).copied().unwrap_or_default();
        if taken == count { Ok(()) } else { Err(Violation::WrongAnswer { number }) }
    }

    fn last_deadline(&self) -> Instant {
        self.0.lock().handled.iter().map(|handled| handled.deadline).max().unwrap_or_else(Instant::now)
    }

    /// What holds at any time.
    fn check(&self, now: Instant) -> Result<(), Violation> {
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
    fn finish(self) {
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

/// The server's handler.
async fn answer(
    context: RequestContext,
    body: Bytes,
    book: Arc<Book>,
    lie: Option<Lie>,
) -> Result<Bytes, Fault> {
    let [number, attempt, think_ms, pieces, is_refused, reply_len_bytes] = head_of(&body)?;
    let handled = book.begins(number, attempt, &context);
    match lie {
        Some(Lie::Twice) => drop(book.begins(number, attempt, &context)),
        Some(Lie::Overruns) => {
            let (book, context, by) = (Arc::clone(&book), context.clone(), context.deadline + SLACK * 10);
            tokio::spawn(async move {
                let _handled = book.begins(number + OTHERS, attempt, &context);
                sleep_until(by).await;
            });
        }
        Some(Lie::Mixes | Lie::Late) | None => {}
    }
    sleep(Duration::from_millis(think_ms)).await;
    let send_pieces = async || {
        for piece in 0..pieces {
            let body = [number, attempt, piece].iter().flat_map(|number| number.to_le_bytes()).collect();
            let budget = context.deadline.saturating_duration_since(Instant::now());
            context.client.call(PIECE, body, budget).await?;
        }
        Ok::<_, CallError>(())
    };
    let sent = send_pieces().await;
    handled.finish();
    sent.map_err(|error| Fault::new(FaultCode::Internal, error.to_string()))?;
    if is_refused == 1 {
        return Err(Fault::new(FaultCode::InvalidRequest, number.to_string()));
    }
    let answered = if lie == Some(Lie::Mixes) { &body[1..] } else { &body[..] };
    Ok(answer_to(answered, reply_len_bytes))
}

/// An answer that depends on the question.
fn answer_to(body: &[u8], len_bytes: u64) -> Bytes {
    Digest::blake3(body).as_bytes().iter().copied().cycle().take(32 + len_bytes as usize).collect()
}

fn head_of<const N: usize>(body: &[u8]) -> Result<[u64; N], Fault> {
    let mut numbers = body.as_chunks().0.iter().map(|bytes| u64::from_le_bytes(*bytes));
    let head = [(); N].map(|()| numbers.next().unwrap_or_default());
    let is_whole = body.len() >= N * 8;
    if is_whole { Ok(head) } else { Err(Fault::new(FaultCode::InvalidRequest, "no question")) }
}

const ASK: &str = "sim.ask";
const PIECE: &str = "sim.piece";

/// Timers here tick in milliseconds, and a deadline travels in them.
const SLACK: Duration = Duration::from_millis(10);

const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// A minute, with the largest budget.
const MAX_GROWTH: u32 = 6;

/// Below most budgets.
const MAX_THINK_MS: u64 = 400;

/// Numbers that no question has.
const OTHERS: u64 = 1 << 32;
