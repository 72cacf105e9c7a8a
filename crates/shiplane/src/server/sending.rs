//! A server that is found by a code: what it offers, who has taken it, and when it ends.

use std::{
    collections::{BTreeMap, HashSet},
    convert::Infallible,
    fmt, fs,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use shiplane_access::internals::{AccessControl, Grant, Scope};
use shiplane_files::internals::{Scanned, Source, SourceRoot};
use shiplane_protocols::internals::FileServer;
use shiplane_reach::internals::{
    Announced, Announcement, Code, CodeEvent, CodeService, CodeState, CodeTerms, GUEST_METHODS, MIN_WORDS,
    Moment, meet_seekers,
};
use shiplane_rpc::Router;
use shiplane_transport::{Admission, PeerId, QuicTransport, Trust, internals::blocking};
use shiplane_wire::{EntryKind, escape};
use tokio::sync::{Notify, watch};

use super::handler::Callers;
use crate::{
    error::{Cause, CodeFailure, Error},
    event::{Action, Side},
    offer::{CONTENT, Conclusion, Item, MAX_ITEMS, MAX_TEXT_LEN_BYTES, Offer, OfferRequest},
};

/// What is sent, and to whom.
pub(crate) struct SendSettings {
    pub(crate) paths: Vec<PathBuf>,
    pub(crate) text: Option<String>,
    pub(crate) words: usize,
    pub(crate) terms: CodeTerms,
    pub(crate) on_event: SendEventFn,
}

/// Called with what happens to the code.
pub(crate) type SendEventFn = Box<dyn FnMut(&Action) + Send>;

/// A code that waits, and what it is for.
#[derive(Clone)]
pub(super) struct Sending {
    inner: Arc<Inner>,
}

struct Inner {
    code: CodeService,
    access: Arc<AccessControl>,
    terms: CodeTerms,
    offer: Offer,
    counted: Arc<Counted>,
    /// Who was admitted, and whether it is done: `Some(false)` if it does not want it.
    receivers: Mutex<BTreeMap<PeerId, Option<bool>>>,
    changed: Arc<Notify>,
    on_event: Arc<Mutex<SendEventFn>>,
    announcement: Mutex<Option<Announcement>>,
}

/// How much there is, as far as it has been counted.
struct Counted {
    files: AtomicU64,
    bytes: AtomicU64,
    is_done: watch::Sender<bool>,
    is_cancelled: AtomicBool,
}

impl SendSettings {
    pub(crate) fn new(paths: Vec<PathBuf>) -> Self {
        let terms = CodeTerms::default();
        Self { paths, text: None, words: MIN_WORDS, terms, on_event: Box::new(|_| ()) }
    }

    /// Opens what is sent. Blocking.
    pub(super) fn open(&self) -> Result<(SourceRoot, Vec<Item>), Error> {
        if self.text.as_ref().is_some_and(|text| text.len() > MAX_TEXT_LEN_BYTES) {
            return Err(Cause::from(CodeFailure::TextTooLong { max_bytes: MAX_TEXT_LEN_BYTES }).into());
        }
        if self.paths.is_empty() && self.text.is_none() {
            return Err(Cause::NothingToPush.into());
        }
        let mut names = HashSet::new();
        let (mut roots, mut items) = (Vec::new(), Vec::new());
        for path in &self.paths {
            let root = SourceRoot::open(path).map_err(Cause::Serve)?;
            let is_content = path.as_os_str().as_encoded_bytes().ends_with(b"/.") || path.as_os_str() == ".";
            let root = if is_content { root.nameless() } else { root };
            let taken = match root.name() {
                Some(name) => vec![name],
                None => names_in(path)?,
            };
            for name in taken {
                let shown = escape(&name).to_string();
                if !names.insert(name) {
                    return Err(Cause::SameName { name: shown }.into());
                }
            }
            let name = root.name().unwrap_or_else(|| CONTENT.to_vec());
            items.push(Item { name, is_directory: root.is_directory() });
            roots.push(root);
        }
        let root = match <[SourceRoot; 1]>::try_from(roots) {
            Ok([root]) => root,
            Err(roots) => SourceRoot::several(roots).map_err(Cause::Serve)?,
        };
        Ok((root, items))
    }
}

impl Sending {
    pub(super) fn new(
        settings: SendSettings,
        items: Vec<Item>,
        id: PeerId,
        access: &Arc<AccessControl>,
    ) -> Result<Self, Error> {
        let SendSettings { text, words, terms, on_event, .. } = settings;
        let code = Code::random(words).map_err(|_| Cause::from(CodeFailure::NoRandomness))?;
        let on_event = Arc::new(Mutex::new(on_event));
        let changed = Arc::new(Notify::new());
        let unnamed = items.len().saturating_sub(MAX_ITEMS) as u64;
        let items = items.into_iter().take(MAX_ITEMS).collect();
        let offer = Offer { text, items, unnamed, files: 0, bytes: 0, is_counted: false };
        let counted = Arc::new(Counted {
            files: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            is_done: watch::Sender::new(false),
            is_cancelled: AtomicBool::new(false),
        });
        let inner = Arc::new_cyclic(|this: &std::sync::Weak<Inner>| {
            let this = this.clone();
            let heard = move |event| {
                if let Some(inner) = this.upgrade() {
                    inner.hear(event);
                }
            };
            let code = CodeService::new(code, id, terms, Moment::now(), heard);
            let (access, receivers) = (Arc::clone(access), Mutex::default());
            let announcement = Mutex::default();
            Inner { code, access, terms, offer, counted, receivers, changed, on_event, announcement }
        });
        Ok(Self { inner })
    }

    /// The code, to be said to the receiver.
    pub(super) fn code(&self) -> String {
        self.inner.code.code().to_text().to_string()
    }

    /// Who is let in: those who have proven that they know the code, and guests while it waits.
    pub(super) fn trust(&self) -> Trust {
        let (access, code) = (Arc::clone(&self.inner.access), self.inner.code.clone());
        Trust::ask(move |peer| match access.admit(peer, Instant::now()) {
            Admission::Refused if code.is_open(Moment::now()) => Admission::Guest,
            admission => admission,
        })
    }

    /// The methods of a server that receivers find by a code.
    pub(super) fn router(&self, files: &Arc<FileServer>) -> Router {
        let router = self.inner.code.mount(files.router(GUEST_METHODS));
        let (offering, concluding) = (self.clone(), self.clone());
        router
            .typed(method::<OfferRequest>(), move |call, _request: OfferRequest| {
                let sending = offering.clone();
                async move {
                    Callers::Readers.admit(&sending.inner.access, &call.peer)?;
                    Ok(sending.offer().await)
                }
            })
            .typed(method::<Conclusion>(), move |call, conclusion: Conclusion| {
                let admitted = Callers::Readers.admit(&concluding.inner.access, &call.peer);
                let concluded = admitted.map(|()| concluding.conclude(call.peer, conclusion.is_taken));
                async move { concluded }
            })
    }

    /// Counts what there is, in the background.
    pub(super) fn count(&self, source: Source) {
        let counted = Arc::clone(&self.inner.counted);
        drop(blocking::spawn(move || counted.count(&source)));
    }

    /// Announces the code's number on the local network until all is over; `false` if it cannot be.
    pub(super) fn announce(&self, address: SocketAddr) -> bool {
        match Announcement::start(Announced::Code(self.inner.code.code().number()), address) {
            Ok(announcement) => {
                let is_announced = announcement.is_some();
                *lock(&self.inner.announcement) = announcement;
                is_announced
            }
            Err(error) => {
                tracing::info!(%error, "the code is not announced");
                false
            }
        }
    }

    /// Lets receivers on the local network in that a firewall on this side keeps out.
    pub(super) async fn meet_seekers(&self, transport: Arc<QuicTransport>) -> Infallible {
        if lock(&self.inner.announcement).is_none() {
            return std::future::pending().await;
        }
        meet_seekers(self.inner.code.code().number(), transport).await
    }

    /// Takes the announcement back.
    pub(super) async fn end_announcement(&self) {
        let announcement = lock(&self.inner.announcement).take();
        if let Some(announcement) = announcement {
            announcement.end().await;
        }
    }

    async fn offer(&self) -> Offer {
        let Inner { offer, counted, .. } = &*self.inner;
        let mut is_done = counted.is_done.subscribe();
        let is_counted =
            tokio::time::timeout(COUNT_TIMEOUT, is_done.wait_for(|is_done| *is_done)).await.is_ok();
        Offer {
            files: counted.files.load(Ordering::Relaxed),
            bytes: counted.bytes.load(Ordering::Relaxed),
            is_counted,
            ..offer.clone()
        }
    }

    fn conclude(&self, receiver: PeerId, is_taken: bool) {
        let inner = &*self.inner;
        let before = inner.lock_receivers().insert(receiver, Some(is_taken));
        if before.flatten().is_none() {
            let (change, why) = match is_taken {
                true => ("taken", "has everything"),
                false => ("declined", "does not want it"),
            };
            inner.tell(change, receiver.to_string(), why.to_owned());
        }
        // With a code for others it could come back for what is new.
        inner.access.tickets().forget(&receiver);
        inner.changed.notify_one();
    }

    /// Waits until all who may have it are done, or the code is void.
    pub(super) async fn ended(&self) -> Result<(), Error> {
        let inner = &*self.inner;
        let mut interval = tokio::time::interval(CHECK_INTERVAL);
        loop {
            tokio::select! {
                _ = interval.tick() => {}
                () = inner.changed.notified() => {}
            }
            let (done, declined, under_way) = inner.progress();
            let why = match inner.code.state(Moment::now()) {
                _ if under_way > 0 => continue,
                CodeState::Open => continue,
                CodeState::Complete if declined > 0 && done == 0 => CodeFailure::Declined,
                CodeState::Complete => return Ok(()),
                CodeState::Expired => CodeFailure::Expired,
                CodeState::Exhausted => CodeFailure::Guessed,
            };
            return Err(Cause::from(why).into());
        }
    }

    /// What it means that it is shut down: a failure, unless it is for any number of receivers.
    pub(super) fn interrupted(&self) -> Result<(), Error> {
        match self.inner.terms.receivers {
            Some(_) => Err(Cause::Interrupted.into()),
            None => Ok(()),
        }
    }
}

impl Inner {
    fn hear(&self, event: CodeEvent) {
        match event {
            CodeEvent::Admitted { receiver, from } => {
                let everything = Grant::read_only(Scope::everything());
                let (tickets, now) = (self.access.tickets(), Instant::now());
                let owned = tickets.issue(everything, RESUME_TTL, now).map_err(|error| error.to_string());
                let owned = owned.and_then(|secret| {
                    tickets.redeem(&secret, receiver, now).map_err(|error| error.to_string())
                });
                if let Err(error) = owned {
                    tracing::error!(%error, "a receiver cannot be admitted");
                }
                self.lock_receivers().entry(receiver).or_default();
                self.tell("admitted", receiver.to_string(), format!("knows the code; from {from}"));
            }
            CodeEvent::WrongGuess { from, left } => self.tell_guess("wrong code", from, left),
            CodeEvent::BrokenOff { from, left } => self.tell_guess("broken off", from, left),
        }
        self.changed.notify_one();
    }

    fn tell_guess(&self, what: &str, from: SocketAddr, left: usize) {
        let why = match left {
            0 => format!("{what}; that was the last try, and the code is void"),
            1 => format!("{what}; one more makes the code void"),
            left => format!("{what}; {left} more make the code void"),
        };
        self.tell("guessed", from.to_string(), why);
    }

    fn tell(&self, change: &'static str, path: String, why: String) {
        let action = Action { side: Side::Peer, change, path, from: None, why: why.into() };
        (lock(&self.on_event))(&action);
    }

    /// How many receivers have it, do not want it, and are on their way.
    fn progress(&self) -> (usize, usize, usize) {
        let receivers = self.lock_receivers();
        let count = |which| receivers.values().filter(|done| **done == which).count();
        (count(Some(true)), count(Some(false)), count(None))
    }

    fn lock_receivers(&self) -> MutexGuard<'_, BTreeMap<PeerId, Option<bool>>> {
        lock(&self.receivers)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.counted.is_cancelled.store(true, Ordering::Relaxed);
    }
}

