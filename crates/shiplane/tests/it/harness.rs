//! A server with a directory, clients with their own homes, and file comparison.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use shiplane::{Client, Connection, Error, Event, Server, ServerBuilder, Ticket, TicketBuilder};
use tempfile::TempDir;
use tokio::task::JoinHandle;

/// A place on the disk that goes away with the test.
pub(crate) struct Machine(TempDir);

/// A server that runs until the test is over.
pub(crate) struct Running {
    pub(crate) server: Server,
    pub(crate) ended: JoinHandle<Result<(), Error>>,
}

impl Machine {
    pub(crate) fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// Writes a file, and creates the directories above it.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap()
    }

    pub(crate) fn dir(&self, name: &str) -> PathBuf {
        fs::create_dir_all(self.path(name)).unwrap();
        self.path(name)
    }

    /// A client whose home is here.
    pub(crate) async fn client(&self) -> Client {
        Client::builder().home(self.path("home")).build().await.unwrap()
    }

    /// Binds a server whose home is here, and runs it.
    pub(crate) async fn run<S: Clone + Send + Sync + 'static>(&self, builder: ServerBuilder<S>) -> Running {
        let server = builder.home(self.path("home")).bind("127.0.0.1:0").await.unwrap();
        let running = server.clone();
        Running { server, ended: tokio::spawn(async move { running.run().await }) }
    }

    /// A server of `root` here, for reading.
    pub(crate) async fn serve(&self) -> Running {
        self.run(Server::builder(self.dir("root"))).await
    }

    /// A server of `root` here, for reading and writing.
    pub(crate) async fn serve_writable(&self) -> Running {
        self.run(Server::builder(self.dir("root")).writable()).await
    }
}

impl Running {
    pub(crate) fn ticket(&self, rights: impl FnOnce(TicketBuilder) -> TicketBuilder) -> Ticket {
        rights(self.server.ticket()).create().unwrap()
    }

    /// For reading.
    pub(crate) async fn connect(&self, client: &Client) -> Connection {
        client.connect(self.ticket(TicketBuilder::read)).await.unwrap()
    }

    /// For reading and writing.
    pub(crate) async fn connect_writing(&self, client: &Client) -> Connection {
        client.connect(self.ticket(|ticket| ticket.read().write())).await.unwrap()
    }
}

/// Collects the events of a job.
#[derive(Clone, Default)]
pub(crate) struct Events(Arc<Mutex<Vec<Event>>>);

impl Events {
    pub(crate) fn callback(&self) -> impl FnMut(&Event) + Send + 'static {
        let events = Arc::clone(&self.0);
        move |event| events.lock().unwrap().push(event.clone())
    }

    pub(crate) fn all(&self) -> Vec<Event> {
        self.0.lock().unwrap().clone()
    }
}

/// Bytes without a pattern that would compress.
pub(crate) fn noise(len: u32) -> Vec<u8> {
    testlink::Rng::new(1).bytes(len as usize)
}

pub(crate) fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}
