//! The receiving side of push: ready only after every check (SPEC 5.5 to 5.9).

use std::{
    hash::BuildHasher,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use shiplane_files::internals::{
    Admission, CountedMemory, Destination, DestinationError, Existing, JobKey, LinkPolicy, Policy,
    ReceiveOptions, Shape, SharedMemory, SourceError, SourceRoot,
};
use shiplane_rpc::{Fault, FaultCode, RequestContext};
use shiplane_transport::{
    PeerConnection,
    internals::{Claim, ReceiveReservation},
};
use shiplane_wire::{DigestAlgorithm, Durability, Entry, RelPath, TransferId, escape, limits};
use tokio_util::sync::CancellationToken;

use super::{
    CONFIRM_TIMEOUT, FileServer,
    activity::{ServedJob, UnderWay},
    claim,
    registry::{Answer, Begun, Refused, answer_wait, gone},
    targets::{Reserved, Space, TargetClaim},
    writing::{PushSession, Writing},
};
use crate::{
    Compression, Direction,
    filters::AgreedFilters,
    methods::{
        PushDone, PushOpen, PushOpened, Step, TransferShape, agree_digest, check_attributes, denied, failed,
        not_served, not_taken,
    },
    metrics::Counting,
    off_thread,
    transfer::{
        TransferError, TransferOptions, open_records,
        receiver::{Opening, Received, invite, receive},
        target::Target,
    },
};

/// What was agreed with the pusher.
struct Agreed {
    digest: DigestAlgorithm,
    filtered: AgreedFilters,
}

/// What a push holds from READY to its end.
struct PreparedPush {
    claim: Claim,
    destination: Destination,
    /// It is one file of unknown length.
    is_in_parts: bool,
    name: TargetClaim,
    /// Nothing is there yet.
    invites: Option<ReceiveReservation>,
    job: Arc<UnderWay>,
    _filters_memory: Box<dyn CountedMemory>,
    _space: Option<Reserved>,
}

impl FileServer {
    /// Answers *ready*, or a fault before the first byte of payload (SPEC 5.6).
    pub(super) async fn open_push(
        self: Arc<Self>,
        context: RequestContext,
        request: PushOpen,
    ) -> Result<PushOpened, Fault> {
        self.check_open()?;
        let target = target_path(&request)?;
        // Before the disk is looked at: a caller learns nothing about paths outside of its scope.
        let allowed = self.access.may_write(&context.peer, &target, Instant::now());
        allowed.map_err(|error| denied(&error))?;
        let read_only = || Fault::new(FaultCode::ReadOnly, "nothing can be pushed to this server");
        let writing = self.writing.as_ref().ok_or_else(read_only)?;
        check_attributes(request.attributes, writing.limits.attributes)?;
        let transfer = TransferId::from_bytes(request.transfer);
        // The key of a job does not depend on which directory above the target is served.
        let place =
            self.syncing.as_ref().map_or_else(|| target.clone(), |syncing| syncing.local_name(&target));
        let job = JobKey::of_push(context.peer.as_bytes(), &request.source, &place);
        if writing.pushes.find(context.peer, transfer).is_none() {
            // SPEC 5.7: a peer that repeats a push has abandoned the earlier one.
            writing.targets.take_over(&target, job).await;
        }
        let hashed = writing.key.hash_one(&request);
        let digest = agree_digest(self.options.digest, request.digests)?;
        let filtered = request.filters.clone().agree(&self.memory(), context.peer).await?;
        let session =
            PushSession { request: hashed, outcome: Answer::default(), confirmed: CancellationToken::new() };
        let begun = match writing.pushes.begin(context.peer, transfer, session) {
            Ok(begun) => begun,
            // SPEC 5.9: nothing happens twice.
            Err(Refused::Known(known)) if known.request == hashed => return Ok(PushOpened::Known),
            Err(Refused::Known(_)) => {
                return Err(Fault::new(FaultCode::InvalidRequest, "the transfer id was used before"));
            }
            Err(Refused::TooMany(fault)) => return Err(fault),
        };
        let (durable, compression) = (request.durable, request.compression);
        let shown = escape(&target).to_string();
        match self.hold(writing, &context, request, Agreed { digest, filtered }, target, job).await {
            Ok(prepared) => {
                tracing::info!(peer = %context.peer.short(), %transfer, path = shown, "push opened");
                // The side that compresses decides how hard it tries.
                let compression = match self.options.compression {
                    Compression::Never => Compression::Never,
                    Compression::Auto | Compression::Always => compression,
                };
                let options = TransferOptions { compression, digest, ..self.options.clone() };
                let (bytes_per_second, invites) = (options.bytes_per_second(), prepared.invites.is_some());
                let run = Arc::clone(&self).run_push(context.connection, prepared, begun, durable, options);
                self.tasks.spawn(run);
                Ok(PushOpened::Ready { compression, bytes_per_second, digest: digest.bit(), invites })
            }
            Err(fault) => {
                begun.forget();
                tracing::info!(peer = %context.peer.short(), %transfer, path = shown, %fault, "push refused");
                Err(fault)
            }
        }
    }

    /// Takes everything that the push needs: its streams, its target and the space on the disk.
    async fn hold(
        &self,
        writing: &Writing,
        context: &RequestContext,
        request: PushOpen,
        agreed: Agreed,
        target: Vec<u8>,
        job: JobKey,
    ) -> Result<PreparedPush, Fault> {
        if let (Some(total_bytes), Some(max_bytes)) = (request.total_bytes, writing.limits.max_transfer_bytes)
            && total_bytes > max_bytes
        {
            return Err(not_taken(&DestinationError::TooLarge { total_bytes, max_bytes }));
        }
        let delete = request.delete;
        let Agreed { digest, filtered } = agreed;
        let options = receive_options(&request, digest, writing.limits.links)?;
        let claim = claim(&context.connection, request.transfer)?;
        let busy = || Fault::new(FaultCode::Busy, "another push is writing to this name; try again later");
        let name = writing.targets.claim(&target, job).ok_or_else(busy)?;
        let (root, access, space) = (self.root.clone(), Arc::clone(&self.access), writing.space.clone());
        let (peer, connection) = (context.peer, Arc::clone(&context.connection));
        let under_way = self.activity.begin(peer, ServedJob::Push, escape(&target).to_string());
        let max_bytes = writing.limits.max_transfer_bytes;
        let is_in_parts = matches!(request.shape, TransferShape::Parts { .. });
        let shared = self.memory().of_destinations(peer);
        let sent_memory = self.memory().of_requests(peer);
        let opening = off_thread(move || {
            let may_create = |path: &[u8]| access.may_write(&peer, path, Instant::now()).is_ok();
            let (destination, is_fresh, reserved) =
                open(&root, request, options, job, &space, shared, &may_create)?;
            let destination = match max_bytes {
                Some(max_bytes) => destination
                    .with_policy(Arc::new(SizeLimit { max_bytes, listed_bytes: AtomicU64::new(0) })),
                None => destination,
            };
            let AgreedFilters { filters, memory: filters_memory } = filtered;
            let destination = destination.with_filters(filters);
            let destination = match delete {
                Some(consent) => destination.deleting(consent, sent_memory),
                None => destination,
            };
            Ok::<_, DestinationError>(PreparedPush {
                claim,
                destination,
                is_in_parts,
                name,
                invites: if is_fresh && !is_in_parts { invite(&connection) } else { None },
                job: under_way,
                _filters_memory: filters_memory,
                _space: reserved,
            })
        });
        opening.await?.map_err(|error| not_taken(&error))
    }

    /// Receives, then waits until the pusher knows the outcome.
    async fn run_push(
        self: Arc<Self>,
        connection: Arc<PeerConnection>,
        prepared: PreparedPush,
        begun: Begun<PushSession>,
        durable: bool,
        options: TransferOptions,
    ) {
        let (peer, transfer) = (connection.peer_id(), prepared.claim.transfer());
        let (metrics, under_way) = (options.metrics.as_ref(), prepared.name.under_way());
        let job = Arc::clone(&prepared.job);
        let (addr, received) = (connection.remote_addr(), take(&connection, prepared, &options));
        let bytes = |received: &Received| received.totals.received_bytes;
        let received = Counting::of(metrics, Direction::Received, addr, received, bytes).await;
        match &received {
            Ok(received) => {
                let (files, bytes) = (received.summary.published_files, received.totals.received_bytes);
                tracing::info!(peer = %peer.short(), %transfer, files, received_bytes = bytes, "push complete");
            }
            Err(error) => {
                tracing::warn!(peer = %peer.short(), %transfer, %error, "push failed");
                job.failed(error);
            }
        }
        drop(job);
        let outcome = received.map(|received| done(&received, durable)).map_err(|error| failed(&error));
        begun.outcome.give(outcome);
        let confirmed = begun.confirmed.clone();
        drop(begun);
        drop(under_way);
        // A shutdown waits until the pusher has asked for the outcome or has gone.
        tokio::select! {
            () = confirmed.cancelled() => {}
            _ = connection.closed() => {}
            () = tokio::time::sleep(CONFIRM_TIMEOUT) => {}
        }
    }

    /// Gives the outcome of a push, the same each time (SPEC 5.8).
    pub(super) async fn settle_push(
        self: Arc<Self>,
        context: RequestContext,
        transfer: [u8; 16],
    ) -> Result<Step<PushDone>, Fault> {
        let transfer = TransferId::from_bytes(transfer);
        let session = self.writing.as_ref().and_then(|writing| writing.pushes.find(context.peer, transfer));
        let session = session.ok_or_else(|| gone("no such transfer"))?;
        let outcome = session.outcome.within(answer_wait(&context)).await;
        if !matches!(outcome, Ok(Step::Working)) {
            session.confirmed.cancel();
        }
        outcome
    }
}

/// The target path of a push, relative to the served root. Only its form is checked.
fn target_path(request: &PushOpen) -> Result<Vec<u8>, Fault> {
    let path = match Shape::from(request.shape.clone()) {
        Shape::File { name } | Shape::Directory { name } => {
            if name.contains(&b'/') {
                return Err(Fault::new(FaultCode::PathRefused, "the name has more than one component"));
            }
            if request.path.is_empty() { name } else { [&request.path[..], b"/", &name].concat() }
        }
        Shape::Contents if request.path.is_empty() => return Ok(Vec::new()),
        Shape::Contents => request.path.clone(),
    };
    match RelPath::parse(&path) {
        Ok(_) => Ok(path),
        Err(reason) => Err(not_served(&SourceError::PathRefused { reason })),
    }
}

fn receive_options(
    request: &PushOpen,
    digest: DigestAlgorithm,
    links: LinkPolicy,
) -> Result<ReceiveOptions, Fault> {
    let chunk_len_bytes =
        request.chunk_len_bytes.clamp(MIN_CHUNK_LEN_BYTES, limits::MAX_PAYLOAD_CHUNK_LEN_BYTES);
    Ok(ReceiveOptions {
        existing: Existing::try_from(&request.existing)?,
        durability: if request.durable { Durability::Durable } else { Durability::Verified },
        verify: false,
        links,
        attributes: request.attributes,
        digest,
        chunk_len_bytes,
    })
}

/// Blocking: opens the destination and sets the space aside.
fn open(
    root: &SourceRoot,
    request: PushOpen,
    options: ReceiveOptions,
    job: JobKey,
    space: &Space,
    shared: SharedMemory,
    may_create: &dyn Fn(&[u8]) -> bool,
) -> Result<(Destination, bool, Option<Reserved>), DestinationError> {
    let shape = Shape::from(request.shape);
    let destination =
        Destination::open_beneath(root, &request.path, &shape, job, options, shared, may_create)?;
    // If the target exists, only the manifest shows how many bytes are missing. The receiver then checks the space before it
    // requests the first byte.
    let is_fresh = destination.is_fresh()?;
    let reserved = match request.total_bytes {
        Some(total_bytes) if is_fresh => Some(space.reserve(&destination, total_bytes)?),
        _ => None,
    };
    Ok((destination, is_fresh, reserved))
}

/// Opens the records stream and receives. Everything that the push held is released when this returns, before the pusher
/// hears of the end, so that it may push there again at once.
async fn take(
    connection: &Arc<PeerConnection>,
    prepared: PreparedPush,
    options: &TransferOptions,
) -> Result<Received, TransferError> {
    let timeouts = connection.config().timeouts();
    let PreparedPush { claim, destination, is_in_parts, name, invites, job, _filters_memory, _space } =
        prepared;
    let stop = name.give_up();
    let records = tokio::select! {
        opened = open_records(claim.transfer(), connection, timeouts.header) => opened?,
        () = stop.cancelled() => return Err(TransferError::TakenOver),
    };
    let options = TransferOptions { chunk_len_bytes: destination.chunk_len_bytes(), ..options.clone() };
    let events = job.events(Direction::Received);
    let opening = Opening { claim, records, invites };
    let target = if is_in_parts { Target::in_parts(destination) } else { destination.into() };
    let received = receive(opening, timeouts.progress, target, &options, events, stop).await;
    received.map_err(|error| error.explained(connection))
}

fn done(received: &Received, durable: bool) -> PushDone {
    PushDone {
        durable,
        entries: received.entries,
        // A file in parts may have begun in an earlier transfer.
        total_bytes: received.totals.entry_bytes.max(received.summary.published_bytes),
        published_files: received.summary.published_files,
        identical_files: received.summary.identical_files,
        kept_files: received.summary.kept_files,
        deleted_files: received.summary.deleted_files,
        deletion_withheld: received.summary.is_deletion_withheld,
        resumed_bytes: received.summary.resumed_bytes,
        left_out: received.totals.left_out_here,
    }
}

/// Limits the bytes of a push, also where it announced fewer.
struct SizeLimit {
    max_bytes: u64,
    listed_bytes: AtomicU64,
}

impl Policy for SizeLimit {
    fn admit(&self, entry: &Entry) -> Result<Admission, DestinationError> {
        let max_bytes = self.max_bytes;
        let total_bytes = self.listed_bytes.load(Ordering::Relaxed).saturating_add(entry.size_bytes);
        if total_bytes > max_bytes {
            return Err(DestinationError::TooLarge { total_bytes, max_bytes });
        }
        // One thread plans.
        self.listed_bytes.store(total_bytes, Ordering::Relaxed);
        Ok(Admission::Compare)
    }
}

/// 64 KiB: below it every chunk is mostly its own overhead of a stream and a round trip.
const MIN_CHUNK_LEN_BYTES: u64 = 64 << 10;
