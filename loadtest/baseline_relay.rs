//! The floor: what a proxy would cost that does nothing but copy.
//!
//! One thread, one epoll, one buffer of 64 KiB. Each client gets a connection to the backend of its own, opened with
//! its first bytes; whatever one side sends goes to the other unread. With a request and an answer that fit the
//! buffer these are four socket calls, and no proxy that relays through user space can do with fewer.

use clap::Parser;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Registry, Token};
use slab::Slab;
use socket2::{Domain, Socket, Type};
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr};

const BUFFER_BYTES: usize = 64 * 1024;
const MAX_CLIENTS: usize = 50_000;
const EVENTS_PER_TURN: usize = 1024;
const LISTENER: Token = Token(usize::MAX);
const BOTH: Interest = Interest::READABLE.add(Interest::WRITABLE);

/// The two sides of a pair; a token is `2 * pair + side`.
const CLIENT: usize = 0;
const BACKEND: usize = 1;

/// Copies bytes between clients and a backend, and parses nothing.
#[derive(Parser)]
struct Args {
    /// Where clients connect. Several floors may share one address (SO_REUSEPORT).
    #[arg(long)]
    listen: SocketAddr,
    /// Where their bytes go.
    #[arg(long)]
    backend: SocketAddr,
}

/// A client and its backend connection, which is there from the client's first bytes on.
struct Pair {
    sockets: [Option<TcpStream>; 2],
    /// What came from a side and the other would not take yet. Its source is not read while this holds anything.
    pending: [Vec<u8>; 2],
    /// Whether a side has sent its last byte.
    ended: [bool; 2],
}

fn main() -> io::Result<()> {
    let args = Args::parse();
    let mut poll = Poll::new()?;
    let mut listener = listen(args.listen)?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut pairs: Slab<Pair> = Slab::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut events = Events::with_capacity(EVENTS_PER_TURN);
    let mut finished = Vec::new();
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            outcome => outcome?,
        }
        for event in &events {
            if event.token() == LISTENER {
                accept_all(&listener, poll.registry(), &mut pairs)?;
                continue;
            }
            let (index, side) = (event.token().0 / 2, event.token().0 % 2);
            let Some(pair) = pairs.get_mut(index) else { continue };
            let mut relay = Relay { pair, index, args: &args, registry: poll.registry(), buffer: &mut buffer };
            if relay.handle(side, event).is_err() || relay.pair.ended == [true; 2] {
                finished.push(index);
            }
        }
        // Only now: an event of this turn must not meet the successor of the pair it was meant for.
        for index in finished.drain(..) {
            pairs.try_remove(index);
        }
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(4096)?;
    Ok(TcpListener::from_std(socket.into()))
}

fn accept_all(listener: &TcpListener, registry: &Registry, pairs: &mut Slab<Pair>) -> io::Result<()> {
    loop {
        let mut client = match listener.accept() {
            Ok((client, _)) => client,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
            Err(error) => return Err(error),
        };
        if pairs.len() < MAX_CLIENTS {
            client.set_nodelay(true)?;
            let slot = pairs.vacant_entry();
            registry.register(&mut client, Token(2 * slot.key() + CLIENT), BOTH)?;
            slot.insert(Pair { sockets: [Some(client), None], pending: [Vec::new(), Vec::new()], ended: [false; 2] });
        }
    }
}

/// A pair in the turn that serves it. An error of any call ends the pair.
struct Relay<'a> {
    pair: &'a mut Pair,
    index: usize,
    args: &'a Args,
    registry: &'a Registry,
    buffer: &'a mut [u8],
}

impl Relay<'_> {
    fn handle(&mut self, side: usize, event: &mio::event::Event) -> io::Result<()> {
        let other = 1 - side;
        if event.is_writable() && !self.pair.pending[other].is_empty() {
            self.flush(other)?;
            // What waited in the source's socket while it was not read gives no second event.
            self.copy_from(other, true)?;
        }
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            self.copy_from(side, event.is_read_closed() || event.is_error())?;
        }
        Ok(())
    }

    /// Reads from `side` and writes to the other until a short read says that nothing is left. A short read can hide
    /// the end of the stream, so `to_the_end` reads on until the socket says so itself.
    fn copy_from(&mut self, side: usize, to_the_end: bool) -> io::Result<()> {
        while self.pair.pending[side].is_empty() && !self.pair.ended[side] {
            let Some(source) = &mut self.pair.sockets[side] else { return Ok(()) };
            let length = match source.read(self.buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                outcome => outcome?,
            };
            if length == 0 {
                return self.end(side);
            }
            self.dial_if_needed()?;
            let sent = self.write_to(1 - side, length)?;
            self.pair.pending[side].extend_from_slice(&self.buffer[sent..length]);
            if length < self.buffer.len() && !to_the_end {
                return Ok(());
            }
        }
        Ok(())
    }

    fn write_to(&mut self, side: usize, length: usize) -> io::Result<usize> {
        let Some(sink) = &mut self.pair.sockets[side] else { return Ok(0) };
        would_block_as_zero(sink.write(&self.buffer[..length]))
    }

    /// Writes what came from `side` and had to wait.
    fn flush(&mut self, side: usize) -> io::Result<()> {
        let Some(sink) = &mut self.pair.sockets[1 - side] else { return Ok(()) };
        let sent = would_block_as_zero(sink.write(&self.pair.pending[side]))?;
        self.pair.pending[side].drain(..sent);
        if self.pair.pending[side].is_empty() {
            self.pair.pending[side] = Vec::new();
        }
        Ok(())
    }

    fn end(&mut self, side: usize) -> io::Result<()> {
        self.pair.ended[side] = true;
        match &self.pair.sockets[1 - side] {
            Some(other) => other.shutdown(Shutdown::Write),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    fn dial_if_needed(&mut self) -> io::Result<()> {
        if self.pair.sockets[BACKEND].is_none() {
            let mut backend = TcpStream::connect(self.args.backend)?;
            backend.set_nodelay(true)?;
            self.registry.register(&mut backend, Token(2 * self.index + BACKEND), BOTH)?;
            self.pair.sockets[BACKEND] = Some(backend);
        }
        Ok(())
    }
}

/// A connection that is still being made takes nothing either.
fn would_block_as_zero(outcome: io::Result<usize>) -> io::Result<usize> {
    match outcome {
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected) => Ok(0),
        outcome => outcome,
    }
}
