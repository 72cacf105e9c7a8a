//! The settings of `serve`, `get` and `push` with `--insecure-octopii`: one file and one address.

use std::ffi::{OsStr, OsString};
use std::net::SocketAddr;
use std::path::PathBuf;

use shiplane::Target;

use super::DEFAULT_LISTEN;
use super::error::{OctopiiError, SettingsError};
use crate::args::{GetArgs, PushArgs, ServeArgs};

/// `serve --insecure-octopii FILE`
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OctopiiServe {
    pub(crate) file: PathBuf,
    pub(crate) listen: SocketAddr,
}

/// `get --insecure-octopii ADDR`
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OctopiiGet {
    /// HOST:PORT.
    pub(crate) node: String,
    pub(crate) file: PathBuf,
    pub(crate) buffer_len_bytes: usize,
    pub(crate) is_quiet: bool,
}

/// `push --insecure-octopii FILE ADDR`
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OctopiiPush {
    pub(crate) file: PathBuf,
    /// HOST:PORT.
    pub(crate) node: String,
    pub(crate) buffer_len_bytes: usize,
    pub(crate) is_quiet: bool,
}

impl OctopiiServe {
    /// Interprets the arguments.
    pub(crate) fn from_args(args: ServeArgs) -> Result<Self, SettingsError> {
        Ok(Self {
            file: file(args.root.unwrap_or_default().into())?,
            listen: args.listen.unwrap_or(DEFAULT_LISTEN[1]),
        })
    }
}

impl OctopiiGet {
    /// Interprets the arguments.
    pub(crate) fn from_args(args: GetArgs) -> Result<Self, SettingsError> {
        let address = match args.paths.as_slice() {
            [] => None,
            [address] => Some(address.as_os_str()),
            _ => return Err(OctopiiError::NotOneFile.into()),
        };
        Ok(Self {
            node: node(address)?,
            file: file(args.output.map_or_else(|| DEFAULT_FILE.into(), Into::into))?,
            buffer_len_bytes: args.job.moving.buffer,
            is_quiet: args.print.quiet,
        })
    }
}

impl OctopiiPush {
    /// Interprets the arguments.
    pub(crate) fn from_args(args: PushArgs) -> Result<Self, SettingsError> {
        let (path, address) = match args.paths.as_slice() {
            [path, address] => (path, address),
            [_] => return Err(OctopiiError::NoAddress.into()),
            _ => return Err(OctopiiError::NotOneFile.into()),
        };
        Ok(Self {
            file: file(path.clone())?,
            node: node(Some(address))?,
            buffer_len_bytes: args.job.moving.buffer,
            is_quiet: args.print.quiet,
        })
    }
}

fn file(typed: OsString) -> Result<PathBuf, OctopiiError> {
    let path = PathBuf::from(typed);
    if path == OsStr::new("-") || path.is_dir() { Err(OctopiiError::NotOneFile) } else { Ok(path) }
}

fn node(typed: Option<&OsStr>) -> Result<String, OctopiiError> {
    let typed = typed.ok_or(OctopiiError::NoAddress)?;
    // Elsewhere HOST:PORT would go over ssh.
    let is_bare = !typed.as_encoded_bytes().iter().any(|byte| matches!(byte, b'@' | b'/'));
    if Target::is_meant(typed) && !is_bare {
        return Err(OctopiiError::Authenticated);
    }
    let text = typed.to_str().ok_or(OctopiiError::Address)?;
    let (host, port) = text.rsplit_once(':').ok_or(OctopiiError::Address)?;
    let is_bracketed = host.starts_with('[') && host.ends_with(']');
    let is_host = !host.is_empty() && (is_bracketed || !host.contains(':'));
    let is_port = port.parse::<u16>().is_ok_and(|port| port != 0);
    if is_host && is_port { Ok(text.to_owned()) } else { Err(OctopiiError::Address) }
}

/// The dialect's chunks have no names.
const DEFAULT_FILE: &str = "octopii-chunk";

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Command};

    fn typed(args: &[&str]) -> Command {
        Cli::try_parse_from([&["shiplane"], args].concat()).unwrap().command
    }

    fn get(args: &[&str]) -> Result<OctopiiGet, SettingsError> {
        let Command::Get(args) = typed(&[&["get", "--insecure-octopii"], args].concat()) else { panic!() };
        OctopiiGet::from_args(args)
    }

    fn push(args: &[&str]) -> Result<OctopiiPush, SettingsError> {
        let Command::Push(args) = typed(&[&["push", "--insecure-octopii"], args].concat()) else { panic!() };
        OctopiiPush::from_args(args)
    }

    #[test]
    fn one_file_and_one_address_are_settled() {
        let settings = get(&["node.example:5001", "-o", "x"]).unwrap();
        assert_eq!((settings.node.as_str(), settings.file), ("node.example:5001", "x".into()));
        assert_eq!(get(&["127.0.0.1:1"]).unwrap().file, PathBuf::from(DEFAULT_FILE));
        let settings = push(&["x", "[::1]:5001"]).unwrap();
        assert_eq!((settings.file, settings.node.as_str()), ("x".into(), "[::1]:5001"));
    }

    #[test]
    fn whatever_else_means_nothing_is_said_so() {
        use OctopiiError::{Address, Authenticated, NoAddress, NotOneFile};
        let refused = |outcome: Result<String, SettingsError>| match outcome {
            Err(SettingsError::Octopii(error)) => error,
            other => panic!("{other:?}"),
        };
        let got = |args: &[&str]| refused(get(args).map(|got| format!("{got:?}")));
        let pushed = |args: &[&str]| refused(push(args).map(|pushed| format!("{pushed:?}")));
        assert!(matches!(got(&[]), NoAddress));
        assert!(matches!(got(&["alice@h:1/d"]), Authenticated));
        assert!(matches!(got(&["shiplane://sl1x@h:1/#s"]), Authenticated));
        for address in ["host", ":1", "host:", "host:0", "host:port", "::1:5001"] {
            assert!(matches!(got(&[address]), Address), "{address}");
        }
        assert!(matches!(got(&["h:1", "-o", "-"]), NotOneFile));
        assert!(matches!(got(&["h:1", "-o", "."]), NotOneFile));
        assert!(matches!(got(&["h:1", "dest"]), NotOneFile));
        assert!(matches!(pushed(&["x"]), NoAddress));
        assert!(matches!(pushed(&["-", "h:1"]), NotOneFile));
        assert!(matches!(pushed(&[".", "h:1"]), NotOneFile));
        assert!(matches!(pushed(&["x", "y", "h:1"]), NotOneFile));
        assert!(matches!(pushed(&["x", "alice@h:1"]), Authenticated));
    }

    #[test]
    fn options_for_tickets_are_refused_by_the_parser() {
        for args in [
            &["serve", "--insecure-octopii", "f", "--writable"][..],
            &["serve", "--insecure-octopii", "f", "--ticket-file", "t"],
            &["serve", "--insecure-octopii", "f", "--json"],
            &["get", "--insecure-octopii", "h:1", "--ticket-file", "t"],
            &["get", "--insecure-octopii", "h:1", "--overwrite"],
            &["get", "alice@h:1", "-o", "f"],
            &["push", "--insecure-octopii", "f", "h:1", "--ticket-file", "t"],
        ] {
            assert!(Cli::try_parse_from([&["shiplane"], args].concat()).is_err(), "{args:?}");
        }
    }
}
