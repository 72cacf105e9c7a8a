//! Peers that speak the wire and lie. Each [`Lie`] is told by a provider: by a server to `shiplane get`
//! ([`LyingServer`]), and by a pusher to `shiplane serve --writable` ([`LyingPusher`]).
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! use lab::peers::hostile::{Lie, LyingServer};
//!
//! let server = LyingServer::start(Lie::HugeFile, 0)?;
//! println!("shiplane get '{}' copy", server.ticket());
//! # Ok(())
//! # }
//! ```
//!
//! The bodies of calls are put together here, from what SPEC.md says: what the programs take for granted of each other
//! must not be taken for granted by what tests them.

mod lie;
mod provider;
mod pusher;
mod server;

pub use self::lie::{ENTRIES, Lie};
pub use self::pusher::LyingPusher;
pub(crate) use self::pusher::push;
pub use self::server::LyingServer;

use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::{CancellationToken, DropGuard};

fn runtime() -> std::io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

/// Does the work on a thread of its own, until what is returned is dropped.
fn in_background(runtime: Runtime, work: impl Future<Output = ()> + Send + 'static) -> DropGuard {
    let token = CancellationToken::new();
    let ended = token.clone();
    std::thread::spawn(move || {
        runtime.block_on(async {
            // When it ends, its connections are still closed in order.
            tokio::spawn(work);
            ended.cancelled().await;
        });
    });
    token.drop_guard()
}

/// How the one file is called that is served to `get TICKET -`.
const HUGE: &str = "huge";
