//! A connection to a Redis of this node: every wait and every reply has a limit.
//!
//! A server that sends a byte now and then is as useless as a silent one, so there is a limit for whole replies besides
//! the one for a byte. After any failure, except in [`Connection::receive`]'s wait for a first byte, the connection is
//! unusable.

use super::resp;
use crate::base::clock::{Clock, Moment};
use crate::net::tls::system_client;
use redis::{Cmd, ConnectionAddr, ErrorKind, ProtocolVersion, RedisError, RedisResult, Value, cmd};
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// The limit of opening a connection, and of the wait for the next byte of a reply.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);
/// The limit of one query with all its replies.
pub(super) const DEADLINE: Duration = Duration::from_secs(2);
/// Memory limit of the replies to one query, in bytes. It has room for a list of 4,096 backends of 500 bytes.
pub(super) const MAX_REPLY: usize = 4 << 20;

/// The account at the server.
#[derive(Debug, Default)]
pub(super) struct Login<'l> {
    pub(super) user: Option<&'l str>,
    pub(super) password: Option<&'l str>,
    pub(super) database: u32,
}

/// An open connection.
pub(super) struct Connection {
    stream: BufReader<Stream>,
    is_open: bool,
}

/// The parts of a connection, and the deadline of the current query.
struct Stream {
    socket: Socket,
    clock: Clock,
    deadline: Moment,
}

enum Socket {
    Tcp(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
    Unix(UnixStream),
}

impl Connection {
    /// Opens a connection.
    pub(super) fn open(addr: &ConnectionAddr, login: &Login<'_>, protocol: ProtocolVersion) -> RedisResult<Self> {
        let socket = match addr {
            ConnectionAddr::Tcp(host, port) => Socket::Tcp(dial(host, *port)?),
            ConnectionAddr::TcpTls { host, port, .. } => Socket::Tls(Box::new(encrypt(host, dial(host, *port)?)?)),
            ConnectionAddr::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_write_timeout(Some(PATIENCE))?;
                Socket::Unix(stream)
            }
            _ => return Err((ErrorKind::InvalidClientConfig, "this kind of address is not known").into()),
        };
        let clock = Clock::new();
        let stream = Stream { socket, clock, deadline: clock.now() + DEADLINE };
        let mut connection = Self { stream: BufReader::with_capacity(16 * 1024, stream), is_open: true };
        connection.log_in(login, protocol)?;
        Ok(connection)
    }

    fn log_in(&mut self, login: &Login<'_>, protocol: ProtocolVersion) -> RedisResult<()> {
        if protocol.supports_resp3() {
            let mut hello = cmd("HELLO");
            hello.arg(3);
            if let Some(password) = login.password {
                hello.arg("AUTH").arg(login.user.unwrap_or("default")).arg(password);
            }
            self.ask(&hello)?;
        } else if let Some(password) = login.password {
            match self.ask(cmd("AUTH").arg(login.user).arg(password)) {
                // Before version 6 there is only a password.
                Err(error) if login.user.is_some() && error.to_string().contains("wrong number of arguments") => {
                    self.ask(cmd("AUTH").arg(password))?;
                }
                result => drop(result?),
            }
        }
        if login.database != 0 {
            self.ask(cmd("SELECT").arg(login.database))?;
        }
        Ok(())
    }

    /// Sends one command. An error of the server is an error.
    pub(super) fn ask(&mut self, command: &Cmd) -> RedisResult<Value> {
        let replies = self.ask_all(&command.get_packed_command(), 1, MAX_REPLY)?;
        replies.into_iter().next().unwrap_or_default().extract_error()
    }

    /// Sends commands and reads `count` replies, errors of the server among them. Together the replies may take
    /// `budget` bytes of memory.
    pub(super) fn ask_all(&mut self, packed: &[u8], count: usize, mut budget: usize) -> RedisResult<Vec<Value>> {
        self.send(packed)?;
        // Only a part is reserved, since there may be many commands.
        let mut replies = Vec::with_capacity(count.min(1024));
        while replies.len() < count {
            replies.push(self.reply(&mut budget)?);
        }
        Ok(replies)
    }

    /// Sends commands; all their replies have to arrive before [`DEADLINE`].
    pub(super) fn send(&mut self, packed: &[u8]) -> RedisResult<()> {
        let stream = self.stream.get_mut();
        stream.begin();
        let result = stream.write_all(packed).and_then(|()| stream.flush());
        result.map_err(|error| self.broken(error.into()))
    }

