//! Pushes files and directories: `cargo run -p shiplane --example push -- TICKET PATH...`.

use shiplane::{Client, Error, ErrorKind, Report};

/// Pushes the paths into the directory `inbox` of what the ticket names.
pub(crate) async fn push(client: &Client, ticket: &str, paths: Vec<String>) -> Result<Report, Error> {
    let photos = client.connect(ticket).await?;
    photos.push(paths).to("inbox").await
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let mut args = std::env::args().skip(1);
    let Some(ticket) = args.next() else {
        return Err(Error::new(ErrorKind::Usage, "give TICKET PATH..."));
    };
    let client = Client::builder().build().await?;
    let report = push(&client, &ticket, args.collect()).await?;
    println!("{} files, {} bytes sent", report.files, report.bytes_sent);
    client.close().await;
    Ok(())
}
