//! Network namespaces, by `ip` of iproute2 (root).

use std::fs::File;
use std::os::fd::AsFd as _;
use std::process::Command;

use anyhow::{Context as _, Result};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use xtask::process;

/// A namespace with a loopback device. Its name is removed on drop, and it is gone with the last process in it.
#[derive(Debug)]
pub(crate) struct Namespace {
    name: String,
}

impl Namespace {
    pub(crate) fn new(name: String) -> Result<Self> {
        ip(&["netns", "add", &name])?;
        // From here on the guard removes it.
        let namespace = Self { name };
        ip(&["-n", namespace.name(), "link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Moves this thread into it; all programs started from it afterwards are in it too.
    pub(crate) fn enter(&self) -> Result<()> {
        let path = format!("/run/netns/{}", self.name);
        let file = File::open(&path).with_context(|| format!("cannot open {path}"))?;
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
            .with_context(|| format!("cannot enter {path}"))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Err(failure) = ip(&["netns", "del", &self.name]) {
            eprintln!("warning: {failure:#}");
        }
    }
}

pub(crate) fn ip(args: &[&str]) -> Result<()> {
    run("ip", args)
}

pub(crate) fn run(program: &str, args: &[&str]) -> Result<()> {
    process::run(&format!("{program} {}", args.join(" ")), Command::new(program).args(args)).map(drop)
}