impl Counted {
    fn count(&self, source: &Source) {
        for scanned in source.scan() {
            if self.is_cancelled.load(Ordering::Relaxed) {
                return;
            }
            match scanned {
                Ok(Scanned::Entry(entry)) if entry.kind == EntryKind::File => {
                    self.files.fetch_add(1, Ordering::Relaxed);
                    self.bytes.fetch_add(entry.size_bytes, Ordering::Relaxed);
                }
                Ok(_) => {}
                // A transfer would say so.
                Err(_) => break,
            }
        }
        self.is_done.send_replace(true);
    }
}

impl fmt::Debug for SendSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendSettings").field("paths", &self.paths).finish_non_exhaustive()
    }
}

/// What is locked here is whole between any two statements.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The names in a directory whose content is sent.
fn names_in(path: &std::path::Path) -> Result<Vec<Vec<u8>>, Error> {
    let unreadable = |source| Cause::Root { path: path.to_owned(), source };
    let entries = fs::read_dir(path).map_err(unreadable)?;
    let name = |entry: fs::DirEntry| entry.file_name().into_encoded_bytes();
    Ok(entries.map(|entry| entry.map(name)).collect::<Result<_, _>>().map_err(unreadable)?)
}

const fn method<R: crate::request::Request>() -> shiplane_rpc::Method<R, R::Response> {
    shiplane_rpc::Method::new(R::METHOD)
}

/// 7 days, or until the program ends: as long as a receiver remembers whose the code was.
const RESUME_TTL: Duration = Duration::from_secs(7 * 86_400);

/// 5 s: a receiver gets what has been counted by then.
const COUNT_TIMEOUT: Duration = Duration::from_secs(5);

/// 1 s: how late it may be noticed that a code has expired.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
