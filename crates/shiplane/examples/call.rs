//! Adds a method to a server and calls it on the connection that carries files.

use serde::{Deserialize, Serialize};
use shiplane::{Client, Error, Request, Server, ServerBuilder, State};

#[derive(Serialize, Deserialize)]
pub(crate) struct Add(pub(crate) u64, pub(crate) u64);

impl Request for Add {
    const METHOD: &'static str = "calculator.add";
    type Response = u64;
}

/// A server with a method that every holder of a ticket for reading may call.
pub(crate) fn calculator(dir: &str) -> ServerBuilder<u64> {
    let add = async |Add(a, b): Add, State(offset): State<u64>| Ok(offset + a + b);
    Server::builder(dir).state(100).method_for_readers(add)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let server = calculator(".").bind("127.0.0.1:0").await?;
    let ticket = server.ticket().read().create()?;
    tokio::spawn(async move { server.run().await });
    let connection = Client::builder().build().await?.connect(&ticket).await?;
    println!("100 + 1 + 2 = {}", connection.call(Add(1, 2)).await?);
    Ok(())
}
