//! A connection to a Redis of this node's own: every wait and every reply has a limit.
//!
//! A server that sends a byte now and then is as much away as one that sends none, so there is a time for whole replies
//! beside the one for a byte. After any failure but [`Connection::receive`]'s wait for a first byte the connection is of
//! no use any more.

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

/// How long opening a connection, or the next byte of a reply, may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);
/// How long one question and all its replies may take.
pub(super) const DEADLINE: Duration = Duration::from_secs(2);
/// What the replies to one question may cost of memory, in bytes. A list of 4,096 backends of 500 bytes has room.
pub(super) const MAX_REPLY: usize = 4 << 20;

/// Who to be at the server.
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

/// What a connection consists of, and when what is under way has to be over.
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
                // Before version 6 there is nothing but a password.
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

    /// Asks one thing. An error of the server is an error.
    pub(super) fn ask(&mut self, command: &Cmd) -> RedisResult<Value> {
        let replies = self.ask_all(&command.get_packed_command(), 1, MAX_REPLY)?;
        replies.into_iter().next().unwrap_or_default().extract_error()
    }

    /// Sends commands and reads so many replies, errors of the server among them, which together may cost so much.
    pub(super) fn ask_all(&mut self, packed: &[u8], count: usize, mut budget: usize) -> RedisResult<Vec<Value>> {
        self.send(packed)?;
        // No more is reserved than a handful: it is commands that were asked for, and they are many.
        let mut replies = Vec::with_capacity(count.min(1024));
        while replies.len() < count {
            replies.push(self.reply(&mut budget)?);
        }
        Ok(replies)
    }

    /// Sends commands; all their replies have to be here before [`DEADLINE`].
    pub(super) fn send(&mut self, packed: &[u8]) -> RedisResult<()> {
        let stream = self.stream.get_mut();
        stream.begin();
        let result = stream.write_all(packed).and_then(|()| stream.flush());
        result.map_err(|error| self.broken(error.into()))
    }

    /// The next reply to what was sent; what is told besides is skipped.
    pub(super) fn reply(&mut self, budget: &mut usize) -> RedisResult<Value> {
        loop {
            match resp::read(&mut self.stream, budget).map_err(|error| self.broken(error))? {
                Value::Push { .. } => {}
                value => return Ok(value),
            }
        }
    }

    /// Whatever comes next, within [`PATIENCE`]; `None` if nothing does.
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

    /// Reads no further.
    pub(super) fn give_up(&mut self) {
        self.is_open = false;
    }

    fn broken(&mut self, error: RedisError) -> RedisError {
        self.is_open = false;
        error
    }

    /// Whether the connection is still good for the next command.
    pub(super) fn is_open(&self) -> bool {
        self.is_open
    }

    /// Whether the last question took longer than [`DEADLINE`], though bytes came in again and again.
    pub(super) fn is_late(&self) -> bool {
        self.stream.get_ref().is_late()
    }
}

/// Opens a connection to the first address of a name that takes one.
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
    /// Something new is under way.
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
