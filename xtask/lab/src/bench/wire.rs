//! What loopback carries. As root everything runs in a network of its own, with nothing but a loopback device, so that
//! the count is exact; else it is the machine's, with whatever else it carries.

use std::fs;

use anyhow::{Result, bail};

use crate::netns::Namespace;

/// Counts the bytes on loopback.
#[derive(Debug)]
pub(super) struct Wire {
    network: Option<Namespace>,
}

impl Wire {
    /// Enters a network of its own if it may. All programs started from this thread afterwards are in it
    /// too.
    pub(super) fn open() -> Self {
        match enter() {
            Ok(network) => Self { network: Some(network) },
            Err(reason) => {
                println!("no network of its own: {reason:#}");
                Self { network: None }
            }
        }
    }

    /// Bytes since some time before; each once, though it leaves and arrives.
    pub(super) fn carried_bytes(&self) -> Option<u64> {
        // Of this thread: the process's own file is that of its first thread.
        received_on_loopback(&fs::read_to_string("/proc/thread-self/net/dev").ok()?)
    }

    /// What a reader of the figures must know.
    pub(super) fn described(&self) -> &'static str {
        match self.network {
            Some(_) => "in a network of its own, loopback alone",
            None => "on the machine's loopback, with whatever else it carried",
        }
    }
}

fn enter() -> Result<Namespace> {
    if !rustix::process::geteuid().is_root() {
        bail!("it takes root");
    }
    let network = Namespace::new(format!("slbench{}", std::process::id()))?;
    network.enter()?;
    Ok(network)
}

/// The first number of the device's line.
fn received_on_loopback(table: &str) -> Option<u64> {
    let line = table.lines().find_map(|line| line.trim_start().strip_prefix("lo:"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_found_among_the_devices() {
        let table = "Inter-|   Receive  |  Transmit\n face |bytes packets|bytes packets\n\
                     eth0: 7 1 0 0\n    lo:  1234 5 0 0 0 0 0 0 1234 5\n";
        assert_eq!(received_on_loopback(table), Some(1234));
        assert_eq!(received_on_loopback("eth0: 7 1"), None);
        assert!(Wire { network: None }.carried_bytes().is_some());
    }
}
