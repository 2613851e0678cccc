//! A load generator for figures that `wrk` does not give: requests at a fixed rate, or an exact number of them.
//!
//! With `--rate` the requests have a timetable, and each latency counts from the moment the timetable says, not from
//! the moment of sending: a proxy that stalls makes the following requests late too, and that shows. Without it, every
//! connection sends its next request when it has its answer. One JSON line tells what happened.

mod http_client;
mod own_backend;

use clap::Parser;
use http_client::{Connection, Outcome};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use nix::sys::time::{TimeSpec, TimeValLike};
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use own_backend::OwnBackend;
use serde_json::json;
use sluice::base::clock::{Clock, Moment};
use std::collections::{BTreeMap, VecDeque};
use std::error::Error;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

/// How long answers may take that are outstanding when the last request has been sent.
const GRACE: Duration = Duration::from_secs(10);
const TIMER: Token = Token(usize::MAX);
const SCRATCH_BYTES: usize = 256 * 1024;
const MAX_REQUESTS: u64 = 50_000_000;
/// The timer's period is at least this long: above 20,000 requests a second two may leave with one tick.
const SHORTEST_TICK_NANOS: i64 = 50_000;

/// Sends GET requests at a fixed rate or an exact number of them, and prints what came back as JSON.
#[derive(Parser)]
struct Args {
    /// The proxy.
    #[arg(long)]
    target: SocketAddr,
    /// The `Host` of every request.
    #[arg(long, default_value = "www.test")]
    host: String,
    /// The path of every request.
    #[arg(long, default_value = "/")]
    path: String,
    /// How many connections to open.
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Requests a second. Without it, each connection sends as soon as it has its answer.
    #[arg(long)]
    rate: Option<u64>,
    /// How many requests to send in all.
    #[arg(long)]
    requests: Option<u64>,
    /// Where to be the backend as well, of answers of 140 bytes.
    #[arg(long)]
    response_at: Option<SocketAddr>,
    /// For how many seconds, the first ones, latencies do not count: connections are opened then.
    #[arg(long, default_value_t = 0)]
    settle: u64,
    /// For how long to send.
    #[arg(long, required_unless_present = "requests")]
    seconds: Option<u64>,
}

impl Args {
    /// The number of requests after which no more is sent.
    fn limit(&self) -> u64 {
        let by_time = match (self.rate, self.seconds) {
            (Some(rate), Some(seconds)) => rate.saturating_mul(seconds),
            _ => MAX_REQUESTS,
        };
        self.requests.unwrap_or(MAX_REQUESTS).min(by_time).min(MAX_REQUESTS)
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let mut run = Run::open(args)?;
    run.send_and_receive()?;
    println!("{}", run.report());
    Ok(())
}

struct Run {
    clock: Clock,
    started: Moment,
    limit: u64,
    args: Args,
    poll: Poll,
    timer: TimerFd,
    connections: Vec<Connection>,
    own_backend: Option<OwnBackend>,
    /// First in, first out, so that all connections are used.
    idle: VecDeque<usize>,
    sent: u64,
    last_sent: Moment,
    last_response: Moment,
    statuses: BTreeMap<u16, u64>,
    /// By the first words of what went wrong.
    socket_errors: BTreeMap<String, u64>,
    latencies_us: Vec<u32>,
}

impl Run {
    fn open(args: Args) -> Result<Self, Box<dyn Error>> {
        let clock = Clock::new();
        let request = format!("GET {} HTTP/1.1\r\nHost: {}\r\n\r\n", args.path, args.host).into_bytes();
        let poll = Poll::new()?;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK)?;
        poll.registry().register(&mut SourceFd(&timer.as_fd().as_raw_fd()), TIMER, Interest::READABLE)?;
        let own_backend = args.response_at.map(|address| OwnBackend::open(address, poll.registry())).transpose()?;
        let mut connections = Vec::with_capacity(args.connections);
        for index in 0..args.connections {
            connections.push(Connection::open(args.target, &request, poll.registry(), Token(index))?);
        }
        if let Some(rate) = args.rate {
            let period = TimeSpec::nanoseconds((1_000_000_000 / rate.max(1).cast_signed()).max(SHORTEST_TICK_NANOS));
            timer.set(Expiration::Interval(period), TimerSetTimeFlags::empty())?;
        }
        let started = clock.now();
        Ok(Self {
            clock,
            started,
            limit: args.limit(),
            idle: (0..args.connections).collect(),
            args,
            poll,
            timer,
            connections,
            own_backend,
            sent: 0,
            last_sent: started,
            last_response: started,
            statuses: BTreeMap::new(),
            socket_errors: BTreeMap::new(),
            latencies_us: Vec::new(),
        })
    }

