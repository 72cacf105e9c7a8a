//! `shiplane send PATH...`

use std::convert::Infallible;
use std::future::pending;
use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::BinaryBytes;
use shiplane::{Action, Client, Error, ErrorKind, Server, Stats, escape};
use tokio_util::sync::CancellationToken;

use crate::board::SessionBoard;
use crate::events::{Event, seconds};
use crate::failure::Failure;
use crate::job::Job;
use crate::logging::{is_capable, print_line};
use crate::progress::{TICK_INTERVAL, count};
use crate::settings::{OutputMode, SendSettings};
use crate::{qr, runtime, signals};

pub(super) fn run(settings: SendSettings) -> Result<(), Failure> {
    let stop = signals::watch("stopping; press Ctrl-C again to stop now", signals::JOB_LIMIT)
        .map_err(Failure::Runtime)?;
    runtime::run(send(settings, stop)).map_err(Failure::Runtime)?
}

async fn send(settings: SendSettings, stop: CancellationToken) -> Result<(), Failure> {
    let client = Client::builder().foreground(true).build().await?;
    let receivers = Arc::new(Mutex::new(Receivers::default()));
    let server = bind(&client, &settings, &receivers).await?;
    announce(&settings, &server)?;
    tokio::select! {
        ended = server.run_until(stop.cancelled()) => match ended {
            Err(error) if error.kind() == ErrorKind::Interrupted => return Err(Failure::SendingInterrupted),
            ended => ended?,
        },
        never = show(&settings, &server) => match never {},
    }
    let receivers = receivers.lock().unwrap_or_else(PoisonError::into_inner);
    sum_up(&settings, &server.stats(), &receivers)
}

/// The receivers that have connected.
#[derive(Debug, Default)]
struct Receivers {
    /// When the first of them came.
    began_at: Option<Instant>,
    /// How many have everything.
    done: u64,
}

/// Shows what moves: to one receiver as a bar or as events, to several as a line each.
async fn show(settings: &SendSettings, server: &Server) -> Infallible {
    let mode = if settings.json { OutputMode::Json } else { OutputMode::Human };
    if settings.receivers != Some(1) {
        return match mode == OutputMode::Human && is_capable() {
            true => SessionBoard::new().watch(server).await,
            false => pending().await,
        };
    }
    let mut shown = Shown(None);
    let mut ticks = tokio::time::interval(TICK_INTERVAL);
    loop {
        ticks.tick().await;
        let moving = server.sessions().into_iter().flat_map(|(_, _, jobs)| jobs);
        match moving.max_by_key(|event| event.bytes_done) {
            Some(event) => {
                let job = shown.0.get_or_insert_with(|| Job::begin(mode, io::stdout()));
                job.events()(&event);
            }
            None => shown = Shown(None),
        }
    }
}

/// The bar of what moves, which disappears with this.
struct Shown(Option<Arc<Job>>);

impl Drop for Shown {
    fn drop(&mut self) {
        if let Some(job) = &self.0 {
            job.end_bar();
        }
    }
}

/// Says what was sent: as an event, or on a terminal as text.
fn sum_up(settings: &SendSettings, stats: &Stats, receivers: &Receivers) -> Result<(), Failure> {
    if settings.json {
        let (seconds, bytes) = (seconds(stats.uptime), stats.sent_bytes);
        let event = Event::Sent { seconds, bytes, receivers: receivers.done };
        return event.write_line(&mut io::stdout().lock()).map_err(Failure::Stdout);
    }
    if io::stderr().is_terminal() {
        let took = receivers.began_at.map_or(Duration::ZERO, |began_at| began_at.elapsed());
        print_line(&summary(settings.text.is_some(), stats.sent_bytes, receivers.done, took));
    }
    Ok(())
}

fn summary(is_text: bool, bytes: u64, receivers: u64, took: Duration) -> String {
    let receivers = count(receivers, "receiver");
    if is_text {
        return format!("done: the text was sent to {receivers}");
    }
    let rate = bytes as f64 / took.as_secs_f64().max(MIN_RATE_SECONDS);
    let (bytes, rate) = (BinaryBytes(bytes), BinaryBytes(rate as u64));
    format!("done: {bytes} sent to {receivers} in {took:.1?} ({rate}/s)")
}

