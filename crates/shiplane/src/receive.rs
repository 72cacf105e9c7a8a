//! Receiving by a code: `client.receive(code)`.

use std::{net::SocketAddr, time::Duration};

use shiplane_access::internals::Addresses;
use shiplane_reach::internals::{Code, ProveError, Prover, SeekError, seek};
use shiplane_transport::{ConnectError, internals::blocking};
use tokio::time::{Instant, sleep};

use crate::{
    client::Client,
    connection::{ByCode, Connection},
    error::{Cause, CodeFailure, Error, ErrorKind},
    offer::OfferRequest,
    received::{ReceivedCodes, Sender},
    target::Target,
};

impl Client {
    /// Connects to the sender of a code, which is found on the local network by multicast DNS. It waits up to `patience`
    /// for it to be there. All else is as with [`receive_at`](Self::receive_at).
    ///
    /// Dropping the future may spend one of the code's three tries.
    ///
    /// # Errors
    /// As [`receive_at`](Self::receive_at).
    pub async fn receive(&self, code: &str, patience: Duration) -> Result<Connection, Error> {
        let code = parse(code)?;
        let codes = self.received_codes()?;
        let known = self.known_sender(&code, codes.as_ref()).await?;
        if let Some(sender) = known
            && let Ok(connection) = self.begin(code.clone(), sender, codes.clone()).await
        {
            return Ok(connection);
        }
        let mut prover = Prover::new(code.clone(), self.id());
        let known = known.map(|sender| sender.id);
        let transport = |addr| self.transport_for(addr).ok();
        let (id, addr) =
            seek(&mut prover, code.number(), known, patience, transport).await.map_err(of_seek)?;
        self.begin(code, Sender { id, addr }, codes).await
    }

    /// Connects to the sender of a code at `at`, a `HOST:PORT` or several with commas, and waits up to `patience` for it to be there. The two prove to each other that they know the code;
    /// neither learns it from the other. After a lost connection or a restart of this program the same code leads to the
    /// same sender, until everything has arrived.
    ///
    /// An empty path of the connection stands for all that is sent: `connection.get("")`. What it is, says
    /// [`Connection::offer`].
    ///
    /// Dropping the future may spend one of the code's three tries.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] for a text that is no code, [`ErrorKind::Identity`] for a wrong or used one,
    /// [`ErrorKind::Unreachable`] if no sender answers.
    pub async fn receive_at(&self, code: &str, at: &str, patience: Duration) -> Result<Connection, Error> {
        let code = parse(code)?;
        let at: Addresses = at.parse().map_err(crate::error::TargetError::from)?;
        let codes = self.received_codes()?;
        if let Some(connection) = self.resume(&code, codes.as_ref(), &at).await? {
            return Ok(connection);
        }
        let mut prover = Prover::new(code.clone(), self.id());
        let began = Instant::now();
        loop {
            let failed = match self.prove_at_any(&mut prover, &self.resolved(&at).await?).await {
                Ok(sender) => return self.begin(code, sender, codes).await,
                Err(error) => error,
            };
            // The receiver may be first.
            let is_hopeless = failed.kind() != ErrorKind::Unreachable || !prover.may_try();
            if is_hopeless || began.elapsed() >= patience {
                return Err(failed);
            }
            tracing::info!(error = %failed, "the sender is not there yet");
            sleep(PAUSE).await;
        }
    }

    /// Proves the code to the first of these addresses that takes it.
    async fn prove_at_any(&self, prover: &mut Prover, addrs: &[SocketAddr]) -> Result<Sender, Error> {
        let mut worst = None;
        for addr in addrs {
            match self.prove_at(prover, *addr).await {
                Ok(sender) => return Ok(sender),
                Err(error) if worst.is_none() || error.kind() == ErrorKind::Identity => worst = Some(error),
                Err(_) => {}
            }
        }
        Err(worst.unwrap_or_else(|| Cause::from(CodeFailure::NoSender).into()))
    }

