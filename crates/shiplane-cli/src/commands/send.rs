//! `shiplane send PATH...`

use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;

use indicatif::BinaryBytes;
use shiplane::{Action, Client, Error, Server, escape};
use tokio_util::sync::CancellationToken;

use crate::events::Event;
use crate::failure::Failure;
use crate::logging::print_line;
use crate::progress::seconds;
use crate::settings::SendSettings;
use crate::units::show_duration;
use crate::{qr, runtime, signals};

pub(super) fn run(settings: SendSettings) -> Result<(), Failure> {
    let stop = signals::watch("stopping; press Ctrl-C again to stop now", signals::JOB_LIMIT)
        .map_err(Failure::Runtime)?;
    runtime::run(send(settings, stop))
}

async fn send(settings: SendSettings, stop: CancellationToken) -> Result<(), Failure> {
    let client = Client::builder().foreground(true).build().await?;
    let server = bind(&client, &settings).await?;
    announce(&settings, &server)?;
    server.run_until(stop.cancelled()).await?;
    let stats = server.stats();
    if settings.json {
        let event = Event::Sent { seconds: seconds(stats.uptime), bytes: stats.sent_bytes };
        return event.write_line(&mut io::stdout().lock()).map_err(Failure::Stdout);
    }
    if io::stderr().is_terminal() {
        print_line(&format!(
            "done: {} sent in {}",
            BinaryBytes(stats.sent_bytes),
            show_duration(stats.uptime)
        ));
    }
    Ok(())
}

async fn bind(client: &Client, settings: &SendSettings) -> Result<Server, Error> {
    let bind = |addresses: Vec<SocketAddr>| async move {
        let builder = match &settings.text {
            Some(text) => client.send_text(text),
            None => client.send(&settings.paths),
        };
        let builder = builder.foreground(true).code_words(settings.code_words).on_code(told(settings.json));
        let builder = match settings.receivers {
            Some(receivers) => builder.receivers(receivers),
            None => builder.stay(),
        };
        let builder = settings.rate.iter().fold(builder, |builder, rate| builder.rate(rate.get()));
        builder.bind(&addresses[..]).await
    };
    settings.listen.bind(bind).await
}

/// Tells what happens to the code.
fn told(json: bool) -> impl FnMut(&Action) + Send + 'static {
    // A peer may cause it while the output is not read: the program must not wait for that.
    let mut is_broken = false;
    move |action| {
        let Action { change, path, why, .. } = action;
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
    let command = format!("shiplane receive {code}");
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
        let at = server.address();
        print_line(&format!(
            "hint: run that on the other machine; if it does not find this one, add --at {at}. {whom}"
        ));
    }
    Ok(())
}
