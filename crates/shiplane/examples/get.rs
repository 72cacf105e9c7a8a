//! Fetches a directory: `cargo run -p shiplane --example get -- TICKET DEST`.

use shiplane::{Client, Error, ErrorKind, Report};

/// Fetches `2026/summer` from the server that the ticket names.
pub(crate) async fn get(client: &Client, ticket: &str, dest: &str) -> Result<Report, Error> {
    let photos = client.connect(ticket).await?;
    photos
        .get("2026/summer")
        .to(dest)
        .overwrite(true)
        .on_progress(|event| eprintln!("{} of {:?} bytes", event.bytes_done, event.bytes_total))
        .await
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let mut args = std::env::args().skip(1);
    let (Some(ticket), Some(dest)) = (args.next(), args.next()) else {
        return Err(Error::new(ErrorKind::Usage, "give TICKET DEST"));
    };
    let client = Client::builder().build().await?;
    let report = get(&client, &ticket, &dest).await?;
    println!("{} files, {} bytes received", report.files, report.bytes_received);
    client.close().await;
    Ok(())
}
