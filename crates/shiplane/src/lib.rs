//! Copy and sync files between two machines over one authenticated QUIC connection: verified, resumable, in bounded
//! memory. Most programs need only this crate; the `shiplane` program uses nothing else.
//!
//! A [`Server`] serves a directory and gives out [tickets](Server::ticket). A [`Client`] [connects](Client::connect) with
//! such a ticket, and begins any number of jobs on the [`Connection`]: [`get`](Connection::get),
//! [`push`](Connection::push) and [`sync`](Connection::sync). A job is a builder; it runs when it is awaited and ends with a
//! [`Report`] or an [`Error`]. On the same connection it [calls](Connection::call) methods that the server's owner has
//! added.
//!
//! ```
//! # use std::time::Duration;
//! # use serde::{Deserialize, Serialize};
//! use shiplane::{Client, Context, Request, Server};
//!
//! # const HOUR: Duration = Duration::from_secs(3600);
//! #[derive(Serialize, Deserialize)]
//! struct Add { a: u64, b: u64 }
//!
//! #[derive(Serialize, Deserialize)]
//! struct Sum(u64);
//!
//! impl Request for Add {
//!     const METHOD: &'static str = "calculator.add";
//!     type Response = Sum;
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::TempDir::new()?;
//! # let (photos, copy) = (dir.path().join("photos"), dir.path().join("copy"));
//! # std::fs::create_dir_all(photos.join("2026/summer"))?;
//! # std::fs::write(photos.join("2026/summer/beach.jpg"), "sand")?;
//! # let a = dir.path().join("a.txt");
//! # std::fs::write(&a, "a")?;
//! // On one machine: serve a directory, and a method.
//! let server = Server::builder(&photos).writable()
//!     .method(|add: Add, _context: Context| async move { Ok(Sum(add.a + add.b)) })
//! #   .home(dir.path().join("server"))
//!     .bind("127.0.0.1:0").await?;
//! let ticket = server.ticket().read().write().valid_for(HOUR).uses(1).create()?;
//! # let served = server.clone();
//! # let serving = tokio::spawn(async move {
//! # let server = served;
//! server.run().await?;
//! # Ok::<_, shiplane::Error>(())
//! # });
//!
//! // On the other: fetch, push, call.
//! # let builder = Client::builder().home(dir.path().join("client"));
//! # let client = builder.build().await?;
//! # /*
//! let client = Client::builder().build().await?;         // the key and the peers are in the usual place
//! # */
//! let photos = client.connect(&ticket).await?;           // a ticket, an id and an address, or a text
//! let report = photos.get("2026/summer").to(&copy).overwrite(true)
//!     .on_progress(|event| println!("{} of {:?}", event.bytes_done, event.bytes_total)).await?;
//! photos.push([&a]).to("inbox").await?;
//! let answer: Sum = photos.call(Add { a: 1, b: 2 }).await?;
//!
//! assert_eq!((report.files, answer.0), (1, 3));
//! # assert_eq!(std::fs::read(copy.join("beach.jpg"))?, b"sand");
//! # client.close().await;
//! # server.shutdown();
//! # serving.await??;
//! # Ok(())
//! # }
//! ```
//!
//! # Rights
//! A ticket authenticates the server by its key, so even the first connection is safe, and grants the key that redeems it
//! what it says: reading, writing, below a path. Keys that are to have rights for longer are [added](Peers::add) to the list
//! of peers. All else is denied. A method may be called only with all rights, unless it was added
//! [for readers](ServerBuilder::method_for_readers) or [for writers](ServerBuilder::method_for_writers).
//!
//! # Cancelling
//! Dropping a job's future ends the job; [`cancel_on`](GetJob::cancel_on) does so in order. Either way the same job run
//! again continues: what was verified is kept. What a dropped future leaves is said with each async function.
//!
//! # Failures
//! There is one [`Error`]. Its [`kind`](Error::kind) is for programs, its text and [`hint`](Error::hint) are for people, and
//! [`side`](Error::side) says on which machine to look.
//!
//! # Examples
//! Each is a program in `examples/`, and run by a test.
//!
//! Fetch:
#![doc = "```no_run"]
#![doc = include_str!("../examples/get.rs")]
#![doc = "```"]
//!
//! Push:
#![doc = "```no_run"]
#![doc = include_str!("../examples/push.rs")]
#![doc = "```"]
//!
//! Synchronise:
#![doc = "```no_run"]
#![doc = include_str!("../examples/sync.rs")]
#![doc = "```"]
//!
//! Serve:
#![doc = "```no_run"]
#![doc = include_str!("../examples/serve.rs")]
#![doc = "```"]
//!
//! A method of a server's own:
#![doc = "```no_run"]
#![doc = include_str!("../examples/call.rs")]
#![doc = "```"]
#![forbid(unsafe_code)]

mod action;
mod client;
mod connection;
mod error;
mod event;
mod filters;
mod home;
mod left_out;
mod leftovers;
/// What this machine can do: for the program.
#[doc(hidden)]
pub mod machine;
mod offer;
mod peers;
mod rate;
mod receive;
mod received;
mod report;
mod request;
mod send;
mod server;
mod settings;
mod target;
mod tickets;
mod tracker;

pub use action::{Action, Side};
pub use client::{Client, ClientBuilder};
pub use connection::{Connection, get::GetJob, push::PushJob, sync::SyncJob};
pub use error::{Error, ErrorKind};
pub use event::{Event, EventKind, Phase};
pub use leftovers::clean;
pub use peers::{KnownPeer, Peers};
pub use report::Report;
pub use request::Request;
#[doc(hidden)]
pub use server::serve_over_ssh;
pub use server::{Context, FromContext, Server, ServerBuilder, State, Stats, TicketBuilder};
pub use shiplane_access::Ticket;
pub use shiplane_access::internals::DEFAULT_PORT;
pub use shiplane_protocols::Compression;
pub use shiplane_transport::PeerId;
pub use shiplane_wire::{DigestAlgorithm, limits::MAX_PAYLOAD_CHUNK_LEN_BYTES as MAX_CHUNK_LEN_BYTES};
pub use target::Target;
pub use tickets::Tickets;

/// Checks a code of [`Client::send`] as it was typed, and gives the words that were mistyped, escaped, each with the word
/// that it is taken for.
///
/// # Errors
/// [`ErrorKind::Usage`] for what is no code, with what is wrong.
pub fn check_code(typed: &str) -> Result<Vec<(String, &'static str)>, Error> {
    let (_, corrections) = shiplane_reach::internals::Code::parse(typed)
        .map_err(|error| error::Cause::from(error::CodeFailure::Text(error)))?;
    Ok(corrections.into_iter().map(|correction| (correction.typed, correction.meant)).collect())
}

/// The codes, or beginnings of codes, that continue what was typed by one word: for a shell.
#[must_use]
pub fn complete_code(typed: &str) -> Vec<String> {
    shiplane_reach::internals::Code::completions(typed)
}

/// Makes bytes such as a path safe to print: escapes control characters and invalid UTF-8.
#[must_use]
pub fn escape(bytes: &[u8]) -> String {
    shiplane_wire::escape(bytes).to_string()
}
