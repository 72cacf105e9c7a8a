//! What the peers say to their driver: lines of figures. They go on until their standard input ends.

use std::io::Write as _;

use anyhow::Result;

/// Prints one line of figures. The first one says that all peers are at work.
pub(crate) fn tell(figures: &[(&str, u64)]) -> Result<()> {
    let figures: Vec<_> = figures.iter().map(|(name, value)| format!("{name} {value}")).collect();
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{}", figures.join(", "))?;
    Ok(stdout.flush()?)
}

/// Waits for the end of standard input: then it is enough.
pub(crate) async fn enough() {
    // However it ends.
    let _ended = tokio::io::copy(&mut tokio::io::stdin(), &mut tokio::io::sink()).await;
}

/// Takes `count` steps, each with its number, says so, and goes on until it is enough.
pub(crate) async fn flood(
    name: &str,
    count: u64,
    mut step: impl AsyncFnMut(u64) -> Result<()>,
) -> Result<()> {
    for number in 0..count {
        step(number).await?;
        tokio::task::yield_now().await;
    }
    tell(&[(name, count)])?;
    let more = until_enough(async |more| step(count + more).await).await?;
    tell(&[(name, count + more)])
}

/// Takes one step after another, each with its number, until it is enough. How many there were.
pub(crate) async fn until_enough(mut step: impl AsyncFnMut(u64) -> Result<()>) -> Result<u64> {
    let mut enough = std::pin::pin!(enough());
    let mut steps = 0;
    loop {
        tokio::select! {
            biased;
            () = &mut enough => return Ok(steps),
            stepped = step(steps) => stepped?,
        }
        tokio::task::yield_now().await;
        steps += 1;
    }
}
