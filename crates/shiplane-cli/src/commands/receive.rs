//! `shiplane receive CODE [DEST]`

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;

use indicatif::BinaryBytes;
use shiplane::{Client, Connection, GetJob, Report, escape};
use tokio_util::sync::CancellationToken;

use super::get::done;
use super::transfer::{self, Transfer, is_agreed, report_of};
use crate::events::{Event, Phase};
use crate::failure::Failure;
use crate::job::Job;
use crate::logging::print_line;
use crate::progress::count;
use crate::settings::{OutputMode, ReceiveSettings, with_common, with_existing};

pub(super) fn run(settings: ReceiveSettings) -> Result<(), Failure> {
    transfer::run(|stop| async move {
        let job = Job::begin(settings.output_mode, io::stdout());
        let ended = receive(&settings, &job, stop).await;
        job.end(ended)
    })
}

async fn receive(settings: &ReceiveSettings, job: &Arc<Job>, stop: CancellationToken) -> Result<(), Failure> {
    for (typed, meant) in &settings.corrected {
        print_line(&format!("taking \"{typed}\" for {meant}"));
    }
    let client = Client::builder().foreground(true).build().await?;
    job.phase(Phase::Connecting);
    let connection = tokio::select! {
        connection = connect(&client, settings) => connection,
        () = stop.cancelled() => Err(Failure::Interrupted),
    };
    job.end_bar();
    let connection = connection?;
    if let Some(text) = connection.text() {
        show_text(text, settings.output_mode, job)?;
        connection.conclude(true).await?;
        client.close().await;
        return Ok(());
    }
    let offer = connection.offer();
    offer.iter().for_each(|offer| job.tell(&offered(&connection, offer)));
    if let Some(offer) = offer.filter(|_| !settings.yes) {
        let question = question(settings, &connection, &offer);
        let asking = tokio::task::spawn_blocking(move || is_agreed(&question));
        let agreed = tokio::select! {
            agreed = asking => agreed.unwrap_or_default(),
            () = stop.cancelled() => return Err(Failure::Interrupted),
        };
        if !agreed {
            connection.conclude(false).await?;
            client.close().await;
            return Err(Failure::Declined);
        }
    }
    let transfer = Transfer::over(job, client, connection);
    let ended = transfer.run(prepare(settings, transfer.connection(), job, &stop)).await;
    transfer.close(&ended).await;
    if let Some(report) = report_of(&ended) {
        done(job, report, false);
    }
    ended.map(drop).map_err(Failure::from)
}

async fn connect(client: &Client, settings: &ReceiveSettings) -> Result<Connection, Failure> {
    let patience = settings.common.give_up_after;
    Ok(match &settings.at {
        Some(at) => client.receive_at(&settings.code, at, patience).await?,
        None => client.receive(&settings.code, patience).await?,
    })
}

fn prepare(
    settings: &ReceiveSettings,
    connection: &Connection,
    job: &Arc<Job>,
    stop: &CancellationToken,
) -> GetJob {
    let fetch = with_common!(
        with_existing!(connection.get(""), &settings.existing, false),
        &settings.common,
        job,
        stop
    );
    settings.dest.iter().fold(fetch, |fetch, dest| fetch.to(dest))
}

fn offered(connection: &Connection, offer: &Report) -> Event {
    Event::Offered {
        peer_id: connection.peer_id().to_string(),
        address: connection.remote_addr().to_string(),
        files: offer.files,
        bytes: offer.bytes_total,
        counted: connection.is_offer_counted(),
        names: offer.actions.iter().map(|action| action.path.clone()).collect(),
    }
}

/// What would arrive, from whom, and where it would land.
fn question(settings: &ReceiveSettings, connection: &Connection, offer: &Report) -> String {
    let names: Vec<&str> = offer.actions.iter().map(|action| action.path.as_str()).take(MAX_NAMES).collect();
    let unnamed =
        offer.actions.len() - names.len() + usize::try_from(offer.actions_unnamed).unwrap_or(usize::MAX);
    let more = if unnamed == 0 { String::new() } else { format!(", and {unnamed} more") };
    let at_least = if connection.is_offer_counted() { "" } else { "at least " };
    let dest = settings.dest.as_ref().map_or_else(
        || "the current directory".to_owned(),
        |dest| escape(dest.as_os_str().as_encoded_bytes()),
    );
    format!(
        "{at_least}{} of {} from {} at {}: {}{more}\nreceive into {dest}? [y/N]",
        count(offer.files, "file"),
        BinaryBytes(offer.bytes_total),
        connection.peer_id().short(),
        connection.remote_addr(),
        names.join(", "),
    )
}

/// Prints a text: exactly as it was sent, but to a terminal nothing that it would obey.
fn show_text(text: &str, output_mode: OutputMode, job: &Arc<Job>) -> Result<(), Failure> {
    if output_mode == OutputMode::Json {
        job.tell(&Event::Text { text: text.to_owned() });
        return Ok(());
    }
    let mut out = io::stdout().lock();
    let written = if out.is_terminal() {
        text.lines().try_for_each(|line| writeln!(out, "{}", escape(line.as_bytes())))
    } else {
        out.write_all(text.as_bytes())
    };
    written.and_then(|()| out.flush()).map_err(Failure::Stdout)
}

/// Ten names: a line or two.
const MAX_NAMES: usize = 10;
