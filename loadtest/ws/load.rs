//! The client: opens tunnels and plays ping-pong over each.

use super::frame::{self, BINARY};
use super::pauses::Pauses;
use super::socket::Buffered;
use super::{ACCEPT, KEY};
use clap::Args;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use serde_json::json;
use sluice::base::clock::{Clock, Moment};
use std::collections::{BTreeMap, VecDeque};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

const SCRATCH_BYTES: usize = 256 * 1024;
/// How many tunnels may be on their way at once: as many as a short accept queue holds.
const MAX_OPENING: usize = 100;
/// How long all handshakes may take, and answers that are outstanding at the end.
const GRACE: Duration = Duration::from_secs(20);

#[derive(Args)]
pub(crate) struct Settings {
    /// The proxy.
    #[arg(long)]
    target: SocketAddr,
    /// The `Host` of the handshakes.
    #[arg(long, default_value = "ws.test")]
    host: String,
    /// How many tunnels to hold open at once.
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Bytes of a message.
    #[arg(long, default_value_t = 64)]
    size: usize,
    /// For how long to send.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// How many messages to send over each tunnel, if that ends earlier.
    #[arg(long, default_value_t = u64::MAX)]
    messages: u64,
    /// Milliseconds from a message that came back to the next one over the same tunnel.
    #[arg(long, default_value_t = 0)]
    pace: u64,
    /// Milliseconds of which each tunnel counts by its longest round trip.
    #[arg(long, default_value_t = 1000)]
    window: u64,
}

#[derive(PartialEq)]
enum State {
    Handshake,
    Idle,
    /// A message is on its way, sent at this moment.
    Away(Moment),
    Failed,
}

struct Tunnel {
    connection: Buffered,
    state: State,
    sent: u64,
    payload: Vec<u8>,
}

struct Load {
    settings: Settings,
    clock: Clock,
    poll: Poll,
    tunnels: Vec<Tunnel>,
    errors: BTreeMap<String, u64>,
    latencies_us: Vec<u32>,
    pauses: Pauses,
    /// The tunnels whose next message is due, in order: every pace is the same.
    due: VecDeque<(Moment, usize)>,
    out: Vec<u8>,
}

/// Opens every tunnel, and only then sends the first message.
pub(crate) fn run(settings: Settings) -> io::Result<serde_json::Value> {
    let clock = Clock::new();
    let mut load = Load {
        pauses: Pauses::new(settings.connections, clock.now(), Duration::from_millis(settings.window)),
        due: VecDeque::new(),
        clock,
        poll: Poll::new()?,
        tunnels: Vec::with_capacity(settings.connections),
        settings,
        errors: BTreeMap::new(),
        latencies_us: Vec::new(),
        out: Vec::new(),
    };
    load.open_all()?;
    let opened = load.count(|state| *state == State::Idle);
    let started = load.clock.now();
    load.play(started)?;
    Ok(load.report(opened, started))
}

impl Load {
    fn count(&self, matches: impl Fn(&State) -> bool) -> usize {
        self.tunnels.iter().filter(|tunnel| matches(&tunnel.state)).count()
    }

    fn open_all(&mut self) -> io::Result<()> {
        let deadline = self.clock.now() + GRACE;
        let mut events = Events::with_capacity(1024);
        let mut scratch = vec![0; SCRATCH_BYTES];
        loop {
            let mut opening = self.count(|state| *state == State::Handshake);
            while self.tunnels.len() < self.settings.connections && opening < MAX_OPENING {
                self.open_one()?;
                opening += 1;
            }
            if opening == 0 || self.clock.now() > deadline {
                return Ok(());
            }
            self.poll_once(&mut events)?;
            for event in &events {
                self.advance(event.token().0, &mut scratch, deadline);
            }
        }
    }

    fn open_one(&mut self) -> io::Result<()> {
        let mut socket = TcpStream::connect(self.settings.target)?;
        socket.set_nodelay(true)?;
        let token = Token(self.tunnels.len());
        self.poll.registry().register(&mut socket, token, Interest::READABLE | Interest::WRITABLE)?;
        let mut connection = Buffered::new(socket);
        let request = format!(
            "GET /ws HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n",
            self.settings.host
        );
        // A connection that is still being made takes nothing; the handshake leaves when it becomes writable.
        connection.send(request.as_bytes())?;
        let payload = vec![0; self.settings.size];
        self.tunnels.push(Tunnel { connection, state: State::Handshake, sent: 0, payload });
        Ok(())
    }

    fn play(&mut self, started: Moment) -> io::Result<()> {
        let end = started + Duration::from_secs(self.settings.seconds);
        let mut events = Events::with_capacity(1024);
        let mut scratch = vec![0; SCRATCH_BYTES];
        for index in 0..self.tunnels.len() {
            self.send_next(index, end);
        }
        while (self.is_any_away() || !self.due.is_empty()) && self.clock.now() < end + GRACE {
            self.poll_once(&mut events)?;
            while let Some((due, index)) = self.due.front().copied()
                && due <= self.clock.now()
            {
                self.due.pop_front();
                self.send_next(index, end);
            }
            for event in &events {
                self.advance(event.token().0, &mut scratch, end);
            }
        }
        Ok(())
    }

