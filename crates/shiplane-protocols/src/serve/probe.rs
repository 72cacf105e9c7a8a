//! The callee's side of measuring the path (SPEC 5.26).

use std::{sync::Arc, time::Duration};

use shiplane_rpc::{Fault, RequestContext};
use shiplane_transport::LaneOptions;
use shiplane_wire::{DigestAlgorithm, TransferId};

use super::{FileServer, claim};
use crate::probe::{Probe, give, take};

impl FileServer {
    /// Sends or receives chunks for a while, within the limit of the rate.
    pub(super) async fn probe(self: Arc<Self>, context: RequestContext, request: Probe) -> Result<(), Fault> {
        self.check_may_read(&context, &request.path)?;
        let permit = self.probes.take(context.peer)?;
        // Also of what is sent, so that no two have the same name.
        let claim = claim(&context.connection, request.transfer)?;
        let options = LaneOptions::default().digest(DigestAlgorithm::Blake3).rate(self.options.rate.clone());
        let (connection, closing) = (Arc::clone(&context.connection), self.closing.clone());
        let transfer = TransferId::from_bytes(request.transfer);
        tokio::spawn(async move {
            let _permit = permit;
            let probing = async {
                match request.upwards {
                    true => take(claim, &options, |_| ()).await,
                    false => {
                        let _claim = claim;
                        give(&connection, transfer, &options, |_| ()).await;
                    }
                }
            };
            tokio::select! {
                _ = tokio::time::timeout(MAX_TIME, probing) => {}
                () = closing.cancelled() => {}
            }
        });
        Ok(())
    }
}

/// 4 s: twice as long as it takes.
const MAX_TIME: Duration = Duration::from_secs(4);