    fn send_and_receive(&mut self) -> Result<(), Box<dyn Error>> {
        let mut events = Events::with_capacity(1024);
        let mut scratch = vec![0; SCRATCH_BYTES];
        loop {
            self.send_what_is_due()?;
            let now = self.clock.now();
            let all_back = self.idle.len() == self.connections.len();
            if self.is_over(now) && (all_back || now.since(self.last_sent) > GRACE) {
                return Ok(());
            }
            if let Err(error) = self.poll.poll(&mut events, Some(Duration::from_millis(100)))
                && error.kind() != std::io::ErrorKind::Interrupted
            {
                return Err(error.into());
            }
            for event in &events {
                match event.token() {
                    TIMER => drop(self.timer.wait()),
                    Token(own_backend::FIRST_TOKEN..) => {
                        if let Some(backend) = &mut self.own_backend {
                            backend.ready(event.token(), self.poll.registry(), &mut scratch)?;
                        }
                    }
                    Token(index) => self.receive(index, &mut scratch)?,
                }
            }
        }
    }

    /// Whether no further request will be sent.
    fn is_over(&self, now: Moment) -> bool {
        let out_of_time = match (self.args.seconds, self.args.rate) {
            // A timetable is kept to its end, however late.
            (Some(seconds), None) => now.since(self.started) >= Duration::from_secs(seconds),
            (Some(seconds), Some(_)) => now.since(self.started) >= Duration::from_secs(seconds) + GRACE,
            (None, _) => false,
        };
        self.sent >= self.limit || out_of_time
    }

    fn send_what_is_due(&mut self) -> Result<(), Box<dyn Error>> {
        while !self.idle.is_empty() {
            let now = self.clock.now();
            let due = self.intended(self.sent, now);
            if due > now || self.is_over(now) {
                break;
            }
            let Some(index) = self.idle.pop_front() else { break };
            self.sent += 1;
            self.last_sent = now;
            if let Err(error) = self.connections[index].send(due) {
                self.fail(index, &error.to_string())?;
            }
        }
        Ok(())
    }

    /// When the request of this number is to be sent.
    fn intended(&self, number: u64, now: Moment) -> Moment {
        match self.args.rate {
            Some(rate) => self.started + Duration::from_micros(number * 1_000_000 / rate.max(1)),
            None => now,
        }
    }

    fn receive(&mut self, index: usize, scratch: &mut [u8]) -> Result<(), Box<dyn Error>> {
        match self.connections[index].receive(scratch) {
            Outcome::Waiting => Ok(()),
            Outcome::Responded { status, intended, close } => {
                self.last_response = self.clock.now();
                if intended >= self.started + Duration::from_secs(self.args.settle) {
                    let latency = self.last_response.since(intended).as_micros();
                    self.latencies_us.push(u32::try_from(latency).unwrap_or(u32::MAX));
                }
                *self.statuses.entry(status).or_default() += 1;
                if close { self.reconnect(index) } else { self.set_idle(index) }
            }
            Outcome::ClosedWhileIdle => {
                self.idle.retain(|&other| other != index);
                self.reconnect(index)
            }
            Outcome::Failed(what) => self.fail(index, &what),
        }
    }

    fn set_idle(&mut self, index: usize) -> Result<(), Box<dyn Error>> {
        self.idle.push_back(index);
        Ok(())
    }

    fn fail(&mut self, index: usize, what: &str) -> Result<(), Box<dyn Error>> {
        *self.socket_errors.entry(what.to_owned()).or_default() += 1;
        self.reconnect(index)
    }

    fn reconnect(&mut self, index: usize) -> Result<(), Box<dyn Error>> {
        self.connections[index].reopen(self.args.target, self.poll.registry(), Token(index))?;
        self.set_idle(index)
    }

    fn report(&mut self) -> serde_json::Value {
        self.latencies_us.sort_unstable();
        let responses: u64 = self.statuses.values().sum();
        let good: u64 = self.statuses.range(200..300).map(|(_, count)| count).sum();
        let socket_errors: u64 = self.socket_errors.values().sum();
        // What the timetable held and was never sent failed as well.
        let unsent = if self.args.rate.is_some() { self.limit - self.sent } else { 0 };
        json!({
            "sent": self.sent,
            "unsent": unsent,
            "answers": responses,
            "good": good,
            "failed": self.sent + unsent - good,
            "unanswered": self.sent - responses - socket_errors,
            "statuses": self.statuses,
            "socket_errors": self.socket_errors,
            "seconds": self.last_response.since(self.started).as_secs_f64(),
            "p50_us": percentile(&self.latencies_us, 0.5),
            "p99_us": percentile(&self.latencies_us, 0.99),
            "p999_us": percentile(&self.latencies_us, 0.999),
            "max_us": self.latencies_us.last(),
        })
    }
}

/// The smallest latency that at least this share of all does not exceed.
fn percentile(sorted: &[u32], share: f64) -> Option<u32> {
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied()
}