    /// The next reply; pushes in between are skipped.
    pub(super) fn reply(&mut self, budget: &mut usize) -> RedisResult<Value> {
        loop {
            match resp::read(&mut self.stream, budget).map_err(|error| self.broken(error))? {
                Value::Push { .. } => {}
                value => return Ok(value),
            }
        }
    }

    /// The next message of any kind; `None` if none arrives within the patience.
    pub(super) fn receive(&mut self) -> RedisResult<Option<Value>> {
        self.stream.get_mut().begin();
        let first = self.stream.fill_buf().map(<[u8]>::is_empty);
        match first {
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => Ok(None),
            Err(error) => Err(self.broken(error.into())),
            Ok(true) => Err(self.broken(io::Error::from(io::ErrorKind::UnexpectedEof).into())),
            Ok(false) => resp::read(&mut self.stream, &mut { MAX_REPLY }).map_err(|error| self.broken(error)).map(Some),
        }
    }

    /// The time left for the replies to the last commands.
    pub(super) fn time_left(&self) -> Duration {
        let stream = self.stream.get_ref();
        stream.deadline.since(stream.clock.now())
    }

    /// Sets the time left for the replies to the last commands; [`DEADLINE`] if `None`.
    pub(super) fn set_time_left(&mut self, left: Option<Duration>) {
        let stream = self.stream.get_mut();
        stream.deadline = stream.clock.now() + left.unwrap_or(DEADLINE);
    }

    /// Sets the limit of a wait for the next byte, in place of [`PATIENCE`].
    pub(super) fn set_patience(&self, patience: Duration) -> RedisResult<()> {
        match &self.stream.get_ref().socket {
            Socket::Tcp(stream) => stream.set_read_timeout(Some(patience))?,
            Socket::Tls(stream) => stream.get_ref().set_read_timeout(Some(patience))?,
            Socket::Unix(stream) => stream.set_read_timeout(Some(patience))?,
        }
        Ok(())
    }

    /// Closes the connection for reading.
    pub(super) fn give_up(&mut self) {
        self.is_open = false;
    }

    fn broken(&mut self, error: RedisError) -> RedisError {
        self.is_open = false;
        error
    }

    /// Whether the connection can be used for the next command.
    pub(super) fn is_open(&self) -> bool {
        self.is_open
    }

    /// Whether the last query exceeded [`DEADLINE`] although bytes kept arriving.
    pub(super) fn is_late(&self) -> bool {
        self.stream.get_ref().is_late()
    }
}

/// Opens a connection to the first address of a name that accepts it.
fn dial(host: &str, port: u16) -> RedisResult<TcpStream> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    let clock = Clock::new();
    let deadline = clock.now() + DEADLINE;
    for address in (host, port).to_socket_addrs()?.take_while(|_| clock.now() < deadline) {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_write_timeout(Some(PATIENCE))?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last.into())
}

fn encrypt(host: &str, stream: TcpStream) -> RedisResult<StreamOwned<ClientConnection, TcpStream>> {
    let fault = |what: String| RedisError::from((ErrorKind::InvalidClientConfig, "no encrypted connection", what));
    let name = ServerName::try_from(host.to_owned()).map_err(|error| fault(error.to_string()))?;
    let config = system_client().map_err(fault)?;
    let session = ClientConnection::new(config, name).map_err(|error| fault(error.to_string()))?;
    Ok(StreamOwned::new(session, stream))
}

impl Stream {
    /// Starts a new deadline.
    fn begin(&mut self) {
        self.deadline = self.clock.now() + DEADLINE;
    }

    fn is_late(&self) -> bool {
        self.deadline <= self.clock.now()
    }

    fn check(&self) -> io::Result<()> {
        if !self.is_late() {
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::TimedOut, format!("the reply was not complete after {DEADLINE:?}")))
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.check()?;
        match &mut self.socket {
            Socket::Tcp(stream) => stream.read(buffer),
            Socket::Tls(stream) => stream.read(buffer),
            Socket::Unix(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.check()?;
        match &mut self.socket {
            Socket::Tcp(stream) => stream.write(bytes),
            Socket::Tls(stream) => stream.write(bytes),
            Socket::Unix(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.socket {
            Socket::Tcp(stream) => stream.flush(),
            Socket::Tls(stream) => stream.flush(),
            Socket::Unix(stream) => stream.flush(),
        }
    }
}
