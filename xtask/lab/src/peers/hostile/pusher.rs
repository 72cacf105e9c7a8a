//! Lying pushes to `shiplane serve --writable`.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::{BufMut as _, BytesMut};
use shiplane_access::internals::Ticket;
use shiplane_transport::Identity;

use super::Lie;
use super::provider::Provider;
use crate::peers::Failure;
use crate::peers::peer::{Dialler, OpenedPush, Server, call, open_push, patient, put_bytes};
use crate::peers::report::{enough, tell};

/// One push of the owner of a ticket, on a thread of its own. It is broken off when dropped.
#[derive(Debug)]
pub struct LyingPusher {
    runtime: Option<tokio::runtime::Runtime>,
    push: tokio::task::JoinHandle<Result<(), Failure>>,
}

impl LyingPusher {
    /// Redeems the ticket and begins the push. A lie about entries has so many of them.
    ///
    /// # Errors
    /// When the server cannot be reached, does not take the ticket or refuses the push.
    pub fn start(ticket: &str, lie: Lie, entries: u32) -> Result<Self, Failure> {
        let ticket: Ticket = ticket.parse()?;
        let addr: SocketAddr = ticket.at().to_string().parse()?;
        let keys = vec![Identity::generate()?];
        let server = Server { addr, id: ticket.server(), keys };
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let push = runtime.block_on(async {
            let mut dialler = Dialler::new(&server, patient())?;
            let connection = dialler.dial()?.await?;
            call(&connection, "ticket.redeem", &redeem_body(&ticket)?).await?;
            let provider = begin(&connection, 0).await?;
            let push = tokio::spawn(async move {
                // The socket lives as long as the push.
                let _dialler = dialler;
                provider.tell(lie, entries).await
            });
            Ok::<_, Failure>(push)
        })?;
        Ok(Self { runtime: Some(runtime), push })
    }

    /// Waits until the server has ended the push; whether it has within `limit`.
    pub fn ends_within(&mut self, limit: Duration) -> bool {
        let Self { runtime: Some(runtime), push } = self else { return true };
        runtime.block_on(async { tokio::time::timeout(limit, push).await.is_ok() })
    }
}

impl Drop for LyingPusher {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// `count` pushes, with the keys and the lies in turn. Says so once the server has ended them all.
pub(crate) async fn push(server: &Server, count: usize, lies: &[Lie], entries: u32) -> Result<(), Failure> {
    let mut dialler = Dialler::new(server, patient())?;
    let begun = |number, connecting: quinn::Connecting| async move {
        let begun = async { begin(&connecting.await?, number).await };
        Ok((lies[number % lies.len()], tokio::time::timeout(BEGIN_LIMIT, begun).await??))
    };
    let (providers, refused) = dialler.dial_all(count, begun).await;
    let mut pushes = tokio::task::JoinSet::new();
    for (lie, provider) in providers {
        pushes.spawn(provider.tell(lie, entries));
    }
    tell(&[("pushes", pushes.len() as u64), ("refused", refused)])?;
    let began = Instant::now();
    let mut enough = std::pin::pin!(enough());
    loop {
        tokio::select! {
            () = &mut enough => break,
            ended = pushes.join_next() => if ended.is_none() {
                tell(&[("ended after ms", began.elapsed().as_millis() as u64)])?;
                enough.await;
                break;
            }
        }
    }
    tell(&[("under way", pushes.len() as u64)])?;
    dialler.finish().await;
    Ok(())
}

/// Opens a push of a directory and waits for its stream of records.
async fn begin(connection: &quinn::Connection, number: usize) -> Result<Provider, Failure> {
    let name = format!("lie-{number:04}-{}", std::process::id());
    let OpenedPush { transfer, send, recv, is_invited } = open_push(connection, &name, None).await?;
    let mut provider = Provider::new(connection.clone(), transfer, send, recv);
    provider.is_invited = is_invited;
    Ok(provider)
}

/// The body of `ticket.redeem` (SPEC 5.12, 6.1), which carries no other call.
fn redeem_body(ticket: &Ticket) -> Result<BytesMut, Failure> {
    let mut body = BytesMut::new();
    body.put_slice(&data_encoding::BASE64URL_NOPAD.decode(ticket.secret().to_text().as_bytes())?);
    put_bytes(&mut body, b"");
    put_bytes(&mut body, b"");
    Ok(body)
}

/// Far longer than a server takes to open a push.
const BEGIN_LIMIT: Duration = Duration::from_secs(15);
