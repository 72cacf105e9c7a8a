//! The report to the driver: two lines of JSON.

use std::io::Write as _;

use tokio::io::AsyncReadExt as _;

use crate::peers::Failure;

/// Prints one line: what has happened, and figures.
pub(crate) fn tell(event: &str, figures: &[(&str, u64)]) -> Result<(), Failure> {
    let mut line = format!("{{\"event\":\"{event}\"");
    for (name, value) in figures {
        line.push_str(&format!(",\"{name}\":{value}"));
    }
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{line}}}")?;
    Ok(stdout.flush()?)
}

/// Prints the line of a server that is ready: where to get what it lies about.
pub(crate) fn tell_ticket(ticket: &str) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    // A ticket has no character that JSON escapes.
    writeln!(stdout, "{{\"event\":\"ready\",\"ticket\":\"{ticket}\"}}")?;
    Ok(stdout.flush()?)
}

/// Waits for the end of standard input: then it is enough.
pub(crate) async fn enough() {
    let mut stdin = tokio::io::stdin();
    let mut heard = [0; 64];
    while let Ok(1..) = stdin.read(&mut heard).await {}
}

/// Takes one step after another, each with its number, until it is enough. How many there were.
pub(crate) async fn until_enough(
    mut step: impl AsyncFnMut(u64) -> Result<(), Failure>,
) -> Result<u64, Failure> {
    let mut enough = std::pin::pin!(enough());
    let mut steps = 0;
    loop {
        tokio::select! {
            biased;
            () = &mut enough => return Ok(steps),
            stepped = step(steps) => stepped?,
        }
        steps += 1;
    }
}