    fn is_any_away(&self) -> bool {
        self.tunnels.iter().any(|tunnel| matches!(tunnel.state, State::Away(_)))
    }

    fn poll_once(&mut self, events: &mut Events) -> io::Result<()> {
        let now = self.clock.now();
        let wait = self.due.front().map_or(Duration::MAX, |(due, _)| due.since(now));
        match self.poll.poll(events, Some(wait.min(Duration::from_millis(100)))) {
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(()),
            outcome => outcome,
        }
    }

    /// Reads what came over a tunnel, and answers it with the next message until `end`.
    fn advance(&mut self, index: usize, scratch: &mut [u8], end: Moment) {
        let tunnel = &mut self.tunnels[index];
        if tunnel.state == State::Failed {
            return;
        }
        let filled = tunnel.connection.flush().and_then(|()| tunnel.connection.fill(scratch));
        let outcome = match tunnel.state {
            State::Handshake => tunnel.finish_handshake(),
            _ => self.receive(index),
        };
        match outcome {
            Ok(true) if self.settings.pace > 0 => {
                self.due.push_back((self.clock.now() + Duration::from_millis(self.settings.pace), index));
            }
            Ok(true) => self.send_next(index, end),
            Ok(false) => {}
            Err(what) => return self.fail(index, what),
        }
        if let Err(error) = filled {
            self.fail(index, error.to_string());
        }
    }

    /// Whether the message that was away came back, with every byte as it was.
    fn receive(&mut self, index: usize) -> Result<bool, String> {
        let tunnel = &mut self.tunnels[index];
        let input = &mut tunnel.connection.input;
        let Some(frame) = frame::parse(input)? else { return Ok(false) };
        let State::Away(sent_at) = tunnel.state else { return Err("a message that nobody sent".to_owned()) };
        if frame.opcode != BINARY || frame.mask.is_some() || input[frame.payload.clone()] != tunnel.payload {
            return Err("what came back is not what was sent".to_owned());
        }
        input.drain(..frame.payload.end);
        tunnel.state = State::Idle;
        let now = self.clock.now();
        let latency = now.since(sent_at);
        self.latencies_us.push(u32::try_from(latency.as_micros()).unwrap_or(u32::MAX));
        self.pauses.note(index, now, latency);
        Ok(true)
    }

    fn send_next(&mut self, index: usize, end: Moment) {
        let now = self.clock.now();
        let tunnel = &mut self.tunnels[index];
        if tunnel.state != State::Idle || tunnel.sent >= self.settings.messages || now >= end {
            return;
        }
        // Every message is another: one that went to the wrong tunnel, or came twice, does not compare.
        let mut random = fastrand::Rng::with_seed(((index as u64) << 40) | tunnel.sent);
        random.fill(&mut tunnel.payload);
        self.out.clear();
        frame::append(&mut self.out, BINARY, Some(random.u32(..).to_ne_bytes()), &tunnel.payload);
        tunnel.state = State::Away(now);
        tunnel.sent += 1;
        if let Err(error) = tunnel.connection.send(&self.out) {
            self.fail(index, error.to_string());
        }
    }

    fn fail(&mut self, index: usize, what: String) {
        *self.errors.entry(what).or_default() += 1;
        self.tunnels[index].state = State::Failed;
    }

    fn report(&mut self, opened: usize, started: Moment) -> serde_json::Value {
        self.latencies_us.sort_unstable();
        let rank = |share: f64| (self.latencies_us.len() as f64 * share) as usize;
        let sent: u64 = self.tunnels.iter().map(|tunnel| tunnel.sent).sum();
        json!({
            "opened": opened,
            "open_at_end": self.count(|state| *state == State::Idle),
            "sent": sent,
            "echoed": self.latencies_us.len(),
            "failed": sent - self.latencies_us.len() as u64 + (self.settings.connections - opened) as u64,
            "errors": self.errors,
            "seconds": self.clock.now().since(started).as_secs_f64(),
            "p50_us": self.latencies_us.get(rank(0.5)),
            "p99_us": self.latencies_us.get(rank(0.99)),
            "pauses_us": self.pauses.report(),
        })
    }
}

impl Tunnel {
    /// Nothing is sent after it: all tunnels are to be open before the first message.
    fn finish_handshake(&mut self) -> Result<bool, String> {
        let Some(head) = self.connection.take_head().map_err(|error| error.to_string())? else { return Ok(false) };
        let head = String::from_utf8_lossy(&head);
        if !head.starts_with("HTTP/1.1 101 ") || !head.contains(ACCEPT) {
            return Err(format!("the handshake was answered with {:?}", head.lines().next().unwrap_or("")));
        }
        self.state = State::Idle;
        Ok(false)
    }
}
