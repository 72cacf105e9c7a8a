//! Sends messages to an inbox: the application gets each of them once.

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;
use parking_lot::Mutex;
use shiplane_protocols::{Inbox, InboxOptions, RetryPolicy, SendOptions, internals::Jitter, send_again};
use shiplane_rpc::Router;
use shiplane_transport::ChunkSource;
use shiplane_wire::TransferId;
use testlink::Rng;

use super::{Job, Stopped};
use crate::sim::{
    oracle::Violation,
    tree,
    world::{Program, World},
};

/// Deliveries, one after another.
pub(crate) struct Deliver {
    messages: Vec<Bytes>,
    /// How many are known to have arrived.
    told: usize,
    inbox: Inbox,
    /// What the application has got: which, by its id, and what.
    taken: Arc<Mutex<Vec<(TransferId, Bytes)>>>,
}

impl Deliver {
    pub(crate) fn new(world: &World) -> Self {
        let mut rng = world.rng().fork();
        let count = rng.between(1, 12);
        let messages = (0..count).map(|_| message(&mut rng)).collect();
        let (inbox, mut deliveries) = Inbox::new(InboxOptions::default());
        let taken = Arc::new(Mutex::new(Vec::new()));
        let application = Arc::clone(&taken);
        tokio::spawn(async move {
            while let Some(delivered) = deliveries.next().await {
                application.lock().push((delivered.transfer, delivered.data));
            }
        });
        Self { messages, told: 0, inbox, taken }
    }
}

impl Job for Deliver {
    /// Of the inbox, which outlives the program, as one that is kept on a disk.
    fn methods(&self) -> Option<Arc<Router>> {
        Some(self.inbox.methods(Router::new()).into())
    }

    async fn attempt(&mut self, world: &World, client: &Program) -> Result<(), Stopped> {
        let peer = world.server.peer();
        let policy = RetryPolicy::default().max_attempts(3).jitter(Jitter::none());
        let options = SendOptions::default().compression(world.scenario.compression);
        while let Some(message) = self.messages.get(self.told) {
            let source = ChunkSource::Memory(message.clone());
            let sent = send_again(&client.transport, peer, id_of(self.told), &source, &policy, &options);
            sent.await.map_err(|failed| Stopped::by(&failed.error))?;
            self.told += 1;
        }
        Ok(())
    }

    fn check(&self, _world: &World) -> Result<(), Violation> {
        let mut seen = BTreeSet::new();
        for (id, data) in &*self.taken.lock() {
            let number = (0..self.messages.len()).find(|number| id_of(*number) == *id);
            let number = number.unwrap_or(self.messages.len());
            let is_first = seen.insert(number);
            match self.messages.get(number) {
                Some(message) if is_first && data == message => {}
                Some(_) if is_first => {
                    let path = format!("delivery {number}");
                    return Err(Violation::WrongContent { path, found_bytes: data.len() });
                }
                _ => return Err(Violation::NotOnce { number, times: 2 }),
            }
        }
        Ok(())
    }

    fn check_done(&mut self, _world: &World, _is_tidy: bool) -> Result<(), Violation> {
        let taken = self.taken.lock();
        let missing = (0..self.messages.len()).find(|n| taken.iter().all(|(id, _)| *id != id_of(*n)));
        missing.map_or(Ok(()), |number| Err(Violation::NotOnce { number, times: 0 }))
    }
}

fn id_of(number: usize) -> TransferId {
    TransferId::from_bytes((number as u128 + 1).to_le_bytes())
}

fn message(rng: &mut Rng) -> Bytes {
    let len_bytes = rng.spread(1, 300_000) as usize;
    tree::content(rng, len_bytes).into()
}
