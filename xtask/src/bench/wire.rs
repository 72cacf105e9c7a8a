//! What loopback carries. As root on Linux everything runs in a network of its own, with nothing but a
//! loopback device, so that the count is exact; elsewhere it is the machine's, with whatever else it
//! carries.

use anyhow::Result;

/// Counts the bytes on loopback.
#[derive(Debug)]
pub(super) struct Wire {
    network: Option<platform::Network>,
}

impl Wire {
    /// Enters a network of its own if it may. All programs started from this thread afterwards are in it
    /// too.
    pub(super) fn open() -> Self {
        match platform::Network::enter() {
            Ok(network) => Self { network: Some(network) },
            Err(reason) => {
                println!("no network of its own: {reason:#}");
                Self { network: None }
            }
        }
    }

    /// Bytes since some time before; each once, though it leaves and arrives. None where nobody counts.
    pub(super) fn carried_bytes(&self) -> Option<u64> {
        platform::carried_bytes()
    }

    /// What a reader of the figures must know.
    pub(super) fn described(&self) -> &'static str {
        match self.network {
            Some(_) => "in a network of its own, loopback alone",
            None => "on the machine's loopback, with whatever else it carried",
        }
    }
}

#[cfg(target_os = "linux")]
mod platform {
    //! `ip netns`, and `setns` of this thread.

    use std::fs::{self, File};
    use std::os::fd::AsFd as _;
    use std::process::{Command, Stdio};

    use anyhow::{Context as _, bail};
    use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

    use super::Result;

    /// A namespace; its name is removed on drop, and it is gone with the last process in it.
    #[derive(Debug)]
    pub(super) struct Network {
        name: String,
    }

    impl Network {
        pub(super) fn enter() -> Result<Self> {
            if !rustix::process::geteuid().is_root() {
                bail!("it takes root");
            }
            let name = format!("slbench{}", std::process::id());
            ip(&["netns", "add", &name])?;
            // From here on the guard removes it.
            let network = Self { name };
            let path = format!("/run/netns/{}", network.name);
            let file = File::open(&path).with_context(|| format!("cannot open {path}"))?;
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                .context("cannot enter the network")?;
            ip(&["link", "set", "lo", "up"])?;
            Ok(network)
        }
    }

    impl Drop for Network {
        fn drop(&mut self) {
            if let Err(failure) = ip(&["netns", "del", &self.name]) {
                eprintln!("warning: {failure:#}");
            }
        }
    }

    fn ip(args: &[&str]) -> Result<()> {
        let mut command = Command::new("ip");
        let status = command.args(args).stdin(Stdio::null()).status().context("cannot run ip (iproute2)")?;
        if !status.success() {
            bail!("`ip {}` failed", args.join(" "));
        }
        Ok(())
    }

    pub(super) fn carried_bytes() -> Option<u64> {
        // Of this thread: the process's own file is that of its first thread.
        received_on_loopback(&fs::read_to_string("/proc/thread-self/net/dev").ok()?)
    }

    /// The first number of the device's line.
    pub(super) fn received_on_loopback(table: &str) -> Option<u64> {
        let line = table.lines().find_map(|line| line.trim_start().strip_prefix("lo:"))?;
        line.split_whitespace().next()?.parse().ok()
    }
}

#[cfg(not(target_os = "linux"))]
mod platform {
    //! Nobody counts.

    use anyhow::bail;

    use super::Result;

    #[derive(Debug)]
    pub(super) struct Network;

    impl Network {
        pub(super) fn enter() -> Result<Self> {
            bail!("only Linux has them")
        }
    }

    pub(super) fn carried_bytes() -> Option<u64> {
        None
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn loopback_is_found_among_the_devices() {
        let table = "Inter-|   Receive  |  Transmit\n face |bytes packets|bytes packets\n\
                     eth0: 7 1 0 0\n    lo:  1234 5 0 0 0 0 0 0 1234 5\n";
        assert_eq!(platform::received_on_loopback(table), Some(1234));
        assert_eq!(platform::received_on_loopback("eth0: 7 1"), None);
    }

    #[test]
    fn what_is_sent_over_loopback_is_counted() {
        let wire = Wire { network: None };
        let before = wire.carried_bytes().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        client.write_all(&[7; 100_000]).unwrap();
        drop(client);
        let mut got = Vec::new();
        server.read_to_end(&mut got).unwrap();
        assert!(wire.carried_bytes().unwrap() >= before + 100_000);
    }
}
