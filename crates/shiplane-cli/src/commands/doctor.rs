//! `shiplane doctor [SOURCE]`

use std::io::{self, IsTerminal as _, Write as _};

use indicatif::BinaryBytes;
use shiplane::Client;
use tokio_util::sync::CancellationToken;

use super::transfer;
use crate::doctor::{Ceiling, Finding, Grade, Way, ceilings, check_machine, check_path};
use crate::events::Event;
use crate::failure::Failure;
use crate::logging::print_line;
use crate::progress::count;
use crate::settings::{DoctorSettings, OutputMode};

pub(super) fn run(settings: DoctorSettings) -> Result<(), Failure> {
    transfer::run(|stop| doctor(settings, stop))
}

async fn doctor(settings: DoctorSettings, stop: CancellationToken) -> Result<(), Failure> {
    tokio::select! {
        checked = check(&settings) => checked,
        () = stop.cancelled() => Err(Failure::Interrupted),
    }
}

async fn check(settings: &DoctorSettings) -> Result<(), Failure> {
    let mode = settings.output_mode;
    let waits = |what: &str| {
        if mode == OutputMode::Human && io::stderr().is_terminal() {
            print_line(what);
        }
    };
    waits("measuring this machine ...");
    let directory = settings.directory.clone();
    let checked = tokio::task::spawn_blocking(move || check_machine(&directory)).await;
    let (findings, machine) = checked.map_err(|_| Failure::Interrupted)?;
    let mut worst = tell_all(&findings, mode)?;
    if let Some(source) = &settings.source {
        waits("measuring the path to the server ...");
        let client = settings.ssh.clone().apply(Client::builder().foreground(true)).build().await?;
        let checked = async {
            let connection = client.connect(source.clone()).await?;
            check_path(&connection).await
        };
        let checked = checked.await;
        client.close().await;
        let (findings, rates) = checked?;
        worst = worst.max(tell_all(&findings, mode)?);
        for (way, ceiling) in ceilings(&machine, rates) {
            predict(way, &ceiling, mode).map_err(Failure::Stdout)?;
        }
    }
    let bad = worst.1;
    if bad == 0 { Ok(()) } else { Err(Failure::Unhealthy { findings: count(bad, "check") }) }
}

/// Gives the worst grade, and how many were bad.
fn tell_all(findings: &[Finding], mode: OutputMode) -> Result<(Grade, u64), Failure> {
    findings.iter().try_for_each(|finding| tell(finding, mode)).map_err(Failure::Stdout)?;
    let worst = findings.iter().map(|finding| finding.grade).max().unwrap_or(Grade::Fine);
    let bad = findings.iter().filter(|finding| finding.grade == Grade::Bad).count();
    Ok((worst, bad as u64))
}

fn tell(finding: &Finding, mode: OutputMode) -> io::Result<()> {
    let Finding { check, grade, value, unit, message, hint } = finding.clone();
    let mut out = io::stdout().lock();
    if mode == OutputMode::Json {
        let (grade, unit) = (grade.name(), value.map(|_| unit));
        return Event::Finding { check, grade, value, unit, message, hint }.write_line(&mut out);
    }
    writeln!(out, "{:5} {message}", grade.name())?;
    if let Some(hint) = hint {
        writeln!(out, "      {hint}")?;
    }
    out.flush()
}

fn predict(way: Way, ceiling: &Ceiling, mode: OutputMode) -> io::Result<()> {
    let Some((limited_by, rate)) = ceiling.least() else { return Ok(()) };
    let (command, words) = match way {
        Way::ToHere => ("get", "a get"),
        Way::ToServer => ("push", "a push"),
    };
    let mut out = io::stdout().lock();
    if mode == OutputMode::Json {
        return Event::Predicted { command, bytes_per_second: rate, limited_by }.write_line(&mut out);
    }
    writeln!(out, "{words} moves at most {}/s: the limit is the {limited_by}", BinaryBytes(rate))?;
    out.flush()
}