    async fn prove_at(&self, prover: &mut Prover, addr: SocketAddr) -> Result<Sender, Error> {
        let transport = self.transport_for(addr)?;
        let connection = transport.connect_unproven(addr).await.map_err(of_code)?;
        let proven = prover.prove(&connection).await;
        let sender = Sender { id: connection.peer_id(), addr };
        // What follows goes over a connection with a pinned key.
        let end = connection.end();
        connection.close(shiplane_wire::Code::NoError);
        match (proven, end) {
            (Ok(()), _) => Ok(sender),
            (Err(ProveError::Call(_)), Some(end)) => Err(of_code(ConnectError::of_end(addr, end))),
            (Err(error), _) => Err(Cause::from(CodeFailure::Proof(error)).into()),
        }
    }

    /// Connects again to the sender whose code this was, if it is known and still there.
    async fn resume(
        &self,
        code: &Code,
        codes: Option<&ReceivedCodes>,
        at: &Addresses,
    ) -> Result<Option<Connection>, Error> {
        let Some(sender) = self.known_sender(code, codes).await? else { return Ok(None) };
        let others = self.resolved(at).await.unwrap_or_default();
        for addr in std::iter::once(sender.addr).chain(others.into_iter().filter(|addr| *addr != sender.addr))
        {
            match self.begin(code.clone(), Sender { addr, ..sender }, codes.cloned()).await {
                Ok(connection) => return Ok(Some(connection)),
                Err(error) => tracing::info!(%error, %addr, "the sender of this code is not there"),
            }
        }
        Ok(None)
    }

    /// Whose code it was, if it was proven before.
    async fn known_sender(
        &self,
        code: &Code,
        codes: Option<&ReceivedCodes>,
    ) -> Result<Option<Sender>, Error> {
        let Some(codes) = codes.cloned() else { return Ok(None) };
        let text = code.to_text();
        Ok(blocking::spawn(move || codes.find(&text)).await.map_err(|_| Cause::Abandoned)?)
    }

    /// Connects to a sender that knows this key, and asks what there is.
    async fn begin(
        &self,
        code: Code,
        sender: Sender,
        codes: Option<ReceivedCodes>,
    ) -> Result<Connection, Error> {
        if let Some(codes) = codes.clone() {
            let text = code.to_text();
            let noting = blocking::spawn(move || codes.remember(&text, &sender)).await;
            if let Ok(Err(error)) = noting {
                tracing::warn!(%error, "the code cannot be resumed: its sender cannot be written down");
            }
        }
        let peer = self.dial_addr(sender.id, sender.addr).await?;
        let target = Target::from((sender.id, sender.addr));
        let connection = Connection::found(self.clone(), target, peer, sender.addr);
        let offer = connection.call(OfferRequest).await?;
        Ok(connection.with_code(ByCode { offer, code: code.to_text().to_string(), codes }))
    }

    /// Where proven codes are remembered: nowhere, if this key ends with this program.
    fn received_codes(&self) -> Result<Option<ReceivedCodes>, Error> {
        let places = self.places();
        Ok(if places.has_fresh_key { None } else { Some(ReceivedCodes::at(&places.received_path()?)) })
    }
}

fn parse(code: &str) -> Result<Code, Error> {
    let (code, _) = Code::parse(code).map_err(|error| Cause::from(CodeFailure::Text(error)))?;
    Ok(code)
}

fn of_seek(error: SeekError) -> Error {
    Cause::from(match error {
        SeekError::Proof(error) => CodeFailure::Proof(error),
        error => CodeFailure::Seek(error),
    })
    .into()
}

/// What it means that a sender's machine refuses a receiver.
fn of_code(error: ConnectError) -> Error {
    match error {
        ConnectError::Refused { .. } => Cause::from(CodeFailure::Proof(ProveError::Closed)).into(),
        error => Cause::Connect(error).into(),
    }
}

const PAUSE: Duration = Duration::from_millis(500);
