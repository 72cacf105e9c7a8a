//! Where `serve` and `send` listen.

use std::error::Error as _;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use shiplane::{DEFAULT_PORT, Error, Server};

/// The addresses to listen on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listen {
    /// The first that can be had.
    addresses: Vec<SocketAddr>,
    /// Whether another free port may be used if that one is taken: the user named none.
    may_change_port: bool,
}

impl Listen {
    /// `None`: the default addresses.
    pub(crate) fn from_arg(listen: Option<SocketAddr>) -> Self {
        match listen {
            Some(addr) => Self { addresses: vec![addr], may_change_port: false },
            None => Self { addresses: DEFAULT_LISTEN.into(), may_change_port: true },
        }
    }

    /// Binds a server to the port, or to any free one if the default one is taken.
    pub(crate) async fn bind<F>(&self, bind: impl Fn(Vec<SocketAddr>) -> F) -> Result<Server, Error>
    where
        F: Future<Output = Result<Server, Error>>,
    {
        match bind(self.addresses.clone()).await {
            Err(error) if self.may_change_port && is_port_taken(&error) => {
                bind(self.addresses.iter().map(|addr| SocketAddr::new(addr.ip(), 0)).collect()).await
            }
            bound => bound,
        }
    }
}

fn is_port_taken(error: &Error) -> bool {
    let source = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    source.is_some_and(|source| source.kind() == io::ErrorKind::AddrInUse)
}

/// All of IPv6, and with it of IPv4; on a machine without IPv6, all of IPv4.
pub(crate) const DEFAULT_LISTEN: [SocketAddr; 2] = [
    SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), DEFAULT_PORT),
    SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), DEFAULT_PORT),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_port_is_taken_only_if_none_was_asked_for() {
        let listen = Listen::from_arg(None);
        let addresses: Vec<String> = listen.addresses.iter().map(ToString::to_string).collect();
        assert_eq!(
            (addresses, listen.may_change_port),
            (vec!["[::]:7514".into(), "0.0.0.0:7514".into()], true)
        );
        let listen = Listen::from_arg(Some("[::1]:7514".parse().unwrap()));
        assert_eq!((listen.addresses.len(), listen.may_change_port), (1, false));
    }
}
