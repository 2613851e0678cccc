//! Streams of events: a backend that sends numbered ones at intervals, and clients that look for each of them once.

use super::pauses::Pauses;
use super::socket::Buffered;
use clap::Args;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use serde_json::json;
use slab::Slab;
use sluice::base::clock::Clock;
use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

const LISTENER: Token = Token(usize::MAX);
const SCRATCH_BYTES: usize = 64 * 1024;
const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";

#[derive(Args)]
pub(crate) struct SourceSettings {
    /// Where to listen.
    #[arg(long)]
    listen: SocketAddr,
    /// Milliseconds between two events of a stream.
    #[arg(long, default_value_t = 50)]
    every: u64,
}

#[derive(Args)]
pub(crate) struct Settings {
    /// The proxy.
    #[arg(long)]
    target: SocketAddr,
    /// The `Host` of the requests.
    #[arg(long, default_value = "events.test")]
    host: String,
    /// How many streams to follow.
    #[arg(long, default_value_t = 200)]
    connections: usize,
    /// For how long.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Milliseconds between two events of a stream, as the backend has it.
    #[arg(long, default_value_t = 50)]
    every: u64,
    /// Milliseconds of which each counts by its longest pause.
    #[arg(long, default_value_t = 1000)]
    window: u64,
}

/// A stream of the backend: the number of its last event, once its request has come.
struct Source {
    connection: Buffered,
    sent: Option<u64>,
}

/// Serves for ever.
pub(crate) fn serve(settings: &SourceSettings) -> io::Result<()> {
    let (clock, every) = (Clock::new(), Duration::from_millis(settings.every));
    let mut poll = Poll::new()?;
    let mut listener = TcpListener::bind(settings.listen)?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut sources: Slab<Source> = Slab::new();
    let mut events = Events::with_capacity(1024);
    let mut scratch = vec![0; SCRATCH_BYTES];
    let mut next = clock.now() + every;
    loop {
        match poll.poll(&mut events, Some(next.since(clock.now()))) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        for event in &events {
            if event.token() == LISTENER {
                while let Ok((mut socket, _)) = listener.accept() {
                    socket.set_nodelay(true)?;
                    let slot = sources.vacant_entry();
                    let interest = Interest::READABLE | Interest::WRITABLE;
                    poll.registry().register(&mut socket, Token(slot.key()), interest)?;
                    slot.insert(Source { connection: Buffered::new(socket), sent: None });
                }
            } else if sources.get_mut(event.token().0).is_some_and(|source| source.advance(&mut scratch).is_err()) {
                sources.remove(event.token().0);
            }
        }
        if clock.now() >= next {
            sources.retain(|_, source| source.tick().is_ok());
            next = next + every;
        }
    }
}

impl Source {
    fn advance(&mut self, scratch: &mut [u8]) -> io::Result<()> {
        self.connection.flush()?;
        self.connection.fill(scratch)?;
        if self.sent.is_none() && self.connection.take_head()?.is_some() {
            self.sent = Some(0);
            self.connection.send(HEAD)?;
        }
        Ok(())
    }

    fn tick(&mut self) -> io::Result<()> {
        let Some(sent) = &mut self.sent else { return Ok(()) };
        *sent += 1;
        let event = format!("data: {sent}\n\n");
        self.connection.send(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes())
    }
}

/// A stream that is followed.
struct Follower {
    connection: Buffered,
    has_head: bool,
    /// The number of the last event.
    last: u64,
    fault: Option<String>,
}

/// Follows every stream, and says what was lost, what came twice, and how long each paused.
pub(crate) fn follow(settings: &Settings) -> io::Result<serde_json::Value> {
    let (clock, mut poll) = (Clock::new(), Poll::new()?);
    let mut followers = Vec::with_capacity(settings.connections);
    for number in 0..settings.connections {
        let socket = std::net::TcpStream::connect(settings.target)?;
        socket.set_nonblocking(true)?;
        let mut socket = TcpStream::from_std(socket);
        poll.registry().register(&mut socket, Token(number), Interest::READABLE)?;
        let mut connection = Buffered::new(socket);
        connection.send(format!("GET /events HTTP/1.1\r\nHost: {}\r\n\r\n", settings.host).as_bytes())?;
        followers.push(Follower { connection, has_head: false, last: 0, fault: None });
    }
    let started = clock.now();
    let end = started + Duration::from_secs(settings.seconds);
    let (window, every) = (Duration::from_millis(settings.window), Duration::from_millis(settings.every));
    let mut pauses = Pauses::new(settings.connections, started, window);
    let mut arrived = vec![started; settings.connections];
    let mut events = Events::with_capacity(1024);
    let mut scratch = vec![0; SCRATCH_BYTES];
    while clock.now() < end {
        match poll.poll(&mut events, Some(Duration::from_millis(100))) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        let now = clock.now();
        for event in &events {
            let number = event.token().0;
            let follower = &mut followers[number];
            let before = follower.last;
            if follower.fault.is_none()
                && let Err(fault) = follower.advance(&mut scratch)
            {
                follower.fault = Some(fault);
            }
            if before > 0 && follower.last > before {
                // What the backend itself waits is no pause.
                pauses.note(number, now, now.since(arrived[number]).saturating_sub(every));
            }
            if follower.last > before {
                arrived[number] = now;
            }
        }
    }
    let mut errors: BTreeMap<String, u64> = BTreeMap::new();
    followers
        .iter()
        .filter_map(|follower| follower.fault.clone())
        .for_each(|fault| *errors.entry(fault).or_default() += 1);
    let silent = followers.iter().filter(|follower| follower.last == 0).count();
    if silent > 0 {
        errors.insert("no event at all".to_owned(), silent as u64);
    }
    Ok(json!({
        "events": followers.iter().map(|follower| follower.last).sum::<u64>(),
        "errors": errors,
        "seconds": clock.now().since(started).as_secs_f64(),
        "pauses_us": pauses.report(),
    }))
}

impl Follower {
    fn advance(&mut self, scratch: &mut [u8]) -> Result<(), String> {
        let filled = self.connection.fill(scratch);
        if !self.has_head {
            let Some(head) = self.connection.take_head().map_err(|error| error.to_string())? else {
                return filled.map_err(|error| error.to_string());
            };
            if !head.starts_with(b"HTTP/1.1 200 ") {
                return Err(format!("answered with {:?}", String::from_utf8_lossy(&head).lines().next().unwrap_or("")));
            }
            self.has_head = true;
        }
        while let Some(end) = self.next_chunk()? {
            self.connection.input.drain(..end);
        }
        filled.map_err(|error| format!("the stream ended: {error}"))
    }

    /// Where the first chunk ends, if all of it is there. It is the next event, and nothing else.
    fn next_chunk(&mut self) -> Result<Option<usize>, String> {
        let input = &self.connection.input;
        let Some(line) = input.windows(2).position(|window| window == b"\r\n") else { return Ok(None) };
        let size = std::str::from_utf8(&input[..line]).ok().and_then(|size| usize::from_str_radix(size, 16).ok());
        let size = size.ok_or("a chunk without a size")?;
        let end = line + 2 + size + 2;
        if input.len() < end {
            return Ok(None);
        }
        // A proxy may put several events into one chunk.
        let text = String::from_utf8_lossy(&input[line + 2..line + 2 + size]).into_owned();
        for event in text.split_terminator("\n\n") {
            self.last += 1;
            if event != format!("data: {}", self.last) {
                return Err(format!("lost or doubled: {event:?} in place of event {}", self.last));
            }
        }
        Ok(Some(end))
    }
}
