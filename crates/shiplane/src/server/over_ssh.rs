//! The server that an ssh session starts: it serves one path to the program at the other end of its standard input and
//! output, and ends with them.

use std::{
    env, fs, io,
    io::Write,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Component, Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use shiplane_access::internals::{AccessControl, Addresses, HostPort, Ticket};
use shiplane_protocols::internals::ReloadOn;
use shiplane_reach::internals::{Greeting, Rights, SshRequest};
use shiplane_transport::{
    Identity, QuicTransport,
    internals::{CHANNEL_ADDR, Channel, blocking},
};
use shiplane_wire::escape;

use super::{
    Server, ServerBuilder,
    open::{Opened, server_config},
};
use crate::error::{Cause, Error, ErrorKind, SshFailure};

/// Serves the path that is requested on standard input, until standard input ends. Nothing else may write to standard output.
///
/// It listens for UDP too, and its answer says where. Dropping the future ends everything at once.
///
/// # Errors
/// [`ErrorKind::Usage`] if that is no request, [`ErrorKind::LocalIo`] if the streams cannot be used. That the path cannot
/// be served is an answer, and no error.
pub async fn serve_over_ssh() -> Result<(), Error> {
    let (mut read, mut write) = streams().map_err(|error| Cause::from(SshFailure::Streams(error)))?;
    let reading = blocking::spawn(move || SshRequest::read(&mut read).map(|request| (request, read)));
    let (request, read) = reading
        .await
        .map_err(|_| Cause::Abandoned)?
        .map_err(|error| Cause::from(SshFailure::Request(error)))?;
    let (greeting, started) = match start(request).await {
        Ok((ticket, server, identity)) => (Greeting::Ticket(ticket.to_string()), Some((server, identity))),
        Err(error) => {
            let reason = escape(error.to_string().as_bytes()).to_string();
            (Greeting::Refused { class: class(error.kind()), reason }, None)
        }
    };
    let greet = move || write.write_all(&greeting.encode()).and_then(|()| write.flush()).map(|()| write);
    let written = blocking::spawn(greet).await.map_err(|_| Cause::Abandoned)?;
    let write = written.map_err(|error| Cause::from(SshFailure::Streams(error)))?;
    let Some((server, identity)) = started else { return Ok(()) };
    let channel = Channel::start(read, write).map_err(|error| Cause::from(SshFailure::Thread(error)))?;
    server.run_over(channel, identity).await
}

impl Server {
    /// Serves by UDP and through the channel, until the channel ends or falls silent.
    async fn run_over(&self, channel: Channel, identity: Identity) -> Result<(), Error> {
        let inner = &self.inner;
        let transport = QuicTransport::builder()
            .identity(identity)
            .trust(AccessControl::trust(&inner.access))
            .config(server_config(true))
            .channel(&channel)
            .bind(CHANNEL_ADDR)
            .map_err(Cause::from)?;
        let never = ReloadOn::Notice(Arc::default());
        let over_channel = Arc::clone(&inner.files).run_with(
            Arc::clone(&inner.router),
            Arc::new(transport),
            inner.stop.clone(),
            never,
        );
        tokio::select! {
            ended = self.run() => ended,
            () = over_channel => Ok(()),
            _ = channel.ended() => Ok(()),
            () = channel.silent_for(MAX_SILENCE) => Ok(()),
        }
    }
}

/// Opens what was asked for, and gives a ticket for exactly that.
async fn start(request: SshRequest) -> Result<(Ticket, Server, Identity), Error> {
    let opening = blocking::spawn(move || open(&request).map(|(served, opened)| (request, served, opened)));
    let (request, served, (opened, builder)) = opening.await.map_err(|_| Cause::Abandoned)??;
    let identity = opened.identity.clone();
    let server = builder.serve(opened, &ANY_PORT)?;
    let Rights { read, write } = request.rights;
    let ticket = server.ticket().below(served.scope()).valid_for(TICKET_TTL);
    let ticket = if read { ticket.read() } else { ticket };
    let ticket = if write { ticket.write() } else { ticket };
    let ticket = ticket.create()?;
    let at = addresses(ticket.at(), server.local_addr().port(), env::var("SSH_CONNECTION").ok().as_deref());
    let ticket = Ticket::new(ticket.server(), at, &served.path, ticket.secret().clone());
    Ok((ticket.map_err(crate::error::TargetError::from)?, server, identity))
}

/// A directory or a file that exists, and the path below it that is asked for.
#[derive(Debug, PartialEq, Eq)]
struct Served {
    root: PathBuf,
    path: Vec<u8>,
}

impl Served {
    /// What may be read and written: the first part of the path that does not exist may be made, too.
    fn scope(&self) -> &[u8] {
        self.path.split(|byte| *byte == b'/').next().unwrap_or_default()
    }
}

/// Blocking.
fn open(request: &SshRequest) -> Result<(Served, (Opened, ServerBuilder)), Error> {
    let path = locate(&request.path, env::home_dir().as_deref())?;
    let served = Served::of(&path, request.rights.write)?;
    let mut builder = Server::builder(&served.root).foreground(true);
    builder.is_for_ssh = true;
    if request.rights.write {
        // With a login as this user, a client can make any link and set any attribute anyway.
        builder = builder.writable().all_links(true).attributes(true);
    }
    let opened = builder.open()?;
    Ok((served, opened))
}

/// What scp means by a path: relative to the home directory, which `~` stands for too.
fn locate(path: &[u8], home: Option<&Path>) -> Result<PathBuf, Error> {
    let home = || home.ok_or_else(|| Cause::from(SshFailure::NoHome));
    let below_home = match path {
        b"" | b"~" => return Ok(home()?.to_owned()),
        [b'~', b'/', rest @ ..] => {
            let slashes = rest.iter().take_while(|byte| **byte == b'/').count();
            Some(&rest[slashes..])
        }
        [b'~', ..] => {
            let user = path.split(|byte| *byte == b'/').next().unwrap_or_default();
            return Err(Cause::from(SshFailure::OtherHome { user: escape(user).to_string() }).into());
        }
        _ => None,
    };
    let typed = path_of(below_home.unwrap_or(path))?;
    if below_home.is_none() && typed.is_absolute() { Ok(typed) } else { Ok(home()?.join(typed)) }
}

#[cfg(unix)]
fn path_of(bytes: &[u8]) -> Result<PathBuf, Error> {
    use std::os::unix::ffi::OsStrExt as _;
    Ok(std::ffi::OsStr::from_bytes(bytes).into())
}

#[cfg(not(unix))]
fn path_of(bytes: &[u8]) -> Result<PathBuf, Error> {
    let path = str::from_utf8(bytes).map(PathBuf::from);
    path.map_err(|_| Cause::from(SshFailure::Path { path: escape(bytes).to_string() }).into())
}

impl Served {
    /// What exists is served itself. What may be made is served below the nearest directory that exists.
    fn of(path: &Path, is_writable: bool) -> Result<Self, Error> {
        let is_there = fs::metadata(path).is_ok_and(|found| found.is_dir());
        if is_there || !is_writable {
            return Ok(Self { root: path.to_owned(), path: Vec::new() });
        }
        let refused = || {
            Cause::from(SshFailure::Path { path: escape(path.as_os_str().as_encoded_bytes()).to_string() })
        };
        let mut missing: Vec<&[u8]> = Vec::new();
        let mut components = path.components();
        loop {
            match components.next_back() {
                Some(Component::Normal(name)) => missing.push(name.as_encoded_bytes()),
                // `..` of a missing directory cannot be resolved.
                Some(
                    Component::ParentDir | Component::CurDir | Component::RootDir | Component::Prefix(_),
                )
                | None => {
                    return Err(refused().into());
                }
            }
            let root = components.as_path();
            let root = if root.as_os_str().is_empty() { Path::new(".") } else { root };
            if fs::metadata(root).is_ok_and(|found| found.is_dir()) {
                missing.reverse();
                return Ok(Self { root: root.to_owned(), path: missing.join(&b'/') });
            }
        }
    }
}

/// The address to which the ssh session was made, if it is known, before those that the server finds by itself.
fn addresses(found: &Addresses, port: u16, ssh_connection: Option<&str>) -> Addresses {
    let reached = ssh_connection.and_then(|words| words.split_whitespace().nth(2)?.parse::<IpAddr>().ok());
    // A link-local address has lost its interface.
    let reached = reached.filter(|ip| !matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local()));
    let Some(ip) = reached else { return found.clone() };
    let mut at = Addresses::from(HostPort { host: ip.to_canonical().into(), port });
    for other in found.iter() {
        // An error means that there are enough.
        let _ = at.push(other.clone());
    }
    at
}