async fn bind(
    client: &Client,
    settings: &SendSettings,
    receivers: &Arc<Mutex<Receivers>>,
) -> Result<Server, Error> {
    let bind = |addresses: Vec<SocketAddr>| async move {
        let builder = match &settings.text {
            Some(text) => client.send_text(text),
            None => client.send(&settings.paths),
        };
        let told = told(settings.json, Arc::clone(receivers));
        let builder = builder.foreground(true).code_words(settings.code_words).on_code(told);
        let builder = match settings.receivers {
            Some(receivers) => builder.receivers(receivers),
            None => builder.stay(),
        };
        let builder = settings.code_ttl.iter().fold(builder, |builder, ttl| builder.code_ttl(*ttl));
        let builder = settings.rate.iter().fold(builder, |builder, rate| builder.rate(rate.get()));
        builder.bind(&addresses[..]).await
    };
    settings.listen.bind(bind).await
}

/// Tells and notes what happens to the code.
fn told(json: bool, receivers: Arc<Mutex<Receivers>>) -> impl FnMut(&Action) + Send + 'static {
    // A peer may cause it while the output is not read: the program must not wait for that.
    let mut is_broken = false;
    move |action| {
        let Action { change, path, why, .. } = action;
        let mut receivers = receivers.lock().unwrap_or_else(PoisonError::into_inner);
        match *change {
            "admitted" => receivers.began_at = receivers.began_at.or_else(|| Some(Instant::now())),
            "taken" => receivers.done += 1,
            _ => {}
        }
        drop(receivers);
        if json {
            let event = Event::Code { change, peer: path.clone(), message: why.to_string() };
            is_broken = is_broken || event.write_line(&mut io::stdout().lock()).is_err();
        } else {
            print_line(&format!("{}: {why}", escape(path.as_bytes())));
        }
    }
}

/// Prints what to run on the other machine.
fn announce(settings: &SendSettings, server: &Server) -> Result<(), Failure> {
    let code = server.code().unwrap_or_default();
    let command = match server.is_announced() {
        true => format!("shiplane receive {code}"),
        false => format!("shiplane receive {code} --at {}", quoted(&server.address())),
    };
    let address = server.local_addr();
    let mut out = io::stdout().lock();
    let printed = if settings.json {
        let (peer_id, address) = (server.id().to_string(), address.to_string());
        Event::Waiting { code, command, peer_id, address }.write_line(&mut out)
    } else {
        writeln!(out, "{command}").and_then(|()| out.flush())
    };
    printed.map_err(Failure::Stdout)?;
    tracing::info!(%address, "waiting");
    if settings.qr {
        qr::print(&server.code().unwrap_or_default());
    }
    if io::stderr().is_terminal() {
        let whom = match settings.receivers {
            Some(1) => "The code is for one receiver, within ten minutes.".to_owned(),
            Some(receivers) => format!("The code is for {receivers} receivers."),
            None => "The code is for any number of receivers. Press Ctrl-C to stop.".to_owned(),
        };
        let otherwise = match server.is_announced() {
            true => format!("; if it does not find this one, add --at {}", quoted(&server.address())),
            false => String::new(),
        };
        print_line(&format!("hint: run that on the other machine{otherwise}. {whom}"));
    }
    Ok(())
}

/// As one word of any shell: some take brackets for a pattern.
fn quoted(address: &str) -> String {
    if address.contains('[') { format!("'{address}'") } else { address.to_owned() }
}

/// Avoids a division by zero for very short transfers.
const MIN_RATE_SECONDS: f64 = 0.001;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_names_bytes_and_receivers() {
        let took = Duration::from_secs(2);
        assert_eq!(
            summary(false, 4 << 20, 1, took),
            "done: 4.00 MiB sent to 1 receiver in 2.0s (2.00 MiB/s)"
        );
        assert_eq!(summary(true, 0, 2, took), "done: the text was sent to 2 receivers");
        assert_eq!(summary(false, 0, 0, Duration::ZERO), "done: 0 B sent to 0 receivers in 0.0ns (0 B/s)");
    }

    #[test]
    fn brackets_are_quoted() {
        assert_eq!(quoted("10.0.0.5:7514,2001:db8::7"), "10.0.0.5:7514,2001:db8::7");
        assert_eq!(quoted("[2001:db8::7]:7514"), "'[2001:db8::7]:7514'");
    }
}
