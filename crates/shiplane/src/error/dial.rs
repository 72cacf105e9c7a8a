//! Why a server was not reached at any of its addresses.

use std::fmt;

use shiplane_transport::ConnectError;

/// Why a server was not reached at any of its addresses.
#[derive(Debug)]
pub(crate) struct DialError {
    /// The failure that says most.
    pub(crate) worst: ConnectError,
    addresses: usize,
    /// Whether a dial may succeed later.
    pub(crate) may_pass: bool,
}

impl DialError {
    /// That many addresses were dialled.
    pub(crate) fn among(self, addresses: usize) -> Self {
        Self { addresses, ..self }
    }

    /// Of both.
    pub(crate) fn more_telling(before: Option<Self>, now: ConnectError) -> Self {
        let may_pass = matches!(now, ConnectError::CannotDial { .. }) || now.is_retryable();
        match before {
            Some(before) if rank(&before.worst) >= rank(&now) => {
                Self { may_pass: before.may_pass || may_pass, ..before }
            }
            before => Self {
                worst: now,
                addresses: 1,
                may_pass: may_pass || before.is_some_and(|before| before.may_pass),
            },
        }
    }
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.worst.fmt(f)?;
        match self.addresses {
            0 | 1 => Ok(()),
            addresses => write!(f, " (and no other of {addresses} addresses can be reached)"),
        }
    }
}

impl std::error::Error for DialError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.worst.source()
    }
}

/// Of failures to reach one peer, the one to report: an answer says more than silence, and silence more than an address
/// that cannot even be tried.
fn rank(error: &ConnectError) -> u8 {
    match error {
        ConnectError::CannotDial { .. } => 0,
        ConnectError::TimedOut { .. } => 1,
        ConnectError::Failed { .. } | ConnectError::Busy { .. } | ConnectError::WrongProtocol { .. } => 2,
        ConnectError::WrongKey { .. } | ConnectError::Untrusted { .. } => 3,
        ConnectError::Refused { .. } | ConnectError::Tls(_) | ConnectError::Abandoned => 4,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_answer_is_reported_before_silence() {
        let addr = "192.0.2.1:1".parse().unwrap();
        let refused = || ConnectError::Refused { addr };
        let silence = || ConnectError::TimedOut { addr, timeout: Duration::from_secs(5) };
        let of = |first, second| DialError::more_telling(Some(DialError::more_telling(None, first)), second);
        for both in [of(silence(), refused()), of(refused(), silence())] {
            assert!(matches!(both.worst, ConnectError::Refused { .. }));
        }
        assert!(matches!(of(silence(), silence()).worst, ConnectError::TimedOut { .. }));
    }
}
