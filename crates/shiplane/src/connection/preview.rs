//! Dry runs of a get and a push: lists what the job would do.

use std::sync::Arc;

use shiplane_files::internals::{Comparison, Difference, Different, Existing, Filters, Shape};
use shiplane_protocols::internals::{
    Fetch, FetchError, FetchRequest,
    transfer::{EventFn, Target, TransferOptions},
};
use shiplane_rpc::{CallError, FaultCode};
use shiplane_transport::internals::blocking;
use shiplane_wire::DigestAlgorithm;

use super::Connection;
use crate::{
    error::{Cause, Error},
    event::{Action, Side},
};

/// What a dry run knows of the job.
pub(super) struct Preview {
    pub(super) filters: Arc<Filters>,
    pub(super) existing: Existing,
    pub(super) deletes: bool,
    pub(super) options: TransferOptions,
    /// The side that would be written to.
    pub(super) receiver: Side,
}

/// The result of a comparison.
pub(super) struct Previewed {
    pub(super) actions: Vec<Action>,
    /// How many more there are.
    pub(super) unnamed: u64,
}

impl Preview {
    /// Compares what the server has at `path` with what `local` finds here. Where the server has nothing, `local` gets no
    /// shape.
    pub(super) async fn compare(
        &self,
        connection: &Connection,
        path: Vec<u8>,
        events: EventFn,
        local: impl FnOnce(Option<&Shape>, DigestAlgorithm) -> Result<Comparison, Cause> + Send + 'static,
    ) -> Result<Previewed, Error> {
        let request = FetchRequest { path, filters: Arc::clone(&self.filters), ..FetchRequest::default() };
        let fetch = match Fetch::open(connection.rpc(), request, &self.options).await {
            Ok(fetch) => Some(fetch),
            Err(FetchError::Open(CallError::Fault(fault)))
                if fault.code == FaultCode::NotFound && self.receiver == Side::Peer =>
            {
                None
            }
            Err(error) => return Err(Cause::from(error).into()),
        };
        let shape = fetch.as_ref().map(|fetch| fetch.shape().clone());
        let digest = fetch.as_ref().map_or(self.options.digest, Fetch::digest);
        let opening = blocking::spawn(move || local(shape.as_ref(), digest));
        let comparison = opening.await.map_err(|_| Cause::Abandoned)??;
        let has_left_out = match fetch {
            Some(fetch) => {
                let compared = fetch.receive(Target::comparison(&comparison), &self.options, events).await;
                compared.map_err(Cause::from)?.left_out() > 0
            }
            None => {
                let looked = comparison.clone();
                let looking = blocking::spawn(move || looked.finish()).await.map_err(|_| Cause::Abandoned)?;
                looking.map_err(Cause::Destination)?;
                false
            }
        };
        let (differences, unnamed) = comparison.take();
        let deletes = self.deletes && !has_left_out;
        let actions = differences.iter().filter_map(|different| self.action(different, deletes)).collect();
        Ok(Previewed { actions, unnamed })
    }

    fn action(&self, different: &Different, deletes: bool) -> Option<Action> {
        let Different { path, is_directory, how } = different;
        let is_at_source = match self.receiver {
            Side::ThisMachine => *how == Difference::OnlyThere,
            Side::Peer | Side::Network => *how == Difference::OnlyHere,
        };
        let (change, why) = match (how, self.existing) {
            (Difference::Kind, _) => ("refuse", "something else has the name"),
            (Difference::Content, Existing::Refuse) => ("refuse", "exists with different content"),
            (Difference::Content, Existing::Keep) => ("keep", "exists with different content"),
            (Difference::Content, Existing::Replace) => ("take", "different content at the source"),
            (Difference::Content, Existing::BackUp(_)) => ("take", "different content; the old file is kept"),
            (Difference::OnlyThere | Difference::OnlyHere, _) => match (is_at_source, is_directory) {
                (true, true) => ("create_directory", "new at the source"),
                (true, false) => ("take", "new at the source"),
                (false, _) if !deletes => return None,
                (false, true) => ("remove_directory", "not at the source"),
                (false, false) => ("remove_file", "not at the source"),
            },
        };
        Some(Action { side: self.receiver, change, path: path.to_string(), from: None, why: why.into() })
    }
}
