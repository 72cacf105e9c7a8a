//! Delivers the streams of transfers to the holders of their claims, or keeps them for a while (SPEC 2.5).

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use shiplane_wire::{Code, TaggedChunk, TransferId, limits};
use tokio::{
    sync::{
        Notify,
        mpsc::{self, error::TrySendError},
    },
    time::Instant,
};

use crate::{config::MAX_CONCURRENT_STREAMS, stream::BiStream};

/// A stream that belongs to a transfer.
#[derive(Debug)]
pub(crate) enum Tagged {
    Records(BiStream),
    Chunk { index: u64, len_bytes: u64, is_compressed: bool, stream: BiStream },
}

/// Who has claimed which transfer, and what waits to be claimed.
#[derive(Debug)]
pub(crate) struct Transfers {
    state: Mutex<TransfersState>,
    /// Expires parked streams.
    parked: Notify,
    header_timeout: Duration,
}

#[derive(Debug, Default)]
struct TransfersState {
    /// Live feeds of the peer's inboxes.
    feeds: usize,
    claims: HashMap<TransferId, mpsc::Sender<Tagged>>,
    parked: VecDeque<(Instant, TransferId, Tagged)>,
}

impl Transfers {
    /// With one feed.
    pub(super) fn new(header_timeout: Duration) -> Self {
        let state = TransfersState { feeds: 1, ..TransfersState::default() };
        Self { state: state.into(), parked: Notify::new(), header_timeout }
    }

    /// From now on the streams of `transfer` come to the returned inbox; those that are parked already
    /// come first. `None` when somebody else holds the claim.
    pub(super) fn claim(&self, transfer: TransferId) -> Option<mpsc::Receiver<Tagged>> {
        let mut state = self.lock();
        if state.claims.contains_key(&transfer) {
            return None;
        }
        // Room for everything that can be parked, so that `try_send` below cannot fail.
        let (outlet, inbox) = mpsc::channel(limits::MAX_PARKED_STREAMS + INBOX_LEN);
        let (mine, others) =
            std::mem::take(&mut state.parked).into_iter().partition(|(_, id, _)| *id == transfer);
        state.parked = others;
        let mine: VecDeque<(Instant, TransferId, Tagged)> = mine;
        for (_, _, stream) in mine {
            outlet.try_send(stream).ok();
        }
        if state.feeds > 0 {
            state.claims.insert(transfer, outlet);
        }
        Some(inbox)
    }

    pub(super) fn release(&self, transfer: TransferId) {
        self.lock().claims.remove(&transfer);
    }

    /// The frame's own size follows the tag. Of a transfer that is claimed it waits for its turn, as any byte of a chunk
    /// does, for as long as the transfer lives: on a slow path others go first, and the claim's holder watches
    /// it as a whole. In a transfer without a claim there is nothing to wait for (SPEC 2.4).
    pub(super) async fn deliver_chunk(&self, tag: TaggedChunk, is_compressed: bool, mut stream: BiStream) {
        let claim = self.lock().claims.get(&tag.transfer).cloned();
        let mut size = [0; 8];
        let read = stream.recv.read_exact(&mut size);
        let read = match claim {
            Some(claim) => tokio::select! {
                read = read => Ok(read),
                () = claim.closed() => Err(Code::Unclaimed),
            },
            None => tokio::time::timeout(self.header_timeout, read).await.map_err(|_| Code::Timeout),
        };
        match read {
            Ok(Ok(true)) => {
                let len_bytes = u64::from_le_bytes(size);
                let chunk = Tagged::Chunk { index: tag.index, len_bytes, is_compressed, stream };
                self.deliver(tag.transfer, chunk).await;
            }
            Ok(Ok(false)) => stream.reject(Code::Protocol),
            Ok(Err(_)) => {} // Given up by the peer: dropping it answers.
            Err(code) => stream.reject(code),
        }
    }

    pub(super) async fn deliver(&self, transfer: TransferId, stream: Tagged) {
        let claim = self.lock().claims.get(&transfer).cloned();
        match claim {
            Some(claim) => {
                if let Err(mpsc::error::SendError(stream)) = claim.send(stream).await {
                    stream.reject(Code::Unclaimed);
                }
            }
            None => self.park(transfer, stream),
        }
    }

    /// SPEC 2.5: bounded in number and time.
    fn park(&self, transfer: TransferId, stream: Tagged) {
        let mut state = self.lock();
        // Claimed between the look-up and here.
        if let Some(claim) = state.claims.get(&transfer) {
            match claim.try_send(stream) {
                Ok(()) => {}
                Err(TrySendError::Full(stream) | TrySendError::Closed(stream)) => stream.reject(Code::Busy),
            }
            return;
        }
        if state.feeds == 0 {
            return stream.reject(Code::Unclaimed);
        }
        if state.parked.len() >= limits::MAX_PARKED_STREAMS
            && let Some((_, _, oldest)) = state.parked.pop_front()
        {
            oldest.reject(Code::Unclaimed);
        }
        state.parked.push_back((Instant::now(), transfer, stream));
        self.parked.notify_one();
    }

    /// Waits until the oldest parked stream has waited for too long, and refuses it. Cancel-safe.
    pub(super) async fn expire_next(&self) {
        loop {
            let parked = self.parked.notified();
            let oldest = self.lock().parked.front().map(|(since, _, _)| *since);
            let Some(since) = oldest else {
                parked.await;
                continue;
            };
            tokio::time::sleep(self.header_timeout.saturating_sub(since.elapsed())).await;
            self.expire(since);
            return;
        }
    }

    fn expire(&self, since: Instant) {
        let mut state = self.lock();
        while state.parked.front().is_some_and(|(parked, _, _)| *parked <= since)
            && let Some((_, _, oldest)) = state.parked.pop_front()
        {
            oldest.reject(Code::Unclaimed);
        }
    }

    /// False once the last feed has gone: a claim made since then waits for nothing.
    pub(super) fn enter(&self) -> bool {
        let mut state = self.lock();
        if state.feeds > 0 {
            state.feeds += 1;
        }
        state.feeds > 0
    }

    pub(super) fn leave(&self) {
        let mut state = self.lock();
        state.feeds -= 1;
        if state.feeds == 0 {
            // The last connection has ended: claims see the end of their inbox.
            state.claims.clear();
            state.parked.clear();
        } else {
            // It may have been the one that watched the clock.
            self.parked.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, TransfersState> {
        // Every change is a single step; a panic in between leaves nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tagged {
    pub(super) fn reject(self, code: Code) {
        match self {
            Self::Records(stream) | Self::Chunk { stream, .. } => stream.reject(code),
        }
    }
}

/// As many as a peer may have open: with the stream limit at its default, no inbox ever fills up.
pub(super) const INBOX_LEN: usize = MAX_CONCURRENT_STREAMS as usize;
