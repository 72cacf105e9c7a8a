//! Lists what a get would fetch.

use std::sync::Arc;

use shiplane_protocols::internals::{Fetch, FetchRequest, transfer::Target};

use crate::{
    connection::Connection,
    error::{Cause, Error},
    event::Side,
    filters::Pattern,
    report::Report,
    settings::Settings,
    tracker::Tracker,
};

/// Has the server list `path`; each entry becomes an event.
pub(super) async fn list(
    connection: &Connection,
    path: Vec<u8>,
    is_recursive: bool,
    mut settings: Settings,
    tracker: &Arc<Tracker>,
) -> Result<Report, Error> {
    if !is_recursive {
        // The last pattern decides: nothing below the first level takes part.
        settings.filters.patterns.push(Pattern::Exclude("/*/*".to_owned()));
    }
    let options = settings.options();
    let filters = settings.filters().await?;
    let request = FetchRequest { path, filters, ..FetchRequest::default() };
    let opened = Fetch::open(connection.rpc(), request, &options).await;
    let fetch = opened.map_err(|error| connection.explained(Cause::from(error).into()))?;
    let (listed, links) = (Arc::clone(tracker), options.links);
    let target = Target::listing(Arc::new(move |entry| {
        let is_carried = |target| links.refusal(&entry.path, target).is_none();
        if entry.target.as_ref().is_none_or(is_carried) {
            listed.listed(entry);
        }
    }));
    let received = fetch.receive(target, &options, tracker.events(0, Side::Peer)).await;
    let received = received.map_err(|error| connection.explained(Cause::from(error).into()))?;
    let mut report = Report::new(received.digest_algorithm);
    report.files = tracker.read(|progress| progress.files);
    report.bytes_total = received.total_bytes;
    tracker.end(report)
}