/// The exit code of the program for this kind.
fn class(kind: ErrorKind) -> u8 {
    match kind {
        ErrorKind::Usage => 2,
        ErrorKind::Unreachable => 3,
        ErrorKind::Identity => 4,
        ErrorKind::Integrity => 5,
        ErrorKind::Refused => 6,
        ErrorKind::LocalIo => 7,
        ErrorKind::LeftOut | ErrorKind::Interrupted | ErrorKind::Other => 1,
    }
}

/// Standard input and output as files: those of the standard library look for ends of lines in what is written.
#[cfg(unix)]
fn streams() -> io::Result<(fs::File, fs::File)> {
    use std::os::fd::AsFd as _;
    let read = io::stdin().as_fd().try_clone_to_owned()?;
    let write = io::stdout().as_fd().try_clone_to_owned()?;
    Ok((read.into(), write.into()))
}

#[cfg(windows)]
fn streams() -> io::Result<(fs::File, fs::File)> {
    use std::os::windows::io::AsHandle as _;
    let read = io::stdin().as_handle().try_clone_to_owned()?;
    let write = io::stdout().as_handle().try_clone_to_owned()?;
    Ok((read.into(), write.into()))
}

/// Any port, of both families if there are both.
const ANY_PORT: [SocketAddr; 3] = [
    SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0),
    SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0),
];

