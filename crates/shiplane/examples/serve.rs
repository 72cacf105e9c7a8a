//! Serves a directory until Ctrl-C: `cargo run -p shiplane --example serve -- DIR`.

use std::time::Duration;

use shiplane::{Error, ErrorKind, Server, ServerBuilder};

/// A server that can be fetched from, pushed to and synced with.
pub(crate) fn photos(dir: &str) -> ServerBuilder {
    Server::builder(dir).writable()
}

/// Prints a ticket for one key, and serves until `stop` is ready.
pub(crate) async fn serve(server: &Server, stop: impl Future<Output = ()>) -> Result<(), Error> {
    println!("{}", server.ticket().read().write().valid_for(HOUR).uses(1).create()?);
    server.run_until(stop).await
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let Some(dir) = std::env::args().nth(1) else {
        return Err(Error::new(ErrorKind::Usage, "give DIR"));
    };
    let server = photos(&dir).bind("0.0.0.0:7514").await?;
    serve(&server, async { drop(tokio::signal::ctrl_c().await) }).await
}

const HOUR: Duration = Duration::from_secs(3600);
