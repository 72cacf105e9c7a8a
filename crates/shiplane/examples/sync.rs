//! Synchronises a directory with a server's: `cargo run -p shiplane --example sync -- TICKET DIR`.

use shiplane::{Client, Error, ErrorKind, Report};

/// Brings `dir` and what the ticket names together, in both directions.
pub(crate) async fn sync(client: &Client, ticket: &str, dir: &str) -> Result<Report, Error> {
    let photos = client.connect(ticket).await?;
    photos.sync(dir).await
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let mut args = std::env::args().skip(1);
    let (Some(ticket), Some(dir)) = (args.next(), args.next()) else {
        return Err(Error::new(ErrorKind::Usage, "give TICKET DIR"));
    };
    let client = Client::builder().build().await?;
    let report = sync(&client, &ticket, &dir).await?;
    for action in &report.actions {
        println!("{}: {} {}", action.side, action.change, action.path);
    }
    client.close().await;
    Ok(())
}