/// 30 days: longer than any session.
const TICKET_TTL: Duration = Duration::from_secs(30 * 86_400);

/// 90 s: six signs of life of the other side. A session whose network is gone may stay open for hours.
const MAX_SILENCE: Duration = Duration::from_secs(90);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_mean_what_they_mean_to_scp() {
        let home = Path::new("/home/me");
        let located = |path: &[u8]| locate(path, Some(home));
        for (path, at) in [
            (&b""[..], "/home/me"),
            (b"~", "/home/me"),
            (b"~/", "/home/me"),
            (b"~/a b", "/home/me/a b"),
            (b"x/~", "/home/me/x/~"),
            (b"./~x", "/home/me/./~x"),
            (b"$HOME 'x'", "/home/me/$HOME 'x'"),
            (b"/srv", "/srv"),
            (b"~//srv", "/home/me/srv"),
        ] {
            assert_eq!(located(path).unwrap(), Path::new(at), "{path:?}");
        }
        assert!(matches!(
            located(b"~other/x").unwrap_err().cause(),
            Cause::Ssh(SshFailure::OtherHome { .. })
        ));
        assert!(matches!(locate(b"x", None).unwrap_err().cause(), Cause::Ssh(SshFailure::NoHome)));
        assert!(locate(b"/x", None).is_ok());
    }

    #[test]
    fn a_path_that_may_be_created_is_served_below_an_existing_directory() {
        let dir = tempfile::TempDir::new().unwrap();
        fs::create_dir(dir.path().join("there")).unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        let served = |path: &str, is_writable| Served::of(&dir.path().join(path), is_writable);
        let at =
            |root: &str, path: &str| Served { root: dir.path().join(root), path: path.as_bytes().to_vec() };
        assert_eq!(served("there", true).unwrap(), at("there", ""));
        assert_eq!(served("there/a/b", true).unwrap(), at("there", "a/b"));
        assert_eq!(served("file", true).unwrap(), at("", "file"));
        assert_eq!(served("none", false).unwrap(), at("none", ""));
        assert!(served("none/../x", true).is_err());
    }

    #[test]
    fn the_address_that_the_session_came_to_is_tried_first() {
        let found: Addresses = "10.0.0.5:7,[2001:db8::7]:7".parse().unwrap();
        let with = |connection| addresses(&found, 7, connection).to_string();
        assert_eq!(with(None), "10.0.0.5:7,2001:db8::7");
        assert_eq!(with(Some("192.0.2.1 50000 10.0.0.6 22")), "10.0.0.6:7,10.0.0.5,2001:db8::7");
        assert_eq!(with(Some("::1 1 ::ffff:10.0.0.5 22")), "10.0.0.5:7,2001:db8::7");
        for other in ["", "nonsense", "1 2 x 4", "fe80::1%eth0 1 fe80::2%eth0 22"] {
            assert_eq!(with(Some(other)), "10.0.0.5:7,2001:db8::7", "{other}");
        }
    }
}
