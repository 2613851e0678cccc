//! Listening sockets. The supervisor binds each one once and keeps it: connections in a socket's queue outlive the
//! worker that accepts from it.

use super::liveness::Liveness;
use super::sys;
use mio::net::TcpStream;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::net::SocketFlags;
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// Length of a socket's accept queue. The kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// Seconds for which the kernel holds back a connection without bytes.
const SILENCE_SECONDS: i32 = 1;

/// Stands for the address of a UNIX socket.
pub const NO_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// One socket bound to one address. Several sockets may be bound to the same address (`SO_REUSEPORT`): the kernel
/// spreads new connections over them.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
}

impl Listener {
    /// Binds a socket. It gets connections after [`Listener::listen`].
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        if address.is_ipv6() {
            // So `::` and `0.0.0.0` may both be listened on, and an IPv4 peer never appears as IPv6.
            socket.set_only_v6(true)?;
        }
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
        socket.set_nonblocking(true)?;
        // Accepted sockets inherit the option, which saves a system call for each.
        socket.set_tcp_nodelay(true)?;
        socket.bind(&address.into())?;
        Ok(Self { socket: socket.into() })
    }

    /// Listens, unless it already does. From now on the kernel assigns connections to this socket, so a worker has to
    /// accept them.
    pub fn listen(&self) -> io::Result<()> {
        let socket = SockRef::from(&self.socket);
        if socket.is_listener()? { Ok(()) } else { socket.listen(BACKLOG) }
    }

    /// Stops listening for all handles of the socket: its address is free, and connections in its queue are reset.
    pub fn stop_listening(&self) {
        // It fails if the socket does not listen.
        let _ = SockRef::from(&self.socket).shutdown(std::net::Shutdown::Both);
    }

    /// Whether a new connection is accepted only with its first bytes, or at once. A client sends first, so with
    /// `awaits` a worker wakes once for both, and the poll need not watch a connection that closes after its first
    /// response. A connection without bytes is accepted after a second; until then it waits in the kernel's queue of
    /// incomplete handshakes. Beyond the limit of that queue (SYN cookies) no connection is held back.
    pub fn await_first_bytes(&self, awaits: bool) {
        let seconds = if awaits { SILENCE_SECONDS } else { 0 };
        if let Err(error) = sys::defer_accept(&self.socket, seconds) {
            log::info!("setting deferAccept of a listening socket: {error}; the system's setting stays");
        }
    }

    /// Sets the limits after which accepted connections end because their peer does not respond.
    pub fn set_liveness(&self, liveness: &Liveness) {
        if let Err(error) = liveness.set(&self.socket) {
            log::warn!("setting the liveness limits of a listening socket: {error}; the system's settings stay");
        }
    }

    /// Binds and listens.
    #[cfg(test)]
    pub fn open(address: SocketAddr) -> io::Result<Self> {
        let listener = Self::bind(address)?;
        listener.listen().map(|()| listener)
    }

    /// Binds a UNIX socket to a path with these permissions. A stale socket file is removed; one that a process listens
    /// on is an error.
    pub fn bind_path(path: &Path, mode: u32) -> io::Result<Self> {
        if fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket()) {
            match UnixStream::connect(path) {
                Ok(_) => return Err(io::ErrorKind::AddrInUse.into()),
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path)?,
                Err(error) => return Err(error),
            }
        }
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.bind(&SockAddr::unix(path)?)?;
        // No connection is possible before it listens.
        fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
        Ok(Self { socket: socket.into() })
    }

    /// The path, for a UNIX socket.
    pub fn path(&self) -> Option<PathBuf> {
        Some(SockRef::from(&self.socket).local_addr().ok()?.as_pathname()?.to_owned())
    }

    /// Takes over a listening socket made by another process.
    pub fn adopt(socket: TcpListener) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let listener = Self { socket };
        if listener.path().is_none() {
            SockRef::from(&listener.socket).set_tcp_nodelay(true)?;
        }
        Ok(listener)
    }

    /// Another handle of the same socket and queue.
    pub fn try_clone(&self) -> io::Result<Self> {
        self.socket.try_clone().map(|socket| Self { socket })
    }

    /// Checks that no other process listens on the address: sharing the address unnoticed would take half of its
    /// clients.
    pub fn probe(address: SocketAddr) -> io::Result<()> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        // Without this the address would stay in use while connections of an earlier run are in TIME-WAIT.
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())
    }

    /// The bound address, with the port that the system chose if none was given; [`NO_ADDRESS`] for a UNIX socket.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        if self.path().is_some() { Ok(NO_ADDRESS) } else { self.socket.local_addr() }
    }

    /// Another handle of the same socket and queue, for a worker to poll.
    pub fn for_worker(&self) -> io::Result<mio::net::TcpListener> {
        Ok(mio::net::TcpListener::from_std(self.socket.try_clone()?))
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The next connection of a UNIX socket, and the user of the connected process.
pub fn accept_local(socket: &impl AsFd) -> io::Result<(TcpStream, u32)> {
    let stream = rustix::net::accept_with(socket, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC)?;
    let user = rustix::net::sockopt::socket_peercred(&stream)?.uid.as_raw();
    // Reading, writing and closing are the same system calls for both kinds.
    Ok((TcpStream::from_std(stream.into()), user))
}

/// Whether a connection waits to be accepted; `true` if the system does not say.
pub fn has_pending(socket: &impl AsFd) -> bool {
    let mut watched = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
    poll(&mut watched, PollTimeout::ZERO) != Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::Clock;
    use std::io::{ErrorKind, Write};
    use std::net::TcpStream;

    #[test]
    fn a_socket_of_the_file_system_is_not_shared_and_a_stale_one_is_replaced() {
        let path = std::env::temp_dir().join(format!("sluice-listener-{}.sock", std::process::id()));
        let first = Listener::bind_path(&path, 0o600).expect("a socket");
        assert!(UnixStream::connect(&path).is_err(), "it does not listen yet");
        first.listen().expect("a queue");
        assert_eq!(fs::metadata(&path).expect("the socket").permissions().mode() & 0o777, 0o600);
        assert_eq!((first.path(), first.local_address().expect("none")), (Some(path.clone()), NO_ADDRESS));
        let error = Listener::bind_path(&path, 0o600).expect_err("it is in use");
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
        let handle = first.for_worker().expect("a handle");
        // This is the connection that checked whether the path is in use.
        accept_local(&handle).expect("a client");
        let _client = UnixStream::connect(&path).expect("a connection");
        let (_, user) = accept_local(&handle).expect("a client");
        assert_eq!(user, nix::unistd::Uid::effective().as_raw());
        drop((first, handle));
        let second = Listener::bind_path(&path, 0o600).expect("the stale socket makes room");
        drop(second);
        fs::remove_file(&path).expect("the socket");
        fs::write(&path, "no socket").expect("a file");
        assert!(Listener::bind_path(&path, 0o600).is_err() && path.exists(), "a file of another kind stays");
        fs::remove_file(&path).expect("the file");
    }
    use std::time::Duration;

    #[test]
    fn one_address_may_be_bound_twice_and_a_handle_shares_the_queue() {
        let first = Listener::open(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
        let address = first.local_address().expect("an address");
        let second = Listener::open(address).expect("the same port");
        let handles = [&first, &second].map(|listener| listener.for_worker().expect("a handle"));
        assert!(!handles.iter().any(has_pending));
        let mut client = TcpStream::connect(address).expect("a connection");
        client.write_all(b"x").expect("a first byte");
        assert!(handles.iter().any(has_pending));
        let accepted = handles.map(|handle| match handle.accept() {
            Ok((stream, _)) => stream.nodelay().expect("an option"),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                false
            }
        });
        assert_eq!(accepted.iter().filter(|nodelay| **nodelay).count(), 1);
    }

    #[test]
    fn an_address_is_free_once_its_sockets_have_stopped() {
        let first = Listener::open(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
        let address = first.local_address().expect("an address");
        let handle = first.for_worker().expect("a handle");
        assert_eq!(Listener::probe(address).map_err(|error| error.kind()), Err(ErrorKind::AddrInUse));
        first.stop_listening();
        drop(first);
        assert!(TcpStream::connect(address).is_err());
        Listener::probe(address).expect("a free address, though a handle is left");
        let again = Listener::open(address).expect("the same port");
        TcpStream::connect(address).expect("a connection").write_all(b"x").expect("a first byte");
        assert!(has_pending(&again));
        assert!(handle.accept().is_err());
    }

    #[test]
    fn clients_that_send_or_leave_are_accepted_at_once_and_silent_ones_soon() {
        let bound = Listener::open(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
        let address = bound.local_address().expect("an address");
        let inherited = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let its_address = inherited.local_addr().expect("an address");
        let adopted = Listener::adopt(inherited).expect("a socket that listens");
        let clock = Clock::new();
        for (listener, address) in [(bound, address), (adopted, its_address)] {
            listener.await_first_bytes(true);
            let began = clock.now();
            let silent = TcpStream::connect(address).expect("a connection");
            let mut speaks = TcpStream::connect(address).expect("a connection");
            speaks.write_all(b"x").expect("a first byte");
            let leaves = TcpStream::connect(address).expect("a connection");
            let expected = [&speaks, &leaves, &silent].map(|client| client.local_addr().expect("an address"));
            drop(leaves);
            for (number, expected) in expected.into_iter().enumerate() {
                let mut watched = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
                assert_eq!(poll(&mut watched, 10_000_u16), Ok(1), "client {number} is handed out");
                let (_, found) = listener.socket.accept().expect("a client");
                assert_eq!(found, expected, "client {number}");
            }
            let waited = clock.now().since(began);
            assert!(waited > Duration::from_millis(500), "the silent one was handed out after {waited:?}");
            listener.await_first_bytes(false);
            let began = clock.now();
            let _silent = TcpStream::connect(address).expect("a connection");
            let mut watched = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
            assert_eq!(poll(&mut watched, 10_000_u16), Ok(1), "a silent connection is handed over");
            let waited = clock.now().since(began);
            assert!(waited < Duration::from_millis(500), "it was handed out after {waited:?}");
        }
    }

    #[test]
    fn who_does_not_listen_yet_gets_no_connection() {
        let first = Listener::open(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
        let address = first.local_address().expect("an address");
        let others: Vec<_> = (0..4).map(|_| Listener::bind(address).expect("the same port")).collect();
        let accepted = |listener: &Listener| std::iter::from_fn(|| listener.socket.accept().ok()).count();
        for _ in 0..40 {
            TcpStream::connect(address).expect("a connection");
        }
        assert_eq!(accepted(&first), 40);
        others.iter().for_each(|other| other.listen().expect("a queue"));
        for _ in 0..40 {
            TcpStream::connect(address).expect("a connection");
        }
        let of_others: usize = others.iter().map(accepted).sum();
        assert!(of_others > 0 && of_others + accepted(&first) == 40, "{of_others} of 40");
    }
}
